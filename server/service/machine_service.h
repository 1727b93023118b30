#ifndef MMLAB_SERVER_SERVICE_MACHINE_SERVICE_H_
#define MMLAB_SERVER_SERVICE_MACHINE_SERVICE_H_

#include "mmlab/v1/machine.grpc.pb.h"
#include "server/service/apply_operation.h"
#include "server/service/call.h"
#include "server/service/operation_list.h"

namespace mmlab {

// mmlab.v1.MachineService: machines are made, found and ended.
class MachineService final : public v1::MachineService::CallbackService {
 public:
  // `context` outlives this.
  explicit MachineService(const ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* CreateMachine(Context* context, const v1::CreateMachineRequest* request, v1::CreateMachineResponse* response) override;
  Reactor* GetMachine(Context* context, const v1::GetMachineRequest* request, v1::GetMachineResponse* response) override;
  Reactor* ListMachines(Context* context, const v1::ListMachinesRequest* request, v1::ListMachinesResponse* response) override;
  Reactor* DeleteMachine(Context* context, const v1::DeleteMachineRequest* request, v1::DeleteMachineResponse* response) override;
  Reactor* BootMachine(Context* context, const v1::BootMachineRequest* request, v1::BootMachineResponse* response) override;
  Reactor* ListPresets(Context* context, const v1::ListPresetsRequest* request, v1::ListPresetsResponse* response) override;
  Reactor* CheckMachine(Context* context, const v1::CheckMachineRequest* request, v1::CheckMachineResponse* response) override;
#define MMLAB_METHOD(Name, field)                                                                            \
  Reactor* Name(Context* context, const v1::Name##Request* request, v1::Name##Response* response) override { \
    return HandleOperation(context_, context, request, response);                                            \
  }
  MMLAB_MACHINE_OPERATIONS(MMLAB_METHOD)
#undef MMLAB_METHOD

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_MACHINE_SERVICE_H_

#ifndef MMLAB_SERVER_SERVICE_PROCESS_SERVICE_H_
#define MMLAB_SERVER_SERVICE_PROCESS_SERVICE_H_

#include "mmlab/v1/process.grpc.pb.h"
#include "server/service/apply_operation.h"
#include "server/service/call.h"
#include "server/service/operation_list.h"

namespace mmlab {

// mmlab.v1.ProcessService: processes and what they ask of the kernel.
class ProcessService final : public v1::ProcessService::CallbackService {
 public:
  // `context` outlives this.
  explicit ProcessService(const ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* GetProcess(Context* context, const v1::GetProcessRequest* request, v1::GetProcessResponse* response) override;
  Reactor* ListProcesses(Context* context, const v1::ListProcessesRequest* request, v1::ListProcessesResponse* response) override;
#define MMLAB_METHOD(Name, field)                                                                            \
  Reactor* Name(Context* context, const v1::Name##Request* request, v1::Name##Response* response) override { \
    return HandleOperation(context_, context, request, response);                                            \
  }
  MMLAB_PROCESS_OPERATIONS(MMLAB_METHOD)
#undef MMLAB_METHOD

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_PROCESS_SERVICE_H_

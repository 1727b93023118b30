#ifndef MMLAB_SERVER_SERVICE_PROC_SERVICE_H_
#define MMLAB_SERVER_SERVICE_PROC_SERVICE_H_

#include "mmlab/v1/proc.grpc.pb.h"
#include "server/service/call.h"

namespace mmlab {

// mmlab.v1.ProcService: /proc as text and as messages.
class ProcService final : public v1::ProcService::CallbackService {
 public:
  // `context` outlives this.
  explicit ProcService(const ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* ListProcFiles(Context* context, const v1::ListProcFilesRequest* request, v1::ListProcFilesResponse* response) override;
  Reactor* ReadProcFile(Context* context, const v1::ReadProcFileRequest* request, v1::ReadProcFileResponse* response) override;
  Reactor* ReadKernelLog(Context* context, const v1::ReadKernelLogRequest* request, v1::ReadKernelLogResponse* response) override;
  Reactor* GetMeminfo(Context* context, const v1::GetMeminfoRequest* request, v1::GetMeminfoResponse* response) override;
  Reactor* ListVmAreas(Context* context, const v1::ListVmAreasRequest* request, v1::ListVmAreasResponse* response) override;

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_PROC_SERVICE_H_

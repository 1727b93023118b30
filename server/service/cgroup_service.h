#ifndef MMLAB_SERVER_SERVICE_CGROUP_SERVICE_H_
#define MMLAB_SERVER_SERVICE_CGROUP_SERVICE_H_

#include "mmlab/v1/cgroup.grpc.pb.h"
#include "server/service/apply_operation.h"
#include "server/service/call.h"
#include "server/service/operation_list.h"

namespace mmlab {

// mmlab.v1.CgroupService: control groups and their memory controller.
class CgroupService final : public v1::CgroupService::CallbackService {
 public:
  // `context` outlives this.
  explicit CgroupService(const ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* ListCgroups(Context* context, const v1::ListCgroupsRequest* request, v1::ListCgroupsResponse* response) override;
#define MMLAB_METHOD(Name, field)                                                                            \
  Reactor* Name(Context* context, const v1::Name##Request* request, v1::Name##Response* response) override { \
    return HandleOperation(context_, context, request, response);                                            \
  }
  MMLAB_CGROUP_OPERATIONS(MMLAB_METHOD)
#undef MMLAB_METHOD

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_CGROUP_SERVICE_H_

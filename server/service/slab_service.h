#ifndef MMLAB_SERVER_SERVICE_SLAB_SERVICE_H_
#define MMLAB_SERVER_SERVICE_SLAB_SERVICE_H_

#include "mmlab/v1/kernel_memory.grpc.pb.h"
#include "server/service/apply_operation.h"
#include "server/service/call.h"
#include "server/service/operation_list.h"

namespace mmlab {

// mmlab.v1.SlabService: the slab allocator, its caches, slabs and objects.
class SlabService final : public v1::SlabService::CallbackService {
 public:
  // `context` outlives this.
  explicit SlabService(const ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* ListSlabCaches(Context* context, const v1::ListSlabCachesRequest* request, v1::ListSlabCachesResponse* response) override;
  Reactor* GetSlabCache(Context* context, const v1::GetSlabCacheRequest* request, v1::GetSlabCacheResponse* response) override;
  Reactor* GetSlabUsage(Context* context, const v1::GetSlabUsageRequest* request, v1::GetSlabUsageResponse* response) override;
  Reactor* GetSlabObject(Context* context, const v1::GetSlabObjectRequest* request, v1::GetSlabObjectResponse* response) override;
#define MMLAB_METHOD(Name, field)                                                                            \
  Reactor* Name(Context* context, const v1::Name##Request* request, v1::Name##Response* response) override { \
    return HandleOperation(context_, context, request, response);                                            \
  }
  MMLAB_SLAB_OPERATIONS(MMLAB_METHOD)
#undef MMLAB_METHOD

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_SLAB_SERVICE_H_

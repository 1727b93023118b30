#ifndef MMLAB_SERVER_SERVICE_KERNEL_ADDRESS_SERVICE_H_
#define MMLAB_SERVER_SERVICE_KERNEL_ADDRESS_SERVICE_H_

#include "mmlab/v1/vmalloc.grpc.pb.h"
#include "server/service/apply_operation.h"
#include "server/service/call.h"
#include "server/service/operation_list.h"

namespace mmlab {

// mmlab.v1.KernelAddressService: areas of the kernel's address space and mappings of high memory.
class KernelAddressService final : public v1::KernelAddressService::CallbackService {
 public:
  // `context` outlives this.
  explicit KernelAddressService(const ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* ListPercpuChunks(Context* context, const v1::ListPercpuChunksRequest* request, v1::ListPercpuChunksResponse* response) override;
#define MMLAB_METHOD(Name, field)                                                                            \
  Reactor* Name(Context* context, const v1::Name##Request* request, v1::Name##Response* response) override { \
    return HandleOperation(context_, context, request, response);                                            \
  }
  MMLAB_KERNEL_ADDRESS_OPERATIONS(MMLAB_METHOD)
#undef MMLAB_METHOD

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_KERNEL_ADDRESS_SERVICE_H_

#ifndef MMLAB_SERVER_SERVICE_MEMORY_SERVICE_H_
#define MMLAB_SERVER_SERVICE_MEMORY_SERVICE_H_

#include "mmlab/v1/memory.grpc.pb.h"
#include "server/service/apply_operation.h"
#include "server/service/call.h"
#include "server/service/operation_list.h"

namespace mmlab {

// mmlab.v1.MemoryService: address spaces as data, translation, the bytes of memory.
class MemoryService final : public v1::MemoryService::CallbackService {
 public:
  // `context` outlives this.
  explicit MemoryService(const ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* GetAddressSpace(Context* context, const v1::GetAddressSpaceRequest* request, v1::GetAddressSpaceResponse* response) override;
  Reactor* ListVmAreaStructs(Context* context, const v1::ListVmAreaStructsRequest* request,
                             v1::ListVmAreaStructsResponse* response) override;
  Reactor* ListVmaStoreNodes(Context* context, const v1::ListVmaStoreNodesRequest* request,
                             v1::ListVmaStoreNodesResponse* response) override;
  Reactor* ListPagemap(Context* context, const v1::ListPagemapRequest* request, v1::ListPagemapResponse* response) override;
  Reactor* TranslateVirtualAddress(Context* context, const v1::TranslateVirtualAddressRequest* request,
                                   v1::TranslateVirtualAddressResponse* response) override;
  Reactor* ReadMemory(Context* context, const v1::ReadMemoryRequest* request, v1::ReadMemoryResponse* response) override;
#define MMLAB_METHOD(Name, field)                                                                            \
  Reactor* Name(Context* context, const v1::Name##Request* request, v1::Name##Response* response) override { \
    return HandleOperation(context_, context, request, response);                                            \
  }
  MMLAB_MEMORY_OPERATIONS(MMLAB_METHOD)
#undef MMLAB_METHOD

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_MEMORY_SERVICE_H_

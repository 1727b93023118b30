#ifndef MMLAB_SERVER_SERVICE_PAGE_SERVICE_H_
#define MMLAB_SERVER_SERVICE_PAGE_SERVICE_H_

#include "mmlab/v1/page.grpc.pb.h"
#include "server/service/apply_operation.h"
#include "server/service/call.h"
#include "server/service/operation_list.h"

namespace mmlab {

// mmlab.v1.PageService: the page allocator and single frames.
class PageService final : public v1::PageService::CallbackService {
 public:
  // `context` outlives this.
  explicit PageService(const ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* ListFrames(Context* context, const v1::ListFramesRequest* request, v1::ListFramesResponse* response) override;
  Reactor* ListMovablePages(Context* context, const v1::ListMovablePagesRequest* request, v1::ListMovablePagesResponse* response) override;
  Reactor* ReadPhysical(Context* context, const v1::ReadPhysicalRequest* request, v1::ReadPhysicalResponse* response) override;
#define MMLAB_METHOD(Name, field)                                                                            \
  Reactor* Name(Context* context, const v1::Name##Request* request, v1::Name##Response* response) override { \
    return HandleOperation(context_, context, request, response);                                            \
  }
  MMLAB_PAGE_OPERATIONS(MMLAB_METHOD)
#undef MMLAB_METHOD

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_PAGE_SERVICE_H_

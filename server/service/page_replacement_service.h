#ifndef MMLAB_SERVER_SERVICE_PAGE_REPLACEMENT_SERVICE_H_
#define MMLAB_SERVER_SERVICE_PAGE_REPLACEMENT_SERVICE_H_

#include "mmlab/v1/page_replacement.grpc.pb.h"
#include "server/service/apply_operation.h"
#include "server/service/call.h"
#include "server/service/operation_list.h"

namespace mmlab {

// mmlab.v1.PageReplacementService: bounds on the resident pages of processes.
class PageReplacementService final : public v1::PageReplacementService::CallbackService {
 public:
  // `context` outlives this.
  explicit PageReplacementService(const ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* GetPageReplacement(Context* context, const v1::GetPageReplacementRequest* request,
                              v1::GetPageReplacementResponse* response) override;
#define MMLAB_METHOD(Name, field)                                                                            \
  Reactor* Name(Context* context, const v1::Name##Request* request, v1::Name##Response* response) override { \
    return HandleOperation(context_, context, request, response);                                            \
  }
  MMLAB_PAGE_REPLACEMENT_OPERATIONS(MMLAB_METHOD)
#undef MMLAB_METHOD

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_PAGE_REPLACEMENT_SERVICE_H_

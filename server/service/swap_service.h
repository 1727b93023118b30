#ifndef MMLAB_SERVER_SERVICE_SWAP_SERVICE_H_
#define MMLAB_SERVER_SERVICE_SWAP_SERVICE_H_

#include "mmlab/v1/swap.grpc.pb.h"
#include "server/service/apply_operation.h"
#include "server/service/call.h"
#include "server/service/operation_list.h"

namespace mmlab {

// mmlab.v1.SwapService: swap areas. All of it operations.
class SwapService final : public v1::SwapService::CallbackService {
 public:
  // `context` outlives this.
  explicit SwapService(const ServiceContext& context) : context_(context) {}

#define MMLAB_METHOD(Name, field)                                                                                                      \
  grpc::ServerUnaryReactor* Name(grpc::CallbackServerContext* context, const v1::Name##Request* request, v1::Name##Response* response) \
      override {                                                                                                                       \
    return HandleOperation(context_, context, request, response);                                                                      \
  }
  MMLAB_SWAP_OPERATIONS(MMLAB_METHOD)
#undef MMLAB_METHOD

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_SWAP_SERVICE_H_

#ifndef MMLAB_SERVER_SERVICE_LAYOUT_SERVICE_H_
#define MMLAB_SERVER_SERVICE_LAYOUT_SERVICE_H_

#include "mmlab/v1/layout.grpc.pb.h"
#include "server/service/call.h"

namespace mmlab {

// mmlab.v1.LayoutService: the kernel's address space, the boot log, address domains.
class LayoutService final : public v1::LayoutService::CallbackService {
 public:
  // `context` outlives this.
  explicit LayoutService(const ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* GetKernelLayout(Context* context, const v1::GetKernelLayoutRequest* request, v1::GetKernelLayoutResponse* response) override;
  Reactor* GetBootLog(Context* context, const v1::GetBootLogRequest* request, v1::GetBootLogResponse* response) override;
  Reactor* TranslateAddress(Context* context, const v1::TranslateAddressRequest* request, v1::TranslateAddressResponse* response) override;
  Reactor* GetAddressDomains(Context* context, const v1::GetAddressDomainsRequest* request,
                             v1::GetAddressDomainsResponse* response) override;

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_LAYOUT_SERVICE_H_

// Between the request messages of KernelAddressService and the engine's operations.

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/service/operation_converters.h"

namespace mmlab {
namespace {

constexpr size_t kMaxCaller = 128;
constexpr uint64_t kMaxMappedPages = 65536;

absl::Status CheckCaller(absl::string_view caller) {
  if (caller.size() > kMaxCaller) return InvalidField("caller", absl::StrCat("must have at most ", kMaxCaller, " bytes"));
  for (const char c : caller) {
    if (c < ' ' || c > '~') return InvalidField("caller", "must be printable ASCII");
  }
  return absl::OkStatus();
}

template <typename Request>
absl::Status CheckPages(const Request& request) {
  if (static_cast<uint64_t>(request.pfns_size()) > kMaxMappedPages) return FieldOutOfRange("pfns", "must be at most 65536");
  if (request.page_count() > kMaxMappedPages) return FieldOutOfRange("page_count", "must be at most 65536");
  if (request.pfns_size() != 0 && request.page_count() != 0) return InvalidField("page_count", "must be 0 with pfns");
  return absl::OkStatus();
}

op::GfpClass GfpToNative(v1::GfpClass gfp) {
  return gfp == v1::GFP_CLASS_UNSPECIFIED ? op::GfpClass::kKernel : static_cast<op::GfpClass>(gfp);
}

}  // namespace

absl::Status CheckFields(const v1::VmallocRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckCaller(request.caller()));
  return v1::GfpClass_IsValid(request.gfp()) ? absl::OkStatus() : InvalidField("gfp", "must be a value of GfpClass");
}
absl::Status CheckFields(const v1::VmapRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckPages(request));
  return CheckCaller(request.caller());
}
absl::Status CheckFields(const v1::GetVmAreaRequest& request) { return CheckCaller(request.caller()); }
absl::Status CheckFields(const v1::IoremapRequest& request) { return CheckCaller(request.caller()); }
absl::Status CheckFields(const v1::VmMapRamRequest& request) { return CheckPages(request); }

op::Vmalloc ToNative(const v1::VmallocRequest& r) {
  return {r.size_bytes(), r.align_bytes(), r.start_address(), r.end_address(), GfpToNative(r.gfp()), r.flags(), r.caller(), r.cpu()};
}
op::Vfree ToNative(const v1::VfreeRequest& r) { return {r.address(), r.cpu()}; }
op::Vmap ToNative(const v1::VmapRequest& r) { return {{r.pfns().begin(), r.pfns().end()}, r.page_count(), r.caller()}; }
op::Vunmap ToNative(const v1::VunmapRequest& r) { return {r.address()}; }
op::GetVmArea ToNative(const v1::GetVmAreaRequest& r) { return {r.size_bytes(), r.flags(), r.caller()}; }
op::Ioremap ToNative(const v1::IoremapRequest& r) { return {r.physical_address(), r.size_bytes(), r.caller()}; }
op::Iounmap ToNative(const v1::IounmapRequest& r) { return {r.address()}; }
op::VmMapRam ToNative(const v1::VmMapRamRequest& r) { return {{r.pfns().begin(), r.pfns().end()}, r.page_count(), r.cpu()}; }
op::VmUnmapRam ToNative(const v1::VmUnmapRamRequest& r) { return {r.address(), r.page_count()}; }
op::VmUnmapAliases ToNative(const v1::VmUnmapAliasesRequest&) { return {}; }
op::Kmap ToNative(const v1::KmapRequest& r) { return {r.pfn()}; }
op::Kunmap ToNative(const v1::KunmapRequest& r) { return {r.pfn()}; }
op::KmapLocal ToNative(const v1::KmapLocalRequest& r) { return {r.pfn(), r.cpu()}; }
op::KunmapLocal ToNative(const v1::KunmapLocalRequest& r) { return {r.address(), r.cpu()}; }
op::KmapFlushUnused ToNative(const v1::KmapFlushUnusedRequest&) { return {}; }
op::AllocPercpu ToNative(const v1::AllocPercpuRequest& r) { return {r.size_bytes(), r.align_bytes(), r.atomic()}; }
op::FreePercpu ToNative(const v1::FreePercpuRequest& r) { return {r.address()}; }

}  // namespace mmlab

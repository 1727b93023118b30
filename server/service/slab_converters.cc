// Between the request messages of SlabService and the engine's operations.

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/service/operation_converters.h"

namespace mmlab {
namespace {

constexpr size_t kMaxCacheName = 64;
constexpr int kMaxBulk = 65536;
constexpr size_t kMaxSlabinfoLine = 4096;
constexpr size_t kMaxSlabWrite = 4096;

absl::Status CheckCacheName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxCacheName) return InvalidField("cache", absl::StrCat("must have 1 to ", kMaxCacheName, " bytes"));
  for (const char c : name) {
    if (c <= ' ' || c > '~') return InvalidField("cache", "must be printable ASCII without spaces");
  }
  return absl::OkStatus();
}

absl::Status CheckGfp(v1::GfpClass gfp) {
  return v1::GfpClass_IsValid(gfp) ? absl::OkStatus() : InvalidField("gfp", "must be a value of GfpClass");
}

op::GfpClass GfpToNative(v1::GfpClass gfp) {
  return gfp == v1::GFP_CLASS_UNSPECIFIED ? op::GfpClass::kKernel : static_cast<op::GfpClass>(gfp);
}

}  // namespace

absl::Status CheckFields(const v1::KmemCacheCreateRequest& request) { return CheckCacheName(request.cache()); }
absl::Status CheckFields(const v1::KmemCacheDestroyRequest& request) { return CheckCacheName(request.cache()); }
absl::Status CheckFields(const v1::KmemCacheShrinkRequest& request) { return CheckCacheName(request.cache()); }
absl::Status CheckFields(const v1::KmemCacheAllocRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckCacheName(request.cache()));
  return CheckGfp(request.gfp());
}
absl::Status CheckFields(const v1::KmemCacheFreeRequest& request) { return CheckCacheName(request.cache()); }
absl::Status CheckFields(const v1::KmemCacheAllocBulkRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckCacheName(request.cache()));
  if (request.count() > kMaxBulk) return FieldOutOfRange("count", absl::StrCat("must be at most ", kMaxBulk));
  return CheckGfp(request.gfp());
}
absl::Status CheckFields(const v1::KmemCacheFreeBulkRequest& request) {
  if (request.addresses_size() > kMaxBulk) return FieldOutOfRange("addresses", absl::StrCat("must have at most ", kMaxBulk));
  return CheckCacheName(request.cache());
}
absl::Status CheckFields(const v1::WriteSlabinfoRequest& request) {
  return request.line().size() <= kMaxSlabinfoLine ? absl::OkStatus() : FieldOutOfRange("line", "must have at most 4096 bytes");
}
absl::Status CheckFields(const v1::WriteSlabMemoryRequest& request) {
  if (request.data().empty()) return InvalidField("data", "must be set");
  return request.data().size() <= kMaxSlabWrite ? absl::OkStatus() : FieldOutOfRange("data", "must have at most 4096 bytes");
}
absl::Status CheckFields(const v1::KmallocRequest& request) { return CheckGfp(request.gfp()); }
absl::Status CheckFields(const v1::KreallocRequest& request) { return CheckGfp(request.gfp()); }

op::KmemCacheCreate ToNative(const v1::KmemCacheCreateRequest& r) {
  return {r.cache(), r.object_size_bytes(), r.align_bytes(), r.flags(), r.constructor(), r.usersize_bytes()};
}
op::KmemCacheDestroy ToNative(const v1::KmemCacheDestroyRequest& r) { return {r.cache()}; }
op::KmemCacheShrink ToNative(const v1::KmemCacheShrinkRequest& r) { return {r.cache()}; }
op::KmemCacheAlloc ToNative(const v1::KmemCacheAllocRequest& r) { return {r.cache(), GfpToNative(r.gfp()), r.cpu(), r.zero()}; }
op::KmemCacheFree ToNative(const v1::KmemCacheFreeRequest& r) { return {r.cache(), r.address(), r.cpu()}; }
op::KmemCacheAllocBulk ToNative(const v1::KmemCacheAllocBulkRequest& r) { return {r.cache(), r.count(), GfpToNative(r.gfp()), r.cpu()}; }
op::KmemCacheFreeBulk ToNative(const v1::KmemCacheFreeBulkRequest& r) {
  return {r.cache(), {r.addresses().begin(), r.addresses().end()}, r.cpu()};
}
op::Kmalloc ToNative(const v1::KmallocRequest& r) { return {r.size_bytes(), GfpToNative(r.gfp()), r.cpu(), r.zero()}; }
op::Krealloc ToNative(const v1::KreallocRequest& r) { return {r.address(), r.size_bytes(), GfpToNative(r.gfp()), r.cpu()}; }
op::Kfree ToNative(const v1::KfreeRequest& r) { return {r.address(), r.cpu()}; }
op::Ksize ToNative(const v1::KsizeRequest& r) { return {r.address()}; }
op::WriteSlabinfo ToNative(const v1::WriteSlabinfoRequest& r) { return {r.line()}; }
op::WriteSlabMemory ToNative(const v1::WriteSlabMemoryRequest& r) { return {r.address(), r.data()}; }

}  // namespace mmlab

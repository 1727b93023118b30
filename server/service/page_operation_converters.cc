// Checks and conversions of PageService's operations.

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/service/operation_converters.h"

namespace mmlab {
namespace {

constexpr int kMaxPagesAtOnce = 65536;
constexpr uint64_t kMaxMovableId = (uint64_t{1} << 40) - 1;

template <typename Request>
absl::Status CheckGfp(const Request& request) {
  return v1::GfpClass_IsValid(request.gfp()) ? absl::OkStatus() : InvalidField("gfp", "must be a value of GfpClass");
}

absl::Status CheckOrder(int32_t order) {
  if (order < 0) return InvalidField("order", "must not be negative");
  return absl::OkStatus();
}

op::GfpClass GfpToNative(v1::GfpClass gfp) {
  return gfp == v1::GFP_CLASS_UNSPECIFIED ? op::GfpClass::kKernel : static_cast<op::GfpClass>(gfp);
}

}  // namespace

absl::Status CheckFields(const v1::AllocPagesRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckGfp(request));
  if (request.movable_id() > kMaxMovableId) return FieldOutOfRange("movable_id", "must be below 2^40");
  return CheckOrder(request.order());
}

absl::Status CheckFields(const v1::FreePagesRequest& request) { return CheckOrder(request.order()); }

absl::Status CheckFields(const v1::GetFreePagesRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckGfp(request));
  return CheckOrder(request.order());
}

absl::Status CheckFields(const v1::AllocPagesExactRequest& request) { return CheckGfp(request); }

absl::Status CheckFields(const v1::AllocPagesBulkRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckGfp(request));
  if (request.count() > kMaxPagesAtOnce) return FieldOutOfRange("count", absl::StrCat("must be at most ", kMaxPagesAtOnce));
  return absl::OkStatus();
}

absl::Status CheckFields(const v1::FreePageListRequest& request) {
  if (request.pfns_size() > kMaxPagesAtOnce) return FieldOutOfRange("pfns", absl::StrCat("must have at most ", kMaxPagesAtOnce));
  return absl::OkStatus();
}

absl::Status CheckFields(const v1::SplitPageRequest& request) { return CheckOrder(request.order()); }

op::AllocPages ToNative(const v1::AllocPagesRequest& r) { return {GfpToNative(r.gfp()), r.order(), r.cpu(), r.zero(), r.movable_id()}; }
op::FreePages ToNative(const v1::FreePagesRequest& r) { return {r.pfn(), r.order(), r.cpu(), r.movable_id()}; }
op::GetFreePages ToNative(const v1::GetFreePagesRequest& r) { return {GfpToNative(r.gfp()), r.order(), r.cpu(), r.zero()}; }
op::AllocPagesExact ToNative(const v1::AllocPagesExactRequest& r) { return {GfpToNative(r.gfp()), r.size_bytes(), r.cpu(), r.zero()}; }
op::FreePagesExact ToNative(const v1::FreePagesExactRequest& r) { return {r.pfn(), r.size_bytes(), r.cpu()}; }
op::AllocPagesBulk ToNative(const v1::AllocPagesBulkRequest& r) { return {GfpToNative(r.gfp()), r.count(), r.cpu()}; }
op::FreePageList ToNative(const v1::FreePageListRequest& r) { return {{r.pfns().begin(), r.pfns().end()}, r.cpu()}; }
op::SplitPage ToNative(const v1::SplitPageRequest& r) { return {r.pfn(), r.order()}; }
op::DrainPages ToNative(const v1::DrainPagesRequest& r) { return {r.cpu(), r.all()}; }
op::CompactMemory ToNative(const v1::CompactMemoryRequest& /*r*/) { return {}; }

}  // namespace mmlab

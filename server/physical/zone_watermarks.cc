// Whether a zone may serve a request. The rules are those of __zone_watermark_ok() and zone_watermark_fast().

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

bool BuddyMemory::WatermarkOk(const Zone& zone, int order, uint64_t mark, int highest_zone, uint32_t flags, int64_t free_pages) const {
  auto min = static_cast<int64_t>(mark);
  if ((flags & kAllocMinReserve) != 0) {
    min -= min / 2;
    if ((flags & kAllocNonBlock) != 0) min -= min / 4;
  }
  if (free_pages - UnusableFree(zone, order, flags) <= min + static_cast<int64_t>(zone.lowmem_reserve[highest_zone])) return false;
  if (order == 0) return true;
  // Enough pages, but is one block large enough?
  for (int at = order; at <= kMaxOrder; ++at) {
    const FreeArea& area = zone.free_area[at];
    if (area.nr_free == 0) continue;
    for (int type = 0; type < kMigratePcpTypes; ++type) {
      if (!area.lists[type].empty()) return true;
    }
    if ((flags & kAllocCma) != 0 && !area.lists[kMigrateCma].empty()) return true;
    if ((flags & kAllocHighatomic) != 0 && !area.lists[kMigrateHighatomic].empty()) return true;
  }
  return false;
}

bool BuddyMemory::WatermarkSlow(const Zone& zone, int order, uint64_t mark, int highest_zone, uint32_t flags, Gfp gfp) const {
  const auto free = static_cast<int64_t>(zone.free_pages());
  if (WatermarkOk(zone, order, mark, highest_zone, flags, free)) return true;
  // The boost is for kswapd's sake; single pages for those who cannot wait ignore it.
  if (order != 0 || (gfp & kGfpAtomicFlag) == 0 || zone.watermark_boost == 0 || (flags & kAllocWmarkMask) != kAllocWmarkMin) return false;
  return WatermarkOk(zone, order, zone.wmark_min, highest_zone, flags, free);
}

void BuddyMemory::ExplainZone(const Zone& zone, int order, uint64_t mark, int highest_zone, uint32_t flags, bool ok) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  const absl::string_view name = (flags & kAllocWmarkMask) == kAllocWmarkLow ? "low" : "min";
  why->Add(StepKind::kZoneCheck, absl::StrCat("zone ", zone.name(), ok ? " is above" : " is not above", " its ", name, " watermark"))
      .Text("zone", zone.name())
      .Number("order", order)
      .Pages("free", static_cast<int64_t>(zone.free_pages()))
      .Pages("unusable", UnusableFree(zone, order, flags))
      .Pages("watermark", static_cast<int64_t>(mark))
      .Pages("boost", static_cast<int64_t>(zone.watermark_boost))
      .Pages("lowmem_reserve", static_cast<int64_t>(zone.lowmem_reserve[highest_zone]))
      .Truth("may_use_reserves", (flags & kAllocReserves) != 0)
      .Truth("ok", ok);
}

}  // namespace mmlab

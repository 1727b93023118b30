// Why zones, watermarks and per-CPU lists are as they are: the arithmetic of free_area_init(), calculate_min_free_kbytes(),
// __setup_per_zone_wmarks(), setup_per_zone_lowmem_reserve() and zone_batchsize(), step by step.

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/physical/page_allocator.h"
#include "server/physical/watermarks.h"

namespace mmlab {
namespace {

uint64_t PagesWithin(const std::vector<PfnRange>& ranges, const Zone& zone) {
  uint64_t pages = 0;
  for (const PfnRange& range : ranges) {
    const uint64_t start = std::max<uint64_t>(range.start.raw(), zone.start_pfn);
    const uint64_t end = std::min<uint64_t>(range.end.raw(), zone.end_pfn());
    if (start < end) pages += end - start;
  }
  return pages;
}

}  // namespace

void BuddyMemory::ExplainZones(const PhysicalConfig& config) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  for (const Zone& zone : zones()) {
    if (zone.spanned == 0) {
      why->Add(StepKind::kZoneBounds, absl::StrCat("zone ", zone.name(), " is empty: no RAM lies between its bounds"))
          .Text("zone", zone.name());
      continue;
    }
    why->Add(StepKind::kZoneBounds,
             absl::StrCat("zone ", zone.name(), zone.spanned == zone.present ? " is RAM throughout" : " has RAM and holes"))
        .Text("zone", zone.name())
        .Frame("start_pfn", Pfn(zone.start_pfn))
        .Frame("end_pfn", Pfn(zone.end_pfn()))
        .Pages("spanned", PageCount(zone.spanned))
        .Pages("present", PageCount(zone.present))
        .Pages("absent", PageCount(zone.spanned - zone.present));
    const uint64_t late = PagesWithin(config.late_freed, zone);
    why->Add(StepKind::kZoneManaged,
             "RAM less what is reserved goes to the page allocator; what boot alone needs follows after the watermarks")
        .Text("zone", zone.name())
        .Pages("present", PageCount(zone.present))
        .Pages("reserved", PageCount(zone.present - zone.managed))
        .Pages("cma", PageCount(zone.cma_pages))
        .Pages("managed_for_watermarks", PageCount(zone.managed - late))
        .Pages("freed_late", PageCount(late))
        .Pages("managed", PageCount(zone.managed));
  }
}

// `from`: zones with the managed pages that the numbers were computed from.
void BuddyMemory::ExplainWatermarks(absl::Span<const Zone> from) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  const int to_kbytes = page_size_.shift() - 10;
  uint64_t buffer_pages = 0;
  uint64_t lowmem_pages = 0;
  for (const Zone& zone : from) {
    if (zone.type <= ZoneType::kNormal) buffer_pages += zone.managed;
    if (!zone.highmem) lowmem_pages += zone.managed;
  }
  const bool written = user_min_free_kbytes_ == min_free_kbytes_;
  std::vector<Zone> bare(from.begin(), from.end());
  for (Zone& zone : bare) zone.wmark_high = 0;
  const uint32_t root = DefaultMinFreeKbytes(bare, page_size_);
  ComputeWatermarks(absl::MakeSpan(bare), page_size_, root, watermark_scale_factor_);
  why->Add(StepKind::kMinFreeKbytes, written ? "min_free_kbytes as it was written"
                                             : "min_free_kbytes: the root of 16 x lowmem, 128 .. 262144; from 512 MiB on once more beyond "
                                               "the high watermarks, or what huge pages want")
      .Number("lowmem_kbytes", static_cast<int64_t>(buffer_pages << to_kbytes))
      .Number("root_rule", root)
      .Number("root_rule_beyond_high_watermarks", DefaultMinFreeKbytes(bare, page_size_))
      .Number("huge_pages_rule", HugepageMinFreeKbytes(from, page_size_, pageblock_order(), 0))
      .Number("min_free_kbytes", min_free_kbytes_)
      .Pages("totalreserve_pages", PageCount(TotalReservePages(from)));
  const uint64_t pages_min = uint64_t{min_free_kbytes_} >> to_kbytes;
  for (const Zone& zone : from) {
    if (zone.managed == 0) continue;
    ExplanationStep& step =
        why->Add(StepKind::kZoneWatermarks, zone.highmem ? "min: a 1024th of the zone, 32 .. 128 pages; low and high: a distance more each"
                                                         : "min: the zone's share of min_free_kbytes; low and high: a distance more each");
    const uint64_t share = lowmem_pages == 0 ? 0 : pages_min * zone.managed / lowmem_pages;
    step.Text("zone", zone.name())
        .Pages("managed", PageCount(zone.managed))
        .Pages("lowmem", PageCount(lowmem_pages))
        .Pages("min_free", PageCount(pages_min))
        .Pages("share", PageCount(share))
        .Number("watermark_scale_factor", watermark_scale_factor_)
        .Pages("distance", PageCount(zone.wmark_low - zone.wmark_min))
        .Pages("min", PageCount(zone.wmark_min))
        .Pages("low", PageCount(zone.wmark_low))
        .Pages("high", PageCount(zone.wmark_high))
        .Number("lowmem_reserve_ratio", lowmem_reserve_ratio_[static_cast<size_t>(zone.type)]);
    for (const Zone& above : from) {
      if (above.index <= zone.index) continue;
      step.Pages(absl::StrCat("protection_", above.name()), static_cast<int64_t>(zone.lowmem_reserve[static_cast<size_t>(above.index)]));
    }
    why->Add(StepKind::kPcpSizes,
             "batch: a quarter of a 1024th of the zone, at most of 1 MiB, as 2^n - 1; high: low's share of a CPU, 4 batches at least")
        .Text("zone", zone.name())
        .Number("cpus", cpus_)
        .Number("high_fraction", pagelist_high_fraction_)
        .Pages("batch", PageCount(zone.pageset_batch))
        .Pages("high", PageCount(zone.pageset_high))
        .Pages("counter_threshold", int64_t{zone.stat_threshold});
  }
}

}  // namespace mmlab

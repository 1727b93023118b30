#include "server/physical/watermarks.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace mmlab {
namespace {

// Largest r with r * r <= value.
uint64_t IntegerRoot(uint64_t value) {
  auto root = static_cast<uint64_t>(std::sqrt(static_cast<double>(value)));
  while (root * root > value) --root;
  while ((root + 1) * (root + 1) <= value) ++root;
  return root;
}

// value * numerator / denominator without overflow of the product, rounded down.
uint64_t MultiplyFraction(uint64_t value, uint64_t numerator, uint64_t denominator) {
  return value / denominator * numerator + value % denominator * numerator / denominator;
}

// zone_batchsize(): a quarter of 1/1024 of the zone or of 1 MiB, made 2^n - 1.
uint32_t PagesetBatch(const Zone& zone, PageSize page_size) {
  const uint64_t limit = page_size.WholePagesIn(Bytes(1 << 20)).raw();
  const uint64_t quarter = std::max<uint64_t>(std::min<uint64_t>(zone.managed >> 10, limit) / 4, 1);
  const uint64_t batch = std::bit_floor(quarter + quarter / 2) - 1;
  return static_cast<uint32_t>(std::max<uint64_t>(batch, 1));
}

}  // namespace

void ComputePagesets(absl::Span<Zone> zones, PageSize page_size, uint32_t high_fraction) {
  for (Zone& zone : zones) {
    zone.pageset_batch = PagesetBatch(zone, page_size);
    const uint64_t all = high_fraction == 0 ? zone.wmark_low : zone.managed / high_fraction;
    const uint64_t share = all / std::max<size_t>(zone.pcp.size(), 1);
    zone.pageset_high = static_cast<uint32_t>(std::max<uint64_t>(share, uint64_t{zone.pageset_batch} * 4));
    for (PerCpuPages& pcp : zone.pcp) {
      pcp.high = zone.pageset_high;
      pcp.batch = zone.pageset_batch;
    }
  }
}

uint64_t FreeBufferPages(absl::Span<const Zone> zones) {
  uint64_t sum = 0;
  for (const Zone& zone : zones) {
    if (zone.type > ZoneType::kNormal) continue;
    if (zone.managed > zone.wmark_high) sum += zone.managed - zone.wmark_high;
  }
  return sum;
}

uint32_t DefaultMinFreeKbytes(absl::Span<const Zone> zones, PageSize page_size) {
  const uint64_t lowmem_kbytes = page_size.BytesOf(PageCount(FreeBufferPages(zones))).raw() >> 10;
  return static_cast<uint32_t>(std::clamp<uint64_t>(IntegerRoot(lowmem_kbytes * 16), 128, 262144));
}

uint32_t HugepageMinFreeKbytes(absl::Span<const Zone> zones, PageSize page_size, int pageblock_order, uint32_t min_free_kbytes) {
  constexpr uint64_t kBlocksPerZone = 2 + kMigratePcpTypes * kMigratePcpTypes;
  uint64_t pages = 0;
  for (const Zone& zone : zones) {
    if (zone.populated() && zone.type <= ZoneType::kNormal) pages += kBlocksPerZone << pageblock_order;
  }
  pages = std::min(pages, FreeBufferPages(zones) / 20);
  return std::max(min_free_kbytes, static_cast<uint32_t>(pages << (page_size.shift() - 10)));
}

void ComputeWatermarks(absl::Span<Zone> zones, PageSize page_size, uint32_t min_free_kbytes, uint32_t watermark_scale_factor) {
  constexpr uint64_t kHighmemLeast = 32;  // SWAP_CLUSTER_MAX
  constexpr uint64_t kHighmemMost = 128;
  const uint64_t pages_min = uint64_t{min_free_kbytes} >> (page_size.shift() - 10);
  uint64_t lowmem_pages = 0;
  for (const Zone& zone : zones) {
    if (!zone.highmem) lowmem_pages += zone.managed;
  }
  for (Zone& zone : zones) {
    const uint64_t share = lowmem_pages == 0 ? 0 : pages_min * zone.managed / lowmem_pages;
    zone.wmark_min = zone.highmem ? std::clamp<uint64_t>(zone.managed / 1024, kHighmemLeast, kHighmemMost) : share;
    const uint64_t distance = std::max(share / 4, MultiplyFraction(zone.managed, watermark_scale_factor, 10000));
    zone.watermark_boost = 0;
    zone.wmark_low = zone.wmark_min + distance;
    zone.wmark_high = zone.wmark_low + distance;
    zone.wmark_promo = zone.wmark_high + distance;
  }
}

void ComputeLowmemReserve(absl::Span<Zone> zones, const std::array<uint32_t, 5>& ratio) {
  for (size_t i = 0; i + 1 < zones.size(); ++i) {
    const uint32_t divisor = ratio[static_cast<size_t>(zones[i].type)];
    uint64_t above = 0;
    for (size_t j = i + 1; j < zones.size(); ++j) {
      above += zones[j].managed;
      zones[i].lowmem_reserve[j] = divisor == 0 || zones[i].managed == 0 ? 0 : above / divisor;
    }
  }
}

void ComputeStatThresholds(absl::Span<Zone> zones, PageSize page_size, int cpus) {
  constexpr int kMostThreshold = 125;
  for (Zone& zone : zones) {
    if (!zone.populated()) continue;
    const uint64_t units = uint64_t{zone.managed} >> (27 - page_size.shift());  // Of 128 MiB.
    const int threshold = 2 * static_cast<int>(std::bit_width(static_cast<unsigned>(cpus))) * (1 + static_cast<int>(std::bit_width(units)));
    zone.stat_threshold = std::min(threshold, kMostThreshold);
    const uint64_t most_drift = static_cast<uint64_t>(cpus) * static_cast<uint64_t>(zone.stat_threshold);
    zone.percpu_drift_mark = most_drift > zone.wmark_low - zone.wmark_min ? zone.wmark_high + most_drift : 0;
  }
}

uint32_t ComputeBootSettings(absl::Span<Zone> zones, const BootSettings& settings) {
  constexpr Bytes kLeastForHugepages(512 << 20);
  uint32_t min_free_kbytes = DefaultMinFreeKbytes(zones, settings.page_size);
  ComputeWatermarks(zones, settings.page_size, min_free_kbytes, settings.watermark_scale_factor);
  ComputePagesets(zones, settings.page_size, 0);
  ComputeStatThresholds(zones, settings.page_size, settings.cpus);
  ComputeLowmemReserve(zones, settings.lowmem_reserve_ratio);
  PageCount total;
  for (const Zone& zone : zones) total += PageCount(zone.managed);
  if (total < settings.page_size.WholePagesIn(kLeastForHugepages)) return min_free_kbytes;
  min_free_kbytes = settings.transparent_hugepage
                        ? HugepageMinFreeKbytes(zones, settings.page_size, settings.pageblock_order, min_free_kbytes)
                        : DefaultMinFreeKbytes(zones, settings.page_size);
  ComputeWatermarks(zones, settings.page_size, min_free_kbytes, settings.watermark_scale_factor);
  ComputePagesets(zones, settings.page_size, 0);
  return min_free_kbytes;
}

uint64_t TotalReservePages(absl::Span<const Zone> zones) {
  uint64_t sum = 0;
  for (const Zone& zone : zones) {
    uint64_t reserve = 0;
    for (size_t j = static_cast<size_t>(zone.index); j < zone.lowmem_reserve.size(); ++j)
      reserve = std::max(reserve, zone.lowmem_reserve[j]);
    sum += std::min<uint64_t>(reserve + zone.wmark_high, zone.managed);
  }
  return sum;
}

}  // namespace mmlab

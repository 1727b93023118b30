#ifndef MMLAB_SERVER_PHYSICAL_WATERMARKS_H_
#define MMLAB_SERVER_PHYSICAL_WATERMARKS_H_

#include <array>
#include <cstdint>

#include "absl/types/span.h"
#include "server/base/address.h"
#include "server/physical/zone.h"

namespace mmlab {

// The numbers that the kernel derives from the managed pages of its zones. Linux: init_per_zone_wmark_min() and what it calls in
// mm/page_alloc.c, refresh_zone_stat_thresholds() in mm/vmstat.c. Pure arithmetic over Zone; nothing else of the zone is looked at.
//
// Order matters: the kernel computes all of it once during boot, before init sections and the initramfs are freed, so `managed` must be
// what it was then.

// nr_free_buffer_pages(): pages of the zones that ordinary kernel requests can use, beyond the high watermarks. REQUIRES: watermarks
// computed, or all 0.
uint64_t FreeBufferPages(absl::Span<const Zone> zones);

// min_free_kbytes by the square-root rule, 128 .. 262144.
uint32_t DefaultMinFreeKbytes(absl::Span<const Zone> zones, PageSize page_size);

// set_recommended_min_free_kbytes(): what transparent huge pages want kept free when they are enabled, two page blocks a zone and more, at
// most 5 % of lowmem; never less than `min_free_kbytes`. REQUIRES: watermarks computed.
uint32_t HugepageMinFreeKbytes(absl::Span<const Zone> zones, PageSize page_size, int pageblock_order, uint32_t min_free_kbytes);

// wmark_min/low/high/promo, boost 0.
void ComputeWatermarks(absl::Span<Zone> zones, PageSize page_size, uint32_t min_free_kbytes, uint32_t watermark_scale_factor);

// Pageset high and batch of every CPU, which depend on the watermarks. `high_fraction`: sysctl percpu_pagelist_high_fraction, which share
// of a zone the CPUs may keep; 0: as much as its low watermark.
void ComputePagesets(absl::Span<Zone> zones, PageSize page_size, uint32_t high_fraction);

// lowmem_reserve of every zone. `ratio` by ZoneType.
void ComputeLowmemReserve(absl::Span<Zone> zones, const std::array<uint32_t, 5>& ratio);

// stat_threshold and percpu_drift_mark.
void ComputeStatThresholds(absl::Span<Zone> zones, PageSize page_size, int cpus);

// All of the above in the order of boot; returns min_free_kbytes. The square-root rule runs a second time when huge pages are set up, then
// over what is beyond the high watermarks of the first; machines below 512 MiB never set them up.
struct BootSettings {
  PageSize page_size{12};
  int pageblock_order = kMaxOrder;
  int cpus = 1;
  bool transparent_hugepage = false;  // Enabled: always or madvise.
  uint32_t watermark_scale_factor = 10;
  std::array<uint32_t, 5> lowmem_reserve_ratio{};
};
uint32_t ComputeBootSettings(absl::Span<Zone> zones, const BootSettings& settings);

// What no zone may hand out to ordinary users: high watermark + largest reserve, at most the zone. Pages.
uint64_t TotalReservePages(absl::Span<const Zone> zones);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_WATERMARKS_H_

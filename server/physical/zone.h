#ifndef MMLAB_SERVER_PHYSICAL_ZONE_H_
#define MMLAB_SERVER_PHYSICAL_ZONE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/address.h"
#include "server/physical/frame.h"
#include "server/physical/migrate_type.h"
#include "server/physical/physical_config.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

inline constexpr int kZones = 4;  // MAX_NR_ZONES of all three kernels; kX86_32LowMem uses three of them.

// Per-CPU lists of a zone: one for each of orders 0..3 and three migrate types, and two for blocks as large as a page block
// (movable, and everything else). Linux: order_to_pindex(), NR_PCP_LISTS.
inline constexpr int kPcpLists = 14;
inline constexpr int kPcpHugeList = 12;
inline constexpr int kCostlyOrder = 3;  // PAGE_ALLOC_COSTLY_ORDER

// A list of blocks, linked through the Frame of each block's first page. count = blocks on it.
struct FrameList {
  uint32_t head = kNoFrame;
  uint32_t tail = kNoFrame;
  uint32_t count = 0;
  bool empty() const { return head == kNoFrame; }
};

// One of a CPU's lists: blocks come and go at its head, and leave in bulk from its tail. It costs a quick allocation one word, so nothing
// counts its blocks, and Frame::prev of the head is not kept.
struct PcpList {
  uint32_t head = kNoFrame;
  uint32_t tail = kNoFrame;  // Means nothing while the list is empty.
  bool empty() const { return head == kNoFrame; }
};

// Free pages that one CPU keeps to itself. Linux: struct per_cpu_pages and the parts of struct per_cpu_zonestat that decide something.
struct PerCpuPages {
  uint32_t count = 0;       // Pages on all lists.
  uint32_t limit = 0;       // At this many pages some are given back: high, or less while the zone is being reclaimed (nr_pcp_high()).
  uint8_t free_factor = 0;  // Doublings of the batch that is given back; grows with frees, halves with each allocation.
  std::array<PcpList, kPcpLists> lists;
  uint32_t high = 0;
  uint32_t batch = 1;  // Pages moved at once.

  // What this CPU has not yet added to the zone's nr_free_pages and nr_free_cma (vm_stat_diff).
  int32_t free_diff = 0;
  int32_t cma_diff = 0;
};

// One column of buddyinfo and its lists by migrate type.
struct FreeArea {
  std::array<FrameList, kMigrateTypes> lists;
  uint32_t nr_free = 0;  // Blocks on all of them.
};

// Bits of Zone::flags.
enum ZoneFlag : uint32_t {
  kZoneBoostedWatermark = 1u << 0,  // ZONE_BOOSTED_WATERMARK: boosted since kswapd was last woken.
  kZoneReclaimActive = 1u << 1,     // ZONE_RECLAIM_ACTIVE: kswapd may be scanning the zone.
};

// A range of frames with its own free lists and watermarks. Linux: struct zone, include/linux/mmzone.h.
//
// Plain data: BuddyMemory changes it, everybody else reads it (procfs, metrics) through a const reference; every number that
// /proc/zoneinfo, buddyinfo and extfrag print is here and costs O(1). (pagetypeinfo's number of page blocks:
// BuddyMemory::PageblockCounts().)
//
// Always true: free_pages_exact() is the sum over orders of nr_free x 2^order; managed <= present <= spanned.
struct Zone {
  ZoneType type = ZoneType::kNormal;
  bool highmem = false;  // is_highmem(): HighMem, and Movable when it lies in HighMem.
  int index = 0;         // In BuddyMemory::zones(), and Frame::zone.

  uint32_t start_pfn = 0;
  uint32_t spanned = 0;  // Frames from the first to the last.
  uint32_t present = 0;  // Of these, RAM.
  uint32_t managed = 0;  // Of these, given to the page allocator, free or not.
  uint32_t cma_pages = 0;

  uint64_t wmark_min = 0;  // Pages, without boost.
  uint64_t wmark_low = 0;
  uint64_t wmark_high = 0;
  uint64_t wmark_promo = 0;
  uint64_t watermark_boost = 0;
  std::array<uint64_t, kZones> lowmem_reserve{};  // "protection": kept from requests that could have used zone i.

  uint32_t nr_reserved_highatomic = 0;  // Pages in page blocks kept for high-order atomic requests.
  uint32_t flags = 0;                   // ZoneFlag bits.

  uint32_t pageset_high = 0;
  uint32_t pageset_batch = 1;
  int32_t stat_threshold = 0;  // A CPU adds its part of a counter to the zone's when it exceeds this.
  uint64_t percpu_drift_mark = 0;

  std::array<FreeArea, kOrders> free_area;
  std::vector<PerCpuPages> pcp;  // By CPU.

  uint64_t numa_hits = 0;  // Requests that it served (numa_hit, numa_local), where the kernel counts by node: there is one.

  // By ZoneStat. nr_free_pages and nr_free_cma here leave out what the CPUs still hold back, and so may be a little off, even negative.
  std::array<int64_t, kZoneStats> stats{};

  bool populated() const { return present != 0; }
  uint32_t end_pfn() const { return start_pfn + spanned; }
  bool Spans(uint32_t pfn) const { return pfn - start_pfn < spanned; }
  absl::string_view name() const;  // "DMA32"

  // zone_page_state(): as the watermark checks and /proc read it, never negative.
  uint64_t stat(ZoneStat item) const {
    const int64_t value = stats[static_cast<size_t>(item)];
    return value < 0 ? 0 : static_cast<uint64_t>(value);
  }
  uint64_t stat(NumaStat item) const { return item == NumaStat::kNumaHit || item == NumaStat::kNumaLocal ? numa_hits : 0; }
  uint64_t free_pages() const { return stat(ZoneStat::kNrFreePages); }
  // zone_page_state_snapshot(): with what the CPUs hold back.
  uint64_t free_pages_exact() const {
    int64_t value = stats[static_cast<size_t>(ZoneStat::kNrFreePages)];
    for (const PerCpuPages& cpu : pcp) value += cpu.free_diff;
    return value < 0 ? 0 : static_cast<uint64_t>(value);
  }
};

absl::string_view ZoneTypeName(ZoneType type);

// The kinds of zones of a kernel, by zone index. Three or four.
std::vector<ZoneType> ZoneTypesOf(ZoneSet set);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_ZONE_H_

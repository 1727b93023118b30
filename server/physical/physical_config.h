#ifndef MMLAB_SERVER_PHYSICAL_PHYSICAL_CONFIG_H_
#define MMLAB_SERVER_PHYSICAL_PHYSICAL_CONFIG_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/base/address.h"

namespace mmlab {

// The kinds of zones. A machine has four of them, in this order (ZoneSet); the index of a zone is its place there, as in the kernel.
enum class ZoneType : uint8_t { kDma = 0, kDma32 = 1, kNormal = 2, kHighMem = 3, kMovable = 4 };

// Which zones a kernel is built with.
enum class ZoneSet : uint8_t {
  kX86_32,        // DMA, Normal, HighMem, Movable
  kX86_32LowMem,  // DMA, Normal, Movable: a kernel without CONFIG_HIGHMEM
  kArm64,         // DMA, DMA32, Normal, Movable
};

// Why frames of RAM are not given to the page allocator.
struct ReservedRange {
  PfnRange range;
  std::string purpose;  // "Kernel code", "memmap", ...
};

// All that decides what the physical memory of a machine looks like when its init process starts.
//
// REQUIRES: ranges of one list ascend and do not overlap; reserved, late_freed, cma and boot_slabs ranges do not overlap each other and lie
// within ram (a reserved range may also lie outside: then it is ignored).
struct PhysicalConfig {
  ZoneSet zones = ZoneSet::kX86_32;
  PageSize page_size{12};
  int pageblock_order = kMaxOrder;  // 10 on x86-32, 9 with PAE and on ARM64 with 4 KiB pages.
  int cpus = 1;

  std::vector<PfnRange> ram;
  std::vector<ReservedRange> reserved;
  // Given to the allocator only after the kernel has computed its watermarks: init sections, initramfs.
  std::vector<PfnRange> late_freed;
  std::vector<PfnRange> cma;  // Whole page blocks.
  // What start-up took of the page allocator's memory for slabs: frames of state kSlab, in use for good.
  std::vector<PfnRange> boot_slabs;
  uint64_t boot_slab_reclaimable = 0;  // As many of these pages count as nr_slab_reclaimable.

  // First frame beyond each kind of zone, indexed by ZoneType; a kind that the ZoneSet has not is ignored. Ascending. Zones that hold no
  // RAM come out empty. Movable takes nothing unless its start is below the end of RAM.
  std::array<Pfn, 5> zone_end{};

  bool transparent_hugepage = false;        // Enabled (always or madvise) at boot: raises min_free_kbytes.
  std::optional<uint32_t> min_free_kbytes;  // As if written to /proc/sys/vm/min_free_kbytes after boot; else the kernel's own rules.
  uint32_t watermark_scale_factor = 10;
  uint32_t watermark_boost_factor = 15000;
  // sysctl lowmem_reserve_ratio, by ZoneType; 0 = the zone keeps nothing back.
  std::array<uint32_t, 5> lowmem_reserve_ratio{256, 256, 32, 0, 0};

  // ZERO_PAGE(0). Must be reserved RAM. Without it, the first reserved frame of RAM is taken, or else one is allocated.
  std::optional<Pfn> zero_frame;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_PHYSICAL_CONFIG_H_

#ifndef MMLAB_SERVER_PHYSICAL_VM_STAT_H_
#define MMLAB_SERVER_PHYSICAL_VM_STAT_H_

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "server/base/check.h"
#include "server/base/hash.h"

namespace mmlab {

// The counters behind /proc/vmstat, /proc/zoneinfo and most of /proc/meminfo, by the kernel's names and in the order in which
// /proc/vmstat prints them: all of ZoneStat, NumaStat, NodeStat, nr_dirty_threshold, nr_dirty_background_threshold, VmEvent, nr_unstable.
//
// Who counts what: the page allocator itself drives nr_free_pages and nr_free_cma (those two live in Zone, with their per-CPU parts),
// numa_hit, numa_local, pgalloc_*, pgfree. Everything else is bumped by the room that owns the fact (process: nr_anon_pages, nr_mapped,
// nr_mlock, pgfault ...; files: nr_file_pages, nr_shmem ...). What never happens in a machine stays 0: there are no devices that cannot
// reach high memory (nr_bounce), no compressed swap, no balloon, one node; shmem is never unlocked (unevictable_pgs_scanned), no inode is
// taken back while its file exists (pginodesteal, kswapd_inodesteal), and nobody changes the protection of the linear map
// (direct_map_*_splits).

// One zone's counters, zone_stat_item of include/linux/mmzone.h, in pages unless the name says otherwise.
enum class ZoneStat : uint8_t {
  kNrFreePages,
  kNrZoneInactiveAnon,
  kNrZoneActiveAnon,
  kNrZoneInactiveFile,
  kNrZoneActiveFile,
  kNrZoneUnevictable,
  kNrZoneWritePending,
  kNrMlock,
  kNrBounce,
  kNrZspages,
  kNrFreeCma,
};
inline constexpr int kZoneStats = 11;

// Where allocations were served from, numa_stat_item; only kernels with NUMA show them (ARM64).
enum class NumaStat : uint8_t {
  kNumaHit,
  kNumaMiss,
  kNumaForeign,
  kNumaInterleave,
  kNumaLocal,
  kNumaOther,
};
inline constexpr int kNumaStats = 6;

// The node's counters, node_stat_item of include/linux/mmzone.h, in pages (nr_kernel_stack: KiB).
enum class NodeStat : uint8_t {
  kNrInactiveAnon,
  kNrActiveAnon,
  kNrInactiveFile,
  kNrActiveFile,
  kNrUnevictable,
  kNrSlabReclaimable,
  kNrSlabUnreclaimable,
  kNrIsolatedAnon,
  kNrIsolatedFile,
  kWorkingsetNodes,
  kWorkingsetRefaultAnon,
  kWorkingsetRefaultFile,
  kWorkingsetActivateAnon,
  kWorkingsetActivateFile,
  kWorkingsetRestoreAnon,
  kWorkingsetRestoreFile,
  kWorkingsetNodereclaim,
  kNrAnonPages,
  kNrMapped,
  kNrFilePages,
  kNrDirty,
  kNrWriteback,
  kNrWritebackTemp,
  kNrShmem,
  kNrShmemHugepages,
  kNrShmemPmdmapped,
  kNrFileHugepages,
  kNrFilePmdmapped,
  kNrAnonTransparentHugepages,
  kNrVmscanWrite,
  kNrVmscanImmediateReclaim,
  kNrDirtied,
  kNrWritten,
  kNrThrottledWritten,
  kNrKernelMiscReclaimable,
  kNrFollPinAcquired,
  kNrFollPinReleased,
  kNrKernelStack,
  kNrPageTablePages,
  kNrSecPageTablePages,
  kNrSwapcached,
  kPgpromoteSuccess,
  kPgpromoteCandidate,
};
inline constexpr int kNodeStats = 43;

// What happened since boot, vm_event_item of include/linux/vm_event_item.h. They only grow.
enum class VmEvent : uint8_t {
  kPgpgin,
  kPgpgout,
  kPswpin,
  kPswpout,
  kPgallocDma,
  kPgallocDma32,
  kPgallocNormal,
  kPgallocHigh,
  kPgallocMovable,
  kAllocstallDma,
  kAllocstallDma32,
  kAllocstallNormal,
  kAllocstallHigh,
  kAllocstallMovable,
  kPgskipDma,
  kPgskipDma32,
  kPgskipNormal,
  kPgskipHigh,
  kPgskipMovable,
  kPgfree,
  kPgactivate,
  kPgdeactivate,
  kPglazyfree,
  kPgfault,
  kPgmajfault,
  kPglazyfreed,
  kPgrefill,
  kPgreuse,
  kPgstealKswapd,
  kPgstealDirect,
  kPgdemoteKswapd,
  kPgdemoteDirect,
  kPgscanKswapd,
  kPgscanDirect,
  kPgscanDirectThrottle,
  kPgscanAnon,
  kPgscanFile,
  kPgstealAnon,
  kPgstealFile,
  kZoneReclaimFailed,
  kPginodesteal,
  kSlabsScanned,
  kKswapdInodesteal,
  kKswapdLowWmarkHitQuickly,
  kKswapdHighWmarkHitQuickly,
  kPageoutrun,
  kPgrotated,
  kDropPagecache,
  kDropSlab,
  kOomKill,
  kNumaPteUpdates,
  kNumaHugePteUpdates,
  kNumaHintFaults,
  kNumaHintFaultsLocal,
  kNumaPagesMigrated,
  kPgmigrateSuccess,
  kPgmigrateFail,
  kThpMigrationSuccess,
  kThpMigrationFail,
  kThpMigrationSplit,
  kCompactMigrateScanned,
  kCompactFreeScanned,
  kCompactIsolated,
  kCompactStall,
  kCompactFail,
  kCompactSuccess,
  kCompactDaemonWake,
  kCompactDaemonMigrateScanned,
  kCompactDaemonFreeScanned,
  kHtlbBuddyAllocSuccess,
  kHtlbBuddyAllocFail,
  kCmaAllocSuccess,
  kCmaAllocFail,
  kUnevictablePgsCulled,
  kUnevictablePgsScanned,
  kUnevictablePgsRescued,
  kUnevictablePgsMlocked,
  kUnevictablePgsMunlocked,
  kUnevictablePgsCleared,
  kUnevictablePgsStranded,
  kThpFaultAlloc,
  kThpFaultFallback,
  kThpFaultFallbackCharge,
  kThpCollapseAlloc,
  kThpCollapseAllocFailed,
  kThpFileAlloc,
  kThpFileFallback,
  kThpFileFallbackCharge,
  kThpFileMapped,
  kThpSplitPage,
  kThpSplitPageFailed,
  kThpDeferredSplitPage,
  kThpSplitPmd,
  kThpScanExceedNonePte,
  kThpScanExceedSwapPte,
  kThpScanExceedSharePte,
  kThpZeroPageAlloc,
  kThpZeroPageAllocFailed,
  kThpSwpout,
  kThpSwpoutFallback,
  kBalloonInflate,
  kBalloonDeflate,
  kBalloonMigrate,
  kSwapRa,
  kSwapRaHit,
  kKsmSwpinCopy,
  kCowKsm,
  kZswpin,
  kZswpout,
  kDirectMapLevel2Splits,
  kDirectMapLevel3Splits,
};
inline constexpr int kVmEvents = 111;

// Which kernels have a counter at all: some depend on the zones, on NUMA and on CMA. Values of a bit mask.
enum StatAvailability : uint8_t { kStatOnX86 = 1, kStatOnArm64 = 2 };

// The kernel's name, "nr_free_pages".
absl::string_view StatName(ZoneStat item);
absl::string_view StatName(NumaStat item);
absl::string_view StatName(NodeStat item);
absl::string_view StatName(VmEvent item);

// StatAvailability bits.
uint8_t StatAvailabilityOf(ZoneStat item);
uint8_t StatAvailabilityOf(NumaStat item);
uint8_t StatAvailabilityOf(NodeStat item);
uint8_t StatAvailabilityOf(VmEvent item);

// The counters of one machine that belong to no zone. Those of a zone are in Zone::stats.
//
// Always true: a NodeStat is never negative; a VmEvent never falls.
class VmStat {
 public:
  void Add(NodeStat item, int64_t delta) {
    int64_t& value = node_[static_cast<size_t>(item)];
    value += delta;
    MMLAB_CHECK(value >= 0);
  }
  void Count(VmEvent item, uint64_t times = 1) { events_[static_cast<size_t>(item)] += times; }

  // Where an event is counted, for paths that cannot afford to look for it.
  uint64_t& counter(VmEvent item) { return events_[static_cast<size_t>(item)]; }

  int64_t Get(NodeStat item) const { return node_[static_cast<size_t>(item)]; }
  uint64_t Get(VmEvent item) const { return events_[static_cast<size_t>(item)]; }

  void StateHash(StateHasher& hasher) const {
    for (int64_t value : node_) hasher.Add(static_cast<uint64_t>(value));
    for (uint64_t value : events_) hasher.Add(value);
  }

 private:
  std::array<int64_t, kNodeStats> node_{};
  std::array<uint64_t, kVmEvents> events_{};
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_VM_STAT_H_

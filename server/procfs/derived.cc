#include "server/procfs/derived.h"

namespace mmlab {

// There is no device that cannot reach high memory (nr_bounce), no compressed swap
// (nr_zspages).
bool IsDerived(ZoneStat) { return true; }

bool IsDerived(NumaStat) { return true; }

// Counted by files (nr_file_pages, nr_shmem, nr_dirty, nr_dirtied, nr_written, nr_swapcached), reclaim and process (nr_anon_pages,
// nr_mapped, nr_page_table_pages); the rest needs huge pages, devices, drivers with pages of their own to reclaim, or more than one node.
bool IsDerived(NodeStat) { return true; }

bool IsDerived(VmEvent item) {
  switch (item) {
    // Counted.
    case VmEvent::kPgallocDma:
    case VmEvent::kPgallocDma32:
    case VmEvent::kPgallocNormal:
    case VmEvent::kPgallocHigh:
    case VmEvent::kPgallocMovable:
    case VmEvent::kPgfree:
    case VmEvent::kPgfault:
    case VmEvent::kPgmajfault:
    case VmEvent::kPgreuse:
    case VmEvent::kOomKill:
    case VmEvent::kAllocstallDma:
    case VmEvent::kAllocstallDma32:
    case VmEvent::kAllocstallNormal:
    case VmEvent::kAllocstallHigh:
    case VmEvent::kAllocstallMovable:
    case VmEvent::kPgskipDma:
    case VmEvent::kPgskipDma32:
    case VmEvent::kPgskipNormal:
    case VmEvent::kPgskipHigh:
    case VmEvent::kPgskipMovable:
    case VmEvent::kPgactivate:
    case VmEvent::kPgdeactivate:
    case VmEvent::kPglazyfree:
    case VmEvent::kPglazyfreed:
    case VmEvent::kPgrefill:
    case VmEvent::kPgstealKswapd:
    case VmEvent::kPgstealDirect:
    case VmEvent::kPgscanKswapd:
    case VmEvent::kPgscanDirect:
    case VmEvent::kPgscanAnon:
    case VmEvent::kPgscanFile:
    case VmEvent::kPgstealAnon:
    case VmEvent::kPgstealFile:
    case VmEvent::kSlabsScanned:
    case VmEvent::kPageoutrun:
    case VmEvent::kDropPagecache:
    case VmEvent::kDropSlab:
    case VmEvent::kUnevictablePgsCulled:
    case VmEvent::kUnevictablePgsRescued:
    case VmEvent::kUnevictablePgsMlocked:
    case VmEvent::kUnevictablePgsMunlocked:
    case VmEvent::kPgpgin:
    case VmEvent::kPgpgout:
    case VmEvent::kPgrotated:
    case VmEvent::kPswpin:
    case VmEvent::kPswpout:
    case VmEvent::kSwapRa:
    case VmEvent::kSwapRaHit:
    // Compaction and migration.
    case VmEvent::kPgmigrateSuccess:
    case VmEvent::kPgmigrateFail:
    case VmEvent::kCompactMigrateScanned:
    case VmEvent::kCompactFreeScanned:
    case VmEvent::kCompactIsolated:
    case VmEvent::kCompactStall:
    case VmEvent::kCompactFail:
    case VmEvent::kCompactSuccess:
    case VmEvent::kCompactDaemonWake:
    case VmEvent::kCompactDaemonMigrateScanned:
    case VmEvent::kCompactDaemonFreeScanned:
    // Without compressed swap.
    case VmEvent::kZswpin:
    case VmEvent::kZswpout:
    // With one node.
    case VmEvent::kPgdemoteKswapd:
    case VmEvent::kPgdemoteDirect:
    case VmEvent::kZoneReclaimFailed:
    case VmEvent::kNumaPteUpdates:
    case VmEvent::kNumaHugePteUpdates:
    case VmEvent::kNumaHintFaults:
    case VmEvent::kNumaHintFaultsLocal:
    case VmEvent::kNumaPagesMigrated:
    // Transparent huge pages. There are none of files on a disk.
    case VmEvent::kThpMigrationSuccess:
    case VmEvent::kThpMigrationFail:
    case VmEvent::kThpMigrationSplit:
    case VmEvent::kHtlbBuddyAllocSuccess:
    case VmEvent::kHtlbBuddyAllocFail:
    case VmEvent::kThpFaultAlloc:
    case VmEvent::kThpFaultFallback:
    case VmEvent::kThpFaultFallbackCharge:
    case VmEvent::kThpCollapseAlloc:
    case VmEvent::kThpCollapseAllocFailed:
    case VmEvent::kThpFileAlloc:
    case VmEvent::kThpFileFallback:
    case VmEvent::kThpFileFallbackCharge:
    case VmEvent::kThpFileMapped:
    case VmEvent::kThpSplitPage:
    case VmEvent::kThpSplitPageFailed:
    case VmEvent::kThpDeferredSplitPage:
    case VmEvent::kThpSplitPmd:
    case VmEvent::kThpScanExceedNonePte:
    case VmEvent::kThpScanExceedSwapPte:
    case VmEvent::kThpScanExceedSharePte:
    case VmEvent::kThpZeroPageAlloc:
    case VmEvent::kThpZeroPageAllocFailed:
    case VmEvent::kThpSwpout:
    case VmEvent::kThpSwpoutFallback:
    // KSM. There is no balloon, and nobody uses CMA.
    case VmEvent::kBalloonInflate:
    case VmEvent::kBalloonDeflate:
    case VmEvent::kBalloonMigrate:
    case VmEvent::kKsmSwpinCopy:
    case VmEvent::kCowKsm:
    case VmEvent::kCmaAllocSuccess:
    case VmEvent::kCmaAllocFail:
      return true;
    default:  // Inodes, the direct map.
      return false;
  }
}

}  // namespace mmlab

#include "server/physical/vm_stat.h"

namespace mmlab {
namespace {

struct Item {
  absl::string_view name;
  uint8_t availability;
};

constexpr uint8_t kX86 = kStatOnX86;
constexpr uint8_t kArm64 = kStatOnArm64;
constexpr uint8_t kBoth = kStatOnX86 | kStatOnArm64;

constexpr Item kZoneStatsTable[kZoneStats] = {
    {"nr_free_pages", kBoth},
    {"nr_zone_inactive_anon", kBoth},
    {"nr_zone_active_anon", kBoth},
    {"nr_zone_inactive_file", kBoth},
    {"nr_zone_active_file", kBoth},
    {"nr_zone_unevictable", kBoth},
    {"nr_zone_write_pending", kBoth},
    {"nr_mlock", kBoth},
    {"nr_bounce", kBoth},
    {"nr_zspages", kBoth},
    {"nr_free_cma", kBoth},
};

constexpr Item kNumaStatsTable[kNumaStats] = {
    {"numa_hit", kArm64},        {"numa_miss", kArm64},  {"numa_foreign", kArm64},
    {"numa_interleave", kArm64}, {"numa_local", kArm64}, {"numa_other", kArm64},
};

constexpr Item kNodeStatsTable[kNodeStats] = {
    {"nr_inactive_anon", kBoth},
    {"nr_active_anon", kBoth},
    {"nr_inactive_file", kBoth},
    {"nr_active_file", kBoth},
    {"nr_unevictable", kBoth},
    {"nr_slab_reclaimable", kBoth},
    {"nr_slab_unreclaimable", kBoth},
    {"nr_isolated_anon", kBoth},
    {"nr_isolated_file", kBoth},
    {"workingset_nodes", kBoth},
    {"workingset_refault_anon", kBoth},
    {"workingset_refault_file", kBoth},
    {"workingset_activate_anon", kBoth},
    {"workingset_activate_file", kBoth},
    {"workingset_restore_anon", kBoth},
    {"workingset_restore_file", kBoth},
    {"workingset_nodereclaim", kBoth},
    {"nr_anon_pages", kBoth},
    {"nr_mapped", kBoth},
    {"nr_file_pages", kBoth},
    {"nr_dirty", kBoth},
    {"nr_writeback", kBoth},
    {"nr_writeback_temp", kBoth},
    {"nr_shmem", kBoth},
    {"nr_shmem_hugepages", kBoth},
    {"nr_shmem_pmdmapped", kBoth},
    {"nr_file_hugepages", kBoth},
    {"nr_file_pmdmapped", kBoth},
    {"nr_anon_transparent_hugepages", kBoth},
    {"nr_vmscan_write", kBoth},
    {"nr_vmscan_immediate_reclaim", kBoth},
    {"nr_dirtied", kBoth},
    {"nr_written", kBoth},
    {"nr_throttled_written", kBoth},
    {"nr_kernel_misc_reclaimable", kBoth},
    {"nr_foll_pin_acquired", kBoth},
    {"nr_foll_pin_released", kBoth},
    {"nr_kernel_stack", kBoth},
    {"nr_page_table_pages", kBoth},
    {"nr_sec_page_table_pages", kBoth},
    {"nr_swapcached", kBoth},
    {"pgpromote_success", kArm64},
    {"pgpromote_candidate", kArm64},
};

constexpr Item kVmEventsTable[kVmEvents] = {
    {"pgpgin", kBoth},
    {"pgpgout", kBoth},
    {"pswpin", kBoth},
    {"pswpout", kBoth},
    {"pgalloc_dma", kBoth},
    {"pgalloc_dma32", kArm64},
    {"pgalloc_normal", kBoth},
    {"pgalloc_high", kX86},
    {"pgalloc_movable", kBoth},
    {"allocstall_dma", kBoth},
    {"allocstall_dma32", kArm64},
    {"allocstall_normal", kBoth},
    {"allocstall_high", kX86},
    {"allocstall_movable", kBoth},
    {"pgskip_dma", kBoth},
    {"pgskip_dma32", kArm64},
    {"pgskip_normal", kBoth},
    {"pgskip_high", kX86},
    {"pgskip_movable", kBoth},
    {"pgfree", kBoth},
    {"pgactivate", kBoth},
    {"pgdeactivate", kBoth},
    {"pglazyfree", kBoth},
    {"pgfault", kBoth},
    {"pgmajfault", kBoth},
    {"pglazyfreed", kBoth},
    {"pgrefill", kBoth},
    {"pgreuse", kBoth},
    {"pgsteal_kswapd", kBoth},
    {"pgsteal_direct", kBoth},
    {"pgdemote_kswapd", kBoth},
    {"pgdemote_direct", kBoth},
    {"pgscan_kswapd", kBoth},
    {"pgscan_direct", kBoth},
    {"pgscan_direct_throttle", kBoth},
    {"pgscan_anon", kBoth},
    {"pgscan_file", kBoth},
    {"pgsteal_anon", kBoth},
    {"pgsteal_file", kBoth},
    {"zone_reclaim_failed", kArm64},
    {"pginodesteal", kBoth},
    {"slabs_scanned", kBoth},
    {"kswapd_inodesteal", kBoth},
    {"kswapd_low_wmark_hit_quickly", kBoth},
    {"kswapd_high_wmark_hit_quickly", kBoth},
    {"pageoutrun", kBoth},
    {"pgrotated", kBoth},
    {"drop_pagecache", kBoth},
    {"drop_slab", kBoth},
    {"oom_kill", kBoth},
    {"numa_pte_updates", kArm64},
    {"numa_huge_pte_updates", kArm64},
    {"numa_hint_faults", kArm64},
    {"numa_hint_faults_local", kArm64},
    {"numa_pages_migrated", kArm64},
    {"pgmigrate_success", kBoth},
    {"pgmigrate_fail", kBoth},
    {"thp_migration_success", kBoth},
    {"thp_migration_fail", kBoth},
    {"thp_migration_split", kBoth},
    {"compact_migrate_scanned", kBoth},
    {"compact_free_scanned", kBoth},
    {"compact_isolated", kBoth},
    {"compact_stall", kBoth},
    {"compact_fail", kBoth},
    {"compact_success", kBoth},
    {"compact_daemon_wake", kBoth},
    {"compact_daemon_migrate_scanned", kBoth},
    {"compact_daemon_free_scanned", kBoth},
    {"htlb_buddy_alloc_success", kBoth},
    {"htlb_buddy_alloc_fail", kBoth},
    {"cma_alloc_success", kArm64},
    {"cma_alloc_fail", kArm64},
    {"unevictable_pgs_culled", kBoth},
    {"unevictable_pgs_scanned", kBoth},
    {"unevictable_pgs_rescued", kBoth},
    {"unevictable_pgs_mlocked", kBoth},
    {"unevictable_pgs_munlocked", kBoth},
    {"unevictable_pgs_cleared", kBoth},
    {"unevictable_pgs_stranded", kBoth},
    {"thp_fault_alloc", kBoth},
    {"thp_fault_fallback", kBoth},
    {"thp_fault_fallback_charge", kBoth},
    {"thp_collapse_alloc", kBoth},
    {"thp_collapse_alloc_failed", kBoth},
    {"thp_file_alloc", kBoth},
    {"thp_file_fallback", kBoth},
    {"thp_file_fallback_charge", kBoth},
    {"thp_file_mapped", kBoth},
    {"thp_split_page", kBoth},
    {"thp_split_page_failed", kBoth},
    {"thp_deferred_split_page", kBoth},
    {"thp_split_pmd", kBoth},
    {"thp_scan_exceed_none_pte", kBoth},
    {"thp_scan_exceed_swap_pte", kBoth},
    {"thp_scan_exceed_share_pte", kBoth},
    {"thp_zero_page_alloc", kBoth},
    {"thp_zero_page_alloc_failed", kBoth},
    {"thp_swpout", kBoth},
    {"thp_swpout_fallback", kBoth},
    {"balloon_inflate", kBoth},
    {"balloon_deflate", kBoth},
    {"balloon_migrate", kBoth},
    {"swap_ra", kBoth},
    {"swap_ra_hit", kBoth},
    {"ksm_swpin_copy", kBoth},
    {"cow_ksm", kBoth},
    {"zswpin", kBoth},
    {"zswpout", kBoth},
    {"direct_map_level2_splits", kX86},
    {"direct_map_level3_splits", kX86},
};

}  // namespace

absl::string_view StatName(ZoneStat item) { return kZoneStatsTable[static_cast<size_t>(item)].name; }
uint8_t StatAvailabilityOf(ZoneStat item) { return kZoneStatsTable[static_cast<size_t>(item)].availability; }

absl::string_view StatName(NumaStat item) { return kNumaStatsTable[static_cast<size_t>(item)].name; }
uint8_t StatAvailabilityOf(NumaStat item) { return kNumaStatsTable[static_cast<size_t>(item)].availability; }

absl::string_view StatName(NodeStat item) { return kNodeStatsTable[static_cast<size_t>(item)].name; }
uint8_t StatAvailabilityOf(NodeStat item) { return kNodeStatsTable[static_cast<size_t>(item)].availability; }

absl::string_view StatName(VmEvent item) { return kVmEventsTable[static_cast<size_t>(item)].name; }
uint8_t StatAvailabilityOf(VmEvent item) { return kVmEventsTable[static_cast<size_t>(item)].availability; }

}  // namespace mmlab

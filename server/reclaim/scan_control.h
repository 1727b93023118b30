#ifndef MMLAB_SERVER_RECLAIM_SCAN_CONTROL_H_
#define MMLAB_SERVER_RECLAIM_SCAN_CONTROL_H_

#include <cstdint>

#include "server/reclaim/reclaim.h"

namespace mmlab {

inline constexpr int kDefaultPriority = 12;      // DEF_PRIORITY: 1/4096 of each list a round; one half at each step down.
inline constexpr uint64_t kSwapClusterMax = 32;  // SWAP_CLUSTER_MAX
inline constexpr int kMaxReclaimRetries = 16;    // MAX_RECLAIM_RETRIES

// Private to this room: one run of reclaim. Linux: struct scan_control, mm/vmscan.c.
struct Reclaim::ScanControl {
  uint64_t target = kSwapClusterMax;  // nr_to_reclaim
  int priority = kDefaultPriority;
  int highest_zone = 0;  // reclaim_idx
  int order = 0;         // Of the request that needs memory.
  bool kswapd = false;
  bool for_cgroup = false;         // cgroup_reclaim(): a limit asks, not the node.
  uint16_t target_memcg = 0;       // Whose pages are looked at, with those below it; 0: all of the node.
  bool ignore_references = false;  // Used lately or not: MADV_PAGEOUT.
  bool may_write = true;           // may_writepage
  bool may_swap = true;

  bool force_deactivate = false;
  bool skipped_deactivate = false;
  bool deactivate_anon = false;  // may_deactivate
  bool deactivate_file = false;
  bool cache_trim_mode = false;
  bool file_is_tiny = false;
  uint64_t anon_cost = 0;
  uint64_t file_cost = 0;
  bool low_reclaim = false;  // memcg_low_reclaim: what memory.low protects is taken too.
  bool low_skipped = false;  // memcg_low_skipped: something was left for that.

  // MGLRU.
  bool memcgs_need_aging = true;
  uint64_t last_freed = 0;  // last_reclaimed: what was freed before this round.

  uint64_t scanned = 0;  // Of this priority.
  uint64_t scanned_in_all = 0;
  uint64_t freed = 0;
  // Of one list at a time (struct reclaim_stat).
  uint64_t pages_written = 0;
  uint64_t unqueued_dirty = 0;
  uint64_t activated = 0;
  uint64_t ref_kept = 0;      // Kept because they were used.
  uint64_t unmap_failed = 0;  // Some page tables still map them.
  // Of one round over the node.
  uint64_t round_unqueued_dirty = 0;
  uint64_t round_file_taken = 0;
  uint64_t round_under_way = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_RECLAIM_SCAN_CONTROL_H_

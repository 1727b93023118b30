#ifndef MMLAB_SERVER_PHYSICAL_COMPACT_CONTROL_H_
#define MMLAB_SERVER_PHYSICAL_COMPACT_CONTROL_H_

#include <cstddef>
#include <cstdint>

#include "server/physical/compaction.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

inline constexpr uint32_t kCompactCluster = 32;  // COMPACT_CLUSTER_MAX: so many pages are isolated at once.
inline constexpr uint64_t CompactGap(int order) { return uint64_t{2} << order; }  // compact_gap()

// Private to compaction*.cc: one run over one zone. Linux: struct compact_control, mm/internal.h.
struct Compaction::Control {
  Zone* zone = nullptr;
  int order = -1;
  int search_order = 0;
  Gfp gfp = kGfpKernel;
  int migrate_type = kMigrateUnmovable;
  uint32_t alloc_flags = 0;
  int highest_zone = 0;
  Mode mode = Mode::kSyncLight;
  bool direct = false;
  bool whole_zone = false;
  bool ignore_skip_hint = false;
  bool ignore_block_suitable = false;
  bool proactive = false;

  bool rescan = false;  // The page block was just looked at: take all of it.
  uint32_t migrate_pfn = 0;
  uint32_t free_pfn = 0;
  uint32_t fast_start = 0;  // Lowest place that the quick search found; 0: none yet, kNoFrame: used up.
  uint32_t fast_search_fail = 0;
  uint64_t migrate_scanned = 0;
  uint64_t free_scanned = 0;
  uint64_t moved = 0;
  size_t wanted = 0;  // Pages to be moved in this round.
  bool all() const { return order < 0; }
  bool optimistic() const { return direct && mode == Mode::kAsync; }
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_COMPACT_CONTROL_H_

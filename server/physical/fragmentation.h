#ifndef MMLAB_SERVER_PHYSICAL_FRAGMENTATION_H_
#define MMLAB_SERVER_PHYSICAL_FRAGMENTATION_H_

#include <cstdint>

#include "absl/types/span.h"

namespace mmlab {

// How well a zone's free memory can serve blocks of an order, in thousandths, from its free blocks by order (a line of /proc/buddyinfo).
// Linux: what debugfs prints as extfrag/unusable_index and extfrag/extfrag_index (mm/vmstat.c).

// The part of the free pages that lies in blocks too small: 0 (all can be used) .. 1000 (none, or nothing is free).
int64_t UnusableIndex(absl::Span<const uint64_t> free_blocks, int order);

// extfrag_for_order(): the same in hundredths, 0 when nothing is free; what proactive compaction goes by.
int64_t UnusablePercent(absl::Span<const uint64_t> free_blocks, int order);

// Why an allocation would fail: towards 0 for lack of memory, towards 1000 for fragmentation; -1000 when it would succeed, 0 when nothing
// is free.
int64_t FragmentationIndex(absl::Span<const uint64_t> free_blocks, int order);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_FRAGMENTATION_H_

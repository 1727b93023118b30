#ifndef MMLAB_SERVER_HARDWARE_PAGE_WALK_H_
#define MMLAB_SERVER_HARDWARE_PAGE_WALK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"
#include "server/arch/page_table_format.h"
#include "server/base/address.h"
#include "server/base/explanation.h"

namespace mmlab {

// One level of a walk: which entry of which table was read.
struct WalkStep {
  int level = 0;  // From the layout's levels (pgd) down to 1 (pte).
  Pfn table;
  uint32_t index = 0;
  uint64_t entry = 0;
};

// What a processor's page-table walker finds for an address: one step for each level that it reached.
struct PageWalk {
  std::array<WalkStep, 4> steps;
  int count = 0;
  std::optional<PhysAddr> physical;  // Where the address leads; nothing when an entry on the way is not valid.
};

// How the walker reads physical memory: entry_bytes() bytes at an offset in a frame.
using ReadFrame = absl::FunctionRef<void(Pfn frame, size_t offset, void* out, size_t size)>;

// Walks the tables whose top one is `root` as the hardware would, by reading physical memory. Changes nothing.
PageWalk WalkPageTables(const PageTableFormat& format, ReadFrame read, Pfn root, VirtAddr address);

// One explanation step for each level: table frame, index, entry, decoded bits.
void ExplainWalk(const PageTableFormat& format, const PageWalk& walk, Explanation& why);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HARDWARE_PAGE_WALK_H_

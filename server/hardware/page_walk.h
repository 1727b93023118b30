#ifndef MMLAB_SERVER_HARDWARE_PAGE_WALK_H_
#define MMLAB_SERVER_HARDWARE_PAGE_WALK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
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

// Walks the tables whose top one is `root` as the hardware would, by reading physical memory. Changes nothing. `read` is called as
// read(Pfn frame, size_t offset, void* out, size_t size); a template, because a walk is so short that a call for each level would double
// its cost.
template <typename ReadFrame>
PageWalk WalkPageTables(const PageTableFormat& format, const ReadFrame& read, Pfn root, VirtAddr address) {
  PageWalk walk;
  Pfn table = root;
  for (int level = format.levels();; --level) {
    WalkStep& step = walk.steps[walk.count++];
    step.level = level;
    step.table = table;
    step.index = format.IndexOf(address, level);
    if (format.entry_bytes() == sizeof(uint64_t)) {
      read(table, step.index * sizeof(uint64_t), &step.entry, sizeof(uint64_t));
    } else {
      uint32_t narrow = 0;
      read(table, step.index * sizeof(uint32_t), &narrow, sizeof(uint32_t));
      step.entry = narrow;
    }
    if (level == 1) {
      if (format.Valid(step.entry)) walk.physical = PhysAddr((format.PfnOf(step.entry).raw() << 12) | (address.raw() & 0xfff));
      return walk;
    }
    if (!format.TablePresent(step.entry)) return walk;
    if (format.IsBlock(step.entry, level)) {
      walk.physical = format.BlockAddress(step.entry, level) + Bytes(address.raw() & (format.coverage(level) - 1));
      return walk;
    }
    table = format.TableOf(step.entry);
  }
}

// The kernel's name of a level: "pte", "pmd", "pud"; the top one is always "pgd".
absl::string_view LevelName(const PageTableFormat& format, int level);

// One explanation step for each level: table frame, index, entry, decoded bits.
void ExplainWalk(const PageTableFormat& format, const PageWalk& walk, Explanation& why);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HARDWARE_PAGE_WALK_H_

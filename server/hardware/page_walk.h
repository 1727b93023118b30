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

// Follows the tables whose top one is `root` as the hardware would, by reading physical memory: where the address leads, nothing when an
// entry on the way is not valid. Changes nothing. `read` is called as read(Pfn frame, size_t offset, void* out, size_t size), `visit` with
// each level as visit(int level, Pfn table, uint32_t index, uint64_t entry). Templates, because a walk is so short that calls would double
// its cost.
template <typename ReadFrame, typename Visit>
std::optional<PhysAddr> FollowPageTables(const PageTableFormat& format, const ReadFrame& read, Pfn root, VirtAddr address, Visit visit) {
  Pfn table = root;
  for (int level = format.levels();; --level) {
    const uint32_t index = format.IndexOf(address, level);
    uint64_t entry = 0;
    if (format.entry_bytes() == sizeof(uint64_t)) {
      read(table, index * sizeof(uint64_t), &entry, sizeof(uint64_t));
    } else {
      uint32_t narrow = 0;
      read(table, index * sizeof(uint32_t), &narrow, sizeof(uint32_t));
      entry = narrow;
    }
    visit(level, table, index, entry);
    if (level == 1) {
      if (!format.Valid(entry)) return std::nullopt;
      return PhysAddr((format.PfnOf(entry).raw() << 12) | (address.raw() & 0xfff));
    }
    if (format.IsBlock(entry, level)) {
      return PhysAddr(format.BlockAddress(entry, level).raw() | (address.raw() & (format.coverage(level) - 1)));
    }
    if (!format.TablePresent(entry)) return std::nullopt;
    table = format.TableOf(entry);
  }
}

// The same with each level noted.
template <typename ReadFrame>
PageWalk WalkPageTables(const PageTableFormat& format, const ReadFrame& read, Pfn root, VirtAddr address) {
  PageWalk walk;
  walk.physical = FollowPageTables(format, read, root, address, [&walk](int level, Pfn table, uint32_t index, uint64_t entry) {
    walk.steps[static_cast<size_t>(walk.count++)] = {level, table, index, entry};
  });
  return walk;
}

// The kernel's name of a level: "pte", "pmd", "pud"; the top one is always "pgd".
absl::string_view LevelName(const PageTableFormat& format, int level);

// One explanation step for each level: table frame, index, entry, decoded bits.
void ExplainWalk(const PageTableFormat& format, const PageWalk& walk, Explanation& why);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HARDWARE_PAGE_WALK_H_

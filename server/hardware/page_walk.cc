#include "server/hardware/page_walk.h"

namespace mmlab {
namespace {

// The kernel's name of a level: the top one is always pgd.
absl::string_view LevelName(const PageTableFormat& format, int level) {
  static constexpr absl::string_view kNames[] = {"", "pte", "pmd", "pud", "pgd"};
  return level == format.levels() ? kNames[4] : kNames[level];
}

}  // namespace

PageWalk WalkPageTables(const PageTableFormat& format, ReadFrame read, Pfn root, VirtAddr address) {
  PageWalk walk;
  Pfn table = root;
  for (int level = format.levels(); level >= 1; --level) {
    WalkStep& step = walk.steps[walk.count++];
    step.level = level;
    step.table = table;
    step.index = format.IndexOf(address, level);
    uint8_t bytes[8] = {};
    const auto size = static_cast<size_t>(format.entry_bytes());
    read(table, step.index * size, bytes, size);
    step.entry = format.Load(bytes, 0);
    if (level == 1) {
      if (format.Valid(step.entry)) walk.physical = PhysAddr((format.PfnOf(step.entry).raw() << 12) | (address.raw() & 0xfff));
      break;
    }
    if (level == 2 && format.Huge(step.entry)) {
      const uint64_t offset = address.raw() & (format.coverage(2) - 1);
      if (format.Valid(step.entry)) walk.physical = PhysAddr((format.HugePfn(step.entry).raw() << 12) | offset);
      break;
    }
    if (!format.TablePresent(step.entry)) break;
    table = format.TableOf(step.entry);
  }
  return walk;
}

void ExplainWalk(const PageTableFormat& format, const PageWalk& walk, Explanation& why) {
  for (int i = 0; i < walk.count; ++i) {
    const WalkStep& step = walk.steps[i];
    why.Add(StepKind::kPageTableWalk, "read a page-table entry")
        .Text("level", LevelName(format, step.level))
        .Frame("table", step.table)
        .Number("index", step.index)
        .Bits("entry", step.entry)
        .Text("decoded", format.Decode(step.entry, step.level));
  }
}

}  // namespace mmlab

#include "server/hardware/page_walk.h"

namespace mmlab {

absl::string_view LevelName(const PageTableFormat& format, int level) {
  static constexpr absl::string_view kNames[] = {"", "pte", "pmd", "pud", "pgd"};
  return level == format.levels() ? kNames[4] : kNames[level];
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

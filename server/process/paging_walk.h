#ifndef MMLAB_SERVER_PROCESS_PAGING_WALK_H_
#define MMLAB_SERVER_PROCESS_PAGING_WALK_H_

#include <algorithm>

#include "server/process/address_space.h"
#include "server/process/paging.h"

namespace mmlab {

// Private to paging*.cc: visits the lowest tables of a range, skipping what no table covers (walk_page_range()).
template <typename Visit>
void Paging::ForEachTable(const AddressSpace& mm, VirtRange range, Visit visit) const {
  ForEachTable(mm, range, visit, [](uint8_t*, uint32_t, VirtAddr, VirtAddr) { return true; });
}

template <typename Visit, typename VisitHuge>
void Paging::ForEachTable(const AddressSpace& mm, VirtRange range, Visit visit, VisitHuge visit_huge) const {
  uint64_t address = range.start.raw();
  const uint64_t end = range.end.raw();
  while (address < end) {
    uint8_t* table = TableBytes(mm.pgd);
    int level = format_.levels();
    bool huge = false;
    for (; level > 1; --level) {
      const uint64_t entry = format_.Load(table, format_.IndexOf(VirtAddr(address), level));
      if (!format_.TablePresent(entry)) {
        huge = level == 2 && format_.Huge(entry);
        break;
      }
      table = TableBytes(format_.TableOf(entry));
    }
    const uint64_t coverage = format_.coverage(std::max(level, 2));
    const uint64_t next = std::min(end, (address & ~(coverage - 1)) + coverage);
    if (huge && !visit_huge(table, format_.IndexOf(VirtAddr(address), 2), VirtAddr(address), VirtAddr(next))) continue;
    if (level == 1) visit(table, VirtAddr(address), VirtAddr(next));
    address = next;
  }
}

template <typename Visit>
void Paging::ForEachHugeEntry(const AddressSpace& mm, VirtRange range, Visit visit) const {
  ForEachTable(
      mm, range, [](const uint8_t*, VirtAddr, VirtAddr) {},
      [&](const uint8_t* table, uint32_t index, VirtAddr start, VirtAddr) {
        visit(format_.Load(table, index), start);
        return true;
      });
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PAGING_WALK_H_

#ifndef MMLAB_SERVER_PROCESS_PAGING_HUGETLB_WALK_H_
#define MMLAB_SERVER_PROCESS_PAGING_HUGETLB_WALK_H_

#include "server/files/files.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"

namespace mmlab {

// Private to paging*.cc: where the entries of one huge page of a pool are (huge_pte_offset()).
struct Paging::HugetlbEntry {
  uint8_t* table = nullptr;  // Null: there is no table for it.
  uint32_t index = 0;        // Of the first one.
  uint32_t count = 1;        // How many map the page together: one, or 16 contiguous ones.
  int level = 2;
};

// Visits the places of the range where a table of the right level exists, mapped or not: visit(entry, address).
template <typename Visit>
void Paging::ForEachHugetlb(const AddressSpace& mm, VirtRange range, int order, Visit visit) const {
  const int lowest = HugetlbLevel(order);
  const uint64_t size = layout_.page_size.BytesOf(PageOrder(order).pages()).raw();
  uint64_t address = range.start.raw();
  while (address < range.end.raw()) {
    uint8_t* table = TableBytes(mm.pgd);
    int level = format_.levels();
    for (; level > lowest; --level) {
      const uint64_t entry = format_.Load(table, format_.IndexOf(VirtAddr(address), level));
      if (!format_.TablePresent(entry)) break;
      table = TableBytes(format_.TableOf(entry));
    }
    if (level > lowest) {
      const uint64_t coverage = format_.coverage(level);
      address = (address & ~(coverage - 1)) + coverage;
      continue;
    }
    visit(HugetlbEntry{table, format_.IndexOf(VirtAddr(address), lowest), HugetlbEntries(order), lowest}, VirtAddr(address));
    address += size;
  }
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PAGING_HUGETLB_WALK_H_

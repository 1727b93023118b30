#ifndef MMLAB_SERVER_PROCESS_VMA_TREE_H_
#define MMLAB_SERVER_PROCESS_VMA_TREE_H_

#include <cstddef>
#include <memory>
#include <optional>

#include "absl/container/btree_map.h"
#include "server/base/address.h"
#include "server/process/vm_area.h"

namespace mmlab {

// The VMAs of an address space in address order (mm->mm_mt of 6.1). Lookup, insertion, removal and the search for a gap are O(log n).
class VmaTree {
 public:
  // find_vma(): the first VMA that ends above the address; null when there is none. It may start above the address.
  VmArea* Find(VirtAddr address) const;
  // vma_lookup(): the VMA that holds the address.
  VmArea* Lookup(VirtAddr address) const;
  // The first VMA that overlaps [range.start, range.end); null when none does.
  VmArea* FirstIn(VirtRange range) const;
  VmArea* Next(const VmArea& vma) const;      // Null at the end.
  VmArea* Previous(const VmArea& vma) const;  // Null at the start.
  VmArea* First() const;
  VmArea* Last() const;
  size_t size() const;

  VmArea* Insert(std::unique_ptr<VmArea> vma);  // REQUIRES: overlaps nothing.
  std::unique_ptr<VmArea> Remove(VmArea& vma);
  // Moves the bounds of a VMA. REQUIRES: it overlaps nothing afterwards; order among its neighbours is kept.
  void Resize(VmArea& vma, VirtAddr start, VirtAddr end);

  // Lowest, respectively highest, gap of at least `length` inside [low, high), as vm_unmapped_area's callers need.
  std::optional<VirtAddr> LowestGap(Bytes length, VirtAddr low, VirtAddr high) const;
  std::optional<VirtAddr> HighestGap(Bytes length, VirtAddr low, VirtAddr high) const;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_VMA_TREE_H_

#ifndef MMLAB_SERVER_PROCESS_VMA_TREE_H_
#define MMLAB_SERVER_PROCESS_VMA_TREE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "server/base/address.h"
#include "server/process/vm_area.h"

namespace mmlab {

// The VMAs of an address space in address order (mm->mm_mt of 6.1), as a treap that knows the largest gap below each node.
// Lookup, insertion, removal and the search for a gap are O(log n); neighbours O(1). Owns its VMAs; their addresses are stable.
class VmaTree {
 public:
  VmaTree() = default;
  ~VmaTree();
  VmaTree(const VmaTree&) = delete;
  VmaTree& operator=(const VmaTree&) = delete;

  // find_vma(): the first VMA that ends above the address; null when there is none. It may start above the address.
  VmArea* Find(VirtAddr address) const;
  // vma_lookup(): the VMA that holds the address.
  VmArea* Lookup(VirtAddr address) const;
  // find_vma_intersection(): the first VMA that overlaps [range.start, range.end); null when none does.
  VmArea* FirstIn(VirtRange range) const;
  // The last VMA that starts below the address; null when there is none. It may end above the address.
  VmArea* LastStartingBelow(VirtAddr address) const;
  VmArea* Next(const VmArea& vma) const { return vma.links.next; }          // Null at the end.
  VmArea* Previous(const VmArea& vma) const { return vma.links.previous; }  // Null at the start.
  VmArea* First() const { return first_; }
  VmArea* Last() const { return last_; }
  size_t size() const { return size_; }

  VmArea* Insert(std::unique_ptr<VmArea> vma);  // REQUIRES: overlaps nothing.
  std::unique_ptr<VmArea> Remove(VmArea& vma);
  // Moves the bounds of a VMA. REQUIRES: order among its neighbours is kept and, once all VMAs of one change were resized, none overlap.
  void Resize(VmArea& vma, VirtAddr start, VirtAddr end);

  // Start of the lowest, respectively highest, hole of at least `length` inside [low, high): the part of the hole inside, at its low,
  // respectively high end.
  std::optional<VirtAddr> LowestGap(Bytes length, VirtAddr low, VirtAddr high) const;
  std::optional<VirtAddr> HighestGap(Bytes length, VirtAddr low, VirtAddr high) const;

 private:
  void RotateUp(VmArea* node);
  void SetGap(VmArea* node);
  void UpdateUpwards(VmArea* node);

  VmArea* root_ = nullptr;
  VmArea* first_ = nullptr;
  VmArea* last_ = nullptr;
  size_t size_ = 0;
  uint64_t insertions_ = 0;  // Seeds the priorities, so that shape and speed are the same on every host.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_VMA_TREE_H_

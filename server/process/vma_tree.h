#ifndef MMLAB_SERVER_PROCESS_VMA_TREE_H_
#define MMLAB_SERVER_PROCESS_VMA_TREE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/base/address.h"
#include "server/process/vm_area.h"

namespace mmlab {

struct VmaTreeNode;

// The VMAs of an address space in address order (mm->mm_mt of 6.1), as a B+ tree: nodes hold up to 16 ends packed side by side, and beside
// each the largest gap below it. Lookup, insertion, removal and the search for a gap are O(log n); neighbours O(1); a lookup next to the
// last one found O(1). Owns its VMAs; their addresses are stable. How a kernel of 6.1 or 4.12 stores the same VMAs is in vma_store.h.
//
// Reading may run in parallel with reading.
class VmaTree {
 public:
  VmaTree() = default;
  ~VmaTree();
  VmaTree(const VmaTree&) = delete;
  VmaTree& operator=(const VmaTree&) = delete;

  // find_vma(): the first VMA that ends above the address; null when there is none. It may start above the address.
  VmArea* Find(VirtAddr address) const;
  // vma_lookup(): the VMA that holds the address.
  VmArea* Lookup(VirtAddr address) const {
    VmArea* vma = Find(address);
    return vma != nullptr && vma->start <= address ? vma : nullptr;
  }
  // find_vma_intersection(): the first VMA that overlaps [range.start, range.end); null when none does.
  VmArea* FirstIn(VirtRange range) const {
    VmArea* vma = Find(range.start);
    return vma != nullptr && vma->start < range.end ? vma : nullptr;
  }
  // The last VMA that starts below the address; null when there is none. It may end above the address.
  VmArea* LastStartingBelow(VirtAddr address) const;
  VmArea* Next(const VmArea& vma) const { return vma.links.next; }          // Null at the end.
  VmArea* Previous(const VmArea& vma) const { return vma.links.previous; }  // Null at the start.
  VmArea* First() const { return first_; }
  VmArea* Last() const { return last_; }
  size_t size() const { return size_; }
  size_t holes() const { return holes_; }  // VMAs that do not start where the one before them ends, or the address space begins.

  VmArea* Insert(std::unique_ptr<VmArea> vma);  // REQUIRES: overlaps nothing.
  std::unique_ptr<VmArea> Remove(VmArea& vma);
  // Moves the bounds of a VMA. REQUIRES: order among its neighbours is kept and, once all VMAs of one change were resized, none overlap.
  void Resize(VmArea& vma, VirtAddr start, VirtAddr end);

  // Start of the lowest, respectively highest, hole of at least `length` inside [low, high): the part of the hole inside, at its low,
  // respectively high end.
  std::optional<VirtAddr> LowestGap(Bytes length, VirtAddr low, VirtAddr high) const;
  std::optional<VirtAddr> HighestGap(Bytes length, VirtAddr low, VirtAddr high) const;

  Bytes HostMemory() const;  // Of the nodes, without the VMAs.
  // One line for each rule of the tree that does not hold.
  void CheckInvariants(std::vector<std::string>* violations) const;

 private:
  static constexpr uint32_t kSlots = 16;
  static constexpr uint32_t kMinSlots = kSlots / 4;  // A node with fewer is filled up from a neighbour.
  using Node = VmaTreeNode;

  static uint32_t SlotOf(const Node& node, const void* child);
  static VmArea* FirstWithGap(const Node* node, uint64_t length);
  static VmArea* LastWithGap(const Node* node, uint64_t length);
  static VmArea* NextWithGap(const VmArea& vma, uint64_t length);
  static VmArea* PreviousWithGap(const VmArea& vma, uint64_t length);
  static uint64_t GapBefore(const VmArea& vma);
  static size_t HoleBefore(const VmArea* vma) { return vma != nullptr && GapBefore(*vma) != 0 ? 1 : 0; }
  static void MoveSlots(Node& from, uint32_t first, Node& to, uint32_t at, uint32_t count);
  static void UpdateUpwards(Node* node);
  static void UpdateSlot(const VmArea& vma);
  Node* NewNode(bool leaf);
  void Free(Node* node);
  void FreeAll(Node* node);
  Node* Split(Node& node, uint32_t slot);
  void InsertInto(Node* node, uint32_t slot, void* child, uint64_t end, uint64_t gap);
  void RemoveFrom(Node* node, uint32_t slot);
  void Refill(Node* node);
  void CheckNode(const Node& node, uint32_t level, std::vector<std::string>* violations) const;

  Node* root_ = nullptr;
  uint32_t height_ = 0;  // Levels of nodes above the leaves.
  VmArea* first_ = nullptr;
  VmArea* last_ = nullptr;
  size_t size_ = 0;
  size_t holes_ = 0;
  size_t nodes_ = 0;
  const VmArea* last_inserted_ = nullptr;  // Null when it has gone.
  bool in_order_ = false;                  // The one that is being inserted is next to that: nodes are split so that they stay full.
  // Leaf and slot (never 0) of the VMA found last, for the next lookup nearby; 0 = none. Changes no answer.
  mutable std::atomic<uintptr_t> last_found_{0};
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_VMA_TREE_H_

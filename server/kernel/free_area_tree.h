#ifndef MMLAB_SERVER_KERNEL_FREE_AREA_TREE_H_
#define MMLAB_SERVER_KERNEL_FREE_AREA_TREE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "server/base/hash.h"

namespace mmlab {

// The free ranges of the kernel's virtual address space: a red-black tree by address in which every node knows the largest range below it,
// so that the lowest range that fits is found in O(log n). Linux: free_vmap_area_root, mm/vmalloc.c; the balancing is that of lib/rbtree.c,
// because the tree's shape decides which of several ranges serves a request with more than page alignment.
//
// Addresses are plain 64-bit numbers here: the ranges also cover what is no vmalloc space, up to the last address.
//
// Always true: ranges are disjoint and never touch each other; CheckInvariants() proves it, the balance and the sizes.
class FreeAreaTree {
 public:
  struct Area {
    uint64_t start;
    uint64_t end;
  };
  // One node of a recorded tree, in pre-order.
  struct RecordedNode {
    uint64_t start;
    uint64_t end;
    bool red;
    bool has_left;
    bool has_right;
  };
  // What a search looked at.
  struct Search {
    int nodes_visited = 0;
    uint64_t length = 0;  // What a subtree had to offer to be entered.
    Area found{0, 0};
  };

  // A range that nobody holds any more; joins what it touches. REQUIRES: start < end, no overlap.
  void Release(uint64_t start, uint64_t end);

  // Takes `size` bytes at a multiple of `align` at or above `low`, ending at or below `high`: the first range that the tree's search meets.
  // Nothing: none fits; then nothing has changed. REQUIRES: size > 0, align a power of two.
  std::optional<uint64_t> Take(uint64_t size, uint64_t align, uint64_t low, uint64_t high, uint64_t page_bytes, Search* search);

  // Takes exactly this range out of a free one. False: it is not free.
  bool TakeExactly(uint64_t start, uint64_t end);

  // Replaces everything by a recorded tree. False: the nodes are no search tree.
  bool Load(absl::Span<const RecordedNode> preorder);

  uint64_t largest() const { return root_ == kNone ? 0 : nodes_[root_].largest; }
  size_t size() const { return count_; }
  void ForEach(absl::FunctionRef<void(Area)> visit) const;  // By address.
  void AddToHash(StateHasher& hasher) const;                // Shape included: it decides.
  uint64_t HostMemory() const { return nodes_.capacity() * sizeof(Node) + spare_.capacity() * sizeof(uint32_t); }
  void CheckInvariants(std::vector<std::string>* problems) const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    uint64_t start = 0;
    uint64_t end = 0;
    uint64_t largest = 0;  // Size of the largest range of the subtree.
    uint32_t parent = kNone;
    uint32_t child[2] = {kNone, kNone};
    bool red = true;
  };
  // Where a new range would hang, and its neighbours by address.
  struct Place {
    uint32_t parent = kNone;
    int side = 0;
    uint32_t before = kNone;
    uint32_t after = kNone;
  };

  uint64_t LargestOf(uint32_t n) const { return n == kNone ? 0 : nodes_[n].largest; }
  bool IsRed(uint32_t n) const { return n != kNone && nodes_[n].red; }
  uint64_t Computed(uint32_t n) const;
  void Propagate(uint32_t n);  // Brings `largest` up to date from n to the root.
  Place FindPlace(uint64_t start) const;
  void Link(uint64_t start, uint64_t end, const Place& place);
  void Unlink(uint32_t n);
  void Rotate(uint32_t n, int side);  // n goes down to `side`.
  void Replace(uint32_t parent, uint32_t old_child, uint32_t new_child);
  void BalanceAfterLink(uint32_t n);
  void BalanceAfterUnlink(uint32_t parent, int side);
  uint32_t FindLowest(uint64_t size, uint64_t align, uint64_t low, uint64_t length, Search* search) const;
  void Carve(uint32_t n, uint64_t start, uint64_t end);
  uint32_t Edge(uint32_t n, int side) const;

  std::vector<Node> nodes_;
  std::vector<uint32_t> spare_;  // Nodes that are not in use.
  uint32_t root_ = kNone;
  size_t count_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_FREE_AREA_TREE_H_

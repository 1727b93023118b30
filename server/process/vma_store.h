#ifndef MMLAB_SERVER_PROCESS_VMA_STORE_H_
#define MMLAB_SERVER_PROCESS_VMA_STORE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace mmlab {

// How kernels store VMAs: the red-black tree of 4.12 (mm/mmap.c, lib/rbtree.c) and the maple tree of 6.1 (lib/maple_tree.c), as pure
// functions of the VMAs. A real tree's shape also depends on the order in which VMAs came and went; built here is the one that dup_mmap()
// makes for a forked child, which inserts them all by ascending address and so has a shape that the VMAs alone decide. VmaTree, in which
// the simulation itself keeps them, is neither.

struct StoredVma {
  uint64_t start = 0;
  uint64_t end = 0;        // > start; VMAs ascend and do not overlap.
  uint64_t guard_gap = 0;  // Bytes below it that the kernel counts as taken: stack_guard_gap where it grows down.
};

// One vm_rb. Nodes are numbered level by level from the root, which is 0; -1 = none.
struct RbStoreNode {
  size_t vma = 0;  // Its index; also its place in the list of vm_next.
  int64_t parent = -1;
  int64_t left = -1;
  int64_t right = -1;
  int depth = 0;
  bool red = false;
  uint64_t gap = 0;          // vma_compute_gap()
  uint64_t subtree_gap = 0;  // rb_subtree_gap
};
std::vector<RbStoreNode> BuildRbStore(absl::Span<const StoredVma> vmas);

struct MapleStoreSlot {
  enum class Content : uint8_t { kHole, kVma, kNode };
  Content content = Content::kHole;
  uint64_t first = 0;
  uint64_t last = 0;   // Inclusive: the pivot.
  int64_t target = 0;  // Index of the VMA, number of the node.
  uint64_t gap = 0;    // Bytes of the hole; of a node, of the largest hole below.
};
struct MapleStoreNode {
  bool leaf = true;  // maple_leaf_64; else maple_arange_64.
  int64_t parent = -1;
  int depth = 0;
  std::vector<MapleStoreSlot> slots;
};

// Sizes of a maple node, which takes 256 bytes whatever the word size.
struct MapleSizes {
  uint32_t leaf_slots;   // MAPLE_RANGE64_SLOTS
  uint32_t inner_slots;  // MAPLE_ARANGE64_SLOTS
  uint64_t top;          // ULONG_MAX
  uint32_t slots(bool leaf) const { return leaf ? leaf_slots : inner_slots; }
  uint32_t min_slots(bool leaf) const { return leaf ? leaf_slots / 2 - 2 : inner_slots / 2 - 1; }  // mt_min_slots
};
MapleSizes MapleSizesOf(int word_bytes);
inline constexpr uint64_t kMapleNodeBytes = 256;

// Nodes level by level from the root. Empty without VMAs: the root pointer is null then.
std::vector<MapleStoreNode> BuildMapleStore(absl::Span<const StoredVma> vmas, const MapleSizes& sizes);

// One line for each rule that a store breaks: order, colours, black heights and gaps; pivots, holes, fill and gaps.
std::vector<std::string> CheckRbStore(absl::Span<const StoredVma> vmas, absl::Span<const RbStoreNode> nodes);
std::vector<std::string> CheckMapleStore(absl::Span<const StoredVma> vmas, absl::Span<const MapleStoreNode> nodes, const MapleSizes& sizes);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_VMA_STORE_H_

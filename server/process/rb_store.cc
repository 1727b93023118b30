#include <algorithm>

#include "server/process/vma_store.h"

// The list and red-black tree of 4.12: __vma_link_rb(), vma_compute_gap(), vma_compute_subtree_gap() of mm/mmap.c.

namespace mmlab {
namespace {

// Insertion at the right end of a red-black tree, which is all that a copy in address order needs. Nodes are indexes of VMAs.
class AscendingRbTree {
 public:
  explicit AscendingRbTree(size_t count) : nodes_(count) {}

  void Append(size_t node) {
    if (node == 0) {
      nodes_[0].red = false;
      root_ = 0;
      return;
    }
    // The node before it in order is the last one: it has no right child.
    Link(static_cast<int64_t>(node) - 1, static_cast<int64_t>(node));
    Balance(static_cast<int64_t>(node));
  }

  struct Node {
    int64_t parent = -1;
    int64_t left = -1;
    int64_t right = -1;
    bool red = true;
  };
  const Node& node(int64_t index) const { return nodes_[static_cast<size_t>(index)]; }
  int64_t root() const { return root_; }

 private:
  Node& At(int64_t index) { return nodes_[static_cast<size_t>(index)]; }
  bool Red(int64_t index) const { return index >= 0 && node(index).red; }
  void Link(int64_t parent, int64_t child) {
    At(parent).right = child;
    At(child).parent = parent;
  }

  // A new node is a right child, and so is everything above it on the right edge: of the cases of an insertion two remain.
  void Balance(int64_t index) {
    while (Red(At(index).parent)) {
      const int64_t parent = At(index).parent;
      const int64_t grandparent = At(parent).parent;
      const int64_t uncle = At(grandparent).left;
      if (!Red(uncle)) {
        RotateLeft(grandparent);
        At(parent).red = false;
        At(grandparent).red = true;
        return;
      }
      At(parent).red = At(uncle).red = false;
      At(grandparent).red = grandparent != root_;
      index = grandparent;
    }
  }

  void RotateLeft(int64_t index) {
    const int64_t up = At(index).right;
    const int64_t above = At(index).parent;
    const int64_t middle = At(up).left;
    At(index).right = middle;
    if (middle >= 0) At(middle).parent = index;
    At(up).left = index;
    At(index).parent = up;
    At(up).parent = above;
    (above < 0 ? root_ : At(above).right) = up;
  }

  std::vector<Node> nodes_;
  int64_t root_ = -1;
};

uint64_t GapOf(absl::Span<const StoredVma> vmas, size_t index) {
  const StoredVma& vma = vmas[index];
  const uint64_t start = vma.start > vma.guard_gap ? vma.start - vma.guard_gap : 0;
  const uint64_t before = index == 0 ? 0 : vmas[index - 1].end;
  return start > before ? start - before : 0;
}

}  // namespace

std::vector<RbStoreNode> BuildRbStore(absl::Span<const StoredVma> vmas) {
  AscendingRbTree tree(vmas.size());
  for (size_t i = 0; i < vmas.size(); ++i) tree.Append(i);
  std::vector<RbStoreNode> nodes;
  nodes.reserve(vmas.size());
  const auto add = [&](int64_t index, int64_t parent) -> int64_t {
    if (index < 0) return -1;
    RbStoreNode& made = nodes.emplace_back();
    made.vma = static_cast<size_t>(index);
    made.parent = parent;
    made.depth = parent < 0 ? 0 : nodes[static_cast<size_t>(parent)].depth + 1;
    made.red = tree.node(index).red;
    made.gap = made.subtree_gap = GapOf(vmas, made.vma);
    return static_cast<int64_t>(nodes.size()) - 1;
  };
  add(tree.root(), -1);
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto& node = tree.node(static_cast<int64_t>(nodes[i].vma));
    const int64_t left = add(node.left, static_cast<int64_t>(i));
    const int64_t right = add(node.right, static_cast<int64_t>(i));
    nodes[i].left = left;
    nodes[i].right = right;
  }
  for (size_t i = nodes.size(); i-- > 1;) {
    RbStoreNode& parent = nodes[static_cast<size_t>(nodes[i].parent)];
    parent.subtree_gap = std::max(parent.subtree_gap, nodes[i].subtree_gap);
  }
  return nodes;
}

std::vector<std::string> CheckRbStore(absl::Span<const StoredVma> vmas, absl::Span<const RbStoreNode> nodes) {
  std::vector<std::string> broken;
  const auto expect = [&](bool holds, const char* rule) {
    if (!holds) broken.emplace_back(rule);
  };
  expect(nodes.size() == vmas.size(), "there is one node for each VMA");
  if (nodes.empty()) return broken;
  expect(!nodes[0].red, "the root is black");
  // From the leaves up: black nodes on the way down, the lowest and highest VMA and the largest gap of each subtree.
  struct Below {
    int blacks = 1;
    size_t lowest = 0;
    size_t highest = 0;
    uint64_t gap = 0;
  };
  std::vector<Below> below(nodes.size());
  for (size_t i = nodes.size(); i-- > 0;) {
    const RbStoreNode& node = nodes[i];
    Below& sum = below[i];
    sum = {1, node.vma, node.vma, node.gap};
    int blacks[2] = {1, 1};
    for (const bool right : {false, true}) {
      const int64_t child = right ? node.right : node.left;
      if (child < 0) continue;
      const Below& under = below[static_cast<size_t>(child)];
      const RbStoreNode& child_node = nodes[static_cast<size_t>(child)];
      expect(static_cast<size_t>(child_node.parent) == i && child_node.depth == node.depth + 1, "a child knows its parent");
      expect(!node.red || !child_node.red, "no red node has a red child");
      expect(right ? under.lowest == node.vma + 1 : under.highest + 1 == node.vma, "nodes are in the order of the list");
      blacks[right ? 1 : 0] = under.blacks;
      (right ? sum.highest : sum.lowest) = right ? under.highest : under.lowest;
      sum.gap = std::max(sum.gap, under.gap);
    }
    expect(blacks[0] == blacks[1], "every way down has as many black nodes");
    sum.blacks = blacks[0] + (node.red ? 0 : 1);
    expect(node.gap == GapOf(vmas, node.vma), "the gap is the one before the VMA");
    expect(node.subtree_gap == sum.gap, "rb_subtree_gap is the largest gap of the subtree");
  }
  return broken;
}

}  // namespace mmlab

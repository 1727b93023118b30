#include "server/process/vma_tree.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "server/base/check.h"

namespace mmlab {

// Of a leaf: ends of VMAs, the VMAs, the gap before each. Of a node above: the last end, the node and the largest gap of each child. Slots
// behind `count` have end ~0, no child and no gap, so that searching need not look at `count`.
struct alignas(64) VmaTreeNode {
  static constexpr uint32_t kSlots = 16;

  uint64_t ends[kSlots];
  void* children[kSlots] = {};
  uint64_t gaps[kSlots] = {};
  VmaTreeNode* parent = nullptr;
  uint32_t count = 0;
  bool leaf;

  explicit VmaTreeNode(bool is_leaf) : leaf(is_leaf) { std::fill(std::begin(ends), std::end(ends), ~uint64_t{0}); }

  VmaTreeNode* node(uint32_t slot) const { return static_cast<VmaTreeNode*>(children[slot]); }
  VmArea* vma(uint32_t slot) const { return static_cast<VmArea*>(children[slot]); }
  uint64_t end() const { return ends[count - 1]; }
  uint64_t max_gap() const { return *std::max_element(std::begin(gaps), std::end(gaps)); }
  // The first slot whose end lies above the address; the last one where none does. Two steps without a branch to guess.
  uint32_t SlotAbove(uint64_t address) const {
    const auto below = [&](uint32_t slot) { return static_cast<uint32_t>(ends[slot] <= address); };
    const uint32_t first = 4 * (below(3) + below(7) + below(11));
    return first + below(first) + below(first + 1) + below(first + 2);
  }
  void SetChild(uint32_t slot, void* child) {
    children[slot] = child;
    if (leaf) {
      vma(slot)->links.leaf = this;
    } else {
      node(slot)->parent = this;
    }
  }
};

VmaTree::~VmaTree() {
  for (VmArea* vma = first_; vma != nullptr;) {
    VmArea* next = vma->links.next;
    delete vma;
    vma = next;
  }
  if (root_ != nullptr) FreeAll(root_);
}

VmaTree::Node* VmaTree::NewNode(bool leaf) {
  ++nodes_;
  return new Node(leaf);
}

void VmaTree::Free(Node* node) {
  last_found_.store(0, std::memory_order_relaxed);
  --nodes_;
  delete node;
}

void VmaTree::FreeAll(Node* node) {
  for (uint32_t i = 0; !node->leaf && i < node->count; ++i) FreeAll(node->node(i));
  Free(node);
}

VmArea* VmaTree::Find(VirtAddr where) const {
  const uint64_t address = where.raw();
  // Nodes are aligned: the slot fits into the low bits of the pointer.
  const uintptr_t last = last_found_.load(std::memory_order_relaxed);
  if (last != 0) {
    const auto* leaf = reinterpret_cast<const Node*>(last & ~uintptr_t{kSlots - 1});
    const auto slot = static_cast<uint32_t>(last & (kSlots - 1));
    if (leaf->ends[slot - 1] <= address && address < leaf->ends[slot] && leaf->children[slot] != nullptr) return leaf->vma(slot);
  }
  const Node* node = root_;
  if (node == nullptr) return nullptr;
  for (uint32_t level = height_; level > 0; --level) {
    node = node->node(node->SlotAbove(address));
    if (node == nullptr) return nullptr;
  }
  const uint32_t slot = node->SlotAbove(address);
  if (node->ends[slot] <= address || node->children[slot] == nullptr) return nullptr;
  if (slot != 0) last_found_.store(reinterpret_cast<uintptr_t>(node) | slot, std::memory_order_relaxed);
  return node->vma(slot);
}

VmArea* VmaTree::LastStartingBelow(VirtAddr address) const {
  VmArea* vma = Find(address);
  if (vma == nullptr) return last_;
  return vma->start < address ? vma : vma->links.previous;
}

uint32_t VmaTree::SlotOf(const Node& node, const void* child) {
  for (uint32_t slot = 0; slot < node.count; ++slot) {
    if (node.children[slot] == child) return slot;
  }
  MMLAB_CHECK(false);
  return 0;
}

// VMAs that are being resized one after the other may overlap for a moment; then their gap counts as none.
uint64_t VmaTree::GapBefore(const VmArea& vma) {
  const uint64_t before = vma.links.previous == nullptr ? 0 : vma.links.previous->end.raw();
  return vma.start.raw() > before ? vma.start.raw() - before : 0;
}

// Tells the nodes above what has changed in one.
void VmaTree::UpdateUpwards(Node* node) {
  for (Node* parent = node->parent; parent != nullptr; node = parent, parent = node->parent) {
    const uint32_t slot = SlotOf(*parent, node);
    const uint64_t end = node->end();
    const uint64_t gap = node->max_gap();
    if (parent->ends[slot] == end && parent->gaps[slot] == gap) return;
    parent->ends[slot] = end;
    parent->gaps[slot] = gap;
  }
}

void VmaTree::UpdateSlot(const VmArea& vma) {
  Node& leaf = *vma.links.leaf;
  const uint32_t slot = SlotOf(leaf, &vma);
  leaf.ends[slot] = vma.end.raw();
  leaf.gaps[slot] = GapBefore(vma);
  UpdateUpwards(&leaf);
}

// Moves slots [first, first + count) of one node to before slot `at` of another.
void VmaTree::MoveSlots(Node& from, uint32_t first, Node& to, uint32_t at, uint32_t count) {
  const auto move = [&](auto* source, auto* target, auto empty) {
    std::copy_backward(target + at, target + to.count, target + to.count + count);
    std::copy(source + first, source + first + count, target + at);
    std::copy(source + first + count, source + from.count, source + first);
    std::fill(source + from.count - count, source + from.count, empty);
  };
  move(from.ends, to.ends, ~uint64_t{0});
  move(from.children, to.children, nullptr);
  move(from.gaps, to.gaps, 0);
  from.count -= count;
  to.count += count;
  for (uint32_t slot = at; slot < at + count; ++slot) to.SetChild(slot, to.children[slot]);
}

// Makes room in a full node for one more at `slot`, by a new node to the right of it. What is filled in order stays full.
VmaTree::Node* VmaTree::Split(Node& node, uint32_t slot) {
  if (&node == root_) {
    root_ = NewNode(false);
    ++height_;
    root_->count = 1;
    root_->SetChild(0, &node);
    UpdateUpwards(&node);
  }
  Node* right = NewNode(node.leaf);
  const uint32_t keep = slot == kSlots ? kSlots - 1 : slot == 0 ? 1 : in_order_ ? slot : kSlots / 2;
  MoveSlots(node, keep, *right, 0, kSlots - keep);
  UpdateUpwards(&node);
  InsertInto(node.parent, SlotOf(*node.parent, &node) + 1, right, right->end(), right->max_gap());
  return right;
}

void VmaTree::InsertInto(Node* node, uint32_t slot, void* child, uint64_t end, uint64_t gap) {
  if (node->count == kSlots) {
    Node* right = Split(*node, slot);
    if (slot > node->count) {
      slot -= node->count;
      node = right;
    }
  }
  const auto open = [&](auto* array) { std::copy_backward(array + slot, array + node->count, array + node->count + 1); };
  open(node->ends);
  open(node->children);
  open(node->gaps);
  ++node->count;
  node->ends[slot] = end;
  node->gaps[slot] = gap;
  node->SetChild(slot, child);
  UpdateUpwards(node);
}

VmArea* VmaTree::Insert(std::unique_ptr<VmArea> owned) {
  VmArea* vma = owned.release();
  const uint64_t start = vma->start.raw();
  if (root_ == nullptr) root_ = NewNode(true);
  Node* leaf = root_;
  for (uint32_t level = height_; level > 0; --level) leaf = leaf->node(std::min(leaf->SlotAbove(start), leaf->count - 1));
  uint32_t slot = leaf->SlotAbove(start);
  if (slot == kSlots - 1 && leaf->count == kSlots && leaf->ends[slot] <= start) ++slot;
  VmArea* next = slot < leaf->count ? leaf->vma(slot) : nullptr;
  VmArea* previous = next != nullptr ? next->links.previous : last_;
  in_order_ = last_inserted_ != nullptr && (last_inserted_ == previous || last_inserted_ == next);
  last_inserted_ = vma;
  holes_ -= HoleBefore(next);
  vma->links = {previous, next, nullptr};
  (previous == nullptr ? first_ : previous->links.next) = vma;
  (next == nullptr ? last_ : next->links.previous) = vma;
  ++size_;
  holes_ += HoleBefore(vma) + HoleBefore(next);
  InsertInto(leaf, slot, vma, vma->end.raw(), GapBefore(*vma));
  if (next != nullptr) UpdateSlot(*next);
  return vma;
}

// Fills a node that has become small up from its neighbour, or joins the two.
void VmaTree::Refill(Node* node) {
  Node& parent = *node->parent;
  const uint32_t slot = SlotOf(parent, node);
  const uint32_t left_slot = slot > 0 ? slot - 1 : slot;
  Node& left = *parent.node(left_slot);
  Node& right = *parent.node(left_slot + 1);
  const uint32_t together = left.count + right.count;
  if (together <= kSlots - kMinSlots) {
    MoveSlots(right, 0, left, left.count, right.count);
    UpdateUpwards(&left);
    RemoveFrom(&parent, left_slot + 1);
    Free(&right);
    return;
  }
  if (left.count > right.count) {
    const uint32_t count = left.count - together / 2;
    MoveSlots(left, left.count - count, right, 0, count);
  } else {
    MoveSlots(right, 0, left, left.count, together / 2 - left.count);
  }
  UpdateUpwards(&left);
  UpdateUpwards(&right);
}

void VmaTree::RemoveFrom(Node* node, uint32_t slot) {
  const auto close = [&](auto* array, auto empty) {
    std::copy(array + slot + 1, array + node->count, array + slot);
    array[node->count - 1] = empty;
  };
  close(node->ends, ~uint64_t{0});
  close(node->children, nullptr);
  close(node->gaps, 0);
  --node->count;
  if (node != root_) {
    if (node->count > 0) UpdateUpwards(node);
    if (node->count < kMinSlots) Refill(node);
    return;
  }
  if (node->count > 1 || (node->leaf && node->count == 1)) return;
  // A root of one child is not needed; nor one without any.
  root_ = node->count == 0 ? nullptr : node->node(0);
  if (root_ != nullptr) {
    root_->parent = nullptr;
    --height_;
  }
  Free(node);
}

std::unique_ptr<VmArea> VmaTree::Remove(VmArea& vma) {
  if (last_inserted_ == &vma) last_inserted_ = nullptr;
  Node* leaf = vma.links.leaf;
  VmArea* next = vma.links.next;
  holes_ -= HoleBefore(&vma) + HoleBefore(next);
  (vma.links.previous == nullptr ? first_ : vma.links.previous->links.next) = next;
  (next == nullptr ? last_ : next->links.previous) = vma.links.previous;
  --size_;
  holes_ += HoleBefore(next);
  RemoveFrom(leaf, SlotOf(*leaf, &vma));
  if (next != nullptr) UpdateSlot(*next);
  vma.links = {};
  return std::unique_ptr<VmArea>(&vma);
}

void VmaTree::Resize(VmArea& vma, VirtAddr start, VirtAddr end) {
  holes_ -= HoleBefore(&vma) + HoleBefore(vma.links.next);
  vma.start = start;
  vma.end = end;
  holes_ += HoleBefore(&vma) + HoleBefore(vma.links.next);
  UpdateSlot(vma);
  if (vma.links.next != nullptr) UpdateSlot(*vma.links.next);
}

// The first VMA in order, respectively the last, below a node that has so large a gap before it. REQUIRES: there is one.
VmArea* VmaTree::FirstWithGap(const Node* node, uint64_t length) {
  while (true) {
    uint32_t slot = 0;
    while (node->gaps[slot] < length) ++slot;
    if (node->leaf) return node->vma(slot);
    node = node->node(slot);
  }
}
VmArea* VmaTree::LastWithGap(const Node* node, uint64_t length) {
  while (true) {
    uint32_t slot = node->count - 1;
    while (node->gaps[slot] < length) --slot;
    if (node->leaf) return node->vma(slot);
    node = node->node(slot);
  }
}

// The first VMA after this one, respectively the last before it, with so large a gap before it; null when there is none.
VmArea* VmaTree::NextWithGap(const VmArea& vma, uint64_t length) {
  const void* child = &vma;
  for (const Node* node = vma.links.leaf; node != nullptr; child = node, node = node->parent) {
    for (uint32_t slot = SlotOf(*node, child) + 1; slot < node->count; ++slot) {
      if (node->gaps[slot] >= length) return node->leaf ? node->vma(slot) : FirstWithGap(node->node(slot), length);
    }
  }
  return nullptr;
}
VmArea* VmaTree::PreviousWithGap(const VmArea& vma, uint64_t length) {
  const void* child = &vma;
  for (const Node* node = vma.links.leaf; node != nullptr; child = node, node = node->parent) {
    for (uint32_t slot = SlotOf(*node, child); slot-- > 0;) {
      if (node->gaps[slot] >= length) return node->leaf ? node->vma(slot) : LastWithGap(node->node(slot), length);
    }
  }
  return nullptr;
}

std::optional<VirtAddr> VmaTree::LowestGap(Bytes length, VirtAddr low, VirtAddr high) const {
  const uint64_t wanted = length.raw();
  auto fits = [&](uint64_t from, uint64_t to) { return from <= to && to - from >= wanted; };
  VmArea* vma = Find(low);
  if (vma != nullptr) {
    // Only this first hole can reach below `low`.
    const uint64_t hole = vma->links.previous == nullptr ? 0 : vma->links.previous->end.raw();
    const uint64_t from = std::max(hole, low.raw());
    if (fits(from, std::min(vma->start.raw(), high.raw()))) return VirtAddr(from);
    vma = NextWithGap(*vma, wanted);
    if (vma != nullptr) {
      const uint64_t start = vma->links.previous->end.raw();
      if (fits(start, std::min(vma->start.raw(), high.raw()))) return VirtAddr(start);
      return std::nullopt;
    }
  }
  const uint64_t from = std::max(last_ == nullptr ? 0 : last_->end.raw(), low.raw());
  if (fits(from, high.raw())) return VirtAddr(from);
  return std::nullopt;
}

std::optional<VirtAddr> VmaTree::HighestGap(Bytes length, VirtAddr low, VirtAddr high) const {
  const uint64_t wanted = length.raw();
  auto fits = [&](uint64_t from, uint64_t to) { return from <= to && to - from >= wanted; };
  VmArea* below = LastStartingBelow(high);
  // Only the hole above that VMA can reach above `high`.
  if (fits(std::max(below == nullptr ? 0 : below->end.raw(), low.raw()), high.raw())) return high - length;
  if (below == nullptr) return std::nullopt;
  VmArea* vma = GapBefore(*below) >= wanted ? below : PreviousWithGap(*below, wanted);
  if (vma == nullptr) return std::nullopt;
  const uint64_t hole = vma->links.previous == nullptr ? 0 : vma->links.previous->end.raw();
  if (fits(std::max(hole, low.raw()), vma->start.raw())) return vma->start - length;
  return std::nullopt;
}

Bytes VmaTree::HostMemory() const { return Bytes(nodes_ * sizeof(Node)); }

void VmaTree::CheckNode(const Node& node, uint32_t level, std::vector<std::string>* violations) const {
  const auto expect = [&](bool holds, const char* rule) {
    if (!holds) violations->push_back(absl::StrFormat("VMA tree, a node %d above the leaves: %s", level, rule));
  };
  expect(node.leaf == (level == 0), "is a leaf at the wrong height");
  expect(node.count > 0 && node.count <= kSlots, "has a wrong number of slots");
  for (uint32_t slot = 0; slot < node.count; ++slot) {
    if (node.leaf) {
      const VmArea& vma = *node.vma(slot);
      expect(vma.links.leaf == &node, "a VMA does not know its leaf");
      expect(node.ends[slot] == vma.end.raw() && node.gaps[slot] == GapBefore(vma), "knows another end or gap than its VMA has");
      continue;
    }
    const Node& child = *node.node(slot);
    expect(child.parent == &node, "a child does not know its parent");
    expect(node.ends[slot] == child.end() && node.gaps[slot] == child.max_gap(), "knows another end or gap than its child has");
    CheckNode(child, level - 1, violations);
  }
  expect(std::is_sorted(std::begin(node.ends), std::begin(node.ends) + node.count), "ends do not ascend");
  for (uint32_t slot = node.count; slot < kSlots; ++slot) {
    expect(node.ends[slot] == ~uint64_t{0} && node.children[slot] == nullptr && node.gaps[slot] == 0, "an unused slot is not empty");
  }
}

void VmaTree::CheckInvariants(std::vector<std::string>* violations) const {
  if (root_ != nullptr) CheckNode(*root_, height_, violations);
  size_t count = 0;
  size_t holes = 0;
  for (const VmArea* vma = first_; vma != nullptr; vma = vma->links.next) {
    ++count;
    holes += HoleBefore(vma);
  }
  if (holes != holes_) violations->push_back(absl::StrFormat("VMA tree: %d VMAs lie behind holes, %d are counted", holes, holes_));
  if (count != size_) violations->push_back(absl::StrFormat("VMA tree: %d VMAs are linked, %d are counted", count, size_));
}

}  // namespace mmlab

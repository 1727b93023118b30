#include "server/process/vma_tree.h"

#include <algorithm>

#include "server/base/check.h"
#include "server/base/random.h"

namespace mmlab {
namespace {

uint64_t MaxGap(const VmArea* node) { return node == nullptr ? 0 : node->links.max_gap; }

// Recomputes what a node knows of its subtree; whether it changed.
bool UpdateMaxGap(VmArea* node) {
  const uint64_t max_gap = std::max({node->links.gap, MaxGap(node->links.left), MaxGap(node->links.right)});
  if (max_gap == node->links.max_gap) return false;
  node->links.max_gap = max_gap;
  return true;
}

// The first node in order, respectively the last, of this subtree whose gap is large enough. REQUIRES: there is one.
VmArea* FirstWithGap(VmArea* node, uint64_t length) {
  while (true) {
    if (MaxGap(node->links.left) >= length) {
      node = node->links.left;
    } else if (node->links.gap >= length) {
      return node;
    } else {
      node = node->links.right;
    }
  }
}
VmArea* LastWithGap(VmArea* node, uint64_t length) {
  while (true) {
    if (MaxGap(node->links.right) >= length) {
      node = node->links.right;
    } else if (node->links.gap >= length) {
      return node;
    } else {
      node = node->links.left;
    }
  }
}

// The first node after this one, respectively the last before it, whose gap is large enough; null when there is none.
VmArea* NextWithGap(VmArea* node, uint64_t length) {
  if (MaxGap(node->links.right) >= length) return FirstWithGap(node->links.right, length);
  for (VmArea* parent = node->links.parent; parent != nullptr; node = parent, parent = node->links.parent) {
    if (node == parent->links.right) continue;
    if (parent->links.gap >= length) return parent;
    if (MaxGap(parent->links.right) >= length) return FirstWithGap(parent->links.right, length);
  }
  return nullptr;
}
VmArea* PreviousWithGap(VmArea* node, uint64_t length) {
  if (MaxGap(node->links.left) >= length) return LastWithGap(node->links.left, length);
  for (VmArea* parent = node->links.parent; parent != nullptr; node = parent, parent = node->links.parent) {
    if (node == parent->links.left) continue;
    if (parent->links.gap >= length) return parent;
    if (MaxGap(parent->links.left) >= length) return LastWithGap(parent->links.left, length);
  }
  return nullptr;
}

}  // namespace

VmaTree::~VmaTree() {
  for (VmArea* vma = first_; vma != nullptr;) {
    VmArea* next = vma->links.next;
    delete vma;
    vma = next;
  }
}

VmArea* VmaTree::Find(VirtAddr address) const {
  VmArea* found = nullptr;
  for (VmArea* node = root_; node != nullptr;) {
    if (node->end > address) {
      found = node;
      if (node->start <= address) break;
      node = node->links.left;
    } else {
      node = node->links.right;
    }
  }
  return found;
}

VmArea* VmaTree::Lookup(VirtAddr address) const {
  VmArea* vma = Find(address);
  return vma != nullptr && vma->start <= address ? vma : nullptr;
}

VmArea* VmaTree::FirstIn(VirtRange range) const {
  VmArea* vma = Find(range.start);
  return vma != nullptr && vma->start < range.end ? vma : nullptr;
}

VmArea* VmaTree::LastStartingBelow(VirtAddr address) const {
  VmArea* found = nullptr;
  for (VmArea* node = root_; node != nullptr;) {
    if (node->start < address) {
      found = node;
      node = node->links.right;
    } else {
      node = node->links.left;
    }
  }
  return found;
}

void VmaTree::UpdateUpwards(VmArea* node) {
  while (node != nullptr && UpdateMaxGap(node)) node = node->links.parent;
}

// Neighbours that are being resized one after the other may overlap for a moment; their gap counts as none.
void VmaTree::SetGap(VmArea* node) {
  const uint64_t before = node->links.previous == nullptr ? 0 : node->links.previous->end.raw();
  node->links.gap = node->start.raw() > before ? node->start.raw() - before : 0;
  UpdateUpwards(node);
}

// Turns the node and its parent around, keeping order.
void VmaTree::RotateUp(VmArea* node) {
  VmArea* parent = node->links.parent;
  VmArea* above = parent->links.parent;
  if (parent->links.left == node) {
    parent->links.left = node->links.right;
    if (node->links.right != nullptr) node->links.right->links.parent = parent;
    node->links.right = parent;
  } else {
    parent->links.right = node->links.left;
    if (node->links.left != nullptr) node->links.left->links.parent = parent;
    node->links.left = parent;
  }
  parent->links.parent = node;
  node->links.parent = above;
  if (above == nullptr) {
    root_ = node;
  } else if (above->links.left == parent) {
    above->links.left = node;
  } else {
    above->links.right = node;
  }
  UpdateMaxGap(parent);
  UpdateMaxGap(node);
}

VmArea* VmaTree::Insert(std::unique_ptr<VmArea> owned) {
  VmArea* vma = owned.release();
  vma->links = {};
  vma->links.priority = Random(insertions_++).Next();
  VmArea* parent = nullptr;
  bool left = false;
  for (VmArea* node = root_; node != nullptr;) {
    parent = node;
    left = vma->start < node->start;
    node = left ? node->links.left : node->links.right;
  }
  vma->links.parent = parent;
  if (parent == nullptr) {
    root_ = vma;
  } else if (left) {
    parent->links.left = vma;
    vma->links.next = parent;
    vma->links.previous = parent->links.previous;
  } else {
    parent->links.right = vma;
    vma->links.previous = parent;
    vma->links.next = parent->links.next;
  }
  (vma->links.previous == nullptr ? first_ : vma->links.previous->links.next) = vma;
  (vma->links.next == nullptr ? last_ : vma->links.next->links.previous) = vma;
  ++size_;
  SetGap(vma);
  if (vma->links.next != nullptr) SetGap(vma->links.next);
  while (vma->links.parent != nullptr && vma->links.parent->links.priority < vma->links.priority) RotateUp(vma);
  UpdateUpwards(vma->links.parent);
  return vma;
}

std::unique_ptr<VmArea> VmaTree::Remove(VmArea& vma) {
  while (vma.links.left != nullptr || vma.links.right != nullptr) {
    VmArea* left = vma.links.left;
    VmArea* right = vma.links.right;
    RotateUp(right == nullptr || (left != nullptr && left->links.priority > right->links.priority) ? left : right);
  }
  VmArea* parent = vma.links.parent;
  if (parent == nullptr) {
    root_ = nullptr;
  } else if (parent->links.left == &vma) {
    parent->links.left = nullptr;
  } else {
    parent->links.right = nullptr;
  }
  // Rotations left sums along the path that still count this node.
  for (VmArea* node = parent; node != nullptr; node = node->links.parent) UpdateMaxGap(node);
  VmArea* next = vma.links.next;
  (vma.links.previous == nullptr ? first_ : vma.links.previous->links.next) = next;
  (next == nullptr ? last_ : next->links.previous) = vma.links.previous;
  --size_;
  if (next != nullptr) SetGap(next);
  vma.links = {};
  return std::unique_ptr<VmArea>(&vma);
}

void VmaTree::Resize(VmArea& vma, VirtAddr start, VirtAddr end) {
  vma.start = start;
  vma.end = end;
  SetGap(&vma);
  if (vma.links.next != nullptr) SetGap(vma.links.next);
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
    vma = NextWithGap(vma, wanted);
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
  VmArea* vma = below->links.gap >= wanted ? below : PreviousWithGap(below, wanted);
  if (vma == nullptr) return std::nullopt;
  const uint64_t hole = vma->links.previous == nullptr ? 0 : vma->links.previous->end.raw();
  if (fits(std::max(hole, low.raw()), vma->start.raw())) return vma->start - length;
  return std::nullopt;
}

}  // namespace mmlab

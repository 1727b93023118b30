#include "server/kernel/free_area_tree.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

// The lowest multiple of `align` at or above both; nothing when it or its end is beyond the last address.
std::optional<uint64_t> FirstFit(uint64_t start, uint64_t low, uint64_t size, uint64_t align) {
  uint64_t at = 0;
  uint64_t end = 0;
  if (__builtin_add_overflow(std::max(start, low), align - 1, &at)) return std::nullopt;
  at &= ~(align - 1);
  if (__builtin_add_overflow(at, size, &end)) return std::nullopt;
  return at;
}

}  // namespace

uint64_t FreeAreaTree::Computed(uint32_t n) const {
  const Node& node = nodes_[n];
  return std::max({node.end - node.start, LargestOf(node.child[0]), LargestOf(node.child[1])});
}

void FreeAreaTree::Propagate(uint32_t n) {
  for (; n != kNone; n = nodes_[n].parent) nodes_[n].largest = Computed(n);
}

FreeAreaTree::Place FreeAreaTree::FindPlace(uint64_t start) const {
  Place place;
  for (uint32_t n = root_; n != kNone; n = nodes_[n].child[place.side]) {
    place.parent = n;
    place.side = start < nodes_[n].start ? 0 : 1;
    (place.side == 0 ? place.after : place.before) = n;
  }
  return place;
}

void FreeAreaTree::Release(uint64_t start, uint64_t end) {
  MMLAB_CHECK(start < end);
  const Place place = FindPlace(start);
  MMLAB_CHECK(place.before == kNone || nodes_[place.before].end <= start);
  MMLAB_CHECK(place.after == kNone || end <= nodes_[place.after].start);
  const bool joins_before = place.before != kNone && nodes_[place.before].end == start;
  const bool joins_after = place.after != kNone && nodes_[place.after].start == end;
  if (!joins_before && !joins_after) {
    Link(start, end, place);
    return;
  }
  if (!joins_before) {
    nodes_[place.after].start = start;
    Propagate(place.after);
    return;
  }
  if (joins_after) {  // The later range gives way to the earlier one.
    end = nodes_[place.after].end;
    Unlink(place.after);
  }
  nodes_[place.before].end = end;
  Propagate(place.before);
}

uint32_t FreeAreaTree::FindLowest(uint64_t size, uint64_t align, uint64_t low, uint64_t length, Search* search) const {
  const auto fits = [&](uint32_t n) {
    const std::optional<uint64_t> at = FirstFit(nodes_[n].start, low, size, align);
    return at && *at + size <= nodes_[n].end;
  };
  uint32_t n = root_;
  while (n != kNone) {
    if (search != nullptr) ++search->nodes_visited;
    const Node& node = nodes_[n];
    if (LargestOf(node.child[0]) >= length && low < node.start) {
      n = node.child[0];
      continue;
    }
    if (fits(n)) return n;
    if (LargestOf(node.child[1]) >= length) {
      n = node.child[1];
      continue;
    }
    // A dead end, which only `low` or the alignment can lead into: back up to the first right subtree that was not searched.
    while ((n = nodes_[n].parent) != kNone) {
      if (search != nullptr) ++search->nodes_visited;
      if (fits(n)) return n;
      if (LargestOf(nodes_[n].child[1]) >= length && low <= nodes_[n].start) {
        low = nodes_[n].start + 1;
        n = nodes_[n].child[1];
        break;
      }
    }
  }
  return kNone;
}

std::optional<uint64_t> FreeAreaTree::Take(uint64_t size, uint64_t align, uint64_t low, uint64_t high, uint64_t page_bytes,
                                           Search* search) {
  MMLAB_CHECK(size > 0 && align > 0 && (align & (align - 1)) == 0);
  if (low > high || high - low < size) return std::nullopt;
  // The worst case of alignment is added, unless the caller names the very place.
  uint64_t length = size;
  if (align > page_bytes && high - low != size && __builtin_add_overflow(size, align - 1, &length)) return std::nullopt;
  if (search != nullptr) search->length = length;
  const uint32_t n = FindLowest(size, align, low, length, search);
  if (n == kNone) return std::nullopt;
  const std::optional<uint64_t> at = FirstFit(nodes_[n].start, low, size, align);
  // The search may have moved its lower limit; then the place counted from the caller's limit need not be inside.
  if (!at || *at + size > high || *at < nodes_[n].start || *at + size > nodes_[n].end) return std::nullopt;
  if (search != nullptr) search->found = {nodes_[n].start, nodes_[n].end};
  Carve(n, *at, *at + size);
  return at;
}

bool FreeAreaTree::TakeExactly(uint64_t start, uint64_t end) {
  MMLAB_CHECK(start < end);
  const uint32_t n = FindPlace(start).before;
  if (n == kNone || nodes_[n].end < end) return false;
  Carve(n, start, end);
  return true;
}

void FreeAreaTree::Carve(uint32_t n, uint64_t start, uint64_t end) {
  Node& node = nodes_[n];
  MMLAB_CHECK(node.start <= start && end <= node.end);
  const uint64_t before = node.start;
  if (node.start == start && node.end == end) {
    Unlink(n);
    return;
  }
  if (node.end == end) {
    node.end = start;
    Propagate(n);
    return;
  }
  node.start = end;
  Propagate(n);
  if (before < start) Link(before, start, FindPlace(before));
}

void FreeAreaTree::Link(uint64_t start, uint64_t end, const Place& place) {
  uint32_t n = static_cast<uint32_t>(nodes_.size());
  if (spare_.empty()) {
    nodes_.emplace_back();
  } else {
    n = spare_.back();
    spare_.pop_back();
    nodes_[n] = Node();
  }
  Node& node = nodes_[n];
  node.start = start;
  node.end = end;
  node.parent = place.parent;
  if (place.parent == kNone) {
    root_ = n;
  } else {
    nodes_[place.parent].child[place.side] = n;
  }
  ++count_;
  Propagate(n);
  BalanceAfterLink(n);
}

void FreeAreaTree::Replace(uint32_t parent, uint32_t old_child, uint32_t new_child) {
  if (parent == kNone) {
    root_ = new_child;
  } else {
    nodes_[parent].child[nodes_[parent].child[0] == old_child ? 0 : 1] = new_child;
  }
  if (new_child != kNone) nodes_[new_child].parent = parent;
}

void FreeAreaTree::Rotate(uint32_t n, int side) {
  const uint32_t up = nodes_[n].child[1 - side];
  const uint32_t inner = nodes_[up].child[side];
  Replace(nodes_[n].parent, n, up);
  nodes_[n].child[1 - side] = inner;
  if (inner != kNone) nodes_[inner].parent = n;
  nodes_[up].child[side] = n;
  nodes_[n].parent = up;
  nodes_[n].largest = Computed(n);
  nodes_[up].largest = Computed(up);
}

void FreeAreaTree::BalanceAfterLink(uint32_t n) {
  while (IsRed(nodes_[n].parent)) {
    uint32_t parent = nodes_[n].parent;
    const uint32_t grandparent = nodes_[parent].parent;
    const int side = nodes_[grandparent].child[0] == parent ? 0 : 1;
    const uint32_t uncle = nodes_[grandparent].child[1 - side];
    if (IsRed(uncle)) {
      nodes_[parent].red = nodes_[uncle].red = false;
      nodes_[grandparent].red = true;
      n = grandparent;
      continue;
    }
    if (nodes_[parent].child[1 - side] == n) {
      Rotate(parent, side);
      parent = n;
    }
    nodes_[parent].red = false;
    nodes_[grandparent].red = true;
    Rotate(grandparent, 1 - side);
    break;
  }
  nodes_[root_].red = false;
}

uint32_t FreeAreaTree::Edge(uint32_t n, int side) const {
  while (nodes_[n].child[side] != kNone) n = nodes_[n].child[side];
  return n;
}

// A node with two children is replaced by its successor, which takes over its colour.
void FreeAreaTree::Unlink(uint32_t n) {
  const Node gone = nodes_[n];
  uint32_t parent = gone.parent;  // Of the place that lost a node of colour `lost_red`.
  int side = parent != kNone && nodes_[parent].child[1] == n ? 1 : 0;
  bool lost_red = gone.red;
  uint32_t child = gone.child[0] != kNone ? gone.child[0] : gone.child[1];
  if (gone.child[0] == kNone || gone.child[1] == kNone) {
    Replace(parent, n, child);
  } else {
    const uint32_t successor = Edge(gone.child[1], 0);
    child = nodes_[successor].child[1];
    lost_red = nodes_[successor].red;
    if (nodes_[successor].parent == n) {
      parent = successor;
      side = 1;
    } else {
      parent = nodes_[successor].parent;
      side = 0;
      Replace(parent, successor, child);
      nodes_[successor].child[1] = gone.child[1];
      nodes_[gone.child[1]].parent = successor;
    }
    Replace(gone.parent, n, successor);
    nodes_[successor].child[0] = gone.child[0];
    nodes_[gone.child[0]].parent = successor;
    nodes_[successor].red = gone.red;
  }
  spare_.push_back(n);
  --count_;
  Propagate(parent);
  if (lost_red) return;
  if (IsRed(child)) {
    nodes_[child].red = false;
  } else {
    BalanceAfterUnlink(parent, side);
  }
}

void FreeAreaTree::BalanceAfterUnlink(uint32_t parent, int side) {
  while (parent != kNone) {
    const int other = 1 - side;
    uint32_t sibling = nodes_[parent].child[other];
    if (IsRed(sibling)) {
      nodes_[sibling].red = false;
      nodes_[parent].red = true;
      Rotate(parent, side);
      sibling = nodes_[parent].child[other];
    }
    if (!IsRed(nodes_[sibling].child[0]) && !IsRed(nodes_[sibling].child[1])) {
      nodes_[sibling].red = true;
      if (nodes_[parent].red) {
        nodes_[parent].red = false;
        return;
      }
      const uint32_t up = nodes_[parent].parent;
      side = up != kNone && nodes_[up].child[1] == parent ? 1 : 0;
      parent = up;
      continue;
    }
    if (!IsRed(nodes_[sibling].child[other])) {
      nodes_[nodes_[sibling].child[side]].red = false;
      nodes_[sibling].red = true;
      Rotate(sibling, other);
      sibling = nodes_[parent].child[other];
    }
    nodes_[sibling].red = nodes_[parent].red;
    nodes_[parent].red = false;
    nodes_[nodes_[sibling].child[other]].red = false;
    Rotate(parent, side);
    return;
  }
}

bool FreeAreaTree::Load(absl::Span<const RecordedNode> preorder) {
  *this = FreeAreaTree();
  struct Open {
    uint32_t parent;
    int side;
  };
  std::vector<Open> open;
  if (!preorder.empty()) open.push_back({kNone, 0});
  for (const RecordedNode& from : preorder) {
    if (open.empty() || from.start >= from.end) return false;
    const Open at = open.back();
    open.pop_back();
    const auto n = static_cast<uint32_t>(nodes_.size());
    Node& node = nodes_.emplace_back();
    node.start = from.start;
    node.end = from.end;
    node.parent = at.parent;
    node.red = from.red;
    if (at.parent == kNone) {
      root_ = n;
    } else {
      nodes_[at.parent].child[at.side] = n;
    }
    if (from.has_right) open.push_back({n, 1});
    if (from.has_left) open.push_back({n, 0});
  }
  count_ = nodes_.size();
  for (uint32_t n = static_cast<uint32_t>(nodes_.size()); n-- > 0;) nodes_[n].largest = Computed(n);  // Children follow their parent.
  std::vector<std::string> problems;
  if (open.empty()) CheckInvariants(&problems);
  return open.empty() && problems.empty();
}

void FreeAreaTree::ForEach(absl::FunctionRef<void(Area)> visit) const {
  uint32_t n = root_ == kNone ? kNone : Edge(root_, 0);
  while (n != kNone) {
    visit({nodes_[n].start, nodes_[n].end});
    if (nodes_[n].child[1] != kNone) {
      n = Edge(nodes_[n].child[1], 0);
      continue;
    }
    uint32_t from = n;
    for (n = nodes_[n].parent; n != kNone && nodes_[n].child[1] == from; n = nodes_[n].parent) from = n;
  }
}

void FreeAreaTree::AddToHash(StateHasher& hasher) const {
  std::vector<uint32_t> open;
  if (root_ != kNone) open.push_back(root_);
  while (!open.empty()) {
    const Node& node = nodes_[open.back()];
    open.pop_back();
    hasher.Add(node.start);
    hasher.Add(node.end);
    hasher.Add((node.red ? 1u : 0u) | (node.child[0] != kNone ? 2u : 0u) | (node.child[1] != kNone ? 4u : 0u));
    for (const int side : {1, 0}) {
      if (node.child[side] != kNone) open.push_back(node.child[side]);
    }
  }
}

void FreeAreaTree::CheckInvariants(std::vector<std::string>* problems) const {
  const auto problem = [&](const auto&... parts) { problems->push_back(absl::StrCat("free kernel addresses: ", parts...)); };
  size_t nodes = 0;
  uint64_t last_end = 0;
  ForEach([&](Area area) {
    if (area.start >= area.end || (nodes > 0 && area.start <= last_end)) problem("range at 0x", absl::Hex(area.start), " is out of order");
    last_end = area.end;
    ++nodes;
  });
  if (nodes != count_) problem(count_, " ranges are counted, the tree has ", nodes);
  if (IsRed(root_)) problem("the root is red");
  int black_height = -1;
  struct Visit {
    uint32_t node;
    int blacks;
  };
  std::vector<Visit> open;
  if (root_ != kNone) open.push_back({root_, 0});
  while (!open.empty()) {
    const Visit at = open.back();
    open.pop_back();
    const Node& node = nodes_[at.node];
    if (node.largest != Computed(at.node)) problem("size of the subtree at 0x", absl::Hex(node.start), " is wrong");
    const int blacks = at.blacks + (node.red ? 0 : 1);
    for (const uint32_t child : node.child) {
      if (child == kNone) {
        if (black_height >= 0 && black_height != blacks) problem("the tree is out of balance at 0x", absl::Hex(node.start));
        black_height = blacks;
        continue;
      }
      if (nodes_[child].parent != at.node) problem("wrong parent of 0x", absl::Hex(nodes_[child].start));
      if (node.red && nodes_[child].red) problem("two red nodes at 0x", absl::Hex(node.start));
      open.push_back({child, blacks});
    }
  }
}

}  // namespace mmlab

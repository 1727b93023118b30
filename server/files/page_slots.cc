#include "server/files/page_slots.h"

#include "server/base/check.h"

namespace mmlab {

PageSlots::Node* PageSlots::FindLeaf(uint64_t index) const {
  if (root_ == nullptr || index >> root_->shift >= kEntries) return nullptr;
  Node* node = root_;
  while (node->shift > 0) {
    const uint64_t at = index >> node->shift & (kEntries - 1);
    if ((node->of_kind[0] >> at & 1) == 0) return nullptr;
    node = node->children[at];
  }
  last_ = node;
  last_block_ = index >> kShift;
  return node;
}

PageSlots::Node* PageSlots::NewNode(Node* parent, unsigned shift, unsigned offset) {
  auto* node = new Node;
  node->parent = parent;
  node->shift = static_cast<uint8_t>(shift);
  node->offset = static_cast<uint8_t>(offset);
  node->object = KernelObjectRef(objects_, KernelObject::kXarrayNode);
  ++nodes_;
  if (parent != nullptr) {
    parent->children[offset] = node;
    parent->of_kind[0] |= uint64_t{1} << offset;
  }
  return node;
}

void PageSlots::Delete(Node* node) {
  if (last_ == node) last_ = nullptr;
  --nodes_;
  delete node;
}

void PageSlots::Free(Node* node) {
  if (node == nullptr) return;
  for (uint64_t left = node->shift > 0 ? node->of_kind[0] : 0; left != 0; left &= left - 1) {
    Free(node->children[static_cast<size_t>(std::countr_zero(left))]);
  }
  Delete(node);
}

// xas_create(), xas_expand(). Not for a single entry at index 0.
PageSlots::Node* PageSlots::MakeLeaf(uint64_t index) {
  if (root_ == nullptr) {
    unsigned shift = 0;
    while (index >> shift >= kEntries) shift += kShift;
    root_ = NewNode(nullptr, shift, 0);
    if (head_kind_.has_value()) {
      Node* leaf = root_;
      while (leaf->shift > 0) leaf = NewNode(leaf, leaf->shift - kShift, 0);
      leaf->entries[0] = head_;
      leaf->of_kind[static_cast<size_t>(*head_kind_)] |= 1;
      head_kind_.reset();
    }
  }
  while (index >> root_->shift >= kEntries) {
    Node* below = root_;
    root_ = NewNode(nullptr, below->shift + kShift, 0);
    root_->children[0] = below;
    root_->of_kind[0] = 1;
    below->parent = root_;
  }
  Node* node = root_;
  while (node->shift > 0) {
    const auto at = static_cast<unsigned>(index >> node->shift & (kEntries - 1));
    node = (node->of_kind[0] >> at & 1) != 0 ? node->children[at] : NewNode(node, node->shift - kShift, at);
  }
  last_ = node;
  last_block_ = index >> kShift;
  return node;
}

std::optional<PageSlots::Kind> PageSlots::KindAt(uint64_t index) const {
  for (const Kind kind : {Kind::kPage, Kind::kShadow, Kind::kSwapped}) {
    if (Entry(PageIndex(index), kind) != nullptr) return kind;
  }
  return std::nullopt;
}

void PageSlots::Store(PageIndex index, Kind kind, uint64_t value) {
  const uint64_t raw = index.raw();
  ++counts_[static_cast<size_t>(kind)];
  Node* leaf = LeafOf(raw);
  if (leaf == nullptr) {
    if (root_ == nullptr && raw == 0) {
      if (head_kind_.has_value()) --counts_[static_cast<size_t>(*head_kind_)];
      head_kind_ = kind;
      head_ = value;
      return;
    }
    leaf = MakeLeaf(raw);
  }
  const uint64_t at = raw % kEntries;
  const uint64_t bit = uint64_t{1} << at;
  for (size_t i = 0; i < kKinds; ++i) {
    counts_[i] -= leaf->of_kind[i] >> at & 1;
    leaf->of_kind[i] &= ~bit;
  }
  leaf->of_kind[static_cast<size_t>(kind)] |= bit;
  leaf->entries[at] = value;
}

uint64_t PageSlots::Insert(PageIndex index, Pfn pfn) {
  const uint64_t* left = Entry(index, Kind::kShadow);
  const uint64_t shadow = left == nullptr ? 0 : *left;
  Store(index, Kind::kPage, pfn.raw());
  return shadow;
}

void PageSlots::Replace(PageIndex index, Pfn pfn) {
  MMLAB_CHECK(Entry(index, Kind::kPage) != nullptr);
  Store(index, Kind::kPage, pfn.raw());
}

// xas_delete_node(): a node whose last entry went goes too.
void PageSlots::Erase(PageIndex index) {
  const uint64_t raw = index.raw();
  const std::optional<Kind> kind = KindAt(raw);
  MMLAB_CHECK(kind.has_value());
  --counts_[static_cast<size_t>(*kind)];
  Node* node = LeafOf(raw);
  if (node == nullptr) {
    head_kind_.reset();
    return;
  }
  node->of_kind[static_cast<size_t>(*kind)] &= ~(uint64_t{1} << raw % kEntries);
  while (node != nullptr && node->empty()) {
    Node* const above = node->parent;
    if (above != nullptr) {
      above->of_kind[0] &= ~(uint64_t{1} << node->offset);
    } else {
      root_ = nullptr;
    }
    Delete(node);
    node = above;
  }
  if (node != nullptr && node->parent == nullptr) Shrink();
}

// xas_shrink(): no root whose only entry is its first.
void PageSlots::Shrink() {
  while (root_ != nullptr && root_->shift > 0 && root_->of_kind[0] == 1) {
    Node* const below = root_->children[0];
    Delete(root_);
    root_ = below;
    root_->parent = nullptr;
  }
  if (root_ == nullptr || root_->shift > 0 || (root_->of_kind[0] | root_->of_kind[1] | root_->of_kind[2]) != 1) return;
  head_kind_ = KindAt(0);
  head_ = root_->entries[0];
  Delete(root_);
  root_ = nullptr;
}

void PageSlots::EraseShadows(PageIndex first, PageIndex end) {
  if (shadows() == 0) return;
  for (const auto& [index, shadow] : Shadows(first, end)) Erase(index);
}

bool PageSlots::Next(uint64_t from, Kind kind, uint64_t* index, uint64_t* value) const {
  const auto which = static_cast<size_t>(kind);
  if (counts_[which] == 0) return false;
  if (root_ == nullptr) {
    *index = 0;
    *value = head_;
    return from == 0 && head_kind_ == kind;
  }
  while (true) {
    const Node* node = last_ != nullptr && from >> kShift == last_block_ ? last_ : root_;
    if (node == root_ && from >> root_->shift >= kEntries) return false;
    // To the leaf that holds `from`, or the first behind it.
    bool behind = false;
    while (node->shift > 0 && !behind) {
      const uint64_t at = from >> node->shift & (kEntries - 1);
      const uint64_t left = node->of_kind[0] >> at;
      behind = left == 0;
      if (behind) break;
      const auto skip = static_cast<uint64_t>(std::countr_zero(left));
      if (skip > 0) from = ((from >> node->shift) + skip) << node->shift;
      node = node->children[at + skip];
    }
    if (!behind) {
      const uint64_t at = from % kEntries;
      if (const uint64_t left = node->of_kind[which] >> at; left != 0) {
        last_ = const_cast<Node*>(node);
        last_block_ = from >> kShift;
        *index = from + static_cast<uint64_t>(std::countr_zero(left));
        *value = node->entries[*index % kEntries];
        return true;
      }
    }
    // On behind the node.
    const unsigned size = node->shift + kShift;
    if (size >= 64) return false;
    from = ((from >> size) + 1) << size;
    if (from == 0) return false;
  }
}

void PageSlots::AddToHash(StateHasher& hasher) const {
  for (const auto& [index, pfn] : Pages()) {
    hasher.Add(index.raw());
    hasher.Add(pfn.raw());
  }
  for (const auto& [index, shadow] : Shadows()) {
    hasher.Add(index.raw());
    hasher.Add(shadow);
  }
  for (const auto& [index, entry] : Swapped()) {
    hasher.Add(index.raw());
    hasher.Add(entry.raw());
  }
}

}  // namespace mmlab

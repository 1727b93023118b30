#include <algorithm>

#include "server/process/vma_store.h"

// The maple tree of 6.1 as mas_store() fills it in bulk mode (mas_expected_entries()), by ascending address.

namespace mmlab {
namespace {

// What the leaves hold, one after the other: VMAs and the holes between them.
struct Entry {
  uint64_t first = 0;
  uint64_t last = 0;
  int64_t vma = -1;  // -1: a hole.
};

// How many slots each node of each level has; level 0 are the leaves. Only the last node of a level ever changes.
class BulkFill {
 public:
  explicit BulkFill(const MapleSizes& sizes) : sizes_(sizes) {}

  // Stores the next VMA; the hole up to the top of the address space is always the last entry.
  void Store(uint64_t start, uint64_t end, int64_t vma) {
    const uint64_t free_from = entries_.empty() ? 0 : entries_.back().first;
    const size_t before = entries_.size();
    if (!entries_.empty()) entries_.pop_back();
    if (free_from < start) entries_.push_back({free_from, start - 1, -1});
    entries_.push_back({start, end - 1, vma});
    entries_.push_back({end, sizes_.top, -1});
    const auto added = static_cast<uint32_t>(entries_.size() - before);
    if (levels_.empty()) {
      levels_.push_back({added});
      return;
    }
    levels_[0].back() += added;
    if (levels_[0].back() > sizes_.leaf_slots) Overflow(0);
  }

  const std::vector<Entry>& entries() const { return entries_; }
  const std::vector<std::vector<uint32_t>>& levels() const { return levels_; }

 private:
  // mas_split(): the last node of a level has more than it can hold. What fits is pushed into the node to its left where that still leaves
  // room there (mas_push_data()); else the node is split, the right part as small as may be, because more will come (mab_calc_split()).
  void Overflow(size_t level) {
    const bool leaf = level == 0;
    std::vector<uint32_t>& counts = levels_[level];
    const bool root = level + 1 == levels_.size();
    const bool sibling = !root && levels_[level + 1].back() > 1;
    const uint32_t count = counts.back();
    if (sibling && PushLeft(counts, leaf)) return;
    uint32_t left = count - sizes_.min_slots(leaf);
    if (leaf && IsHole(count, left - 1)) --left;
    counts.back() = left;
    counts.push_back(count - left);
    if (root) {
      levels_.push_back({2});
      return;
    }
    if (++levels_[level + 1].back() > sizes_.inner_slots) Overflow(level + 1);
  }

  bool PushLeft(std::vector<uint32_t>& counts, bool leaf) const {
    uint32_t& node = counts[counts.size() - 1];
    uint32_t& left = counts[counts.size() - 2];
    const uint32_t together = node + left;
    // The last node of a level ends at the top of the address space, which takes one more from the room.
    const uint32_t room = 2 * sizes_.slots(leaf) - 3 - (leaf ? 1 : 0);
    if (together - 2 >= room) return false;
    uint32_t keep = sizes_.slots(leaf) - 1;
    if (leaf && IsHole(together, keep - 1)) {
      // No leaf ends on a hole: one more, or one less where the right part would become too small.
      keep = together - keep > sizes_.min_slots(true) ? keep + 1 : keep - 1;
    }
    left = keep;
    node = together - keep;
    return true;
  }

  // Whether slot `index` of the last `count` entries is a hole.
  bool IsHole(uint32_t count, uint32_t index) const { return entries_[entries_.size() - count + index].vma < 0; }

  const MapleSizes sizes_;
  std::vector<Entry> entries_;
  std::vector<std::vector<uint32_t>> levels_;
};

}  // namespace

MapleSizes MapleSizesOf(int word_bytes) {
  if (word_bytes == 8) return {16, 10, ~uint64_t{0}};
  return {32, 21, 0xffffffff};
}

std::vector<MapleStoreNode> BuildMapleStore(absl::Span<const StoredVma> vmas, const MapleSizes& sizes) {
  BulkFill fill(sizes);
  for (size_t i = 0; i < vmas.size(); ++i) fill.Store(vmas[i].start, vmas[i].end, static_cast<int64_t>(i));
  std::vector<MapleStoreNode> nodes;
  size_t next_child = 1;  // Children of one level follow each other on the next.
  size_t next_entry = 0;
  for (size_t level = fill.levels().size(); level-- > 0;) {
    for (const uint32_t count : fill.levels()[level]) {
      MapleStoreNode& node = nodes.emplace_back();
      node.leaf = level == 0;
      node.depth = static_cast<int>(fill.levels().size() - 1 - level);
      for (uint32_t i = 0; i < count; ++i) {
        if (!node.leaf) {
          node.slots.push_back({MapleStoreSlot::Content::kNode, 0, 0, static_cast<int64_t>(next_child++), 0});
          continue;
        }
        const Entry& entry = fill.entries()[next_entry++];
        const bool hole = entry.vma < 0;
        node.slots.push_back({hole ? MapleStoreSlot::Content::kHole : MapleStoreSlot::Content::kVma, entry.first, entry.last,
                              hole ? 0 : entry.vma, hole ? entry.last - entry.first + 1 : 0});
      }
    }
  }
  // What a node covers and its largest hole, from the leaves up.
  for (size_t i = nodes.size(); i-- > 0;) {
    for (MapleStoreSlot& slot : nodes[i].slots) {
      if (slot.content != MapleStoreSlot::Content::kNode) continue;
      MapleStoreNode& child = nodes[static_cast<size_t>(slot.target)];
      child.parent = static_cast<int64_t>(i);
      slot.first = child.slots.front().first;
      slot.last = child.slots.back().last;
      for (const MapleStoreSlot& below : child.slots) slot.gap = std::max(slot.gap, below.gap);
    }
  }
  return nodes;
}

std::vector<std::string> CheckMapleStore(absl::Span<const StoredVma> vmas, absl::Span<const MapleStoreNode> nodes,
                                         const MapleSizes& sizes) {
  std::vector<std::string> broken;
  const auto expect = [&](bool holds, const char* rule) {
    if (!holds) broken.emplace_back(rule);
  };
  expect(nodes.empty() == vmas.empty(), "there is a root where there are VMAs");
  size_t next_vma = 0;
  int leaf_depth = -1;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const MapleStoreNode& node = nodes[i];
    expect(!node.slots.empty() && node.slots.size() <= sizes.slots(node.leaf), "a node has no more slots than its type");
    if (i > 0) {
      expect(node.slots.size() >= sizes.min_slots(node.leaf), "a node that is not the root is filled enough");
      expect(node.slots.back().content != MapleStoreSlot::Content::kHole || node.slots.back().last == sizes.top, "no node ends on a hole");
    }
    if (node.leaf) {
      expect(leaf_depth < 0 || leaf_depth == node.depth, "all leaves are equally deep");
      leaf_depth = node.depth;
    }
    for (size_t s = 0; s < node.slots.size(); ++s) {
      const MapleStoreSlot& slot = node.slots[s];
      expect(slot.first <= slot.last, "a slot covers something");
      if (s > 0) expect(slot.first == node.slots[s - 1].last + 1, "pivots ascend without a break");
      switch (slot.content) {
        case MapleStoreSlot::Content::kHole:
          expect(node.leaf && slot.gap == slot.last - slot.first + 1, "the gap of a hole is its size");
          break;
        case MapleStoreSlot::Content::kVma: {
          const auto vma = static_cast<size_t>(slot.target);
          expect(node.leaf && vma == next_vma && slot.first == vmas[vma].start && slot.last + 1 == vmas[vma].end,
                 "VMAs are where they are");
          ++next_vma;
          break;
        }
        case MapleStoreSlot::Content::kNode: {
          const MapleStoreNode& child = nodes[static_cast<size_t>(slot.target)];
          uint64_t gap = 0;
          for (const MapleStoreSlot& below : child.slots) gap = std::max(gap, below.gap);
          expect(static_cast<size_t>(child.parent) == i && child.depth == node.depth + 1, "a child knows its parent");
          expect(slot.first == child.slots.front().first && slot.last == child.slots.back().last, "a pivot ends where its child ends");
          expect(slot.gap == gap, "a gap is the largest below");
          break;
        }
      }
    }
  }
  expect(next_vma == vmas.size(), "every VMA is stored");
  if (!nodes.empty()) {
    expect(nodes[0].slots.front().first == 0 && nodes[0].slots.back().last == sizes.top, "the root covers everything");
  }
  return broken;
}

}  // namespace mmlab

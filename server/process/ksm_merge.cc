// What KSM merges with what: the stable and the unstable tree. Linux: mm/ksm.c (cmp_and_merge_page, stable_tree_*, unstable_tree_*).
#include <algorithm>

#include "server/base/check.h"
#include "server/process/address_space.h"
#include "server/process/ksm.h"
#include "server/process/paging.h"

namespace mmlab {

bool Ksm::Same(Pfn a, Pfn b) const { return a == b || paging_.SameContent(a, b); }

uint64_t Ksm::HashOf(Pfn pfn) const { return paging_.ContentHash(pfn); }

// get_ksm_page(): the frame is still the merged page that this node stands for.
bool Ksm::Alive(uint64_t id, const StableNode& node) const { return paging_.KsmNodeOf(node.pfn) == id; }

// remove_node_from_stable_tree()
void Ksm::DropNode(uint64_t id) {
  const auto it = nodes_.find(id);
  for (const Member& member : it->second.members) {
    Slot& slot = *by_id_.at(member.slot);
    slot.items.at(member.address).place = Place::kNone;
    --slot.merging;
  }
  if (!it->second.members.empty()) {
    --pages_shared_;
    pages_sharing_ -= it->second.members.size() - 1;
  }
  Content& content = stable_.at(it->second.hash);
  content.nodes.erase(std::find(content.nodes.begin(), content.nodes.end(), id));
  if (content.nodes.empty()) stable_.erase(it->second.hash);
  nodes_.erase(it);
  ++changes_;
}

// stable_tree_search(), with what chain_prune() tidies up on the way.
uint64_t Ksm::SearchStable(Pfn pfn, uint64_t hash) {
  const auto found = stable_.find(hash);
  if (found == stable_.end()) return 0;
  const std::vector<uint64_t> all = found->second.nodes;
  for (const uint64_t id : all) {
    if (!Alive(id, nodes_.at(id))) DropNode(id);
  }
  const auto it = stable_.find(hash);
  if (it == stable_.end()) return 0;
  Content& content = it->second;
  if (!Same(pfn, nodes_.at(content.nodes.front()).pfn)) return 0;
  // The one with most members that can take another.
  uint64_t best = 0;
  for (const uint64_t id : content.nodes) {
    const StableNode& node = nodes_.at(id);
    if (!IsFull(node) && (best == 0 || node.members.size() > nodes_.at(best).members.size())) best = id;
  }
  if (best != 0 && content.chain && content.nodes.size() == 1) content.chain = false;
  if (best != 0 && static_cast<int64_t>(nodes_.at(best).members.size()) + 1 < settings_.max_page_sharing) {
    const auto at = std::find(content.nodes.begin(), content.nodes.end(), best);
    std::rotate(content.nodes.begin(), at, at + 1);
  }
  return best;
}

uint64_t Ksm::InsertStable(Pfn pfn, uint64_t hash) {
  const uint64_t id = next_node_++;
  StableNode& node = nodes_[id];
  node.pfn = pfn;
  node.hash = hash;
  Content& content = stable_[hash];
  if (!content.nodes.empty()) content.chain = true;
  content.nodes.insert(content.nodes.begin(), id);
  paging_.MakeKsmPage(pfn, id);
  return id;
}

// stable_tree_append()
void Ksm::Append(uint64_t node, Slot& slot, uint64_t address, Item& item) {
  StableNode& stable = nodes_.at(node);
  ++(stable.members.empty() ? pages_shared_ : pages_sharing_);
  stable.members.insert({slot.id, address});
  item.place = Place::kStable;
  item.node = node;
  ++slot.merging;
  ++changes_;
}

void Ksm::Merge(const Found& found) {
  Slot& slot = *found.slot;
  Item& item = slot.items.at(found.address);
  const Place before = item.place;
  const auto explain = [&](StepKind kind, const char* text) {
    if (why() != nullptr) why()->Add(kind, text).Address("address", VirtAddr(found.address)).Frame("pfn", found.pfn);
  };
  const uint64_t own = paging_.KsmNodeOf(found.pfn);
  if (own != 0 && item.place == Place::kStable && item.node == own) return;
  const uint64_t hash = HashOf(found.pfn);
  // A merged page of another address space that came here by fork: over the limit if need be.
  const uint64_t node = own != 0 && nodes_.count(own) != 0 ? own : own != 0 ? 0 : SearchStable(found.pfn, hash);
  RemoveFromTree(slot, found.address, item);
  if (node != 0) {
    const Pfn merged = nodes_.at(node).pfn;
    if (found.pfn != merged && !paging_.MergeWith(*found.vma, VirtAddr(found.address), found.pfn, merged)) {
      if (before != Place::kNone) ++changes_;
      explain(StepKind::kKsmScan, "not merged: somebody else holds the page");
    } else {
      Append(node, slot, found.address, item);
      if (why() != nullptr) {
        why()
            ->Add(StepKind::kKsmMerge, "the page has the content of a merged page of the stable tree: it becomes that page")
            .Address("address", VirtAddr(found.address))
            .Frame("from", found.pfn)
            .Frame("to", merged)
            .Number("sharing", static_cast<int64_t>(nodes_.at(node).members.size()));
      }
    }
    return;
  }
  const auto checksum = static_cast<uint32_t>(hash);
  if (item.checksum != checksum) {
    item.checksum = checksum;
    ++changes_;
    explain(StepKind::kKsmScan, "left alone: its checksum is not what it was when it was last looked at");
    return;
  }
  if (settings_.use_zero_pages && paging_.IsZero(found.pfn) && paging_.MergeWithZero(*found.vma, VirtAddr(found.address), found.pfn)) {
    ++changes_;
    explain(StepKind::kKsmMerge, "the page is all zero: the zero page takes its place");
    return;
  }
  MergeUnstable(found, item, hash);
  if (item.place != before) ++changes_;
}

// unstable_tree_search_insert() and what follows from it.
void Ksm::MergeUnstable(const Found& found, Item& item, uint64_t hash) {
  const auto [it, fresh] = unstable_.try_emplace(hash, Member{found.slot->id, found.address});
  Slot* other_slot = fresh ? nullptr : by_id_.at(it->second.slot);
  const uint64_t other_address = it->second.address;
  if (!fresh) {
    VmArea* vma = other_slot->mm == nullptr ? nullptr : other_slot->mm->vmas.Lookup(VirtAddr(other_address));
    const std::optional<Pfn> other = vma == nullptr || !vma->is(kVmMergeable) || vma->anon_vma == nullptr
                                         ? std::nullopt
                                         : paging_.AnonPageAt(*other_slot->mm, VirtAddr(other_address));
    if (!other.has_value() || *other == found.pfn) return;
    if (Same(found.pfn, *other)) {
      Item& other_item = other_slot->items.at(other_address);
      const std::optional<Pfn> merged =
          paging_.MergeTwo(*found.vma, VirtAddr(found.address), found.pfn, *vma, VirtAddr(other_address), *other);
      if (!merged.has_value()) return;
      RemoveFromTree(*other_slot, other_address, other_item);
      const uint64_t node = InsertStable(*merged, hash);
      Append(node, *other_slot, other_address, other_item);
      Append(node, *found.slot, found.address, item);
      if (why() != nullptr) {
        why()
            ->Add(StepKind::kKsmMerge,
                  "two pages of the unstable tree have the same content, unchanged since the last look: they become one")
            .Address("address", VirtAddr(found.address))
            .Address("other_address", VirtAddr(other_address))
            .Frame("from", *other)
            .Frame("to", *merged);
      }
      return;
    }
    it->second = {found.slot->id, found.address};  // What stood there has changed since.
  }
  item.place = Place::kUnstable;
  item.node = hash;
  ++pages_unshared_;
}

}  // namespace mmlab

#include "server/process/ksm.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/base/check.h"
#include "server/base/hash.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"

// The scan: which page comes next, and what time does. What is merged with what: ksm_merge.cc.

namespace mmlab {
namespace {

constexpr int64_t kMillisecond = 1'000'000;

}  // namespace

void Ksm::Enter(AddressSpace& mm) {
  if (mm.ksm_slot != 0) return;
  if (slots_.empty()) next_batch_ = 0;
  mm.ksm_slot = next_slot_++;
  // Just behind the cursor, so that it comes last.
  const Slots::iterator at = settings_.run == 2 ? slots_.end() : cursor_;
  Slot& slot = *slots_.emplace(at);
  slot.id = mm.ksm_slot;
  slot.mm = &mm;
  by_id_[slot.id] = &slot;
}

void Ksm::Exit(AddressSpace& mm) {
  if (mm.ksm_slot == 0) return;
  const auto it = std::find_if(slots_.begin(), slots_.end(), [&](const Slot& slot) { return slot.id == mm.ksm_slot; });
  MMLAB_CHECK(it != slots_.end());
  mm.ksm_slot = 0;
  it->mm = nullptr;
  ++changes_;
  if (it == cursor_) return;  // The scan is there, and cleans up.
  if (it->items.empty()) {
    by_id_.erase(it->id);
    slots_.erase(it);
  } else {
    slots_.splice(cursor_ == slots_.end() ? slots_.begin() : std::next(cursor_), slots_, it);
  }
}

uint64_t Ksm::pages_volatile() const {
  uint64_t items = 0;
  for (const Slot& slot : slots_) items += slot.items.size();
  const uint64_t placed = pages_shared_ + pages_sharing_ + pages_unshared_;
  return items > placed ? items - placed : 0;
}

uint64_t Ksm::stable_node_chains() const {
  return static_cast<uint64_t>(std::count_if(stable_.begin(), stable_.end(), [](const auto& entry) { return entry.second.chain; }));
}

uint64_t Ksm::stable_node_dups() const {
  uint64_t dups = 0;
  for (const auto& [hash, content] : stable_) dups += content.chain ? content.nodes.size() : 0;
  return dups;
}

uint64_t Ksm::MergingPages(const AddressSpace& mm) const { return mm.ksm_slot == 0 ? 0 : by_id_.at(mm.ksm_slot)->merging; }

uint64_t Ksm::RmapItems(const AddressSpace& mm) const { return mm.ksm_slot == 0 ? 0 : by_id_.at(mm.ksm_slot)->items.size(); }

void Ksm::Advance(int64_t now) {
  const int64_t before = std::exchange(clock_, now);
  if (settings_.run != 1 || slots_.empty() || settings_.pages_to_scan == 0) {
    next_batch_ = 0;
    return;
  }
  int64_t due = next_batch_ == 0 ? before : next_batch_;
  const int64_t rest = std::max<int64_t>(1, settings_.sleep_millisecs) * kMillisecond;
  uint64_t changes = changes_;
  bool quiet = false;   // Since the present full scan began, nothing has changed.
  int64_t batches = 0;  // Of that scan.
  while (due <= now && !slots_.empty()) {
    ScanBatch();
    ++batches;
    if (changes_ != changes) quiet = false;
    if (cursor_ == slots_.end()) {
      if (quiet) {
        // A full scan that changes nothing is followed by others like it.
        const int64_t repeats = std::max<int64_t>(0, (now - due) / rest / batches);
        full_scans_ += static_cast<uint64_t>(repeats);
        due += repeats * batches * rest;
      }
      quiet = true;
      changes = changes_;
      batches = 0;
    }
    if (__builtin_add_overflow(due, rest, &due)) due = std::numeric_limits<int64_t>::max();
    if (due == std::numeric_limits<int64_t>::max()) break;
  }
  next_batch_ = due;
}

void Ksm::ScanBatch() {
  for (uint32_t left = settings_.pages_to_scan; left > 0; --left) {
    const std::optional<Found> found = Next();
    if (!found.has_value()) return;
    Merge(*found);
  }
}

std::optional<Ksm::Found> Ksm::Next() {
  if (slots_.empty()) return std::nullopt;
  if (cursor_ == slots_.end()) {
    paging_.DrainLru();
    unstable_.clear();
    cursor_ = slots_.begin();
    address_ = 0;
  }
  while (cursor_ != slots_.end()) {
    Found found;
    if (cursor_->mm != nullptr && FindIn(*cursor_, &found)) return found;
    EndSlot();
  }
  ++full_scans_;
  return std::nullopt;
}

// The next anonymous page of mergeable memory at or above the cursor's address. What was known of addresses that are passed over is
// forgotten.
bool Ksm::FindIn(Slot& slot, Found* found) {
  AddressSpace& mm = *slot.mm;
  const uint64_t first = address_;
  for (VmArea* vma = mm.vmas.Find(VirtAddr(address_)); vma != nullptr; vma = mm.vmas.Next(*vma)) {
    if (!vma->is(kVmMergeable)) continue;
    address_ = std::max(address_, vma->start.raw());
    if (vma->anon_vma == nullptr) address_ = vma->end.raw();
    const std::optional<Paging::AnonPage> next = paging_.NextAnonPage(mm, {VirtAddr(address_), vma->end});
    address_ = vma->end.raw();
    if (!next.has_value()) continue;
    address_ = next->address.raw();
    EraseItems(slot, first, address_);
    *found = {&slot, vma, address_, next->pfn};
    if (slot.items.try_emplace(address_).second) ++changes_;
    address_ += mm.page_size.bytes().raw();
    return true;
  }
  EraseItems(slot, first, std::numeric_limits<uint64_t>::max());
  return false;
}

// The cursor leaves an address space, which is not visited any more when it has no mergeable memory.
void Ksm::EndSlot() {
  Slot& slot = *cursor_;
  if (slot.mm == nullptr) {
    address_ = 0;
    EraseItems(slot, 0, std::numeric_limits<uint64_t>::max());
  }
  const Slots::iterator leaving = cursor_++;
  if (address_ == 0) {
    if (slot.mm != nullptr) slot.mm->ksm_slot = 0;
    by_id_.erase(slot.id);
    slots_.erase(leaving);
    ++changes_;
  }
  address_ = 0;
}

// remove_rmap_item_from_tree()
void Ksm::RemoveFromTree(Slot& slot, uint64_t address, Item& item) {
  if (item.place == Place::kUnstable) {
    if (const auto it = unstable_.find(item.node); it != unstable_.end() && it->second == Member{slot.id, address}) unstable_.erase(it);
    --pages_unshared_;
  } else if (item.place == Place::kStable) {
    StableNode& node = nodes_.at(item.node);
    node.members.erase({slot.id, address});
    --(node.members.empty() ? pages_shared_ : pages_sharing_);
    --slot.merging;
  }
  item.place = Place::kNone;
}

void Ksm::EraseItem(Slot& slot, absl::btree_map<uint64_t, Item>::iterator it) {
  RemoveFromTree(slot, it->first, it->second);
  slot.items.erase(it);
  ++changes_;
}

void Ksm::EraseItems(Slot& slot, uint64_t from, uint64_t to) {
  while (true) {
    const auto it = slot.items.lower_bound(from);
    if (it == slot.items.end() || it->first >= to) return;
    EraseItem(slot, it);
  }
}

Errno Ksm::Run(uint32_t run) {
  if (run > 2) return Errno::kEINVAL;
  const bool changed = settings_.run != run;
  settings_.run = run;
  if (run == 1) next_batch_ = 0;
  if (!changed || run != 2) return Errno::kOk;
  const Errno error = UnmergeAll();
  if (error != Errno::kOk) settings_.run = 0;
  return error;
}

// unmerge_and_remove_all_rmap_items()
Errno Ksm::UnmergeAll() {
  for (Slots::iterator it = slots_.begin(); it != slots_.end();) {
    for (VmArea* vma = it->mm == nullptr ? nullptr : it->mm->vmas.First(); vma != nullptr; vma = it->mm->vmas.Next(*vma)) {
      if (!vma->is(kVmMergeable) || vma->anon_vma == nullptr) continue;
      const Errno error = paging_.UnmergeRange(*vma, vma->range());
      if (error != Errno::kOk) return error;
    }
    EraseItems(*it, 0, std::numeric_limits<uint64_t>::max());
    const Slots::iterator here = it++;
    if (here->mm == nullptr) {
      by_id_.erase(here->id);
      slots_.erase(here);
    }
  }
  cursor_ = slots_.end();
  while (!nodes_.empty()) DropNode(nodes_.begin()->first);
  unstable_.clear();
  full_scans_ = 0;
  ++changes_;
  return Errno::kOk;
}

Errno Ksm::SetMaxPageSharing(int32_t most) {
  if (most < 2) return Errno::kEINVAL;
  if (most == settings_.max_page_sharing) return Errno::kOk;
  if (pages_shared_ != 0) return Errno::kEBUSY;
  while (!nodes_.empty()) DropNode(nodes_.begin()->first);
  settings_.max_page_sharing = most;
  return Errno::kOk;
}

void Ksm::CheckInvariants(std::vector<std::string>* violations) const {
  uint64_t unshared = 0;
  for (const Slot& slot : slots_) {
    uint64_t merging = 0;
    for (const auto& [address, item] : slot.items) {
      unshared += item.place == Place::kUnstable;
      if (item.place != Place::kStable) continue;
      ++merging;
      const auto node = nodes_.find(item.node);
      if (node == nodes_.end() || node->second.members.count({slot.id, address}) == 0) {
        violations->push_back(absl::StrFormat("KSM: the page at 0x%x of slot %d is not a member of its stable node", address, slot.id));
      }
    }
    if (merging != slot.merging)
      violations->push_back(absl::StrFormat("KSM: slot %d counts %d merged pages, has %d", slot.id, slot.merging, merging));
  }
  uint64_t shared = 0, sharing = 0;
  for (const auto& [id, node] : nodes_) {
    shared += node.members.empty() ? 0 : 1;
    sharing += node.members.empty() ? 0 : node.members.size() - 1;
  }
  if (shared != pages_shared_ || sharing != pages_sharing_ || unshared != pages_unshared_) {
    violations->push_back(absl::StrFormat("KSM counts %d shared, %d sharing, %d unshared pages; %d, %d, %d are", pages_shared_,
                                          pages_sharing_, pages_unshared_, shared, sharing, unshared));
  }
}

void Ksm::AddToHash(StateHasher& hasher) const {
  for (const uint64_t value :
       {uint64_t{settings_.run}, uint64_t{settings_.pages_to_scan}, uint64_t{settings_.sleep_millisecs},
        static_cast<uint64_t>(settings_.max_page_sharing), uint64_t{settings_.use_zero_pages}, uint64_t{settings_.merge_across_nodes},
        uint64_t{settings_.stable_node_chains_prune_millisecs}, address_, cursor_ == slots_.end() ? 0 : cursor_->id, next_slot_, next_node_,
        full_scans_, static_cast<uint64_t>(next_batch_)}) {
    hasher.Add(value);
  }
  for (const Slot& slot : slots_) {
    hasher.Add(slot.id);
    for (const auto& [address, item] : slot.items) {
      hasher.Add(address);
      hasher.Add(uint64_t{item.checksum} << 8 | static_cast<uint64_t>(item.place));
      hasher.Add(item.node);
    }
  }
  for (const auto& [hash, content] : stable_) {
    hasher.Add(hash);
    for (const uint64_t node : content.nodes) hasher.Add(nodes_.at(node).pfn.raw());
  }
  for (const auto& [hash, member] : unstable_) hasher.Add(hash ^ member.address);
}

uint64_t Ksm::HostMemory() const {
  uint64_t bytes = sizeof(Ksm) + unstable_.size() * (sizeof(uint64_t) + sizeof(Member)) + nodes_.size() * (sizeof(StableNode) + 64);
  for (const Slot& slot : slots_) bytes += sizeof(Slot) + slot.items.size() * (sizeof(uint64_t) + sizeof(Item));
  return bytes;
}

}  // namespace mmlab

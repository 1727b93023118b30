// Which page makes room, by the policies of textbooks. (Silberschatz, Galvin, Gagne: Operating System Concepts, "Page Replacement"; Belady:
// A study of replacement algorithms for a virtual-storage computer, 1966.)
#include "server/process/page_replacement.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "server/base/check.h"

namespace mmlab {

const char* ReplacementPolicyName(ReplacementPolicy policy) {
  switch (policy) {
    case ReplacementPolicy::kFifo:
      return "FIFO";
    case ReplacementPolicy::kLru:
      return "LRU";
    case ReplacementPolicy::kClock:
      return "CLOCK";
    case ReplacementPolicy::kOptimal:
      return "OPTIMAL";
    case ReplacementPolicy::kLinux:
      break;
  }
  return "LINUX";
}

PageReplacement::PageReplacement(Bound bound) : bound_(std::move(bound)) {
  for (size_t i = 0; i < bound_.references.size(); ++i) uses_[bound_.references[i]].push_back(i);
}

void PageReplacement::Referenced(uint64_t page) {
  ++now_;
  // An access that was not announced leaves the string where it is; one that comes early skips what is before it.
  if (const std::optional<size_t> announced = NextUse(page)) position_ = *announced + 1;
  if (const auto it = slot_of_.find(page); it != slot_of_.end()) slots_[it->second].used = now_;
}

void PageReplacement::Load(uint64_t page) {
  if (free_slots_.empty()) {
    free_slots_.push_back(slots_.size());
    slots_.emplace_back();
  }
  const size_t slot = free_slots_.back();
  free_slots_.pop_back();
  slots_[slot] = Slot{page, now_ + 1, now_ + 1};
  slot_of_[page] = slot;
  ++loads_;
}

void PageReplacement::Found(uint64_t page) {
  slot_of_[page] = slots_.size();
  slots_.push_back(Slot{page});
}

void PageReplacement::Forget(uint64_t page, bool evicted) {
  const auto it = slot_of_.find(page);
  MMLAB_CHECK(it != slot_of_.end());
  slots_[it->second] = Slot();
  free_slots_.push_back(it->second);
  slot_of_.erase(it);
  evictions_ += evicted ? 1 : 0;
}

void PageReplacement::BeginRoom() {
  for (Slot& slot : slots_) slot.kept = false;
}

std::optional<size_t> PageReplacement::ChooseVictim(AccessedBit accessed, ClearAccessedBit clear) {
  switch (bound_.policy) {
    case ReplacementPolicy::kLru:
      return Oldest(&Slot::used);
    case ReplacementPolicy::kClock:
      return SecondChance(accessed, clear);
    case ReplacementPolicy::kOptimal:
      return UsedLatest();
    default:
      return Oldest(&Slot::loaded);
  }
}

std::optional<size_t> PageReplacement::Oldest(uint64_t Slot::*when) const {
  std::optional<size_t> oldest;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (Usable(slots_[i]) && (!oldest.has_value() || slots_[i].*when < slots_[*oldest].*when)) oldest = i;
  }
  return oldest;
}

std::optional<size_t> PageReplacement::UsedLatest() const {
  std::optional<size_t> latest;
  size_t latest_use = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!Usable(slots_[i])) continue;
    const size_t use = NextUse(*slots_[i].page).value_or(bound_.references.size());
    // Of those that are never used again the oldest goes, so that the choice is one.
    if (!latest.has_value() || use > latest_use || (use == latest_use && slots_[i].loaded < slots_[*latest].loaded)) {
      latest = i;
      latest_use = use;
    }
  }
  return latest;
}

std::optional<size_t> PageReplacement::SecondChance(AccessedBit accessed, ClearAccessedBit clear) {
  for (size_t looked = 0; looked < 2 * slots_.size(); ++looked) {
    const size_t slot = hand_ % slots_.size();
    hand_ = (slot + 1) % slots_.size();
    if (!Usable(slots_[slot])) continue;
    if (!accessed(*slots_[slot].page)) return slot;
    clear(*slots_[slot].page);
  }
  return std::nullopt;
}

std::optional<size_t> PageReplacement::NextUse(uint64_t page) const {
  const auto it = uses_.find(page);
  if (it == uses_.end()) return std::nullopt;
  const auto next = std::lower_bound(it->second.begin(), it->second.end(), position_);
  if (next == it->second.end()) return std::nullopt;
  return *next;
}

uint64_t PageReplacement::HostMemory() const {
  return sizeof(PageReplacement) + slots_.capacity() * (sizeof(Slot) + 4 * sizeof(uint64_t)) +
         bound_.references.size() * 2 * sizeof(uint64_t) + uses_.size() * (sizeof(std::vector<size_t>) + sizeof(uint64_t));
}

void PageReplacement::AddToHash(StateHasher& hasher) const {
  for (const uint64_t value : {static_cast<uint64_t>(bound_.policy), uint64_t{bound_.frames}, bound_.first_page, bound_.end_page,
                               uint64_t{position_}, uint64_t{hand_}, now_, loads_, evictions_}) {
    hasher.Add(value);
  }
  for (const uint64_t page : bound_.references) hasher.Add(page);
  for (const Slot& slot : slots_) {
    hasher.Add(slot.page.has_value() ? *slot.page + 1 : 0);
    hasher.Add(slot.loaded);
    hasher.Add(slot.used);
  }
  for (const size_t slot : free_slots_) hasher.Add(slot);
}

void PageReplacement::CheckInvariants(std::vector<std::string>* violations) const {
  size_t held = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!slots_[i].page.has_value()) continue;
    ++held;
    const auto it = slot_of_.find(*slots_[i].page);
    if (it == slot_of_.end() || it->second != i || !Covers(*slots_[i].page)) {
      violations->push_back(absl::StrFormat("page replacement: page 0x%x of slot %d is not where it is looked for", *slots_[i].page, i));
    }
  }
  if (held != slot_of_.size() || held + free_slots_.size() != slots_.size()) {
    violations->push_back(absl::StrFormat("page replacement: %d pages, %d free slots, %d slots", held, free_slots_.size(), slots_.size()));
  }
}

}  // namespace mmlab

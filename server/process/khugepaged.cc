#include "server/process/khugepaged.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "server/base/hash.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"

namespace mmlab {
namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr int kHopeless = 3;
constexpr VmEvent kRefusals[] = {VmEvent::kThpScanExceedNonePte, VmEvent::kThpScanExceedSwapPte, VmEvent::kThpScanExceedSharePte};

}  // namespace

void Khugepaged::Enter(AddressSpace& mm) {
  if (mm.khugepaged_slot != 0) return;
  if (slots_.empty()) next_round_ = 0;
  mm.khugepaged_slot = next_slot_++;
  slots_[mm.khugepaged_slot] = &mm;
}

void Khugepaged::Exit(AddressSpace& mm) {
  if (mm.khugepaged_slot == 0) return;
  if (mm.khugepaged_slot == slot_) NextSlot();
  slots_.erase(mm.khugepaged_slot);
  mm.khugepaged_slot = 0;
}

void Khugepaged::NextSlot() {
  const auto next = slots_.upper_bound(slot_);
  address_ = 0;
  slot_ = next == slots_.end() ? 0 : next->first;
  if (slot_ == 0) ++paging_.huge_settings().khugepaged.full_scans;
}

int64_t Khugepaged::Rest() const {
  const KhugepagedSettings& settings = paging_.huge_settings().khugepaged;
  const uint32_t rest = allocation_failed_ ? settings.alloc_sleep_millisecs : settings.scan_sleep_millisecs;
  return std::max<int64_t>(1, rest) * kMillisecond;
}

Khugepaged::Mark Khugepaged::MarkNow() const {
  const KhugepagedSettings& settings = paging_.huge_settings().khugepaged;
  Mark mark{slot_, address_, settings.pages_collapsed, settings.full_scans, {}};
  for (size_t i = 0; i < mark.refusals.size(); ++i) mark.refusals[i] = vm_stat_.Get(kRefusals[i]);
  return mark;
}

void Khugepaged::Repeat(const Mark& since, uint64_t times) {
  const Mark here = MarkNow();
  paging_.huge_settings().khugepaged.full_scans += static_cast<uint32_t>(times) * (here.full_scans - since.full_scans);
  for (size_t i = 0; i < here.refusals.size(); ++i) vm_stat_.Count(kRefusals[i], times * (here.refusals[i] - since.refusals[i]));
}

void Khugepaged::Advance(int64_t now) {
  const int64_t before = std::exchange(clock_, now);
  if (slots_.empty() || paging_.huge_settings().enabled == ThpEnabled::kNever) return;
  int64_t due = next_round_ == 0 ? before : next_round_;
  Mark mark;
  int64_t rounds = 0;  // Since the mark.
  int failures = 0;    // Rounds in a row that found no block.
  while (due <= now) {
    Round();
    failures = allocation_failed_ ? failures + 1 : 0;
    if (failures == kHopeless) {
      // Nobody gives memory back while only this runs: further attempts end like these.
      const int64_t attempts = std::max<int64_t>(0, (now - due) / Rest());
      vm_stat_.Count(VmEvent::kThpCollapseAllocFailed, static_cast<uint64_t>(attempts));
      due += attempts * Rest();
      failures = 0;
    }
    const Mark here = MarkNow();
    const bool same_place = here.slot == mark.slot && here.address == mark.address;
    if (rounds == 0 || here.collapsed != mark.collapsed || allocation_failed_) {
      mark = here;
      rounds = 1;
    } else if (same_place) {
      // Looking changes nothing: rounds that made no huge page and came back to where they began go on like that.
      const int64_t cycles = std::max<int64_t>(0, (now - due) / Rest() / rounds);
      Repeat(mark, static_cast<uint64_t>(cycles));
      due += cycles * rounds * Rest();
      mark = MarkNow();
      rounds = 1;
    } else {
      ++rounds;
    }
    if (__builtin_add_overflow(due, Rest(), &due)) due = std::numeric_limits<int64_t>::max();
    if (due == std::numeric_limits<int64_t>::max()) break;
  }
  next_round_ = due;
}

void Khugepaged::Round() {
  paging_.DrainLru();
  allocation_failed_ = false;
  const uint64_t pages = paging_.huge_settings().khugepaged.pages_to_scan;
  uint64_t progress = 0;
  for (int from_the_head = 0; progress < pages && !allocation_failed_;) {
    if (slot_ == 0 && ++from_the_head == 2) break;
    if (slots_.empty()) break;
    progress += ScanSlot(pages - progress);
  }
}

uint64_t Khugepaged::ScanSlot(uint64_t pages) {
  if (slot_ == 0) {
    slot_ = slots_.begin()->first;
    address_ = 0;
  }
  AddressSpace& mm = *slots_.at(slot_);
  const uint64_t size = uint64_t{paging_.huge_pages()} << mm.page_size.shift();
  uint64_t progress = 1;
  for (VmArea* vma = mm.vmas.Find(VirtAddr(address_)); vma != nullptr; vma = mm.vmas.Next(*vma)) {
    const uint64_t start = (vma->start.raw() + size - 1) & ~(size - 1);
    const uint64_t end = vma->end.raw() & ~(size - 1);
    if (!paging_.CollapseAllowed(*vma, /*by_settings=*/true) || address_ > end) {
      ++progress;
      continue;
    }
    address_ = std::max(address_, start);
    while (address_ < end) {
      const CollapseResult result = paging_.Collapse(*vma, VirtAddr(address_), /*khugepaged=*/true);
      if (result == CollapseResult::kSucceed) ++paging_.huge_settings().khugepaged.pages_collapsed;
      allocation_failed_ = result == CollapseResult::kAllocationFailed;
      address_ += size;
      progress += paging_.huge_pages();
      // An attempt lets go of the address space, as does any look at a file; the next one comes back to it.
      if (!vma->anonymous() || result == CollapseResult::kSucceed || result >= CollapseResult::kAllocationFailed || progress >= pages)
        return progress;
    }
  }
  NextSlot();
  return progress;
}

void Khugepaged::AddToHash(StateHasher& hasher) const {
  for (const uint64_t value : {next_slot_, slot_, address_, static_cast<uint64_t>(next_round_), uint64_t{allocation_failed_}})
    hasher.Add(value);
}

}  // namespace mmlab

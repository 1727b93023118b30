// A process whose resident pages are bounded, with a policy of a textbook in place of Linux's reclaim. Pages go the way of MADV_PAGEOUT:
// unmapped through the reverse map, to swap or, clean ones of files, away.
#include "server/base/explanation.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/page_replacement.h"
#include "server/process/paging.h"
#include "server/process/paging_walk.h"

namespace mmlab {
namespace {

constexpr size_t kMostExplained = 16;  // Pages in one step.

const char* RuleOf(ReplacementPolicy policy) {
  switch (policy) {
    case ReplacementPolicy::kLru:
      return "LRU: the page whose last use is longest ago makes room";
    case ReplacementPolicy::kClock:
      return "second chance: the hand passes pages that were used, clearing their accessed bits; the first one that was not makes room";
    case ReplacementPolicy::kOptimal:
      return "optimal: the page that is used again last, or never, makes room";
    default:
      return "FIFO: the page that came first makes room";
  }
}

}  // namespace

Pte Paging::PteAt(const AddressSpace& mm, VirtAddr address) const {
  const uint8_t* table = FindTable(mm, address, 1);
  return table == nullptr ? 0 : format_.Load(table, format_.IndexOf(address, 1));
}

bool Paging::IsResident(const AddressSpace& mm, VirtAddr address) const {
  const Pte pte = PteAt(mm, address);
  return !format_.None(pte) && format_.Present(pte);
}

std::optional<bool> Paging::Accessed(const AddressSpace& mm, VirtAddr address) const {
  if (!IsResident(mm, address)) return std::nullopt;
  return format_.Young(PteAt(mm, address));
}

void Paging::SetReplacement(Process& task, AddressSpace& mm, std::shared_ptr<PageReplacement> replacement) {
  mm.replacement = std::move(replacement);
  if (mm.replacement == nullptr) return;
  PageReplacement& bound = *mm.replacement;
  const int shift = layout_.page_size.shift();
  const VirtRange range{VirtAddr(bound.bound().first_page << shift), VirtAddr(bound.bound().end_page << shift)};
  ForEachTable(mm, range, [&](const uint8_t* table, VirtAddr start, VirtAddr last) {
    for (VirtAddr address = start; address < last; address += layout_.page_size.bytes()) {
      const Pte pte = format_.Load(table, format_.IndexOf(address, 1));
      if (!format_.None(pte) && format_.Present(pte)) bound.Found(address.raw() >> shift);
    }
  });
  MakeRoom(task, mm, bound.bound().frames);
}

void Paging::MakeRoomFor(Process& task, AddressSpace& mm, VirtAddr address) {
  PageReplacement& bound = *mm.replacement;
  if (!bound.Covers(address.raw() >> layout_.page_size.shift()) || IsResident(mm, address)) return;
  // What somebody else took meanwhile (munmap, Linux's own reclaim) has made room already.
  for (const PageReplacement::Slot& slot : bound.slots()) {
    if (slot.page.has_value() && !IsResident(mm, AddressOf(*slot.page))) bound.Forget(*slot.page, /*evicted=*/false);
  }
  MakeRoom(task, mm, bound.bound().frames - 1);
}

void Paging::NoteLoaded(AddressSpace& mm, VirtAddr address) {
  PageReplacement& bound = *mm.replacement;
  const uint64_t page = address.raw() >> layout_.page_size.shift();
  if (bound.Covers(page) && !bound.Holds(page) && IsResident(mm, address)) bound.Load(page);
}

void Paging::MakeRoom(Process& task, AddressSpace& mm, uint64_t frames) {
  PageReplacement& bound = *mm.replacement;
  bound.BeginRoom();
  const auto accessed = [&](uint64_t page) { return format_.Young(PteAt(mm, AddressOf(page))); };
  const auto clear = [&](uint64_t page) {
    uint8_t* table = FindTable(mm, AddressOf(page), 1);
    const uint32_t index = format_.IndexOf(AddressOf(page), 1);
    format_.Store(table, index, format_.MkOld(format_.Load(table, index)));
  };
  while (bound.held() > frames) {
    ExplanationStep* step = nullptr;
    if (Explanation* why = tracer_.explanation()) step = &ExplainRoom(bound, accessed, *why);
    const std::optional<size_t> victim = bound.ChooseVictim(accessed, clear);
    if (!victim.has_value()) {
      if (step != nullptr) step->text = "no page of the process can be taken away (no swap space, locked or shared): it gets a frame more";
      return;
    }
    const uint64_t page = *bound.slots()[*victim].page;
    if (step != nullptr) step->Address("victim", AddressOf(page)).Number("slot", static_cast<int64_t>(*victim));
    if (TakeAway(task, mm, AddressOf(page))) {
      bound.Forget(page, /*evicted=*/true);
    } else {
      bound.Keep(*victim);
    }
  }
}

ExplanationStep& Paging::ExplainRoom(const PageReplacement& bound, absl::FunctionRef<bool(uint64_t page)> accessed,
                                     Explanation& why) const {
  ExplanationStep& step = why.Add(StepKind::kPageReplacement, RuleOf(bound.bound().policy));
  step.Text("policy", ReplacementPolicyName(bound.bound().policy)).Pages("frames", PageCount(bound.bound().frames));
  if (bound.bound().policy == ReplacementPolicy::kClock) step.Number("hand", static_cast<int64_t>(bound.hand()));
  size_t told = 0;
  for (const PageReplacement::Slot& slot : bound.slots()) {
    if (!slot.page.has_value() || told++ == kMostExplained) continue;
    step.Address("page", AddressOf(*slot.page));
    step.Number("loaded", static_cast<int64_t>(slot.loaded)).Number("used", static_cast<int64_t>(slot.used));
    if (bound.bound().policy == ReplacementPolicy::kClock) step.Truth("accessed", accessed(*slot.page));
    if (bound.bound().policy != ReplacementPolicy::kOptimal) continue;
    const std::optional<size_t> next = bound.NextUse(*slot.page);
    if (next.has_value()) {
      step.Number("next_use", static_cast<int64_t>(*next));
    } else {
      step.Text("next_use", "never");
    }
  }
  return step;
}

bool Paging::TakeAway(Process& task, AddressSpace& mm, VirtAddr address) {
  VmArea* vma = mm.vmas.Lookup(address);
  if (vma == nullptr) return false;
  const VirtRange range{address, address + layout_.page_size.bytes()};
  Pfn pfn;
  if (NormalPage(PteAt(mm, address), &pfn) != nullptr) {
    if (vma->is(kVmLocked | kVmPfnMap | kVmHugetlb)) return false;
    MadvisePageout(task, *vma, range);
  } else if (vma->anonymous()) {
    Zap(task, *vma, range);  // The zero page: there is nothing to keep.
  }
  return !IsResident(mm, address);
}

}  // namespace mmlab

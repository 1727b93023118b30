// The page fault: which kind it is, anonymous memory, copy-on-write. Linux: mm/memory.c.
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/memory_controller.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/anon_vma.h"
#include "server/process/paging_fault_state.h"

namespace mmlab {
namespace {

// A task folds its small rss counters when it enters a fault after more than this many (TASK_RSS_EVENTS_THRESH).
constexpr int kRssEventsThreshold = 64;

}  // namespace

FaultOutcome Paging::HandleFault(Process& task, VmArea& vma, VirtAddr address, FaultAccess access) {
  const bool bounded = vma.mm->replacement != nullptr;
  if (bounded) [[unlikely]]
    MakeRoomFor(task, *vma.mm, layout_.page_size.RoundDown(address));
  vm_stat_.Count(VmEvent::kPgfault);
  MemoryController* const charger = memory_.charger();
  if (charger != nullptr) [[unlikely]]
    charger->CountEvent(VmEvent::kPgfault);
  if (task.rss.events++ > kRssEventsThreshold) SyncRss(task);
  if (vma.is(kVmHugetlb)) [[unlikely]] {
    const FaultOutcome outcome = HugetlbFault(vma, address, access.write);
    if (outcome == FaultOutcome::kMinor) ++task.minor_faults;
    return outcome;
  }
  const InFault in_fault(*this, vma);

  Fault fault{task, vma, *vma.mm, layout_.page_size.RoundDown(address), access};
  fault.index = format_.IndexOf(fault.address, 1);
  fault.table = FindLowestTable(fault.mm, fault.address);
  std::optional<FaultOutcome> huge;
  if (fault.table != nullptr) {
    fault.pte = format_.Load(fault.table, fault.index);
  } else {
    uint8_t* upper = EnsureTable(fault.mm, fault.address, 2);
    if (upper == nullptr) return FaultOutcome::kOom;  // The upper tables come first, whatever becomes of the fault.
    huge = HugeFault(fault, upper);
    fault.table = FindLowestTable(fault.mm, fault.address);  // A huge entry may have been split.
    if (fault.table != nullptr) fault.pte = format_.Load(fault.table, fault.index);
  }
  const FaultOutcome outcome = huge.has_value() ? *huge : HandlePteFault(fault);
  if (outcome == FaultOutcome::kMinor) ++task.minor_faults;
  if (outcome == FaultOutcome::kMajor) {
    ++task.major_faults;
    vm_stat_.Count(VmEvent::kPgmajfault);
    if (charger != nullptr) charger->CountEvent(VmEvent::kPgmajfault);
  }
  if (bounded) [[unlikely]]
    NoteLoaded(*vma.mm, fault.address);
  return outcome;
}

FaultOutcome Paging::HandlePteFault(Fault& fault) {
  Explanation* why = tracer_.explanation();
  if (format_.None(fault.pte)) {
    fault.pte = 0;
    return fault.vma.anonymous() ? AnonymousFault(fault) : FileFault(fault);
  }
  if (!format_.Present(fault.pte)) return SwapFault(fault);
  if (fault.access.write && !format_.Writable(fault.pte)) return WriteProtectFault(fault);
  // The entry allows it: only the accessed or dirty bit was missing, which this processor leaves to the kernel.
  Pte pte = fault.access.write ? format_.MkDirty(fault.pte) : fault.pte;
  pte = format_.MkYoung(pte);
  format_.Store(fault.table, fault.index, pte);
  if (why != nullptr) {
    why->Add(StepKind::kFaultDecision, "the page is mapped; its entry is marked accessed").Bits("before", fault.pte).Bits("after", pte);
  }
  return FaultOutcome::kMinor;
}

bool Paging::PrepareTable(Fault& fault) {
  if (fault.table == nullptr) fault.table = EnsureTable(fault.mm, fault.address, 1);
  return fault.table != nullptr;
}

FaultOutcome Paging::AnonymousFault(Fault& fault) {
  VmArea& vma = fault.vma;
  Explanation* why = tracer_.explanation();
  if (vma.shared()) return FaultOutcome::kSigBus;
  if (!PrepareTable(fault)) return FaultOutcome::kOom;
  const uint64_t protection = PageProtection(vma);
  if (!fault.access.write) {
    const Pte pte = format_.MkSpecial(format_.Make(memory_.zero_frame(), protection));
    format_.Store(fault.table, fault.index, pte);
    if (why != nullptr) {
      why->Add(StepKind::kFaultDecision, "an anonymous page is read first: the zero page is mapped, no memory is taken")
          .Address("address", fault.address)
          .Bits("entry", pte);
    }
    return FaultOutcome::kMinor;
  }
  AnonVmaPrepare(vma);
  const std::optional<Pfn> pfn = memory_.AllocCharged(kGfpHighuserMovable | kGfpZero);
  if (!pfn.has_value()) return FaultOutcome::kOom;
  Pte pte = format_.MkYoung(format_.Make(*pfn, protection));
  if (vma.is(kVmWrite)) pte = format_.MkWrite(format_.MkDirty(pte));
  CountRssFast(fault.task, fault.mm, RssKind::kAnon, 1);
  AddNewAnonRmap(*pfn, memory_.frame(*pfn), vma, fault.address);
  format_.Store(fault.table, fault.index, pte);
  if (why != nullptr) {
    why->Add(StepKind::kFaultDecision, "an anonymous page is written first: a zeroed frame is mapped")
        .Address("address", fault.address)
        .Frame("pfn", *pfn)
        .Bits("entry", pte);
  }
  return FaultOutcome::kMinor;
}

FaultOutcome Paging::WriteProtectFault(Fault& fault) {
  Explanation* why = tracer_.explanation();
  Pfn pfn;
  Frame* frame = NormalPage(fault.pte, &pfn);
  if (frame == nullptr) {
    if ((fault.vma.flags & (kVmWrite | kVmShared)) == (kVmWrite | kVmShared)) {
      ReusePage(fault);
      return FaultOutcome::kMinor;
    }
    if (why != nullptr) why->Add(StepKind::kCopyOnWrite, "the zero page is mapped: a frame of its own replaces it");
    return CopyPage(fault, std::nullopt);
  }
  if (frame->state == FrameState::kAnon) {
    if ((frame->flags & kPgAnonExclusive) == 0) {
      // A page still on its way to the LRU has a reference of the batch; one in the swap cache needs no slot when nobody else wants it.
      const Frame& head = HeadOf(pfn, *frame);
      const bool merged = (frame->flags & kPgKsm) != 0;
      if (merged) vm_stat_.Count(VmEvent::kCowKsm);
      if (head.refcount <= 3 && !merged) {
        if ((head.flags & kPgLru) == 0) DrainLru();
        if (head.refcount == 2 && !IsCompound(*frame)) files_.swap().TryToFree(pfn);
      }
      if (head.refcount != 1 || merged) {
        if (why != nullptr) {
          why->Add(StepKind::kCopyOnWrite, "somebody else holds the anonymous page: it is copied")
              .Frame("pfn", pfn)
              .Number("references", head.refcount)
              .Number("mapcount", MapCountOf(pfn, *frame));
        }
        return CopyPage(fault, pfn);
      }
      HeadOf(pfn, *frame).mapping = fault.vma.anon_vma->id;
      frame->flags |= kPgAnonExclusive;
    }
    if (why != nullptr) {
      why->Add(StepKind::kCopyOnWrite, "nobody else holds the anonymous page: it is used again and made writable")
          .Frame("pfn", pfn)
          .Number("references", HeadOf(pfn, *frame).refcount)
          .Number("mapcount", MapCountOf(pfn, *frame));
    }
    ReusePage(fault);
    return FaultOutcome::kMinor;
  }
  if ((fault.vma.flags & (kVmWrite | kVmShared)) == (kVmWrite | kVmShared)) return SharedWriteFault(fault, *frame);
  if (why != nullptr) {
    why->Add(StepKind::kCopyOnWrite, "a private mapping writes a page of its file: it is copied")
        .Frame("pfn", pfn)
        .Number("mapcount", frame->mapcount);
  }
  return CopyPage(fault, pfn);
}

void Paging::ReusePage(Fault& fault) {
  const Pte pte = MaybeWritable(format_.MkDirty(format_.MkYoung(fault.pte)), fault.vma);
  format_.Store(fault.table, fault.index, pte);
  vm_stat_.Count(VmEvent::kPgreuse);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFaultDecision, "the entry is made writable").Bits("before", fault.pte).Bits("after", pte);
  }
}

FaultOutcome Paging::SharedWriteFault(Fault& fault, Frame& frame) {
  // page_mkwrite() of ext4 and fault_dirty_shared_page(): the page is dirty from now on.
  if (Inode* inode = files_.FindById(static_cast<uint32_t>(frame.mapping)); inode != nullptr) {
    files_.MarkDirty(*inode, format_.PfnOf(fault.pte));
  }
  ReusePage(fault);
  files_.BalanceDirty();
  return FaultOutcome::kMinor;
}

FaultOutcome Paging::CopyPage(Fault& fault, std::optional<Pfn> old_pfn) {
  AnonVmaPrepare(fault.vma);
  Frame* old_frame = old_pfn.has_value() ? &memory_.frame(*old_pfn) : nullptr;
  // Held, so that reclaim does not take it when the copy finds memory short.
  if (old_frame != nullptr) ++HeadOf(*old_pfn, *old_frame).refcount;
  const std::optional<Pfn> pfn = memory_.AllocCharged(kGfpHighuserMovable);
  if (old_frame != nullptr) --HeadOf(*old_pfn, *old_frame).refcount;
  if (!pfn.has_value()) return FaultOutcome::kOom;
  if (old_pfn.has_value()) memory_.contents().Copy(*old_pfn, *pfn);

  if (old_frame == nullptr || old_frame->state != FrameState::kAnon) {
    if (old_frame != nullptr) CountRssFast(fault.task, fault.mm, KindOf(*old_frame), -1);
    CountRssFast(fault.task, fault.mm, RssKind::kAnon, 1);
  }
  Pte pte = format_.MkYoung(format_.Make(*pfn, PageProtection(fault.vma)));
  pte = MaybeWritable(format_.MkDirty(pte), fault.vma);
  AddNewAnonRmap(*pfn, memory_.frame(*pfn), fault.vma, fault.address);
  format_.Store(fault.table, fault.index, pte);
  if (old_frame != nullptr) {
    RemoveRmap(*old_pfn, *old_frame, fault.vma);
    FreeSwapCache(*old_pfn, *old_frame);
    PutPage(*old_pfn, *old_frame);
  }
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFaultDecision, "a private copy is mapped writable")
        .Address("address", fault.address)
        .Frame("pfn", *pfn)
        .Bits("before", fault.pte)
        .Bits("after", pte);
  }
  return FaultOutcome::kMinor;
}

}  // namespace mmlab

// Transparent huge pages: who gets one, and faults on them. Linux: mm/huge_memory.c (hugepage_vma_check, do_huge_pmd_anonymous_page,
// do_huge_pmd_wp_page, copy_huge_pmd, zap_huge_pmd).
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/memory_controller.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/anon_vma.h"
#include "server/process/khugepaged.h"
#include "server/process/paging_fault_state.h"

namespace mmlab {
namespace {

constexpr Gfp kGfpTransHugeLight = (kGfpHighuserMovable | kGfpComp | kGfpNoMemalloc | kGfpNoWarn) & ~kGfpReclaim;  // GFP_TRANSHUGE_LIGHT
constexpr Gfp kGfpTransHuge = kGfpTransHugeLight | kGfpDirectReclaim;                                              // GFP_TRANSHUGE

}  // namespace

uint32_t Paging::HugeGfpLight() { return kGfpTransHugeLight; }

bool Paging::HugeAllowed(const VmArea& vma, uint64_t vm_flags, HugeAsk ask) const {
  if ((vm_flags & (kVmNoHugePage | kVmSpecial | kVmHugetlb)) != 0 || vma.mm->thp_disabled || vma.mm->replacement != nullptr) return false;
  if (ask != HugeAsk::kFault) {
    // For the last huge page that the VMA could hold.
    const uint64_t size = format_.coverage(2);
    if (vma.end.raw() < size || !HugeFits(vma, VirtAddr((vma.end.raw() - size) & ~(size - 1)))) return false;
    if (vma.backing == VmaBacking::kFile && vma.file != nullptr && vma.file->inode->shmem()) {
      if (ask == HugeAsk::kForced) return files_.shmem_enabled() != ShmemEnabled::kDeny;
      return files_.WantsHuge(*vma.file->inode, vma.pgoff, (vm_flags & kVmHugePage) != 0 ? HugeAdvice::kYes : HugeAdvice::kNone);
    }
  }
  if (ask != HugeAsk::kForced) {
    if (huge_settings_.enabled == ThpEnabled::kNever) return false;
    if (huge_settings_.enabled == ThpEnabled::kMadvise && (vm_flags & kVmHugePage) == 0) return false;
  }
  // The kernels are built without CONFIG_READ_ONLY_THP_FOR_FS.
  if (!vma.anonymous()) return false;
  return vma.anon_vma != nullptr || ask == HugeAsk::kFault || ask == HugeAsk::kSmaps;
}

bool Paging::ThpEligible(const VmArea& vma) const { return HugeAllowed(vma, vma.flags, HugeAsk::kSmaps); }

uint32_t Paging::HugeGfp(bool advised) const {
  switch (huge_settings_.defrag) {
    case ThpDefrag::kAlways:
      return kGfpTransHuge | (advised ? 0 : kGfpNoRetry);
    case ThpDefrag::kDefer:
      return kGfpTransHugeLight | kGfpKswapdReclaim;
    case ThpDefrag::kDeferMadvise:
      return kGfpTransHugeLight | (advised ? kGfpDirectReclaim : kGfpKswapdReclaim);
    case ThpDefrag::kMadvise:
      return kGfpTransHugeLight | (advised ? kGfpDirectReclaim : 0);
    case ThpDefrag::kNever:
      break;
  }
  return kGfpTransHugeLight;
}

// The part of __handle_mm_fault() that is about huge entries.
std::optional<FaultOutcome> Paging::HugeFault(Fault& fault, uint8_t* table) {
  const uint32_t index = format_.IndexOf(fault.address, 2);
  const uint64_t entry = format_.Load(table, index);
  if (!format_.Huge(entry)) {
    if (huge_settings_.enabled == ThpEnabled::kNever) return std::nullopt;
    if (!HugeAllowed(fault.vma, fault.vma.flags, HugeAsk::kFault)) {
      if (Explanation* why = tracer_.explanation(); why != nullptr && fault.vma.anonymous()) {
        why->Add(StepKind::kHugeFault, fault.mm.thp_disabled         ? "no huge page: PR_SET_THP_DISABLE"
                                       : fault.vma.is(kVmNoHugePage) ? "no huge page: MADV_NOHUGEPAGE"
                                       : fault.vma.is(kVmSpecial)    ? "no huge page: special memory"
                                                                     : "no huge page: only after MADV_HUGEPAGE");
      }
      return std::nullopt;
    }
    return HugeAnonymousFault(fault, table);
  }
  if (fault.access.write && !format_.Writable(entry)) return HugeWriteFault(fault, table);
  // The entry allows it: only the accessed or dirty bit was missing, which this processor leaves to the kernel.
  format_.Store(table, index, format_.MkYoung(fault.access.write ? format_.MkDirty(entry) : entry));
  return FaultOutcome::kMinor;
}

std::optional<FaultOutcome> Paging::HugeAnonymousFault(Fault& fault, uint8_t* table) {
  VmArea& vma = fault.vma;
  Explanation* why = tracer_.explanation();
  const VirtAddr start(fault.address.raw() & ~(format_.coverage(2) - 1));
  if (!HugeFits(vma, start)) {
    if (why != nullptr) {
      why->Add(StepKind::kHugeFault, "no huge page: the VMA does not hold all of the aligned range")
          .Address("range_start", start)
          .Size("range_size", Bytes(format_.coverage(2)))
          .Address("vma_start", vma.start)
          .Address("vma_end", vma.end);
    }
    return std::nullopt;
  }
  AnonVmaPrepare(vma);
  EnterKhugepaged(vma, vma.flags);
  if (!fault.access.write && huge_settings_.use_zero_page) return HugeZeroFault(fault, table);
  const PageOrder order(format_.shift(2) - format_.shift(1));
  MemoryController* const charger = memory_.charger();
  const std::optional<Pfn> head = memory_.AllocPages(HugeGfp(vma.is(kVmHugePage)), order);
  const bool refused = head.has_value() && charger != nullptr && !charger->ChargePage(*head, order, HugeGfp(vma.is(kVmHugePage)));
  if (refused) {
    memory_.FreePages(*head, order);
    vm_stat_.Count(VmEvent::kThpFaultFallbackCharge);
  }
  if (!head.has_value() || refused) {
    vm_stat_.Count(VmEvent::kThpFaultFallback);
    if (why != nullptr) {
      why->Add(StepKind::kHugeFault,
               refused ? "no huge page: its memory cgroup may not have so much" : "no huge page: no block of that size is free")
          .Number("pages", huge_pages());
    }
    return std::nullopt;
  }
  if (!DepositTable(fault.mm)) {
    memory_.FreePages(*head, order);
    return FaultOutcome::kOom;
  }
  const uint64_t entry = format_.MkHuge(MaybeWritable(format_.MkDirty(format_.Make(*head, PageProtection(vma))), vma));
  PrepareHugePage(*head);
  AddNewHugeRmap(*head, vma, start);
  format_.Store(table, format_.IndexOf(start, 2), entry);
  fault.mm.rss[static_cast<size_t>(RssKind::kAnon)] += huge_pages();
  vm_stat_.Count(VmEvent::kThpFaultAlloc);
  if (charger != nullptr) charger->CountEvent(VmEvent::kThpFaultAlloc);
  if (why != nullptr) {
    why->Add(StepKind::kHugeFault, "anonymous memory is touched first: a zeroed huge page is mapped")
        .Address("address", start)
        .Frame("pfn", *head)
        .Number("pages", huge_pages())
        .Bits("entry", entry);
  }
  return FaultOutcome::kMinor;
}

std::optional<FaultOutcome> Paging::HugeZeroFault(Fault& fault, uint8_t* table) {
  Explanation* why = tracer_.explanation();
  if (!DepositTable(fault.mm)) return FaultOutcome::kOom;
  if (!GetHugeZero(fault.mm)) {
    FreeDeposited(fault.mm);
    vm_stat_.Count(VmEvent::kThpFaultFallback);
    if (why != nullptr) why->Add(StepKind::kHugeFault, "no huge zero page: no block of that size is free").Number("pages", huge_pages());
    return std::nullopt;
  }
  const uint64_t entry = format_.MkHuge(format_.Make(*huge_zero_, PageProtection(fault.vma)));
  format_.Store(table, format_.IndexOf(fault.address, 2), entry);
  if (why != nullptr) {
    why->Add(StepKind::kHugeFault, "anonymous memory is read first: the huge zero page is mapped")
        .Frame("pfn", *huge_zero_)
        .Bits("entry", entry);
  }
  return FaultOutcome::kMinor;
}

std::optional<FaultOutcome> Paging::HugeWriteFault(Fault& fault, uint8_t* table) {
  const uint32_t index = format_.IndexOf(fault.address, 2);
  const uint64_t entry = format_.Load(table, index);
  if (!fault.vma.anonymous()) {
    SplitHugeEntry(fault.vma, table, fault.address, "a file's huge page is written that may only be read: its entry goes");
    return std::nullopt;
  }
  if (IsHugeZero(entry)) {
    SplitHugeEntry(fault.vma, table, fault.address, "the huge zero page is written: only the page in question is replaced");
    return std::nullopt;
  }
  const Pfn head = format_.HugePfn(entry);
  Frame& frame = memory_.frame(head);
  if ((frame.flags & kPgAnonExclusive) == 0) {
    if (frame.refcount != 1) {
      SplitHugeEntry(fault.vma, table, fault.address, "somebody else holds the huge page: only the page that is written is copied");
      return std::nullopt;
    }
    frame.mapping = fault.vma.anon_vma->id;
    frame.flags |= kPgAnonExclusive;
  }
  const uint64_t writable = MaybeWritable(format_.MkDirty(format_.MkYoung(entry)), fault.vma);
  format_.Store(table, index, writable);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kHugeFault, "nobody else holds the huge page: it is used again and made writable")
        .Frame("pfn", head)
        .Bits("before", entry)
        .Bits("after", writable);
  }
  return FaultOutcome::kMinor;
}

// prep_transhuge_page(): what the allocator gave becomes one page with a state of its own.
void Paging::PrepareHugePage(Pfn head) {
  for (uint32_t i = 0; i < huge_pages(); ++i) {
    Frame& frame = memory_.frame(head + PageCount(i));
    frame.state = FrameState::kAnon;
    frame.index = 0;
    frame.mapcount = 0;
  }
}

void Paging::AddNewHugeRmap(Pfn head, VmArea& vma, VirtAddr address) {
  Frame& frame = memory_.frame(head);
  frame.flags |= kPgUptodate | kPgSwapBacked | kPgAnonExclusive;
  frame.mapping = vma.anon_vma->id;
  frame.index = vma.IndexOf(address, layout_.page_size).raw();
  AddEntireMap(head, 1);
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrAnonTransparentHugepages, huge_pages());
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrAnonPages, huge_pages());
  if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) {
    MlockPage(head, frame);
    lru_.AddMlocked(head);
  } else {
    lru_.Add(head);
  }
}

// The kernel keeps these where the frames of a compound page's tails have fields to spare; so do we: the first tail counts the entries that
// map the page as a whole, the second holds the key in the queue of deferred splits.
int Paging::EntireMapCount(Pfn head) const { return static_cast<int>(memory_.frame(head + PageCount(1)).index); }

void Paging::AddEntireMap(Pfn head, int change) {
  Frame& frame = memory_.frame(head + PageCount(1));
  MMLAB_CHECK(change >= 0 || frame.index > 0);
  frame.index = static_cast<uint64_t>(static_cast<int64_t>(frame.index) + change);
}

bool Paging::GetHugeZero(AddressSpace& mm) {
  if (mm.uses_huge_zero) return true;
  if (!huge_zero_.has_value()) {
    const Gfp gfp = (kGfpTransHuge | kGfpZero) & ~kGfpMovable;
    huge_zero_ = memory_.AllocPages(gfp, PageOrder(format_.shift(2) - format_.shift(1)));
    if (!huge_zero_.has_value()) {
      vm_stat_.Count(VmEvent::kThpZeroPageAllocFailed);
      return false;
    }
    vm_stat_.Count(VmEvent::kThpZeroPageAlloc);
  }
  ++huge_zero_users_;
  mm.uses_huge_zero = true;
  return true;
}

void Paging::ShrinkHugeZero() {
  if (!HugeZeroIsIdle()) return;
  memory_.FreePages(*huge_zero_, PageOrder(format_.shift(2) - format_.shift(1)));
  huge_zero_.reset();
}

// khugepaged_enter_vma()
void Paging::EnterKhugepaged(const VmArea& vma, uint64_t vm_flags) {
  if (huge_settings_.enabled == ThpEnabled::kNever || vma.mm->khugepaged_slot != 0) return;
  if (HugeAllowed(vma, vm_flags, HugeAsk::kKhugepaged)) khugepaged_->Enter(*vma.mm);
}

void Paging::LeaveHugePages(AddressSpace& mm) {
  khugepaged_->Exit(mm);
  if (mm.uses_huge_zero) --huge_zero_users_;
  mm.uses_huge_zero = false;
}

bool Paging::DepositTable(AddressSpace& mm) {
  const std::optional<Pfn> table = AllocTable(mm, 1);
  if (table.has_value()) mm.deposited_tables.push_back(*table);
  return table.has_value();
}

Pfn Paging::WithdrawTable(AddressSpace& mm) {
  MMLAB_CHECK(!mm.deposited_tables.empty());
  const Pfn table = mm.deposited_tables.back();
  mm.deposited_tables.pop_back();
  return table;
}

uint64_t Paging::HugeEntryAt(const AddressSpace& mm, VirtAddr address) const {
  const uint8_t* table = FindTable(mm, address, 2);
  const uint64_t entry = table == nullptr ? 0 : format_.Load(table, format_.IndexOf(address, 2));
  return format_.Huge(entry) ? entry : 0;
}

Paging::HardwareAccess Paging::TryHugeAccess(const AddressSpace& mm, VirtAddr address, bool write, bool execute) {
  uint8_t* table = TableBytes(mm.pgd);
  for (int level = format_.levels(); level > 1; --level) {
    const uint32_t index = format_.IndexOf(address, level);
    const uint64_t entry = format_.Load(table, index);
    if (format_.TablePresent(entry)) {
      table = TableBytes(format_.TableOf(entry));
      continue;
    }
    if (level > 3 || !format_.Huge(entry)) break;
    const PageTableFormat::Checked checked = format_.Check(entry, write, execute, hardware_access_flag_);
    if (checked.verdict != PteVerdict::kAllowed) return {checked.verdict, Pfn(), nullptr};
    if (checked.pte != entry) format_.Store(table, index, checked.pte);
    const uint64_t offset = address.raw() & (format_.coverage(level) - 1);
    return {PteVerdict::kAllowed, format_.HugePfn(entry) + PageCount(offset >> layout_.page_size.shift()), nullptr};
  }
  return {PteVerdict::kNotPresent, Pfn(), nullptr};
}

// copy_huge_pmd(): false when memory is short.
bool Paging::CopyHuge(AddressSpace& to, uint8_t* source, uint8_t* target, VirtAddr address) {
  if (!DepositTable(to)) return false;
  const uint32_t index = format_.IndexOf(address, 2);
  const uint64_t entry = format_.Load(source, index);
  if (IsHugeZero(entry)) {
    GetHugeZero(to);  // Never makes one: there is one to copy.
  } else {
    const Pfn head = format_.HugePfn(entry);
    Frame& frame = memory_.frame(head);
    ++frame.refcount;
    AddEntireMap(head, 1);
    frame.flags &= ~uint32_t{kPgAnonExclusive};
    to.rss[static_cast<size_t>(RssKind::kAnon)] += huge_pages();
  }
  format_.Store(source, index, format_.WrProtect(entry));
  format_.Store(target, index, format_.MkOld(format_.WrProtect(entry)));
  return true;
}

// zap_huge_pmd()
void Paging::ZapHuge(VmArea& vma, uint8_t* table, VirtAddr address) {
  if (!vma.anonymous()) return ZapHugeFile(vma, table, address);
  const uint32_t index = format_.IndexOf(address, 2);
  const uint64_t entry = format_.Load(table, index);
  format_.Store(table, index, 0);
  FreeDeposited(*vma.mm);
  if (IsHugeZero(entry)) return;
  const Pfn head = format_.HugePfn(entry);
  Frame& frame = memory_.frame(head);
  RemoveEntireMap(head, frame, vma);
  vma.mm->rss[static_cast<size_t>(RssKind::kAnon)] -= huge_pages();
  PutPage(head, frame);
}

// page_remove_rmap() of a huge entry.
void Paging::RemoveEntireMap(Pfn head, Frame& frame, const VmArea& vma) {
  const bool of_file = frame.state == FrameState::kShmem;
  AddEntireMap(head, -1);
  if (EntireMapCount(head) == 0) {
    const NodeStat huge = of_file ? NodeStat::kNrShmemPmdmapped : NodeStat::kNrAnonTransparentHugepages;
    memory_.CountPage(vm_stat_, frame, huge, -int64_t{huge_pages()});
    uint32_t unmapped = 0;
    for (uint32_t i = 0; i < huge_pages(); ++i) unmapped += memory_.frame(head + PageCount(i)).mapcount == 0;
    // Small entries may map some of it still.
    if (!of_file && unmapped > 0 && unmapped < huge_pages()) DeferSplit(head);
    memory_.CountPage(vm_stat_, frame, of_file ? NodeStat::kNrMapped : NodeStat::kNrAnonPages, -int64_t{unmapped});
  }
  if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) MunlockPage(head, frame);
}

// page_remove_rmap() of an entry that maps one page of a huge page.
void Paging::RemoveSubpageRmap(Pfn pfn, Frame& frame) {
  MMLAB_CHECK(frame.mapcount > 0);
  const Pfn head = HugeHead(pfn);
  if (--frame.mapcount > 0 || EntireMapCount(head) > 0) return;
  const Frame& first = memory_.frame(head);
  const bool of_file = first.state == FrameState::kShmem;
  memory_.CountPage(vm_stat_, first, of_file ? NodeStat::kNrMapped : NodeStat::kNrAnonPages, -1);
  if (!of_file) DeferSplit(head);
}

void Paging::DeferSplit(Pfn head) {
  Frame& second = memory_.frame(head + PageCount(2));
  if (second.index != 0) return;
  vm_stat_.Count(VmEvent::kThpDeferredSplitPage);
  second.index = next_deferred_;
  deferred_splits_[next_deferred_++] = head;
}

void Paging::ForgetDeferredSplit(Pfn head) {
  Frame& second = memory_.frame(head + PageCount(2));
  if (second.index != 0) deferred_splits_.erase(second.index);
  second.index = 0;
}

// free_transhuge_page()
void Paging::ReleaseHugePage(Pfn head, const Frame& frame) {
  ForgetDeferredSplit(head);
  MMLAB_CHECK(EntireMapCount(head) == 0);
  if ((frame.flags & kPgMlocked) != 0) ForgetMlocked(frame);
  memory_.FreePages(head, PageOrder(format_.shift(2) - format_.shift(1)));
}

}  // namespace mmlab

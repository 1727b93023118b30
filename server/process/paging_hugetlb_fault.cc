// Faults on huge pages of pools. Linux: mm/hugetlb.c (hugetlb_fault, hugetlb_no_page, hugetlb_wp, alloc_huge_page).
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/anon_vma.h"
#include "server/process/paging.h"
#include "server/process/paging_hugetlb_walk.h"

namespace mmlab {

FaultOutcome Paging::HugetlbFault(VmArea& vma, VirtAddr address, bool write) {
  const VirtAddr start(address.raw() & ~(KernelPageSize(vma).raw() - 1));
  const HugetlbEntry at = EnsureHugetlb(*vma.mm, start, HugetlbPoolOf(vma).order);
  if (at.table == nullptr) return FaultOutcome::kOom;
  const uint64_t entry = LoadHugetlb(at);
  if (entry == 0) return HugetlbMissing(vma, start, at, write);
  if (write && !format_.Writable(entry)) return HugetlbWrite(vma, start, at, entry);
  StoreHugetlb(at, format_.MkYoung(write ? format_.MkDirty(entry) : entry));
  return FaultOutcome::kMinor;
}

FaultOutcome Paging::HugetlbSigBus(const char* reason, VirtAddr address) const {
  if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kFaultDecision, reason).Address("address", address);
  return FaultOutcome::kSigBus;
}

// alloc_huge_page(): with a reservation, if the VMA has one for the page and it shall be used.
std::optional<Pfn> Paging::AllocHugetlb(VmArea& vma, uint64_t index, bool avoid_reserve) {
  HugetlbInode& huge = *vma.file->inode->hugetlb;
  const bool shared = vma.is(kVmMayShare);
  ReserveMap* map = shared ? &huge.reserved : vma.hugetlb_reserve.get();
  // A file's map has what is reserved, a private mapping's what was taken.
  const bool promised = !avoid_reserve && map != nullptr && (map->Count(index, index + 1) == 1) == shared;
  const std::optional<Pfn> head = files_.hugetlb().Take(huge.pool, promised);
  if (head.has_value() && map != nullptr) map->Add(index, index + 1);
  return head;
}

// hugepage_add_new_anon_rmap()
void Paging::AddNewHugetlbRmap(Pfn head, const VmArea& vma, VirtAddr address) {
  Frame& frame = memory_.frame(head);
  frame.flags |= kPgUptodate | kPgHugetlbAnon | kPgAnonExclusive;
  frame.mapping = vma.anon_vma->id;
  frame.index = vma.IndexOf(address, layout_.page_size).raw();
  frame.mapcount = 1;
}

// hugetlb_no_page()
FaultOutcome Paging::HugetlbMissing(VmArea& vma, VirtAddr start, const HugetlbEntry& at, bool write) {
  Inode& inode = *vma.file->inode;
  const HugetlbPool& pool = HugetlbPoolOf(vma);
  if (vma.hugetlb_unmapped) return HugetlbSigBus("the huge page was taken away for the process that reserved it", start);
  const uint64_t index = HugetlbIndex(vma, start);
  const auto cached = inode.hugetlb->pages.find(index);
  const bool fresh = cached == inode.hugetlb->pages.end();
  const bool anonymous = fresh && !vma.is(kVmMayShare);
  Pfn head;
  if (!fresh) {
    head = cached->second;
  } else {
    if (index >= inode.size >> (pool.order + layout_.page_size.shift())) return HugetlbSigBus("beyond the end of the file", start);
    const std::optional<Pfn> taken = AllocHugetlb(vma, index, /*avoid_reserve=*/false);
    if (!taken.has_value()) return HugetlbSigBus("the pool has no huge page that is not promised to others", start);
    head = *taken;
    for (uint64_t i = 0; i < pool.pages(); ++i) memory_.contents().Clear(head + PageCount(i));
    if (!anonymous) files_.AddHugetlbPage(inode, index, head);
  }
  if (anonymous) {
    AnonVmaPrepare(vma);
    AddNewHugetlbRmap(head, vma, start);
  } else {
    ++memory_.frame(head).refcount;
    ++memory_.frame(head).mapcount;
  }
  const uint64_t entry = MakeHugetlb(at, vma, head, (vma.flags & (kVmWrite | kVmShared)) == (kVmWrite | kVmShared));
  StoreHugetlb(at, entry);
  vma.mm->hugetlb_pages += pool.pages();
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFaultDecision, fresh ? "a zeroed huge page of the pool is mapped" : "the file's huge page is mapped")
        .Address("address", start)
        .Frame("pfn", head)
        .Number("pages", static_cast<int64_t>(pool.pages()))
        .Bits("entry", entry);
  }
  if (write && !vma.shared()) return HugetlbWrite(vma, start, at, entry);
  return FaultOutcome::kMinor;
}

// hugetlb_wp(): the entry is there and must become writable.
FaultOutcome Paging::HugetlbWrite(VmArea& vma, VirtAddr start, const HugetlbEntry& at, uint64_t entry) {
  if (!vma.is(kVmWrite)) return FaultOutcome::kSigSegv;
  if (!vma.is(kVmMayShare)) {
    const Pfn old = HugetlbPfn(at, entry);
    const auto& cached = vma.file->inode->hugetlb->pages;
    const auto in_file = cached.find(HugetlbIndex(vma, start));
    // Who made the mapping copies with what others leave over, so that its reservations last for what it has not touched yet.
    const bool spare_reserve = vma.hugetlb_reserve.get() != nullptr && (in_file == cached.end() || in_file->second != old);
    bool reuse = ReusableHugetlb(old);
    if (!reuse) {
      const std::optional<Pfn> copy = AllocHugetlb(vma, HugetlbIndex(vma, start), spare_reserve);
      if (copy.has_value()) {
        CopyHugetlbPage(vma, start, at, old, *copy);
        return FaultOutcome::kMinor;
      }
      if (spare_reserve) UnmapHugetlbElsewhere(vma, start, old);
      reuse = spare_reserve && ReusableHugetlb(old);
    }
    if (!reuse) return HugetlbSigBus("the pool has no huge page for a copy", start);
    Frame& frame = memory_.frame(old);
    frame.mapping = vma.anon_vma->id;
    frame.flags |= kPgAnonExclusive;
  }
  StoreHugetlb(at, format_.MkWrite(format_.MkDirty(entry)));
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kCopyOnWrite, "nobody else writes the huge page privately: its entry is made writable").Bits("before", entry);
  }
  return FaultOutcome::kMinor;
}

bool Paging::ReusableHugetlb(Pfn head) {
  const Frame& frame = memory_.frame(head);
  return frame.mapcount == 1 && (frame.flags & kPgHugetlbAnon) != 0;
}

void Paging::CopyHugetlbPage(VmArea& vma, VirtAddr start, const HugetlbEntry& at, Pfn old, Pfn copy) {
  AnonVmaPrepare(vma);
  for (uint64_t i = 0; i < HugetlbPoolOf(vma).pages(); ++i) memory_.contents().Copy(old + PageCount(i), copy + PageCount(i));
  AddNewHugetlbRmap(copy, vma, start);
  StoreHugetlb(at, MakeHugetlb(at, vma, copy, /*writable=*/true));
  DropHugetlbMap(vma, old);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kCopyOnWrite, "somebody else has the huge page: it is copied").Frame("from", old).Frame("to", copy);
  }
}

// unmap_ref_private(): takes the page away from those who have no reservation of their own; they find none at their next fault there.
void Paging::UnmapHugetlbElsewhere(const VmArea& vma, VirtAddr start, Pfn head) {
  const PageSize page_size = layout_.page_size;
  const int order = HugetlbPoolOf(vma).order;
  const PageIndex index = vma.IndexOf(start, page_size);
  for (const auto& [link, other] : vma.file->inode->mappings) {
    if (other == &vma || other->is(kVmMayShare) || other->hugetlb_reserve.get() != nullptr) continue;
    if (index < other->pgoff || index >= other->pgoff + page_size.WholePagesIn(other->length())) continue;
    const VirtAddr there = other->start + page_size.BytesOf(index - other->pgoff);
    ForEachHugetlb(*other->mm, {there, there + KernelPageSize(vma)}, order, [&, other = other](const HugetlbEntry& at, VirtAddr) {
      const uint64_t entry = LoadHugetlb(at);
      if (entry == 0 || HugetlbPfn(at, entry) != head) return;
      other->hugetlb_unmapped = true;
      UnmapHugetlb(*other, at, entry);
      if (Explanation* why = tracer_.explanation()) {
        why->Add(StepKind::kCopyOnWrite, "the pool is empty: the huge page is taken away from another process, which has no reservation")
            .Address("address", there);
      }
    });
  }
}

// follow_hugetlb_page(): its faults are counted nowhere.
Errno Paging::PopulateHugetlb(VmArea& vma, VirtRange range, bool write) {
  const uint64_t size = KernelPageSize(vma).raw();
  for (uint64_t address = range.start.raw() & ~(size - 1); address < range.end.raw(); address += size) {
    bool there = false;
    ForEachHugetlb(*vma.mm, {VirtAddr(address), VirtAddr(address + size)}, HugetlbPoolOf(vma).order, [&](const HugetlbEntry& at, VirtAddr) {
      const uint64_t entry = LoadHugetlb(at);
      there = entry != 0 && (!write || format_.Writable(entry));
    });
    if (there) continue;
    const FaultOutcome outcome = HugetlbFault(vma, VirtAddr(address), write);
    if (outcome != FaultOutcome::kMinor) return outcome == FaultOutcome::kOom ? Errno::kENOMEM : Errno::kEFAULT;
  }
  return Errno::kOk;
}

}  // namespace mmlab

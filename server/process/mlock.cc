#include <algorithm>

#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/process_limits.h"

// mlock() and its family: mm/mlock.c; faulting in for them: __mm_populate() of mm/gup.c.

namespace mmlab {
namespace {

constexpr uint32_t kMlockOnFault = 1;
constexpr uint32_t kMclCurrent = 1;
constexpr uint32_t kMclFuture = 2;
constexpr uint32_t kMclOnFault = 4;

}  // namespace

Errno MmCall::Mlock(uint64_t address, uint64_t length, uint32_t flags) {
  if ((flags & ~kMlockOnFault) != 0) return Refuse(Errno::kEINVAL, "unknown flags");
  return DoMlock(address, length, (flags & kMlockOnFault) != 0 ? uint64_t{kVmLocked | kVmLockOnFault} : uint64_t{kVmLocked});
}

Errno MmCall::DoMlock(uint64_t start, uint64_t length, uint64_t vm_flags) {
  start = UntagAddress(start);
  if (!CanDoMlock()) return Refuse(Errno::kEPERM, "RLIMIT_MEMLOCK is 0");
  length = PageAlign(Wrap(length + (start & page_mask_)));
  start &= ~page_mask_;
  const uint64_t limit = Wrap(task_.rlimit(RlimitKind::kMemlock).current) >> shift_;
  uint64_t locked = (length >> shift_) + mm_.locked_vm.raw();
  // What is locked already does not count twice.
  if (locked > limit && !task_.capable()) locked -= CountMlocked(start, length);
  if (locked > limit && !task_.capable()) {
    if (why() != nullptr) {
      why()
          ->Add(StepKind::kSystemCallCheck, "RLIMIT_MEMLOCK does not allow so much locked memory")
          .Pages("locked_with_it", static_cast<int64_t>(locked))
          .Pages("limit", static_cast<int64_t>(limit))
          .Error(Errno::kENOMEM);
    }
    return Errno::kENOMEM;
  }
  MMLAB_TRY(ApplyVmaLockFlags(start, length, vm_flags));
  const Errno error = Populate(start, length, /*ignore_errors=*/false);
  // POSIX wants other numbers than get_user_pages() gives.
  if (error == Errno::kEFAULT) return Errno::kENOMEM;
  if (error == Errno::kENOMEM) return Errno::kEAGAIN;
  return error;
}

uint64_t MmCall::CountMlocked(uint64_t start, uint64_t length) const {
  const uint64_t end = word_mask_ - length < start ? word_mask_ : start + length;
  uint64_t bytes = 0;
  for (const VmArea* vma = mm_.vmas.Find(VirtAddr(start)); vma != nullptr && vma->start.raw() < end; vma = mm_.vmas.Next(*vma)) {
    if (!vma->is(kVmLocked)) continue;
    // As the kernel counts: a VMA that reaches beyond the range counts from its own start.
    if (start > vma->start.raw()) bytes -= start - vma->start.raw();
    if (end < vma->end.raw()) {
      bytes += end - vma->start.raw();
      break;
    }
    bytes += vma->length().raw();
  }
  return bytes >> shift_;
}

Errno MmCall::Munlock(uint64_t start, uint64_t length) {
  start = UntagAddress(start);
  length = PageAlign(Wrap(length + (start & page_mask_)));
  return ApplyVmaLockFlags(start & ~page_mask_, length, 0);
}

Errno MmCall::ApplyVmaLockFlags(uint64_t start, uint64_t length, uint64_t flags) {
  const uint64_t end = Wrap(start + length);
  if (end < start) return Refuse(Errno::kEINVAL, "the range wraps");
  if (end == start) return Nothing("length 0: nothing changes");
  VmArea* vma = mm_.vmas.Lookup(VirtAddr(start));
  if (vma == nullptr) return Refuse(Errno::kENOMEM, "nothing is mapped at the address");
  VmArea* prev = start > vma->start.raw() ? vma : mm_.vmas.Previous(*vma);
  uint64_t from = start;
  while (true) {
    const uint64_t to = std::min(vma->end.raw(), end);
    MMLAB_TRY(MlockFixup(vma, &prev, from, to, (vma->flags & ~kVmLockedMask) | flags));
    from = std::max(to, prev->end.raw());
    if (from >= end) return Errno::kOk;
    vma = mm_.vmas.Next(*prev);
    if (vma == nullptr || vma->start.raw() != from) return Refuse(Errno::kENOMEM, "a hole in the range; what lies before it has changed");
  }
}

// mlock_fixup(): gives the part [start, end) of `vma` its new flags. *prev becomes the VMA that holds the part.
Errno MmCall::MlockFixup(VmArea* vma, VmArea** prev, uint64_t start, uint64_t end, uint64_t newflags) {
  const uint64_t oldflags = vma->flags;
  if (newflags == oldflags || (oldflags & (kVmSpecial | kVmHugetlb)) != 0) {
    if (why() != nullptr) {
      why()
          ->Add(StepKind::kVmaLookup,
                newflags == oldflags ? "nothing changes: it is so already" : "a special mapping is never locked nor counted")
          .Address("start", vma->start);
    }
    *prev = vma;
    return Errno::kOk;
  }
  const uint64_t pgoff = Wrap(vma->pgoff.raw() + ((start - vma->start.raw()) >> shift_));
  VmArea* merged = VmaMerge(*prev, start, end, newflags, vma->anon_vma, vma->file.get(), pgoff, vma->name.get());
  if (merged != nullptr) {
    vma = merged;
  } else {
    *prev = vma;
    if (start != vma->start.raw()) MMLAB_TRY(SplitVma(*vma, start, true));
    if (end != vma->end.raw()) MMLAB_TRY(SplitVma(*vma, end, false));
  }
  *prev = vma;
  const PageCount pages = Pages(end - start);
  if (why() != nullptr) {
    why()
        ->Add(StepKind::kVmaLookup, (newflags & kVmLocked) == 0        ? "unlocked"
                                    : (newflags & kVmLockOnFault) != 0 ? "locked; pages come when they are touched (VM_LOCKONFAULT)"
                                                                       : "locked; what is not there yet is faulted in")
        .Address("start", VirtAddr(start))
        .Address("end", VirtAddr(end))
        .Pages("pages", pages);
  }
  if ((newflags & kVmLocked) == 0) {
    mm_.locked_vm -= pages;
  } else if ((oldflags & kVmLocked) == 0) {
    mm_.locked_vm += pages;
  }
  vma->flags = newflags;
  if ((newflags & oldflags & kVmLocked) == 0) core_.paging.UpdateMlocked(*vma, {VirtAddr(start), VirtAddr(end)});
  return Errno::kOk;
}

void MmCall::ApplyMlockallFlags(uint32_t flags) {
  mm_.def_flags &= ~kVmLockedMask;
  if ((flags & kMclFuture) != 0) {
    mm_.def_flags |= kVmLocked;
    if ((flags & kMclOnFault) != 0) mm_.def_flags |= kVmLockOnFault;
    if ((flags & kMclCurrent) == 0) return;
  }
  uint64_t to_add = 0;
  if ((flags & kMclCurrent) != 0) to_add = (flags & kMclOnFault) != 0 ? uint64_t{kVmLocked | kVmLockOnFault} : uint64_t{kVmLocked};
  VmArea* prev = nullptr;
  for (VmArea* vma = mm_.vmas.First(); vma != nullptr; vma = mm_.vmas.Next(*prev)) {
    // Errors are ignored.
    MlockFixup(vma, &prev, vma->start.raw(), vma->end.raw(), (vma->flags & ~kVmLockedMask) | to_add);
  }
}

Errno MmCall::Mlockall(uint32_t flags) {
  if (flags == 0 || (flags & ~(kMclCurrent | kMclFuture | kMclOnFault)) != 0 || flags == kMclOnFault) {
    return Refuse(Errno::kEINVAL, "neither MCL_CURRENT nor MCL_FUTURE, or unknown flags");
  }
  if (!CanDoMlock()) return Refuse(Errno::kEPERM, "RLIMIT_MEMLOCK is 0");
  const uint64_t limit = Wrap(task_.rlimit(RlimitKind::kMemlock).current) >> shift_;
  if ((flags & kMclCurrent) != 0 && mm_.total_vm.raw() > limit && !task_.capable()) {
    return Refuse(Errno::kENOMEM, "RLIMIT_MEMLOCK is smaller than the whole address space (VmSize)");
  }
  if ((flags & kMclFuture) != 0) Nothing("MCL_FUTURE: mappings to come begin locked (mm->def_flags)");
  ApplyMlockallFlags(flags);
  if ((flags & kMclCurrent) != 0) Populate(0, task_size_, /*ignore_errors=*/true);
  return Errno::kOk;
}

Errno MmCall::Munlockall() {
  Nothing("every VMA is unlocked, and mappings to come are not locked any more");
  ApplyMlockallFlags(0);
  return Errno::kOk;
}

Errno MmCall::Populate(uint64_t start, uint64_t length, bool ignore_errors) {
  const uint64_t end = start + length;
  for (VmArea* vma = mm_.vmas.Find(VirtAddr(start)); vma != nullptr && vma->start.raw() < end; vma = mm_.vmas.Next(*vma)) {
    if (vma->is(kVmIo | kVmPfnMap)) continue;
    const Errno error = PopulateVma(*vma, std::max(start, vma->start.raw()), std::min(end, vma->end.raw()));
    if (error != Errno::kOk && !ignore_errors) return error;
  }
  return Errno::kOk;
}

Errno MmCall::PopulateVma(VmArea& vma, uint64_t start, uint64_t end) {
  if (vma.is(kVmLockOnFault)) return Errno::kOk;
  // check_vma_flags(): any permission at all is enough (FOLL_FORCE), as long as the file itself may be read.
  if (vma.is(kVmIo | kVmPfnMap) || !vma.is(kVmAccessFlags) || !vma.is(kVmRead | kVmMayRead)) return Errno::kEFAULT;
  const bool write = (vma.flags & (kVmWrite | kVmShared)) == kVmWrite;
  return core_.paging.PopulateRange(task_, vma, {VirtAddr(start), VirtAddr(end)}, write, /*force=*/true);
}

}  // namespace mmlab

#include "server/process/commit_account.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/process_limits.h"

// mprotect(): mm/mprotect.c.

namespace mmlab {
namespace {

constexpr uint32_t kProtSem = 8;
constexpr uint32_t kProtGrowsDown = 0x01000000;
constexpr uint32_t kProtGrowsUp = 0x02000000;

}  // namespace

Errno MmCall::Mprotect(uint64_t start, uint64_t length, uint32_t prot) {
  start = UntagAddress(start);
  const uint32_t grows = prot & (kProtGrowsDown | kProtGrowsUp);
  prot &= ~(kProtGrowsDown | kProtGrowsUp);
  if (grows == (kProtGrowsDown | kProtGrowsUp)) return Refuse(Errno::kEINVAL, "PROT_GROWSDOWN and PROT_GROWSUP together");
  if (!PageAligned(start)) return Refuse(Errno::kEINVAL, "the address is not page-aligned");
  if (length == 0) return Nothing("length 0: nothing changes");
  length = PageAlign(length);
  uint64_t end = Wrap(start + length);
  if (end <= start) return Refuse(Errno::kENOMEM, "the range wraps");
  if ((prot & ~(kProtRead | kProtWrite | kProtExec | kProtSem)) != 0) return Refuse(Errno::kEINVAL, "unknown protection bits");

  VmArea* vma = mm_.vmas.Find(VirtAddr(start));
  if (vma == nullptr) return Refuse(Errno::kENOMEM, "nothing is mapped at or above the address");
  if ((grows & kProtGrowsDown) != 0) {
    if (vma->start.raw() >= end) return Refuse(Errno::kENOMEM, "nothing is mapped in the range");
    start = vma->start.raw();
    if (!vma->is(kVmGrowsDown)) return Refuse(Errno::kEINVAL, "PROT_GROWSDOWN on a VMA that does not grow down");
  } else {
    if (vma->start.raw() > start) return Refuse(Errno::kENOMEM, "nothing is mapped at the address");
    if ((grows & kProtGrowsUp) != 0) return Refuse(Errno::kEINVAL, "PROT_GROWSUP: no VMA of this architecture grows up");
  }
  VmArea* prev = start > vma->start.raw() ? vma : mm_.vmas.Previous(*vma);
  uint64_t from = start;
  while (true) {
    uint32_t wished = prot;
    if (task_.read_implies_exec && (prot & kProtRead) != 0 && vma->is(kVmMayExec)) wished |= kProtExec;
    const uint64_t newflags = ProtToFlags(wished) | (vma->flags & ~kVmAccessFlags);
    // VM_MAYREAD is VM_READ << 4, and so on.
    if ((newflags & ~(newflags >> 4) & kVmAccessFlags) != 0) {
      return Refuse(Errno::kEACCES, "more than the way of opening the file allows (VM_MAY* flags)");
    }
    const uint64_t to = std::min(vma->end.raw(), end);
    MMLAB_TRY(MprotectFixup(vma, &prev, from, to, newflags));
    from = std::max(to, prev->end.raw());
    if (from >= end) return Errno::kOk;
    vma = mm_.vmas.Next(*prev);
    if (vma == nullptr || vma->start.raw() != from) return Refuse(Errno::kENOMEM, "a hole in the range; what lies before it has changed");
  }
}

// mprotect_fixup(): gives the part [start, end) of `vma` its new flags. *prev becomes the VMA that holds the part.
Errno MmCall::MprotectFixup(VmArea* vma, VmArea** prev, uint64_t start, uint64_t end, uint64_t newflags) {
  const uint64_t oldflags = vma->flags;
  if (newflags == oldflags) {
    if (why() != nullptr) why()->Add(StepKind::kPermissionCheck, "the VMA has these permissions already").Address("start", vma->start);
    *prev = vma;
    return Errno::kOk;
  }
  const uint64_t pages = (end - start) >> shift_;
  int64_t charged = 0;
  if ((newflags & kVmWrite) != 0) {
    if (!MayExpandVm(newflags, pages) && MayExpandVm(oldflags, pages)) return Errno::kENOMEM;
    // Private memory that becomes writable is promised from now on, and stays so when it becomes read-only again.
    if ((oldflags & (kVmAccount | kVmWrite | kVmHugetlb | kVmShared | kVmNoReserve)) == 0) {
      charged = static_cast<int64_t>(pages);
      if (!core_.commit.Charge(charged)) return Errno::kENOMEM;
      newflags |= kVmAccount;
    }
  }
  const uint64_t pgoff = Wrap(vma->pgoff.raw() + ((start - vma->start.raw()) >> shift_));
  VmArea* merged = VmaMerge(*prev, start, end, newflags, vma->anon_vma, vma->file.get(), pgoff, vma->name.get());
  if (merged != nullptr) {
    vma = merged;
  } else {
    *prev = vma;
    Errno error = Errno::kOk;
    if (start != vma->start.raw()) error = SplitVma(*vma, start, true);
    if (error == Errno::kOk && end != vma->end.raw()) error = SplitVma(*vma, end, false);
    if (error != Errno::kOk) {
      core_.commit.Uncharge(charged);
      return error;
    }
  }
  *prev = vma;
  if (why() != nullptr) {
    why()
        ->Add(StepKind::kPermissionCheck, charged > 0 ? "permissions change; private memory that becomes writable is charged"
                                                      : "permissions change, and the page-table entries with them")
        .Address("start", VirtAddr(start))
        .Address("end", VirtAddr(end))
        .Bits("before", oldflags)
        .Bits("after", newflags);
  }
  vma->flags = newflags;
  core_.paging.ChangeProtection(*vma, {VirtAddr(start), VirtAddr(end)});
  // Locked private memory that becomes writable gets its own copies now, not at the next write.
  if ((oldflags & (kVmWrite | kVmShared | kVmLocked)) == kVmLocked && (newflags & kVmWrite) != 0) PopulateVma(*vma, start, end);
  mm_.Account(oldflags, -static_cast<int64_t>(pages));
  mm_.Account(newflags, static_cast<int64_t>(pages));
  return Errno::kOk;
}

}  // namespace mmlab

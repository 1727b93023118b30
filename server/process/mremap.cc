#include <utility>

#include "server/files/open_file.h"
#include "server/process/commit_account.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/process_limits.h"

// mremap(): mm/mremap.c.

namespace mmlab {
namespace {

constexpr uint32_t kMremapMayMove = 1;
constexpr uint32_t kMremapFixed = 2;
constexpr uint32_t kMremapDontUnmap = 4;

}  // namespace

SysResult<uint64_t> MmCall::Mremap(uint64_t address, uint64_t old_length, uint64_t new_length, uint32_t flags, uint64_t new_address) {
  address = UntagAddress(address);
  if ((flags & ~(kMremapMayMove | kMremapFixed | kMremapDontUnmap)) != 0) return Refuse(Errno::kEINVAL, "unknown flags");
  if ((flags & kMremapFixed) != 0 && (flags & kMremapMayMove) == 0) return Refuse(Errno::kEINVAL, "MREMAP_FIXED without MREMAP_MAYMOVE");
  if ((flags & kMremapDontUnmap) != 0 && ((flags & kMremapMayMove) == 0 || old_length != new_length)) {
    return Refuse(Errno::kEINVAL, "MREMAP_DONTUNMAP always moves and never resizes");
  }
  if (!PageAligned(address)) return Refuse(Errno::kEINVAL, "the old address is not page-aligned");
  old_length = PageAlign(old_length);
  new_length = PageAlign(new_length);
  if (new_length == 0) return Refuse(Errno::kEINVAL, "new length 0");
  const VmArea* found = mm_.vmas.Lookup(VirtAddr(address));
  if (found == nullptr) return Refuse(Errno::kEFAULT, "nothing is mapped at the old address");
  if (found->is(kVmHugetlb)) {
    const uint64_t mask = HugeBytes(*found->file) - 1;
    old_length = Wrap(old_length + mask) & ~mask;
    new_length = Wrap(new_length + mask) & ~mask;
    if (((address | Wrap(new_address)) & mask) != 0) return Refuse(Errno::kEINVAL, "an address is not aligned to a huge page");
    if (new_length > old_length) return Refuse(Errno::kEINVAL, "memory of huge pages can't grow");
  }

  bool locked = false;
  uint64_t result = address;
  if ((flags & (kMremapFixed | kMremapDontUnmap)) != 0) {
    MMLAB_TRY_ASSIGN(result, MremapTo(address, old_length, new_address, new_length, &locked, flags));
    if (locked && new_length > old_length) Populate(new_address + old_length, new_length - old_length, /*ignore_errors=*/true);
    return result;
  }
  if (old_length >= new_length) {
    // Shrinking in place only unmaps the tail.
    Nothing(old_length == new_length ? "old and new length are equal: nothing moves" : "shrinking in place: the tail is unmapped");
    const Errno error = DoMunmap(Wrap(address + new_length), old_length - new_length);
    if (error != Errno::kOk && old_length != new_length) return error;
    return address;
  }
  MMLAB_TRY_ASSIGN(VmArea * vma, VmaToResize(address, old_length, new_length, flags));
  if (old_length == vma->end.raw() - address && Expandable(*vma, new_length - old_length)) {
    MMLAB_TRY(ExpandInPlace(vma, address, old_length, new_length, &locked));
  } else {
    if ((flags & kMremapMayMove) == 0) return Refuse(Errno::kENOMEM, "no room to grow in place, and MREMAP_MAYMOVE is not given");
    const uint64_t pgoff = Wrap(vma->pgoff.raw() + ((address - vma->start.raw()) >> shift_));
    const uint32_t map_flags = vma->is(kVmMayShare) ? kMapShared : 0;
    MMLAB_TRY_ASSIGN(const uint64_t target, GetUnmappedArea(vma->file.get(), 0, new_length, pgoff, map_flags));
    MMLAB_TRY_ASSIGN(result, MoveVma(vma, address, old_length, new_length, target, &locked, flags));
  }
  if (locked) Populate(result + old_length, new_length - old_length, /*ignore_errors=*/true);
  return result;
}

SysResult<VmArea*> MmCall::VmaToResize(uint64_t address, uint64_t old_length, uint64_t new_length, uint32_t flags) const {
  VmArea* vma = mm_.vmas.Lookup(VirtAddr(address));
  if (vma == nullptr) return Refuse(Errno::kEFAULT, "nothing is mapped at the old address");
  if (old_length == 0 && !vma->is(kVmShared | kVmMayShare)) return Refuse(Errno::kEINVAL, "old length 0 duplicates shared mappings only");
  const bool fixed_size = vma->is(kVmDontExpand | kVmPfnMap);
  if ((flags & kMremapDontUnmap) != 0 && fixed_size) return Refuse(Errno::kEINVAL, "MREMAP_DONTUNMAP of a special mapping");
  if (old_length > vma->end.raw() - address) return Refuse(Errno::kEFAULT, "the old range crosses the end of its VMA");
  if (new_length == old_length) return vma;
  const uint64_t pgoff = Wrap(vma->pgoff.raw() + ((address - vma->start.raw()) >> shift_));
  if (Wrap(pgoff + (new_length >> shift_)) < pgoff) return Refuse(Errno::kEINVAL, "offset + new length wraps");
  if (fixed_size) return Refuse(Errno::kEFAULT, "a special mapping can't be resized");
  // The growth may be "negative" here when mremap_to() shrank before: then old and new length are equal.
  MMLAB_TRY(MlockFutureCheck(vma->flags, new_length - old_length));
  if (!MayExpandVm(vma->flags, (new_length - old_length) >> shift_)) return Errno::kENOMEM;
  return vma;
}

SysResult<uint64_t> MmCall::MremapTo(uint64_t address, uint64_t old_length, uint64_t new_address, uint64_t new_length, bool* locked,
                                     uint32_t flags) {
  if (!PageAligned(new_address)) return Refuse(Errno::kEINVAL, "the new address is not page-aligned");
  if (new_length > task_size_ || new_address > task_size_ - new_length) return Refuse(Errno::kEINVAL, "the new range leaves user space");
  if (Wrap(address + old_length) > new_address && Wrap(new_address + new_length) > address) {
    return Refuse(Errno::kEINVAL, "old and new range overlap");
  }
  if (MapCountAbove(6)) return Refuse(Errno::kENOMEM, "too near to vm.max_map_count to move safely");
  if ((flags & kMremapFixed) != 0) MMLAB_TRY(DoMunmap(new_address, new_length));
  if (old_length > new_length) {
    MMLAB_TRY(DoMunmap(Wrap(address + new_length), old_length - new_length));
    old_length = new_length;
  }
  MMLAB_TRY_ASSIGN(VmArea * vma, VmaToResize(address, old_length, new_length, flags));
  if ((flags & kMremapDontUnmap) != 0 && !MayExpandVm(vma->flags, old_length >> shift_)) return Errno::kENOMEM;
  uint32_t map_flags = (flags & kMremapFixed) != 0 ? kMapFixed : 0;
  if (vma->is(kVmMayShare)) map_flags |= kMapShared;
  const uint64_t pgoff = Wrap(vma->pgoff.raw() + ((address - vma->start.raw()) >> shift_));
  MMLAB_TRY_ASSIGN(const uint64_t found, GetUnmappedArea(vma->file.get(), new_address, new_length, pgoff, map_flags));
  return MoveVma(vma, address, old_length, new_length, (flags & kMremapFixed) != 0 ? new_address : found, locked, flags);
}

bool MmCall::Expandable(const VmArea& vma, uint64_t delta) {
  const uint64_t end = Wrap(vma.end.raw() + delta);
  if (end < vma.end.raw()) return false;
  if (mm_.vmas.FirstIn({vma.end, VirtAddr(end)}) != nullptr) return false;
  return GetUnmappedArea(nullptr, vma.start.raw(), end - vma.start.raw(), 0, kMapFixed).ok();
}

Errno MmCall::ExpandInPlace(VmArea* vma, uint64_t address, uint64_t old_length, uint64_t new_length, bool* locked) {
  const auto pages = static_cast<int64_t>((new_length - old_length) >> shift_);
  const uint64_t from = address + old_length;
  if (vma->is(kVmAccount) && !core_.commit.Charge(pages)) return Errno::kENOMEM;
  const bool has_close_hook = vma->file != nullptr && vma->file->inode->kind == FileKind::kSysvShm;
  if (has_close_hook) {
    mm_.vmas.Resize(*vma, vma->start, VirtAddr(address + new_length));
  } else {
    const uint64_t pgoff = Wrap(vma->pgoff.raw() + ((from - vma->start.raw()) >> shift_));
    vma = VmaMerge(vma, from, address + new_length, vma->flags, vma->anon_vma, vma->file.get(), pgoff, vma->name.get());
    if (vma == nullptr) {
      core_.commit.Uncharge(pages);
      return Refuse(Errno::kENOMEM, "the grown part can't merge with its own VMA (it went through a fork)");
    }
  }
  if (why() != nullptr) {
    why()->Add(StepKind::kVmaMerge, "grown in place: the addresses behind it are free").Address("end", vma->end).Pages("by", pages);
  }
  mm_.Account(vma->flags, pages);
  if (vma->is(kVmLocked)) {
    mm_.locked_vm += PageCount(static_cast<uint64_t>(pages));
    *locked = true;
  }
  return Errno::kOk;
}

// copy_vma(): the VMA at the new place, merged with neighbours there or new. *vma is followed when it was itself merged.
VmArea* MmCall::CopyVma(VmArea** source, uint64_t address, uint64_t length, uint64_t pgoff) {
  VmArea* vma = *source;
  const VirtAddr vma_start = vma->start;
  // Memory that was never touched has no pages whose index would have to stay: its offset follows the new address.
  if (vma->anonymous() && vma->anon_vma == nullptr) pgoff = address >> shift_;
  if (mm_.vmas.FirstIn({VirtAddr(address), VirtAddr(address + length)}) != nullptr) return nullptr;
  VmArea* prev = mm_.vmas.LastStartingBelow(VirtAddr(address));
  VmArea* merged = VmaMerge(prev, address, address + length, vma->flags, vma->anon_vma, vma->file.get(), pgoff, vma->name.get());
  if (merged != nullptr) {
    if (vma_start >= merged->start && vma_start < merged->end) *source = merged;
    return merged;
  }
  std::unique_ptr<VmArea> copy = Duplicate(*vma);
  copy->start = VirtAddr(address);
  copy->end = VirtAddr(address + length);
  copy->pgoff = PageIndex(pgoff);
  AnonVmaClone(*copy, *vma);
  return LinkVma(std::move(copy));
}

SysResult<uint64_t> MmCall::MoveVma(VmArea* vma, uint64_t old_address, uint64_t old_length, uint64_t new_length, uint64_t new_address,
                                    bool* locked, uint32_t flags) {
  const bool keep_source = (flags & kMremapDontUnmap) != 0;
  const uint64_t vm_flags = vma->flags;
  const bool accounted = (vm_flags & kVmAccount) != 0;
  const bool split_before = vma->start.raw() != old_address;
  const bool split_after = vma->end.raw() != old_address + old_length;
  if (MapCountAbove(4)) return Refuse(Errno::kENOMEM, "too near to vm.max_map_count to move safely");
  if (vma->special_mapping() && (split_before || split_after))
    return Refuse(Errno::kEINVAL, "a special mapping (vvar, vdso) can't be split");
  const auto to_account = static_cast<int64_t>((keep_source ? new_length : new_length - old_length) >> shift_);
  if (accounted && !core_.commit.Charge(to_account)) return Errno::kENOMEM;
  const uint64_t pgoff = Wrap(vma->pgoff.raw() + ((old_address - vma->start.raw()) >> shift_));
  VmArea* target = CopyVma(&vma, new_address, new_length, pgoff);
  if (target == nullptr) {
    if (accounted) core_.commit.Uncharge(to_account);
    return Errno::kENOMEM;
  }
  uint64_t result = new_address;
  Errno error = Errno::kOk;
  const Bytes moved = core_.paging.MoveTables(*vma, VirtAddr(old_address), *target, VirtAddr(new_address), Bytes(old_length));
  if (why() != nullptr) {
    why()
        ->Add(StepKind::kPageTableWalk, keep_source
                                            ? "page-table entries move, no page is copied; the old VMA stays, empty (MREMAP_DONTUNMAP)"
                                            : "page-table entries move, no page is copied")
        .Address("from", VirtAddr(old_address))
        .Address("to", VirtAddr(new_address))
        .Size("moved", moved);
  }
  if (moved.raw() < old_length) {
    // Memory ran out for page tables: move back, then take the new place away instead of the old one.
    error = Refuse(Errno::kENOMEM, "no memory for page tables at the new place");
    core_.paging.MoveTables(*target, VirtAddr(new_address), *vma, VirtAddr(old_address), moved);
    vma = target;
    old_length = new_length;
    old_address = new_address;
  } else if (vma->backing == VmaBacking::kVdso) {
    mm_.vdso = VirtAddr(new_address);
  }
  if (vma->is(kVmHugetlb)) HandOverHugetlb(*vma, VirtAddr(old_address), VirtAddr(old_address + old_length));
  uint64_t excess = 0;
  bool split = false;
  if (accounted && !keep_source) {
    // The promise moves along: what is unmapped below must not give it back.
    vma->flags &= ~uint64_t{kVmAccount};
    excess = vma->length().raw() - old_length;
    split = old_address > vma->start.raw() && old_address + old_length < vma->end.raw();
  }
  const PageCount hiwater_vm = mm_.hiwater_vm;
  mm_.Account(vma->flags, static_cast<int64_t>(new_length >> shift_));
  if (error == Errno::kOk && keep_source) {
    // As the recorded kernels do it: the whole VMA is unlocked, its untouched part too, and locked_vm stays as it is.
    vma->flags &= ~kVmLockedMask;
    if (target != vma && vma->start.raw() == old_address && vma->end.raw() == old_address + old_length) UnlinkAnonVmas(*vma);
    return result;
  }
  // Counted before the old place gives its pages back: after a failure it is the new place that goes, which was never counted.
  if ((vm_flags & kVmLocked) != 0) {
    mm_.locked_vm += Pages(new_length);
    *locked = true;
  }
  if (DoMunmap(old_address, old_length) != Errno::kOk) {
    if (accounted && !keep_source) core_.commit.Uncharge(-static_cast<int64_t>(old_length >> shift_));
    excess = 0;
  }
  mm_.hiwater_vm = hiwater_vm;
  if (excess != 0) {
    vma->flags |= kVmAccount;
    if (split) mm_.vmas.Next(*vma)->flags |= kVmAccount;
  }
  if (error != Errno::kOk) {
    *locked = false;
    return error;
  }
  return result;
}

}  // namespace mmlab

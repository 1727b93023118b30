#include <algorithm>

#include "server/files/files.h"
#include "server/files/open_file.h"
#include "server/process/commit_account.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/process_limits.h"

// msync(), mincore() and the growth of stacks: mm/msync.c, mm/mincore.c, expand_stack() of mm/mmap.c.

namespace mmlab {
namespace {

constexpr uint32_t kMsAsync = 1;
constexpr uint32_t kMsInvalidate = 2;
constexpr uint32_t kMsSync = 4;

}  // namespace

Errno MmCall::Msync(uint64_t start, uint64_t length, uint32_t flags) {
  start = UntagAddress(start);
  if ((flags & ~(kMsAsync | kMsInvalidate | kMsSync)) != 0) return Refuse(Errno::kEINVAL, "unknown flags");
  if (!PageAligned(start)) return Refuse(Errno::kEINVAL, "the address is not page-aligned");
  if ((flags & kMsAsync) != 0 && (flags & kMsSync) != 0) return Refuse(Errno::kEINVAL, "MS_ASYNC and MS_SYNC together");
  const uint64_t end = Wrap(start + PageAlign(length));
  if (end < start) return Refuse(Errno::kENOMEM, "the range wraps");
  Errno unmapped = Errno::kOk;
  if (end == start) return Nothing("length 0: nothing is written");
  for (VmArea* vma = mm_.vmas.Find(VirtAddr(start));; vma = mm_.vmas.Next(*vma)) {
    if (vma == nullptr) return Refuse(Errno::kENOMEM, "part of the range is not mapped");
    if (start < vma->start.raw()) {
      unmapped = Refuse(Errno::kENOMEM, "part of the range is not mapped");
      if (flags == kMsAsync) return unmapped;
      start = vma->start.raw();
      if (start >= end) return unmapped;
    }
    if ((flags & kMsInvalidate) != 0 && vma->is(kVmLocked)) return Refuse(Errno::kEBUSY, "MS_INVALIDATE on locked memory");
    if ((flags & kMsSync) != 0 && vma->file != nullptr && vma->is(kVmShared)) {
      const PageIndex first = vma->IndexOf(VirtAddr(start), mm_.page_size);
      const PageCount pages = Pages(std::min(end, vma->end.raw()) - start);
      core_.files.Sync(*vma->file->inode, first, first + pages);
      if (why() != nullptr) {
        why()
            ->Add(StepKind::kFileLookup,
                  vma->file->inode->shmem() ? "nothing to write: the file lives in memory" : "dirty pages are written to the disk")
            .Address("start", VirtAddr(start))
            .Pages("pages", pages);
      }
    } else if (why() != nullptr) {
      why()->Add(StepKind::kVmaLookup, "nothing is written: no MS_SYNC, or no shared mapping of a file").Address("start", vma->start);
    }
    start = vma->end.raw();
    if (start >= end) return unmapped;
  }
}

SysResult<std::string> MmCall::Mincore(uint64_t start, uint64_t length) {
  start = UntagAddress(start);
  if (!PageAligned(start)) return Refuse(Errno::kEINVAL, "the address is not page-aligned");
  if (!AccessOk(start, length)) return Refuse(Errno::kENOMEM, "the range leaves user space");
  const uint64_t end = start + PageAlign(length);
  std::string residency;
  while (start < end) {
    const VmArea* vma = mm_.vmas.Lookup(VirtAddr(start));
    if (vma == nullptr) return Refuse(Errno::kENOMEM, "part of the range is not mapped");
    const uint64_t part_end = std::min(end, vma->end.raw());
    if (MayTouchPageCache(*vma)) {
      core_.paging.Mincore(*vma, {VirtAddr(start), VirtAddr(part_end)}, residency);
    } else {
      residency.append((part_end - start) >> shift_, '\1');
    }
    start = part_end;
  }
  if (why() != nullptr) {
    why()
        ->Add(StepKind::kPageTableWalk, "pages that a page-table entry or the page cache of the file has")
        .Pages("resident", static_cast<int64_t>(std::count(residency.begin(), residency.end(), '\1')))
        .Pages("asked", static_cast<int64_t>(residency.size()));
  }
  return residency;
}

VmArea* MmCall::ExpandStack(VirtAddr address) {
  VmArea* vma = mm_.vmas.Find(address);
  if (vma == nullptr) {
    if (why() != nullptr) why()->Add(StepKind::kVmaLookup, "no VMA ends above the address").Address("address", address);
    return nullptr;
  }
  if (vma->start <= address) return vma;
  if (!vma->is(kVmGrowsDown)) {
    if (why() != nullptr) {
      why()
          ->Add(StepKind::kVmaLookup, "the address lies in a hole; the VMA above does not grow down")
          .Address("address", address)
          .Address("next_vma", vma->start);
    }
    return nullptr;
  }
  return ExpandDownwards(*vma, address.raw()) == Errno::kOk ? vma : nullptr;
}

// expand_downwards() with acct_stack_growth(): the limits in the kernel's order.
Errno MmCall::ExpandDownwards(VmArea& vma, uint64_t address) {
  auto refuse = [&](Errno error, const char* rule) {
    if (why() != nullptr) why()->Add(StepKind::kStackGrowth, rule).Address("address", VirtAddr(address)).Error(error);
    return error;
  };
  address &= ~page_mask_;
  if (address < MmapMinAddr()) return refuse(Errno::kEPERM, "refused: below vm.mmap_min_addr");
  if (const VmArea* prev = mm_.vmas.Previous(vma); prev != nullptr) {
    const bool near = Wrap(address - prev->end.raw()) < kStackGuardGapPages << shift_;
    if (!prev->is(kVmGrowsDown) && prev->is(kVmAccessFlags) && near) {
      return refuse(Errno::kENOMEM, "refused: nearer than the stack guard gap to the mapping below");
    }
  }
  AnonVmaPrepare(vma);
  if (address >= vma.start.raw()) return Errno::kOk;
  const uint64_t size = vma.end.raw() - address;
  const uint64_t grow = (vma.start.raw() - address) >> shift_;
  if (grow > vma.pgoff.raw()) return refuse(Errno::kENOMEM, "refused: the page offset would wrap");
  if (!MayExpandVm(vma.flags, grow)) return refuse(Errno::kENOMEM, "refused: RLIMIT_AS or RLIMIT_DATA");
  if (size > Wrap(task_.rlimit(RlimitKind::kStack).current)) return refuse(Errno::kENOMEM, "refused: RLIMIT_STACK");
  if (MlockFutureCheck(vma.flags, grow << shift_) != Errno::kOk) return refuse(Errno::kENOMEM, "refused: RLIMIT_MEMLOCK");
  if (!core_.commit.Charge(static_cast<int64_t>(grow))) return refuse(Errno::kENOMEM, "refused: overcommit");
  if (vma.is(kVmLocked)) mm_.locked_vm += PageCount(grow);
  mm_.Account(vma.flags, static_cast<int64_t>(grow));
  vma.pgoff = vma.pgoff - PageCount(grow);
  mm_.vmas.Resize(vma, VirtAddr(address), vma.end);
  if (why() != nullptr) {
    why()
        ->Add(StepKind::kStackGrowth, "the stack grew down to the address")
        .Pages("grown_by", static_cast<int64_t>(grow))
        .Address("start", vma.start);
  }
  return Errno::kOk;
}

}  // namespace mmlab

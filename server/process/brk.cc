#include <utility>

#include "server/arch/layout.h"
#include "server/process/commit_account.h"
#include "server/process/mm_call.h"
#include "server/process/process_limits.h"

// brk() and the anonymous memory of exec: mm/mmap.c.

namespace mmlab {
namespace {

constexpr uint64_t kDataDefaultFlags = kVmRead | kVmWrite | kVmMayRead | kVmMayWrite | kVmMayExec;

}  // namespace

// Answers the break as it is afterwards: unchanged when the wish was refused.
uint64_t MmCall::Brk(uint64_t wished) {
  const uint64_t old_break = mm_.brk.raw();
  if (wished < mm_.start_brk.raw()) {
    if (why() != nullptr) why()->Add(StepKind::kSystemCallCheck, "below the start of the heap: answers the break as it is");
    return old_break;
  }
  const Rlimit& limit = task_.rlimit(RlimitKind::kData);
  if (Wrap(limit.current) < word_mask_) {
    const uint64_t data = (wished - mm_.start_brk.raw()) + (mm_.end_data.raw() - mm_.start_data.raw());
    if (data > limit.current) {
      if (why() != nullptr) {
        why()
            ->Add(StepKind::kSystemCallCheck, "RLIMIT_DATA: heap and data segment together would exceed it")
            .Size("data", Bytes(data))
            .Size("limit", Bytes(limit.current));
      }
      return old_break;
    }
  }
  const uint64_t new_end = PageAlign(wished);
  const uint64_t old_end = PageAlign(old_break);
  if (old_end == new_end) {
    Nothing("the break moves within its page: no mapping changes");
    mm_.brk = VirtAddr(wished);
    return wished;
  }
  if (wished <= old_break) {
    VmArea* vma = mm_.vmas.FirstIn({VirtAddr(new_end), VirtAddr(old_end)});
    if (vma == nullptr) return old_break;
    mm_.brk = VirtAddr(wished);
    if (MunmapAligned(vma, new_end, old_end) != Errno::kOk) {
      mm_.brk = VirtAddr(old_break);
      return old_break;
    }
    return wished;
  }
  const uint64_t growth = new_end - old_end;
  if (new_end < old_end) return old_break;  // Wrapped: the last page of the address space.
  if (!GetUnmappedArea(nullptr, old_end, growth, 0, kMapFixed).ok() || MlockFutureCheck(mm_.def_flags, growth) != Errno::kOk) {
    return old_break;
  }
  const VmArea* next = mm_.vmas.Find(VirtAddr(old_end));
  if (next != nullptr && new_end + page_mask_ + 1 > StackGapStart(*next)) {
    if (why() != nullptr) why()->Add(StepKind::kVmaGapSearch, "the heap would touch the next mapping").Address("next", next->start);
    return old_break;
  }
  VmArea* before = mm_.vmas.LastStartingBelow(VirtAddr(old_end));
  // Memory that ends where the heap begins (.bss) is never extended.
  if (before != nullptr && before->end <= mm_.start_brk) before = nullptr;
  if (DoBrkFlags(before, old_end, growth, 0) != Errno::kOk) return old_break;
  mm_.brk = VirtAddr(wished);
  if ((mm_.def_flags & kVmLocked) != 0) Populate(old_end, growth, /*ignore_errors=*/true);
  return wished;
}

// What the C library makes of brk(): the break before, so that the new memory starts there.
SysResult<uint64_t> MmCall::Sbrk(int64_t increment) {
  const uint64_t before = mm_.brk.raw();
  if (core_.layout.word_bytes == 4 || mm_.compat) increment = static_cast<int32_t>(increment);
  if (increment == 0) {
    Nothing("increment 0: the break as it is");
    return before;
  }
  const uint64_t wished = Argument(before + static_cast<uint64_t>(increment));
  if (increment > 0 ? wished < before : wished > before) return Refuse(Errno::kENOMEM, "the break would wrap");
  if (Brk(wished) < wished) return Errno::kENOMEM;
  return before;
}

// do_brk_flags(): anonymous memory at [start, start + length), which is free; extends `vma` where it fits.
Errno MmCall::DoBrkFlags(VmArea* vma, uint64_t start, uint64_t length, uint64_t flags) {
  const uint64_t pages = length >> shift_;
  flags |= kDataDefaultFlags | kVmAccount | mm_.def_flags;
  if (core_.layout.kind == LayoutKind::kArm64) flags |= kVmMteAllowed;
  if (task_.read_implies_exec) flags |= kVmExec;
  if (!MayExpandVm(flags, pages)) return Errno::kENOMEM;
  if (MapCountAbove(0)) return Refuse(Errno::kENOMEM, "more than vm.max_map_count VMAs");
  if (!core_.commit.Charge(static_cast<int64_t>(pages))) return Errno::kENOMEM;
  if (vma != nullptr && vma->end.raw() == start && CanMergeAfter(*vma, flags, nullptr, nullptr, start >> shift_, nullptr)) {
    mm_.vmas.Resize(*vma, vma->start, VirtAddr(start + length));
    if (why() != nullptr) why()->Add(StepKind::kVmaMerge, "the heap's VMA was extended").Address("end", vma->end);
  } else {
    auto made = std::make_unique<VmArea>();
    made->start = VirtAddr(start);
    made->end = VirtAddr(start + length);
    made->pgoff = PageIndex(start >> shift_);
    made->flags = flags;
    LinkVma(std::move(made));
    if (why() != nullptr) why()->Add(StepKind::kVmaMerge, "a VMA of its own").Address("start", VirtAddr(start));
  }
  mm_.total_vm += PageCount(pages);
  mm_.data_vm += PageCount(pages);
  if ((flags & kVmLocked) != 0) mm_.locked_vm += PageCount(pages);
  return Errno::kOk;
}

Errno MmCall::VmBrk(uint64_t start, uint64_t request, bool executable) {
  const uint64_t length = PageAlign(request);
  if (length < request) return Errno::kENOMEM;
  if (length == 0) return Errno::kOk;
  const SysResult<uint64_t> place = GetUnmappedArea(nullptr, start, length, 0, kMapFixed);
  if (!place.ok()) return place.error();
  MMLAB_TRY(MlockFutureCheck(mm_.def_flags, length));
  MMLAB_TRY(DoMunmap(start, length));
  MMLAB_TRY(DoBrkFlags(mm_.vmas.LastStartingBelow(VirtAddr(start)), start, length, executable ? uint64_t{kVmExec} : 0));
  if ((mm_.def_flags & kVmLocked) != 0) Populate(start, length, /*ignore_errors=*/true);
  return Errno::kOk;
}

}  // namespace mmlab

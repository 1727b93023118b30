// System calls on memory of huge-page pools: hugetlb_file_setup(), hugetlb_get_unmapped_area(), hugetlbfs_file_mmap(), hugetlb_vm_ops.
#include <algorithm>
#include <utility>

#include "server/arch/layout.h"
#include "server/files/files.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"

namespace mmlab {
namespace {

constexpr uint32_t kHugeShift = 26;  // MAP_HUGE_SHIFT

}  // namespace

uint64_t MmCall::HugeBytes(const OpenFile& file) const {
  return uint64_t{core_.files.hugetlb().pool(file.inode->hugetlb->pool).pages()} << shift_;
}

// The file behind MAP_ANONYMOUS | MAP_HUGETLB.
SysResult<std::shared_ptr<OpenFile>> MmCall::AnonymousHugetlb(uint64_t* length, uint32_t flags) {
  const std::optional<size_t> pool = core_.files.hugetlb().FindByLog(flags >> kHugeShift);
  if (!pool.has_value()) return Refuse(Errno::kEINVAL, "no huge pages of that size");
  const uint64_t mask = (core_.files.hugetlb().pool(*pool).pages() << shift_) - 1;
  *length = Wrap(*length + mask) & ~mask;
  MMLAB_TRY_ASSIGN(std::shared_ptr<Inode> inode,
                   core_.files.NewHugetlb(FileKind::kHugetlbfs, "/anon_hugepage (deleted)", *length, *pool, /*reserve=*/false));
  auto file = std::make_shared<OpenFile>(std::move(inode), true, true);
  file->Account(mm_.anon_vmas->kernel_objects());
  return file;
}

SysResult<uint64_t> MmCall::HugetlbArea(const OpenFile& file, uint64_t address, uint64_t length, uint32_t flags) const {
  const uint64_t mask = HugeBytes(file) - 1;
  if ((length & mask) != 0) return Refuse(Errno::kEINVAL, "the length is not a multiple of the huge page size");
  if ((flags & kMapFixed) != 0) {
    if ((address & mask) != 0) return Refuse(Errno::kEINVAL, "the fixed address is not aligned to a huge page");
    return address;
  }
  if (address != 0) {
    // x86 rounds a hint down, the others up.
    address = core_.layout.is_x86() ? address & ~mask : Wrap(address + mask) & ~mask;
    const VmArea* above = mm_.vmas.Find(VirtAddr(address));
    if (task_size_ - length >= address && (above == nullptr || address + length <= StackGapStart(*above))) {
      if (why() != nullptr) why()->Add(StepKind::kVmaGapSearch, "the hint is free").Address("chosen", VirtAddr(address));
      return address;
    }
  }
  if (!mm_.top_down) return VmUnmappedArea(false, length, mm_.mmap_base.raw(), task_size_, mask & ~page_mask_);
  const uint64_t lowest = core_.layout.is_x86() ? page_mask_ + 1 : std::max(page_mask_ + 1, MmapMinAddr());
  const SysResult<uint64_t> found = VmUnmappedArea(true, length, lowest, mm_.mmap_base.raw(), mask & ~page_mask_);
  if (found.ok()) return found;
  const uint64_t from = core_.layout.is_x86() ? PageAlign(task_size_ / 3) : mm_.mmap_base.raw();
  return VmUnmappedArea(false, length, from, task_size_, mask & ~page_mask_);
}

// hugetlbfs_file_mmap() and hugetlb_reserve_pages(): what the file makes of its new VMA.
Errno MmCall::SetUpHugetlb(VmArea& vma) {
  Inode& inode = *vma.file->inode;
  const HugetlbPool& pool = core_.files.hugetlb().pool(inode.hugetlb->pool);
  vma.flags |= kVmHugetlb | kVmDontExpand;
  if ((vma.pgoff.raw() & (pool.pages() - 1)) != 0) return Refuse(Errno::kEINVAL, "the file offset is not a multiple of the huge page size");
  const uint64_t end = (vma.pgoff.raw() << shift_) + vma.length().raw();
  if (!vma.is(kVmNoReserve) && !inode.hugetlb->reserved_at_creation) {
    const uint64_t first = vma.pgoff.raw() >> pool.order;
    const uint64_t last = end >> (pool.order + shift_);
    if (vma.is(kVmMayShare)) {
      if (!core_.files.ReserveHugetlb(inode, first, last)) return Errno::kENOMEM;
    } else {
      if (!core_.files.hugetlb().Reserve(inode.hugetlb->pool, last - first)) return Errno::kENOMEM;
      vma.hugetlb_reserve = HugetlbReserve::Make();
    }
  }
  if (vma.is(kVmWrite)) inode.size = std::max(inode.size, end);
  return Errno::kOk;
}

// hugetlb_vm_op_close(): what a private mapping reserved and never took is given back.
void MmCall::CloseHugetlb(VmArea& vma) {
  if (vma.hugetlb_reserve.get() == nullptr) return;
  const size_t pool = vma.file->inode->hugetlb->pool;
  core_.files.hugetlb().Unreserve(pool, UntakenHugetlb(vma, vma.start, vma.end));
  vma.hugetlb_reserve = HugetlbReserve();
}

// Huge pages of [start, end) that the VMA has reserved and not taken.
uint64_t MmCall::UntakenHugetlb(const VmArea& vma, VirtAddr start, VirtAddr end) const {
  const int order = core_.files.hugetlb().pool(vma.file->inode->hugetlb->pool).order;
  const uint64_t first = vma.IndexOf(start, mm_.page_size).raw() >> order;
  const uint64_t last = first + ((end - start).raw() >> (order + shift_));
  return last - first - vma.hugetlb_reserve.get()->Count(first, last);
}

// clear_vma_resv_huge_pages(): the reservation of [start, end) has gone to the VMA at the new place. What lies beside it keeps its pages
// but not its reservation, which nobody gives back any more.
void MmCall::HandOverHugetlb(VmArea& vma, VirtAddr start, VirtAddr end) {
  if (vma.hugetlb_reserve.get() != nullptr) {
    const uint64_t lost = UntakenHugetlb(vma, vma.start, start) + UntakenHugetlb(vma, end, vma.end);
    core_.files.hugetlb().Lose(vma.file->inode->hugetlb->pool, lost);
  }
  vma.hugetlb_reserve = HugetlbReserve();
  vma.hugetlb_unmapped = vma.hugetlb_unmapped && vma.is(kVmMayShare);
}

}  // namespace mmlab

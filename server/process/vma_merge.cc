#include <utility>

#include "server/base/check.h"
#include "server/files/open_file.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/process_limits.h"

// Joining and cutting VMAs: vma_merge(), __vma_adjust() and __split_vma() of mm/mmap.c.

namespace mmlab {
namespace {

bool NamesEqual(const std::string* a, const std::string* b) { return a == b || (a != nullptr && b != nullptr && *a == *b); }

// vm_ops->close: special mappings, System V segments and memory of huge-page pools count their users in it, so the kernel never merges
// them.
bool HasCloseHook(const VmArea& vma) {
  if (vma.special_mapping() || vma.is(kVmHugetlb)) return true;
  return vma.file != nullptr && vma.file->inode->kind == FileKind::kSysvShm;
}

// is_mergeable_anon_vma(): VMAs that inherited an anon_vma by fork stay apart from those without one. `vma` is the one that would grow;
// null when two existing ones would become one.
bool IsMergeableAnonVma(const AnonVma* a, const AnonVma* b, const VmArea* vma) {
  if ((a == nullptr || b == nullptr) && (vma == nullptr || vma->anon_vma_chain.size() == 1)) return true;
  return a == b;
}

}  // namespace

bool MmCall::IsMergeableVma(const VmArea& vma, const OpenFile* file, uint64_t vm_flags, const std::string* name) const {
  return vma.flags == vm_flags && vma.file.get() == file && !HasCloseHook(vma) && NamesEqual(vma.name.get(), name);
}

bool MmCall::CanMergeBefore(const VmArea& vma, uint64_t vm_flags, const AnonVma* anon_vma, const OpenFile* file, uint64_t pgoff,
                            const std::string* name) const {
  return IsMergeableVma(vma, file, vm_flags, name) && IsMergeableAnonVma(anon_vma, vma.anon_vma, &vma) && vma.pgoff.raw() == pgoff;
}

bool MmCall::CanMergeAfter(const VmArea& vma, uint64_t vm_flags, const AnonVma* anon_vma, const OpenFile* file, uint64_t pgoff,
                           const std::string* name) const {
  return IsMergeableVma(vma, file, vm_flags, name) && IsMergeableAnonVma(anon_vma, vma.anon_vma, &vma) &&
         Wrap(vma.pgoff.raw() + (vma.length().raw() >> shift_)) == pgoff;
}

std::unique_ptr<VmArea> MmCall::Duplicate(const VmArea& vma) const {
  auto copy = std::make_unique<VmArea>(vma);
  copy->links = {};
  copy->anon_vma_chain.clear();
  copy->rmap_number = 0;
  return copy;
}

// A VMA that grows over another takes its anon_vma along, so that the pages there stay reachable.
void MmCall::ImportAnonVma(VmArea& importer, const VmArea& exporter) {
  if (exporter.anon_vma == nullptr || importer.anon_vma != nullptr) return;
  importer.anon_vma = exporter.anon_vma;
  AnonVmaClone(importer, exporter);
}

void MmCall::TakeOver(VmArea& vma, VmArea& absorbed) {
  MMLAB_CHECK(absorbed.anon_vma == nullptr || absorbed.anon_vma == vma.anon_vma);
  DropVma(absorbed);
}

VmArea* MmCall::VmaMerge(VmArea* prev, uint64_t start, uint64_t end, uint64_t vm_flags, AnonVma* anon_vma, const OpenFile* file,
                         uint64_t pgoff, const std::string* name) {
  if ((vm_flags & kVmSpecial) != 0) return nullptr;
  const uint64_t pages = (end - start) >> shift_;
  // `mid` is what the range lies in when that is not prev; `next` is what follows the range.
  VmArea* mid = prev == nullptr ? mm_.vmas.First() : mm_.vmas.Next(*prev);
  VmArea* next = mid;
  if (next != nullptr && next->end.raw() == end) next = mm_.vmas.Next(*next);

  const bool merge_prev = prev != nullptr && prev->end.raw() == start && CanMergeAfter(*prev, vm_flags, anon_vma, file, pgoff, name);
  const bool merge_next =
      next != nullptr && next->start.raw() == end && CanMergeBefore(*next, vm_flags, anon_vma, file, Wrap(pgoff + pages), name);
  auto explain = [&](const char* text, const VmArea& merged) {
    if (why() != nullptr) why()->Add(StepKind::kVmaMerge, text).Address("start", merged.start).Address("end", merged.end);
  };
  if (merge_prev && merge_next && IsMergeableAnonVma(prev->anon_vma, next->anon_vma, nullptr)) {
    const VirtAddr new_end = next->end;
    const bool mid_goes = mid != next;
    ImportAnonVma(*prev, mid_goes && mid->anon_vma != nullptr ? *mid : *next);
    if (mid_goes) TakeOver(*prev, *mid);
    TakeOver(*prev, *next);
    mm_.vmas.Resize(*prev, prev->start, new_end);
    explain("joined the VMAs before and after the range into one", *prev);
    return prev;
  }
  if (merge_prev) {
    if (mid != nullptr && mid->start.raw() < end) {
      ImportAnonVma(*prev, *mid);
      if (mid->end.raw() <= end) {
        TakeOver(*prev, *mid);
      } else {
        core_.paging.SplitHugeAt(*mid, VirtAddr(end));
        mid->pgoff = PageIndex(Wrap(mid->pgoff.raw() + ((end - mid->start.raw()) >> shift_)));
        mm_.vmas.Resize(*mid, VirtAddr(end), mid->end);
      }
    }
    mm_.vmas.Resize(*prev, prev->start, VirtAddr(end));
    explain("extended the VMA before the range over it", *prev);
    return prev;
  }
  if (merge_next) {
    if (prev != nullptr && start < prev->end.raw()) {
      ImportAnonVma(*next, *prev);
      core_.paging.SplitHugeAt(*prev, VirtAddr(start));
      mm_.vmas.Resize(*prev, prev->start, VirtAddr(start));
    } else if (mid != next) {
      ImportAnonVma(*next, *mid);
      TakeOver(*next, *mid);
    }
    next->pgoff = PageIndex(Wrap(next->pgoff.raw() - ((next->start.raw() - start) >> shift_)));
    mm_.vmas.Resize(*next, VirtAddr(start), next->end);
    explain("extended the VMA after the range down over it", *next);
    return next;
  }
  if (why() != nullptr) {
    const bool touches_prev = prev != nullptr && prev->end.raw() == start;
    const bool touches_next = next != nullptr && next->start.raw() == end;
    why()
        ->Add(StepKind::kVmaMerge, "not merged: no neighbour touches it with equal flags, file, offset, name and a compatible anon_vma")
        .Truth("touches_previous", touches_prev)
        .Truth("touches_next", touches_next)
        .Truth("previous_flags_equal", touches_prev && prev->flags == vm_flags)
        .Truth("next_flags_equal", touches_next && next->flags == vm_flags);
  }
  return nullptr;
}

Errno MmCall::SplitUnchecked(VmArea& vma, uint64_t address, bool new_below) {
  // vm_ops->may_split of special mappings: their number of pages is fixed.
  if (vma.special_mapping()) {
    return Refuse(Errno::kEINVAL, "a special mapping (vvar, vdso) can't be split");
  }
  if (vma.is(kVmHugetlb) && (address & (HugeBytes(*vma.file) - 1)) != 0) {
    return Refuse(Errno::kEINVAL, "the boundary would lie inside a huge page");
  }
  core_.paging.SplitHugeAt(vma, VirtAddr(address));  // vma_adjust_trans_huge()
  const uint64_t pages_below = (address - vma.start.raw()) >> shift_;
  std::unique_ptr<VmArea> part = Duplicate(vma);
  AnonVmaClone(*part, vma);
  const PageIndex upper_pgoff(Wrap(vma.pgoff.raw() + pages_below));
  if (new_below) {
    part->end = VirtAddr(address);
    vma.pgoff = upper_pgoff;
    mm_.vmas.Resize(vma, VirtAddr(address), vma.end);
  } else {
    part->start = VirtAddr(address);
    part->pgoff = upper_pgoff;
    mm_.vmas.Resize(vma, vma.start, VirtAddr(address));
  }
  LinkVma(std::move(part));
  if (why() != nullptr) {
    why()
        ->Add(StepKind::kVmaSplit, new_below ? "split; the new VMA is the lower part" : "split; the new VMA is the upper part")
        .Address("at", VirtAddr(address))
        .Number("map_count", static_cast<int64_t>(mm_.vmas.size()));
  }
  return Errno::kOk;
}

Errno MmCall::SplitVma(VmArea& vma, uint64_t address, bool new_below) {
  if (MapCountAbove(1)) return Refuse(Errno::kENOMEM, "the split would exceed vm.max_map_count");
  return SplitUnchecked(vma, address, new_below);
}

}  // namespace mmlab

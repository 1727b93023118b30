#include <algorithm>
#include <utility>

#include "server/files/files.h"
#include "server/files/open_file.h"
#include "server/process/ksm.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/process_limits.h"

// madvise() and the naming of anonymous memory: mm/madvise.c.

namespace mmlab {
namespace {

enum Advice : int32_t {
  kNormal = 0,
  kRandom = 1,
  kSequential = 2,
  kWillneed = 3,
  kDontneed = 4,
  kFree = 8,
  kRemove = 9,
  kDontfork = 10,
  kDofork = 11,
  kMergeable = 12,
  kUnmergeable = 13,
  kHugepage = 14,
  kNohugepage = 15,
  kDontdump = 16,
  kDodump = 17,
  kWipeonfork = 18,
  kKeeponfork = 19,
  kCold = 20,
  kPageout = 21,
  kPopulateRead = 22,
  kPopulateWrite = 23,
  kDontneedLocked = 24,
  kCollapse = 25,
  kHwpoison = 100,
  kSoftOffline = 101,
};

bool IsErrorInjection(int32_t advice) { return advice == kHwpoison || advice == kSoftOffline; }

// What the advice does to a part of a VMA that takes it.
const char* EffectOf(int32_t advice) {
  switch (advice) {
    case kWillneed:
      return "MADV_WILLNEED: what a file's range lacks in the page cache is read";
    case kDontneed:
    case kDontneedLocked:
      return "MADV_DONTNEED: page-table entries go, private pages are freed; the next touch finds zeros or what the file holds";
    case kFree:
      return "MADV_FREE: the pages are marked clean; they are freed when memory is short, unless they are written before";
    case kRemove:
      return "MADV_REMOVE: a hole is punched into the file behind the shared mapping";
    case kCold:
      return "MADV_COLD: the accessed bits are cleared, so that reclaim takes these pages first";
    case kPageout:
      return "MADV_PAGEOUT: what can be brought back from elsewhere is taken away now";
    case kPopulateRead:
    case kPopulateWrite:
      return "MADV_POPULATE: every page is faulted in now";
    case kHugepage:
    case kNohugepage:
    case kCollapse:
      return "advice about huge pages";
    case kMergeable:
    case kUnmergeable:
      return "advice about merging equal pages (KSM)";
    default:
      return "a flag of the VMA changes, where it was not so already";
  }
}

bool IsKnown(int32_t advice) {
  return (advice >= kNormal && advice <= kDontneed) || (advice >= kFree && advice <= kCollapse) || IsErrorInjection(advice);
}

}  // namespace

// madvise_walk_vmas(): visits the parts of VMAs in [start, end), which is not empty. Holes do not stop it but make it answer ENOMEM.
// `visit` gets (vma, &prev, start, end) and leaves in prev the VMA that holds the part afterwards.
template <typename Visit>
Errno MmCall::WalkVmas(uint64_t start, uint64_t end, Visit visit) {
  Errno unmapped = Errno::kOk;
  VmArea* vma = mm_.vmas.Find(VirtAddr(start));
  VmArea* prev = vma == nullptr ? mm_.vmas.Last() : mm_.vmas.Previous(*vma);
  if (vma != nullptr && start > vma->start.raw()) prev = vma;
  while (true) {
    if (vma == nullptr) return Refuse(Errno::kENOMEM, "part of the range is not mapped");
    if (start < vma->start.raw()) {
      unmapped = Errno::kENOMEM;
      start = vma->start.raw();
      if (start >= end) break;
    }
    const uint64_t part_end = std::min(vma->end.raw(), end);
    MMLAB_TRY(visit(vma, &prev, start, part_end));
    start = std::max(part_end, prev->end.raw());
    if (start >= end) break;
    vma = mm_.vmas.Next(*prev);
  }
  return unmapped == Errno::kOk ? unmapped : Refuse(unmapped, "part of the range is not mapped");
}

Errno MmCall::Madvise(uint64_t start, uint64_t length, int32_t advice) {
  start = UntagAddress(start);
  if (!IsKnown(advice)) return Refuse(Errno::kEINVAL, "unknown advice");
  if (!PageAligned(start)) return Refuse(Errno::kEINVAL, "the address is not page-aligned");
  const uint64_t rounded = PageAlign(length);
  if (length != 0 && rounded == 0) return Refuse(Errno::kEINVAL, "the length wraps when rounded up to pages");
  const uint64_t end = Wrap(start + rounded);
  if (end < start) return Refuse(Errno::kEINVAL, "the range wraps");
  if (end == start) return Nothing("length 0: nothing changes");
  if (IsErrorInjection(advice)) return Refuse(Errno::kEPERM, "injecting memory errors is not allowed here");
  return WalkVmas(start, end, [&](VmArea* vma, VmArea** prev, uint64_t from, uint64_t to) {
    if (why() != nullptr) {
      why()
          ->Add(StepKind::kVmaLookup, EffectOf(advice))
          .Address("start", VirtAddr(from))
          .Address("end", VirtAddr(to))
          .Bits("vm_flags", vma->flags);
    }
    return MadviseVma(vma, prev, from, to, advice);
  });
}

// can_do_mincore(), can_do_pageout(): page cache that the process could not write to is none of its business. All simulated files may be
// written by everybody.
bool MmCall::MayTouchPageCache(const VmArea& vma) const { return vma.anonymous() || vma.file != nullptr; }

Errno MmCall::MadviseVma(VmArea* vma, VmArea** prev, uint64_t start, uint64_t end, int32_t advice) {
  const VirtRange range{VirtAddr(start), VirtAddr(end)};
  uint64_t flags = vma->flags;
  switch (advice) {
    case kRemove:
      *prev = vma;
      return MadviseRemove(*vma, start, end);
    case kWillneed:
      *prev = vma;
      core_.paging.MadviseWillneed(*vma, range);
      return Errno::kOk;
    case kCold:
    case kPageout:
      *prev = vma;
      if (vma->is(kVmLocked | kVmPfnMap | kVmHugetlb)) return Refuse(Errno::kEINVAL, "locked or special memory stays");
      if (advice == kCold) {
        core_.paging.MadviseCold(task_, *vma, range);
      } else if (MayTouchPageCache(*vma)) {
        core_.paging.MadvisePageout(task_, *vma, range);
      }
      return Errno::kOk;
    case kFree:
    case kDontneed:
    case kDontneedLocked:
      *prev = vma;
      if (vma->is(kVmHugetlb)) {
        // Whole huge pages of the range go.
        const uint64_t mask = HugeBytes(*vma->file) - 1;
        if (advice == kFree) return Refuse(Errno::kEINVAL, "MADV_FREE is for anonymous memory only");
        if ((start & mask) != 0) return Refuse(Errno::kEINVAL, "the address is not aligned to a huge page");
        core_.paging.Zap(task_, *vma, {VirtAddr(start), VirtAddr(std::max(start, end & ~mask))});
        return Errno::kOk;
      }
      if (vma->is(kVmPfnMap) || (advice != kDontneedLocked && vma->is(kVmLocked))) {
        return Refuse(Errno::kEINVAL, "locked or special memory is not given up");
      }
      if (advice == kFree && !vma->anonymous()) return Refuse(Errno::kEINVAL, "MADV_FREE is for anonymous memory only");
      mm_.UpdateHiwaterRss();
      if (advice == kFree) {
        core_.paging.MadviseFree(task_, *vma, range);
      } else {
        core_.paging.Zap(task_, *vma, range);
      }
      return Errno::kOk;
    case kPopulateRead:
    case kPopulateWrite:
      *prev = vma;
      return MadvisePopulate(start, end, advice == kPopulateWrite);
    case kNormal:
      flags &= ~uint64_t{kVmRandRead | kVmSeqRead};
      break;
    case kSequential:
      flags = (flags & ~uint64_t{kVmRandRead}) | kVmSeqRead;
      break;
    case kRandom:
      flags = (flags & ~uint64_t{kVmSeqRead}) | kVmRandRead;
      break;
    case kDontfork:
      flags |= kVmDontCopy;
      break;
    case kDofork:
      if (vma->is(kVmIo)) return Refuse(Errno::kEINVAL, "device memory is never copied");
      flags &= ~uint64_t{kVmDontCopy};
      break;
    case kWipeonfork:
      if (vma->file != nullptr || vma->is(kVmShared)) return Refuse(Errno::kEINVAL, "MADV_WIPEONFORK is for private anonymous memory only");
      flags |= kVmWipeOnFork;
      break;
    case kKeeponfork:
      flags &= ~uint64_t{kVmWipeOnFork};
      break;
    case kDontdump:
      flags |= kVmDontDump;
      break;
    case kDodump:
      if ((flags & kVmSpecial) != 0 && !vma->is(kVmHugetlb)) return Refuse(Errno::kEINVAL, "a special mapping stays out of dumps");
      flags &= ~uint64_t{kVmDontDump};
      break;
    case kMergeable:
      // ksm_madvise() ignores the advice where merging makes no sense.
      if ((flags & (kVmMergeable | kVmShared | kVmMayShare | kVmSpecial | kVmHugetlb)) == 0) {
        core_.paging.ksm().Enter(mm_);
        flags |= kVmMergeable;
      }
      break;
    case kUnmergeable:
      if (vma->is(kVmMergeable) && vma->anon_vma != nullptr && core_.paging.UnmergeRange(*vma, range) != Errno::kOk) {
        *prev = vma;
        return Refuse(Errno::kEAGAIN, "memory is short for pages of its own");
      }
      flags &= ~uint64_t{kVmMergeable};
      break;
    case kHugepage:
      flags = (flags & ~uint64_t{kVmNoHugePage}) | kVmHugePage;
      core_.paging.EnterKhugepaged(*vma, flags);
      break;
    case kNohugepage:
      flags = (flags & ~uint64_t{kVmHugePage}) | kVmNoHugePage;
      break;
    default:
      *prev = vma;
      return MadviseCollapse(*vma, start, end);
  }
  const Errno error = MadviseUpdate(vma, prev, start, end, flags, vma->name);
  return error == Errno::kENOMEM ? Errno::kEAGAIN : error;
}

// madvise_update_vma(): gives the part [start, end) of `vma` its new flags and name. *prev becomes the VMA that holds the part.
Errno MmCall::MadviseUpdate(VmArea* vma, VmArea** prev, uint64_t start, uint64_t end, uint64_t new_flags, const AnonVmaName& new_name) {
  // NOLINTNEXTLINE(performance-unnecessary-copy-initialization): `vma`, whose name it may be, may go away below.
  const AnonVmaName name = new_name;
  const std::string* old = vma->name.get();
  const bool same_name = old == name.get() || (old != nullptr && name.get() != nullptr && *old == *name.get());
  if (new_flags == vma->flags && same_name) {
    *prev = vma;
    return Errno::kOk;
  }
  const uint64_t pgoff = Wrap(vma->pgoff.raw() + ((start - vma->start.raw()) >> shift_));
  VmArea* merged = VmaMerge(*prev, start, end, new_flags, vma->anon_vma, vma->file.get(), pgoff, name.get());
  if (merged != nullptr) {
    vma = merged;
  } else {
    *prev = vma;
    if (start != vma->start.raw()) MMLAB_TRY(SplitVma(*vma, start, true));
    if (end != vma->end.raw()) MMLAB_TRY(SplitVma(*vma, end, false));
  }
  *prev = vma;
  vma->flags = new_flags;
  if (vma->file == nullptr) vma->name = name;
  return Errno::kOk;
}

Errno MmCall::MadvisePopulate(uint64_t start, uint64_t end, bool write) {
  for (VmArea* vma = mm_.vmas.Lookup(VirtAddr(start)); vma != nullptr && vma->start.raw() < end; vma = mm_.vmas.Next(*vma)) {
    const uint64_t wanted = write ? uint64_t{kVmWrite} : uint64_t{kVmRead};
    if (vma->is(kVmIo | kVmPfnMap) || !vma->is(wanted)) return Refuse(Errno::kEINVAL, "the permissions do not allow such an access");
    const VirtRange part{VirtAddr(std::max(start, vma->start.raw())), VirtAddr(std::min(end, vma->end.raw()))};
    MMLAB_TRY(core_.paging.PopulateRange(task_, *vma, part, write, /*force=*/false));
  }
  return Errno::kOk;
}

// madvise_collapse(): every aligned range in [start, end), or the reason why the last one was not.
Errno MmCall::MadviseCollapse(VmArea& vma, uint64_t start, uint64_t end) {
  if (!core_.paging.CollapseAllowed(vma, /*by_settings=*/false)) {
    return Refuse(Errno::kEINVAL, "MADV_COLLAPSE: the VMA can't hold a huge page, or has no anonymous page yet");
  }
  core_.paging.DrainLru();
  const uint64_t size = uint64_t{core_.paging.huge_pages()} << shift_;
  const uint64_t first = Wrap(start + size - 1) & ~(size - 1);
  const uint64_t last = end & ~(size - 1);
  uint64_t huge = 0;
  Errno error = Errno::kEINVAL;
  for (uint64_t at = first; at < last; at += size) {
    const CollapseResult result = core_.paging.Collapse(vma, VirtAddr(at), /*khugepaged=*/false);
    if (result == CollapseResult::kSucceed || result == CollapseResult::kAlreadyHuge) {
      ++huge;
      continue;
    }
    error = result == CollapseResult::kAllocationFailed                                ? Errno::kENOMEM
            : result == CollapseResult::kChargeFailed                                  ? Errno::kEBUSY
            : result == CollapseResult::kPinned || result == CollapseResult::kNotOnLru ? Errno::kEAGAIN
                                                                                       : Errno::kEINVAL;
    // What another range does not have to share goes on.
    if (result == CollapseResult::kAllocationFailed || result == CollapseResult::kNotAnonymous || result == CollapseResult::kFailed) break;
  }
  if (Wrap(last - first) == huge * size) return Errno::kOk;
  return Refuse(error, "MADV_COLLAPSE: not every part of the range became huge");
}

Errno MmCall::MadviseRemove(VmArea& vma, uint64_t start, uint64_t end) {
  if (vma.is(kVmLocked)) return Refuse(Errno::kEINVAL, "locked memory is not given up");
  if (vma.file == nullptr) return Refuse(Errno::kEINVAL, "MADV_REMOVE is for file mappings only");
  if (!vma.is(kVmShared) || !vma.is(kVmMayWrite)) return Refuse(Errno::kEACCES, "MADV_REMOVE needs a shared mapping that may be written");
  const uint64_t offset = (start - vma.start.raw()) + (vma.pgoff.raw() << shift_);
  const std::shared_ptr<OpenFile> file = vma.file;
  return core_.files.PunchHole(*file->inode, offset, end - start);
}

Errno MmCall::SetVmaName(uint64_t start, uint64_t length, const std::string& name) {
  if (!core_.limits.anon_vma_name) return Refuse(Errno::kEINVAL, "the kernel is built without CONFIG_ANON_VMA_NAME");
  for (const char c : name) {
    // is_valid_name_char() of kernel/sys.c.
    const bool printable = c >= ' ' && c <= '~';
    if (!printable || c == '\\' || c == '`' || c == '$' || c == '[' || c == ']')
      return Refuse(Errno::kEINVAL, "a character that maps can't show");
  }
  if (name.size() > 79) return Refuse(Errno::kEINVAL, "longer than 79 characters");
  if (!PageAligned(start)) return Refuse(Errno::kEINVAL, "the address is not page-aligned");
  const uint64_t rounded = PageAlign(length);
  if (length != 0 && rounded == 0) return Refuse(Errno::kEINVAL, "the length wraps when rounded up to pages");
  const uint64_t end = Wrap(start + rounded);
  if (end < start) return Refuse(Errno::kEINVAL, "the range wraps");
  if (end == start) return Errno::kOk;
  const AnonVmaName shared_name = name.empty() ? AnonVmaName() : AnonVmaName(name);
  return WalkVmas(start, end, [&](VmArea* vma, VmArea** prev, uint64_t from, uint64_t to) {
    if (vma->file != nullptr) return Refuse(Errno::kEBADF, "only anonymous memory can be named");
    const Errno error = MadviseUpdate(vma, prev, from, to, vma->flags, shared_name);
    return error == Errno::kENOMEM ? Errno::kEAGAIN : error;
  });
}

}  // namespace mmlab

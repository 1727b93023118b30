#include <algorithm>
#include <utility>

#include "server/arch/layout.h"
#include "server/files/files.h"
#include "server/files/open_file.h"
#include "server/process/commit_account.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/process_limits.h"

// mmap(): ksys_mmap_pgoff(), do_mmap() and mmap_region() of mm/mmap.c.

namespace mmlab {
namespace {

constexpr uint32_t kMapType = 0x0f;
constexpr uint32_t kMapSharedValidate = 0x3;
constexpr uint32_t kMapGrowsDown = 0x100;
constexpr uint32_t kMapLocked = 0x2000;
constexpr uint32_t kMapNoReserve = 0x4000;
constexpr uint32_t kMapPopulate = 0x8000;
constexpr uint32_t kMapNonBlock = 0x10000;
constexpr uint32_t kMapHugetlb = 0x40000;
constexpr uint32_t kMapSync = 0x80000;
constexpr uint32_t kMapFixedNoReplace = 0x100000;
constexpr uint32_t kMap32Bit = 0x40;  // Exists on x86 only.
// The flags that MAP_SHARED ignores silently and MAP_SHARED_VALIDATE knows: LEGACY_MAP_MASK of include/linux/mman.h.
constexpr uint32_t kLegacyMapMask = 0x1 | 0x2 | kMapFixed | kMapAnonymous | kMapGrowsDown | 0x800 | 0x1000 | kMapLocked | kMapNoReserve |
                                    kMapPopulate | kMapNonBlock | 0x20000 | kMapHugetlb | 0x7c000000;

// Largest file offset plus one that a mapping may reach: file_mmap_size_max(). Where Linux goes to 2^63 and beyond, we end at 2 PiB: page
// indexes of Frame::index, with what mremap() may add to them, go no further.
uint64_t MaxMappedSize(const OpenFile& file, uint64_t word_mask) {
  constexpr uint64_t kMost = uint64_t{1} << 51;
  const FileKind kind = file.inode->kind;
  if (kind == FileKind::kDevZero || kind == FileKind::kPipe) return std::min(word_mask, kMost);
  return word_mask == 0xffffffff ? uint64_t{0xffffffff} << 12 : kMost;
}

// accountable_mapping(): private writable memory is promised, unless MAP_NORESERVE said not to.
bool Accountable(uint64_t vm_flags) { return (vm_flags & (kVmNoReserve | kVmShared | kVmWrite)) == kVmWrite; }

bool IsHugetlb(const OpenFile* file) { return file != nullptr && file->inode->hugetlb != nullptr; }

}  // namespace

SysResult<uint64_t> MmCall::Mmap(uint64_t address, uint64_t length, uint32_t prot, uint32_t flags, int32_t fd, uint64_t offset) {
  if (!PageAligned(offset)) return Refuse(Errno::kEINVAL, "the file offset is not page-aligned");
  const uint64_t pgoff = Argument(offset >> shift_);
  std::shared_ptr<OpenFile> file;
  if ((flags & kMapAnonymous) == 0) {
    const auto it = task_.files->find(fd);
    if (it == task_.files->end()) return Refuse(Errno::kEBADF, "not an open descriptor");
    file = it->second;
    if (IsHugetlb(file.get())) {
      const uint64_t mask = HugeBytes(*file) - 1;
      length = Wrap(length + mask) & ~mask;
    } else if ((flags & kMapHugetlb) != 0) {
      return Refuse(Errno::kEINVAL, "MAP_HUGETLB on a file that is not hugetlbfs");
    }
  } else if ((flags & kMapHugetlb) != 0) {
    MMLAB_TRY_ASSIGN(file, AnonymousHugetlb(&length, flags));
  }
  uint64_t populate = 0;
  MMLAB_TRY_ASSIGN(const uint64_t start, DoMmap(file, address, length, prot, flags, pgoff, &populate));
  if (populate != 0) Populate(start, populate, /*ignore_errors=*/true);
  return start;
}

SysResult<uint64_t> MmCall::DoMmap(const std::shared_ptr<OpenFile>& file, uint64_t address, uint64_t length, uint32_t prot, uint32_t flags,
                                   uint64_t pgoff, uint64_t* populate) {
  if (length == 0) return Refuse(Errno::kEINVAL, "length 0");
  if ((prot & kProtRead) != 0 && task_.read_implies_exec) prot |= kProtExec;
  if ((flags & kMapFixedNoReplace) != 0) flags |= kMapFixed;
  if ((flags & kMapFixed) == 0) {
    // round_hint_to_min()
    address &= ~page_mask_;
    if (address != 0 && address < MmapMinAddr()) address = PageAlign(MmapMinAddr());
  }
  length = PageAlign(length);
  if (length == 0) return Refuse(Errno::kENOMEM, "the length wraps when rounded up to pages");
  if (Wrap(pgoff + (length >> shift_)) < pgoff) return Refuse(Errno::kEOVERFLOW, "offset + length wraps");
  if (MapCountAbove(0)) return Refuse(Errno::kENOMEM, "more than vm.max_map_count VMAs");
  MMLAB_TRY_ASSIGN(address, GetUnmappedArea(file.get(), address, length, pgoff, flags));
  if ((flags & kMapFixedNoReplace) != 0 && mm_.vmas.FirstIn({VirtAddr(address), VirtAddr(address + length)}) != nullptr) {
    return Refuse(Errno::kEEXIST, "MAP_FIXED_NOREPLACE: something is mapped there");
  }
  uint64_t vm_flags = ProtToFlags(prot) | mm_.def_flags | kVmMayRead | kVmMayWrite | kVmMayExec;
  if ((flags & kMapGrowsDown) != 0) vm_flags |= kVmGrowsDown;
  if ((flags & kMapLocked) != 0) vm_flags |= kVmLocked;
  if ((flags & kMapSync) != 0) vm_flags |= kVmSync;
  if ((flags & kMapLocked) != 0 && !CanDoMlock()) return Refuse(Errno::kEPERM, "MAP_LOCKED with RLIMIT_MEMLOCK 0");
  MMLAB_TRY(MlockFutureCheck(vm_flags, length));
  if (file != nullptr) {
    MMLAB_TRY(CheckFileMapping(*file, prot, &flags, length, pgoff, &vm_flags));
  } else if ((flags & kMapType) == kMapShared) {
    if ((vm_flags & kVmGrowsDown) != 0) return Refuse(Errno::kEINVAL, "shared memory can't grow down");
    pgoff = 0;
    vm_flags |= kVmShared | kVmMayShare;
  } else if ((flags & kMapType) == kMapPrivate) {
    pgoff = address >> shift_;
  } else {
    return Refuse(Errno::kEINVAL, "neither MAP_SHARED nor MAP_PRIVATE");
  }
  // Memory of pools is promised strictly, unless MAP_NORESERVE.
  if ((flags & kMapNoReserve) != 0 && (core_.limits.overcommit_memory != 2 || IsHugetlb(file.get()))) vm_flags |= kVmNoReserve;
  MMLAB_TRY_ASSIGN(address, MmapRegion(file, address, length, vm_flags, pgoff));
  if ((vm_flags & kVmLocked) != 0 || (flags & (kMapPopulate | kMapNonBlock)) == kMapPopulate) *populate = length;
  return address;
}

// The part of do_mmap() for files: what the way of opening and the file's kind allow.
Errno MmCall::CheckFileMapping(const OpenFile& file, uint32_t prot, uint32_t* flags, uint64_t length, uint64_t pgoff,
                               uint64_t* vm_flags) const {
  const uint64_t max_size = MaxMappedSize(file, word_mask_);
  if (length > max_size || pgoff > (max_size - length) >> shift_) return Refuse(Errno::kEOVERFLOW, "beyond the largest file offset");
  const uint32_t type = *flags & kMapType;
  if (type != kMapShared && type != kMapSharedValidate && type != kMapPrivate) {
    return Refuse(Errno::kEINVAL, "neither MAP_SHARED nor MAP_PRIVATE");
  }
  if (type != kMapPrivate) {
    uint32_t known = kLegacyMapMask;
    if (core_.layout.is_x86()) known |= kMap32Bit;
    if (type == kMapShared) *flags &= known;
    if (file.inode->kind == FileKind::kExt4) known |= kMapSync;
    if ((*flags & ~known) != 0) return Refuse(Errno::kEOPNOTSUPP, "MAP_SHARED_VALIDATE with a flag that the file does not support");
    if ((prot & kProtWrite) != 0 && !file.writable)
      return Refuse(Errno::kEACCES, "PROT_WRITE and MAP_SHARED on a file not open for writing");
    *vm_flags |= kVmShared | kVmMayShare;
    if (!file.writable) *vm_flags &= ~uint64_t{kVmMayWrite | kVmShared};
  }
  if (!file.readable) return Refuse(Errno::kEACCES, "the file is not open for reading");
  if (file.inode->kind == FileKind::kPipe) return Refuse(Errno::kENODEV, "a pipe can't be mapped");
  if ((*vm_flags & kVmGrowsDown) != 0) return Refuse(Errno::kEINVAL, "a file mapping can't grow down");
  return Errno::kOk;
}

SysResult<uint64_t> MmCall::MmapRegion(const std::shared_ptr<OpenFile>& file, uint64_t address, uint64_t length, uint64_t vm_flags,
                                       uint64_t pgoff) {
  const uint64_t end = address + length;
  const uint64_t pages = length >> shift_;
  if (!MayExpandVm(vm_flags, pages)) {
    // What MAP_FIXED replaces does not count twice: count_vma_pages_range().
    uint64_t replaced = 0;
    for (const VmArea* vma = mm_.vmas.FirstIn({VirtAddr(address), VirtAddr(end)}); vma != nullptr && vma->start.raw() < end;
         vma = mm_.vmas.Next(*vma)) {
      replaced += (std::min(end, vma->end.raw()) - std::max(address, vma->start.raw())) >> shift_;
    }
    if (!MayExpandVm(vm_flags, pages - replaced)) return Errno::kENOMEM;
  }
  if (DoMunmap(address, length) != Errno::kOk) return Refuse(Errno::kENOMEM, "what is mapped there can't be taken away");
  int64_t charged = 0;
  if (!IsHugetlb(file.get()) && Accountable(vm_flags)) {
    charged = static_cast<int64_t>(pages);
    if (!core_.commit.Charge(charged)) return Errno::kENOMEM;
    vm_flags |= kVmAccount;
  }
  VmArea* vma = ExpandNeighbour(file.get(), address, length, vm_flags, pgoff);
  if (vma == nullptr) {
    const SysResult<VmArea*> made = NewRegion(file, address, length, vm_flags, pgoff);
    if (!made.ok()) {
      core_.commit.Uncharge(charged);
      return made.error();
    }
  }
  mm_.Account(vm_flags, static_cast<int64_t>(pages));
  if ((vm_flags & kVmLocked) != 0 && !IsHugetlb(file.get())) mm_.locked_vm += PageCount(pages);
  return address;
}

// Grows the VMA before or after the new range over it, or joins both: the case where no new VMA is needed. Null: neither fits.
VmArea* MmCall::ExpandNeighbour(const OpenFile* file, uint64_t address, uint64_t length, uint64_t vm_flags, uint64_t pgoff) {
  const uint64_t end = address + length;
  VmArea* next = mm_.vmas.Find(VirtAddr(address));
  VmArea* prev = next == nullptr ? mm_.vmas.Last() : mm_.vmas.Previous(*next);
  VmArea* grows = nullptr;
  const AnonVma* anon_vma = nullptr;
  uint64_t new_start = address;
  uint64_t new_end = end;
  uint64_t new_pgoff = pgoff;
  const bool next_fits = next != nullptr && next->start.raw() == end &&
                         CanMergeBefore(*next, vm_flags, nullptr, file, Wrap(pgoff + (length >> shift_)), nullptr);
  if (next_fits) {
    grows = next;
    anon_vma = next->anon_vma;
    new_end = next->end.raw();
  }
  if (prev != nullptr && prev->end.raw() == address && CanMergeAfter(*prev, vm_flags, anon_vma, file, pgoff, nullptr)) {
    grows = prev;
    new_start = prev->start.raw();
    new_pgoff = prev->pgoff.raw();
  }
  if (grows == nullptr) {
    if (why() != nullptr) {
      why()
          ->Add(StepKind::kVmaMerge, "a VMA of its own: no neighbour has equal flags, file, following offset and a compatible anon_vma")
          .Truth("touches_previous", prev != nullptr && prev->end.raw() == address)
          .Truth("touches_next", next != nullptr && next->start.raw() == end);
    }
    return nullptr;
  }
  if (next_fits && grows != next) {
    ImportAnonVma(*grows, *next);
    TakeOver(*grows, *next);
  }
  grows->pgoff = PageIndex(new_pgoff);
  mm_.vmas.Resize(*grows, VirtAddr(new_start), VirtAddr(new_end));
  if (why() != nullptr) {
    why()
        ->Add(StepKind::kVmaMerge, grows == prev ? (next_fits ? "joined with the VMAs on both sides" : "the VMA before it was extended")
                                                 : "the VMA after it was extended downwards")
        .Address("start", grows->start)
        .Address("end", grows->end);
  }
  return grows;
}

SysResult<VmArea*> MmCall::NewRegion(const std::shared_ptr<OpenFile>& file, uint64_t address, uint64_t length, uint64_t vm_flags,
                                     uint64_t pgoff) {
  auto vma = std::make_unique<VmArea>();
  vma->start = VirtAddr(address);
  vma->end = VirtAddr(address + length);
  vma->flags = vm_flags;
  vma->pgoff = PageIndex(pgoff);
  vma->file = file;
  const bool shared = (vm_flags & kVmShared) != 0;
  const bool zero_device = file != nullptr && file->inode->kind == FileKind::kDevZero;
  if (file != nullptr && file->inode->kind == FileKind::kExt4 && (vm_flags & kVmSync) != 0) {
    return Refuse(Errno::kEOPNOTSUPP, "MAP_SYNC on a file that is not on persistent memory");
  }
  if ((file == nullptr || zero_device) && shared) {
    // shmem_zero_setup(): shared memory without a file gets one of its own.
    MMLAB_TRY_ASSIGN(std::shared_ptr<Inode> inode,
                     core_.files.NewShmem(FileKind::kSharedAnon, "/dev/zero (deleted)", length, (vm_flags & kVmNoReserve) != 0));
    vma->file = std::make_shared<OpenFile>(std::move(inode), true, true);
    vma->file->Account(mm_.anon_vmas->kernel_objects());
    vma->backing = VmaBacking::kFile;
  } else {
    vma->backing = file == nullptr || zero_device ? VmaBacking::kAnonymous : VmaBacking::kFile;
  }
  if (IsHugetlb(file.get())) {
    MMLAB_TRY(SetUpHugetlb(*vma));
    vma->flags &= ~kVmLockedMask;
  }
  VmArea* linked = LinkVma(std::move(vma));
  // khugepaged_enter_vma(): of what is new only shmem can be for it.
  if (linked->file != nullptr && linked->file->inode->shmem()) core_.paging.EnterKhugepaged(*linked, linked->flags);
  return linked;
}

}  // namespace mmlab

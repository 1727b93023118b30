#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/arch/layout.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/process/commit_account.h"
#include "server/process/mm_call.h"
#include "server/process/processes.h"
#include "server/process/shm_table.h"

// shmget(), shmat(), shmdt() and IPC_RMID: ipc/shm.c, ipc/util.c.

namespace mmlab {
namespace {

constexpr int kSequenceShift = 15;
constexpr int32_t kMinCycle = 64;  // ipc_min_cycle
constexpr uint32_t kIpcCreate = 0x200;
constexpr uint32_t kIpcExclusive = 0x400;
constexpr uint32_t kShmHugetlb = 0x800;
constexpr int kShmHugeShift = 26;
constexpr uint32_t kShmHugeMask = 0x3f;
constexpr uint32_t kShmNoReserve = 0x1000;
constexpr uint32_t kShmReadOnly = 0x1000;
constexpr uint32_t kShmRound = 0x2000;
constexpr uint32_t kShmRemap = 0x4000;
constexpr uint32_t kShmExec = 0x8000;
constexpr uint64_t kMaxShmemSize = uint64_t{1} << 63;

uint64_t SegmentPages(uint64_t size) { return (size >> 12) + ((size & 0xfff) != 0 ? 1 : 0); }

// ipcperms(): `wanted` has the asked bits in all three places.
bool Permitted(const ShmSegment& segment, const Process& process, uint32_t wanted) {
  if (process.capable()) return true;
  const uint32_t asked = (wanted >> 6) | (wanted >> 3) | wanted;
  const uint32_t granted = process.uid == segment.creator_uid ? segment.mode >> 6 : segment.mode;
  return (asked & ~granted & 07) == 0;
}

}  // namespace

ShmSegment* ShmTable::Find(int32_t id) {
  DropUnused();
  if (id < 0) return nullptr;
  const auto it = by_index_.find(id & ((1 << kSequenceShift) - 1));
  return it == by_index_.end() || it->second.id != id ? nullptr : &it->second;
}

ShmSegment* ShmTable::FindByKey(int32_t key) {
  DropUnused();
  for (auto& [index, segment] : by_index_) {
    if (segment.key == key) return &segment;
  }
  return nullptr;
}

ShmSegment& ShmTable::Add(ShmSegment segment) {
  DropUnused();
  // idr_alloc_cyclic(): the next index after the last one given out, from 0 again at the end of the cycle.
  const auto cycle = std::max<int32_t>(static_cast<int32_t>(by_index_.size()) * 3 / 2, kMinCycle);
  int32_t index = next_index_ < cycle ? next_index_ : 0;
  while (by_index_.contains(index)) index = index + 1 < cycle ? index + 1 : 0;
  if (index <= last_index_) ++sequence_;
  last_index_ = index;
  next_index_ = index + 1;
  segment.id = (sequence_ << kSequenceShift) + index;
  total_pages_ += SegmentPages(segment.size);
  return by_index_[index] = std::move(segment);
}

void ShmTable::DropUnused() {
  for (auto it = by_index_.begin(); it != by_index_.end();) {
    if (it->second.marked && it->second.inode.expired()) {
      total_pages_ -= SegmentPages(it->second.size);
      it = by_index_.erase(it);
    } else {
      ++it;
    }
  }
}

void ShmTable::Remove(ShmSegment& segment) {
  segment.marked = true;
  segment.key = 0;
  segment.kept = nullptr;
  DropUnused();
}

uint64_t ShmTable::total_pages() {
  DropUnused();
  return total_pages_;
}

SysResult<uint64_t> Processes::Shmget(Pid pid, int32_t key, uint64_t size, uint32_t flags) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if (layout_.word_bytes == 4) size &= 0xffffffff;
  auto refuse = [&](Errno error, const char* rule) {
    if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kSystemCallCheck, rule).Error(error);
    return error;
  };
  if (key != 0) {
    if (ShmSegment* found = shm_->FindByKey(key)) {
      if ((flags & kIpcCreate) != 0 && (flags & kIpcExclusive) != 0) return refuse(Errno::kEEXIST, "a segment with that key exists");
      if (found->size < size) return refuse(Errno::kEINVAL, "the segment with that key is smaller");
      if (!Permitted(*found, *process, flags)) return refuse(Errno::kEACCES, "the segment's permissions do not allow it");
      if (Explanation* why = tracer_.explanation()) {
        why->Add(StepKind::kFileLookup, "the segment with that key").Number("id", found->id).Size("size", Bytes(found->size));
      }
      return static_cast<uint64_t>(found->id);
    }
    if ((flags & kIpcCreate) == 0) return refuse(Errno::kENOENT, "no segment with that key");
  }
  if (size < 1 || size > limits_.shmmax) return refuse(Errno::kEINVAL, "smaller than 1 byte or larger than kernel.shmmax");
  const uint64_t word_max = layout_.word_bytes == 4 ? 0xffffffff : ~uint64_t{0};
  if (size > word_max - layout_.page_size.mask()) return refuse(Errno::kENOSPC, "the size wraps when rounded up to pages");
  const uint64_t pages = SegmentPages(size);
  if (shm_->total_pages() + pages > limits_.shmall) return refuse(Errno::kENOSPC, "kernel.shmall pages are in use");
  std::shared_ptr<Inode> inode;
  const std::string path = absl::StrFormat("/SYSV%08x (deleted)", static_cast<uint32_t>(key));
  if ((flags & kShmHugetlb) != 0) {
    const std::optional<size_t> pool = files_.hugetlb().FindByLog(flags >> kShmHugeShift & kShmHugeMask);
    if (!pool.has_value()) return refuse(Errno::kEINVAL, "no huge pages of that size");
    // can_do_hugetlb_shm(). Every user is alone in a group of the same number.
    const bool in_group = limits_.hugetlb_shm_group == int64_t{process->uid};
    if (!process->capable() && !in_group) return refuse(Errno::kEPERM, "SHM_HUGETLB needs CAP_IPC_LOCK or the group vm.hugetlb_shm_group");
    const uint64_t mask = (files_.hugetlb().pool(*pool).pages() << layout_.page_size.shift()) - 1;
    const uint64_t aligned = (size + mask) & ~mask & word_max;
    MMLAB_TRY_ASSIGN(inode, files_.NewHugetlb(FileKind::kSysvShm, path, aligned, *pool, (flags & kShmNoReserve) == 0));
  } else {
    if (size >= kMaxShmemSize) return refuse(Errno::kEINVAL, "larger than a file can be");
    const bool noreserve = (flags & kShmNoReserve) != 0 && limits_.overcommit_memory != 2;
    MMLAB_TRY_ASSIGN(inode, files_.NewShmem(FileKind::kSysvShm, path, size, noreserve));
  }
  if (shm_->all().size() >= static_cast<size_t>(limits_.shmmni)) return refuse(Errno::kENOSPC, "kernel.shmmni segments exist");
  ShmSegment segment;
  segment.key = key;
  segment.size = size;
  segment.mode = flags & 0777;
  segment.creator_uid = process->uid;
  segment.inode = inode;
  segment.kept = inode;
  const ShmSegment& added = shm_->Add(std::move(segment));
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFileLookup, inode->hugetlb != nullptr ? "a new segment of huge pages; its whole size is reserved in their pool"
                                    : inode->noreserve        ? "a new segment; its pages are charged one by one"
                                                              : "a new segment; its whole size is charged")
        .Number("id", added.id)
        .Pages("pages", static_cast<int64_t>(pages));
  }
  inode->number = static_cast<uint64_t>(added.id);  // The id is shown as inode number in maps.
  return static_cast<uint64_t>(added.id);
}

SysResult<uint64_t> Processes::Shmat(Pid pid, int32_t shm_id, uint64_t address, uint32_t flags) {
  Process* process = Enter(pid);
  if (process == nullptr || process->mm == nullptr) return Errno::kESRCH;
  MmCall call(Core(), *process);
  auto refuse = [&](Errno error, const char* rule) {
    if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kSystemCallCheck, rule).Error(error);
    return error;
  };
  address = call.Argument(address);
  uint32_t map_flags = kMapShared;
  if (shm_id < 0) return refuse(Errno::kEINVAL, "a negative id");
  if (address != 0) {
    // SHMLBA; four pages for 32-bit ARM programs, which matters for rounding only.
    const uint64_t unit = layout_.page_size.bytes().raw() * (process->mm->compat ? 4 : 1);
    if ((address & (unit - 1)) != 0 && (flags & kShmRound) == 0 && !call.PageAligned(address)) {
      return refuse(Errno::kEINVAL, "the address is not page-aligned and SHM_RND is not given");
    }
    if ((address & (unit - 1)) != 0 && (flags & kShmRound) != 0) {
      address &= ~(unit - 1);
      if (address == 0 && (flags & kShmRemap) != 0) return refuse(Errno::kEINVAL, "SHM_REMAP at address 0");
    }
    map_flags |= kMapFixed;
  } else if ((flags & kShmRemap) != 0) {
    return refuse(Errno::kEINVAL, "SHM_REMAP needs an address");
  }
  uint32_t prot = kProtRead;
  uint32_t wanted = 0444;
  if ((flags & kShmReadOnly) == 0) {
    prot |= kProtWrite;
    wanted |= 0222;
  }
  if ((flags & kShmExec) != 0) {
    prot |= kProtExec;
    wanted |= 0111;
  }
  ShmSegment* segment = shm_->Find(shm_id);
  if (segment == nullptr) return refuse(Errno::kEINVAL, "no such segment");
  if (!Permitted(*segment, *process, wanted)) return refuse(Errno::kEACCES, "the segment's permissions do not allow it");
  const std::shared_ptr<Inode> inode = segment->inode.lock();
  const uint64_t size = inode->size;
  if (address != 0 && (flags & kShmRemap) == 0) {
    if (call.Wrap(address + size) < address) return refuse(Errno::kEINVAL, "the range wraps");
    if (process->mm->vmas.FirstIn({VirtAddr(address), VirtAddr(address + size)}) != nullptr) {
      return refuse(Errno::kEINVAL, "something is mapped there and SHM_REMAP is not given");
    }
  }
  auto file = std::make_shared<OpenFile>(inode, true, (flags & kShmReadOnly) == 0);
  file->Account(anon_vmas_->kernel_objects());
  uint64_t populate = 0;
  const SysResult<uint64_t> start = call.DoMmap(file, address, size, prot, map_flags, 0, &populate);
  if (populate != 0) call.Populate(start.value(), populate, /*ignore_errors=*/true);
  return start;
}

Errno Processes::Shmdt(Pid pid, uint64_t address) {
  Process* process = Enter(pid);
  if (process == nullptr || process->mm == nullptr) return Errno::kESRCH;
  MmCall call(Core(), *process);
  AddressSpace& mm = *process->mm;
  address = call.Argument(address);
  if (!call.PageAligned(address)) return Refuse(Errno::kEINVAL, "the address is not page-aligned");
  auto fragment = [&](const VmArea& vma) {
    return vma.file != nullptr && vma.file->inode->kind == FileKind::kSysvShm && vma.start.raw() >= address &&
           (vma.start.raw() - address) >> layout_.page_size.shift() == vma.pgoff.raw();
  };
  VmArea* vma = mm.vmas.Find(VirtAddr(address));
  while (vma != nullptr && !fragment(*vma)) vma = mm.vmas.Next(*vma);
  if (vma == nullptr) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kVmaLookup, "no part of a segment that was attached at that address").Error(Errno::kEINVAL);
    }
    return Errno::kEINVAL;
  }
  // The first fragment tells how long the segment was; the others within that length go as well.
  const std::shared_ptr<OpenFile> file = vma->file;
  const uint64_t size = SegmentPages(file->inode->size) << layout_.page_size.shift();
  bool first = true;
  while (vma != nullptr && (first || vma->end.raw() - address <= size)) {
    VmArea* next = mm.vmas.Next(*vma);
    if (first || (fragment(*vma) && vma->file == file)) call.DoMunmap(vma->start.raw(), vma->length().raw());
    first = false;
    vma = next;
  }
  return Errno::kOk;
}

Errno Processes::ShmRemove(Pid pid, int32_t shm_id) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  ShmSegment* segment = shm_->Find(shm_id);
  if (segment == nullptr) return Refuse(Errno::kEINVAL, "no such segment");
  if (!process->capable() && process->uid != segment->creator_uid) return Refuse(Errno::kEPERM, "somebody else's segment");
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFileLookup, segment->inode.use_count() > 1 ? "the segment goes when its last user detaches it"
                                                                   : "nobody has the segment attached: it goes now")
        .Number("id", segment->id);
  }
  shm_->Remove(*segment);
  return Errno::kOk;
}

}  // namespace mmlab

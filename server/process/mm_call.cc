#include "server/process/mm_call.h"

#include <algorithm>
#include <utility>

#include "server/arch/layout.h"
#include "server/files/open_file.h"
#include "server/process/commit_account.h"
#include "server/process/ksm.h"
#include "server/process/paging.h"
#include "server/process/process_limits.h"

namespace mmlab {

MmCall::MmCall(const ProcessCore& core, Process& task)
    : core_(core),
      task_(task),
      mm_(*task.mm),
      shift_(core.layout.page_size.shift()),
      page_mask_(core.layout.page_size.mask()),
      word_mask_(core.layout.word_bytes == 4 ? 0xffffffff : ~uint64_t{0}),
      task_size_(task.mm->task_size.raw()) {}

Errno MmCall::Refuse(Errno error, const char* rule) const {
  if (why() != nullptr) why()->Add(StepKind::kSystemCallCheck, rule).Error(error);
  return error;
}

Errno MmCall::Nothing(const char* rule) const {
  if (why() != nullptr) why()->Add(StepKind::kSystemCallCheck, rule);
  return Errno::kOk;
}

// untagged_addr(): ARM64 ignores the top byte of user addresses (TBI).
uint64_t MmCall::UntagAddress(uint64_t address) const {
  if (core_.layout.kind != LayoutKind::kArm64) return address;
  const uint64_t sign_extended = static_cast<uint64_t>(static_cast<int64_t>(address << 8) >> 8);
  return address & sign_extended;
}

bool MmCall::AccessOk(uint64_t address, uint64_t length) const {
  const uint64_t limit = core_.layout.task_size.raw();
  return length <= limit && address <= limit - length;
}

uint64_t MmCall::MmapMinAddr() const { return std::max(core_.limits.mmap_min_addr, core_.layout.lsm_mmap_min_addr); }

uint64_t MmCall::ProtToFlags(uint32_t prot) const {
  const uint64_t none = 0;
  return ((prot & kProtRead) != 0 ? uint64_t{kVmRead} : none) | ((prot & kProtWrite) != 0 ? uint64_t{kVmWrite} : none) |
         ((prot & kProtExec) != 0 ? uint64_t{kVmExec} : none);
}

bool MmCall::MayExpandVm(uint64_t vm_flags, uint64_t pages) const {
  const uint64_t total = mm_.total_vm.raw() + pages;
  if (total > Wrap(task_.rlimit(RlimitKind::kAs).current) >> shift_) {
    if (why() != nullptr) {
      why()
          ->Add(StepKind::kSystemCallCheck, "RLIMIT_AS does not allow the address space to grow so far")
          .Pages("total_vm", mm_.total_vm)
          .Pages("more", static_cast<int64_t>(pages))
          .Pages("limit", static_cast<int64_t>(Wrap(task_.rlimit(RlimitKind::kAs).current) >> shift_));
    }
    return false;
  }
  const bool data = (vm_flags & (kVmWrite | kVmShared | kVmGrowsDown)) == kVmWrite;
  const Rlimit& limit = task_.rlimit(RlimitKind::kData);
  if (!data || mm_.data_vm.raw() + pages <= Wrap(limit.current) >> shift_) return true;
  // A soft limit of zero is not meant for private writable memory; the hard one counts (a workaround for Valgrind).
  if (limit.current == 0 && mm_.data_vm.raw() + pages <= Wrap(limit.maximum) >> shift_) return true;
  if (why() != nullptr) {
    why()
        ->Add(StepKind::kSystemCallCheck, "RLIMIT_DATA does not allow so much private writable memory")
        .Pages("data_vm", mm_.data_vm)
        .Pages("more", static_cast<int64_t>(pages))
        .Pages("limit", static_cast<int64_t>(Wrap(limit.current) >> shift_));
  }
  return false;
}

Errno MmCall::MlockFutureCheck(uint64_t vm_flags, uint64_t length) const {
  if ((vm_flags & kVmLocked) == 0 || task_.capable()) return Errno::kOk;
  const uint64_t locked = (length >> shift_) + mm_.locked_vm.raw();
  const uint64_t limit = Wrap(task_.rlimit(RlimitKind::kMemlock).current) >> shift_;
  if (locked <= limit) return Errno::kOk;
  if (why() != nullptr) {
    why()
        ->Add(StepKind::kSystemCallCheck, "RLIMIT_MEMLOCK does not allow so much locked memory")
        .Pages("locked_with_it", static_cast<int64_t>(locked))
        .Pages("limit", static_cast<int64_t>(limit))
        .Error(Errno::kEAGAIN);
  }
  return Errno::kEAGAIN;
}

bool MmCall::CanDoMlock() const { return task_.rlimit(RlimitKind::kMemlock).current != 0 || task_.capable(); }

bool MmCall::MapCountAbove(int64_t below_limit) const {
  return static_cast<int64_t>(mm_.vmas.size()) > core_.limits.max_map_count - below_limit;
}

uint64_t MmCall::StackGapStart(const VmArea& vma) const {
  const uint64_t start = vma.start.raw();
  const uint64_t gap = kStackGuardGapPages << shift_;
  if (!vma.is(kVmGrowsDown)) return start;
  return start >= gap ? start - gap : 0;
}

void MmCall::CountMapleNodes() {
  KernelObjects* objects = mm_.anon_vmas->kernel_objects();
  if (objects == nullptr) return;
  const uint64_t nodes = MapleNodes(mm_.vmas.size(), mm_.vmas.holes(), core_.layout.word_bytes);
  for (; mm_.maple_nodes < nodes; ++mm_.maple_nodes) objects->TakeOne(KernelObject::kMapleNode);
  for (; mm_.maple_nodes > nodes; --mm_.maple_nodes) objects->DropOne(KernelObject::kMapleNode);
}

VmArea* MmCall::LinkVma(std::unique_ptr<VmArea> vma) {
  vma->mm = &mm_;
  if (KernelObjects* objects = mm_.anon_vmas->kernel_objects()) vma->object = objects->Take(KernelObject::kVma);
  if (vma->file != nullptr) {
    Inode& inode = *vma->file->inode;
    vma->file_link = ++inode.mappings_made;
    inode.mappings[vma->file_link] = vma.get();
    if (vma->is(kVmShared) && vma->is(kVmMayWrite)) ++inode.writable_mappings;
  }
  VmArea* linked = mm_.vmas.Insert(std::move(vma));
  CountMapleNodes();
  return linked;
}

void MmCall::DropVma(VmArea& vma) {
  if (vma.is(kVmHugetlb)) CloseHugetlb(vma);
  if (vma.file != nullptr) {
    Inode& inode = *vma.file->inode;
    inode.mappings.erase(vma.file_link);
    if (vma.is(kVmShared) && vma.is(kVmMayWrite)) --inode.writable_mappings;
  }
  UnlinkAnonVmas(vma);
  if (vma.object != 0) mm_.anon_vmas->kernel_objects()->Drop(vma.object);
  mm_.vmas.Remove(vma);
  CountMapleNodes();
}

Errno MmCall::InstallSpecial(uint64_t start, uint64_t length, uint64_t vm_flags, VmaBacking backing) {
  if (mm_.vmas.FirstIn({VirtAddr(start), VirtAddr(start + length)}) != nullptr) return Errno::kENOMEM;
  auto vma = std::make_unique<VmArea>();
  vma->start = VirtAddr(start);
  vma->end = VirtAddr(start + length);
  vma->flags = (vm_flags | mm_.def_flags | kVmDontExpand) & ~kVmLockedMask;
  vma->backing = backing;
  mm_.Account(vma->flags, static_cast<int64_t>(length >> shift_));
  LinkVma(std::move(vma));
  return Errno::kOk;
}

void MmCall::ExitMmap() {
  core_.paging.ksm().Exit(mm_);
  VmArea* first = mm_.vmas.First();
  if (first == nullptr) return;
  for (VmArea* vma = first; vma != nullptr; vma = mm_.vmas.Next(*vma)) core_.paging.Zap(task_, *vma, vma->range());
  core_.paging.FreeTables(mm_, {first->start, mm_.vmas.Last()->end}, VirtAddr(0), VirtAddr(0));
  int64_t accounted = 0;
  while ((first = mm_.vmas.First()) != nullptr) {
    if (first->is(kVmAccount)) accounted += PagesIn(*first);
    mm_.Account(first->flags, -PagesIn(*first));
    DropVma(*first);
  }
  core_.commit.Uncharge(accounted);
  core_.paging.LeaveHugePages(mm_);
}

}  // namespace mmlab

#include "server/process/processes.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/arch/layout.h"
#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/files/files.h"
#include "server/hardware/page_walk.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/commit_account.h"
#include "server/process/khugepaged.h"
#include "server/process/ksm.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/shm_table.h"

namespace mmlab {
Processes::Processes(const Layout& layout, PhysicalMemory& memory, Files& files, VmStat& vm_stat, Tracer& tracer, bool hardware_access_flag,
                     uint64_t seed)
    : layout_(layout),
      memory_(memory),
      files_(files),
      vm_stat_(vm_stat),
      tracer_(tracer),
      anon_vmas_(std::make_unique<AnonVmaTable>()),
      paging_(std::make_unique<Paging>(layout, memory, files, *anon_vmas_, vm_stat, tracer, hardware_access_flag)),
      commit_(std::make_unique<CommitAccount>(limits_, tracer)),
      shm_(std::make_unique<ShmTable>()),
      random_(seed) {
  files_.SetCommitCharger(commit_.get());
  files_.SetMapper(paging_.get());
}

Processes::~Processes() {
  // The machine goes with its memory: nothing is given back page by page.
  files_.SetCommitCharger(nullptr);
  files_.SetMapper(nullptr);
}

HugePageSettings& Processes::huge_settings() { return paging_->huge_settings(); }
const HugePageSettings& Processes::huge_settings() const { return paging_->huge_settings(); }

std::vector<Shrinker*> Processes::shrinkers() { return paging_->shrinkers(); }

Ksm& Processes::ksm() { return paging_->ksm(); }
const Ksm& Processes::ksm() const { return paging_->ksm(); }

void Processes::WakeKhugepaged() { paging_->khugepaged().Wake(); }

void Processes::AdvanceBackground(int64_t now) {
  BeginOperation();
  paging_->khugepaged().Advance(now);
  paging_->ksm().Advance(now);
}

ReverseMap& Processes::reverse_map() { return *paging_; }

ProcessCore Processes::Core() { return ProcessCore{layout_, limits_, *paging_, files_, *commit_, *anon_vmas_, tracer_}; }

const Process* Processes::Find(Pid pid) const {
  const auto it = processes_.find(pid);
  return it == processes_.end() ? nullptr : it->second.get();
}

Process* Processes::FindMutable(Pid pid) {
  const auto it = processes_.find(pid);
  return it == processes_.end() ? nullptr : it->second.get();
}

Process* Processes::Enter(Pid pid) {
  Process* process = FindMutable(pid);
  current_ = process;
  commit_->SetCurrent(process);
  paging_->SetCurrent(process);
  return process;
}

Process& Processes::NewProcess() {
  auto process = std::make_unique<Process>();
  process->pid = Pid(++last_pid_);
  process->thread_group = process->pid;
  Process& made = *process;
  processes_[made.pid] = std::move(process);
  return made;
}

SysResult<Pid> Processes::Create(const std::string& comm, uint32_t uid, bool kernel_thread) {
  Process& process = NewProcess();
  process.comm = comm;
  process.uid = uid;
  process.kernel_thread = kernel_thread;
  constexpr uint64_t kDefaultStack = 8 << 20;    // _STK_LIM
  constexpr uint64_t kDefaultMemlock = 8 << 20;  // MLOCK_LIMIT
  (*process.rlimits)[static_cast<size_t>(RlimitKind::kStack)].current = kDefaultStack;
  (*process.rlimits)[static_cast<size_t>(RlimitKind::kMemlock)] = {kDefaultMemlock, kDefaultMemlock};
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kTaskNewtask, {process.pid.raw(), comm, 0, process.oom_score_adj});
  }
  return process.pid;
}

#define MMLAB_ENTER(call)                                                 \
  Process* process = Enter(pid);                                          \
  if (process == nullptr || process->mm == nullptr) return Errno::kESRCH; \
  MmCall call(Core(), *process)

SysResult<uint64_t> Processes::Mmap(Pid pid, uint64_t address, uint64_t length, uint32_t prot, uint32_t flags, int32_t fd,
                                    uint64_t offset) {
  MMLAB_ENTER(call);
  return call.Mmap(call.Wrap(address), call.Wrap(length), prot, flags, fd, offset);
}

Errno Processes::Munmap(Pid pid, uint64_t address, uint64_t length) {
  MMLAB_ENTER(call);
  return call.Munmap(call.Wrap(address), call.Wrap(length));
}

Errno Processes::Mprotect(Pid pid, uint64_t address, uint64_t length, uint32_t prot) {
  MMLAB_ENTER(call);
  return call.Mprotect(call.Wrap(address), call.Wrap(length), prot);
}

SysResult<uint64_t> Processes::Mremap(Pid pid, uint64_t old_address, uint64_t old_length, uint64_t new_length, uint32_t flags,
                                      uint64_t new_address) {
  MMLAB_ENTER(call);
  return call.Mremap(call.Wrap(old_address), call.Wrap(old_length), call.Wrap(new_length), flags, call.Wrap(new_address));
}

SysResult<uint64_t> Processes::Brk(Pid pid, uint64_t address) {
  MMLAB_ENTER(call);
  return call.Brk(call.Wrap(address));
}

Errno Processes::Madvise(Pid pid, uint64_t address, uint64_t length, int32_t advice) {
  MMLAB_ENTER(call);
  return call.Madvise(call.Wrap(address), call.Wrap(length), advice);
}

Errno Processes::Mlock(Pid pid, uint64_t address, uint64_t length, uint32_t flags) {
  MMLAB_ENTER(call);
  return call.Mlock(call.Wrap(address), call.Wrap(length), flags);
}

Errno Processes::Munlock(Pid pid, uint64_t address, uint64_t length) {
  MMLAB_ENTER(call);
  return call.Munlock(call.Wrap(address), call.Wrap(length));
}

Errno Processes::Mlockall(Pid pid, uint32_t flags) {
  MMLAB_ENTER(call);
  return call.Mlockall(flags);
}

Errno Processes::Munlockall(Pid pid) {
  MMLAB_ENTER(call);
  return call.Munlockall();
}

Errno Processes::Msync(Pid pid, uint64_t address, uint64_t length, uint32_t flags) {
  MMLAB_ENTER(call);
  return call.Msync(call.Wrap(address), call.Wrap(length), flags);
}

SysResult<std::string> Processes::Mincore(Pid pid, uint64_t address, uint64_t length) {
  MMLAB_ENTER(call);
  return call.Mincore(call.Wrap(address), call.Wrap(length));
}

Errno Processes::SetThpDisable(Pid pid, bool disable) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if (process->mm != nullptr) process->mm->thp_disabled = disable;
  return Errno::kOk;
}

Errno Processes::SetVmaName(Pid pid, uint64_t address, uint64_t length, const std::string& name) {
  MMLAB_ENTER(call);
  return call.SetVmaName(call.Wrap(address), call.Wrap(length), name);
}

#undef MMLAB_ENTER

VmArea* Processes::ExpandStack(Process& task, VirtAddr address) { return MmCall(Core(), task).ExpandStack(address); }

// do_prlimit()
Errno Processes::Setrlimit(Pid pid, uint32_t resource, uint64_t current, uint64_t maximum) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if (resource >= process->rlimits->size()) return Errno::kEINVAL;
  // rlim64_to_rlim(): what a 32-bit word can't hold is no limit.
  if (layout_.word_bytes == 4) {
    if (current >= 0xffffffff) current = kRlimInfinity;
    if (maximum >= 0xffffffff) maximum = kRlimInfinity;
  }
  if (current > maximum) return Errno::kEINVAL;
  Rlimit& limit = (*process->rlimits)[resource];
  if (maximum > limit.maximum && !process->capable()) return Errno::kEPERM;
  limit = {current, maximum};
  return Errno::kOk;
}

int Processes::ThreadCount(const Process& process) const {
  int count = 0;
  for (const auto& [pid, other] : processes_) count += other->thread_group == process.thread_group ? 1 : 0;
  return count;
}

bool Processes::ThpEligible(const VmArea& vma) const { return paging_->ThpEligible(vma); }

uint64_t Processes::PageProtection(const VmArea& vma) const { return paging_->PageProtection(vma); }

PageWalk Processes::Walk(const Process& process, VirtAddr address) const { return paging_->Walk(*process.mm, address); }

PageCount Processes::committed() const { return PageCount(static_cast<uint64_t>(std::max<int64_t>(0, commit_->committed()))); }

PageCount Processes::commit_limit() const { return PageCount(static_cast<uint64_t>(std::max<int64_t>(0, commit_->limit()))); }

PageCount Processes::mlocked_pages() const { return PageCount(paging_->mlocked_pages()); }

uint64_t Processes::vma_count() const {
  uint64_t count = 0;
  absl::btree_set<const AddressSpace*> seen;  // Only looked up.
  for (const auto& [pid, process] : processes_) {
    if (process->mm != nullptr && seen.insert(process->mm.get()).second) count += process->mm->vmas.size();
  }
  return count;
}

}  // namespace mmlab

#include "server/process/processes.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/arch/layout.h"
#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/files/files.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/commit_account.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/shm_table.h"

namespace mmlab {
namespace {

constexpr int kNormalPriority = 120;  // Of a task whose niceness nobody changed.

}  // namespace

Processes::Processes(const Layout& layout, PhysicalMemory& memory, Files& files, VmStat& vm_stat, Tracer& tracer, bool hardware_access_flag,
                     uint64_t seed)
    : layout_(layout),
      memory_(memory),
      files_(files),
      vm_stat_(vm_stat),
      tracer_(tracer),
      paging_(std::make_unique<Paging>(layout, memory, files, vm_stat, tracer, hardware_access_flag)),
      anon_vmas_(std::make_unique<AnonVmaTable>()),
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
  process.rlimits[static_cast<int>(RlimitKind::kStack)].current = kDefaultStack;
  process.rlimits[static_cast<int>(RlimitKind::kMemlock)] = {kDefaultMemlock, kDefaultMemlock};
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kTaskNewtask, {process.pid.raw(), comm, 0, process.oom_score_adj});
  }
  return process.pid;
}

// exit_mm(): the last user of an address space takes it down.
void Processes::DropMm(Process& process) {
  paging_->SyncRss(process);
  if (process.mm == nullptr) return;
  if (--process.mm->mm_users == 0) {
    MmCall(Core(), process).ExitMmap();
    paging_->DestroyTables(*process.mm);
  }
  process.mm = nullptr;
}

Errno Processes::Exit(Pid pid, int32_t code) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kSystemCallCheck, "the process ends").Number("code", code);
  DropMm(*process);
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kSchedProcessExit, {process->comm, pid.raw(), kNormalPriority});
  current_ = nullptr;
  commit_->SetCurrent(nullptr);
  paging_->SetCurrent(nullptr);
  processes_.erase(pid);
  return Errno::kOk;
}

bool Processes::Kill(Pid pid) {
  Process* victim = FindMutable(pid);
  if (victim == nullptr) return false;
  Process* const acting = current_;
  const std::shared_ptr<AddressSpace> mm = victim->mm;
  if (victim == acting || (acting != nullptr && mm != nullptr && mm == acting->mm)) {
    for (auto& [other_pid, other] : processes_) {
      if (other.get() == victim || (mm != nullptr && other->mm == mm)) other->killed = true;
    }
    any_killed_ = true;
    return false;
  }
  // Whoever shares its memory dies with it: the memory would not come back otherwise.
  std::vector<Pid> dying;
  for (const auto& [other_pid, other] : processes_) {
    if (other.get() == victim || (mm != nullptr && other->mm == mm && !other->kernel_thread)) dying.push_back(other_pid);
  }
  for (const Pid one : dying) Exit(one, 0);
  current_ = acting;
  commit_->SetCurrent(acting);
  paging_->SetCurrent(acting);
  return true;
}

bool Processes::ReapKilled() {
  if (!any_killed_) return false;
  any_killed_ = false;
  std::vector<Pid> dying;
  for (const auto& [pid, process] : processes_) {
    if (process->killed) dying.push_back(pid);
  }
  for (const Pid pid : dying) Exit(pid, 0);
  return !dying.empty();
}

Errno Processes::WriteOomScoreAdj(Pid pid, int64_t value) {
  constexpr int64_t kMost = 1000;
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if (value < -kMost || value > kMost) return Errno::kEINVAL;
  if (value < process->oom_score_adj_min && !process->capable()) return Errno::kEACCES;
  process->oom_score_adj = static_cast<int32_t>(value);
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kOomScoreAdjUpdate, {pid.raw(), process->comm, process->oom_score_adj});
  if (process->capable()) process->oom_score_adj_min = process->oom_score_adj;
  return Errno::kOk;
}

SysResult<uint64_t> Processes::SwitchTo(Pid pid, int cpu) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if (process->mm != nullptr) last_mm_[cpu] = process->mm;
  // A kernel thread has no address space: it runs on whatever was loaded before (active_mm).
  process->active_mm = process->mm != nullptr ? process->mm : last_mm_[cpu];
  if (process->active_mm == nullptr) return Errno::kEINVAL;
  return layout_.page_size.StartOf(process->active_mm->pgd).raw();
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
  if (resource >= process->rlimits.size()) return Errno::kEINVAL;
  // rlim64_to_rlim(): what a 32-bit word can't hold is no limit.
  if (layout_.word_bytes == 4) {
    if (current >= 0xffffffff) current = kRlimInfinity;
    if (maximum >= 0xffffffff) maximum = kRlimInfinity;
  }
  if (current > maximum) return Errno::kEINVAL;
  Rlimit& limit = process->rlimits[resource];
  if (maximum > limit.maximum && !process->capable()) return Errno::kEPERM;
  limit = {current, maximum};
  return Errno::kOk;
}

PageCount Processes::committed() const { return PageCount(static_cast<uint64_t>(std::max<int64_t>(0, commit_->committed()))); }

PageCount Processes::commit_limit() const { return PageCount(static_cast<uint64_t>(std::max<int64_t>(0, commit_->limit()))); }

PageCount Processes::mlocked_pages() const { return PageCount(paging_->mlocked_pages()); }

uint64_t Processes::vma_count() const {
  uint64_t count = 0;
  for (const auto& [pid, process] : processes_) {
    if (process->mm != nullptr) count += process->mm->vmas.size();
  }
  return count;
}

}  // namespace mmlab

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
#include "server/physical/memory_controller.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/commit_account.h"
#include "server/process/khugepaged.h"
#include "server/process/ksm.h"
#include "server/process/mm_call.h"
#include "server/process/page_replacement.h"
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
      commit_(std::make_unique<CommitAccount>(limits_, memory, files.hugetlb(), tracer)),
      shm_(std::make_unique<ShmTable>()),
      random_(seed) {
  files_.hugetlb().SetSizes(HugetlbPools::SizesOf(layout));
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
const HugetlbPools& Processes::hugetlb() const { return files_.hugetlb(); }

void Processes::WakeKhugepaged() { paging_->khugepaged().Wake(); }

void Processes::AdvanceBackground(int64_t now) {
  BeginOperation();
  paging_->khugepaged().Advance(now);
  paging_->ksm().Advance(now);
}
void Processes::SetKernelObjects(KernelObjects* objects) { anon_vmas_->SetKernelObjects(objects); }

void Processes::SetKernelLog(KernelLogger* log) {
  log_ = log;
  commit_->SetLog(log);
}
void Processes::SyncCommitted() { commit_->Sync(); }
PageCount Processes::free_swap() const { return PageCount(files_.swap().free_pages()); }

ReverseMap& Processes::reverse_map() { return *paging_; }

void Processes::SetReclaimer(PageReclaimer* reclaimer) { paging_->SetReclaimer(reclaimer); }
PageOwner& Processes::page_owner() { return *paging_; }

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
  SetCurrent(process);
  return process;
}

void Processes::SetCurrent(Process* process) {
  current_ = process;
  commit_->SetCurrent(process);
  paging_->SetCurrent(process);
  if (MemoryController* charger = memory_.charger()) [[unlikely]]
    charger->SetCurrent(process == nullptr ? 0 : process->cgroup);
}

Errno Processes::Refuse(Errno error, const char* rule) const {
  if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kSystemCallCheck, rule).Error(error);
  return error;
}

Process& Processes::NewProcess() {
  auto process = std::make_unique<Process>();
  process->pid = Pid(++last_pid_);
  ++tasks_made_;
  process->thread_group = process->pid;
  process->start_time_ns = now_ns_;
  Process& made = *process;
  processes_[made.pid] = std::move(process);
  return made;
}

// INIT_RLIMITS, and what fork_init() makes of them.
Rlimits Processes::FirstLimits() const {
  Rlimits limits;
  const auto of = [&](RlimitKind kind) -> Rlimit& { return limits[static_cast<size_t>(kind)]; };
  of(RlimitKind::kStack).current = 8 << 20;
  of(RlimitKind::kCore).current = 0;
  of(RlimitKind::kNproc) = of(RlimitKind::kSigpending) = {limits_.processes_of_user, limits_.processes_of_user};
  of(RlimitKind::kNofile) = {1024, 4096};
  of(RlimitKind::kMemlock) = {8 << 20, 8 << 20};
  of(RlimitKind::kMsgqueue) = {819200, 819200};
  of(RlimitKind::kNice) = of(RlimitKind::kRtprio) = {0, 0};
  return limits;
}

SysResult<Pid> Processes::Create(const std::string& comm, uint32_t uid, bool kernel_thread) {
  Process& process = NewProcess();
  process.comm = comm;
  process.objects = TaskObjects::Fork(anon_vmas_->kernel_objects(), TaskObjects(), 0);
  process.uid = uid;
  process.kernel_thread = kernel_thread;
  *process.rlimits = FirstLimits();
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kSystemCallCheck, kernel_thread ? "a kernel thread: it never has an address space, and borrows one where it runs"
                                                       : "a task without an address space: exec gives it one")
        .Number("pid", process.pid.raw());
  }
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
  return call.Mmap(call.Argument(address), call.Argument(length), prot, flags, fd, offset);
}

Errno Processes::Munmap(Pid pid, uint64_t address, uint64_t length) {
  MMLAB_ENTER(call);
  return call.Munmap(call.Argument(address), call.Argument(length));
}

Errno Processes::Mprotect(Pid pid, uint64_t address, uint64_t length, uint32_t prot) {
  MMLAB_ENTER(call);
  return call.Mprotect(call.Argument(address), call.Argument(length), prot);
}

SysResult<uint64_t> Processes::Mremap(Pid pid, uint64_t old_address, uint64_t old_length, uint64_t new_length, uint32_t flags,
                                      uint64_t new_address) {
  MMLAB_ENTER(call);
  return call.Mremap(call.Argument(old_address), call.Argument(old_length), call.Argument(new_length), flags, call.Argument(new_address));
}

SysResult<uint64_t> Processes::Brk(Pid pid, uint64_t address) {
  MMLAB_ENTER(call);
  return call.Brk(call.Argument(address));
}

SysResult<uint64_t> Processes::Sbrk(Pid pid, int64_t increment) {
  MMLAB_ENTER(call);
  return call.Sbrk(increment);
}

Errno Processes::Madvise(Pid pid, uint64_t address, uint64_t length, int32_t advice) {
  MMLAB_ENTER(call);
  return call.Madvise(call.Argument(address), call.Argument(length), advice);
}

Errno Processes::Mlock(Pid pid, uint64_t address, uint64_t length, uint32_t flags) {
  MMLAB_ENTER(call);
  return call.Mlock(call.Argument(address), call.Argument(length), flags);
}

Errno Processes::Munlock(Pid pid, uint64_t address, uint64_t length) {
  MMLAB_ENTER(call);
  return call.Munlock(call.Argument(address), call.Argument(length));
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
  return call.Msync(call.Argument(address), call.Argument(length), flags);
}

SysResult<std::string> Processes::Mincore(Pid pid, uint64_t address, uint64_t length) {
  MMLAB_ENTER(call);
  return call.Mincore(call.Argument(address), call.Argument(length));
}

Errno Processes::SetVmaName(Pid pid, uint64_t address, uint64_t length, const std::string& name) {
  MMLAB_ENTER(call);
  return call.SetVmaName(call.Argument(address), call.Argument(length), name);
}

SysResult<uint64_t> Processes::SetPageReplacement(Pid pid, ReplacementPolicy policy, uint32_t frames, uint64_t address, uint64_t length,
                                                  const std::vector<uint64_t>& references) {
  MMLAB_ENTER(call);
  AddressSpace& mm = *process->mm;
  if (policy == ReplacementPolicy::kLinux) {
    paging_->SetReplacement(*process, mm, nullptr);
    return uint64_t{0};
  }
  if (frames < PageReplacement::kMinFrames || frames > PageReplacement::kMaxFrames)
    return Refuse(Errno::kEINVAL, "too few or too many frames");
  const uint64_t end = length == 0 ? mm.task_size.raw() : address + length;
  const uint64_t mask = layout_.page_size.mask();
  if (length == 0) address = 0;
  if (((address | length) & mask) != 0) return Refuse(Errno::kEINVAL, "address or length is not a multiple of the page size");
  if (end <= address || end > mm.task_size.raw()) return Refuse(Errno::kEINVAL, "the range is not one of user space");
  const int shift = layout_.page_size.shift();
  PageReplacement::Bound bound{policy, frames, address >> shift, end >> shift, {}};
  for (const uint64_t reference : references) bound.references.push_back(reference >> shift);
  const auto replacement = std::make_shared<PageReplacement>(std::move(bound));
  paging_->SetReplacement(*process, mm, replacement);
  return replacement->evictions();
}

#undef MMLAB_ENTER

VmArea* Processes::ExpandStack(Process& task, VirtAddr address) { return MmCall(Core(), task).ExpandStack(address); }

// do_prlimit()
Errno Processes::Setrlimit(Pid pid, uint32_t resource, uint64_t current, uint64_t maximum) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if (resource >= process->rlimits->size()) return Refuse(Errno::kEINVAL, "no such limit");
  // rlim64_to_rlim(): what a 32-bit word can't hold is no limit.
  if (layout_.word_bytes == 4) {
    if (current >= 0xffffffff) current = kRlimInfinity;
    if (maximum >= 0xffffffff) maximum = kRlimInfinity;
  }
  if (current > maximum) return Refuse(Errno::kEINVAL, "the soft limit is above the hard one");
  constexpr auto kNofile = static_cast<uint32_t>(RlimitKind::kNofile);
  constexpr uint64_t kMostOpenFiles = 1048576;  // fs.nr_open
  if (resource == kNofile && maximum > kMostOpenFiles) return Refuse(Errno::kEPERM, "more than fs.nr_open");
  Rlimit& limit = (*process->rlimits)[resource];
  if (maximum > limit.maximum && !process->capable()) return Refuse(Errno::kEPERM, "only root raises a hard limit");
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kSystemCallCheck, "the limit is changed; what exceeds it already stays, the next call that wants more is refused")
        .Number("resource", static_cast<int64_t>(resource))
        .Size("before", Bytes(limit.current))
        .Size("after", Bytes(current));
  }
  limit = {current, maximum};
  return Errno::kOk;
}

bool Processes::Held(Pid pid) const {
  const Process* process = Find(pid);
  return process != nullptr && process->vfork_child != Pid();
}

int Processes::ThreadCount(const Process& process) const {
  int count = 0;
  for (const auto& [pid, other] : processes_) count += other->thread_group == process.thread_group ? 1 : 0;
  return count;
}

bool Processes::ThpEligible(const VmArea& vma) const { return paging_->ThpEligible(vma); }

uint64_t Processes::PageProtection(const VmArea& vma) const { return paging_->PageProtection(vma); }

int Processes::MapCount(Pfn pfn) const { return paging_->MapCount(pfn); }
PageWalk Processes::Walk(const Process& process, VirtAddr address) const { return paging_->Walk(*process.mm, address); }

std::optional<bool> Processes::Accessed(const Process& process, VirtAddr address) const { return paging_->Accessed(*process.mm, address); }

PageCount Processes::committed() const { return PageCount(static_cast<uint64_t>(std::max<int64_t>(0, commit_->committed()))); }

PageCount Processes::commit_limit() const { return PageCount(static_cast<uint64_t>(std::max<int64_t>(0, commit_->limit()))); }

PageCount Processes::mlocked_pages() const { return PageCount(paging_->mlocked_pages()); }
std::optional<Pfn> Processes::huge_zero_frame() const { return paging_->huge_zero_frame(); }

uint64_t Processes::vma_count() const {
  uint64_t count = 0;
  absl::btree_set<const AddressSpace*> seen;  // Only looked up.
  for (const auto& [pid, process] : processes_) {
    if (process->mm != nullptr && seen.insert(process->mm.get()).second) count += process->mm->vmas.size();
  }
  return count;
}

}  // namespace mmlab

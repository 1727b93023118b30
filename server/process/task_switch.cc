#include <algorithm>
#include <utility>
#include <vector>

#include "server/arch/layout.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/process/address_space.h"
#include "server/process/commit_account.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/processes.h"

// Which task runs where, on whose page tables, and how tasks end: kernel/sched/core.c (context_switch()), kernel/exit.c, de_thread() of
// fs/exec.c, arch/arm64/mm/context.c.

namespace mmlab {
namespace {

constexpr int kNormalPriority = 120;            // Of a task whose niceness nobody changed.
constexpr uint64_t kAsids = uint64_t{1} << 16;  // ID_AA64MMFR0_EL1.ASIDBits of both CPUs; number 0 is the kernel's.

}  // namespace

bool Processes::Loaded(const AddressSpace& mm) const {
  return std::any_of(cpus_.begin(), cpus_.end(), [&](const auto& cpu) { return cpu.second.mm.get() == &mm; });
}

int Processes::MmCount(const AddressSpace& mm) const {
  int count = mm.mm_users > 0 ? 1 : 0;
  for (const auto& [number, cpu] : cpus_) {
    if (cpu.mm.get() != &mm) continue;
    const Process* current = Find(cpu.current);
    if (current == nullptr || current->mm.get() != &mm) ++count;
  }
  return count;
}

// new_context()
void Processes::GiveAsid(AddressSpace& mm) {
  const uint64_t generation_mask = ~(kAsids - 1);
  if ((mm.context_id & generation_mask) == asids_.generation) return;
  const auto taken = [&](uint32_t asid) { return asid < asids_.next || asids_.kept.contains(asid); };
  const auto old = static_cast<uint32_t>(mm.context_id & ~generation_mask);
  if (mm.context_id != 0) {
    // What was loaded when the generation ended keeps its number; what comes back does where the number is still free.
    if (Loaded(mm) || !taken(old)) {
      asids_.kept.insert(old);
      mm.context_id = asids_.generation | old;
      return;
    }
  }
  while (asids_.next < kAsids && asids_.kept.contains(asids_.next)) ++asids_.next;
  if (asids_.next == kAsids) {
    asids_.generation += kAsids;
    asids_.next = 1;
    asids_.kept.clear();
    for (const auto& [number, cpu] : cpus_) {
      if (cpu.mm != nullptr) asids_.kept.insert(static_cast<uint32_t>(cpu.mm->context_id & ~generation_mask));
    }
    while (asids_.kept.contains(asids_.next)) ++asids_.next;
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kAddressLayout, "all ASIDs are used up: a new generation starts and every TLB is flushed");
    }
  }
  mm.context_id = asids_.generation | asids_.next++;
}

void Processes::LoadMm(CpuContext& cpu, std::shared_ptr<AddressSpace> mm) {
  if (layout_.kind == LayoutKind::kArm64) GiveAsid(*mm);
  const std::shared_ptr<AddressSpace> before = std::exchange(cpu.mm, std::move(mm));
  // mmdrop(): the top table of an address space without users goes with its last borrower.
  if (before != nullptr && before->mm_users == 0 && !Loaded(*before)) paging_->DestroyTables(*before);
}

SysResult<uint64_t> Processes::SwitchTo(Pid pid, int cpu) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  const auto there = cpus_.find(cpu);
  if (process->mm == nullptr && (there == cpus_.end() || there->second.mm == nullptr)) return Errno::kEINVAL;
  // A task runs on one CPU: where it ran before, the idle task goes on with its tables.
  for (auto& [number, other] : cpus_) {
    if (other.current == pid && number != cpu) other.current = Pid();
  }
  CpuContext& on = cpus_[cpu];
  if (on.current != pid) ++switches_;
  if (Process* previous = FindMutable(on.current); previous != nullptr && previous != process && previous->mm == nullptr) {
    previous->active_mm = nullptr;
  }
  on.current = pid;
  const bool lazy = process->mm == nullptr;
  if (!lazy) LoadMm(on, process->mm);
  process->active_mm = on.mm;
  const PhysAddr base = layout_.page_size.StartOf(on.mm->pgd);
  if (Explanation* why = tracer_.explanation()) {
    ExplanationStep& step = why->Add(StepKind::kAddressLayout,
                                     lazy ? "a kernel thread has no address space: it borrows what is loaded (lazy TLB)"
                                          : (layout_.is_x86() ? "CR3 is loaded: TLB entries that are not global go"
                                                              : "TTBR0 is loaded, with the ASID that marks this process's TLB entries"));
    step.Number("cpu", cpu).Frame("pgd", on.mm->pgd).Number("mm_users", on.mm->mm_users).Number("mm_count", MmCount(*on.mm));
    if (!layout_.is_x86()) step.Number("asid", static_cast<int64_t>(on.mm->context_id & (kAsids - 1)));
  }
  return base.raw();
}

// exit_mm(): the last user of an address space takes it down.
void Processes::DropMm(Process& process) {
  paging_->SyncRss(process);
  if (process.mm == nullptr) return;
  if (--process.mm->mm_users == 0) {
    MmCall(Core(), process).ExitMmap();
    if (!Loaded(*process.mm)) paging_->DestroyTables(*process.mm);
  }
  process.mm = nullptr;
  process.active_mm = nullptr;
}

void Processes::Reap(Process& process) {
  DropMm(process);
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kSchedProcessExit, {process.comm, process.pid.raw(), kNormalPriority});
  }
  for (auto& [number, cpu] : cpus_) {
    if (cpu.current == process.pid) cpu.current = Pid();
  }
  SetCurrent(nullptr);
  processes_.erase(process.pid);
}

Errno Processes::Exit(Pid pid, int32_t code) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kSystemCallCheck, process->leads() ? "the process ends" : "one thread ends; the others go on").Number("code", code);
  }
  if (process->leads()) KillOtherThreads(*process);
  Reap(*process);
  return Errno::kOk;
}

Process& Processes::KillOtherThreads(Process& process) {
  const Pid group = process.thread_group;
  std::vector<Pid> others;
  for (const auto& [pid, other] : processes_) {
    if (other->thread_group == group && other.get() != &process) others.push_back(pid);
  }
  for (const Pid other : others) Reap(*Enter(other));
  if (!process.leads()) {
    // It takes the identity of the first thread.
    std::unique_ptr<Process> moved = std::move(processes_[process.pid]);
    processes_.erase(process.pid);
    for (auto& [number, cpu] : cpus_) {
      if (cpu.current == process.pid) cpu.current = group;
    }
    process.pid = group;
    processes_[group] = std::move(moved);
  }
  return *Enter(process.pid);
}

}  // namespace mmlab

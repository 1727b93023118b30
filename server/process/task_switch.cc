#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
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

constexpr int kNormalPriority = 120;                   // Of a task whose niceness nobody changed.
constexpr int kAsidBits = 16;                          // ID_AA64MMFR0_EL1.ASIDBits of both CPUs.
constexpr uint64_t kAsids = uint64_t{1} << kAsidBits;  // Number 0 is the kernel's.

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

std::optional<int> Processes::RunsOn(Pid pid) const {
  for (const auto& [number, cpu] : cpus_) {
    if (cpu.current == pid) return number;
  }
  return std::nullopt;
}

// check_and_switch_context() and new_context()
void Processes::GiveAsid(AddressSpace& mm) {
  const uint64_t generation_mask = ~(kAsids - 1);
  const auto explain = [&](absl::string_view text) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kAsidChoice, text)
          .Number("asid", static_cast<int64_t>(mm.context_id & (kAsids - 1)))
          .Number("generation", static_cast<int64_t>(asids_.generation >> kAsidBits));
    }
  };
  if ((mm.context_id & generation_mask) == asids_.generation) return explain("its ASID is of the present generation: it goes on");
  const auto taken = [&](uint32_t asid) { return asid < asids_.next || asids_.kept.contains(asid); };
  const auto old = static_cast<uint32_t>(mm.context_id & ~generation_mask);
  if (mm.context_id != 0) {
    // What was loaded when the generation ended keeps its number; what comes back does where the number is still free.
    if (Loaded(mm) || !taken(old)) {
      asids_.kept.insert(old);
      mm.context_id = asids_.generation | old;
      return explain("its ASID is of an older generation and still free: it keeps the number");
    }
  }
  while (asids_.next < kAsids && asids_.kept.contains(asids_.next)) ++asids_.next;
  const bool rollover = asids_.next == kAsids;
  if (rollover) {
    asids_.generation += kAsids;
    asids_.next = 1;
    asids_.kept.clear();
    for (const auto& [number, cpu] : cpus_) {
      if (cpu.mm != nullptr) asids_.kept.insert(static_cast<uint32_t>(cpu.mm->context_id & ~generation_mask));
    }
    while (asids_.kept.contains(asids_.next)) ++asids_.next;
  }
  mm.context_id = asids_.generation | asids_.next++;
  explain(rollover ? "all ASIDs were used up: a new generation starts, every TLB is flushed, and it takes a free number"
                   : "it had no ASID of this generation: it takes the next free number");
}

void Processes::LoadMm(int number, CpuContext& cpu, std::shared_ptr<AddressSpace> mm) {
  if (layout_.kind == LayoutKind::kArm64) GiveAsid(*mm);
  const std::shared_ptr<AddressSpace> before = std::exchange(cpu.mm, std::move(mm));
  if (layout_.is_x86()) {
    if (before != nullptr) before->cpu_mask &= ~(uint64_t{1} << number);
    cpu.mm->cpu_mask |= uint64_t{1} << number;
  }
  // mmdrop(): the top table of an address space without users goes with its last borrower.
  if (before != nullptr && before->mm_users == 0 && !Loaded(*before)) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kContextSwitch, "nobody borrows the address space of an ended process any more: its top table goes")
          .Frame("pgd", before->pgd);
    }
    paging_->DestroyTables(*before);
  }
}

void Processes::ExplainSwitch(int cpu, Pid previous, const Process& next, const AddressSpace* loaded_before) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  const AddressSpace& mm = *next.active_mm;
  const bool same = &mm == loaded_before;
  const char* text = "CR3 is loaded: TLB entries that are not global go";
  if (next.mm == nullptr) {
    text = "a kernel thread has no address space: it borrows what is loaded (lazy TLB), and nothing is loaded";
  } else if (same) {
    text = "its tables are loaded already: nothing is loaded, and the TLB keeps its entries";
  } else if (!layout_.is_x86()) {
    text = "TTBR0_EL1 is loaded, and TTBR1_EL1 with the ASID: TLB entries of other ASIDs stay and do not match";
  }
  ExplanationStep& step = why->Add(StepKind::kContextSwitch, text)
                              .Number("cpu", cpu)
                              .Number("previous", previous.raw())
                              .Number("next", next.pid.raw())
                              .Physical("base", layout_.page_size.StartOf(mm.pgd));
  if (!layout_.is_x86()) step.Number("asid", static_cast<int64_t>(mm.context_id & (kAsids - 1)));
  step.Number("mm_users", mm.mm_users).Number("mm_count", MmCount(mm));
}

SysResult<uint64_t> Processes::SwitchTo(Pid pid, int cpu) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  const auto there = cpus_.find(cpu);
  if (process->mm == nullptr && (there == cpus_.end() || there->second.mm == nullptr)) {
    return Refuse(Errno::kEINVAL, "a task without an address space, on a CPU where none was loaded that it could borrow");
  }
  // A task runs on one CPU: where it ran before, the idle task goes on with its tables.
  for (auto& [number, other] : cpus_) {
    if (other.current != pid || number == cpu) continue;
    other.current = Pid();
    ++process->switches;
  }
  CpuContext& on = cpus_[cpu];
  if (on.current != pid) ++switches_;
  const Pid previous_pid = on.current;
  if (Process* previous = FindMutable(on.current); previous != nullptr && previous != process) {
    ++previous->switches;
    if (previous->mm == nullptr) previous->active_mm = nullptr;
  }
  on.current = pid;
  const AddressSpace* loaded_before = on.mm.get();
  if (process->mm != nullptr) LoadMm(cpu, on, process->mm);
  process->active_mm = on.mm;
  ExplainSwitch(cpu, previous_pid, *process, loaded_before);
  return layout_.page_size.StartOf(on.mm->pgd).raw();
}

// complete_vfork_done(): the child no longer uses the memory that its parent may lend it.
void Processes::EndVfork(Process& child) {
  Process* parent = FindMutable(std::exchange(child.vfork_parent, Pid()));
  if (parent == nullptr || parent->vfork_child != child.pid) return;
  parent->vfork_child = Pid();
  --held_;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kSystemCallCheck, "the parent that waits in vfork() goes on").Number("parent", parent->pid.raw());
  }
}

// exit_mm(): the last user of an address space takes it down.
void Processes::DropMm(Process& process) {
  if (process.vfork_parent != Pid()) EndVfork(process);
  paging_->SyncRss(process);
  if (process.mm == nullptr) return;
  if (--process.mm->mm_users == 0) {
    MmCall(Core(), process).ExitMmap();
    if (!Loaded(*process.mm)) paging_->DestroyTables(*process.mm);
  }
  process.mm = nullptr;
  process.active_mm = nullptr;
}

void Processes::LeaveComm(Process& process, const std::string& comm) {
  const FaultCounts now{process.minor_faults, process.major_faults};
  const FaultCounts before = std::exchange(process.faults_before_comm, now);
  if (now.minor == before.minor && now.major == before.major) return;
  const auto it = former_faults_.find(comm);
  if (it == former_faults_.end() && former_faults_.size() == kMaxFormerComms) return;
  FaultCounts& former = it == former_faults_.end() ? former_faults_[comm] : it->second;
  former.minor += now.minor - before.minor;
  former.major += now.major - before.major;
}

void Processes::Reap(Process& process) {
  DropMm(process);
  LeaveComm(process, process.comm);
  if (process.vfork_child != Pid()) --held_;
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

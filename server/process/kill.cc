#include <memory>
#include <vector>

#include "server/base/event.h"
#include "server/process/address_space.h"
#include "server/process/commit_account.h"
#include "server/process/paging.h"
#include "server/process/processes.h"

// SIGKILL of the OOM killer, and who is dear to it: __oom_kill_process() of mm/oom_kill.c, __set_oom_adj() of fs/proc/base.c.

namespace mmlab {

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
  SetCurrent(acting);
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
  if (value < -kMost || value > kMost) return Refuse(Errno::kEINVAL, "outside -1000 .. 1000");
  if (value < process->oom_score_adj_min && !process->capable()) return Refuse(Errno::kEACCES, "lower than root once set it");
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kOomScore, "each unit counts as a thousandth of RAM and swap when somebody must die")
        .Number("before", process->oom_score_adj)
        .Number("after", value);
  }
  process->oom_score_adj = static_cast<int32_t>(value);
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kOomScoreAdjUpdate, {pid.raw(), process->comm, process->oom_score_adj});
  if (process->capable()) process->oom_score_adj_min = process->oom_score_adj;
  return Errno::kOk;
}

}  // namespace mmlab

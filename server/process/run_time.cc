#include <algorithm>
#include <limits>

#include "server/base/load_average.h"
#include "server/process/process.h"
#include "server/process/processes.h"

// What passes while the machine's clock moves: kernel/sched/cputime.c and kernel/sched/loadavg.c. Operations themselves take no time; a
// task that a CPU was switched to runs until it is switched away.

namespace mmlab {
namespace {

constexpr int64_t kLoadPeriod = 1251 * int64_t{4'000'000};          // LOAD_FREQ, with CONFIG_HZ=250, ns.
constexpr std::array<uint64_t, 3> kLoadFades = {1884, 2014, 2037};  // EXP_1, EXP_5, EXP_15

}  // namespace

void Processes::PassTime(int64_t nanoseconds) {
  for (auto& [number, cpu] : cpus_) {
    Process* task = FindMutable(cpu.current);
    if (task == nullptr) continue;
    task->run_nanoseconds += nanoseconds;
    (task->kernel_thread ? cpu.time.system_nanoseconds : cpu.time.user_nanoseconds) += nanoseconds;
  }
  now_ns_ += nanoseconds;
  if (next_load_update_ == 0) next_load_update_ = kLoadPeriod;
  if (now_ns_ < next_load_update_) return;
  const int64_t periods = 1 + (now_ns_ - next_load_update_) / kLoadPeriod;
  if (__builtin_add_overflow(next_load_update_, periods * kLoadPeriod, &next_load_update_)) {
    next_load_update_ = std::numeric_limits<int64_t>::max();
  }
  const uint64_t active = static_cast<uint64_t>(running()) * kLoadOne;
  for (size_t i = 0; i < load_.size(); ++i) load_[i] = FadeLoadBy(static_cast<uint64_t>(periods), load_[i], kLoadFades[i], active);
}

Errno Processes::SetCgroup(Pid pid, uint32_t cgroup) {
  const Process* process = Find(pid);
  if (process == nullptr) return Errno::kESRCH;
  const Pid group = process->thread_group;
  for (auto& [other_pid, other] : processes_) {
    if (other->thread_group == group) other->cgroup = cgroup;
  }
  return Errno::kOk;
}

CpuTime Processes::cpu_time(int cpu) const {
  const auto it = cpus_.find(cpu);
  return it == cpus_.end() ? CpuTime() : it->second.time;
}

int Processes::running() const {
  return static_cast<int>(std::count_if(cpus_.begin(), cpus_.end(), [](const auto& cpu) { return cpu.second.current != Pid(); }));
}

}  // namespace mmlab

#ifndef MMLAB_SERVER_CGROUP_PSI_GROUP_H_
#define MMLAB_SERVER_CGROUP_PSI_GROUP_H_

#include <array>
#include <cstdint>
#include <string>

#include "server/base/hash.h"
#include "server/physical/memory_controller.h"

namespace mmlab {

// How long the tasks of one cgroup, or of the machine, were kept waiting for a resource. Linux: struct psi_group, kernel/sched/psi.c.
//
// An operation is the only thing that runs while it runs, so whenever its task waits, nobody works: `some` and `full` are the same. Nothing
// ever waits for a CPU. Averages move with the machine's time, every two seconds and a tick.
class PsiGroup {
 public:
  // `now`: nanoseconds since the machine booted.
  explicit PsiGroup(int64_t now) : next_update_(now + kPeriod) {}

  void Stall(StallKind kind, int64_t nanoseconds) { resources_[static_cast<size_t>(kind)].total += nanoseconds; }
  // Time has come to `now`.
  void Advance(int64_t now);

  // Microseconds.
  int64_t total(StallKind kind) const { return resources_[static_cast<size_t>(kind)].total / 1000; }
  // The two lines of /proc/pressure/memory, /proc/pressure/io and of memory.pressure.
  std::string Text(StallKind kind) const;
  // Those of /proc/pressure/cpu.
  static std::string CpuText();

  void AddToHash(StateHasher& hasher) const;

 private:
  static constexpr int64_t kTick = 4'000'000;      // CONFIG_HZ=250, ns.
  static constexpr int64_t kPeriod = 501 * kTick;  // PSI_FREQ

  struct Resource {
    int64_t total = 0;    // ns.
    int64_t sampled = 0;  // As much of it is in the averages.
    std::array<uint64_t, 3> averages{};
  };

  std::array<Resource, 2> resources_;  // By StallKind.
  int64_t next_update_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_CGROUP_PSI_GROUP_H_

#ifndef MMLAB_CLIENT_PROCPS_TOP_H_
#define MMLAB_CLIENT_PROCPS_TOP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/procps/proc_text.h"

namespace mmlab {

// A process as top(1) shows it.
struct TopTask {
  int32_t pid = 0;
  uint32_t uid = 0;
  std::string command;
  char state = 'S';
  int64_t priority = 20;
  int64_t nice = 0;
  uint64_t virtual_kib = 0;
  uint64_t resident_kib = 0;
  uint64_t shared_kib = 0;   // Of files and shmem.
  uint64_t ticks = 0;        // On a CPU so far, 10 ms each.
  uint64_t start_ticks = 0;  // When it began, since boot.
};

// A look at a machine.
struct TopSample {
  ProcStat stat;
  ProcNumbers meminfo;
  std::string loadavg;       // /proc/loadavg
  int64_t time_seconds = 0;  // The machine's clock, Unix time.
  int64_t uptime_seconds = 0;
  uint64_t uptime_ticks = 0;
  std::vector<TopTask> tasks;  // By pid.
};

// From /proc/PID/stat and /proc/PID/statm. Nothing: they are not what they should be.
std::optional<TopTask> ParseTopTask(const std::string& stat, const std::string& statm, uint32_t uid);

// The screen, as top of procps 4.0 draws it in batch mode, busiest first. %CPU is since `before`, and without it over the process's life.
// At most `rows` processes; 0: all.
std::string TopText(const TopSample* before, const TopSample& now, size_t rows);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_PROCPS_TOP_H_

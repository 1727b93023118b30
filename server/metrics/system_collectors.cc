// node_exporter's collectors uname, time, stat and processes: names, types and HELP of its release 1.5.0, for what is simulated.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "server/metrics/collector.h"

namespace mmlab {

Families CollectUname(const MachineSnapshot& snapshot) {
  auto info = GaugeFamily("node_uname_info", "Labeled system information as provided by the uname system call.");
  AddSample(info,
            {{"domainname", "(none)"},
             {"machine", snapshot.uname_machine},
             {"nodename", snapshot.hostname},
             {"release", snapshot.kernel_release},
             {"sysname", "Linux"},
             {"version", snapshot.kernel_version}},
            1);
  Families families;
  families.push_back(std::move(info));
  return families;
}

Families CollectTime(const MachineSnapshot& snapshot) {
  return {Gauge("node_time_seconds", "System time in seconds since epoch (1970).", static_cast<double>(snapshot.now_nanoseconds) / 1e9)};
}

Families CollectStat(const MachineSnapshot& snapshot) {
  Families families;
  for (const absl::string_view line : absl::StrSplit(snapshot.stat, '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    double value = 0;
    if (words.size() < 2 || !absl::SimpleAtod(words[1], &value)) continue;
    if (words[0] == "btime") families.push_back(Gauge("node_boot_time_seconds", "Node boot time, in unixtime.", value));
    if (words[0] == "processes") families.push_back(Counter("node_forks_total", "Total number of forks.", value));
    if (words[0] == "intr") families.push_back(Counter("node_intr_total", "Total number of interrupts serviced.", value));
    if (words[0] == "ctxt") families.push_back(Counter("node_context_switches_total", "Total number of context switches.", value));
    if (words[0] == "procs_running") families.push_back(Gauge("node_procs_running", "Number of processes in runnable state.", value));
    if (words[0] == "procs_blocked") {
      families.push_back(Gauge("node_procs_blocked", "Number of processes blocked waiting for I/O to complete.", value));
    }
  }
  return families;
}

Families CollectProcesses(const MachineSnapshot& snapshot) {
  auto states = GaugeFamily("node_processes_state", "Number of processes in each state.");
  for (const auto& [letter, count] : snapshot.process_states) {
    AddSample(states, {{"state", absl::string_view(&letter, 1)}}, static_cast<double>(count));
  }
  return {std::move(states), Gauge("node_processes_pids", "Number of PIDs", static_cast<double>(snapshot.processes)),
          Gauge("node_processes_threads", "Allocated threads in system", static_cast<double>(snapshot.threads)),
          Gauge("node_processes_max_processes", "Number of max PIDs limit", static_cast<double>(snapshot.pid_max)),
          Gauge("node_processes_max_threads", "Limit of threads in the system", static_cast<double>(snapshot.threads_max))};
}

}  // namespace mmlab

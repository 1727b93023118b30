// process-exporter's groups of processes: names, types and HELP of its release 0.7.10. A group stays for its counters of faults when its
// last process has ended.
#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "server/metrics/collector.h"

namespace mmlab {
namespace {

constexpr size_t kMaxGroups = 50;
constexpr char kOthers[] = "_other";

constexpr std::array<const char*, 5> kStates = {"Running", "Sleeping", "Waiting", "Zombie", "Other"};
constexpr absl::string_view kStateLetters = "RSDZ";  // Of the first four, as /proc/PID/stat tells.

struct Group {
  uint64_t processes = 0;
  uint64_t threads = 0;
  double oldest_start = 0;  // Unix time; 0 = not known.
  std::array<uint64_t, kStates.size()> states{};
  uint64_t resident = 0, virtual_size = 0, swapped = 0, pss = 0, swap_pss = 0;  // Bytes.
  uint64_t minor_faults = 0, major_faults = 0;                                  // Also of tasks that have ended.

  void Add(const ProcessSample& task, int64_t boot_time_seconds) {
    AddStat(task.stat, boot_time_seconds);
    processes += task.leads ? 1 : 0;
    ++threads;
    resident += task.memory.vm_rss.raw();
    virtual_size += task.memory.vm_size.raw();
    swapped += task.memory.vm_swap.raw();
    minor_faults += task.faults.minor;
    major_faults += task.faults.major;
    pss += task.pss.raw();
    swap_pss += task.swap_pss.raw();
  }
  void Add(const Group& other) {
    for (uint64_t Group::*field :
         {&Group::processes, &Group::threads, &Group::resident, &Group::virtual_size, &Group::swapped, &Group::pss, &Group::swap_pss}) {
      this->*field += other.*field;
    }
    for (size_t i = 0; i < states.size(); ++i) states[i] += other.states[i];
    Started(other.oldest_start);
  }

 private:
  void Started(double at) {
    if (oldest_start == 0 || (at != 0 && at < oldest_start)) oldest_start = at;
  }
  // "7 (sh) S 1 ...": what follows the name, which may have anything in it.
  void AddStat(const std::string& stat, int64_t boot_time_seconds) {
    constexpr size_t kStartTime = 19;  // Field 22 of the line, in ticks since boot.
    constexpr double kUserHz = 100;
    const size_t name_end = stat.rfind(") ");
    if (name_end == std::string::npos) return;
    const std::vector<absl::string_view> fields = absl::StrSplit(absl::string_view(stat).substr(name_end + 2), ' ');
    double ticks = 0;
    if (fields.size() <= kStartTime || !absl::SimpleAtod(fields[kStartTime], &ticks)) return;
    Started(static_cast<double>(boot_time_seconds) + ticks / kUserHz);
    const size_t letter = kStateLetters.find(fields[0]);
    ++states[std::min(letter, kStates.size() - 1)];
  }
};

// The groups by comm, the largest ones for themselves and the rest as one.
std::vector<std::pair<std::string, Group>> GroupsOf(const MachineSnapshot& snapshot) {
  std::map<std::string, Group> by_comm;
  for (const ProcessSample& task : snapshot.tasks) by_comm[task.comm].Add(task, snapshot.boot_time_seconds);
  for (const auto& [comm, faults] : snapshot.former_faults) {
    by_comm[comm].minor_faults += faults.minor;
    by_comm[comm].major_faults += faults.major;
  }
  std::vector<std::pair<std::string, Group>> groups(by_comm.begin(), by_comm.end());
  if (groups.size() <= kMaxGroups) return groups;
  std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.second.resident > b.second.resident; });
  Group rest;
  for (size_t i = kMaxGroups; i < groups.size(); ++i) rest.Add(groups[i].second);
  groups.resize(kMaxGroups);
  groups.emplace_back(kOthers, rest);
  return groups;
}

}  // namespace

Families CollectProcess(const MachineSnapshot& snapshot) {
  auto processes = GaugeFamily("namedprocess_namegroup_num_procs", "number of processes in this group");
  auto threads = GaugeFamily("namedprocess_namegroup_num_threads", "Number of threads");
  auto memory = GaugeFamily("namedprocess_namegroup_memory_bytes", "number of bytes of memory in use");
  auto started =
      GaugeFamily("namedprocess_namegroup_oldest_start_time_seconds", "start time in seconds since 1970/01/01 of oldest process in group");
  auto major_faults = CounterFamily("namedprocess_namegroup_major_page_faults_total", "Major page faults");
  auto minor_faults = CounterFamily("namedprocess_namegroup_minor_page_faults_total", "Minor page faults");
  auto states = GaugeFamily("namedprocess_namegroup_states", "Number of processes in states Running, Sleeping, Waiting, Zombie, or Other");
  for (const auto& [name, group] : GroupsOf(snapshot)) {
    const auto add = [&name = name](prometheus::MetricFamily& family, uint64_t value) {
      AddSample(family, {{"groupname", name}}, static_cast<double>(value));
    };
    add(processes, group.processes);
    add(threads, group.threads);
    // The groups behind kOthers change, so a sum of their counters would fall.
    if (name != kOthers) {
      add(major_faults, group.major_faults);
      add(minor_faults, group.minor_faults);
    }
    if (group.oldest_start != 0) {
      AddSample(started, {{"groupname", name}}, group.oldest_start);
      for (size_t i = 0; i < kStates.size(); ++i) {
        AddSample(states, {{"groupname", name}, {"state", kStates[i]}}, static_cast<double>(group.states[i]));
      }
    }
    for (const auto& [type, bytes] : {std::pair<const char*, uint64_t>{"resident", group.resident},
                                      {"virtual", group.virtual_size},
                                      {"swapped", group.swapped},
                                      {"proportionalResident", group.pss},
                                      {"proportionalSwapped", group.swap_pss}}) {
      AddSample(memory, {{"groupname", name}, {"memtype", type}}, static_cast<double>(bytes));
    }
  }
  Families families;
  for (auto* family : {&processes, &threads, &memory, &major_faults, &minor_faults, &started, &states})
    families.push_back(std::move(*family));
  return families;
}

}  // namespace mmlab

// process-exporter's groups of processes: names, types and HELP of its release 0.7.10. Its counters of faults are not here: they go on
// counting when a process has ended, and what ended processes did is not kept.
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "server/metrics/collector.h"

namespace mmlab {
namespace {

constexpr size_t kMaxGroups = 50;
constexpr char kOthers[] = "_other";

struct Group {
  uint64_t processes = 0;
  uint64_t threads = 0;
  uint64_t resident = 0, virtual_size = 0, swapped = 0, pss = 0, swap_pss = 0;  // Bytes.

  void Add(const ProcessSample& task) {
    processes += task.leads ? 1 : 0;
    ++threads;
    resident += task.memory.vm_rss.raw();
    virtual_size += task.memory.vm_size.raw();
    swapped += task.memory.vm_swap.raw();
    pss += task.pss.raw();
    swap_pss += task.swap_pss.raw();
  }
  void Add(const Group& other) {
    for (uint64_t Group::*field :
         {&Group::processes, &Group::threads, &Group::resident, &Group::virtual_size, &Group::swapped, &Group::pss, &Group::swap_pss}) {
      this->*field += other.*field;
    }
  }
};

// The groups by comm, the largest ones for themselves and the rest as one.
std::vector<std::pair<std::string, Group>> GroupsOf(const MachineSnapshot& snapshot) {
  std::map<std::string, Group> by_comm;
  for (const ProcessSample& task : snapshot.tasks) by_comm[task.comm].Add(task);
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
  for (const auto& [name, group] : GroupsOf(snapshot)) {
    const auto add = [&name = name](prometheus::MetricFamily& family, uint64_t value) {
      AddSample(family, {{"groupname", name}}, static_cast<double>(value));
    };
    add(processes, group.processes);
    add(threads, group.threads);
    for (const auto& [type, bytes] : {std::pair<const char*, uint64_t>{"resident", group.resident},
                                      {"virtual", group.virtual_size},
                                      {"swapped", group.swapped},
                                      {"proportionalResident", group.pss},
                                      {"proportionalSwapped", group.swap_pss}}) {
      AddSample(memory, {{"groupname", name}, {"memtype", type}}, static_cast<double>(bytes));
    }
  }
  Families families;
  for (auto* family : {&processes, &threads, &memory}) families.push_back(std::move(*family));
  return families;
}

}  // namespace mmlab

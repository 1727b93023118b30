#ifndef MMLAB_SERVER_METRICS_COLLECTOR_H_
#define MMLAB_SERVER_METRICS_COLLECTOR_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/metrics/exposition.h"
#include "server/metrics/machine_snapshot.h"

namespace mmlab {

class Machine;

// A named part of a machine's probe, like a collector of node_exporter.
struct Collector {
  absl::string_view name;
  bool by_default;
  // Copies what it needs. Runs while the machine is held: by default microseconds, nothing but copying; what is on request may print a file
  // of /proc or walk page tables. False: the machine cannot show it, and the answer is as if there were no such collector.
  bool (*read)(const Machine& machine, MachineSnapshot& snapshot);
  // Makes samples of it. The machine is free by then.
  Families (*collect)(const MachineSnapshot& snapshot);
};

// All of them, by name.
absl::Span<const Collector> Collectors();
// Null: no such collector.
const Collector* FindCollector(absl::string_view name);

// Their second halves, by file: node_exporter's /proc files ...
Families CollectMeminfo(const MachineSnapshot& snapshot);
Families CollectMeminfoNuma(const MachineSnapshot& snapshot);
Families CollectVmstat(const MachineSnapshot& snapshot);
Families CollectVmstatAll(const MachineSnapshot& snapshot);
Families CollectBuddyinfo(const MachineSnapshot& snapshot);
Families CollectZoneinfo(const MachineSnapshot& snapshot);
// ... those whose source is the text of a file ...
Families CollectCpu(const MachineSnapshot& snapshot);
Families CollectKsmd(const MachineSnapshot& snapshot);
Families CollectLoadavg(const MachineSnapshot& snapshot);
Families CollectPressure(const MachineSnapshot& snapshot);
Families CollectSlabinfo(const MachineSnapshot& snapshot);
Families CollectSwap(const MachineSnapshot& snapshot);
// ... the system around memory ...
Families CollectUname(const MachineSnapshot& snapshot);
Families CollectTime(const MachineSnapshot& snapshot);
Families CollectStat(const MachineSnapshot& snapshot);
Families CollectProcesses(const MachineSnapshot& snapshot);
// ... cAdvisor's memory cgroups, process-exporter's groups of processes ...
Families CollectCgroup(const MachineSnapshot& snapshot);
Families CollectProcess(const MachineSnapshot& snapshot);
// ... and what no exporter has.
Families CollectMmlab(const MachineSnapshot& snapshot);
Families CollectPagetypeinfo(const MachineSnapshot& snapshot);

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_COLLECTOR_H_

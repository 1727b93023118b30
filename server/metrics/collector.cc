#include "server/metrics/collector.h"

#include "server/machine/machine.h"
#include "server/machine/sysctls.h"
#include "server/physical/page_allocator.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

void ReadZones(const Machine& machine, MachineSnapshot& snapshot) {
  if (!snapshot.zones.empty()) return;  // Another collector did.
  const auto zones = machine.memory().zones();
  snapshot.zones.assign(zones.begin(), zones.end());
  snapshot.has_numa = !machine.layout().is_x86();
  snapshot.has_cma = !machine.layout().is_x86();
}

void ReadZoneinfo(const Machine& machine, MachineSnapshot& snapshot) {
  ReadZones(machine, snapshot);
  snapshot.vm_stat = machine.vm_stat();
}

void ReadPagetypeinfo(const Machine& machine, MachineSnapshot& snapshot) {
  ReadZones(machine, snapshot);
  for (const Zone& zone : machine.memory().zones()) snapshot.pageblocks.push_back(machine.memory().PageblockCounts(zone));
}

void ReadMeminfo(const Machine& machine, MachineSnapshot& snapshot) { snapshot.meminfo = MeminfoFields(machine); }

void ReadVmstat(const Machine& machine, MachineSnapshot& snapshot) {
  if (snapshot.vmstat.empty()) snapshot.vmstat = VmstatFields(machine);
}

void ReadUname(const Machine& machine, MachineSnapshot& snapshot) {
  const MachineSpec& spec = machine.spec();
  snapshot.kernel_release = spec.kernel_release;
  snapshot.kernel_version = spec.kernel_version;
  snapshot.uname_machine = spec.kernel_machine;
  snapshot.hostname = spec.hostname;
}

void ReadTime(const Machine& machine, MachineSnapshot& snapshot) { snapshot.now_nanoseconds = machine.now_nanoseconds(); }

void ReadStat(const Machine& machine, MachineSnapshot& snapshot) {
  snapshot.boot_time_seconds = machine.spec().boot_time_seconds;
  snapshot.forks = machine.processes().forks();
}

void ReadProcesses(const Machine& machine, MachineSnapshot& snapshot) {
  snapshot.processes = machine.processes().all().size();
  snapshot.pid_max = machine.sysctls().value(Sysctl::kKernelPidMax);
  snapshot.threads_max = machine.sysctls().value(Sysctl::kKernelThreadsMax);
}

void ReadMmlab(const Machine& machine, MachineSnapshot& snapshot) {
  ReadZones(machine, snapshot);
  snapshot.layout = &machine.layout();
  snapshot.preset = machine.spec().preset;
  snapshot.kernel_release = machine.spec().kernel_release;
  snapshot.operations_applied = machine.operations_applied();
  snapshot.vma_count = machine.processes().vma_count();
}

constexpr Collector kCollectors[] = {
    {"buddyinfo", true, ReadZones, CollectBuddyinfo},
    {"meminfo", true, ReadMeminfo, CollectMeminfo},
    {"mmlab", true, ReadMmlab, CollectMmlab},
    {"pagetypeinfo", false, ReadPagetypeinfo, CollectPagetypeinfo},
    {"processes", true, ReadProcesses, CollectProcesses},
    {"stat", true, ReadStat, CollectStat},
    {"time", true, ReadTime, CollectTime},
    {"uname", true, ReadUname, CollectUname},
    {"vmstat", true, ReadVmstat, CollectVmstat},
    {"vmstat_all", false, ReadVmstat, CollectVmstatAll},
    {"zoneinfo", true, ReadZoneinfo, CollectZoneinfo},
};

}  // namespace

absl::Span<const Collector> Collectors() { return kCollectors; }

const Collector* FindCollector(absl::string_view name) {
  for (const Collector& collector : kCollectors) {
    if (collector.name == name) return &collector;
  }
  return nullptr;
}

}  // namespace mmlab

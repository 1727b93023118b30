#include "server/metrics/collector.h"

#include <array>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/arch/page_table_format.h"
#include "server/kernel/vmalloc.h"
#include "server/machine/machine.h"
#include "server/machine/sysctls.h"
#include "server/physical/page_allocator.h"
#include "server/process/address_space.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/procfs/process_files.h"
#include "server/procfs/procfs.h"

namespace mmlab {
namespace {

bool ReadZones(const Machine& machine, MachineSnapshot& snapshot) {
  if (!snapshot.zones.empty()) return true;  // Another collector did.
  snapshot.layout = &machine.layout();
  const auto zones = machine.memory().zones();
  snapshot.zones.assign(zones.begin(), zones.end());
  snapshot.has_numa = !machine.layout().is_x86();
  snapshot.has_cma = !machine.layout().is_x86();
  return true;
}

bool ReadZoneinfo(const Machine& machine, MachineSnapshot& snapshot) {
  snapshot.vm_stat = machine.vm_stat();
  return ReadZones(machine, snapshot);
}

bool ReadPagetypeinfo(const Machine& machine, MachineSnapshot& snapshot) {
  for (const Zone& zone : machine.memory().zones()) snapshot.pageblocks.push_back(machine.memory().PageblockCounts(zone));
  return ReadZones(machine, snapshot);
}

bool ReadMeminfo(const Machine& machine, MachineSnapshot& snapshot) {
  snapshot.meminfo = MeminfoFields(machine);
  return true;
}

bool ReadMeminfoNuma(const Machine& machine, MachineSnapshot& snapshot) {
  if (machine.layout().is_x86()) return false;  // Their kernels are built without CONFIG_NUMA.
  snapshot.node_meminfo = NodeMeminfoFields(machine);
  snapshot.numastat = NodeNumastatFields(machine);
  return true;
}

bool ReadKsmd(const Machine& machine, MachineSnapshot& snapshot) {
  for (const char* file : {"full_scans", "merge_across_nodes", "pages_shared", "pages_sharing", "pages_to_scan", "pages_unshared",
                           "pages_volatile", "run", "sleep_millisecs"}) {
    if (std::optional<std::string> text = machine.SysfsText(absl::StrCat("/sys/kernel/mm/ksm/", file))) {
      snapshot.ksm.emplace_back(file, *std::move(text));
    }
  }
  return !snapshot.ksm.empty();
}

bool ReadVmstat(const Machine& machine, MachineSnapshot& snapshot) {
  if (snapshot.vmstat.empty()) snapshot.vmstat = VmstatFields(machine);
  return true;
}

bool ReadUname(const Machine& machine, MachineSnapshot& snapshot) {
  const MachineSpec& spec = machine.spec();
  snapshot.kernel_release = spec.kernel_release;
  snapshot.kernel_version = spec.kernel_version;
  snapshot.uname_machine = spec.kernel_machine;
  snapshot.hostname = spec.hostname;
  return true;
}

bool ReadTime(const Machine& machine, MachineSnapshot& snapshot) {
  snapshot.now_nanoseconds = machine.now_nanoseconds();
  return true;
}

// The text of a file; false when the machine has none.
bool ReadText(const Machine& machine, absl::string_view path, std::string& text) {
  if (!text.empty()) return true;  // Another collector did.
  absl::StatusOr<std::string> read = ReadProcFile(machine, path);
  if (!read.ok()) return false;
  text = *std::move(read);
  return true;
}

bool ReadStat(const Machine& machine, MachineSnapshot& snapshot) { return ReadText(machine, "stat", snapshot.stat); }

bool ReadLoadavg(const Machine& machine, MachineSnapshot& snapshot) { return ReadText(machine, "loadavg", snapshot.loadavg); }

bool ReadPressure(const Machine& machine, MachineSnapshot& snapshot) {
  ReadText(machine, "pressure/irq", snapshot.pressure_irq);
  return ReadText(machine, "pressure/cpu", snapshot.pressure_cpu) && ReadText(machine, "pressure/io", snapshot.pressure_io) &&
         ReadText(machine, "pressure/memory", snapshot.pressure_memory);
}

// At most so many, by path.
constexpr size_t kMaxCgroups = 200;

bool ReadCgroup(const Machine& machine, MachineSnapshot& snapshot) {
  constexpr absl::string_view kRoot = "/sys/fs/cgroup/";
  constexpr absl::string_view kEach = "cgroup.procs";  // Every cgroup has it.
  for (const std::string& path : ListProcFiles(machine)) {
    if (!absl::StartsWith(path, kRoot) || !absl::EndsWith(path, absl::StrCat("/", kEach))) continue;
    if (snapshot.cgroups.size() == kMaxCgroups) break;
    const std::string folder = path.substr(0, path.size() - kEach.size());
    CgroupSample& sample = snapshot.cgroups.emplace_back();
    sample.path = absl::StrCat("/", absl::StripSuffix(folder.substr(kRoot.size()), "/"));
    for (const char* file : {"cgroup.procs", "cgroup.threads", "memory.current", "memory.events", "memory.max", "memory.min", "memory.peak",
                             "memory.pressure", "memory.stat", "memory.swap.current", "memory.swap.max"}) {
      if (absl::StatusOr<std::string> text = ReadProcFile(machine, folder + file); text.ok()) sample.files[file] = *std::move(text);
    }
  }
  return !snapshot.cgroups.empty();
}

bool ReadSlabinfo(const Machine& machine, MachineSnapshot& snapshot) { return ReadText(machine, "slabinfo", snapshot.slabinfo); }

bool ReadSwap(const Machine& machine, MachineSnapshot& snapshot) { return ReadText(machine, "swaps", snapshot.swaps); }

bool ReadProcesses(const Machine& machine, MachineSnapshot& snapshot) {
  for (const auto& [pid, process] : machine.processes().all()) {
    if (!process->leads()) continue;
    ++snapshot.processes;
    ++snapshot.process_states[TaskState(machine, *process)];
  }
  snapshot.threads = machine.processes().all().size();
  snapshot.pid_max = machine.sysctls().value(Sysctl::kKernelPidMax);
  snapshot.threads_max = machine.sysctls().value(Sysctl::kKernelThreadsMax);
  return true;
}

bool ReadProcess(const Machine& machine, MachineSnapshot& snapshot) {
  const auto& former = machine.processes().former_faults();
  snapshot.former_faults.insert(former.begin(), former.end());
  snapshot.boot_time_seconds = machine.spec().boot_time_seconds;
  for (const auto& [pid, process] : machine.processes().all()) {
    ProcessSample& sample = snapshot.tasks.emplace_back();
    sample.comm = process->comm;
    sample.leads = process->leads();
    sample.faults = {process->minor_faults - process->faults_before_comm.minor, process->major_faults - process->faults_before_comm.major};
    if (!sample.leads) continue;
    ReadText(machine, absl::StrCat(pid.raw(), "/stat"), sample.stat);
    if (process->mm == nullptr) continue;
    sample.memory = machine.processes().Status(*process);
    for (const Smaps& smaps : machine.processes().AllSmaps(*process)) {
      sample.pss = sample.pss + smaps.pss;
      sample.swap_pss = sample.swap_pss + smaps.swap_pss;
    }
  }
  return true;
}

// Page tables of all address spaces, also of those that only a CPU still borrows.
void ReadPageTables(const Machine& machine, MachineSnapshot& snapshot) {
  std::array<uint64_t, 5> pages{};
  absl::flat_hash_set<const AddressSpace*> seen;
  for (const auto& [pid, process] : machine.processes().all()) {
    for (const AddressSpace* mm : {process->mm.get(), process->active_mm.get()}) {
      if (mm == nullptr || !seen.insert(mm).second) continue;
      for (size_t level = 0; level < pages.size(); ++level) pages[level] += mm->table_pages[level];
    }
  }
  constexpr std::array<const char*, 5> kLevels = {"", "pte", "pmd", "pud", "pgd"};
  const auto top = static_cast<size_t>(PageTableFormat(machine.layout()).levels());
  for (size_t level = 1; level < top; ++level) snapshot.page_tables.emplace_back(kLevels[level], pages[level]);
  snapshot.page_tables.emplace_back(kLevels[4], pages[4]);
}

const char* SlabName(SlabAllocatorKind kind) {
  switch (kind) {
    case SlabAllocatorKind::kSlab:
      return "slab";
    case SlabAllocatorKind::kSlob:
      return "slob";
    default:
      return "slub";
  }
}

bool ReadMmlab(const Machine& machine, MachineSnapshot& snapshot) {
  ReadPageTables(machine, snapshot);
  snapshot.preset = machine.spec().preset;
  snapshot.slab = SlabName(machine.spec().slab_allocator);
  snapshot.kernel_release = machine.spec().kernel_release;
  snapshot.operations_applied = machine.operations_applied();
  snapshot.vma_count = machine.processes().vma_count();
  machine.ReadVmalloc([&](const Vmalloc& vmalloc) { snapshot.vmalloc_areas = vmalloc.areas().size(); });
  return ReadZones(machine, snapshot);
}

constexpr Collector kCollectors[] = {
    {"buddyinfo", true, ReadZones, CollectBuddyinfo},
    {"cgroup", false, ReadCgroup, CollectCgroup},
    {"cpu", true, ReadStat, CollectCpu},
    {"ksmd", false, ReadKsmd, CollectKsmd},
    {"loadavg", true, ReadLoadavg, CollectLoadavg},
    {"meminfo", true, ReadMeminfo, CollectMeminfo},
    {"meminfo_numa", false, ReadMeminfoNuma, CollectMeminfoNuma},
    {"mmlab", true, ReadMmlab, CollectMmlab},
    {"pagetypeinfo", false, ReadPagetypeinfo, CollectPagetypeinfo},
    {"pressure", true, ReadPressure, CollectPressure},
    {"process", false, ReadProcess, CollectProcess},
    {"processes", true, ReadProcesses, CollectProcesses},
    {"slabinfo", false, ReadSlabinfo, CollectSlabinfo},
    {"stat", true, ReadStat, CollectStat},
    {"swap", true, ReadSwap, CollectSwap},
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

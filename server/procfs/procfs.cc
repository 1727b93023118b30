#include "server/procfs/procfs.h"

#include <algorithm>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "server/cgroup/cgroups.h"
#include "server/files/files.h"
#include "server/kernel/vmallocinfo.h"
#include "server/machine/machine.h"
#include "server/machine/sysctls.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/procfs/iomem.h"
#include "server/procfs/lru_gen.h"
#include "server/procfs/meminfo.h"
#include "server/procfs/node_files.h"
#include "server/procfs/page_frames.h"
#include "server/procfs/pagemap.h"
#include "server/procfs/process_files.h"
#include "server/procfs/slabinfo.h"
#include "server/procfs/system_files.h"
#include "server/procfs/zones.h"

namespace mmlab {
namespace {

std::string CmdlineText(const Machine& machine) { return absl::StrCat(machine.spec().command_line, "\n"); }

std::string VersionText(const Machine& machine) {
  const MachineSpec& spec = machine.spec();
  return absl::StrCat("Linux version ", spec.kernel_release, " (", spec.kernel_built_by, ") (", spec.kernel_compiler, ") ",
                      spec.kernel_version, "\n");
}

// swap_show()
std::string SwapsText(const Machine& machine) {
  constexpr size_t kNameColumn = 40;
  std::string text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
  const auto add_size = [&](PageCount pages) {
    const uint64_t kbytes = machine.layout().page_size.BytesOf(pages).raw() >> 10;
    absl::StrAppend(&text, "\t", kbytes, kbytes < 10'000'000 ? "\t" : "");
  };
  for (const SwapAreaView& area : machine.files().swap().Views()) {
    const size_t padding = area.path.size() < kNameColumn ? kNameColumn - area.path.size() : 1;
    absl::StrAppend(&text, area.path, std::string(padding, ' '), area.file ? "file\t" : "partition");
    add_size(area.size);
    add_size(area.used);
    absl::StrAppend(&text, "\t", area.priority, "\n");
  }
  return text;
}

std::string HostnameText(const Machine& machine) { return absl::StrCat(machine.spec().hostname, "\n"); }
std::string OsreleaseText(const Machine& machine) { return absl::StrCat(machine.spec().kernel_release, "\n"); }
std::string KernelVersionText(const Machine& machine) { return absl::StrCat(machine.spec().kernel_version, "\n"); }
std::string OstypeText(const Machine&) { return "Linux\n"; }

struct MachineFile {
  absl::string_view path;
  std::string (*text)(const Machine&);
};
// Sorted. Those with a leading slash are not below /proc.
constexpr MachineFile kMachineFiles[] = {
    {"/sys/devices/system/node/node0/meminfo", NodeMeminfoText},
    {"/sys/devices/system/node/node0/numastat", NodeNumastatText},
    {"/sys/kernel/debug/extfrag/extfrag_index", ExtfragIndexText},
    {"/sys/kernel/debug/extfrag/unusable_index", UnusableIndexText},
    {"/sys/kernel/debug/lru_gen", LruGenText},
    {"buddyinfo", BuddyinfoText},
    {"cgroups", CgroupsText},
    {"cmdline", CmdlineText},
    {"diskstats", DiskstatsText},
    {"filesystems", FilesystemsText},
    {"iomem", IomemText},
    {"loadavg", LoadavgText},
    {"meminfo", MeminfoText},
    {"pagetypeinfo", PagetypeinfoText},
    {"pressure/cpu", PressureCpuText},
    {"pressure/io", PressureIoText},
    {"pressure/memory", PressureMemoryText},
    {"slabinfo", SlabinfoText},
    {"stat", ProcStatText},
    {"swaps", SwapsText},
    {"sys/kernel/hostname", HostnameText},
    {"sys/kernel/osrelease", OsreleaseText},
    {"sys/kernel/ostype", OstypeText},
    {"sys/kernel/version", KernelVersionText},
    {"uptime", UptimeText},
    {"version", VersionText},
    {"vmallocinfo",
     [](const Machine& m) {
       std::string text;
       m.ReadVmalloc([&](const Vmalloc& vmalloc) { text = VmallocinfoText(vmalloc, m.layout()); });
       return text;
     }},
    {"vmstat", VmstatText},
    {"zoneinfo", ZoneinfoText},
};

struct ProcessFile {
  absl::string_view name;
  std::string (*text)(const Machine&, const Process&);
};
// Sorted.
constexpr ProcessFile kProcessFiles[] = {
    {"auxv", AuxvBytes},
    {"cgroup", ProcessCgroupText},
    {"cmdline", CmdlineOfProcess},
    {"comm", [](const Machine&, const Process& p) { return CommText(p); }},
    {"environ", EnvironText},
    {"exe", [](const Machine&, const Process& p) { return ExeText(p); }},
    {"ksm_merging_pages", KsmMergingPagesText},
    {"ksm_stat", KsmStatText},
    {"limits", [](const Machine&, const Process& p) { return LimitsText(p); }},
    {"maps", MapsText},
    {"numa_maps", NumaMapsText},
    {"oom_adj", [](const Machine&, const Process& p) { return OomAdjText(p); }},
    {"oom_score", OomScoreText},
    {"oom_score_adj", [](const Machine&, const Process& p) { return OomScoreAdjText(p); }},
    {"pagemap", [](const Machine& m, const Process& p) { return ReadPagemap(m, p, 0, kMaxFrameFileBytes); }},
    {"smaps", SmapsText},
    {"smaps_rollup", SmapsRollupText},
    {"stat", StatText},
    {"statm", StatmText},
    {"status", StatusText},
    {"wchan", WchanText},
};

// What Linux has, and a machine cannot show yet.
constexpr absl::string_view kMissing[] = {
    "cpuinfo", "crypto", "devices",   "interrupts", "kmsg",        "locks",
    "modules", "mounts", "schedstat", "softirqs",   "sysvipc/shm", "timer_list",
};
constexpr absl::string_view kMissingOfProcess[] = {
    "clear_refs", "fd", "io", "map_files", "mem", "mounts", "sched", "schedstat", "stack",
};
constexpr absl::string_view kMissingOfCgroup[] = {"cgroup.freeze",   "cgroup.kill",      "cgroup.max.depth",     "cgroup.max.descendants",
                                                  "cgroup.pressure", "memory.numa_stat", "memory.zswap.current", "memory.zswap.max"};
constexpr absl::string_view kCgroupRoot = "/sys/fs/cgroup/";

// SLOB knows of no caches that it could list. CONFIG_NUMA: Debian's kernels for ARM64 have it, those for x86-32 do not.
bool Exists(const Machine& machine, const MachineFile& file) {
  if (absl::StartsWith(file.path, "/sys/devices/system/node/")) return !machine.layout().is_x86();
  return file.path != "slabinfo" || machine.spec().slab_allocator != SlabAllocatorKind::kSlob;
}
bool Exists(const Machine& machine, const ProcessFile& file) { return file.name != "numa_maps" || !machine.layout().is_x86(); }

template <typename List>
bool Holds(const List& list, absl::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

absl::Status NoSuchFile(absl::string_view path) { return absl::NotFoundError(absl::StrCat("/proc/", path, ": no such file")); }
absl::Status NotYet(absl::string_view path) { return absl::UnimplementedError(absl::StrCat("/proc/", path, " is not simulated yet")); }

// Files of a cgroup that only processes tell.
std::optional<std::string> CgroupProcessesText(const Machine& machine, uint32_t cgroup, absl::string_view file) {
  const bool threads = file == "cgroup.threads";
  if (!threads && file != "cgroup.procs") return std::nullopt;
  std::string out;
  for (const auto& [pid, process] : machine.processes().all()) {
    if (process->cgroup == cgroup && (threads || process->leads())) absl::StrAppend(&out, pid.raw(), "\n");
  }
  return out;
}

// "populated": somebody is in it or below it. The root has no such file.
std::string CgroupEventsText(const Machine& machine, uint32_t cgroup) {
  bool populated = false;
  for (const auto& [pid, process] : machine.processes().all()) {
    for (uint32_t at = process->cgroup; at != 0; at = machine.cgroups().cgroup(at).parent) populated = populated || at == cgroup;
  }
  return absl::StrCat("populated ", populated ? 1 : 0, "\nfrozen 0\n");
}

// `path` below /sys/fs/cgroup: "a/b/memory.max".
absl::StatusOr<std::string> ReadCgroupFile(const Machine& machine, absl::string_view path) {
  const size_t slash = path.rfind('/');
  const absl::string_view file = slash == absl::string_view::npos ? path : path.substr(slash + 1);
  const std::optional<uint32_t> id = machine.cgroups().Find(slash == absl::string_view::npos ? "" : path.substr(0, slash));
  const std::string full = absl::StrCat(kCgroupRoot, path);
  if (!id) return absl::NotFoundError(absl::StrCat(full, ": no such cgroup"));
  if (*id != 0 && file == "cgroup.events") return CgroupEventsText(machine, *id);
  std::optional<std::string> text = CgroupProcessesText(machine, *id, file);
  if (!text) text = machine.cgroups().Read(*id, file);
  if (text) return *std::move(text);
  return Holds(kMissingOfCgroup, file) ? absl::UnimplementedError(absl::StrCat(full, " is not simulated yet"))
                                       : absl::NotFoundError(absl::StrCat(full, ": no such file, or one that can only be written"));
}

absl::StatusOr<std::string> ReadProcessFile(const Machine& machine, Pid pid, absl::string_view name, absl::string_view path) {
  const Process* process = machine.processes().Find(pid);
  if (process == nullptr) return absl::NotFoundError(absl::StrCat("/proc/", path, ": no process ", pid.raw()));
  for (const ProcessFile& file : kProcessFiles) {
    if (file.name == name && Exists(machine, file)) return file.text(machine, *process);
  }
  return Holds(kMissingOfProcess, name) ? NotYet(path) : NoSuchFile(path);
}

}  // namespace

std::vector<std::string> ListProcFiles(const Machine& machine) {
  std::vector<std::string> paths;
  for (const MachineFile& file : kMachineFiles) {
    if (Exists(machine, file)) paths.emplace_back(file.path);
  }
  for (const absl::string_view name : kFrameFiles) paths.emplace_back(name);
  for (std::string& path : machine.SysfsPaths()) paths.push_back(std::move(path));
  for (absl::string_view name : machine.sysctls().Names()) {
    if (!machine.sysctls().Text(*machine.sysctls().Find(name))) continue;
    paths.push_back(absl::StrCat("sys/", absl::StrReplaceAll(name, {{".", "/"}})));
  }
  for (const uint32_t id : machine.cgroups().All()) {
    const std::string folder = id == 0 ? std::string(kCgroupRoot) : absl::StrCat(kCgroupRoot, machine.cgroups().PathOf(id).substr(1), "/");
    for (absl::string_view name : machine.cgroups().FileNames(id)) {
      if (machine.cgroups().Read(id, name)) paths.push_back(absl::StrCat(folder, name));
    }
    for (const char* name : {"cgroup.procs", "cgroup.threads"}) paths.push_back(absl::StrCat(folder, name));
    if (id != 0) paths.push_back(absl::StrCat(folder, "cgroup.events"));
  }
  for (const auto& [pid, process] : machine.processes().all()) {
    for (std::string& path : ListProcFiles(machine, pid)) paths.push_back(std::move(path));
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<std::string> ListProcFiles(const Machine& machine, Pid pid) {
  std::vector<std::string> paths;
  if (machine.processes().Find(pid) == nullptr) return paths;
  for (const ProcessFile& file : kProcessFiles) {
    if (Exists(machine, file)) paths.push_back(absl::StrCat(pid.raw(), "/", file.name));
  }
  return paths;
}

absl::StatusOr<std::string> ReadProcFile(const Machine& machine, absl::string_view path) {
  absl::ConsumePrefix(&path, "/proc/");
  if (absl::string_view below = path; absl::ConsumePrefix(&below, kCgroupRoot)) return ReadCgroupFile(machine, below);
  if (IsFrameFile(path)) return ReadFrameFile(machine, path, 0, kMaxFrameFileBytes);
  for (const MachineFile& file : kMachineFiles) {
    if (file.path == path && Exists(machine, file)) return file.text(machine);
  }
  if (absl::StartsWith(path, "/sys/kernel/mm/") || absl::StartsWith(path, "/sys/devices/system/node/")) {
    std::optional<std::string> text = machine.SysfsText(path);
    return text ? absl::StatusOr<std::string>(*std::move(text)) : absl::NotFoundError(absl::StrCat(path, ": no such file"));
  }
  if (absl::string_view name = path; absl::ConsumePrefix(&name, "sys/")) {
    const std::optional<Sysctl> id = machine.sysctls().Find(absl::StrReplaceAll(name, {{"/", "."}}));
    if (!id) return NoSuchFile(path);
    std::optional<std::string> text = machine.sysctls().Text(*id);
    return text ? absl::StatusOr<std::string>(*std::move(text)) : NotYet(path);
  }
  if (const size_t slash = path.find('/'); slash != absl::string_view::npos) {
    int32_t pid = 0;
    if (absl::SimpleAtoi(path.substr(0, slash), &pid) && pid > 0 && absl::StrCat(pid) == path.substr(0, slash)) {
      return ReadProcessFile(machine, Pid(pid), path.substr(slash + 1), path);
    }
  }
  return Holds(kMissing, path) ? NotYet(path) : NoSuchFile(path);
}

}  // namespace mmlab

#include "server/procfs/procfs.h"

#include <algorithm>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "server/kernel/vmallocinfo.h"
#include "server/machine/machine.h"
#include "server/machine/sysctls.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/procfs/iomem.h"
#include "server/procfs/meminfo.h"
#include "server/procfs/process_files.h"
#include "server/procfs/slabinfo.h"
#include "server/procfs/zones.h"

namespace mmlab {
namespace {

std::string CmdlineText(const Machine& machine) { return absl::StrCat(machine.spec().command_line, "\n"); }

std::string VersionText(const Machine& machine) {
  const MachineSpec& spec = machine.spec();
  return absl::StrCat("Linux version ", spec.kernel_release, " (", spec.kernel_built_by, ") (", spec.kernel_compiler, ") ",
                      spec.kernel_version, "\n");
}

std::string SwapsText(const Machine&) { return "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"; }

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
    {"/sys/kernel/debug/extfrag/extfrag_index", ExtfragIndexText},
    {"/sys/kernel/debug/extfrag/unusable_index", UnusableIndexText},
    {"buddyinfo", BuddyinfoText},
    {"cmdline", CmdlineText},
    {"iomem", IomemText},
    {"meminfo", MeminfoText},
    {"pagetypeinfo", PagetypeinfoText},
    {"slabinfo", SlabinfoText},
    {"swaps", SwapsText},
    {"sys/kernel/hostname", HostnameText},
    {"sys/kernel/osrelease", OsreleaseText},
    {"sys/kernel/ostype", OstypeText},
    {"sys/kernel/version", KernelVersionText},
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
    {"comm", [](const Machine&, const Process& p) { return CommText(p); }},
    {"ksm_merging_pages", KsmMergingPagesText},
    {"ksm_stat", KsmStatText},
    {"limits", [](const Machine&, const Process& p) { return LimitsText(p); }},
    {"maps", MapsText},
    {"oom_score", OomScoreText},
    {"oom_score_adj", [](const Machine&, const Process& p) { return OomScoreAdjText(p); }},
    {"smaps", SmapsText},
    {"smaps_rollup", SmapsRollupText},
    {"statm", StatmText},
    {"status", StatusText},
};

// What Linux has, and a machine cannot show yet.
constexpr absl::string_view kMissing[] = {
    "cgroups",     "cpuinfo",         "crypto",     "devices",  "diskstats", "filesystems", "interrupts", "kmsg",
    "kpagecgroup", "kpagecount",      "kpageflags", "loadavg",  "locks",     "modules",     "mounts",     "pressure/cpu",
    "pressure/io", "pressure/memory", "schedstat",  "softirqs", "stat",      "sysvipc/shm", "timer_list", "uptime",
};
constexpr absl::string_view kMissingOfProcess[] = {
    "auxv", "cgroup", "clear_refs", "cmdline", "environ", "exe",       "fd",    "io",   "map_files",
    "mem",  "mounts", "numa_maps",  "pagemap", "sched",   "schedstat", "stack", "stat", "wchan",
};

template <typename List>
bool Holds(const List& list, absl::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

absl::Status NoSuchFile(absl::string_view path) { return absl::NotFoundError(absl::StrCat("/proc/", path, ": no such file")); }
absl::Status NotYet(absl::string_view path) { return absl::UnimplementedError(absl::StrCat("/proc/", path, " is not simulated yet")); }

absl::StatusOr<std::string> ReadProcessFile(const Machine& machine, Pid pid, absl::string_view name, absl::string_view path) {
  const Process* process = machine.processes().Find(pid);
  if (process == nullptr) return absl::NotFoundError(absl::StrCat("/proc/", path, ": no process ", pid.raw()));
  for (const ProcessFile& file : kProcessFiles) {
    if (file.name == name) return file.text(machine, *process);
  }
  return Holds(kMissingOfProcess, name) ? NotYet(path) : NoSuchFile(path);
}

}  // namespace

std::vector<std::string> ListProcFiles(const Machine& machine) {
  std::vector<std::string> paths;
  for (const MachineFile& file : kMachineFiles) paths.emplace_back(file.path);
  for (std::string& path : machine.SysfsPaths()) paths.push_back(std::move(path));
  for (absl::string_view name : machine.sysctls().Names()) {
    if (!machine.sysctls().Text(*machine.sysctls().Find(name))) continue;
    paths.push_back(absl::StrCat("sys/", absl::StrReplaceAll(name, {{".", "/"}})));
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
  for (const ProcessFile& file : kProcessFiles) paths.push_back(absl::StrCat(pid.raw(), "/", file.name));
  return paths;
}

absl::StatusOr<std::string> ReadProcFile(const Machine& machine, absl::string_view path) {
  absl::ConsumePrefix(&path, "/proc/");
  for (const MachineFile& file : kMachineFiles) {
    if (file.path == path) return file.text(machine);
  }
  if (absl::StartsWith(path, "/sys/kernel/mm/")) {
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

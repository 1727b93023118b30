#include "server/procfs/procfs.h"

#include <algorithm>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "server/files/files.h"
#include "server/kernel/vmallocinfo.h"
#include "server/machine/machine.h"
#include "server/machine/sysctls.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/procfs/iomem.h"
#include "server/procfs/meminfo.h"
#include "server/procfs/page_frames.h"
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
    {"auxv", AuxvBytes},
    {"cmdline", CmdlineOfProcess},
    {"comm", [](const Machine&, const Process& p) { return CommText(p); }},
    {"environ", EnvironText},
    {"exe", [](const Machine&, const Process& p) { return ExeText(p); }},
    {"limits", [](const Machine&, const Process& p) { return LimitsText(p); }},
    {"maps", MapsText},
    {"numa_maps", NumaMapsText},
    {"oom_adj", [](const Machine&, const Process& p) { return OomAdjText(p); }},
    {"oom_score", OomScoreText},
    {"oom_score_adj", [](const Machine&, const Process& p) { return OomScoreAdjText(p); }},
    {"smaps", SmapsText},
    {"smaps_rollup", SmapsRollupText},
    {"stat", StatText},
    {"statm", StatmText},
    {"status", StatusText},
};

// What Linux has, and a machine cannot show yet.
constexpr absl::string_view kMissing[] = {
    "cgroups",  "cpuinfo", "crypto",      "devices",    "diskstats",    "filesystems", "interrupts",      "kmsg",
    "loadavg",  "locks",   "modules",     "mounts",     "pressure/cpu", "pressure/io", "pressure/memory", "schedstat",
    "softirqs", "stat",    "sysvipc/shm", "timer_list", "uptime",
};
constexpr absl::string_view kMissingOfProcess[] = {
    "cgroup", "clear_refs", "fd", "io", "map_files", "mem", "mounts", "pagemap", "sched", "schedstat", "stack", "wchan",
};

// SLOB knows of no caches that it could list.
bool Exists(const Machine& machine, const MachineFile& file) {
  return file.path != "slabinfo" || machine.spec().slab_allocator != SlabAllocatorKind::kSlob;
}
// CONFIG_NUMA: Debian's kernels for ARM64 have it, those for x86-32 do not.
bool Exists(const Machine& machine, const ProcessFile& file) { return file.name != "numa_maps" || !machine.layout().is_x86(); }

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
  for (const ProcessFile& file : kProcessFiles) {
    if (Exists(machine, file)) paths.push_back(absl::StrCat(pid.raw(), "/", file.name));
  }
  return paths;
}

absl::StatusOr<std::string> ReadProcFile(const Machine& machine, absl::string_view path) {
  absl::ConsumePrefix(&path, "/proc/");
  if (IsFrameFile(path)) return ReadFrameFile(machine, path, 0, kMaxFrameFileBytes);
  for (const MachineFile& file : kMachineFiles) {
    if (file.path == path && Exists(machine, file)) return file.text(machine);
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

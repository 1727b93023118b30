#include "server/procfs/system_files.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/load_average.h"
#include "server/cgroup/cgroups.h"
#include "server/files/files.h"
#include "server/machine/machine.h"
#include "server/process/process.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

constexpr int64_t kTick = 10'000'000;  // USER_HZ=100, ns.
constexpr int64_t kSecond = 1'000'000'000;

// What a kernel has built in; file systems that come as modules are not listed.
constexpr const char* kFileSystems[] = {"sysfs",    "tmpfs",     "bdev",    "proc",       "cgroup", "cgroup2", "cpuset",
                                        "devtmpfs", "debugfs",   "tracefs", "securityfs", "sockfs", "bpf",     "pipefs",
                                        "ramfs",    "hugetlbfs", "devpts",  "mqueue",     "pstore"};

// user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice. An operation takes no time; while the clock moves, a CPU runs
// the task that it was switched to, or is idle.
void AppendCpu(std::string& out, const std::string& name, CpuTime time, int64_t uptime) {
  const int64_t idle = uptime - time.user_nanoseconds - time.system_nanoseconds;
  absl::StrAppend(&out, name, " ", time.user_nanoseconds / kTick, " 0 ", time.system_nanoseconds / kTick, " ",
                  std::max<int64_t>(0, idle) / kTick, " 0 0 0 0 0 0\n");
}

}  // namespace

std::string ProcStatText(const Machine& machine) {
  const Processes& processes = machine.processes();
  const int cpus = machine.spec().cpus;
  CpuTime all;
  std::string each;
  for (int cpu = 0; cpu < cpus; ++cpu) {
    const CpuTime time = processes.cpu_time(cpu);
    all.user_nanoseconds += time.user_nanoseconds;
    all.system_nanoseconds += time.system_nanoseconds;
    AppendCpu(each, absl::StrCat("cpu", cpu), time, processes.time());
  }
  std::string out;
  AppendCpu(out, "cpu ", all, processes.time() * cpus);
  // No lines intr and softirq: interrupts are not simulated.
  absl::StrAppend(&out, each, "ctxt ", processes.switches(), "\nbtime ", machine.spec().boot_time_seconds, "\nprocesses ",
                  processes.tasks_made(), "\nprocs_running ", processes.running(), "\nprocs_blocked 0\n");
  return out;
}

std::string LoadavgText(const Machine& machine) {
  const Processes& processes = machine.processes();
  std::string out;
  for (const uint64_t load : processes.load_averages()) {
    const uint64_t rounded = load + kLoadOne / 200;
    absl::StrAppendFormat(&out, "%d.%02d ", LoadWhole(rounded), LoadHundredths(rounded));
  }
  absl::StrAppend(&out, processes.running(), "/", processes.all().size(), " ", processes.last_pid().raw(), "\n");
  return out;
}

std::string UptimeText(const Machine& machine) {
  const Processes& processes = machine.processes();
  const int cpus = machine.spec().cpus;
  int64_t idle = processes.time() * cpus;
  for (int cpu = 0; cpu < cpus; ++cpu) {
    const CpuTime time = processes.cpu_time(cpu);
    idle -= time.user_nanoseconds + time.system_nanoseconds;
  }
  const auto seconds = [](int64_t ns) { return absl::StrFormat("%d.%02d", ns / kSecond, ns % kSecond / kTick); };
  return absl::StrCat(seconds(processes.time()), " ", seconds(std::max<int64_t>(0, idle)), "\n");
}

std::string PressureMemoryText(const Machine& machine) { return machine.cgroups().psi().Text(StallKind::kMemory); }
std::string PressureIoText(const Machine& machine) { return machine.cgroups().psi().Text(StallKind::kIo); }
std::string PressureCpuText(const Machine&) { return PsiGroup::CpuText(); }

std::string CgroupsText(const Machine& machine) {
  return absl::StrCat("#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t", machine.cgroups().size(), "\t1\n");
}

// Nothing is discarded and no cache of a disk is flushed.
std::string DiskstatsText(const Machine& machine) {
  constexpr int64_t kMillisecond = 1'000'000;
  constexpr uint64_t kSectorsPerKib = 2;
  std::string out;
  for (const DiskView& disk : machine.files().Disks()) {
    const auto& [reads, writes] = std::pair(disk.stats.reads, disk.stats.writes);
    const int64_t busy = (reads.nanoseconds + writes.nanoseconds) / kMillisecond;
    absl::StrAppendFormat(&out, "%4d %7d %s %d %d %d %d %d %d %d %d %d %d %d 0 0 0 0 0 0\n", disk.major, disk.minor, disk.name,
                          reads.requests, reads.merges, reads.kib * kSectorsPerKib, reads.nanoseconds / kMillisecond, writes.requests,
                          writes.merges, writes.kib * kSectorsPerKib, writes.nanoseconds / kMillisecond, disk.in_flight, busy, busy);
  }
  return out;
}

std::string FilesystemsText(const Machine&) {
  std::string out;
  for (const char* name : kFileSystems) absl::StrAppend(&out, "nodev\t", name, "\n");
  return out;
}

std::string ProcessCgroupText(const Machine& machine, const Process& process) {
  return absl::StrCat("0::", machine.cgroups().PathOf(process.cgroup), "\n");
}

}  // namespace mmlab

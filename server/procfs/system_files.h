#ifndef MMLAB_SERVER_PROCFS_SYSTEM_FILES_H_
#define MMLAB_SERVER_PROCFS_SYSTEM_FILES_H_

#include <string>

namespace mmlab {

class Machine;
class Process;

// Files below /proc about the machine's time and tasks. Linux: fs/proc/stat.c, loadavg.c, uptime.c, kernel/sched/psi.c,
// kernel/cgroup/cgroup-v1.c, fs/filesystems.c, block/genhd.c.
std::string ProcStatText(const Machine& machine);
std::string LoadavgText(const Machine& machine);
std::string UptimeText(const Machine& machine);
std::string PressureMemoryText(const Machine& machine);
std::string PressureIoText(const Machine& machine);
std::string PressureCpuText(const Machine& machine);
std::string CgroupsText(const Machine& machine);
std::string DiskstatsText(const Machine& machine);
std::string FilesystemsText(const Machine& machine);

// /proc/PID/cgroup
std::string ProcessCgroupText(const Machine& machine, const Process& process);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_SYSTEM_FILES_H_

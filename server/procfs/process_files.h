#ifndef MMLAB_SERVER_PROCFS_PROCESS_FILES_H_
#define MMLAB_SERVER_PROCFS_PROCESS_FILES_H_

#include <string>

namespace mmlab {

class Machine;
class Process;

// Files of /proc/PID. A process without an address space (a kernel thread) has empty maps and no Vm lines. Linux: fs/proc/task_mmu.c,
// fs/proc/array.c, fs/proc/base.c.
std::string MapsText(const Machine& machine, const Process& process);
std::string SmapsText(const Machine& machine, const Process& process);
std::string SmapsRollupText(const Machine& machine, const Process& process);
// Only the lines that are derived.
std::string StatusText(const Machine& machine, const Process& process);
std::string StatmText(const Machine& machine, const Process& process);
std::string KsmMergingPagesText(const Machine& machine, const Process& process);
std::string KsmStatText(const Machine& machine, const Process& process);
std::string OomScoreText(const Machine& machine, const Process& process);
std::string OomScoreAdjText(const Process& process);
std::string CommText(const Process& process);
// process_details.cc. What concerns CPU time, signals, sessions and terminals, which are not simulated, is 0 in stat.
std::string StatText(const Machine& machine, const Process& process);
std::string CmdlineOfProcess(const Machine& machine, const Process& process);
std::string EnvironText(const Machine& machine, const Process& process);
std::string AuxvBytes(const Machine& machine, const Process& process);
std::string ExeText(const Process& process);  // What the link points to; empty: nothing was executed.
std::string OomAdjText(const Process& process);
std::string NumaMapsText(const Machine& machine, const Process& process);
// 'R' on a CPU, 'D' waiting for the child of its vfork, 'S' otherwise.
char TaskState(const Machine& machine, const Process& process);
// proc_pid_wchan(): the function of the kernel that a task sleeps in. Known of one that waits for the child of its vfork; else "0".
std::string WchanText(const Machine& machine, const Process& process);
// Only the limits that are simulated: data, stack, locked memory, address space.
std::string LimitsText(const Process& process);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_PROCESS_FILES_H_

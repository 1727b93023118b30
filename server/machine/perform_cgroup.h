#ifndef MMLAB_SERVER_MACHINE_PERFORM_CGROUP_H_
#define MMLAB_SERVER_MACHINE_PERFORM_CGROUP_H_

#include "server/machine/operation.h"

namespace mmlab {

class Cgroups;
class Processes;

// What the operations on control groups do. Root does them, in a process outside of all of them.
Outcome PerformCgroup(const op::CreateCgroup& o, Cgroups& cgroups);
Outcome PerformCgroup(const op::RemoveCgroup& o, Cgroups& cgroups, const Processes& processes);
Outcome PerformCgroup(const op::WriteCgroupFile& o, Cgroups& cgroups, Processes& processes);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PERFORM_CGROUP_H_

#ifndef MMLAB_SERVER_PROCFS_DERIVED_H_
#define MMLAB_SERVER_PROCFS_DERIVED_H_

#include "server/physical/vm_stat.h"

namespace mmlab {

// Whether a machine can tell a counter at all: true when a room of it counts the thing, or when a real kernel configured like the machine
// prints 0 there too, always. What is not derived is absent from every file and metric; it is never printed as 0.
bool IsDerived(ZoneStat item);
bool IsDerived(NodeStat item);
bool IsDerived(NumaStat item);
bool IsDerived(VmEvent item);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_DERIVED_H_

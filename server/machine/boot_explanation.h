#ifndef MMLAB_SERVER_MACHINE_BOOT_EXPLANATION_H_
#define MMLAB_SERVER_MACHINE_BOOT_EXPLANATION_H_

#include "server/base/explanation.h"
#include "server/machine/machine_spec.h"

namespace mmlab {

// How the memory of a machine came to be what it was when its first process started, in the order of boot: the firmware's map and its
// changes, the split of the address space, what was taken before the page allocator, zones, watermarks. Settings made since do not show.
// REQUIRES: a spec that a machine was made of. Costs what creating the machine costs.
Explanation ExplainBoot(const MachineSpec& spec);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_BOOT_EXPLANATION_H_

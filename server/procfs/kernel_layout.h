#ifndef MMLAB_SERVER_PROCFS_KERNEL_LAYOUT_H_
#define MMLAB_SERVER_PROCFS_KERNEL_LAYOUT_H_

#include <string>
#include <vector>

#include "server/arch/kernel_layout.h"

namespace mmlab {

class Machine;

// The regions of the machine's kernel address space (LayoutRegions) and the sections of its image, where they are mapped.
std::vector<LayoutRegion> MachineRegions(const Machine& machine);

// The layout as kernels printed it until they stopped to ("virtual kernel memory layout:"), top down, and each value under its name.
std::string KernelLayoutText(const Machine& machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_KERNEL_LAYOUT_H_

#ifndef MMLAB_SERVER_PROCFS_KERNEL_LAYOUT_H_
#define MMLAB_SERVER_PROCFS_KERNEL_LAYOUT_H_

#include <string>
#include <vector>

#include "server/arch/kernel_layout.h"

namespace mmlab {

class Machine;

// The regions of a kernel's address space (LayoutRegions) and the sections of the machine's image, where they are mapped. `layout` is the
// machine's, or one of BuiltOtherwise().
std::vector<LayoutRegion> MachineRegions(const Machine& machine, const KernelLayout& layout);

// The layout as kernels printed it until they stopped to ("virtual kernel memory layout:"), top down, and each value under its name.
std::string KernelLayoutText(const Machine& machine, const KernelLayout& layout);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_KERNEL_LAYOUT_H_

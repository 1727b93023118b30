#ifndef MMLAB_SERVER_PROCFS_IOMEM_H_
#define MMLAB_SERVER_PROCFS_IOMEM_H_

#include <string>
#include <vector>

#include "server/machine/machine_spec.h"

namespace mmlab {

class Machine;

// The tree of physical address ranges: firmware's map, the kernel's sections inside RAM, devices. A range is put inside the smallest one
// that holds it, takes in what it holds itself, and is left out where it would cut another. Linux: kernel/resource.c, insert_resource().
std::vector<IomemResource> IomemTree(const Machine& machine);

// /proc/iomem, as root reads it.
std::string IomemText(const Machine& machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_IOMEM_H_

#ifndef MMLAB_SERVER_PROCFS_DIRECT_MAP_H_
#define MMLAB_SERVER_PROCFS_DIRECT_MAP_H_

#include <vector>

#include "server/procfs/meminfo.h"

namespace mmlab {

// The last lines of /proc/meminfo on x86-32: by pages of which size the kernel maps low memory. Nothing on ARM64. Linux:
// arch_report_meminfo(), arch/x86/mm/pat/set_memory.c.
//
// The first large page and ends of RAM that are none are mapped by small pages (split_mem_range()). So is each large page of which only a
// part got other rights: read-only text and constants, data that is not executable with PAE, init memory that was given back. Without high
// memory the pages of modules are low ones too, and lie in one more large page (in the recorded kernels).
std::vector<MeminfoField> DirectMapFields(const Machine& machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_DIRECT_MAP_H_

#ifndef MMLAB_SERVER_PROCFS_SLABINFO_H_
#define MMLAB_SERVER_PROCFS_SLABINFO_H_

#include <string>

namespace mmlab {

class Machine;

// /proc/slabinfo: the caches, newest first. Linux: cache_show(), mm/slab_common.c.
std::string SlabinfoText(const Machine& machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_SLABINFO_H_

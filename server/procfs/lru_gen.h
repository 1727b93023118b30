#ifndef MMLAB_SERVER_PROCFS_LRU_GEN_H_
#define MMLAB_SERVER_PROCFS_LRU_GEN_H_

#include <string>

namespace mmlab {

class Machine;

// /sys/kernel/debug/lru_gen: the generations of every memory cgroup, by their age in milliseconds with their anonymous pages and those of
// files. Linux: lru_gen_seq_show(), mm/vmscan.c. While MGLRU is off they are there and empty.
std::string LruGenText(const Machine& machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_LRU_GEN_H_

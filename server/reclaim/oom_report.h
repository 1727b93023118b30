#ifndef MMLAB_SERVER_RECLAIM_OOM_REPORT_H_
#define MMLAB_SERVER_RECLAIM_OOM_REPORT_H_

#include <cstdint>

#include "server/base/address.h"

namespace mmlab {

class BuddyMemory;
class Cgroups;
class KernelLogger;
class Processes;

// show_mem(): the state of memory that a report about missing memory holds. Linux: mm/page_alloc.c show_free_areas(), lib/show_mem.c.
// `hopeless`: kswapd gave up on the node.
void ReportMemory(const BuddyMemory& memory, const Processes& processes, bool hopeless, KernelLogger& log);
// mem_cgroup_print_oom_meminfo(): the same of a memory cgroup that may not have more. Linux: mm/memcontrol.c.
void ReportCgroup(const Cgroups& cgroups, uint16_t memcg, PageSize page_size, KernelLogger& log);

}  // namespace mmlab

#endif  // MMLAB_SERVER_RECLAIM_OOM_REPORT_H_

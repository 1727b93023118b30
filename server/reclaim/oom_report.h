#ifndef MMLAB_SERVER_RECLAIM_OOM_REPORT_H_
#define MMLAB_SERVER_RECLAIM_OOM_REPORT_H_

namespace mmlab {

class BuddyMemory;
class KernelLogger;
class Processes;

// show_mem(): the state of memory that a report about missing memory holds. Linux: mm/page_alloc.c show_free_areas(), lib/show_mem.c.
void ReportMemory(const BuddyMemory& memory, const Processes& processes, KernelLogger& log);

}  // namespace mmlab

#endif  // MMLAB_SERVER_RECLAIM_OOM_REPORT_H_

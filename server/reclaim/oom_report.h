#ifndef MMLAB_SERVER_RECLAIM_OOM_REPORT_H_
#define MMLAB_SERVER_RECLAIM_OOM_REPORT_H_

#include <string>

#include "server/physical/gfp.h"

namespace mmlab {

class BuddyMemory;
class KernelLogger;
class Processes;

// "0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO)": the kernel's number and its names (%#x(%pGg)).
std::string GfpMaskText(Gfp gfp);

// show_mem(): the state of memory that a report about missing memory holds. Linux: mm/page_alloc.c show_free_areas(), lib/show_mem.c.
void ReportMemory(const BuddyMemory& memory, const Processes& processes, KernelLogger& log);

}  // namespace mmlab

#endif  // MMLAB_SERVER_RECLAIM_OOM_REPORT_H_

#ifndef MMLAB_SERVER_PROCFS_ZONES_H_
#define MMLAB_SERVER_PROCFS_ZONES_H_

#include <cstdint>
#include <string>

namespace mmlab {

class Machine;

// What /proc tells of zones and their counters. Linux: mm/vmstat.c. All O(zones x CPUs), none recounts anything.
std::string ZoneinfoText(const Machine& machine);
std::string BuddyinfoText(const Machine& machine);
std::string PagetypeinfoText(const Machine& machine);
std::string VmstatText(const Machine& machine);

// global_dirty_limits(): from how many dirty pages on writers wait, and from how many on the flushers start. In pages.
struct DirtyLimits {
  uint64_t threshold = 0;
  uint64_t background = 0;
};
DirtyLimits DirtyLimitsOf(const Machine& machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_ZONES_H_

#ifndef MMLAB_SERVER_PROCFS_ZONES_H_
#define MMLAB_SERVER_PROCFS_ZONES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

class Machine;
struct Layout;

// What /proc tells of zones and their counters. Linux: mm/vmstat.c. All O(zones x CPUs), none recounts anything.
std::string ZoneinfoText(const Machine& machine);
std::string BuddyinfoText(const Machine& machine);
std::string PagetypeinfoText(const Machine& machine);
std::string VmstatText(const Machine& machine);
// /sys/kernel/debug/extfrag: for each zone and order, what part of the free pages is of no use, and why an allocation would fail.
std::string UnusableIndexText(const Machine& machine);
std::string ExtfragIndexText(const Machine& machine);

// A line of /proc/vmstat.
struct VmstatField {
  absl::string_view name;  // Lives as long as the program.
  uint64_t value = 0;
};
// A node's statistic as /proc shows it: of transparent huge pages not the pages but how many they are (vmstat_item_print_in_thp()).
uint64_t ShownStat(const Layout& layout, const VmStat& stat, NodeStat item);
// The lines of /proc/vmstat in the kernel's order; what is not derived is absent. The one source of the text and the metrics.
std::vector<VmstatField> VmstatFields(const Machine& machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_ZONES_H_

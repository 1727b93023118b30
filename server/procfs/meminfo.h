#ifndef MMLAB_SERVER_PROCFS_MEMINFO_H_
#define MMLAB_SERVER_PROCFS_MEMINFO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/address.h"

namespace mmlab {

class Machine;

// A line of /proc/meminfo.
struct MeminfoField {
  absl::string_view name;  // "Active(anon)"; lives as long as the program.
  uint64_t value = 0;
  bool kilobytes = true;  // Else a count without unit.
};

// The lines of /proc/meminfo in the kernel's order; what is not derived is absent. The one source of the text, the typed RPC and the
// metrics. O(1). Linux: fs/proc/meminfo.c.
std::vector<MeminfoField> MeminfoFields(const Machine& machine);

std::string MeminfoText(const Machine& machine);

// si_mem_available(): what can be had without swapping.
PageCount AvailablePages(const Machine& machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_MEMINFO_H_

#ifndef MMLAB_SERVER_MACHINE_HUGEPAGES_SYSFS_H_
#define MMLAB_SERVER_MACHINE_HUGEPAGES_SYSFS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace mmlab {

class HugetlbPools;

inline constexpr absl::string_view kHugepagesFolder = "/sys/kernel/mm/hugepages/";
// Kernels with NUMA show of each node what differs between nodes. There is one.
inline constexpr absl::string_view kNodeHugepagesFolder = "/sys/devices/system/node/node0/hugepages/";

// The attributes of the pools, one folder a size: kHugepagesFolder + "hugepages-2048kB/nr_hugepages". Linux: mm/hugetlb.c (hstate_attrs,
// hstate_demote_attrs, per_node_hstate_attrs).
// Text: nothing when there is no such, or when it can only be written.
std::optional<std::string> HugepagesText(const HugetlbPools& pools, bool x86, absl::string_view path);
// Those that can be read.
std::vector<std::string> HugepagesPaths(const HugetlbPools& pools, bool x86);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_HUGEPAGES_SYSFS_H_

#ifndef MMLAB_SERVER_PROCFS_NODE_FILES_H_
#define MMLAB_SERVER_PROCFS_NODE_FILES_H_

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/procfs/meminfo.h"

namespace mmlab {

// /sys/devices/system/node/node0: what a kernel with CONFIG_NUMA shows of the one node that machines have. Linux: drivers/base/node.c.

// The lines of its meminfo in the kernel's order; what is not derived is absent.
std::vector<MeminfoField> NodeMeminfoFields(const Machine& machine);
std::string NodeMeminfoText(const Machine& machine);

// The lines of its numastat: pages allocated here as wished, ...
using NumastatFields = std::array<std::pair<const char*, uint64_t>, 6>;
NumastatFields NodeNumastatFields(const Machine& machine);
std::string NodeNumastatText(const Machine& machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_NODE_FILES_H_

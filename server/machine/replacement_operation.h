#ifndef MMLAB_SERVER_MACHINE_REPLACEMENT_OPERATION_H_
#define MMLAB_SERVER_MACHINE_REPLACEMENT_OPERATION_H_

#include <cstdint>
#include <vector>

#include "server/process/pid.h"
#include "server/process/replacement_policy.h"

namespace mmlab::op {

struct SetPageReplacement {
  Pid pid;
  ReplacementPolicy policy = ReplacementPolicy::kLinux;
  uint32_t frames = 0;
  uint64_t address = 0;
  uint64_t length = 0;
  std::vector<uint64_t> references;  // Addresses.
};

}  // namespace mmlab::op

#endif  // MMLAB_SERVER_MACHINE_REPLACEMENT_OPERATION_H_

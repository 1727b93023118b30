#ifndef MMLAB_CLIENT_REPLAY_KERNEL_KERNEL_REPLAY_H_
#define MMLAB_CLIENT_REPLAY_KERNEL_KERNEL_REPLAY_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/replay/recording.h"

namespace mmlab {

// True when the file's first line is the header of a recording made inside a kernel (format "kernel-oracle").
bool IsKernelRecording(const std::string& path);

struct KernelAnswers {
  std::vector<nlohmann::ordered_json> records;  // Header, one line for each operation and dump.
  std::vector<std::string> broken;              // Invariants that did not hold at a dump.
};

// Performs the operations of a recording from its first state and says what the allocators answered. Of a recorded
// answer nothing goes into the answer to the same operation: read is what stands before the first operation, of each operation its
// arguments, and afterwards what its answer showed of an order that the kernel drew at random. INVALID_ARGUMENT: not as the format says;
// UNIMPLEMENTED: a suite that is not simulated.
absl::StatusOr<KernelAnswers> ReplayKernel(const Recording& recording);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_KERNEL_KERNEL_REPLAY_H_

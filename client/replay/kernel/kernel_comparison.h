#ifndef MMLAB_CLIENT_REPLAY_KERNEL_KERNEL_COMPARISON_H_
#define MMLAB_CLIENT_REPLAY_KERNEL_KERNEL_COMPARISON_H_

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "client/replay/comparison.h"

namespace mmlab {

// How answers compare with a recording made inside a kernel: the same judgement as tests/conformance/compare_kernel.py. A step is an
// operation or a dump. INVALID_ARGUMENT: one of them is not as the format says.
absl::StatusOr<Comparison> CompareKernelAnswers(const std::vector<nlohmann::ordered_json>& recorded,
                                                const std::vector<nlohmann::ordered_json>& answered);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_KERNEL_KERNEL_COMPARISON_H_

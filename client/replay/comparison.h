#ifndef MMLAB_CLIENT_REPLAY_COMPARISON_H_
#define MMLAB_CLIENT_REPLAY_COMPARISON_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace mmlab {

// How a machine's answers compare with a recording: the same judgement as tests/conformance/compare.py.
struct Comparison {
  int64_t steps = 0;
  int64_t exact = 0;  // Steps after which everything observable was equal.
  // The first step that was not, as lines of text with both answers; empty when all were exact.
  std::string first_difference;
};

// Both start with the header and have their records in the same order. INVALID_ARGUMENT: one of them is not as the format says.
absl::StatusOr<Comparison> CompareAnswers(const std::vector<nlohmann::ordered_json>& recorded,
                                          const std::vector<nlohmann::ordered_json>& answered);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_COMPARISON_H_

#ifndef MMLAB_CLIENT_REPLAY_STEP_OPERATION_H_
#define MMLAB_CLIENT_REPLAY_STEP_OPERATION_H_

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "mmlab/v1/operation.pb.h"

namespace mmlab {

// Translates one step of a recording into an operation of process `pid`. `shm_ids` maps the recording's shared memory numbers to the
// machine's. INVALID_ARGUMENT: an operation that the format does not have, or an argument missing.
absl::StatusOr<v1::Operation> StepOperation(const nlohmann::ordered_json& step, int32_t pid, const std::map<uint64_t, int32_t>& shm_ids);

// Adds to `answer` what the step's outcome says, in the recordings' words (ret, errno, value, done, signal, ...).
void AddOutcome(const nlohmann::ordered_json& step, const v1::Outcome& outcome, nlohmann::ordered_json& answer);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_STEP_OPERATION_H_

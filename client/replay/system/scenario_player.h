#ifndef MMLAB_CLIENT_REPLAY_SYSTEM_SCENARIO_PLAYER_H_
#define MMLAB_CLIENT_REPLAY_SYSTEM_SCENARIO_PLAYER_H_

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/connection.h"
#include "client/replay/stage.h"
#include "client/replay/system/scenario.h"
#include "mmlab/v1/operation.pb.h"

namespace mmlab {

// What a machine answered to a scenario.
struct ScenarioAnswers {
  std::vector<nlohmann::ordered_json> results;        // In the script's form: who was killed, what failed and how.
  std::map<std::string, int> not_simulated;           // By name: operations that the machine does not have yet.
  std::map<std::string, std::string> snapshot_files;  // "before/meminfo" -> bytes.
  std::string machine;                                // "machines/..." that answered.
};

// Performs a scenario's operations on a fresh machine. What is not simulated is left out, answered with ENOSYS where the script wants a
// result, and counted. INVALID_ARGUMENT: the script is not as its format says; what was answered before that is in `answers` all the same.
absl::Status PlayScenario(Connection& connection, const Scenario& scenario, bool keep_machine, ScenarioAnswers& answers);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_SYSTEM_SCENARIO_PLAYER_H_

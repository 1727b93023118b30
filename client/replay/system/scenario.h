#ifndef MMLAB_CLIENT_REPLAY_SYSTEM_SCENARIO_H_
#define MMLAB_CLIENT_REPLAY_SYSTEM_SCENARIO_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "mmlab/v1/machine.pb.h"

namespace mmlab {

// What a whole machine was made to do while somebody looked at it: a folder with a script.jsonl (format "system-script") and the files that
// were seen. Of the script only the header and the operations are kept; what the real kernel answered is for the judge.
struct Scenario {
  std::string folder;
  nlohmann::ordered_json header;
  std::vector<nlohmann::ordered_json> operations;
};

// Whether the folder holds a scenario of its own.
bool IsScenario(const std::string& folder);

// The scenarios at or below a path, sorted; empty when there are none.
std::vector<std::string> FindScenarios(const std::string& path);

// NOT_FOUND: no script. INVALID_ARGUMENT: it is not one of format "system-script".
absl::StatusOr<Scenario> ReadScenario(const std::string& folder);

// The machine that the header describes: its flavour, and RAM with as many managed pages in each zone. Without zones in the header, just as
// much RAM. INVALID_ARGUMENT: sizes that no machine has.
absl::StatusOr<v1::MachineSpec> SpecOfScenario(const nlohmann::ordered_json& header);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_SYSTEM_SCENARIO_H_

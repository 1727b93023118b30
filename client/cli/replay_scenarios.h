#ifndef MMLAB_CLIENT_CLI_REPLAY_SCENARIOS_H_
#define MMLAB_CLIENT_CLI_REPLAY_SCENARIOS_H_

#include <string>
#include <vector>

#include "client/cli/session.h"

namespace mmlab {

// `mmlab replay` of folders that hold scenarios of whole machines. Each one's snapshots and results are written to
// answers/<its path below the argument, or its own name>/, when `answers` is not empty. Throws CommandFailure when one can't be performed.
void ReplayScenarios(Session& session, const std::vector<std::string>& roots, const std::string& answers, bool keep);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_REPLAY_SCENARIOS_H_

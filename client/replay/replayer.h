#ifndef MMLAB_CLIENT_REPLAY_REPLAYER_H_
#define MMLAB_CLIENT_REPLAY_REPLAYER_H_

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/connection.h"
#include "client/replay/recording.h"

namespace mmlab {

// The answers of a machine to a recording, in the recording's own format.
struct Answers {
  std::vector<nlohmann::ordered_json> records;  // Header, initial state, one for each step.
  std::string machine;                          // "machines/..." that answered.
  std::vector<int32_t> pids;                    // By the recording's process index; 0 = never made.
};

struct ReplayOptions {
  // Where the machine is made; its id is derived from the recording's name.
  bool keep_machine = false;  // Leave the machine on the server, for looking at it afterwards.
  // Called behind each step with the number of steps done and of all.
  std::function<void(size_t, size_t)> progress;
};

// Performs the operations of a recording (format "lab-trace") on a fresh machine of its flavour and says what the machine answered.
// Of the recorded answers nothing is read: only the header, each step's process, operation and arguments, and from the initial record which
// pages the program's start-up had touched.
absl::StatusOr<Answers> Replay(Connection& connection, const Recording& recording, const ReplayOptions& options);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_REPLAYER_H_

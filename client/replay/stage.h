#ifndef MMLAB_CLIENT_REPLAY_STAGE_H_
#define MMLAB_CLIENT_REPLAY_STAGE_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "client/connection.h"
#include "mmlab/v1/operation.pb.h"

namespace mmlab {

// The machine on which a recording is performed.
class Stage {
 public:
  Stage(Connection& connection, std::string machine) : connection_(&connection), machine_(std::move(machine)) {}

  // Makes the machine that the header describes: preset of its flavour and RAM, its sysctls, what the system had committed before, its
  // files.
  static absl::StatusOr<Stage> SetUp(Connection& connection, const nlohmann::ordered_json& header, const std::string& id);

  // Starts the recorded program up to the moment at which the recording begins; returns its pid.
  absl::StatusOr<int32_t> StartProgram(const nlohmann::ordered_json& header, const nlohmann::ordered_json& initial);

  absl::StatusOr<v1::Outcome> Apply(const v1::Operation& operation);
  absl::StatusOr<v1::ExecuteBatchResponse> ApplyBatch(const v1::ExecuteBatchRequest& batch);
  // As Apply, for what must succeed: an errno or signal is FAILED_PRECONDITION.
  absl::StatusOr<v1::Outcome> MustApply(const v1::Operation& operation);

  absl::StatusOr<v1::Process> Look(int32_t pid);
  absl::StatusOr<int64_t> CommittedBytes();
  absl::Status Delete();

  const std::string& machine() const { return machine_; }

 private:
  absl::Status Furnish(const nlohmann::ordered_json& header);
  absl::Status WriteSysctl(const std::string& name, const std::string& value);
  absl::Status CommitInBackground(int64_t bytes, const nlohmann::ordered_json& header);
  absl::Status MakeFiles(const nlohmann::ordered_json& header);
  absl::Status OpenFiles(const nlohmann::ordered_json& header, int32_t pid);
  absl::Status Exec(const nlohmann::ordered_json& header, int32_t pid);
  absl::Status TouchStartPages(const nlohmann::ordered_json& header, const nlohmann::ordered_json& initial, int32_t pid);
  absl::Status FollowDirectives(const nlohmann::ordered_json& header, int32_t pid);

  Connection* connection_;
  std::string machine_;
};

// grpc::Status as absl::Status, same code.
absl::Status ToAbsl(const grpc::Status& status);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_STAGE_H_

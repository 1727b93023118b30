#include "client/cli/session.h"

#include <fmt/core.h>

#include <chrono>
#include <cstdio>

#include "absl/time/time.h"
#include "client/cli/exit_code.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/service/server.h"

namespace mmlab {
namespace {

constexpr int kRetries = 3;  // Of a call to a server that went away: for 0.7 s.

}  // namespace

Session::Session(const GlobalOptions& options) : options_(options) {}

Session::~Session() {
  connection_.reset();
  if (server_ != nullptr) server_->Shutdown(absl::ZeroDuration());
}

Connection& Session::connection() {
  if (connection_ != nullptr) return *connection_;
  const std::chrono::seconds deadline(options_.timeout_seconds);
  if (options_.in_process) {
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(ServerOptions{});
    if (!server.ok()) Fail(kExitCannotConnect, std::string(server.status().message()));
    server_ = *std::move(server);
    connection_ = std::make_unique<Connection>(server_->InProcessChannel(), deadline);
    return *connection_;
  }
  const std::shared_ptr<grpc::Channel> channel = grpc::CreateChannel(options_.server, grpc::InsecureChannelCredentials());
  // Long enough for a server that is just starting, short enough for a person who forgot to start one.
  const auto connect_by = std::chrono::system_clock::now() + std::min(deadline, std::chrono::seconds(3));
  if (!channel->WaitForConnected(connect_by)) {
    Fail(kExitCannotConnect,
         fmt::format("no server answers at {} (start mmlabd, name another with --server, or use --in-process)", options_.server));
  }
  connection_ = std::make_unique<Connection>(channel, deadline, kRetries);
  return *connection_;
}

void Session::Check(const grpc::Status& status) {
  if (status.ok()) return;
  PrintStatus(status);
  throw CommandFailure{kExitStatusBase + static_cast<int>(status.error_code())};
}

void PrintStatus(const grpc::Status& status) {
  fmt::print(stderr, "error: {}\n", status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return;
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad_request;
    if (any.UnpackTo(&info)) {
      fmt::print(stderr, "  reason: {}\n", info.reason());
    } else if (any.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        fmt::print(stderr, "  {}: {}\n", violation.field(), violation.description());
      }
    }
  }
}

void Fail(int exit_code, const std::string& message) {
  fmt::print(stderr, "error: {}\n", message);
  throw CommandFailure{exit_code};
}

}  // namespace mmlab

#ifndef MMLAB_SERVER_SERVICE_APPLY_OPERATION_H_
#define MMLAB_SERVER_SERVICE_APPLY_OPERATION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "server/base/explanation.h"
#include "server/base/status_macros.h"
#include "server/host/names.h"
#include "server/service/call.h"
#include "server/service/operation_converters.h"

namespace mmlab {

// Distinguishes requests that come with the same request id.
uint64_t RequestFingerprint(const google::protobuf::Message& request);

// Applies one operation and fills the outcome, with its explanation when one is wanted. UNIMPLEMENTED: an option that is not simulated.
absl::Status ApplyOperation(MachineLane& lane, const Operation& operation, bool explain, size_t max_steps, v1::Outcome* outcome);

// An operation that comes alone must name a process that exists: NOT_FOUND, else.
absl::Status CheckProcess(const MachineLane& lane, Pid pid);

// What a request id remembers, or nothing when the request is new. Fills `response` from what is remembered.
std::optional<absl::Status> AnswerFromMemory(MachineLane& lane, const std::string& request_id, uint64_t fingerprint,
                                             google::protobuf::Message& response);

// One operation in its machine's lane, from its request to its response.
template <typename Request, typename Response>
absl::Status ApplyAlone(MachineLane& lane, const Request& request, Response& response) {
  MMLAB_RETURN_IF_ERROR(lane.CheckUsable());
  const bool remembered = !request.request_id().empty();
  const uint64_t fingerprint = remembered ? RequestFingerprint(request) : 0;
  if (remembered) {
    if (std::optional<absl::Status> answer = AnswerFromMemory(lane, request.request_id(), fingerprint, response)) return *answer;
  }
  auto native = ToNative(request);
  if constexpr (requires { native.pid; }) MMLAB_RETURN_IF_ERROR(CheckProcess(lane, native.pid));
  if constexpr (requires { native.cpu; }) MMLAB_RETURN_IF_ERROR(CheckCpu(native.cpu, lane.machine().spec().cpus));
  MMLAB_RETURN_IF_ERROR(
      ApplyOperation(lane, Operation(std::move(native)), request.explain(), Explanation::kMaxSteps, response.mutable_outcome()));
  if (remembered) {
    lane.request_ids().Remember(request.request_id(), fingerprint, {absl::OkStatus(), response.SerializeAsString()});
  }
  return absl::OkStatus();
}

// The unary handler of every operation.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* HandleOperation(const ServiceContext& context, grpc::CallbackServerContext* grpc_context, const Request* request,
                                          Response* response) {
  const UnaryCall call = UnaryCall::Start(context, grpc_context, request);
  const auto prepare = [&]() -> absl::StatusOr<std::shared_ptr<HostedMachine>> {
    MMLAB_ASSIGN_OR_RETURN(const absl::string_view id, ParseMachineName("machine", request->machine()));
    MMLAB_RETURN_IF_ERROR(CheckRequestId("request_id", request->request_id()));
    MMLAB_RETURN_IF_ERROR(CheckFields(*request));
    return context.host.Find(id);
  };
  absl::StatusOr<std::shared_ptr<HostedMachine>> machine = prepare();
  if (!machine.ok()) {
    call.Finish(machine.status());
    return call.reactor();
  }
  if (IsShort(*request)) {
    if (std::optional<MachineLane> lane = (*machine)->TryEnter()) {
      const absl::Status status = ApplyAlone(*lane, *request, *response);
      lane.reset();
      call.Finish(status);
      return call.reactor();
    }
  }
  FinishInLane(**machine, call, [request, response](MachineLane& lane) { return ApplyAlone(lane, *request, *response); });
  return call.reactor();
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_APPLY_OPERATION_H_

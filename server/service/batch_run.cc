#include "server/service/batch_run.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/explanation.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/host/names.h"
#include "server/host/request_ids.h"
#include "server/service/apply_operation.h"
#include "server/service/operation_converters.h"

namespace mmlab {
namespace {

constexpr int kShortBatch = 256;  // Operations.
constexpr int kCheckEvery = 32;   // Operations between looks at the clock and the client.

}  // namespace

absl::Status BatchRun::CheckOperations(int cpus) const {
  for (int i = 0; i < request_.operations_size(); ++i) {
    const absl::Status status = CheckOperation(request_.operations(i), cpus);
    if (!status.ok()) return InField(absl::StrCat("operations[", i, "]"), status);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<HostedMachine>> BatchRun::Prepare(const Host& host) {
  MMLAB_ASSIGN_OR_RETURN(const absl::string_view id, ParseMachineName("machine", request_.machine()));
  MMLAB_RETURN_IF_ERROR(CheckRequestId("request_id", request_.request_id()));
  if (request_.operations_size() > kMaxOperations) return InvalidField("operations", absl::StrCat("must be at most ", kMaxOperations));
  MMLAB_ASSIGN_OR_RETURN(std::shared_ptr<HostedMachine> machine, host.Find(id));
  cpus_ = machine->cpus();
  MMLAB_RETURN_IF_ERROR(CheckOperations(cpus_));
  uint64_t promised = 0;
  short_ = request_.operations_size() <= kShortBatch;
  for (const v1::Operation& operation : request_.operations()) {
    promised += PromisedData(operation);
    if (short_) short_ = IsShortOperation(operation);
  }
  if (promised > kMaxPromisedData) return InvalidField("operations", "must not ask for more than 4 MiB of data together");
  return machine;
}

bool BatchRun::Begin(MachineLane& lane) {
  begun_ = true;
  status_ = lane.CheckUsable();
  if (!status_.ok()) return true;
  if (!request_.request_id().empty()) {
    fingerprint_ = RequestFingerprint(request_);
    if (std::optional<absl::Status> answer = AnswerFromMemory(lane, request_.request_id(), fingerprint_, response_)) {
      status_ = *std::move(answer);
      return true;
    }
  }
  // The machine may have been booted anew with other CPUs since it was found.
  if (lane.machine().spec().cpus != cpus_) status_ = CheckOperations(lane.machine().spec().cpus);
  return !status_.ok();
}

absl::Status BatchRun::ApplyNext(MachineLane& lane) {
  const v1::Operation& operation = request_.operations(next_);
  v1::Outcome* outcome = response_.add_outcomes();
  const absl::Status applied = ApplyOperation(lane, ToNative(operation), WantsExplanation(operation), steps_left_, outcome);
  if (applied.ok()) {
    steps_left_ -= std::min(steps_left_, static_cast<size_t>(outcome->explanation().steps_size()));
    return absl::OkStatus();
  }
  if (applied.code() != absl::StatusCode::kUnimplemented) return applied;
  return WithReason(absl::UnimplementedError(absl::StrCat("operations[", next_, "]: ", applied.message())), "NOT_SIMULATED",
                    {{"operation", absl::StrCat(next_)}, {"operations_applied", absl::StrCat(next_)}});
}

void BatchRun::End(MachineLane& lane, absl::Status status) {
  status_ = std::move(status);
  // An answer is remembered as soon as something was done, even if it is an error: a retry must not do that part again.
  if (request_.request_id().empty() || (!status_.ok() && next_ == 0)) return;
  lane.request_ids().Remember(request_.request_id(), fingerprint_, {status_, status_.ok() ? response_.SerializeAsString() : std::string()});
}

bool BatchRun::Run(MachineLane& lane) {
  if (!begun_) {
    if (Begin(lane)) return true;
    response_.mutable_outcomes()->Reserve(request_.operations_size());
  }
  while (next_ < request_.operations_size()) {
    if (next_ % kCheckEvery == 0 && next_ != 0) {
      // With a request id the batch goes on, because a retry expects its answer.
      if (request_.request_id().empty() && context_.IsCancelled()) {
        End(lane, absl::CancelledError("cancelled between two operations; those before stay done"));
        return true;
      }
      if (lane.hosted().deleted()) {
        End(lane, lane.CheckUsable());
        return true;
      }
    }
    const absl::Status applied = ApplyNext(lane);
    if (!applied.ok()) {
      End(lane, applied);
      return true;
    }
    const v1::Outcome& outcome = response_.outcomes(next_);
    ++next_;
    if (request_.stop_on_failure() && (outcome.error_number() != 0 || outcome.has_signal())) break;
    const bool look = next_ % kCheckEvery == 0 || (!short_ && !IsShortOperation(request_.operations(next_ - 1)));
    if (look && next_ < request_.operations_size() && lane.SliceIsOver()) return false;
  }
  End(lane, absl::OkStatus());
  return true;
}

}  // namespace mmlab

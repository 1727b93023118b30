#ifndef MMLAB_SERVER_HOST_ERRORS_H_
#define MMLAB_SERVER_HOST_ERRORS_H_

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace mmlab {

// What is wrong with a request or the service, as an absl::Status whose payloads are google.rpc details (google/rpc/error_details.proto):
// always one ErrorInfo of the domain "mmlab", and the detail that fits the kind of error. The service puts them on the wire as they are.
inline constexpr absl::string_view kErrorDomain = "mmlab";

using ErrorMetadata = std::vector<std::pair<absl::string_view, absl::string_view>>;

// INVALID_ARGUMENT, reason FIELD_INVALID. `field` is the path in the request: "spec.firmware_ranges[2].end_address"; `rule` completes
// "<field> ...": "must be above start_address".
absl::Status InvalidField(absl::string_view field, absl::string_view rule);
// OUT_OF_RANGE, reason OUT_OF_RANGE: a well-formed number beyond what this machine or this server has.
absl::Status FieldOutOfRange(absl::string_view field, absl::string_view rule);
// NOT_FOUND, reason MACHINE_NOT_FOUND and so on: `type` is "machine", "process", "preset", "proc_file".
absl::Status ResourceNotFound(absl::string_view type, absl::string_view name);
// ALREADY_EXISTS, reason MACHINE_ALREADY_EXISTS.
absl::Status ResourceExists(absl::string_view type, absl::string_view name);
// RESOURCE_EXHAUSTED with QuotaFailure. `reason` is UPPER_SNAKE, `subject` what the limit counts.
absl::Status LimitReached(absl::string_view reason, absl::string_view subject, absl::string_view description);
// FAILED_PRECONDITION with PreconditionFailure. `type` is UPPER_SNAKE and also the reason.
absl::Status WrongState(absl::string_view type, absl::string_view subject, absl::string_view description);
// UNIMPLEMENTED, reason NOT_SIMULATED.
absl::Status NotSimulated(absl::string_view what);
// INTERNAL, reason INVARIANT_BROKEN: a bug in the simulation.
absl::Status InvariantBroken(absl::string_view subject, absl::string_view what);
// UNAVAILABLE with RetryInfo, reason SHUTTING_DOWN.
absl::Status ShuttingDown();

// Any other status of ours: gives `status` an ErrorInfo (and replaces the one that it has).
absl::Status WithReason(absl::Status status, absl::string_view reason, const ErrorMetadata& metadata = {});

// Puts `prefix` before each field path that the status names, and before a message that starts with such a path.
absl::Status InField(absl::string_view prefix, const absl::Status& status);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_ERRORS_H_

#include "server/host/errors.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

namespace mmlab {
namespace {

constexpr absl::string_view kTypePrefix = "type.googleapis.com/";

template <typename Detail>
std::string TypeUrl() {
  return absl::StrCat(kTypePrefix, Detail::descriptor()->full_name());
}

template <typename Detail>
void Attach(absl::Status& status, const Detail& detail) {
  status.SetPayload(TypeUrl<Detail>(), absl::Cord(detail.SerializeAsString()));
}

absl::Status FieldStatus(absl::StatusCode code, absl::string_view reason, absl::string_view field, absl::string_view rule) {
  absl::Status status(code, absl::StrCat(field, " ", rule));
  google::rpc::BadRequest bad;
  google::rpc::BadRequest::FieldViolation* violation = bad.add_field_violations();
  violation->set_field(field.data(), field.size());
  violation->set_description(rule.data(), rule.size());
  Attach(status, bad);
  return WithReason(std::move(status), reason, {{"field", field}});
}

absl::Status ResourceStatus(absl::StatusCode code, absl::string_view type, absl::string_view name, absl::string_view what) {
  absl::Status status(code, absl::StrCat(type, " ", name, " ", what));
  google::rpc::ResourceInfo info;
  info.set_resource_type(absl::StrCat("mmlab.v1/", type));
  info.set_resource_name(std::string(name));
  info.set_description(std::string(what));
  Attach(status, info);
  return status;
}

}  // namespace

absl::Status WithReason(absl::Status status, absl::string_view reason, const ErrorMetadata& metadata) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(std::string(kErrorDomain));
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[std::string(key)] = std::string(value);
  Attach(status, info);
  return status;
}

absl::Status InvalidField(absl::string_view field, absl::string_view rule) {
  return FieldStatus(absl::StatusCode::kInvalidArgument, "FIELD_INVALID", field, rule);
}

absl::Status FieldOutOfRange(absl::string_view field, absl::string_view rule) {
  return FieldStatus(absl::StatusCode::kOutOfRange, "OUT_OF_RANGE", field, rule);
}

absl::Status ResourceNotFound(absl::string_view type, absl::string_view name) {
  return WithReason(ResourceStatus(absl::StatusCode::kNotFound, type, name, "does not exist"),
                    absl::StrCat(absl::AsciiStrToUpper(type), "_NOT_FOUND"), {{"name", name}});
}

absl::Status ResourceExists(absl::string_view type, absl::string_view name) {
  return WithReason(ResourceStatus(absl::StatusCode::kAlreadyExists, type, name, "exists already"),
                    absl::StrCat(absl::AsciiStrToUpper(type), "_ALREADY_EXISTS"), {{"name", name}});
}

absl::Status LimitReached(absl::string_view reason, absl::string_view subject, absl::string_view description) {
  absl::Status status = absl::ResourceExhaustedError(description);
  google::rpc::QuotaFailure failure;
  google::rpc::QuotaFailure::Violation* violation = failure.add_violations();
  violation->set_subject(std::string(subject));
  violation->set_description(std::string(description));
  Attach(status, failure);
  return WithReason(std::move(status), reason, {{"subject", subject}});
}

absl::Status WrongState(absl::string_view type, absl::string_view subject, absl::string_view description) {
  absl::Status status = absl::FailedPreconditionError(absl::StrCat(subject, " ", description));
  google::rpc::PreconditionFailure failure;
  google::rpc::PreconditionFailure::Violation* violation = failure.add_violations();
  violation->set_type(std::string(type));
  violation->set_subject(std::string(subject));
  violation->set_description(std::string(description));
  Attach(status, failure);
  return WithReason(std::move(status), type, {{"subject", subject}});
}

absl::Status NotSimulated(absl::string_view what) {
  return WithReason(absl::UnimplementedError(absl::StrCat("not simulated: ", what)), "NOT_SIMULATED");
}

absl::Status InvariantBroken(absl::string_view subject, absl::string_view what) {
  return WithReason(absl::InternalError(absl::StrCat(subject, ": ", what)), "INVARIANT_BROKEN", {{"subject", subject}});
}

absl::Status ShuttingDown() {
  absl::Status status = absl::UnavailableError("the server is shutting down");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  Attach(status, retry);
  return WithReason(std::move(status), "SHUTTING_DOWN");
}

absl::Status InField(absl::string_view prefix, const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(TypeUrl<google::rpc::BadRequest>());
  google::rpc::BadRequest bad;
  if (!payload.has_value() || !bad.ParseFromString(std::string(*payload))) return status;
  absl::Status moved(status.code(), absl::StrCat(prefix, ".", status.message()));
  std::string field;
  for (google::rpc::BadRequest::FieldViolation& violation : *bad.mutable_field_violations()) {
    violation.set_field(absl::StrCat(prefix, ".", violation.field()));
    field = violation.field();
  }
  Attach(moved, bad);
  return WithReason(std::move(moved), status.code() == absl::StatusCode::kOutOfRange ? "OUT_OF_RANGE" : "FIELD_INVALID",
                    {{"field", field}});
}

}  // namespace mmlab

#include "server/service/apply_operation.h"

#include <functional>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "server/host/errors.h"
#include "server/machine/machine.h"
#include "server/process/processes.h"
#include "server/service/outcome_converters.h"

namespace mmlab {

uint64_t RequestFingerprint(const google::protobuf::Message& request) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // Maps, otherwise, in any order.
    request.SerializeToCodedStream(&coded);
  }
  return std::hash<std::string>()(request.GetDescriptor()->full_name()) * 31 + std::hash<std::string>()(bytes);
}

absl::Status ApplyOperation(MachineLane& lane, const Operation& operation, bool explain, size_t max_steps, v1::Outcome* outcome) {
  std::optional<Explanation> explanation;
  if (explain) explanation.emplace();
  Outcome native;
  MMLAB_RETURN_IF_ERROR(lane.Apply(operation, explain ? &*explanation : nullptr, native));
  if (!native.unimplemented.empty()) return NotSimulated(native.unimplemented);
  if (native.held) return WrongState("PROCESS_HELD", MachineName(lane.hosted().id()), "the process waits for the child of its vfork");
  OutcomeToProto(native, outcome);
  if (explain) ExplanationToProto(*explanation, max_steps, outcome->mutable_explanation());
  return absl::OkStatus();
}

absl::Status CheckProcess(const MachineLane& lane, Pid pid) {
  if (lane.machine().processes().Find(pid) != nullptr) return absl::OkStatus();
  return ResourceNotFound("process", ProcessNameOf(lane.hosted().id(), pid.raw()));
}

std::optional<absl::Status> AnswerFromMemory(MachineLane& lane, const std::string& request_id, uint64_t fingerprint,
                                             google::protobuf::Message& response) {
  const absl::StatusOr<const RequestIds::Answer*> known = lane.request_ids().Find(request_id, fingerprint);
  if (!known.ok()) return known.status();
  if (*known == nullptr) return std::nullopt;
  response.ParseFromString((*known)->response);
  return (*known)->status;
}

}  // namespace mmlab

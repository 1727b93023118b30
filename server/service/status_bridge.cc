#include "server/service/status_bridge.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/host/errors.h"

namespace mmlab {
namespace {

// Trailers are bounded (8 KiB of metadata by default): a long message is cut, not the whole answer lost.
constexpr size_t kMaxMessage = 1024;

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string error_info = absl::StrCat("type.googleapis.com/", google::rpc::ErrorInfo::descriptor()->full_name());
  if (!status.GetPayload(error_info).has_value()) {
    return ToGrpcStatus(WithReason(status, absl::StatusCodeToString(status.code())));
  }
  std::vector<std::pair<std::string, std::string>> details;
  status.ForEachPayload(
      [&](absl::string_view type_url, const absl::Cord& payload) { details.emplace_back(std::string(type_url), std::string(payload)); });
  // Abseil gives payloads in no order: ErrorInfo first, the others by name.
  std::sort(details.begin(), details.end(), [&](const auto& a, const auto& b) {
    return std::make_pair(a.first != error_info, a.first) < std::make_pair(b.first != error_info, b.first);
  });
  google::rpc::Status proto;
  proto.set_code(static_cast<int32_t>(status.code()));
  proto.set_message(std::string(status.message().substr(0, kMaxMessage)));
  for (auto& [type_url, value] : details) {
    google::protobuf::Any* any = proto.add_details();
    any->set_type_url(std::move(type_url));
    any->set_value(std::move(value));
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), proto.message(), proto.SerializeAsString());
}

}  // namespace mmlab

#include "server/service/connect_codec.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "google/rpc/status.pb.h"
#include "server/host/errors.h"
#include "server/http/gzip.h"
#include "server/service/status_bridge.h"

namespace mmlab {
namespace {

using google::protobuf::Message;
using google::protobuf::MethodDescriptor;

constexpr size_t kMaxTimeoutDigits = 10;

struct CodeName {
  grpc::StatusCode code;
  const char* name;
  int http;
};

constexpr CodeName kCodes[] = {
    {grpc::StatusCode::CANCELLED, "canceled", 499},
    {grpc::StatusCode::UNKNOWN, "unknown", 500},
    {grpc::StatusCode::INVALID_ARGUMENT, "invalid_argument", 400},
    {grpc::StatusCode::DEADLINE_EXCEEDED, "deadline_exceeded", 504},
    {grpc::StatusCode::NOT_FOUND, "not_found", 404},
    {grpc::StatusCode::ALREADY_EXISTS, "already_exists", 409},
    {grpc::StatusCode::PERMISSION_DENIED, "permission_denied", 403},
    {grpc::StatusCode::RESOURCE_EXHAUSTED, "resource_exhausted", 429},
    {grpc::StatusCode::FAILED_PRECONDITION, "failed_precondition", 400},
    {grpc::StatusCode::ABORTED, "aborted", 409},
    {grpc::StatusCode::OUT_OF_RANGE, "out_of_range", 400},
    {grpc::StatusCode::UNIMPLEMENTED, "unimplemented", 501},
    {grpc::StatusCode::INTERNAL, "internal", 500},
    {grpc::StatusCode::UNAVAILABLE, "unavailable", 503},
    {grpc::StatusCode::DATA_LOSS, "data_loss", 500},
    {grpc::StatusCode::UNAUTHENTICATED, "unauthenticated", 401},
};

const CodeName& NameOf(grpc::StatusCode code) {
  for (const CodeName& known : kCodes) {
    if (known.code == code) return known;
  }
  return kCodes[1];
}

std::string JsonString(absl::string_view text) {
  google::protobuf::Value value;
  value.set_string_value(std::string(text));
  std::string json;
  // The value of a protobuf string is UTF-8; what is not is left out.
  if (!google::protobuf::util::MessageToJsonString(value, &json).ok()) return "\"\"";
  return json;
}

// One detail of a status: its type, its bytes and, for people, what they say.
std::string DetailJson(const google::protobuf::Any& detail) {
  const absl::string_view type = absl::StripPrefix(detail.type_url(), "type.googleapis.com/");
  std::string value = absl::Base64Escape(detail.value());
  while (!value.empty() && value.back() == '=') value.pop_back();
  std::string json = absl::StrCat("{\"type\":", JsonString(type), ",\"value\":\"", value, "\"");
  const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(std::string(type));
  std::string debug;
  if (descriptor != nullptr) {
    const std::unique_ptr<Message> message(google::protobuf::MessageFactory::generated_factory()->GetPrototype(descriptor)->New());
    if (message->ParseFromString(detail.value()) && google::protobuf::util::MessageToJsonString(*message, &debug).ok()) {
      absl::StrAppend(&json, ",\"debug\":", debug);
    }
  }
  return json + "}";
}

std::unique_ptr<Message> NewMessage(const google::protobuf::Descriptor* type) {
  return std::unique_ptr<Message>(google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

}  // namespace

int ConnectHttpStatus(grpc::StatusCode code) { return NameOf(code).http; }

std::string ConnectErrorJson(const grpc::Status& status) {
  if (status.error_details().empty()) {  // gRPC's own, such as a deadline that has passed.
    return ConnectErrorJson(absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message()));
  }
  std::string json = absl::StrCat("{\"code\":\"", NameOf(status.error_code()).name, "\",\"message\":", JsonString(status.error_message()));
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details()) && details.details_size() > 0) {
    const auto append = [](std::string* out, const google::protobuf::Any& detail) { *out += DetailJson(detail); };
    absl::StrAppend(&json, ",\"details\":[", absl::StrJoin(details.details(), ",", append), "]");
  }
  return json + "}";
}

std::string ConnectErrorJson(const absl::Status& status) { return ConnectErrorJson(ToGrpcStatus(status)); }

absl::StatusOr<std::string> ConnectRequestBytes(const MethodDescriptor& method, const std::string& message, bool json) {
  const std::unique_ptr<Message> request = NewMessage(method.input_type());
  if (!json) {
    if (!request->ParseFromString(message)) return WithReason(absl::InvalidArgumentError("the body is no message"), "MALFORMED_MESSAGE");
  } else if (!message.empty()) {
    const auto parsed = google::protobuf::util::JsonStringToMessage(message, request.get());
    // The parser quotes what it could not read, which may be anything: no text, perhaps.
    if (!parsed.ok()) return WithReason(absl::InvalidArgumentError(absl::CHexEscape(std::string(parsed.message()))), "MALFORMED_MESSAGE");
  }
  return request->SerializeAsString();
}

absl::StatusOr<std::string> ConnectResponseText(const MethodDescriptor& method, std::string bytes, bool json) {
  if (!json) return bytes;
  const std::unique_ptr<Message> response = NewMessage(method.output_type());
  std::string text;
  if (!response->ParseFromString(bytes) || !google::protobuf::util::MessageToJsonString(*response, &text).ok()) {
    return WithReason(absl::InternalError("the answer cannot be written as JSON"), "INTERNAL");
  }
  return text;
}

absl::StatusOr<std::string> ConnectUncompressed(std::string message, const std::optional<std::string>& encoding) {
  if (!encoding.has_value() || encoding->empty() || *encoding == "identity") return message;
  if (*encoding != "gzip") {
    return WithReason(absl::UnimplementedError(absl::StrCat("compression \"", absl::CHexEscape(encoding->substr(0, 64)),
                                                            "\" is not supported: gzip is, and identity")),
                      "UNKNOWN_COMPRESSION");
  }
  std::optional<std::string> text = Gunzip(message, kConnectMaxMessage);
  if (!text.has_value()) return WithReason(absl::InvalidArgumentError("the message is no gzip, or too long"), "MALFORMED_MESSAGE");
  return *std::move(text);
}

absl::StatusOr<std::optional<std::chrono::milliseconds>> ConnectTimeout(const HttpRequest& request) {
  const std::optional<std::string> header = request.Header("connect-timeout-ms");
  if (!header.has_value()) return std::optional<std::chrono::milliseconds>();
  int64_t millis = 0;
  if (header->size() > kMaxTimeoutDigits || !absl::SimpleAtoi(*header, &millis) || millis < 0) {
    return WithReason(absl::InvalidArgumentError("Connect-Timeout-Ms must be at most ten digits"), "MALFORMED_HEADER");
  }
  if (millis == 0) return WithReason(absl::DeadlineExceededError("no time was given"), "DEADLINE_EXCEEDED");
  return std::optional(std::chrono::milliseconds(millis));
}

absl::Status CheckConnectVersion(const HttpRequest& request) {
  if (request.Header("connect-protocol-version").value_or("1") == "1") return absl::OkStatus();
  return WithReason(absl::InvalidArgumentError("Connect-Protocol-Version must be 1"), "MALFORMED_HEADER");
}

std::string MediaType(const HttpRequest& request) {
  const std::string header = request.Header("content-type").value_or("");
  return absl::AsciiStrToLower(absl::StripAsciiWhitespace(absl::string_view(header).substr(0, header.find(';'))));
}

HttpResponse UnsupportedMediaType(absl::string_view accepted) {
  HttpResponse refused = TextResponse(415, absl::StrCat("Content-Type must be one of ", accepted));
  refused.headers.emplace_back("Accept-Post", std::string(accepted));
  return refused;
}

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::string bytes;
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& part : slices) bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
  return bytes;
}

grpc::ByteBuffer BufferOf(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace mmlab

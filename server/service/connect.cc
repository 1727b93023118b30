#include "server/service/connect.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/notification.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "server/base/check.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/service/rpc_methods.h"
#include "server/service/status_bridge.h"

namespace mmlab {
namespace {

using google::protobuf::Message;
using google::protobuf::MethodDescriptor;

constexpr char kApplicationProto[] = "application/proto";
constexpr char kHandlerLabel[] = "connect";  // All methods together; each is counted as grpc_server_*.
constexpr std::chrono::milliseconds kDefaultTimeout = std::chrono::minutes(1);
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

HttpResponse ErrorResponse(const grpc::Status& status) {
  const CodeName& code = NameOf(status.error_code());
  std::string json = absl::StrCat("{\"code\":\"", code.name, "\",\"message\":", JsonString(status.error_message()));
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details()) && details.details_size() > 0) {
    std::vector<std::string> each;
    for (const google::protobuf::Any& detail : details.details()) each.push_back(DetailJson(detail));
    absl::StrAppend(&json, ",\"details\":[");
    for (size_t i = 0; i < each.size(); ++i) absl::StrAppend(&json, i == 0 ? "" : ",", each[i]);
    absl::StrAppend(&json, "]");
  }
  return HttpResponse{.status = code.http, .content_type = kApplicationJson, .body = json + "}", .headers = {}};
}

HttpResponse ErrorResponse(const absl::Status& status) { return ErrorResponse(ToGrpcStatus(status)); }

std::unique_ptr<Message> NewMessage(const google::protobuf::Descriptor* type) {
  return std::unique_ptr<Message>(google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

absl::StatusOr<std::string> RequestBytes(const MethodDescriptor& method, const std::string& message, bool json) {
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

absl::StatusOr<std::chrono::milliseconds> TimeoutOf(const HttpRequest& request) {
  const std::optional<std::string> header = request.Header("connect-timeout-ms");
  if (!header.has_value()) return kDefaultTimeout;
  int64_t millis = 0;
  if (header->size() > kMaxTimeoutDigits || !absl::SimpleAtoi(*header, &millis) || millis < 0) {
    return WithReason(absl::InvalidArgumentError("Connect-Timeout-Ms must be at most ten digits"), "MALFORMED_HEADER");
  }
  return std::chrono::milliseconds(millis);
}

grpc::Status CallMethod(const std::shared_ptr<grpc::Channel>& channel, const std::string& path, std::chrono::milliseconds timeout,
                        const std::string& request, std::string* response) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  const grpc::Slice slice(request);
  const grpc::ByteBuffer sent(&slice, 1);
  grpc::ByteBuffer received;
  grpc::Status status;
  absl::Notification done;
  stub.UnaryCall(&context, path, grpc::StubOptions(), &sent, &received, [&](grpc::Status result) {
    status = std::move(result);
    done.Notify();
  });
  done.WaitForNotification();
  std::vector<grpc::Slice> slices;
  if (status.ok() && received.Dump(&slices).ok()) {
    for (const grpc::Slice& part : slices) response->append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  return status;
}

// Only the media type: "application/json; charset=utf-8" is JSON.
std::string MediaType(const HttpRequest& request) {
  const std::string header = request.Header("content-type").value_or("");
  return absl::AsciiStrToLower(absl::StripAsciiWhitespace(absl::string_view(header).substr(0, header.find(';'))));
}

HttpResponse UnsupportedMediaType() {
  HttpResponse refused = TextResponse(415, "Content-Type must be application/json or application/proto");
  refused.headers.emplace_back("Accept-Post", "application/json, application/proto");
  return refused;
}

absl::Status UnknownEncoding(absl::string_view encoding) {
  return WithReason(absl::UnimplementedError(absl::StrCat("compression \"", encoding.substr(0, 64), "\" is not supported: send identity")),
                    "UNKNOWN_COMPRESSION");
}

std::string FirstOf(const HttpRequest& request, absl::string_view name) {
  const std::vector<std::string> values = request.QueryValues(name);
  return values.empty() ? std::string() : values.front();
}

}  // namespace

void ConnectBridge::Serve(HttpServer& http) {
  for (const std::string& name : RpcServices()) {
    const auto* service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    MMLAB_CHECK(service != nullptr);
    for (int i = 0; i < service->method_count(); ++i) {
      const MethodDescriptor* method = service->method(i);
      if (method->client_streaming() || method->server_streaming()) continue;
      const std::string path = absl::StrCat("/", name, "/", method->name());
      http.Route(
          "POST", path, [this, method](const HttpRequest& request) { return Post(*method, request); }, kHandlerLabel);
      if (method->options().idempotency_level() == google::protobuf::MethodOptions::NO_SIDE_EFFECTS) {
        http.Route(
            "GET", path, [this, method](const HttpRequest& request) { return Get(*method, request); }, kHandlerLabel);
      }
    }
  }
}

void ConnectBridge::Open(std::shared_ptr<grpc::Channel> channel) {
  absl::MutexLock lock(&mutex_);
  channel_ = std::move(channel);
}

HttpResponse ConnectBridge::Post(const MethodDescriptor& method, const HttpRequest& request) const {
  const std::string type = MediaType(request);
  if (type != kApplicationJson && type != kApplicationProto) return UnsupportedMediaType();
  if (const auto version = request.Header("connect-protocol-version"); version.has_value() && *version != "1") {
    return ErrorResponse(WithReason(absl::InvalidArgumentError("Connect-Protocol-Version must be 1"), "MALFORMED_HEADER"));
  }
  if (const auto encoding = request.Header("content-encoding"); encoding.has_value() && *encoding != "identity") {
    return ErrorResponse(UnknownEncoding(*encoding));
  }
  return Call(method, request, request.body, type == kApplicationJson);
}

HttpResponse ConnectBridge::Get(const MethodDescriptor& method, const HttpRequest& request) const {
  const std::string encoding = FirstOf(request, "encoding");
  if (encoding != "json" && encoding != "proto") return UnsupportedMediaType();
  if (const std::string version = FirstOf(request, "connect"); !version.empty() && version != "v1") {
    return ErrorResponse(WithReason(absl::InvalidArgumentError("connect must be v1"), "MALFORMED_QUERY"));
  }
  if (const std::string compression = FirstOf(request, "compression"); !compression.empty() && compression != "identity") {
    return ErrorResponse(UnknownEncoding(compression));
  }
  std::string message = FirstOf(request, "message");
  if (FirstOf(request, "base64") == "1") {
    std::string decoded;
    if (!absl::WebSafeBase64Unescape(message, &decoded)) {
      return ErrorResponse(WithReason(absl::InvalidArgumentError("message is not URL-safe base64"), "MALFORMED_QUERY"));
    }
    message = std::move(decoded);
  }
  return Call(method, request, message, encoding == "json");
}

HttpResponse ConnectBridge::Call(const MethodDescriptor& method, const HttpRequest& request, const std::string& message, bool json) const {
  std::shared_ptr<grpc::Channel> channel;
  {
    absl::MutexLock lock(&mutex_);
    channel = channel_;
  }
  if (channel == nullptr) return ErrorResponse(ShuttingDown());
  const absl::StatusOr<std::chrono::milliseconds> timeout = TimeoutOf(request);
  if (!timeout.ok()) return ErrorResponse(timeout.status());
  if (timeout->count() == 0) return ErrorResponse(WithReason(absl::DeadlineExceededError("no time was given"), "DEADLINE_EXCEEDED"));
  const absl::StatusOr<std::string> bytes = RequestBytes(method, message, json);
  if (!bytes.ok()) return ErrorResponse(bytes.status());
  std::string answer;
  const grpc::Status status = CallMethod(channel, request.path, *timeout, *bytes, &answer);
  if (!status.ok()) return ErrorResponse(status);
  if (!json) return HttpResponse{.content_type = kApplicationProto, .body = std::move(answer), .headers = {}};
  const std::unique_ptr<Message> response = NewMessage(method.output_type());
  std::string text;
  if (!response->ParseFromString(answer) || !google::protobuf::util::MessageToJsonString(*response, &text).ok()) {
    return ErrorResponse(WithReason(absl::InternalError("the answer cannot be written as JSON"), "INTERNAL"));
  }
  return HttpResponse{.content_type = kApplicationJson, .body = std::move(text), .headers = {}};
}

}  // namespace mmlab

#include "server/service/connect.h"

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "google/protobuf/descriptor.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "server/base/check.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/service/connect_codec.h"
#include "server/service/connect_stream.h"
#include "server/service/rpc_methods.h"
#include "server/service/status_bridge.h"

namespace mmlab {
namespace {

using google::protobuf::MethodDescriptor;

constexpr char kApplicationProto[] = "application/proto";
constexpr char kHandlerLabel[] = "connect";  // All methods together; each is counted as grpc_server_*.
constexpr std::chrono::milliseconds kDefaultTimeout = std::chrono::minutes(1);

HttpResponse ErrorResponse(const grpc::Status& status) {
  return HttpResponse{.status = ConnectHttpStatus(status.error_code()), .content_type = kApplicationJson, .body = ConnectErrorJson(status)};
}

HttpResponse ErrorResponse(const absl::Status& status) { return ErrorResponse(ToGrpcStatus(status)); }

HttpResponse NoUnaryType() { return UnsupportedMediaType("application/json, application/proto"); }

grpc::Status CallMethod(const std::shared_ptr<grpc::Channel>& channel, const std::string& path, std::chrono::milliseconds timeout,
                        const std::string& request, std::string* response) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  const grpc::ByteBuffer sent = BufferOf(request);
  grpc::ByteBuffer received;
  grpc::Status status;
  absl::Notification done;
  stub.UnaryCall(&context, path, grpc::StubOptions(), &sent, &received, [&](grpc::Status result) {
    status = std::move(result);
    done.Notify();
  });
  done.WaitForNotification();
  if (status.ok()) *response = BytesOf(received);
  return status;
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
      if (method->client_streaming()) continue;  // A body that goes on while its answer does needs HTTP/2.
      const std::string path = absl::StrCat("/", name, "/", method->name());
      http.Route(
          "POST", path,
          [this, method](const HttpRequest& request) {
            return method->server_streaming() ? AnswerConnectStream(OpenChannel(), *method, request) : Post(*method, request);
          },
          kHandlerLabel);
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

std::shared_ptr<grpc::Channel> ConnectBridge::OpenChannel() const {
  absl::MutexLock lock(&mutex_);
  return channel_;
}

HttpResponse ConnectBridge::Post(const MethodDescriptor& method, const HttpRequest& request) const {
  const std::string type = MediaType(request);
  if (type != kApplicationJson && type != kApplicationProto) return NoUnaryType();
  if (const absl::Status version = CheckConnectVersion(request); !version.ok()) return ErrorResponse(version);
  const absl::StatusOr<std::string> message = ConnectUncompressed(request.body, request.Header("content-encoding"));
  if (!message.ok()) return ErrorResponse(message.status());
  return Call(method, request, *message, type == kApplicationJson);
}

HttpResponse ConnectBridge::Get(const MethodDescriptor& method, const HttpRequest& request) const {
  const std::string encoding = FirstOf(request, "encoding");
  if (encoding != "json" && encoding != "proto") return NoUnaryType();
  if (const std::string version = FirstOf(request, "connect"); !version.empty() && version != "v1") {
    return ErrorResponse(WithReason(absl::InvalidArgumentError("connect must be v1"), "MALFORMED_QUERY"));
  }
  std::string message = FirstOf(request, "message");
  if (FirstOf(request, "base64") == "1") {
    std::string decoded;
    if (!absl::WebSafeBase64Unescape(message, &decoded)) {
      return ErrorResponse(WithReason(absl::InvalidArgumentError("message is not URL-safe base64"), "MALFORMED_QUERY"));
    }
    message = std::move(decoded);
  }
  const absl::StatusOr<std::string> plain = ConnectUncompressed(std::move(message), FirstOf(request, "compression"));
  if (!plain.ok()) return ErrorResponse(plain.status());
  return Call(method, request, *plain, encoding == "json");
}

HttpResponse ConnectBridge::Call(const MethodDescriptor& method, const HttpRequest& request, const std::string& message, bool json) const {
  const std::shared_ptr<grpc::Channel> channel = OpenChannel();
  if (channel == nullptr) return ErrorResponse(ShuttingDown());
  const absl::StatusOr<std::optional<std::chrono::milliseconds>> timeout = ConnectTimeout(request);
  if (!timeout.ok()) return ErrorResponse(timeout.status());
  const absl::StatusOr<std::string> bytes = ConnectRequestBytes(method, message, json);
  if (!bytes.ok()) return ErrorResponse(bytes.status());
  std::string answer;
  const grpc::Status status = CallMethod(channel, request.path, timeout->value_or(kDefaultTimeout), *bytes, &answer);
  if (!status.ok()) return ErrorResponse(status);
  absl::StatusOr<std::string> text = ConnectResponseText(method, std::move(answer), json);
  if (!text.ok()) return ErrorResponse(text.status());
  return HttpResponse{.content_type = json ? kApplicationJson : kApplicationProto, .body = *std::move(text)};
}

}  // namespace mmlab

#include "server/service/connect_stream.h"

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "grpcpp/generic/generic_stub.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/http/accept_encoding.h"
#include "server/http/gzip.h"
#include "server/service/connect_codec.h"
#include "server/service/status_bridge.h"

namespace mmlab {
namespace {

using google::protobuf::MethodDescriptor;

constexpr char kConnectJson[] = "application/connect+json";
constexpr char kConnectProto[] = "application/connect+proto";
constexpr size_t kEnvelopeHead = 5;
constexpr uint8_t kCompressed = 1;
constexpr uint8_t kEndOfStream = 2;
constexpr size_t kGzipWorthBytes = 512;
constexpr absl::Duration kLookAtReader = absl::Milliseconds(500);

std::string Envelope(uint8_t flags, const std::string& message) {
  const auto length = static_cast<uint32_t>(message.size());
  std::string head(1, static_cast<char>(flags));
  for (int shift = 24; shift >= 0; shift -= 8) head.push_back(static_cast<char>(length >> shift));
  return head + message;
}

// The one message of the request's body.
absl::StatusOr<std::string> OpenEnvelope(const std::string& body, const std::optional<std::string>& encoding) {
  const auto malformed = [](absl::string_view what) {
    return WithReason(absl::InvalidArgumentError(absl::StrCat("the body must be one message in an envelope: ", what)),
                      "MALFORMED_ENVELOPE");
  };
  if (body.size() < kEnvelopeHead) return malformed("it is shorter than an envelope's head");
  const auto flags = static_cast<uint8_t>(body[0]);
  uint32_t length = 0;
  for (size_t i = 1; i < kEnvelopeHead; ++i) length = length << 8 | static_cast<uint8_t>(body[i]);
  if ((flags & ~kCompressed) != 0) return malformed("unknown flags");
  if (length != body.size() - kEnvelopeHead) return malformed("its length is another");
  std::string message = body.substr(kEnvelopeHead);
  if ((flags & kCompressed) == 0) return message;
  if (!encoding.has_value()) return malformed("it is compressed, and Connect-Content-Encoding does not say how");
  return ConnectUncompressed(std::move(message), encoding);
}

// The gRPC call behind a stream: hands over one message at a time.
class StreamedCall final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  StreamedCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& path, const std::string& request,
               std::optional<std::chrono::milliseconds> timeout)
      : stub_(channel), request_(BufferOf(request)) {
    if (timeout.has_value()) context_.set_deadline(std::chrono::system_clock::now() + *timeout);
    stub_.PrepareBidiStreamingCall(&context_, path, grpc::StubOptions(), this);
    StartWriteLast(&request_, grpc::WriteOptions());
    StartRead(&response_);
    StartCall();
  }
  // Cancels what has not ended.
  ~StreamedCall() override {
    context_.TryCancel();
    done_.WaitForNotification();
  }

  enum class Next { kMessage, kEnd, kNothing };
  // Waits for a message, which Take() then gives, or the end, but not long.
  Next Wait() {
    absl::MutexLock lock(&mutex_);
    const auto happened = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return arrived_ || status_.has_value(); };
    mutex_.AwaitWithTimeout(absl::Condition(&happened), kLookAtReader);
    return arrived_ ? Next::kMessage : status_.has_value() ? Next::kEnd : Next::kNothing;
  }
  // REQUIRES: Wait() said kMessage. The next may come from now on.
  std::string Take() {
    std::string message = BytesOf(response_);
    response_.Clear();
    {
      absl::MutexLock lock(&mutex_);
      arrived_ = false;
    }
    StartRead(&response_);
    return message;
  }
  // How it ended. REQUIRES: Wait() said kEnd.
  grpc::Status End() {
    absl::MutexLock lock(&mutex_);
    return *status_;
  }

  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    arrived_ = ok;
  }
  void OnDone(const grpc::Status& status) override {
    {
      absl::MutexLock lock(&mutex_);
      status_ = status;
    }
    done_.Notify();  // From here on this may be gone.
  }

 private:
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer response_;  // Belongs to the read until arrived_.
  absl::Mutex mutex_;
  bool arrived_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<grpc::Status> status_ ABSL_GUARDED_BY(mutex_);
  absl::Notification done_;
};

struct StreamRequest {
  std::string bytes;
  std::optional<std::chrono::milliseconds> timeout;
};

absl::StatusOr<StreamRequest> ReadStreamRequest(const MethodDescriptor& method, const HttpRequest& request, bool json) {
  StreamRequest read;
  MMLAB_RETURN_IF_ERROR(CheckConnectVersion(request));
  MMLAB_ASSIGN_OR_RETURN(read.timeout, ConnectTimeout(request));
  MMLAB_ASSIGN_OR_RETURN(const std::string message, OpenEnvelope(request.body, request.Header("connect-content-encoding")));
  MMLAB_ASSIGN_OR_RETURN(read.bytes, ConnectRequestBytes(method, message, json));
  return read;
}

std::string EndOfStream(const grpc::Status& status) {
  return Envelope(kEndOfStream, status.ok() ? "{}" : absl::StrCat("{\"error\":", ConnectErrorJson(status), "}"));
}

// Writes what the call says until it or its reader ends.
void Forward(StreamedCall& call, const MethodDescriptor& method, bool json, bool gzip, HttpStream& out) {
  while (out.open()) {
    const StreamedCall::Next next = call.Wait();
    if (next == StreamedCall::Next::kNothing) continue;
    if (next == StreamedCall::Next::kEnd) {
      out.Write(EndOfStream(call.End()));
      return;
    }
    const absl::StatusOr<std::string> text = ConnectResponseText(method, call.Take(), json);
    if (!text.ok()) {
      out.Write(EndOfStream(ToGrpcStatus(text.status())));
      return;
    }
    const bool pack = gzip && text->size() >= kGzipWorthBytes;
    if (!out.Write(pack ? Envelope(kCompressed, Gzip(*text)) : Envelope(0, *text))) return;
  }
}

}  // namespace

HttpResponse AnswerConnectStream(const std::shared_ptr<grpc::Channel>& channel, const MethodDescriptor& method,
                                 const HttpRequest& request) {
  const std::string type = MediaType(request);
  if (type != kConnectJson && type != kConnectProto) return UnsupportedMediaType("application/connect+json, application/connect+proto");
  const bool json = type == kConnectJson;
  HttpResponse answer{.content_type = type, .body = {}};
  const absl::StatusOr<StreamRequest> read = channel == nullptr ? ShuttingDown() : ReadStreamRequest(method, request, json);
  if (!read.ok()) {
    answer.stream = [end = EndOfStream(ToGrpcStatus(read.status()))](HttpStream& out) { out.Write(end); };
    return answer;
  }
  const bool gzip = AcceptsGzip(request.Header("connect-accept-encoding").value_or(""));
  if (gzip) answer.headers.emplace_back("Connect-Content-Encoding", "gzip");
  answer.stream = [channel, &method, path = request.path, read = *read, json, gzip](HttpStream& out) {
    StreamedCall call(channel, path, read.bytes, read.timeout);
    Forward(call, method, json, gzip, out);
  };
  return answer;
}

}  // namespace mmlab

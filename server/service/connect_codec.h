#ifndef MMLAB_SERVER_SERVICE_CONNECT_CODEC_H_
#define MMLAB_SERVER_SERVICE_CONNECT_CODEC_H_

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/status.h"
#include "server/http/http_server.h"

namespace mmlab {

// How the Connect protocol writes messages, errors and headers; unary calls and streams share it.

// A message that comes compressed must not become longer than one that does not could be.
inline constexpr size_t kConnectMaxMessage = size_t{4} << 20;

// 404 for NOT_FOUND, ...: the protocol's table.
int ConnectHttpStatus(grpc::StatusCode code);
// {"code":"not_found","message":"...","details":[...]}
std::string ConnectErrorJson(const grpc::Status& status);
std::string ConnectErrorJson(const absl::Status& status);

// A request as gRPC takes it, from what the client sent. INVALID_ARGUMENT: it is no such message.
absl::StatusOr<std::string> ConnectRequestBytes(const google::protobuf::MethodDescriptor& method, const std::string& message, bool json);
// A response as the client wants it.
absl::StatusOr<std::string> ConnectResponseText(const google::protobuf::MethodDescriptor& method, std::string bytes, bool json);

// Undoes a compression named by a header; none and "identity" are none. UNIMPLEMENTED: neither these nor gzip; INVALID_ARGUMENT: no gzip,
// or more than kConnectMaxMessage.
absl::StatusOr<std::string> ConnectUncompressed(std::string message, const std::optional<std::string>& encoding);

// Connect-Timeout-Ms, where it is given. INVALID_ARGUMENT: not at most ten digits; DEADLINE_EXCEEDED: 0.
absl::StatusOr<std::optional<std::chrono::milliseconds>> ConnectTimeout(const HttpRequest& request);
// INVALID_ARGUMENT: another protocol version is asked for.
absl::Status CheckConnectVersion(const HttpRequest& request);
// The media type of the body: "application/json; charset=utf-8" is application/json.
std::string MediaType(const HttpRequest& request);
// 415, with the types that are taken.
HttpResponse UnsupportedMediaType(absl::string_view accepted);

std::string BytesOf(const grpc::ByteBuffer& buffer);
grpc::ByteBuffer BufferOf(const std::string& bytes);

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_CONNECT_CODEC_H_

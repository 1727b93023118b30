#ifndef MMLAB_SERVER_SERVICE_CONNECT_H_
#define MMLAB_SERVER_SERVICE_CONNECT_H_

#include <memory>

#include "absl/synchronization/mutex.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/channel.h"
#include "server/http/http_server.h"

namespace mmlab {

// The Connect protocol on the HTTP port (connectrpc.com/docs/protocol): every unary method of ours as POST /mmlab.v1.Service/Method with a
// JSON (application/json) or binary (application/proto) message, and as GET where the method has no side effects; every server-streaming
// method as POST (connect_stream.h). Errors are Connect's: {"code", "message", "details"} under the HTTP status of the code. A call goes
// through the same gRPC handlers as any other, by the method's descriptor: nothing is written for a method, and nothing that a client sends
// chooses a type.
//
// Requests may be compressed by gzip. Without Connect-Timeout-Ms a unary call has a minute and a stream all time.
class ConnectBridge {
 public:
  // Puts the methods on the port; until Open they answer `unavailable`. This outlives `http`. REQUIRES: `http` is not started.
  void Serve(HttpServer& http);
  void Open(std::shared_ptr<grpc::Channel> channel);
  // New calls are `unavailable` from now on.
  void Close() { Open(nullptr); }

 private:
  std::shared_ptr<grpc::Channel> OpenChannel() const;  // Null: closed.
  HttpResponse Post(const google::protobuf::MethodDescriptor& method, const HttpRequest& request) const;
  HttpResponse Get(const google::protobuf::MethodDescriptor& method, const HttpRequest& request) const;
  HttpResponse Call(const google::protobuf::MethodDescriptor& method, const HttpRequest& request, const std::string& message,
                    bool json) const;

  mutable absl::Mutex mutex_;
  std::shared_ptr<grpc::Channel> channel_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_CONNECT_H_

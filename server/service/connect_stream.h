#ifndef MMLAB_SERVER_SERVICE_CONNECT_STREAM_H_
#define MMLAB_SERVER_SERVICE_CONNECT_STREAM_H_

#include <memory>

#include "google/protobuf/descriptor.h"
#include "grpcpp/channel.h"
#include "server/http/http_server.h"

namespace mmlab {

// A server-streaming call of the Connect protocol: one request message in an envelope (flags, length, message), then the responses in
// envelopes as they come, and last an envelope that says how it ended. Content-Type application/connect+json or +proto. Every error travels
// in the last envelope, under HTTP status 200. Messages may be compressed by gzip, both ways.
//
// At most one response is under way: what comes meanwhile waits in the method's own flow control. The call ends with its reader.
HttpResponse AnswerConnectStream(const std::shared_ptr<grpc::Channel>& channel, const google::protobuf::MethodDescriptor& method,
                                 const HttpRequest& request);

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_CONNECT_STREAM_H_

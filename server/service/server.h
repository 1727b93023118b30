#ifndef MMLAB_SERVER_SERVICE_SERVER_H_
#define MMLAB_SERVER_SERVICE_SERVER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"

namespace mmlab {

class EventLog;
class Host;

struct ServerOptions {
  // Where to listen, HOST:PORT; port 0 takes a free one. Empty: not at all. With both empty the server is reached by InProcessChannel()
  // only and opens no socket.
  std::string grpc_address;
  std::string http_address;
  std::string http_external_address;              // HOST:PORT under which scrapers reach http_address; empty: as each reached it.
  std::vector<std::string> http_allowed_origins;  // See HttpOptions.

  int max_machines = 100000;
  int worker_threads = 0;                             // See HostOptions.
  bool reflection = true;                             // Let clients ask for the schema (not in process).
  bool enable_channelz = false;                       // Process-wide: later servers have it too.
  int max_concurrent_streams = 1000;                  // Of one connection.
  size_t max_connections_of_peer = 1000;              // To the gRPC port, of one address; more are closed at once.
  size_t max_request_memory_bytes = size_t{1} << 30;  // For requests under way, of all connections.
  int max_threads = 64;                               // That gRPC may start for calls of its synchronous services (reflection).
  EventLog* log = nullptr;                            // Null: silent. Outlives the server.
};

// The whole server: machines, services, listeners. What mmlabd runs and what `mmlab --in-process` holds inside itself.
class Server {
 public:
  // UNAVAILABLE: an address cannot be listened on; INVALID_ARGUMENT: it cannot be read.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options);
  // Shuts down with half a second to drain.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // A channel without sockets. It must not be used after Shutdown.
  std::shared_ptr<grpc::Channel> InProcessChannel();
  int grpc_port() const;  // 0: not listening.
  int http_port() const;
  Host& host();

  // Health says NOT_SERVING, nothing new is accepted, calls under way have `drain` to end and are cancelled then. Nothing happens the
  // second time.
  void Shutdown(absl::Duration drain);

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

// "0.1.0"
const char* Version();

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_SERVER_H_

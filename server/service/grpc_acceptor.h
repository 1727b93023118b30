#ifndef MMLAB_SERVER_SERVICE_GRPC_ACCEPTOR_H_
#define MMLAB_SERVER_SERVICE_GRPC_ACCEPTOR_H_

#include <cstddef>
#include <memory>
#include <string>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "grpcpp/server_builder.h"

namespace mmlab {

// The gRPC port's own accept loop. gRPC's stops for good when the process once ran out of descriptors (CVE-2023-4785); this one waits until
// there are some again, and lets no single peer address take them all. Accepted sockets are handed to gRPC, which owns them from then on.
class GrpcAcceptor {
 public:
  // Listens, so that connections queue; none is accepted before Start. INVALID_ARGUMENT: the address is not HOST:PORT; UNAVAILABLE: it
  // cannot be listened on.
  static absl::StatusOr<std::unique_ptr<GrpcAcceptor>> Listen(const std::string& address, size_t max_connections_of_peer);
  ~GrpcAcceptor();
  GrpcAcceptor(const GrpcAcceptor&) = delete;
  GrpcAcceptor& operator=(const GrpcAcceptor&) = delete;

  int port() const { return port_; }
  // REQUIRES: the server that `grpc` belongs to was started. Once.
  void Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> grpc);
  // Accepts nothing any more and lets the port go. Nothing happens the second time.
  void Stop();

 private:
  struct Peer {
    std::string address;  // Without the port.
    int port = 0;
  };

  GrpcAcceptor(int listener, int port, size_t max_connections_of_peer);
  static Peer PeerOf(int fd);
  void Accept();
  void AcceptOne();
  // Whether one more connection of this address is too many. Counts only sockets that are still that peer's.
  bool IsTooMany(const std::string& address);

  int listener_;    // -1: stopped.
  const int wake_;  // eventfd
  const int port_;
  const size_t max_connections_of_peer_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> grpc_;
  std::thread thread_;
  // The thread's own. gRPC closes sockets without a word, and then their numbers are given to others: an entry counts as long as its socket
  // has the peer that it was accepted from.
  absl::flat_hash_map<int, Peer> accepted_;
  absl::flat_hash_map<std::string, size_t> of_address_;  // Entries of accepted_, those included whose socket was closed since.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_GRPC_ACCEPTOR_H_

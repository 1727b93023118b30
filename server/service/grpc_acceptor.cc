#include "server/service/grpc_acceptor.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

constexpr int kListenBacklog = 511;
constexpr int kWaitForDescriptorsMillis = 50;

// A listening socket, or -1.
int ListenOn(const addrinfo& address) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, kListenBacklog) == 0) return fd;
  close(fd);
  return -1;
}

int PortOf(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcAcceptor>> GrpcAcceptor::Listen(const std::string& address, size_t max_connections_of_peer) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("gRPC address '", address, "' is not HOST:PORT"));
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  int listener = -1;
  if (getaddrinfo(host.empty() ? nullptr : host.c_str(), absl::StrCat(port).c_str(), &hints, &found) == 0) {
    for (const addrinfo* one = found; one != nullptr && listener < 0; one = one->ai_next) listener = ListenOn(*one);
    freeaddrinfo(found);
  }
  if (listener < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen for gRPC on ", address, " (malformed, not an address of this computer, or already in use)"));
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  MMLAB_CHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&bound), &size) == 0);
  return std::unique_ptr<GrpcAcceptor>(new GrpcAcceptor(listener, PortOf(bound), max_connections_of_peer));
}

GrpcAcceptor::GrpcAcceptor(int listener, int port, size_t max_connections_of_peer)
    : listener_(listener), wake_(eventfd(0, EFD_CLOEXEC)), port_(port), max_connections_of_peer_(max_connections_of_peer) {
  MMLAB_CHECK(wake_ >= 0);
}

GrpcAcceptor::~GrpcAcceptor() {
  Stop();
  close(wake_);
}

void GrpcAcceptor::Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> grpc) {
  grpc_ = std::move(grpc);
  thread_ = std::thread([this] { Accept(); });
}

void GrpcAcceptor::Stop() {
  if (listener_ < 0) return;
  if (thread_.joinable()) {
    const uint64_t one = 1;
    MMLAB_CHECK(write(wake_, &one, sizeof(one)) == sizeof(one));
    thread_.join();
  }
  close(listener_);
  listener_ = -1;
}

GrpcAcceptor::Peer GrpcAcceptor::PeerOf(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return {};
  char text[INET6_ADDRSTRLEN] = "";
  const void* const address = peer.ss_family == AF_INET ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in&>(peer).sin_addr)
                                                        : &reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr;
  inet_ntop(peer.ss_family, address, text, sizeof(text));
  return {text, PortOf(peer)};
}

void GrpcAcceptor::Accept() {
  pollfd waited[2] = {{wake_, POLLIN, 0}, {listener_, POLLIN, 0}};
  while (true) {
    if (poll(waited, 2, -1) < 0) continue;
    if (waited[0].revents != 0) return;
    AcceptOne();
  }
}

void GrpcAcceptor::AcceptOne() {
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) {
    // Out of descriptors or memory: whoever waits in the queue goes on waiting, until the process is told to stop.
    pollfd stopped = {wake_, POLLIN, 0};
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) poll(&stopped, 1, kWaitForDescriptorsMillis);
    return;
  }
  Peer peer = PeerOf(fd);
  if (const auto before = accepted_.find(fd); before != accepted_.end()) {  // Its socket is gone: this is another.
    --of_address_[before->second.address];
    accepted_.erase(before);
  }
  if (peer.port == 0 || IsTooMany(peer.address)) {
    close(fd);
    return;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ++of_address_[peer.address];
  accepted_.emplace(fd, std::move(peer));
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.listener_fd = listener_;
  connection.fd = fd;
  grpc_->HandleNewConnection(&connection);
}

bool GrpcAcceptor::IsTooMany(const std::string& address) {
  if (of_address_[address] < max_connections_of_peer_) return false;
  for (auto one = accepted_.begin(); one != accepted_.end();) {
    const Peer now = PeerOf(one->first);
    if (now.port == one->second.port && now.address == one->second.address) {
      ++one;
      continue;
    }
    --of_address_[one->second.address];
    accepted_.erase(one++);
  }
  absl::erase_if(of_address_, [&](const auto& entry) { return entry.second == 0 && entry.first != address; });
  return of_address_[address] >= max_connections_of_peer_;
}

}  // namespace mmlab

#include "server/http/connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace mmlab {
namespace {

constexpr size_t kFlushBytes = 256 * 1024;

}  // namespace

HttpConnection::HttpConnection(int fd) : fd_(fd), waiting_since_(Clock::now()), deadline_(Clock::now()) {
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  if (getpeername(fd_, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return;
  char text[INET6_ADDRSTRLEN] = "";
  if (peer.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(peer);
    inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
    peer_port_ = ntohs(in.sin_port);
  } else if (peer.ss_family == AF_INET6) {
    const auto& in = reinterpret_cast<const sockaddr_in6&>(peer);
    inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof(text));
    peer_port_ = ntohs(in.sin6_port);
  }
  peer_address_ = text;
}

HttpConnection::~HttpConnection() { close(fd_); }

HttpConnection::Head HttpConnection::head() const {
  if (input_.find("\r\n\r\n", position_) != std::string::npos) return Head::kComplete;
  return input_.size() - position_ > kMaxHeadBytes ? Head::kTooLong : Head::kIncomplete;
}

HttpConnection::Head HttpConnection::ReceiveHead() {
  char chunk[4096];
  const ssize_t got = recv(fd_, chunk, sizeof(chunk), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR ? Head::kIncomplete : Head::kClosed;
  if (got == 0) return Head::kClosed;
  if (!has_partial_head()) {
    input_.clear();
    position_ = 0;
    waiting_since_ = Clock::now();
  }
  // Only the new bytes and the three before them can end the head: a client that sends single bytes costs no more than another.
  const size_t unseen = std::max(position_ + 3, input_.size()) - 3;
  input_.append(chunk, static_cast<size_t>(got));
  if (input_.find("\r\n\r\n", unseen) != std::string::npos) return Head::kComplete;
  return input_.size() - position_ > kMaxHeadBytes ? Head::kTooLong : Head::kIncomplete;
}

bool HttpConnection::PeerIsThere() const {
  char byte;
  const ssize_t got = recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return !broken_ && (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)));
}

void HttpConnection::Abort() const { shutdown(fd_, SHUT_RDWR); }

bool HttpConnection::Wait(short events) {
  while (!broken_) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
    pollfd waited{fd_, events, 0};
    const int ready = left > 0 ? poll(&waited, 1, static_cast<int>(left)) : 0;
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) broken_ = true;
  }
  return false;
}

ssize_t HttpConnection::Read(char* data, size_t size) {
  if (has_partial_head()) {
    const size_t taken = std::min(size, input_.size() - position_);
    std::memcpy(data, input_.data() + position_, taken);
    position_ += taken;
    return static_cast<ssize_t>(taken);
  }
  if (!Flush()) return -1;
  while (!broken_) {
    const ssize_t got = recv(fd_, data, size, MSG_DONTWAIT);
    if (got >= 0) return got;
    if (errno == EAGAIN) {
      Wait(POLLIN);
    } else if (errno != EINTR) {
      broken_ = true;
    }
  }
  return -1;
}

bool HttpConnection::Write(const char* data, size_t size) {
  if (broken_) return false;
  output_.append(data, size);
  return output_.size() < kFlushBytes || Flush();
}

bool HttpConnection::Flush() {
  size_t sent = 0;
  while (!broken_ && sent < output_.size()) {
    const ssize_t got = send(fd_, output_.data() + sent, output_.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (got >= 0) {
      sent += static_cast<size_t>(got);
    } else if (errno == EAGAIN) {
      Wait(POLLOUT);
    } else if (errno != EINTR) {
      broken_ = true;
    }
  }
  output_.clear();
  return !broken_;
}

}  // namespace mmlab

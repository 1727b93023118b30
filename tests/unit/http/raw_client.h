#ifndef MMLAB_TESTS_UNIT_HTTP_RAW_CLIENT_H_
#define MMLAB_TESTS_UNIT_HTTP_RAW_CLIENT_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace mmlab {

struct Reply {
  int status = 0;
  std::map<std::string, std::string> headers;
  std::string body;
};

// A client that sends exactly the bytes it is told to.
class RawClient {
 public:
  explicit RawClient(const std::string& address) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in server{};
    server.sin_family = AF_INET;
    int port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
    server.sin_port = htons(static_cast<uint16_t>(port));
    inet_pton(AF_INET, "127.0.0.1", &server.sin_addr);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&server), sizeof(server)), 0);
    timeval limit{20, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  ~RawClient() { close(fd_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void Send(const std::string& bytes) { send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  bool Closed() {
    char byte;
    return input_.empty() && recv(fd_, &byte, 1, 0) <= 0;
  }
  // So many bytes of what comes.
  std::string Take(size_t size) {
    while (input_.size() < size && Fill()) {
    }
    std::string taken = input_.substr(0, size);
    input_.erase(0, size);
    return taken;
  }
  // The next answer; status 0 when the connection ended before.
  Reply Receive(bool head_only = false) {
    size_t end;
    while ((end = input_.find("\r\n\r\n")) == std::string::npos) {
      if (!Fill()) return {};
    }
    Reply reply;
    const std::vector<std::string> lines = absl::StrSplit(input_.substr(0, end), "\r\n");
    EXPECT_TRUE(absl::SimpleAtoi(lines[0].substr(9, 3), &reply.status)) << lines[0];
    for (size_t i = 1; i < lines.size(); ++i) {
      const std::pair<std::string, std::string> header = absl::StrSplit(lines[i], absl::MaxSplits(": ", 1));
      reply.headers[absl::AsciiStrToLower(header.first)] = header.second;
    }
    input_.erase(0, end + 4);
    size_t length = 0;
    if (!head_only && absl::SimpleAtoi(reply.headers["content-length"], &length)) {
      while (input_.size() < length && Fill()) {
      }
      reply.body = input_.substr(0, length);
      input_.erase(0, length);
    }
    return reply;
  }

 private:
  bool Fill() {
    char chunk[4096];
    const ssize_t got = recv(fd_, chunk, sizeof(chunk), 0);
    if (got <= 0) return false;
    input_.append(chunk, static_cast<size_t>(got));
    return true;
  }

  const int fd_;
  std::string input_;
};

}  // namespace mmlab

#endif  // MMLAB_TESTS_UNIT_HTTP_RAW_CLIENT_H_

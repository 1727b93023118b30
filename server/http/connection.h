#ifndef MMLAB_SERVER_HTTP_CONNECTION_H_
#define MMLAB_SERVER_HTTP_CONNECTION_H_

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <string>

namespace mmlab {

// One accepted TCP connection. Reads through a buffer, so that a request's head can be awaited without a thread; gathers what is written
// and sends it in one piece, so that no answer waits for an acknowledgement (Nagle).
//
// Belongs to one thread at a time. Closes the socket when it ends.
class HttpConnection {
 public:
  using Clock = std::chrono::steady_clock;

  explicit HttpConnection(int fd);
  ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  int fd() const { return fd_; }
  const std::string& peer_address() const { return peer_address_; }
  int peer_port() const { return peer_port_; }

  // What has arrived of the next request.
  enum class Head {
    kIncomplete,  // Not all lines yet.
    kComplete,    // Up to the empty line.
    kTooLong,     // More than kMaxHeadBytes and still no end.
    kClosed,      // The peer is gone.
  };
  static constexpr size_t kMaxHeadBytes = 32768;
  // Takes what the socket has, without waiting.
  Head ReceiveHead();
  // The same question about what is in the buffer already.
  Head head() const;

  // Since when the next request is awaited, or, once its first byte has come, since that byte.
  Clock::time_point waiting_since() const { return waiting_since_; }
  bool has_partial_head() const { return position_ < input_.size(); }
  void StartWaiting() { waiting_since_ = Clock::now(); }

  // From here to `deadline` Read and Flush may wait for the peer; behind it they fail.
  void SetDeadline(Clock::time_point deadline) { deadline_ = deadline; }
  // Bytes read, 0 at the end of the stream, -1 when the peer is gone or too slow. Sends what is gathered before it waits.
  ssize_t Read(char* data, size_t size);
  // Gathers; false when the peer is gone or too slow.
  bool Write(const char* data, size_t size);
  bool Flush();
  // Whether the peer still takes data, as far as is known.
  bool healthy() const { return !broken_; }
  // Whether the peer still holds its end open. Does not wait.
  bool PeerIsThere() const;
  // Ends all reading and writing, also of another thread that waits in one.
  void Abort() const;

 private:
  bool Wait(short events);

  const int fd_;
  std::string peer_address_;
  int peer_port_ = 0;
  std::string input_;
  size_t position_ = 0;  // First byte of input_ that is not consumed.
  std::string output_;
  Clock::time_point waiting_since_;
  Clock::time_point deadline_;
  bool broken_ = false;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HTTP_CONNECTION_H_

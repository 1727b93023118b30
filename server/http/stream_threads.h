#ifndef MMLAB_SERVER_HTTP_STREAM_THREADS_H_
#define MMLAB_SERVER_HTTP_STREAM_THREADS_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "server/http/connection.h"
#include "server/http/http_server.h"

namespace mmlab {

// Answers of unknown length: each has a thread, so that a reader who takes his time holds up nobody else. Their bodies are sent in chunks.
class StreamThreads {
 public:
  using Body = std::function<void(HttpStream&)>;

  // A peer that takes nothing of a piece for `transfer_timeout` is given up.
  StreamThreads(size_t max_streams, std::chrono::milliseconds transfer_timeout)
      : max_streams_(max_streams), transfer_timeout_(transfer_timeout) {}
  ~StreamThreads() { Stop(); }

  bool full();
  // Sends what `body` writes on a connection on which the head of the answer was sent, then closes it. After Stop it is closed at once.
  void Start(std::unique_ptr<HttpConnection> connection, Body body);
  // Cuts all connections and waits for the threads.
  void Stop();

 private:
  struct Running {
    std::unique_ptr<HttpConnection> connection;
    std::thread thread;
    std::atomic<bool> done = false;
  };
  class ChunkedStream;

  void Reap();  // Joins those that are done.

  const size_t max_streams_;
  const std::chrono::milliseconds transfer_timeout_;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::list<Running> running_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HTTP_STREAM_THREADS_H_

#ifndef MMLAB_SERVER_HTTP_CONNECTION_POOL_H_
#define MMLAB_SERVER_HTTP_CONNECTION_POOL_H_

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/http/connection.h"

namespace mmlab {

// Many open connections, few threads: a connection costs a thread only from the moment when a request's head is complete until its answer
// is sent. One more thread watches the others, so idle keep-alive connections and clients that send a byte a minute hold up nobody.
class ConnectionPool {
 public:
  struct Options {
    int worker_threads;
    size_t max_connections;                  // Beyond it the one that has waited longest is closed for a new one.
    std::chrono::milliseconds idle_timeout;  // Between requests.
    std::chrono::milliseconds head_timeout;  // From the first byte of a request to the end of its head.
  };
  // Answers the request whose head is in the connection's buffer; false closes the connection, and so does taking it away (leaving null).
  // Called by several threads at once.
  using Serve = std::function<bool(std::unique_ptr<HttpConnection>&)>;

  ConnectionPool(const Options& options, Serve serve);
  ~ConnectionPool();
  ConnectionPool(const ConnectionPool&) = delete;
  ConnectionPool& operator=(const ConnectionPool&) = delete;

  // Takes over an accepted socket. After Stop it is closed at once.
  void Adopt(int fd);
  // Answers the requests that are complete, closes everything and waits for the threads.
  void Stop();

 private:
  using ConnectionPtr = std::unique_ptr<HttpConnection>;

  void Work();
  void Watch();
  void Park(ConnectionPtr connection);
  void Receive(HttpConnection* connection);
  void Dispatch(ConnectionPtr connection);
  void CloseOverdue();
  ConnectionPtr Unpark(HttpConnection* connection);
  void MakeRoom();
  void WakeWatcher();

  const Options options_;
  const Serve serve_;
  const int epoll_;
  const int wake_;  // eventfd

  std::mutex mutex_;
  std::condition_variable ready_changed_;
  std::deque<ConnectionPtr> ready_;      // Heads complete.
  std::vector<ConnectionPtr> arrivals_;  // For the watcher to park.
  bool stopping_ = false;

  absl::flat_hash_map<HttpConnection*, ConnectionPtr> parked_;  // The watcher's own.
  std::vector<std::thread> workers_;
  std::thread watcher_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HTTP_CONNECTION_POOL_H_

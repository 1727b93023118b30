#include "server/http/connection_pool.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "server/base/check.h"

namespace mmlab {

ConnectionPool::ConnectionPool(const Options& options, Serve serve)
    : options_(options), serve_(std::move(serve)), epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  MMLAB_CHECK(epoll_ >= 0 && wake_ >= 0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;
  MMLAB_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event) == 0);
  watcher_ = std::thread([this] { Watch(); });
  for (int i = 0; i < options_.worker_threads; ++i) workers_.emplace_back([this] { Work(); });
}

ConnectionPool::~ConnectionPool() {
  Stop();
  close(wake_);
  close(epoll_);
}

void ConnectionPool::WakeWatcher() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof(one));  // Full means that it is awake already.
}

void ConnectionPool::Adopt(int fd) {
  auto connection = std::make_unique<HttpConnection>(fd);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return;
    arrivals_.push_back(std::move(connection));
  }
  WakeWatcher();
}

void ConnectionPool::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  ready_changed_.notify_all();
  WakeWatcher();
  for (std::thread& worker : workers_) worker.join();
  watcher_.join();
  parked_.clear();
  arrivals_.clear();
}

void ConnectionPool::Work() {
  while (true) {
    ConnectionPtr connection;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      ready_changed_.wait(lock, [this] { return stopping_ || !ready_.empty(); });
      if (ready_.empty()) return;
      connection = std::move(ready_.front());
      ready_.pop_front();
    }
    bool open = serve_(connection);
    while (open && connection->head() == HttpConnection::Head::kComplete) open = serve_(connection);  // Pipelined requests.
    if (!open) continue;
    connection->StartWaiting();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      arrivals_.push_back(std::move(connection));
    }
    WakeWatcher();
  }
}

void ConnectionPool::Watch() {
  epoll_event events[64];
  while (true) {
    const int count = epoll_wait(epoll_, events, 64, parked_.empty() ? -1 : 1000);
    for (int i = 0; i < count; ++i) {
      if (events[i].data.ptr == nullptr) {
        uint64_t ignored = 0;
        [[maybe_unused]] const ssize_t got = read(wake_, &ignored, sizeof(ignored));
      } else {
        Receive(static_cast<HttpConnection*>(events[i].data.ptr));
      }
    }
    std::vector<ConnectionPtr> arrivals;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
      arrivals.swap(arrivals_);
    }
    for (ConnectionPtr& arrival : arrivals) Park(std::move(arrival));
    CloseOverdue();
  }
}

void ConnectionPool::Park(ConnectionPtr connection) {
  if (parked_.size() >= options_.max_connections) MakeRoom();
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = connection.get();
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, connection->fd(), &event) != 0) return;  // Closes it.
  HttpConnection* key = connection.get();
  parked_.emplace(key, std::move(connection));
}

ConnectionPool::ConnectionPtr ConnectionPool::Unpark(HttpConnection* connection) {
  const auto found = parked_.find(connection);
  ConnectionPtr taken = std::move(found->second);
  parked_.erase(found);
  epoll_ctl(epoll_, EPOLL_CTL_DEL, taken->fd(), nullptr);
  return taken;
}

void ConnectionPool::Receive(HttpConnection* connection) {
  switch (connection->ReceiveHead()) {
    case HttpConnection::Head::kIncomplete:
      return;
    case HttpConnection::Head::kClosed:
      Unpark(connection);
      return;
    case HttpConnection::Head::kComplete:
    case HttpConnection::Head::kTooLong:
      Dispatch(Unpark(connection));
      return;
  }
}

void ConnectionPool::Dispatch(ConnectionPtr connection) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ready_.push_back(std::move(connection));
  }
  ready_changed_.notify_one();
}

void ConnectionPool::MakeRoom() {
  const auto oldest = std::min_element(parked_.begin(), parked_.end(),
                                       [](const auto& a, const auto& b) { return a.second->waiting_since() < b.second->waiting_since(); });
  if (oldest != parked_.end()) Unpark(oldest->first);
}

void ConnectionPool::CloseOverdue() {
  const HttpConnection::Clock::time_point now = HttpConnection::Clock::now();
  std::vector<HttpConnection*> overdue;
  for (const auto& [connection, owner] : parked_) {
    const auto limit = connection->has_partial_head() ? options_.head_timeout : options_.idle_timeout;
    if (now - connection->waiting_since() > limit) overdue.push_back(connection);
  }
  for (HttpConnection* connection : overdue) Unpark(connection);
}

}  // namespace mmlab

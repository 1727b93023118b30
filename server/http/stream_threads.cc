#include "server/http/stream_threads.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"

namespace mmlab {

class StreamThreads::ChunkedStream final : public HttpStream {
 public:
  ChunkedStream(StreamThreads& owner, HttpConnection& connection) : owner_(owner), connection_(connection) {}

  bool Write(absl::string_view piece) override {
    if (piece.empty()) return open();  // An empty chunk would be the last.
    return Send(absl::StrCat(absl::Hex(piece.size()), "\r\n", piece, "\r\n"));
  }
  bool open() override { return !owner_.stopping_ && connection_.PeerIsThere(); }
  bool End() { return Send("0\r\n\r\n"); }

 private:
  bool Send(const std::string& bytes) {
    connection_.SetDeadline(HttpConnection::Clock::now() + owner_.transfer_timeout_);
    return !owner_.stopping_ && connection_.Write(bytes.data(), bytes.size()) && connection_.Flush();
  }

  StreamThreads& owner_;
  HttpConnection& connection_;
};

bool StreamThreads::full() {
  const std::lock_guard<std::mutex> lock(mutex_);
  Reap();
  return running_.size() >= max_streams_;
}

void StreamThreads::Start(std::unique_ptr<HttpConnection> connection, Body body) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Reap();
  if (stopping_) return;
  Running& running = running_.emplace_back();
  running.connection = std::move(connection);
  running.thread = std::thread([this, &running, body = std::move(body)] {
    ChunkedStream stream(*this, *running.connection);
    try {
      body(stream);
      stream.End();
    } catch (const std::exception&) {  // Without its last chunk the peer knows that the answer is not whole.
    }
    running.connection->Abort();
    running.done = true;
  });
}

void StreamThreads::Reap() {
  for (auto one = running_.begin(); one != running_.end();) {
    if (!one->done) {
      ++one;
      continue;
    }
    one->thread.join();
    one = running_.erase(one);
  }
}

void StreamThreads::Stop() {
  std::list<Running> ending;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    ending.splice(ending.end(), running_);
  }
  for (Running& one : ending) one.connection->Abort();
  for (Running& one : ending) one.thread.join();
}

}  // namespace mmlab

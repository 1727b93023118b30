#ifndef MMLAB_SERVER_HTTP_HTTP_SERVER_H_
#define MMLAB_SERVER_HTTP_HTTP_SERVER_H_

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace mmlab {

inline constexpr char kTextPlain[] = "text/plain; charset=utf-8";
inline constexpr char kApplicationJson[] = "application/json";

struct HttpRequest {
  std::string method;
  std::string path;                                 // Decoded, without the query.
  std::multimap<std::string, std::string> query;    // Decoded; values of the same name in their order.
  std::multimap<std::string, std::string> headers;  // Names in lower case.
  std::string body;

  std::vector<std::string> QueryValues(absl::string_view name) const;
  // The first value of a header; `name` in lower case.
  std::optional<std::string> Header(absl::string_view name) const;
};

// An answer's body while it is being sent, piece by piece.
class HttpStream {
 public:
  virtual ~HttpStream() = default;
  // Sends a piece now. False: the peer is gone or takes nothing for too long, or the server stops; nothing more can be sent then.
  virtual bool Write(absl::string_view piece) = 0;
  // Whether the peer is still there. Does not wait.
  virtual bool open() = 0;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = kTextPlain;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};
  // Where set, the body is what this writes until it returns, in a thread of its own; the connection ends with it. It looks at open() at
  // least once a second while it has nothing to write.
  std::function<void(HttpStream&)> stream = {};
};

// One line of text for a person, with a status.
HttpResponse TextResponse(int status, absl::string_view line);

// Told of every request answered. `handler` is the route's label or path as it was registered, or "unmatched" (no such path), or
// "malformed" (no HTTP request at all): never anything that a client chose. Called by several threads at once.
class HttpObserver {
 public:
  virtual ~HttpObserver() = default;
  virtual void OnHttpRequest(absl::string_view handler, int code, std::chrono::nanoseconds took) = 0;
};

struct HttpOptions {
  std::string address = "127.0.0.1:9464";  // HOST:PORT, [IPV6]:PORT; port 0 takes a free one.
  int worker_threads = 4;                  // Requests answered at once.
  size_t max_connections = 1000;           // Open at once; beyond it the longest idle one goes.
  size_t max_streams = 256;                // Answers of unknown length at once, a thread each; 503 beyond.
  size_t max_body_bytes = 4 << 20;         // Answered with 413 beyond.
  // Whose pages a browser lets call this server ("https://lab.example"), or "*" for anybody's. Others' pages get no permission.
  std::vector<std::string> allowed_origins;
  std::chrono::milliseconds idle_timeout = std::chrono::seconds(75);
  std::chrono::milliseconds head_timeout = std::chrono::seconds(10);      // For a request's first lines to arrive.
  std::chrono::milliseconds transfer_timeout = std::chrono::seconds(30);  // For its body to arrive and the answer to be taken.
};

// The one HTTP port. Knows paths, limits and encodings; what is served comes from the handlers.
//
// HTTP/1.1 with keep-alive; gzip where the client accepts it and the answer is worth it; HEAD wherever GET is; OPTIONS for pages of other
// origins that are allowed. A path is matched exactly: nothing that a client sends is a pattern or a file name. Errors are a line of text.
class HttpServer {
 public:
  using Handler = std::function<HttpResponse(const HttpRequest&)>;

  // `observer` may be null; otherwise it outlives the server.
  explicit HttpServer(HttpOptions options, HttpObserver* observer = nullptr);
  ~HttpServer();  // Stops.
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Registers a handler for a method ("GET", "POST") of a path. It is called by several threads at once; what it throws becomes a 500.
  // The observer hears of it under `label`; empty: under the path.
  // REQUIRES: not started yet.
  void Route(absl::string_view method, absl::string_view path, Handler handler, absl::string_view label = "");

  // Listens and answers in threads of its own. INVALID_ARGUMENT: the address can't be read; UNAVAILABLE: it can't be listened on.
  absl::Status Start();
  // HOST:PORT with the real port. REQUIRES: started.
  std::string address() const;
  int port() const;
  // Accepts nothing more, ends the requests under way, waits for them. Nothing happens the second time.
  void Stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HTTP_HTTP_SERVER_H_

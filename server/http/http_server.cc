#include "server/http/http_server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <exception>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/check.h"
#include "server/base/status_macros.h"
#include "server/http/accept_encoding.h"
#include "server/http/connection.h"
#include "server/http/connection_pool.h"
#include "server/http/cross_origin.h"
#include "server/http/gzip.h"
#include "server/http/stream_threads.h"

namespace mmlab {
namespace {

constexpr int kListenBacklog = 511;      // httplib's own is 5.
constexpr size_t kGzipWorthBytes = 512;  // A smaller answer fits a packet anyway.
constexpr char kUnmatched[] = "unmatched";
constexpr char kMalformed[] = "malformed";

struct HostAndPort {
  std::string host;
  int port;
};

absl::StatusOr<HostAndPort> ParseAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  HostAndPort parsed;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &parsed.port) || parsed.port < 0 || parsed.port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("HTTP address '", address, "' is not HOST:PORT"));
  }
  parsed.host = address.substr(0, colon);
  if (parsed.host.size() > 2 && parsed.host.front() == '[' && parsed.host.back() == ']') {
    parsed.host = parsed.host.substr(1, parsed.host.size() - 2);
  }
  if (parsed.host.empty()) parsed.host = "0.0.0.0";
  return parsed;
}

// A HttpConnection as httplib reads and writes it.
class ConnectionStream : public httplib::Stream {
 public:
  explicit ConnectionStream(HttpConnection& connection) : connection_(connection) {}

  bool is_readable() const override { return connection_.healthy(); }
  bool is_writable() const override { return connection_.healthy(); }
  ssize_t read(char* data, size_t size) override { return connection_.Read(data, size); }
  ssize_t write(const char* data, size_t size) override { return connection_.Write(data, size) ? static_cast<ssize_t>(size) : -1; }
  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    ip = connection_.peer_address();
    port = connection_.peer_port();
  }
  void get_local_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  socket_t socket() const override { return connection_.fd(); }

 private:
  HttpConnection& connection_;
};

// httplib hands accepted sockets to a task queue: ours takes them at once, on the accepting thread, since adopting one never waits.
class InlineTaskQueue : public httplib::TaskQueue {
 public:
  void enqueue(std::function<void()> task) override { task(); }
  void shutdown() override {}
};

}  // namespace

std::vector<std::string> HttpRequest::QueryValues(absl::string_view name) const {
  std::vector<std::string> values;
  const auto [first, last] = query.equal_range(std::string(name));
  for (auto it = first; it != last; ++it) values.push_back(it->second);
  return values;
}

std::optional<std::string> HttpRequest::Header(absl::string_view name) const {
  const auto found = headers.find(std::string(name));
  if (found == headers.end()) return std::nullopt;
  return found->second;
}

HttpResponse TextResponse(int status, absl::string_view line) { return HttpResponse{.status = status, .body = absl::StrCat(line, "\n")}; }

// httplib parses requests, writes answers and accepts; everything around it is ours: waiting (ConnectionPool), routes, bodies, compression.
class HttpServer::Impl : public httplib::Server {
 public:
  Impl(HttpOptions options, HttpObserver* observer)
      : options_(std::move(options)), observer_(observer), streams_(options_.max_streams, options_.transfer_timeout) {
    new_task_queue = [] { return new InlineTaskQueue; };
    set_keep_alive_max_count(1000000);  // Only announced: connections end by idle_timeout.
    set_keep_alive_timeout(std::chrono::duration_cast<std::chrono::seconds>(options_.idle_timeout).count());
    set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      Answer(request, response);
      return HandlerResponse::Handled;
    });
    set_logger([](const httplib::Request& /*request*/, const httplib::Response& response) {
      if (exchange_ != nullptr) exchange_->code = response.status;
    });
    // Not SO_REUSEPORT, httplib's own choice, by which two servers would share a port in silence.
    set_socket_options([this](socket_t listener) {
      const int on = 1;
      setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
      listener_ = listener;
    });
  }

  void Route(absl::string_view method, absl::string_view path, HttpServer::Handler handler, absl::string_view label) {
    MMLAB_CHECK(!accepting_.joinable());
    Path& route = routes_[std::string(path)];
    route.label = std::string(label.empty() ? path : label);
    route.methods[std::string(method)] = std::move(handler);
  }

  absl::Status Start() {
    MMLAB_ASSIGN_OR_RETURN(const HostAndPort wished, ParseAddress(options_.address));
    const int port = wished.port == 0 ? bind_to_any_port(wished.host) : (bind_to_port(wished.host, wished.port) ? wished.port : -1);
    if (port < 0 || ::listen(listener_, kListenBacklog) != 0) {
      return absl::UnavailableError(absl::StrCat("can't listen on HTTP address ", options_.address));
    }
    port_ = port;
    const bool is_ipv6 = wished.host.find(':') != std::string::npos;
    address_ = is_ipv6 ? absl::StrCat("[", wished.host, "]:", port) : absl::StrCat(wished.host, ":", port);
    pool_ = std::make_unique<ConnectionPool>(
        ConnectionPool::Options{options_.worker_threads, options_.max_connections, options_.idle_timeout, options_.head_timeout},
        [this](std::unique_ptr<HttpConnection>& connection) { return Serve(connection); });
    accepting_ = std::thread([this] { listen_after_bind(); });
    while (!is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // Until then stop() would be lost.
    return absl::OkStatus();
  }

  const std::string& address() const { return address_; }
  int port() const { return port_; }

  void Stop() {
    if (!accepting_.joinable()) return;
    stopping_ = true;
    stop();
    accepting_.join();
    pool_->Stop();
    streams_.Stop();
  }

 private:
  // What is served under one path.
  struct Path {
    std::string label;
    std::map<std::string, HttpServer::Handler> methods;
  };

  // What Serve, on the same stack, needs to know of the request that httplib is in. httplib's hooks have no other way to carry it.
  struct Exchange {
    HttpConnection* connection = nullptr;
    std::string accept_encoding;
    const char* handler = kMalformed;
    int code = 0;
    bool keep = false;                        // The request was read to its end, so that another may follow.
    std::function<void(HttpStream&)> stream;  // Takes the connection once the answer's head is written.
  };

  bool process_and_close_socket(socket_t socket) override {
    pool_->Adopt(socket);
    return true;
  }

  bool Serve(std::unique_ptr<HttpConnection>& owner) {
    HttpConnection& connection = *owner;
    const auto start = std::chrono::steady_clock::now();
    connection.SetDeadline(start + options_.transfer_timeout);
    Exchange exchange;
    exchange.connection = &connection;
    bool client_closes = false;
    bool answered = false;
    if (connection.head() == HttpConnection::Head::kTooLong) {
      constexpr absl::string_view kAnswer =
          "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
      connection.Write(kAnswer.data(), kAnswer.size());
      exchange.code = 431;
    } else {
      ConnectionStream stream(connection);
      exchange_ = &exchange;
      answered = process_request(stream, stopping_, client_closes, [&exchange](httplib::Request& request) {
        // httplib would compress with brotli at its slowest level and serve any number of ranges: neither is left to it.
        exchange.accept_encoding = request.get_header_value("Accept-Encoding");
        request.headers.erase("Accept-Encoding");
        request.ranges.clear();
      });
      exchange_ = nullptr;
    }
    const bool sent = connection.Flush();
    if (observer_ != nullptr) observer_->OnHttpRequest(exchange.handler, exchange.code, std::chrono::steady_clock::now() - start);
    if (sent && exchange.stream) streams_.Start(std::move(owner), std::move(exchange.stream));
    return answered && sent && exchange.keep && !client_closes && !stopping_;
  }

  // Everything that httplib would route.
  void Answer(const httplib::Request& request, httplib::Response& response) {
    Exchange& exchange = *exchange_;
    exchange.handler = kUnmatched;
    HttpRequest native;
    HttpResponse answer;
    if (const int refused = ReadBody(request, exchange, native.body); refused != 0) {
      answer = TextResponse(refused, refused == 413 ? "the body is too long" : refused == 411 ? "Content-Length is required" : "bad body");
    } else {
      exchange.keep = true;
      native.method = request.method;
      native.path = request.path;
      native.query = request.params;
      for (const auto& [name, value] : request.headers) native.headers.emplace(absl::AsciiStrToLower(name), value);
      answer = Dispatch(native, exchange);
      AllowOrigin(options_.allowed_origins, native, answer);
    }
    if (answer.stream && request.version != "HTTP/1.1") answer = TextResponse(505, "an answer of unknown length needs HTTP/1.1");
    if (answer.stream && streams_.full()) answer = TextResponse(503, "too many answers of unknown length at once");
    Fill(std::move(answer), exchange, response);
  }

  // 0, or the status that refuses the request.
  int ReadBody(const httplib::Request& request, Exchange& exchange, std::string& body) {
    if (request.has_header("Transfer-Encoding")) return 411;
    const size_t lengths = request.get_header_value_count("Content-Length");
    if (lengths == 0) return 0;
    uint64_t length = 0;
    if (lengths > 1 || !absl::SimpleAtoi(request.get_header_value("Content-Length"), &length)) return 400;
    if (length > options_.max_body_bytes) return 413;
    body.resize(length);
    for (size_t have = 0; have < length;) {
      const ssize_t got = exchange.connection->Read(body.data() + have, length - have);
      if (got <= 0) return 400;
      have += static_cast<size_t>(got);
    }
    return 0;
  }

  HttpResponse Dispatch(const HttpRequest& request, Exchange& exchange) {
    const auto route = routes_.find(request.path);
    if (route == routes_.end()) return TextResponse(404, "no such path");
    exchange.handler = route->second.label.c_str();
    if (IsPreflight(options_.allowed_origins, request)) return AnswerPreflight();
    const auto handler = route->second.methods.find(request.method == "HEAD" ? "GET" : request.method);
    if (handler == route->second.methods.end()) {
      HttpResponse refused = TextResponse(405, "no such method for this path");
      std::vector<std::string> methods;
      for (const auto& [method, unused] : route->second.methods) methods.push_back(method == "GET" ? "GET, HEAD" : method);
      refused.headers.emplace_back("Allow", absl::StrJoin(methods, ", "));
      return refused;
    }
    try {
      return handler->second(request);
    } catch (const std::exception&) {  // The client learns nothing of the inside.
      return TextResponse(500, "internal error");
    }
  }

  static void Fill(HttpResponse answer, Exchange& exchange, httplib::Response& response) {
    response.status = answer.status;
    for (const auto& [name, value] : answer.headers) response.set_header(name, value);
    response.set_header("Content-Type", answer.content_type);
    response.set_header("X-Content-Type-Options", "nosniff");
    if (answer.stream) return FillStream(std::move(answer.stream), answer.content_type, exchange, response);
    if (!exchange.keep) response.set_header("Connection", "close");
    if (answer.body.size() >= kGzipWorthBytes) {
      response.set_header("Vary", "Accept-Encoding");
      if (AcceptsGzip(exchange.accept_encoding)) {
        response.set_header("Content-Encoding", "gzip");
        answer.body = Gzip(answer.body);
      }
    }
    response.body = std::move(answer.body);
  }

  // httplib writes the head; its first question for a piece of the body ends its part.
  static void FillStream(std::function<void(HttpStream&)> stream, const std::string& content_type, Exchange& exchange,
                         httplib::Response& response) {
    exchange.keep = false;
    response.set_header("Connection", "close");
    response.headers.erase("Content-Type");  // It sets it again.
    response.set_chunked_content_provider(content_type,
                                          [&exchange, stream = std::move(stream)](size_t /*offset*/, httplib::DataSink& /*sink*/) {
                                            exchange.stream = stream;
                                            return false;
                                          });
  }

  static thread_local Exchange* exchange_;

  const HttpOptions options_;
  HttpObserver* const observer_;
  std::map<std::string, Path> routes_;
  std::unique_ptr<ConnectionPool> pool_;
  StreamThreads streams_;
  std::thread accepting_;
  std::string address_;
  int port_ = 0;
  socket_t listener_ = INVALID_SOCKET;
  std::atomic<bool> stopping_ = false;
};

thread_local HttpServer::Impl::Exchange* HttpServer::Impl::exchange_ = nullptr;

HttpServer::HttpServer(HttpOptions options, HttpObserver* observer) : impl_(std::make_unique<Impl>(std::move(options), observer)) {}

HttpServer::~HttpServer() { Stop(); }

void HttpServer::Route(absl::string_view method, absl::string_view path, HttpServer::Handler handler, absl::string_view label) {
  impl_->Route(method, path, std::move(handler), label);
}

absl::Status HttpServer::Start() { return impl_->Start(); }

std::string HttpServer::address() const { return impl_->address(); }

int HttpServer::port() const { return impl_->port(); }

void HttpServer::Stop() { impl_->Stop(); }

}  // namespace mmlab

#include "server/http/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <atomic>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/unit/http/raw_client.h"

namespace mmlab {
namespace {

class Recorder : public HttpObserver {
 public:
  void OnHttpRequest(absl::string_view handler, int code, std::chrono::nanoseconds took) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_GE(took.count(), 0);
    ++seen_[absl::StrCat(std::string(handler), " ", code)];
  }
  std::map<std::string, int> seen() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return seen_;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, int> seen_;
};

class HttpServerTest : public testing::Test {
 protected:
  HttpServerTest() {
    options_.address = "127.0.0.1:0";
    options_.worker_threads = 2;
    options_.max_body_bytes = 1000;
  }
  void Start() {
    server_ = std::make_unique<HttpServer>(options_, &recorder_);
    server_->Route("GET", "/hello", [](const HttpRequest&) { return TextResponse(200, "hello"); });
    server_->Route("GET", "/long", [](const HttpRequest&) { return HttpResponse{.body = std::string(100000, 'x')}; });
    server_->Route("GET", "/query",
                   [](const HttpRequest& request) { return HttpResponse{.body = absl::StrJoin(request.QueryValues("a[]"), "|")}; });
    server_->Route("GET", "/host",
                   [](const HttpRequest& request) { return HttpResponse{.body = request.Header("host").value_or("none")}; });
    server_->Route("GET", "/throw", [](const HttpRequest&) -> HttpResponse { throw std::runtime_error("secret"); });
    server_->Route("POST", "/echo", [](const HttpRequest& request) { return HttpResponse{.body = request.body}; });
    ASSERT_TRUE(server_->Start().ok());
  }
  Reply Ask(const std::string& bytes) {
    RawClient client(server_->address());
    client.Send(bytes);
    return client.Receive();
  }
  Reply Get(const std::string& target, const std::string& headers = "") {
    return Ask(absl::StrCat("GET ", target, " HTTP/1.1\r\nHost: h\r\n", headers, "\r\n"));
  }

  HttpOptions options_;
  Recorder recorder_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersByExactPath) {
  Start();
  const Reply hello = Get("/hello?x=1");
  EXPECT_EQ(hello.status, 200);
  EXPECT_EQ(hello.body, "hello\n");
  EXPECT_EQ(hello.headers.at("content-type"), "text/plain; charset=utf-8");
  EXPECT_EQ(Get("/hello/").status, 404);
  EXPECT_EQ(Get("/hell").status, 404);
  EXPECT_EQ(Get("/.*").status, 404);
  EXPECT_EQ(Get("/../etc/passwd").status, 404);
  EXPECT_EQ(Get("/%2e%2e/etc/passwd").body, "no such path\n");
}

TEST_F(HttpServerTest, RefusesOtherMethodsAndNamesTheAllowed) {
  Start();
  const Reply reply = Ask("POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(reply.status, 405);
  EXPECT_EQ(reply.headers.at("allow"), "GET, HEAD");
}

TEST_F(HttpServerTest, HeadHasTheHeadersOfGetOnly) {
  Start();
  RawClient client(server_->address());
  client.Send("HEAD /hello HTTP/1.1\r\nHost: h\r\n\r\nGET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
  const Reply head = client.Receive(/*head_only=*/true);
  EXPECT_EQ(head.headers.at("content-length"), "6");
  EXPECT_EQ(client.Receive().body, "hello\n");
}

TEST_F(HttpServerTest, DecodesQueriesAndKeepsTheirOrder) {
  Start();
  EXPECT_EQ(Get("/query?a[]=1&b=9&a%5B%5D=%2F2&a[]=x+y").body, "1|/2|x y");
}

TEST_F(HttpServerTest, KeepsConnectionsAndAnswersPipelinedRequestsInOrder) {
  Start();
  RawClient client(server_->address());
  for (int i = 0; i < 50; ++i) {
    client.Send("GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
    ASSERT_EQ(client.Receive().status, 200) << i;
  }
  client.Send("GET /hello HTTP/1.1\r\nHost: h\r\n\r\nGET /host HTTP/1.1\r\nHost: one\r\n\r\nGET /nothing HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(client.Receive().body, "hello\n");
  EXPECT_EQ(client.Receive().body, "one");
  EXPECT_EQ(client.Receive().status, 404);
  client.Send("GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.Receive().headers.at("connection"), "close");
  EXPECT_TRUE(client.Closed());
}

TEST_F(HttpServerTest, CompressesWhatIsWorthIt) {
  Start();
  const Reply plain = Get("/long", "Accept-Encoding: gzip;q=0\r\n");
  EXPECT_EQ(plain.body.size(), 100000u);
  EXPECT_EQ(plain.headers.count("content-encoding"), 0u);
  const Reply packed = Get("/long", "Accept-Encoding: br, gzip\r\n");
  EXPECT_EQ(packed.headers.at("content-encoding"), "gzip");
  std::string text(100001, '\0');
  z_stream stream{};
  ASSERT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.body.data()));
  stream.avail_in = static_cast<uInt>(packed.body.size());
  stream.next_out = reinterpret_cast<Bytef*>(text.data());
  stream.avail_out = static_cast<uInt>(text.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  EXPECT_EQ(stream.total_out, 100000u);
  inflateEnd(&stream);
  EXPECT_EQ(Get("/hello", "Accept-Encoding: gzip\r\n").headers.count("content-encoding"), 0u);
}

TEST_F(HttpServerTest, RangesAreIgnored) {
  Start();
  const Reply reply = Get("/long", "Range: bytes=0-0,0-,0-,0-\r\n");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body.size(), 100000u);
}

TEST_F(HttpServerTest, BodiesAreReadWithinTheLimit) {
  Start();
  EXPECT_EQ(Ask("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde").body, "abcde");
  EXPECT_EQ(Ask("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n").status, 413);
  EXPECT_EQ(Ask("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n").status, 400);
  EXPECT_EQ(Ask("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n").status, 400);
  EXPECT_EQ(Ask("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab").status, 400);
  EXPECT_EQ(Ask("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").status, 411);
  // A body that nobody asked for is read, so that it is not taken for the next request.
  RawClient client(server_->address());
  client.Send("GET /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nGET GET /host HTTP/1.1\r\nHost: two\r\n\r\n");
  EXPECT_EQ(client.Receive().body, "hello\n");
  EXPECT_EQ(client.Receive().body, "two");
}

TEST_F(HttpServerTest, ExpectContinueIsAnsweredBeforeTheBody) {
  Start();
  RawClient client(server_->address());
  client.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.Receive(/*head_only=*/true).status, 100);
  client.Send("ok");
  EXPECT_EQ(client.Receive().body, "ok");
}

TEST_F(HttpServerTest, WhatAHandlerThrowsStaysInside) {
  Start();
  const Reply reply = Get("/throw");
  EXPECT_EQ(reply.status, 500);
  EXPECT_EQ(reply.body, "internal error\n");
  EXPECT_EQ(reply.headers.count("exception_what"), 0u);
}

struct HostileCase {
  const char* name;
  std::string bytes;
  int status;
};
class HostileRequestTest : public HttpServerTest, public testing::WithParamInterface<HostileCase> {};

TEST_P(HostileRequestTest, IsRefusedAndTheServerLivesOn) {
  Start();
  RawClient client(server_->address());
  client.Send(GetParam().bytes);
  EXPECT_EQ(client.Receive().status, GetParam().status);
  EXPECT_TRUE(client.Closed());
  EXPECT_EQ(Get("/hello").status, 200);
}

INSTANTIATE_TEST_SUITE_P(
    Bytes, HostileRequestTest,
    testing::Values(HostileCase{"NoHttp", "hello\r\n\r\n", 400}, HostileCase{"EmptyLines", "\r\n\r\n", 400},
                    HostileCase{"LongUri", absl::StrCat("GET /", std::string(9000, 'a'), " HTTP/1.1\r\nHost: h\r\n\r\n"), 414},
                    HostileCase{"EndlessLine", std::string(40000, 'a'), 431},
                    HostileCase{"LongHeader", absl::StrCat("GET /hello HTTP/1.1\r\nX: ", std::string(9000, 'a'), "\r\n\r\n"), 400},
                    HostileCase{"OldVersion", "GET /hello HTTP/0.9\r\n\r\n", 400},
                    HostileCase{"NoSuchMethod", "FETCH /hello HTTP/1.1\r\n\r\n", 400},
                    HostileCase{"ControlBytes", std::string("\0\x01\x02\r\n\r\n", 7), 400}),
    [](const auto& one) { return one.param.name; });

TEST_F(HttpServerTest, SlowAndIdleConnectionsTakeNoThread) {
  options_.worker_threads = 1;
  options_.head_timeout = std::chrono::milliseconds(1500);
  Start();
  std::vector<std::unique_ptr<RawClient>> slow;
  for (int i = 0; i < 20; ++i) {
    slow.push_back(std::make_unique<RawClient>(server_->address()));
    slow.back()->Send("GET /hello HTTP/1.1\r\nHo");
  }
  EXPECT_EQ(Get("/hello").status, 200);
  slow[0]->Send("st: h\r\n\r\n");
  EXPECT_EQ(slow[0]->Receive().status, 200);
  EXPECT_TRUE(slow[1]->Closed());  // Behind the timeout.
}

TEST_F(HttpServerTest, TheLongestIdleConnectionMakesRoom) {
  options_.max_connections = 3;
  Start();
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<RawClient>(server_->address()));
    clients.back()->Send("GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
    ASSERT_EQ(clients.back()->Receive().status, 200);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_TRUE(clients[0]->Closed());
  clients[3]->Send("GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(clients[3]->Receive().status, 200);
}

TEST_F(HttpServerTest, TheObserverSeesRoutesNeverPaths) {
  Start();
  Get("/hello?x=secret");
  Get("/hello");
  Get("/secret");
  Ask("POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
  Ask("nonsense\r\n\r\n");
  server_->Stop();
  EXPECT_EQ(recorder_.seen(),
            (std::map<std::string, int>{{"/hello 200", 2}, {"/hello 405", 1}, {"unmatched 404", 1}, {"malformed 400", 1}}));
}

TEST_F(HttpServerTest, ManyClientsAtOnce) {
  Start();
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([this, &good] {
      RawClient client(server_->address());
      for (int i = 0; i < 100; ++i) {
        client.Send("GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
        if (client.Receive().status == 200) ++good;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 800);
}

TEST_F(HttpServerTest, StopsWithConnectionsOpenAndFreesThePort) {
  Start();
  const std::string address = server_->address();
  RawClient idle(address);
  idle.Send("GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(idle.Receive().status, 200);
  server_->Stop();
  EXPECT_TRUE(idle.Closed());
  server_->Stop();
  HttpOptions again = options_;
  again.address = address;
  HttpServer second(again);
  EXPECT_TRUE(second.Start().ok());
}

TEST_F(HttpServerTest, RefusesAddressesThatItCannotUse) {
  Start();
  for (const char* address : {"nothing", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1"}) {
    HttpOptions options;
    options.address = address;
    EXPECT_EQ(HttpServer(options).Start().code(), absl::StatusCode::kInvalidArgument) << address;
  }
  HttpOptions taken;
  taken.address = server_->address();
  EXPECT_EQ(HttpServer(taken).Start().code(), absl::StatusCode::kUnavailable);
}

TEST(HttpServer, ListensOnIpv6) {
  HttpOptions options;
  options.address = "[::1]:0";
  HttpServer server(options);
  ASSERT_TRUE(server.Start().ok());
  EXPECT_EQ(server.address(), absl::StrCat("[::1]:", server.port()));
  EXPECT_GT(server.port(), 0);
}

}  // namespace
}  // namespace mmlab

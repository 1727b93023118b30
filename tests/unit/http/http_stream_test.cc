// Answers of unknown length, and pages of other origins.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "server/http/http_server.h"
#include "tests/unit/http/raw_client.h"

namespace mmlab {
namespace {

constexpr char kGetStream[] = "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n";

class HttpStreamTest : public testing::Test {
 protected:
  HttpStreamTest() {
    options_.address = "127.0.0.1:0";
    options_.worker_threads = 1;
    options_.max_streams = 2;
  }
  void Start(std::function<void(HttpStream&)> body) {
    server_ = std::make_unique<HttpServer>(options_);
    server_->Route("GET", "/stream",
                   [body](const HttpRequest&) { return HttpResponse{.content_type = "text/x", .body = {}, .stream = body}; });
    server_->Route("GET", "/hello", [](const HttpRequest&) { return TextResponse(200, "hello"); });
    server_->Route("POST", "/hello", [](const HttpRequest&) { return TextResponse(200, "posted"); });
    ASSERT_TRUE(server_->Start().ok());
  }
  Reply Ask(const std::string& bytes) {
    RawClient client(server_->address());
    client.Send(bytes);
    return client.Receive();
  }

  HttpOptions options_;
  std::unique_ptr<HttpServer> server_;
};

void UntilClosed(HttpStream& stream) {
  while (stream.open()) absl::SleepFor(absl::Milliseconds(5));
}

TEST_F(HttpStreamTest, SendsPiecesAsTheyComeAndThenCloses) {
  absl::Notification seen;
  Start([&seen](HttpStream& stream) {
    EXPECT_TRUE(stream.Write("one"));
    seen.WaitForNotification();
    EXPECT_TRUE(stream.Write(""));  // Not the end.
    EXPECT_TRUE(stream.Write(std::string(16, 'x')));
  });
  RawClient client(server_->address());
  client.Send(kGetStream);
  const Reply head = client.Receive(/*head_only=*/true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("transfer-encoding"), "chunked");
  EXPECT_EQ(head.headers.at("content-type"), "text/x");
  EXPECT_EQ(head.headers.count("content-length"), 0u);
  EXPECT_EQ(client.Take(8), "3\r\none\r\n");
  seen.Notify();
  EXPECT_EQ(client.Take(22), "10\r\nxxxxxxxxxxxxxxxx\r\n");
  EXPECT_EQ(client.Take(5), "0\r\n\r\n");
  EXPECT_TRUE(client.Closed());
}

TEST_F(HttpStreamTest, TakesNoThreadFromOtherRequestsAndIsCapped) {
  Start(UntilClosed);
  std::vector<std::unique_ptr<RawClient>> readers;
  for (size_t i = 0; i < options_.max_streams; ++i) {
    readers.push_back(std::make_unique<RawClient>(server_->address()));
    readers.back()->Send(kGetStream);
    EXPECT_EQ(readers.back()->Receive(/*head_only=*/true).status, 200);
  }
  EXPECT_EQ(Ask("GET /hello HTTP/1.1\r\nHost: h\r\n\r\n").status, 200);
  EXPECT_EQ(Ask(kGetStream).status, 503);
  readers.clear();  // The server notices that they are gone.
  while (Ask(kGetStream).status == 503) absl::SleepFor(absl::Milliseconds(5));
}

TEST_F(HttpStreamTest, StopEndsAStreamThatIsNeverRead) {
  std::atomic<bool> ended = false;
  Start([&ended](HttpStream& stream) {
    while (stream.Write(std::string(100000, 'x'))) {
    }
    EXPECT_FALSE(stream.open());
    ended = true;
  });
  RawClient client(server_->address());
  client.Send(kGetStream);
  EXPECT_EQ(client.Receive(/*head_only=*/true).status, 200);
  server_->Stop();
  EXPECT_TRUE(ended);
}

TEST_F(HttpStreamTest, WhatThrowsHasNoLastChunk) {
  Start([](HttpStream& stream) {
    stream.Write("one");
    throw std::runtime_error("secret");
  });
  RawClient client(server_->address());
  client.Send(kGetStream);
  client.Receive(/*head_only=*/true);
  EXPECT_EQ(client.Take(100), "3\r\none\r\n");
}

TEST_F(HttpStreamTest, NeedsHttp11) {
  Start(UntilClosed);
  EXPECT_EQ(Ask("GET /stream HTTP/1.0\r\n\r\n").status, 505);
}

TEST_F(HttpStreamTest, OtherOriginsNeedPermission) {
  options_.allowed_origins = {"https://lab.example"};
  Start(UntilClosed);
  const auto ask = [this](const std::string& method, const std::string& origin) {
    return Ask(absl::StrCat(method, " /hello HTTP/1.1\r\nHost: h\r\nAccess-Control-Request-Method: POST\r\nOrigin: ", origin, "\r\n\r\n"));
  };
  const Reply preflight = ask("OPTIONS", "https://lab.example");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.headers.at("access-control-allow-origin"), "https://lab.example");
  EXPECT_EQ(preflight.headers.at("access-control-allow-methods"), "GET, POST");
  EXPECT_EQ(ask("GET", "https://lab.example").headers.at("access-control-allow-origin"), "https://lab.example");
  EXPECT_EQ(ask("OPTIONS", "https://evil.example").status, 405);
  const Reply other = ask("GET", "https://evil.example");
  EXPECT_EQ(other.status, 200);
  EXPECT_EQ(other.headers.count("access-control-allow-origin"), 0u);
  EXPECT_EQ(other.headers.at("vary"), "Origin");
}

TEST_F(HttpStreamTest, NoOriginIsAllowedByDefaultAndAnyOnRequest) {
  Start(UntilClosed);
  const std::string preflight = "OPTIONS /hello HTTP/1.1\r\nHost: h\r\nAccess-Control-Request-Method: POST\r\nOrigin: http://a\r\n\r\n";
  EXPECT_EQ(Ask(preflight).status, 405);
  options_.allowed_origins = {"*"};
  Start(UntilClosed);
  EXPECT_EQ(Ask(preflight).headers.at("access-control-allow-origin"), "http://a");
}

}  // namespace
}  // namespace mmlab

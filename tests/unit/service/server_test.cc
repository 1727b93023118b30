// The server as a whole: sockets, health, reflection, starting and stopping.
#include "server/service/server.h"

#include <chrono>
#include <set>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/protobuf/descriptor.pb.h"
#include "grpc/health/v1/health.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "server/host/host.h"
#include "server/service/rpc_methods.h"
#include "tests/unit/service/test_server.h"

namespace mmlab {
namespace {

// A unary or streaming call of a service that has no stubs here: one request, all its answers.
grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, const std::string& request,
                     std::vector<std::string>* answers) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  grpc::CompletionQueue queue;
  void* tag = nullptr;
  bool ok = false;
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  queue.Next(&tag, &ok);
  const grpc::Slice slice(request);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  queue.Next(&tag, &ok);
  for (;;) {
    grpc::ByteBuffer buffer;
    call->Read(&buffer, nullptr);
    queue.Next(&tag, &ok);
    if (!ok) break;
    std::vector<grpc::Slice> slices;
    buffer.Dump(&slices);
    std::string bytes;
    for (const grpc::Slice& part : slices) bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
    answers->push_back(std::move(bytes));
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  queue.Shutdown();
  return status;
}

ServerOptions OnLoopback() {
  ServerOptions options;
  options.grpc_address = "127.0.0.1:0";
  return options;
}

std::shared_ptr<grpc::Channel> ChannelTo(const Server& server) {
  return grpc::CreateChannel(absl::StrCat("127.0.0.1:", server.grpc_port()), grpc::InsecureChannelCredentials());
}

grpc::health::v1::HealthCheckResponse::ServingStatus Health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  std::vector<std::string> answers;
  const grpc::Status status = RawCall(channel, "/grpc.health.v1.Health/Check", request.SerializeAsString(), &answers);
  grpc::health::v1::HealthCheckResponse response;
  if (!status.ok() || answers.empty()) return grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN;
  response.ParseFromString(answers[0]);
  return response.status();
}

TEST(ServerTest, SaysThatEveryServiceIsHealthy) {
  const auto server = *Server::Start(OnLoopback());
  const auto channel = ChannelTo(*server);
  EXPECT_EQ(RpcServices().size(), 14u);
  EXPECT_EQ(Health(channel, ""), grpc::health::v1::HealthCheckResponse::SERVING);
  for (const std::string& service : RpcServices()) {
    EXPECT_EQ(Health(channel, service), grpc::health::v1::HealthCheckResponse::SERVING) << service;
  }
  EXPECT_EQ(Health(channel, "mmlab.v1.NoSuchService"), grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN);
}

// Requests and answers of grpc.reflection.v1alpha by hand: field 4 asks for the file that contains a symbol, field 7 for the services; in
// the answer, field 4 holds the files' descriptors (field 1 each).
std::string Field(int number, const std::string& bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  size_t size = bytes.size();
  for (; size >= 128; size >>= 7) out += static_cast<char>((size & 127) | 128);
  return out + static_cast<char>(size) + bytes;
}

TEST(ServerTest, DescribesItselfByReflection) {
  const auto server = *Server::Start(OnLoopback());
  const auto channel = ChannelTo(*server);
  constexpr char kMethod[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  std::vector<std::string> answers;
  ASSERT_TRUE(RawCall(channel, kMethod, Field(7, ""), &answers).ok());
  ASSERT_EQ(answers.size(), 1u);
  for (const std::string& service : RpcServices()) EXPECT_NE(answers[0].find(service), std::string::npos) << service;
  EXPECT_NE(answers[0].find("grpc.health.v1.Health"), std::string::npos);
  for (const char* symbol : {"mmlab.v1.OperationService", "mmlab.v1.Outcome", "grpc.health.v1.Health"}) {
    answers.clear();
    ASSERT_TRUE(RawCall(channel, kMethod, Field(4, symbol), &answers).ok());
    ASSERT_EQ(answers.size(), 1u);
    EXPECT_NE(answers[0].find(".proto"), std::string::npos) << symbol << " cannot be described";
  }
}

TEST(ServerTest, ReflectionAndChannelzAreChosen) {
  ServerOptions options = OnLoopback();
  options.reflection = false;
  const auto closed = *Server::Start(options);
  options.enable_channelz = true;
  const auto open = *Server::Start(options);
  std::vector<std::string> answers;
  EXPECT_EQ(
      RawCall(ChannelTo(*closed), "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Field(7, ""), &answers).error_code(),
      grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(RawCall(ChannelTo(*closed), "/grpc.channelz.v1.Channelz/GetServers", "", &answers).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_TRUE(RawCall(ChannelTo(*open), "/grpc.channelz.v1.Channelz/GetServers", "", &answers).ok());
}

TEST(ServerTest, TwoServersDoNotShareAPort) {
  const auto first = *Server::Start(OnLoopback());
  ServerOptions options;
  options.grpc_address = absl::StrCat("127.0.0.1:", first->grpc_port());
  EXPECT_EQ(Server::Start(options).status().code(), absl::StatusCode::kUnavailable);
  options.grpc_address = "not an address";
  EXPECT_FALSE(Server::Start(options).ok());
  ServerOptions http;
  http.http_address = absl::StrCat("127.0.0.1:", first->grpc_port());
  EXPECT_EQ(Server::Start(http).status().code(), absl::StatusCode::kUnavailable);
}

TEST(ServerTest, RefusesLargeMessages) {
  const auto server = *Server::Start(OnLoopback());
  const auto stub = v1::FileService::NewStub(ChannelTo(*server));
  v1::CreateFileRequest request;
  request.set_content(std::string(5 << 20, 'x'));
  v1::CreateFileResponse response;
  EXPECT_EQ(Call(stub, &v1::FileService::Stub::CreateFile, request, &response).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST(ServerTest, ShutdownCancelsWhoeverStays) {
  const auto server = *Server::Start(OnLoopback());
  v1::MachineSpec spec;
  spec.set_preset(kPreset);
  ASSERT_TRUE(server->host().Create({"m", &spec, {}}).ok());
  const auto stub = v1::OperationService::NewStub(ChannelTo(*server));
  grpc::ClientContext context;
  const auto stream = stub->Execute(&context);
  v1::ExecuteResponse response;
  v1::ExecuteRequest request;
  request.mutable_batch()->set_machine("machines/m");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));  // The server has it.
  const absl::Time start = absl::Now();
  server->Shutdown(absl::Milliseconds(100));
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_FALSE(stream->Finish().ok());
  server->Shutdown(absl::Seconds(1));  // Nothing happens.
}

TEST(ServerTest, StartsQuicklyInProcess) {
  { TestServer warm; }  // gRPC itself takes a while the first time.
  const absl::Time start = absl::Now();
  TestServer server;
  EXPECT_LT(absl::Now() - start, absl::Milliseconds(500));  // 50 ms is the goal; sanitizers and busy machines are slower.
  EXPECT_EQ(server.server().grpc_port(), 0);
  EXPECT_EQ(server.server().http_port(), 0);
}

}  // namespace
}  // namespace mmlab

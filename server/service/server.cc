#include "server/service/server.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpc/health/v1/health.pb.h"
#include "grpcpp/ext/channelz_service_plugin.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "server/base/check.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/host/event_log.h"
#include "server/host/host.h"
#include "server/http/http_server.h"
#include "server/metrics/endpoints.h"
#include "server/metrics/server_metrics.h"
#include "server/service/cgroup_service.h"
#include "server/service/connect.h"
#include "server/service/file_service.h"
#include "server/service/grpc_acceptor.h"
#include "server/service/kernel_address_service.h"
#include "server/service/layout_service.h"
#include "server/service/machine_service.h"
#include "server/service/memory_service.h"
#include "server/service/operation_service.h"
#include "server/service/page_replacement_service.h"
#include "server/service/page_service.h"
#include "server/service/proc_service.h"
#include "server/service/process_service.h"
#include "server/service/rpc_methods.h"
#include "server/service/slab_service.h"
#include "server/service/swap_service.h"
#include "server/service/watch_service.h"

namespace mmlab {
namespace {

constexpr int kMaxReceiveBytes = 4 << 20;
constexpr int kKeepaliveMillis = 30'000;
constexpr int kKeepaliveTimeoutMillis = 10'000;
constexpr int kMinPingIntervalMillis = 10'000;
constexpr int kHttpWorkers = 16;  // A Connect call holds one until its answer.

// The library brings reflection (when linked) and channelz (once switched on) to every server of the process; this takes away what a server
// shall not have.
class ChosenPlugins final : public grpc::ServerBuilderOption {
 public:
  ChosenPlugins(bool reflection, bool channelz) : reflection_(reflection), channelz_(channelz) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->erase(std::remove_if(plugins->begin(), plugins->end(), [this](const auto& plugin) { return !Wanted(*plugin); }),
                   plugins->end());
  }

 private:
  bool Wanted(grpc::ServerBuilderPlugin& plugin) const {
    if (dynamic_cast<grpc::reflection::ProtoServerReflectionPlugin*>(&plugin) != nullptr) return reflection_;
    if (plugin.name() == "channelz_service") return channelz_;
    return true;
  }

  const bool reflection_;
  const bool channelz_;
};

void SetTransport(const ServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  // Idle watchers stay, dead ones go: ping them, and let them ping us.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMillis);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMillis);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinPingIntervalMillis);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  if (options.enable_channelz) builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 1);

  grpc::ResourceQuota quota("mmlab");
  quota.Resize(options.max_request_memory_bytes);
  quota.SetMaxThreads(options.max_threads);
  builder.SetResourceQuota(quota);
  // Only reflection and channelz are synchronous: one thread waits for them, and none is kept beside it.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
}

}  // namespace

struct Server::Parts {
  explicit Parts(const ServerOptions& options)
      : host(HostOptions{options.max_machines, options.worker_threads, options.log, nullptr}),
        metrics(host, BuildInfo{Version(), MMLAB_REVISION, MMLAB_COMPILER, grpc::Version()}),
        context{host, options.http_address.empty() ? nullptr : &metrics.rpc_observer()},
        machine_service(context),
        process_service(context),
        memory_service(context),
        file_service(context),
        page_service(context),
        slab_service(context),
        kernel_address_service(context),
        cgroup_service(context),
        swap_service(context),
        page_replacement_service(context),
        proc_service(context),
        layout_service(context),
        operation_service(context),
        watch_service(context) {}

  absl::Status StartGrpc(const ServerOptions& options);
  absl::Status StartHttp(const ServerOptions& options);

  Host host;
  ServerMetrics metrics;
  const ServiceContext context;  // Nobody counts calls where nobody could ask for the counts.
  MachineService machine_service;
  ProcessService process_service;
  MemoryService memory_service;
  FileService file_service;
  PageService page_service;
  SlabService slab_service;
  KernelAddressService kernel_address_service;
  CgroupService cgroup_service;
  SwapService swap_service;
  PageReplacementService page_replacement_service;
  ProcService proc_service;
  LayoutService layout_service;
  OperationService operation_service;
  WatchService watch_service;
  std::unique_ptr<grpc::Server> grpc_server;
  ConnectBridge connect;
  std::unique_ptr<HttpServer> http_server;  // Null: not listening.
  std::unique_ptr<GrpcAcceptor> acceptor;   // Null: not listening.
  bool down = false;
};

absl::Status Server::Parts::StartGrpc(const ServerOptions& options) {
  // So that the linker keeps health.proto and reflection can describe the health service that the library brings.
  MMLAB_CHECK(grpc::health::v1::HealthCheckRequest::descriptor() != nullptr);
  grpc::EnableDefaultHealthCheckService(true);
  if (options.enable_channelz) grpc::channelz::experimental::InitChannelzService();

  grpc::ServerBuilder builder;
  SetTransport(options, builder);
  const bool listens = !options.grpc_address.empty();
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections;
  if (listens) {
    MMLAB_ASSIGN_OR_RETURN(acceptor, GrpcAcceptor::Listen(options.grpc_address, options.max_connections_of_peer));
    connections = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, grpc::InsecureServerCredentials());
  }
  builder.SetOption(std::make_unique<ChosenPlugins>(listens && options.reflection, listens && options.enable_channelz));
  builder.RegisterService(&machine_service);
  builder.RegisterService(&process_service);
  builder.RegisterService(&memory_service);
  builder.RegisterService(&file_service);
  builder.RegisterService(&page_service);
  builder.RegisterService(&slab_service);
  builder.RegisterService(&kernel_address_service);
  builder.RegisterService(&cgroup_service);
  builder.RegisterService(&swap_service);
  builder.RegisterService(&page_replacement_service);
  builder.RegisterService(&proc_service);
  builder.RegisterService(&layout_service);
  builder.RegisterService(&operation_service);
  builder.RegisterService(&watch_service);
  grpc_server = builder.BuildAndStart();
  if (grpc_server == nullptr) return absl::UnavailableError("gRPC does not start");
  for (const std::string& service : RpcServices()) grpc_server->GetHealthCheckService()->SetServingStatus(service, true);
  if (listens) acceptor->Start(std::move(connections));
  return absl::OkStatus();
}

absl::Status Server::Parts::StartHttp(const ServerOptions& options) {
  if (options.http_address.empty()) return absl::OkStatus();
  HttpOptions http;
  http.address = options.http_address;
  http.worker_threads = kHttpWorkers;
  http.allowed_origins = options.http_allowed_origins;
  http_server = std::make_unique<HttpServer>(http, &metrics);
  ServeMetrics(*http_server, host, metrics, options.http_external_address);
  connect.Serve(*http_server);
  metrics.DeclareHandler("connect");
  return http_server->Start();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  auto parts = std::make_unique<Parts>(options);
  if (parts->context.observer != nullptr) parts->context.observer->SetMethods(RpcMethods());
  MMLAB_RETURN_IF_ERROR(parts->StartHttp(options));
  MMLAB_RETURN_IF_ERROR(parts->StartGrpc(options));
  if (parts->http_server != nullptr) parts->connect.Open(parts->grpc_server->InProcessChannel({}));
  return std::unique_ptr<Server>(new Server(std::move(parts)));
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Server::~Server() { Shutdown(absl::Milliseconds(500)); }

std::shared_ptr<grpc::Channel> Server::InProcessChannel() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // Nothing to protect from: it is the same process.
  return parts_->grpc_server->InProcessChannel(arguments);
}

int Server::grpc_port() const { return parts_->acceptor == nullptr ? 0 : parts_->acceptor->port(); }
int Server::http_port() const { return parts_->http_server == nullptr ? 0 : parts_->http_server->port(); }
Host& Server::host() { return parts_->host; }

void Server::Shutdown(absl::Duration drain) {
  if (parts_->down) return;
  parts_->down = true;
  if (parts_->acceptor != nullptr) parts_->acceptor->Stop();
  parts_->connect.Close();
  parts_->watch_service.Shutdown();
  parts_->grpc_server->GetHealthCheckService()->Shutdown();
  parts_->grpc_server->Shutdown(absl::ToChronoTime(absl::Now() + drain));
  parts_->grpc_server->Wait();
  if (parts_->http_server != nullptr) parts_->http_server->Stop();  // Last, so that the drain can be watched.
}

const char* Version() { return MMLAB_VERSION; }

}  // namespace mmlab

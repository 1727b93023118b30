// mmlabd: flags, the server, signals. Nothing else.
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/host/event_log.h"
#include "server/host/host.h"
#include "server/service/server.h"

namespace {

constexpr char kExamples[] =
    "Every flag can be set by its environment variable too; the flag wins.\n"
    "\n"
    "Examples:\n"
    "  mmlabd\n"
    "  mmlabd --grpc-address 0.0.0.0:50051 --http-address 0.0.0.0:9464 --log-format json\n"
    "  MMLABD_MAX_MACHINES=1000 mmlabd --http-address ''\n";

struct Flags {
  mmlab::ServerOptions server;
  std::string data_dir;
  std::string log_format = "text";
  bool no_reflection = false;
  double drain_seconds = 5;
};

void Declare(CLI::App& app, Flags& flags) {
  flags.server.grpc_address = "127.0.0.1:50051";
  flags.server.http_address = "127.0.0.1:9464";
  app.set_version_flag("--version", std::string("mmlabd ") + mmlab::Version());
  app.footer(kExamples);
  app.option_defaults()->always_capture_default();
  app.add_option("--grpc-address", flags.server.grpc_address, "Where to serve gRPC, HOST:PORT; port 0 takes a free one")
      ->envname("MMLABD_GRPC_ADDRESS");
  app.add_option("--http-address", flags.server.http_address,
                 "Where to serve metrics, and the API as JSON, over HTTP, HOST:PORT; empty = nowhere")
      ->envname("MMLABD_HTTP_ADDRESS");
  app.add_option("--http-external-address,--web.external-address", flags.server.http_external_address,
                 "HOST:PORT that service discovery names; empty = as the scraper reached it")
      ->envname("MMLABD_HTTP_EXTERNAL_ADDRESS");
  app.add_option("--http-allow-origin", flags.server.http_allowed_origins,
                 "Origin whose pages a browser lets call the API (https://lab.example), or * for any; repeat, or separate by commas")
      ->delimiter(',')
      ->envname("MMLABD_HTTP_ALLOW_ORIGIN");
  app.add_option("--data-dir", flags.data_dir, "Accepted for later: nothing is durable yet, machines live in memory only")
      ->envname("MMLABD_DATA_DIR");
  app.add_option("--log-format", flags.log_format, "How events are written to stderr")
      ->check(CLI::IsMember({"text", "json"}))
      ->envname("MMLABD_LOG_FORMAT");
  app.add_option("--max-machines", flags.server.max_machines, "Machines held at once")
      ->check(CLI::Range(1, 10'000'000))
      ->envname("MMLABD_MAX_MACHINES");
  app.add_option("--worker-threads", flags.server.worker_threads, "Threads for long operations; 0 = two a core, at least four")
      ->check(CLI::Range(0, 1024))
      ->envname("MMLABD_WORKER_THREADS");
  app.add_option("--max-concurrent-streams", flags.server.max_concurrent_streams, "Calls at once on one connection")
      ->check(CLI::Range(1, 1'000'000))
      ->envname("MMLABD_MAX_CONCURRENT_STREAMS");
  app.add_option("--max-connections-of-peer", flags.server.max_connections_of_peer,
                 "gRPC connections of one address at once; more are closed at once")
      ->check(CLI::Range(size_t{1}, size_t{10'000'000}))
      ->envname("MMLABD_MAX_CONNECTIONS_OF_PEER");
  app.add_option("--max-request-memory", flags.server.max_request_memory_bytes, "Bytes for requests under way, of all connections")
      ->check(CLI::Range(size_t{16} << 20, size_t{1} << 40))
      ->envname("MMLABD_MAX_REQUEST_MEMORY");
  app.add_option("--drain-seconds", flags.drain_seconds, "How long calls under way may take to end after SIGTERM")
      ->check(CLI::Range(0.0, 3600.0))
      ->envname("MMLABD_DRAIN_SECONDS");
  app.add_flag("--enable-channelz", flags.server.enable_channelz, "Serve grpc.channelz.v1 (shows the addresses of all clients)")
      ->envname("MMLABD_ENABLE_CHANNELZ");
  app.add_flag("--no-reflection", flags.no_reflection, "Do not let clients ask for the schema")->envname("MMLABD_NO_REFLECTION");
}

// Debian's gRPC stops accepting for good when it once ran out of descriptors, so have as many as we may.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// The signals that end the server, blocked in every thread so that only sigwait sees them.
sigset_t BlockEndingSignals() {
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ending, nullptr);
  return ending;
}

std::string ListeningOn(const std::string& address, int port) {
  if (address.empty()) return "none";
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

int Serve(const Flags& flags, mmlab::EventLog& log) {
  RaiseDescriptorLimit();
  std::signal(SIGPIPE, SIG_IGN);
  const sigset_t ending = BlockEndingSignals();
  absl::StatusOr<std::unique_ptr<mmlab::Server>> server = mmlab::Server::Start(flags.server);
  if (!server.ok()) {
    log.Error("start_failed", {{"reason", server.status().message()}});
    return 1;
  }
  if (!flags.data_dir.empty()) {
    log.Warning("not_durable", {{"data_dir", flags.data_dir}, {"note", "machines live in memory only; nothing is written"}});
  } else {
    log.Info("not_durable", {{"note", "machines live in memory only"}});
  }
  log.Info("serving", {{"version", mmlab::Version()},
                       {"grpc", ListeningOn(flags.server.grpc_address, (*server)->grpc_port())},
                       {"http", ListeningOn(flags.server.http_address, (*server)->http_port())}});
  int signal = 0;
  sigwait(&ending, &signal);
  log.Info("stopping",
           {{"signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"}, {"machines", absl::StrCat((*server)->host().machine_count())}});
  (*server)->Shutdown(absl::Seconds(flags.drain_seconds));
  server->reset();
  log.Info("stopped");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("mmlabd: hosts simulated machines whose memory behaves like Linux 6.1's, and serves them over gRPC.", "mmlabd");
  Declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;  // --help and --version are no errors.
  }
  mmlab::EventLog log(stderr, flags.log_format == "json" ? mmlab::EventLog::Format::kJson : mmlab::EventLog::Format::kText);
  flags.server.log = &log;
  flags.server.reflection = !flags.no_reflection;
  return Serve(flags, log);
}

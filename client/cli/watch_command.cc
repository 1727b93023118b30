#include <fmt/core.h>
#include <google/protobuf/util/json_util.h>

#include <cstdio>
#include <memory>

#include "client/cli/commands.h"
#include "client/cli/exit_code.h"

namespace mmlab {
namespace {

struct WatchOptions {
  std::string machine;
  v1::WatchRequest request;
  uint64_t count = 0;
  bool list = false;
};

void ListKinds(Session& session) {
  v1::ListEventKindsResponse response;
  session.Call(*session.connection().watch, &v1::WatchService::Stub::ListEventKinds, v1::ListEventKindsRequest(), &response);
  for (const v1::EventKindDescription& kind : response.event_kinds()) {
    fmt::print("{}", kind.event());
    for (const std::string& field : kind.fields()) fmt::print(" {}", field);
    fmt::print("\n");
  }
}

// The layout of /sys/kernel/tracing/trace_pipe. A machine has no interrupts: the flags are always five dots.
void PrintLine(const v1::TraceEvent& event) {
  const std::string name = event.event().substr(event.event().find(':') + 1);
  const int64_t micros = event.time_nanoseconds() / 1000;
  fmt::print("{:>16}-{:<7} [{:03}] ..... {:5}.{:06}: {}: {}\n", event.comm(), event.pid(), event.cpu(), micros / 1'000'000,
             micros % 1'000'000, name, event.text());
}

void PrintEvent(Session& session, const v1::TraceEvent& event) {
  if (session.options().output != OutputFormat::kJson) return PrintLine(event);
  std::string json;
  if (google::protobuf::util::MessageToJsonString(event, &json).ok()) fmt::print("{}\n", json);
}

void Watch(Session& session, const WatchOptions& options) {
  grpc::ClientContext context;  // Without a deadline: it ends when the person, the machine or --count does.
  const auto stream = session.connection().watch->Watch(&context, options.request);
  v1::WatchResponse response;
  uint64_t printed = 0;
  while (stream->Read(&response)) {
    if (response.lost_events() != 0) fmt::print("CPU:? [LOST {} EVENTS]\n", response.lost_events());
    for (const v1::TraceEvent& event : response.events()) {
      PrintEvent(session, event);
      if (++printed != options.count) continue;
      std::fflush(stdout);
      context.TryCancel();
      stream->Finish();
      return;
    }
    std::fflush(stdout);
  }
  session.Check(stream->Finish());
}

}  // namespace

void AddWatchCommand(CLI::App& app, Session& session) {
  CLI::App* watch = app.add_subcommand("watch", "Print what happens in a machine, as trace_pipe does");
  const auto options = std::make_shared<WatchOptions>();
  watch->add_option("machine", options->machine, "Machine");
  watch->add_option_function<std::vector<std::string>>(
      "-e,--event",
      [options](const std::vector<std::string>& globs) { options->request.mutable_events()->Assign(globs.begin(), globs.end()); },
      "Events, as globs: kmem:mm_page_alloc, 'kmem:*'; repeatable; without it, all");
  watch->add_option_function<std::vector<int32_t>>(
      "--pid", [options](const std::vector<int32_t>& pids) { options->request.mutable_pids()->Assign(pids.begin(), pids.end()); },
      "Only while these processes run");
  watch->add_option_function<std::vector<std::string>>(
      "--zone", [options](const std::vector<std::string>& zones) { options->request.mutable_zones()->Assign(zones.begin(), zones.end()); },
      "Only what is about these zones: DMA, DMA32, Normal, HighMem");
  watch->add_option_function<uint64_t>(
      "--resume-after", [options](uint64_t sequence) { options->request.set_resume_after(sequence); },
      "Go on behind this sequence number of an earlier watch (-o json shows them)");
  watch->add_option("--count", options->count, "End after so many events; 0 = never");
  watch->add_flag("--list", options->list, "List the events that there are, with their fields, and end");
  watch->footer(
      "Examples:\n  mmlab watch lab1\n  mmlab watch lab1 -e 'kmem:*' --zone HighMem\n  mmlab watch lab1 -e 'oom:*' -o json\n"
      "  mmlab watch --list");
  watch->callback([options, &session] {
    if (options->list) return ListKinds(session);
    if (options->machine.empty()) Fail(kExitUsage, "which machine? mmlab watch MACHINE");
    options->request.set_machine("machines/" + options->machine);
    Watch(session, *options);
  });
}

}  // namespace mmlab

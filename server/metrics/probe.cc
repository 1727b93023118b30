#include "server/metrics/probe.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/base/check.h"
#include "server/host/host.h"
#include "server/metrics/collector_choice.h"

namespace mmlab {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// When the scraper gives up.
Clock::time_point Deadline(const HttpRequest& request, Clock::time_point start) {
  double seconds = 0;
  if (!absl::SimpleAtod(request.Header("x-prometheus-scrape-timeout-seconds").value_or(""), &seconds)) return Clock::time_point::max();
  return start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::clamp(seconds, 0.0, 86400.0)));
}

}  // namespace

Families CollectMachine(absl::Span<const Collector* const> collectors, WithMachine with_machine) {
  MachineSnapshot snapshot;
  std::vector<double> seconds(collectors.size());
  enum class State { kRuns, kFailed, kAbsent };
  std::vector<State> states(collectors.size(), State::kRuns);
  // Calls one half of every collector that still runs; false: it has nothing to do with this machine.
  const auto each = [&](auto half) {
    for (size_t i = 0; i < collectors.size(); ++i) {
      if (states[i] != State::kRuns) continue;
      const Clock::time_point start = Clock::now();
      try {
        if (!half(*collectors[i])) states[i] = State::kAbsent;
      } catch (const CheckFailure&) {  // Of this machine; the page says so.
        states[i] = State::kFailed;
      }
      seconds[i] += SecondsSince(start);
    }
  };
  with_machine([&](const Machine& machine) { each([&](const Collector& collector) { return collector.read(machine, snapshot); }); });

  Families families;
  families.reserve(256);
  each([&](const Collector& collector) {
    Append(families, collector.collect(snapshot));
    return true;
  });

  auto duration = GaugeFamily("node_scrape_collector_duration_seconds", "node_exporter: Duration of a collector scrape.");
  auto succeeded = GaugeFamily("node_scrape_collector_success", "node_exporter: Whether a collector succeeded.");
  duration.metric.reserve(collectors.size());
  succeeded.metric.reserve(collectors.size());
  for (size_t i = 0; i < collectors.size(); ++i) {
    if (states[i] == State::kAbsent) continue;
    AddSample(duration, {{"collector", collectors[i]->name}}, seconds[i]);
    AddSample(succeeded, {{"collector", collectors[i]->name}}, states[i] == State::kRuns ? 1 : 0);
  }
  families.push_back(std::move(duration));
  families.push_back(std::move(succeeded));
  return families;
}

HttpResponse AnswerProbe(const Host& host, const HttpRequest& request) {
  const Clock::time_point deadline = Deadline(request, Clock::now());
  const std::vector<std::string> targets = request.QueryValues("target");
  if (targets.size() != 1 || targets[0].empty()) return TextResponse(400, "one parameter target=MACHINE is required");
  const auto collectors = ChooseCollectors(request);
  if (!collectors.ok()) return TextResponse(400, collectors.status().message());
  const auto hosted = host.Find(absl::StripPrefix(targets[0], "machines/"));
  if (!hosted.ok()) return TextResponse(404, "no such machine");

  Families families = CollectMachine(*collectors, [&](absl::FunctionRef<void(const Machine&)> read) {
    const MachineReader reader = (*hosted)->Read();
    read(reader.machine());
  });
  HttpResponse page{.content_type = kExpositionContentType, .body = Exposition(std::move(families)), .headers = {}};
  if (Clock::now() > deadline) return TextResponse(503, "the machine was busy until the scrape's deadline");
  return page;
}

}  // namespace mmlab

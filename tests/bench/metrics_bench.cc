// What a scrape of a machine costs, beside what prometheus-cpp's serialiser alone would.
#include <malloc.h>

#include <memory>
#include <string>
#include <vector>

#include "prometheus/text_serializer.h"
#include "server/machine/machine.h"
#include "server/metrics/exposition.h"
#include "server/metrics/probe.h"
#include "server/metrics/thread_counters.h"
#include "tests/bench/goals.h"
#include "tests/bench/workload.h"

namespace mmlab {
namespace {

std::vector<const Collector*> DefaultCollectors() {
  std::vector<const Collector*> chosen;
  for (const Collector& collector : Collectors()) {
    if (collector.by_default) chosen.push_back(&collector);
  }
  return chosen;
}

// A machine with a process that has touched memory, as a scraper meets it.
std::unique_ptr<Machine> UsedMachine() {
  constexpr uint64_t kMebibyte = uint64_t{1} << 20;
  auto machine = BenchMachine(1);
  const Pid pid = StartProcess(*machine);
  Touch(*machine, pid, MapAnonymous(*machine, pid, 64 * kMebibyte), 64 * kMebibyte, AccessKind::kTouchWrite);
  return machine;
}

Families Scrape(const Machine& machine, absl::Span<const Collector* const> collectors) {
  return CollectMachine(collectors, [&](absl::FunctionRef<void(const Machine&)> read) { read(machine); });
}

size_t SamplesOf(const Families& families) {
  size_t samples = 0;
  for (const prometheus::MetricFamily& family : families) samples += family.metric.size();
  return samples;
}

void Probe(benchmark::State& state) {
  const auto machine = UsedMachine();
  const std::vector<const Collector*> collectors = DefaultCollectors();
  for (auto _ : state) benchmark::DoNotOptimize(Exposition(Scrape(*machine, collectors)));
}

void SerialiseReadyMadeSamples(benchmark::State& state) {
  const auto machine = UsedMachine();
  const Families families = Scrape(*machine, DefaultCollectors());
  for (auto _ : state) benchmark::DoNotOptimize(prometheus::TextSerializer().Serialize(families));
}

// What stays on the host of a scrape, for each series of it.
void HostBytesOfSeries(benchmark::State& state) {
  constexpr int kMachines = 100;
  const std::vector<const Collector*> collectors = DefaultCollectors();
  for (auto _ : state) {
    std::vector<std::unique_ptr<Machine>> machines(kMachines);
    for (auto& machine : machines) machine = BenchMachine(1);
    const size_t series = SamplesOf(Scrape(*machines[0], collectors));
    const auto before = static_cast<double>(mallinfo2().uordblks);
    for (const auto& machine : machines) benchmark::DoNotOptimize(Exposition(Scrape(*machine, collectors)));
    state.counters["value"] = (static_cast<double>(mallinfo2().uordblks) - before) / (kMachines * static_cast<double>(series));
  }
}

void CounterUpdate(benchmark::State& state) {
  ThreadCounters counters(64);
  size_t index = 0;
  for (auto _ : state) {
    counters.Add(index);
    index = (index + 7) % 64;
  }
  benchmark::DoNotOptimize(counters.Sums());
}

const RegisterGoals kGoals({
    {"P1",
     "probe of a machine / prometheus-cpp serialising as many ready-made samples",
     {2, 1.5, 1.15},
     "x",
     Probe,
     SerialiseReadyMadeSamples},
    {"P4", "host bytes that stay of a scrape, for each series", {361, 64, 0}, "B", HostBytesOfSeries},
    {"P5", "counting an event on a hot path", {14, 2, 1}, "ns", CounterUpdate},
});

}  // namespace
}  // namespace mmlab

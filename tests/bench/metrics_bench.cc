// What a scrape of a machine costs, beside what prometheus-cpp's serialiser alone would.
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "mmlab/v1/machine.pb.h"
#include "prometheus/text_serializer.h"
#include "server/host/host.h"
#include "server/host/hosted_machine.h"
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

// What a Prometheus does to a host: every machine is scraped once a second, evenly over it, until this goes.
class Scraper {
 public:
  explicit Scraper(const Host& host) : machines_(host.All()), thread_([this] { Run(); }) {}
  ~Scraper() {
    stop_ = true;
    thread_.join();
  }
  Scraper(const Scraper&) = delete;
  Scraper& operator=(const Scraper&) = delete;

 private:
  void Run() {
    const std::vector<const Collector*> collectors = DefaultCollectors();
    auto due = std::chrono::steady_clock::now();
    for (size_t i = 0; !stop_; i = (i + 1) % machines_.size()) {
      benchmark::DoNotOptimize(Exposition(CollectMachine(collectors, [&](absl::FunctionRef<void(const Machine&)> read) {
        const MachineReader reader = machines_[i]->Read();
        read(reader.machine());
      })));
      due += std::chrono::microseconds(1'000'000 / machines_.size());
      std::this_thread::sleep_until(due);
    }
  }

  const std::vector<std::shared_ptr<HostedMachine>> machines_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// As soon as nobody reads the machine.
bool ApplyInLane(HostedMachine& machine, const Operation& operation, Outcome& outcome) {
  while (true) {
    if (std::optional<MachineLane> lane = machine.TryEnter()) return lane->Apply(operation, nullptr, outcome).ok();
  }
}

// The time within which 99 of 100 operations on one of a host's machines are done, over more than a second.
void OperationsOfAHost(benchmark::State& state, bool scraped) {
  constexpr int kMachines = 50;
  constexpr auto kWindow = std::chrono::milliseconds(1500);
  constexpr size_t kNanosecondsABucket = 5;
  Host host;
  v1::MachineSpec spec;
  spec.set_preset("arm64-128M");
  for (int i = 0; i < kMachines; ++i) {
    if (!host.Create({absl::StrCat("m", i), &spec, {}}).ok()) return state.SkipWithError("a machine was not made");
  }
  const std::shared_ptr<HostedMachine> machine = *host.Find("m0");
  for (auto _ : state) {
    std::optional<Scraper> scraper;
    if (scraped) scraper.emplace(host);
    std::vector<uint64_t> buckets(20'000);
    uint64_t operations = 0;
    Outcome outcome;
    const auto end = std::chrono::steady_clock::now() + kWindow;
    for (auto before = std::chrono::steady_clock::now(); before < end;) {
      const Operation operation = operations % 2 == 0 ? Operation(op::AllocPages{}) : Operation(op::FreePages{.pfn = outcome.value});
      if (!ApplyInLane(*machine, operation, outcome)) return state.SkipWithError("an operation failed");
      const auto now = std::chrono::steady_clock::now();
      ++buckets[std::min<size_t>(static_cast<size_t>((now - before).count()) / kNanosecondsABucket, buckets.size() - 1)];
      ++operations;
      before = now;
    }
    size_t bucket = 0;
    for (uint64_t seen = buckets[0]; seen < operations * 99 / 100; seen += buckets[bucket]) ++bucket;
    state.counters["value"] = static_cast<double>((bucket + 1) * kNanosecondsABucket);
  }
}
void OperationsWhileScraped(benchmark::State& state) { OperationsOfAHost(state, true); }
void OperationsAlone(benchmark::State& state) { OperationsOfAHost(state, false); }

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
    {"P3",
     "p99 of operations while a thread scrapes 50 machines every second / without",
     {1.5, 1.1, 1.02},
     "x",
     OperationsWhileScraped,
     OperationsAlone,
     /*waits=*/true},
    {"P4", "host bytes that stay of a scrape, for each series", {361, 64, 0}, "B", HostBytesOfSeries},
    {"P5", "counting an event on a hot path", {14, 2, 1}, "ns", CounterUpdate},
});

}  // namespace
}  // namespace mmlab

// The runner of the benchmarks: alternates both sides of each goal and reports the ratios.

#include "tests/bench/goals.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace mmlab {
namespace {

constexpr int kPairs = 7;

std::vector<Goal>& Goals() {
  static std::vector<Goal> goals;
  return goals;
}

// Keeps the last run's figure instead of printing it.
class Collector final : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.error_occurred) {
        error = run.error_message;
        continue;
      }
      const auto value = run.counters.find("value");
      const auto rate = run.counters.find("items_per_second");
      if (value != run.counters.end()) {
        figure = value->second.value;
      } else if (rate != run.counters.end()) {
        figure = 1e9 / rate->second.value;
      } else if (absl::StrContains(run.benchmark_name(), "real_time")) {
        figure = run.GetAdjustedRealTime();
      } else {
        figure = run.GetAdjustedCPUTime();
      }
    }
  }
  double figure = 0;
  std::string error;
};

// Runs one side once. Throws std::runtime_error with what the benchmark skipped with.
double Measure(const std::string& name) {
  Collector collector;
  const size_t ran = benchmark::RunSpecifiedBenchmarks(&collector, absl::StrCat("^", name, "(/|$)"));
  if (!collector.error.empty() || ran == 0) throw std::runtime_error(absl::StrCat(name, ": ", ran == 0 ? "did not run" : collector.error));
  return collector.figure;
}

struct Result {
  std::vector<double> ours, partner, results;  // By pair; sorted in the end.
  double median() const { return results[results.size() / 2]; }
};

Result Run(const Goal& goal) {
  Result result;
  for (int pair = 0; pair < kPairs; ++pair) {
    result.ours.push_back(Measure(absl::StrCat(goal.id, "_ours")));
    if (goal.partner != nullptr) result.partner.push_back(Measure(absl::StrCat(goal.id, "_partner")));
    result.results.push_back(goal.partner != nullptr ? result.ours.back() / result.partner.back() : result.ours.back());
  }
  for (auto* list : {&result.ours, &result.partner, &result.results}) std::sort(list->begin(), list->end());
  return result;
}

const char* StepOf(const Goal& goal, double value) {
  static constexpr const char* kSteps[] = {"floor", "strong", "best"};
  const char* step = "MISSED";
  for (size_t i = 0; i < goal.at_most.size(); ++i) {
    if (value <= goal.at_most[i]) step = kSteps[i];
  }
  return step;
}

nlohmann::ordered_json Report(const Goal& goal, const Result& result) {
  const auto middle = [](const std::vector<double>& v) { return v.empty() ? 0.0 : v[v.size() / 2]; };
  std::printf("%-4s %-58s %11.4g %11.4g %9.3g %-5s [%.3g .. %.3g]  %s (floor %g, strong %g, best %g)\n", goal.id, goal.what,
              middle(result.ours), middle(result.partner), result.median(), goal.unit, result.results.front(), result.results.back(),
              StepOf(goal, result.median()), goal.at_most[0], goal.at_most[1], goal.at_most[2]);
  std::fflush(stdout);
  return {{"id", goal.id},
          {"what", goal.what},
          {"unit", goal.unit},
          {"ours", middle(result.ours)},
          {"partner", goal.partner == nullptr ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(middle(result.partner))},
          {"median", result.median()},
          {"min", result.results.front()},
          {"max", result.results.back()},
          {"pairs", kPairs},
          {"at_most", goal.at_most},
          {"step", StepOf(goal, result.median())}};
}

struct Options {
  std::vector<std::string> only;
  std::string json;
  bool list = false;
};

// False: not understood.
bool Parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    absl::string_view flag = argv[i];
    std::string value;
    if (const size_t equals = flag.find('='); equals != absl::string_view::npos) {
      value = std::string(flag.substr(equals + 1));
      flag = flag.substr(0, equals);
    } else if (flag != "--list" && i + 1 < argc) {
      value = argv[++i];
    }
    if (flag == "--list") {
      options.list = true;
    } else if (flag == "--only" && !value.empty()) {
      options.only = absl::StrSplit(value, ',', absl::SkipEmpty());
    } else if (flag == "--json" && !value.empty()) {
      options.json = value;
    } else {
      return false;
    }
  }
  for (const std::string& id : options.only) {
    if (std::none_of(Goals().begin(), Goals().end(), [&](const Goal& goal) { return goal.id == id; })) {
      std::fprintf(stderr, "no goal %s; --list names them\n", id.c_str());
      return false;
    }
  }
  return true;
}

int RunBenchmarks(int argc, char** argv) {
  Options options;
  std::sort(Goals().begin(), Goals().end(), [](const Goal& a, const Goal& b) { return std::string(a.id) < b.id; });
  if (!Parse(argc, argv, options)) {
    std::fprintf(stderr, "usage: bench [--only ID,...] [--json FILE] [--list]\n");
    return 2;
  }
  int library_arguments = 1;
  benchmark::Initialize(&library_arguments, argv);
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  bool failed = false;
  if (!options.list) {
    std::printf("%-4s %-58s %11s %11s %9s\n", "", "median of pairs", "ours", "partner", "result");
  }
  for (const Goal& goal : Goals()) {
    if (!options.only.empty() && std::find(options.only.begin(), options.only.end(), goal.id) == options.only.end()) continue;
    if (options.list) {
      std::printf("%-4s %s\n", goal.id, goal.what);
      continue;
    }
    try {
      all.push_back(Report(goal, Run(goal)));
    } catch (const std::runtime_error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      failed = true;
    }
  }
  if (!options.json.empty()) {
    std::ofstream out(options.json);
    out << all.dump(2) << '\n';
    failed = failed || !out.flush();
  }
  return failed ? 1 : 0;
}

}  // namespace

RegisterGoals::RegisterGoals(std::initializer_list<Goal> goals) {
  const auto add = [](const std::string& name, BenchFunction function, bool waits) {
    benchmark::internal::Benchmark* const added = benchmark::RegisterBenchmark(name.c_str(), function)->MinTime(0.05);
    if (waits) added->UseRealTime();
  };
  for (const Goal& goal : goals) {
    Goals().push_back(goal);
    add(absl::StrCat(goal.id, "_ours"), goal.ours, goal.waits);
    if (goal.partner != nullptr) add(absl::StrCat(goal.id, "_partner"), goal.partner, goal.waits);
  }
}

}  // namespace mmlab

int main(int argc, char** argv) { return mmlab::RunBenchmarks(argc, argv); }

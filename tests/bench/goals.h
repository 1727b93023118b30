#ifndef MMLAB_TESTS_BENCH_GOALS_H_
#define MMLAB_TESTS_BENCH_GOALS_H_

#include <benchmark/benchmark.h>

#include <array>

namespace mmlab {

using BenchFunction = void (*)(benchmark::State& state);

// What is measured and how good it should be. Smaller is better throughout.
struct Goal {
  const char* id;    // "E1"
  const char* what;  // One line.
  // Of the result, what: with a partner a ratio, ours / partner (both in time for each item processed); without, the counter "value" that
  // ours sets, or, when it sets none, nanoseconds for each item processed.
  std::array<double, 3> at_most;  // Floor, strong, best.
  const char* unit;               // "x" for ratios, else of the value.
  BenchFunction ours;
  BenchFunction partner = nullptr;
  bool waits =
      false;  // A side waits for another process: time passed is compared, else the thread's CPU time, which other work disturbs less.
};

// Adds goals to the run; call at namespace scope. Functions process items (State::SetItemsProcessed, or one in each iteration).
struct RegisterGoals {
  RegisterGoals(std::initializer_list<Goal> goals);
};

}  // namespace mmlab

#endif  // MMLAB_TESTS_BENCH_GOALS_H_

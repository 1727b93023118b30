#include "server/metrics/thread_counters.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace mmlab {
namespace {

TEST(ThreadCounters, StartWithZero) { EXPECT_EQ(ThreadCounters(3).Sums(), (std::vector<uint64_t>{0, 0, 0})); }

TEST(ThreadCounters, AreApartFromEachOther) {
  std::vector<std::unique_ptr<ThreadCounters>> many;  // More than a thread remembers at once.
  for (int i = 0; i < 20; ++i) many.push_back(std::make_unique<ThreadCounters>(2));
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < many.size(); ++i) many[i]->Add(1, i);
  }
  for (size_t i = 0; i < many.size(); ++i) EXPECT_EQ(many[i]->Sums(), (std::vector<uint64_t>{0, 3 * i}));
}

TEST(ThreadCounters, NeverShowWhatAnOlderOneHeld) {
  for (int i = 0; i < 100; ++i) {
    ThreadCounters counters(1);
    counters.Add(0);
    EXPECT_EQ(counters.Sums()[0], 1u);
  }
}

TEST(ThreadCounters, SumAllThreadsEvenThoseThatEnded) {
  ThreadCounters counters(2);
  for (int round = 0; round < 4; ++round) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&counters] {
        for (int i = 0; i < 10000; ++i) counters.Add(static_cast<size_t>(i % 2));
      });
    }
    uint64_t before = 0;
    for (int i = 0; i < 100; ++i) {  // Reading meanwhile: a sum never falls.
      const uint64_t now = counters.Sums()[0];
      EXPECT_GE(now, before);
      before = now;
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(counters.Sums(), (std::vector<uint64_t>{80000, 80000}));
}

TEST(ThreadCounters, MayEndBeforeTheThreadsThatCounted) {
  auto counters = std::make_unique<ThreadCounters>(1);
  std::thread thread([&counters] {
    counters->Add(0);
    counters.reset();
    ThreadCounters next(1);
    next.Add(0);
    EXPECT_EQ(next.Sums()[0], 1u);
  });
  thread.join();
}

}  // namespace
}  // namespace mmlab

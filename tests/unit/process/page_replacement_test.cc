#include "server/process/page_replacement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "server/base/random.h"
#include "tests/unit/process/reference_strings.h"

namespace mmlab {
namespace {

// The faults of a string with frames and accessed bits that are nobody's but the test's.
class Simulation {
 public:
  Simulation(ReplacementPolicy policy, uint32_t frames, const References& references)
      : replacement_({policy, frames, 0, 1000, policy == ReplacementPolicy::kOptimal ? references : References{}}) {
    for (const uint64_t page : references) Access(page);
  }

  uint64_t faults() const { return replacement_.loads(); }
  std::vector<uint64_t> held() const {
    std::vector<uint64_t> pages;
    for (const PageReplacement::Slot& slot : replacement_.slots()) {
      if (slot.page.has_value()) pages.push_back(*slot.page);
    }
    return pages;
  }

 private:
  void Access(uint64_t page) {
    if (!replacement_.Holds(page)) {
      replacement_.BeginRoom();
      while (replacement_.held() >= replacement_.bound().frames) {
        const auto victim = replacement_.ChooseVictim([this](uint64_t other) { return accessed_.contains(other); },
                                                      [this](uint64_t other) { accessed_.erase(other); });
        ASSERT_TRUE(victim.has_value());
        replacement_.Forget(*replacement_.slots()[*victim].page, /*evicted=*/true);
      }
      replacement_.Load(page);
    }
    accessed_.insert(page);
    replacement_.Referenced(page);
    std::vector<std::string> violations;
    replacement_.CheckInvariants(&violations);
    ASSERT_EQ(violations, std::vector<std::string>{});
    ASSERT_LE(replacement_.held(), replacement_.bound().frames);
  }

  PageReplacement replacement_;
  std::set<uint64_t> accessed_;
};

class TextbookTest : public testing::TestWithParam<TextbookCase> {};

TEST_P(TextbookTest, FaultsAreThoseOfTheBook) {
  EXPECT_EQ(Simulation(GetParam().policy, GetParam().frames, *GetParam().references).faults(), GetParam().faults);
}

INSTANTIATE_TEST_SUITE_P(All, TextbookTest, testing::ValuesIn(kTextbookCases), [](const auto& test) { return test.param.name; });

TEST(PageReplacementTest, FramesAreThoseOfTheBookInTheEnd) {
  EXPECT_EQ(Simulation(ReplacementPolicy::kFifo, 3, kSilberschatz).held(), (std::vector<uint64_t>{7, 0, 1}));
  EXPECT_EQ(Simulation(ReplacementPolicy::kLru, 3, kSilberschatz).held(), (std::vector<uint64_t>{1, 0, 7}));
  EXPECT_EQ(Simulation(ReplacementPolicy::kOptimal, 3, kSilberschatz).held(), (std::vector<uint64_t>{7, 0, 1}));
}

TEST(PageReplacementTest, OptimalIsNeverBeatenAndLruNeverHasTheAnomaly) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    References references;
    for (int i = 0; i < 60; ++i) references.push_back(random.Below(8));
    uint64_t lru_before = references.size();
    uint64_t optimal_before = references.size();
    for (uint32_t frames = 2; frames <= 8; ++frames) {
      const uint64_t optimal = Simulation(ReplacementPolicy::kOptimal, frames, references).faults();
      const uint64_t lru = Simulation(ReplacementPolicy::kLru, frames, references).faults();
      for (const ReplacementPolicy policy : {ReplacementPolicy::kFifo, ReplacementPolicy::kClock}) {
        EXPECT_GE(Simulation(policy, frames, references).faults(), optimal);
      }
      EXPECT_GE(lru, optimal);
      EXPECT_LE(lru, lru_before);  // What fits in fewer frames is in more frames too: a stack algorithm.
      EXPECT_LE(optimal, optimal_before);
      lru_before = lru;
      optimal_before = optimal;
    }
  }
}

TEST(PageReplacementTest, AccessesThatWereNotAnnouncedLeaveTheFutureWhereItIs) {
  PageReplacement replacement({ReplacementPolicy::kOptimal, 2, 0, 10, {1, 2, 3, 1}});
  replacement.Referenced(9);
  EXPECT_EQ(replacement.position(), 0u);
  replacement.Referenced(2);
  EXPECT_EQ(replacement.position(), 2u);
  EXPECT_EQ(replacement.NextUse(1), 3u);
  EXPECT_EQ(replacement.NextUse(2), std::nullopt);
}

TEST(PageReplacementTest, WhatCannotGoIsPassedOver) {
  for (const ReplacementPolicy policy :
       {ReplacementPolicy::kFifo, ReplacementPolicy::kLru, ReplacementPolicy::kClock, ReplacementPolicy::kOptimal}) {
    PageReplacement replacement({policy, 2, 0, 10, {}});
    const auto choose = [&] { return replacement.ChooseVictim([](uint64_t) { return true; }, [](uint64_t) {}); };
    EXPECT_EQ(choose(), std::nullopt);
    replacement.Load(1);
    replacement.Load(2);
    replacement.BeginRoom();
    for (int i = 0; i < 2; ++i) {
      // Every accessed bit is set and stays so: the hand gives up after two rounds.
      const auto victim = replacement.ChooseVictim([](uint64_t) { return false; }, [](uint64_t) {});
      ASSERT_TRUE(victim.has_value());
      replacement.Keep(*victim);
    }
    EXPECT_EQ(choose(), std::nullopt);
    replacement.BeginRoom();
    EXPECT_NE(replacement.ChooseVictim([](uint64_t) { return false; }, [](uint64_t) {}), std::nullopt);
  }
}

}  // namespace
}  // namespace mmlab

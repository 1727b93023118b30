#include "server/cgroup/psi_group.h"

#include <gtest/gtest.h>

#include "server/base/load_average.h"

namespace mmlab {
namespace {

constexpr int64_t kPeriod = 2'004'000'000;  // Two seconds and a tick of 4 ms.

TEST(PsiGroupTest, NothingWaitsAtFirst) {
  PsiGroup group(0);
  group.Advance(100 * kPeriod);
  EXPECT_EQ(group.Text(StallKind::kMemory),
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
}

TEST(PsiGroupTest, TotalCountsAtOnceAveragesWithThePeriod) {
  PsiGroup group(0);
  group.Stall(StallKind::kMemory, kPeriod / 2);
  EXPECT_EQ(group.total(StallKind::kMemory), 1'002'000);
  EXPECT_EQ(group.total(StallKind::kIo), 0);
  group.Advance(kPeriod - 1);
  EXPECT_NE(group.Text(StallKind::kMemory).find("avg10=0.00"), std::string::npos);
  group.Advance(kPeriod);
  // 50 % for 2 of 10 seconds: 50 * (1 - 1677/2048); of 60: 50 * (1 - 1981/2048); of 300: 50 * (1 - 2034/2048).
  EXPECT_EQ(group.Text(StallKind::kMemory),
            "some avg10=9.05 avg60=1.63 avg300=0.34 total=1002000\n"
            "full avg10=9.05 avg60=1.63 avg300=0.34 total=1002000\n");
}

TEST(PsiGroupTest, MoreWaitingThanTimeIsSpreadOverThePeriodsThatFollow) {
  PsiGroup at_once(0);
  PsiGroup step_by_step(0);
  at_once.Stall(StallKind::kIo, 3 * kPeriod);
  at_once.Advance(7 * kPeriod);
  for (int i = 1; i <= 7; ++i) {
    if (i <= 3) step_by_step.Stall(StallKind::kIo, kPeriod);
    step_by_step.Advance(i * kPeriod);
  }
  EXPECT_EQ(at_once.Text(StallKind::kIo).substr(0, 13), step_by_step.Text(StallKind::kIo).substr(0, 13));
}

TEST(PsiGroupTest, PressureFades) {
  PsiGroup group(0);
  for (int i = 1; i <= 60; ++i) {
    group.Stall(StallKind::kMemory, kPeriod);
    group.Advance(i * kPeriod);
  }
  EXPECT_EQ(group.Text(StallKind::kMemory).substr(0, 17), "some avg10=100.00");
  group.Advance(160 * kPeriod);
  EXPECT_EQ(group.Text(StallKind::kMemory).substr(0, 15), "some avg10=0.00");
}

TEST(LoadAverageTest, ManyStepsAtOnceAreCloseToOneByOne) {
  uint64_t one_by_one = 0;
  for (int i = 0; i < 12; ++i) one_by_one = FadeLoad(one_by_one, 1884, kLoadOne);
  const uint64_t at_once = FadeLoadBy(12, 0, 1884, kLoadOne);
  EXPECT_LE(one_by_one > at_once ? one_by_one - at_once : at_once - one_by_one, 12u);
  EXPECT_EQ(LoadWhole(FadeLoadBy(1000, 0, 1884, kLoadOne)), 1u);
}

}  // namespace
}  // namespace mmlab

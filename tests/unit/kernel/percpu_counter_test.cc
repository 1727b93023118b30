#include "server/kernel/percpu_counter.h"

#include <cstdint>
#include <limits>

#include "gtest/gtest.h"
#include "server/base/random.h"

namespace mmlab {
namespace {

struct AddCase {
  const char* name;
  int64_t before;  // What this CPU holds already; below the batch of 32.
  int64_t amount;
  int32_t batch;
  int64_t count;
  int32_t local;
};
class PercpuCounterAddTest : public testing::TestWithParam<AddCase> {};

TEST_P(PercpuCounterAddTest, FoldsWhenThePartReachesTheBatch) {
  PercpuCounter counter(0, 2);
  counter.Add(0, GetParam().before, 32);
  counter.Add(0, GetParam().amount, GetParam().batch);
  EXPECT_EQ(counter.count(), GetParam().count);
  EXPECT_EQ(counter.local(0), GetParam().local);
  EXPECT_EQ(counter.local(1), 0);
  EXPECT_EQ(counter.Sum(), GetParam().before + GetParam().amount);
}
INSTANTIATE_TEST_SUITE_P(Parts, PercpuCounterAddTest,
                         testing::Values(AddCase{"Small", 0, 1, 32, 0, 1}, AddCase{"OneBelow", 30, 1, 32, 0, 31},
                                         AddCase{"Reached", 31, 1, 32, 32, 0}, AddCase{"Passed", 20, 100, 32, 120, 0},
                                         AddCase{"Negative", -31, -1, 32, -32, 0}, AddCase{"BackToNothing", 20, -20, 32, 0, 0},
                                         AddCase{"NoBatch", 5, 0, 0, 5, 0}, AddCase{"NegativeBatch", 5, 1, -1, 6, 0},
                                         AddCase{"Huge", 0, int64_t{1} << 40, 1 << 30, int64_t{1} << 40, 0}),
                         [](const auto& test) { return test.param.name; });

TEST(PercpuCounterTest, TheSumIsExactWhateverTheCpusHold) {
  Random random(7);
  PercpuCounter counter(1000, 4);
  int64_t model = 1000;
  for (int i = 0; i < 100000; ++i) {
    const int64_t amount = static_cast<int64_t>(random.Below(200)) - 100;
    counter.Add(static_cast<int>(random.Below(4)), amount, static_cast<int32_t>(random.Below(100)));
    model += amount;
    ASSERT_EQ(counter.Sum(), model);
    ASSERT_LT(counter.count() > model ? counter.count() - model : model - counter.count(), 4 * 100);
  }
  for (int cpu = 0; cpu < 4; ++cpu) counter.Sync(cpu);
  EXPECT_EQ(counter.count(), model);
}

TEST(PercpuCounterTest, SetForgetsTheParts) {
  PercpuCounter counter(0, 2);
  counter.Add(1, 9, 32);
  counter.Set(-4);
  EXPECT_EQ(counter.Sum(), -4);
  EXPECT_EQ(counter.ReadPositive(), 0);
}

TEST(PercpuCounterTest, WrapsAtTheEdge) {
  PercpuCounter counter(std::numeric_limits<int64_t>::max(), 1);
  counter.Add(0, 40, 32);
  EXPECT_EQ(counter.Sum(), std::numeric_limits<int64_t>::min() + 39);
}

TEST(PercpuCounterTest, TheDefaultBatchGrowsWithTheCpus) {
  EXPECT_EQ(PercpuCounter::DefaultBatch(1), 32);
  EXPECT_EQ(PercpuCounter::DefaultBatch(16), 32);
  EXPECT_EQ(PercpuCounter::DefaultBatch(64), 128);
}

}  // namespace
}  // namespace mmlab

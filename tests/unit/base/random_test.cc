#include "server/base/random.h"

#include <cstdint>

#include "gtest/gtest.h"

namespace mmlab {
namespace {

// The first outputs of splitmix64 seeded with 1234567, as its author publishes them.
TEST(RandomTest, IsSplitmix64) {
  Random random(1234567);
  for (const uint64_t expected :
       {6457827717110365317u, 3203168211198807973u, 9817491932198370423u, 4593380528125082431u, 16408922859458223821u}) {
    EXPECT_EQ(random.Next(), expected);
  }
}

TEST(RandomTest, ContinuesFromItsState) {
  Random a(42);
  for (int i = 0; i < 10; ++i) a.Next();
  Random b(a.state());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(a.Next(), b.Next());
}

TEST(RandomTest, StaysBelowTheBound) {
  Random random(7);
  for (const uint64_t bound : {uint64_t{1}, uint64_t{2}, uint64_t{7}, uint64_t{1} << 63}) {
    for (int i = 0; i < 1000; ++i) EXPECT_LT(random.Below(bound), bound);
  }
}

}  // namespace
}  // namespace mmlab

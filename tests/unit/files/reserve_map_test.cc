#include "server/files/reserve_map.h"

#include <gtest/gtest.h>

#include <iterator>
#include <set>

#include "server/base/random.h"

namespace mmlab {
namespace {

uint64_t Within(const std::set<uint64_t>& model, uint64_t from, uint64_t to) {
  return static_cast<uint64_t>(std::distance(model.lower_bound(from), model.lower_bound(to)));
}

TEST(ReserveMapTest, IsASetOfNumbers) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    ReserveMap map;
    std::set<uint64_t> model;
    for (int step = 0; step < 500; ++step) {
      const uint64_t from = random.Below(60);
      const uint64_t to = from + random.Below(12);
      const uint64_t had = Within(model, from, to);
      if (random.Below(2) == 0) {
        ASSERT_EQ(map.Add(from, to), to - from - had);
        for (uint64_t i = from; i < to; ++i) model.insert(i);
      } else {
        ASSERT_EQ(map.Remove(from, to), had);
        model.erase(model.lower_bound(from), model.lower_bound(to));
      }
      const uint64_t first = random.Below(70);
      ASSERT_EQ(map.Count(first, first + 9), Within(model, first, first + 9));
    }
    uint64_t ranges = 0;
    for (const uint64_t i : model) ranges += model.contains(i - 1) ? 0 : 1;
    EXPECT_EQ(map.ranges(), ranges);
    EXPECT_EQ(map.Remove(0, ~uint64_t{0}), model.size());
    EXPECT_EQ(map.ranges(), 0u);
  }
}

}  // namespace
}  // namespace mmlab

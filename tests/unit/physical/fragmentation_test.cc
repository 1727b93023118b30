#include "server/physical/fragmentation.h"

#include <gtest/gtest.h>

#include <vector>

namespace mmlab {
namespace {

struct Case {
  const char* name;
  std::vector<uint64_t> free_blocks;
  std::vector<int64_t> unusable;
  std::vector<int64_t> fragmentation;
};
class FragmentationTest : public testing::TestWithParam<Case> {};

TEST_P(FragmentationTest, IndexesOfEveryOrder) {
  const Case& c = GetParam();
  std::vector<int64_t> unusable;
  std::vector<int64_t> fragmentation;
  for (int order = 0; order < static_cast<int>(c.unusable.size()); ++order) {
    unusable.push_back(UnusableIndex(c.free_blocks, order));
    fragmentation.push_back(FragmentationIndex(c.free_blocks, order));
  }
  EXPECT_EQ(unusable, c.unusable);
  EXPECT_EQ(fragmentation, c.fragmentation);
}

INSTANTIATE_TEST_SUITE_P(
    Zones, FragmentationTest,
    testing::Values(
        Case{"Nothing", {0, 0, 0}, {1000, 1000, 1000}, {0, 0, 0}}, Case{"OneBlockOfTheTop", {0, 0, 1}, {0, 0, 0}, {-1000, -1000, -1000}},
        // Four single pages: the memory of an order-2 block is there, but in pieces.
        Case{"Pieces", {4, 0, 0}, {0, 1000, 1000}, {-1000, 250, 500}},
        // One page can't be an order-2 block however it lies: lack of memory.
        Case{"Scarce", {1, 0, 0}, {0, 1000, 1000}, {-1000, -500, -250}}, Case{"Mixed", {2, 1, 0}, {0, 500, 1000}, {-1000, -1000, 334}},
        // Zone DMA of a recorded ARM64 machine with 1 GiB, whose debugfs said 0.000 seven times, then 0.001 0.003 0.008 0.015 a
        // moment later.
        Case{"RecordedArm64", {3, 3, 2, 2, 1, 4, 3, 4, 5, 2, 236}, {0, 0, 0, 0, 0, 0, 0, 1, 3, 8, 13}, std::vector<int64_t>(11, -1000)}),
    [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace mmlab

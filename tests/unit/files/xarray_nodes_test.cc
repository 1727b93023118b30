#include "server/files/xarray_nodes.h"

#include <iterator>
#include <set>

#include "gtest/gtest.h"
#include "server/base/random.h"

namespace mmlab {
namespace {

// At each level the nodes that hold an entry, up to the one that holds all.
uint64_t CountNodes(std::set<uint64_t> indexes) {
  uint64_t nodes = 0;
  while (!indexes.empty() && *indexes.rbegin() > 0) {
    std::set<uint64_t> above;
    for (const uint64_t index : indexes) above.insert(index / 64);
    nodes += above.size();
    indexes = above;
  }
  return nodes;
}

XarrayNeighbours Beside(const std::set<uint64_t>& indexes, uint64_t index) {
  XarrayNeighbours others;
  const auto above = indexes.lower_bound(index);
  if (above != indexes.end()) others.above = *above;
  if (above != indexes.begin()) others.below = *std::prev(above);
  if (!indexes.empty()) others.last = *indexes.rbegin();
  return others;
}

TEST(XarrayNodesTest, GrowWithTheTree) {
  EXPECT_EQ(XarrayNodesFor(0, {}), 0u);
  EXPECT_EQ(XarrayNodesFor(1, {}), 1u);
  EXPECT_EQ(XarrayNodesFor(63, {}), 1u);
  EXPECT_EQ(XarrayNodesFor(64, {}), 2u);
  EXPECT_EQ(XarrayNodesFor(4095, {}), 2u);
  EXPECT_EQ(XarrayNodesFor(4096, {}), 3u);
  EXPECT_EQ(XarrayNodesFor(~uint64_t{0}, {}), 11u);
}

TEST(XarrayNodesTest, AreAsManyAsAWholeCountFinds) {
  Random random(20261125);
  std::set<uint64_t> indexes;
  uint64_t nodes = 0;
  for (int step = 0; step < 4000; ++step) {
    const uint64_t index = random.Below(uint64_t{1} << random.Below(26));
    if (indexes.erase(index) != 0) {
      nodes -= XarrayNodesFor(index, Beside(indexes, index));
    } else {
      nodes += XarrayNodesFor(index, Beside(indexes, index));
      indexes.insert(index);
    }
    if (random.Below(3) == 0 && !indexes.empty()) {  // The largest goes: the tree may become lower.
      const uint64_t last = *indexes.rbegin();
      indexes.erase(last);
      nodes -= XarrayNodesFor(last, Beside(indexes, last));
    }
    ASSERT_EQ(nodes, CountNodes(indexes)) << "step " << step;
  }
}

}  // namespace
}  // namespace mmlab

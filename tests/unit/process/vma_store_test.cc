#include "server/process/vma_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "server/base/random.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
const std::vector<std::string> kNone;

// `count` VMAs of a page each, the first at page 1; behind each a hole of a page where `holes`.
std::vector<StoredVma> Row(size_t count, bool holes) {
  std::vector<StoredVma> vmas;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t start = (1 + i * (holes ? 2 : 1)) * kPage;
    vmas.push_back({start, start + kPage, 0});
  }
  return vmas;
}

// Slots of each node, level by level: "2 | 11 6".
std::string Shape(const std::vector<MapleStoreNode>& nodes) {
  std::string text;
  int depth = 0;
  for (const MapleStoreNode& node : nodes) {
    if (node.depth != depth) text += " |";
    depth = node.depth;
    text += (text.empty() ? "" : " ") + std::to_string(node.slots.size());
  }
  return text;
}

// In order of address: the start page with r or b and the depth.
std::string Colours(const std::vector<StoredVma>& vmas, std::vector<RbStoreNode> nodes) {
  std::sort(nodes.begin(), nodes.end(), [](const RbStoreNode& a, const RbStoreNode& b) { return a.vma < b.vma; });
  std::string text;
  for (const RbStoreNode& node : nodes) {
    text += (text.empty() ? "" : " ") + std::to_string(vmas[node.vma].start / kPage) + (node.red ? "r" : "b") + std::to_string(node.depth);
  }
  return text;
}

struct RbCase {
  const char* name;
  size_t count;
  const char* colours;
};
class RbStoreTest : public testing::TestWithParam<RbCase> {};

TEST_P(RbStoreTest, IsBalancedAsInsertionInOrderDoesIt) {
  const std::vector<StoredVma> vmas = Row(GetParam().count, true);
  const std::vector<RbStoreNode> nodes = BuildRbStore(vmas);
  EXPECT_EQ(Colours(vmas, nodes), GetParam().colours);
  EXPECT_EQ(CheckRbStore(vmas, nodes), kNone);
}
INSTANTIATE_TEST_SUITE_P(Ascending, RbStoreTest,
                         testing::Values(RbCase{"None", 0, ""}, RbCase{"One", 1, "1b0"}, RbCase{"Two", 2, "1b0 3r1"},
                                         RbCase{"Three", 3, "1r1 3b0 5r1"}, RbCase{"Four", 4, "1b1 3b0 5b1 7r2"},
                                         RbCase{"Five", 5, "1b1 3b0 5r2 7b1 9r2"}, RbCase{"Six", 6, "1b1 3b0 5b2 7r1 9b2 11r3"},
                                         RbCase{"Eight", 8, "1b2 3r1 5b2 7b0 9b2 11r1 13b2 15r3"}),
                         [](const auto& c) { return c.param.name; });

TEST(RbStoreTest, GapsLeaveTheGuardOfAStackOut) {
  const std::vector<StoredVma> vmas = {{0x10000, 0x20000, 0}, {0x200000, 0x201000, 0x100000}, {0x280000, 0x281000, 0x100000}};
  const std::vector<RbStoreNode> nodes = BuildRbStore(vmas);
  ASSERT_EQ(nodes.size(), 3u);
  EXPECT_EQ(nodes[0].vma, 1u);
  EXPECT_EQ(nodes[0].gap, 0xe0000u);
  EXPECT_EQ(nodes[0].subtree_gap, 0xe0000u);
  EXPECT_EQ(nodes[1].gap, 0x10000u) << "from address 0";
  EXPECT_EQ(nodes[2].gap, 0u) << "the guard gap reaches into the VMA below";
}

struct MapleCase {
  const char* name;
  size_t count;
  bool holes;
  int word_bytes;
  const char* shape;
};
class MapleStoreTest : public testing::TestWithParam<MapleCase> {};

TEST_P(MapleStoreTest, HasTheShapeOfABulkStore) {
  const std::vector<StoredVma> vmas = Row(GetParam().count, GetParam().holes);
  const MapleSizes sizes = MapleSizesOf(GetParam().word_bytes);
  const std::vector<MapleStoreNode> nodes = BuildMapleStore(vmas, sizes);
  EXPECT_EQ(Shape(nodes), GetParam().shape);
  EXPECT_EQ(CheckMapleStore(vmas, nodes, sizes), kNone);
}
// The shapes that lib/maple_tree.c of 6.1 itself comes to for these stores.
INSTANTIATE_TEST_SUITE_P(
    OfTheKernel, MapleStoreTest,
    testing::Values(MapleCase{"None", 0, true, 8, ""}, MapleCase{"One", 1, true, 8, "3"}, MapleCase{"OneFullLeaf", 7, true, 8, "15"},
                    MapleCase{"Split", 8, true, 8, "2 | 10 7"}, MapleCase{"PushedLeft", 20, true, 8, "3 | 16 10 15"},
                    MapleCase{"TwoInnerNodes", 100, true, 8, "2 | 7 6 | 16 16 16 16 16 16 16 16 16 16 16 10 15"},
                    MapleCase{"NoHoles", 8, false, 8, "10"}, MapleCase{"NoHolesSplit", 16, false, 8, "2 | 11 7"},
                    MapleCase{"NoHolesPushedLeft", 40, false, 8, "3 | 15 11 16"}, MapleCase{"Split32", 16, true, 4, "2 | 18 15"},
                    MapleCase{"PushedLeft32", 100, true, 4, "7 | 32 32 32 32 32 18 23"},
                    MapleCase{"TwoInnerNodes32", 400, true, 4,
                              "2 | 13 13 | 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 18 15"}),
    [](const auto& c) { return c.param.name; });

class RandomStoreTest : public testing::TestWithParam<uint64_t> {};

TEST_P(RandomStoreTest, KeepsItsRules) {
  Random random(GetParam());
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    std::vector<StoredVma> vmas;
    uint64_t at = random.Below(2);
    const uint64_t holes = random.Below(5);
    for (uint64_t count = random.Below(round < 50 ? 200 : 3000); count > 0; --count) {
      if (random.Below(4) < holes) at += 1 + random.Below(3);
      const uint64_t pages = 1 + random.Below(4);
      vmas.push_back({at * kPage, (at + pages) * kPage, random.Below(8) == 0 ? 2 * kPage : 0});
      at += pages;
    }
    EXPECT_EQ(CheckRbStore(vmas, BuildRbStore(vmas)), kNone);
    for (const int word_bytes : {4, 8}) {
      const MapleSizes sizes = MapleSizesOf(word_bytes);
      EXPECT_EQ(CheckMapleStore(vmas, BuildMapleStore(vmas, sizes), sizes), kNone);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Seeds, RandomStoreTest, testing::Values(1, 2, 3));

TEST(StoreCheckTest, FindsWhatIsBroken) {
  const std::vector<StoredVma> vmas = Row(40, true);
  const MapleSizes sizes = MapleSizesOf(8);
  std::vector<MapleStoreNode> maple = BuildMapleStore(vmas, sizes);
  ++maple[1].slots[0].last;
  EXPECT_NE(CheckMapleStore(vmas, maple, sizes), kNone);
  maple = BuildMapleStore(vmas, sizes);
  ++maple[0].slots[0].gap;
  EXPECT_NE(CheckMapleStore(vmas, maple, sizes), kNone);
  std::vector<RbStoreNode> rb = BuildRbStore(vmas);
  rb[1].red = !rb[1].red;
  EXPECT_NE(CheckRbStore(vmas, rb), kNone);
  rb = BuildRbStore(vmas);
  rb[0].subtree_gap = 0;
  EXPECT_NE(CheckRbStore(vmas, rb), kNone);
}

}  // namespace
}  // namespace mmlab

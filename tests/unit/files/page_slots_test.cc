#include "server/files/page_slots.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "server/base/random.h"

namespace mmlab {
namespace {

struct NodesCase {
  const char* name;
  std::vector<uint64_t> pages;
  uint64_t nodes;
};
class PageSlotsNodesTest : public testing::TestWithParam<NodesCase> {};

TEST_P(PageSlotsNodesTest, AreThoseOfTheKernelsTree) {
  PageSlots slots;
  for (const uint64_t page : GetParam().pages) slots.Insert(PageIndex(page), Pfn(1));
  EXPECT_EQ(slots.nodes(), GetParam().nodes);
  for (const uint64_t page : GetParam().pages) slots.Erase(PageIndex(page));
  EXPECT_EQ(slots.nodes(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Trees, PageSlotsNodesTest,
                         testing::Values(NodesCase{"TheFirstPageNeedsNone", {0}, 0}, NodesCase{"AnyOtherNeedsOne", {1}, 1},
                                         NodesCase{"SixtyFourFitInOne", {0, 63}, 1}, NodesCase{"OneMoreNeedsThree", {0, 64}, 3},
                                         NodesCase{"NothingBelowIsMadeForNothing", {64}, 2}, NodesCase{"FarAway", {1ull << 39}, 7}),
                         [](const auto& test) { return test.param.name; });

TEST(PageSlotsTest, ARootWithNothingButItsFirstEntryGoes) {
  PageSlots slots;
  for (const uint64_t page : {0, 5, 70, 5000}) slots.Insert(PageIndex(page), Pfn(page));
  EXPECT_EQ(slots.nodes(), 6u);  // One of 64^3 pages, 0 - 4095 with two leaves, 4096 - 8191 with one.
  slots.Erase(PageIndex(5000));
  EXPECT_EQ(slots.nodes(), 3u);
  slots.Erase(PageIndex(70));
  EXPECT_EQ(slots.nodes(), 1u);
  slots.Erase(PageIndex(5));
  EXPECT_EQ(slots.nodes(), 0u);
  EXPECT_EQ(slots.Find(PageIndex(0)), Pfn(0));
}

// What a file has at a page, as one line: of which kind, and the value.
using Model = std::map<uint64_t, std::pair<PageSlots::Kind, uint64_t>>;

std::string TextOf(const PageSlots& slots) {
  std::map<uint64_t, std::string> lines;
  for (const auto& [index, pfn] : slots.Pages()) lines[index.raw()] += "page " + std::to_string(pfn.raw());
  for (const auto& [index, shadow] : slots.Shadows()) lines[index.raw()] += "shadow " + std::to_string(shadow);
  for (const auto& [index, entry] : slots.Swapped()) lines[index.raw()] += "swapped " + std::to_string(entry.offset);
  std::string out;
  for (const auto& [index, line] : lines) out += std::to_string(index) + ": " + line + "\n";
  return out;
}

std::string TextOf(const Model& model) {
  constexpr const char* kNames[] = {"page ", "shadow ", "swapped "};
  std::string out;
  for (const auto& [index, entry] : model) {
    out += std::to_string(index) + ": " + kNames[static_cast<size_t>(entry.first)] + std::to_string(entry.second) + "\n";
  }
  return out;
}

// Nodes that hold something, level by level, up to the one that holds all.
uint64_t NodesOf(const Model& model) {
  if (model.empty() || model.rbegin()->first == 0) return 0;
  uint64_t nodes = 0;
  for (int shift = 6;; shift += 6) {
    std::set<uint64_t> level;
    for (const auto& [index, entry] : model) level.insert(index >> shift);
    nodes += level.size();
    if (level.size() == 1 && *level.begin() == 0) return nodes;
  }
}

TEST(PageSlotsTest, RandomStepsAgreeWithAMap) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    PageSlots slots;
    Model model;
    const uint64_t most = uint64_t{1} << (3 + seed);
    for (int step = 0; step < 400; ++step) {
      const uint64_t index = random.Below(random.Below(2) == 0 ? 8 : most);
      const PageIndex at(index);
      const auto found = model.find(index);
      const uint64_t value = 1 + random.Below(1000);
      switch (random.Below(6)) {
        case 0:
        case 1: {
          const bool shadow = found != model.end() && found->second.first == PageSlots::Kind::kShadow;
          EXPECT_EQ(slots.Insert(at, Pfn(value)), shadow ? found->second.second : 0);
          model[index] = {PageSlots::Kind::kPage, value};
          break;
        }
        case 2:
          slots.Evict(at, value);
          model[index] = {PageSlots::Kind::kShadow, value};
          break;
        case 3:
          slots.MoveToSwap(at, {0, static_cast<uint32_t>(value)});
          model[index] = {PageSlots::Kind::kSwapped, value};
          break;
        case 4:
          if (found == model.end()) break;
          slots.Erase(at);
          model.erase(found);
          break;
        default: {
          const uint64_t end = index + random.Below(100);
          slots.EraseShadows(at, PageIndex(end));
          std::erase_if(model, [&](const auto& entry) {
            return entry.second.first == PageSlots::Kind::kShadow && index <= entry.first && entry.first < end;
          });
        }
      }
      ASSERT_EQ(slots.nodes(), NodesOf(model));
    }
    EXPECT_EQ(TextOf(slots), TextOf(model));
    EXPECT_EQ(slots.pages() + slots.shadows() + slots.swapped(), model.size());
  }
}

}  // namespace
}  // namespace mmlab

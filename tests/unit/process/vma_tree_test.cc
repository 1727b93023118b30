#include "server/process/vma_tree.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/random.h"

namespace mmlab {
namespace {

constexpr uint64_t kPages = 200;  // Of the small address space that the random programs use.

std::unique_ptr<VmArea> Area(uint64_t start_page, uint64_t end_page) {
  auto vma = std::make_unique<VmArea>();
  vma->start = VirtAddr(start_page << 12);
  vma->end = VirtAddr(end_page << 12);
  return vma;
}

// Start and end page of each VMA: what the tree must agree with.
using Model = std::map<uint64_t, uint64_t>;

bool Free(const Model& model, uint64_t from, uint64_t to) {
  for (const auto& [start, end] : model) {
    if (start < to && from < end) return false;
  }
  return true;
}

std::optional<uint64_t> ModelGap(const Model& model, uint64_t pages, uint64_t low, uint64_t high, bool highest) {
  std::optional<uint64_t> found;
  for (uint64_t start = low; start + pages <= high; ++start) {
    if (!Free(model, start, start + pages)) continue;
    found = start;
    if (!highest) break;
  }
  return found;
}

void ExpectSame(const VmaTree& tree, const Model& model) {
  ASSERT_EQ(tree.size(), model.size());
  const VmArea* vma = tree.First();
  for (const auto& [start, end] : model) {
    ASSERT_NE(vma, nullptr);
    EXPECT_EQ(vma->start.raw() >> 12, start);
    EXPECT_EQ(vma->end.raw() >> 12, end);
    vma = tree.Next(*vma);
  }
  EXPECT_EQ(vma, nullptr);
}

class VmaTreeRandomTest : public testing::TestWithParam<uint64_t> {};

TEST_P(VmaTreeRandomTest, AgreesWithASortedMap) {
  Random random(GetParam());
  VmaTree tree;
  Model model;
  for (int step = 0; step < 3000; ++step) {
    SCOPED_TRACE(testing::Message() << "step " << step);
    const uint64_t start = random.Below(kPages);
    const uint64_t end = start + 1 + random.Below(8);
    switch (random.Below(4)) {
      case 0:
      case 1:
        if (Free(model, start, end)) {
          tree.Insert(Area(start, end));
          model[start] = end;
        }
        break;
      case 2:
        if (VmArea* vma = tree.Lookup(VirtAddr(start << 12))) {
          model.erase(vma->start.raw() >> 12);
          tree.Remove(*vma);
        }
        break;
      default:
        // Shrinks a VMA to its last page.
        if (VmArea* vma = tree.Lookup(VirtAddr(start << 12))) {
          const uint64_t last = vma->end.raw() >> 12;
          model.erase(vma->start.raw() >> 12);
          tree.Resize(*vma, VirtAddr((last - 1) << 12), vma->end);
          model[last - 1] = last;
        }
    }
    ExpectSame(tree, model);
    std::vector<std::string> violations;
    tree.CheckInvariants(&violations);
    ASSERT_EQ(violations, std::vector<std::string>());
    const uint64_t pages = 1 + random.Below(12);
    const uint64_t low = random.Below(kPages);
    const uint64_t high = low + random.Below(kPages);
    auto page = [](std::optional<VirtAddr> address) {
      return address.has_value() ? std::optional<uint64_t>(address->raw() >> 12) : std::nullopt;
    };
    EXPECT_EQ(page(tree.LowestGap(Bytes(pages << 12), VirtAddr(low << 12), VirtAddr(high << 12))),
              ModelGap(model, pages, low, high, false));
    EXPECT_EQ(page(tree.HighestGap(Bytes(pages << 12), VirtAddr(low << 12), VirtAddr(high << 12))),
              ModelGap(model, pages, low, high, true));
  }
}
INSTANTIATE_TEST_SUITE_P(Seeds, VmaTreeRandomTest, testing::Values(1, 2, 3, 4));

// Several levels of nodes: filled in one order, emptied in another, with lookups next to the last one and far from it.
TEST_P(VmaTreeRandomTest, GrowsAndShrinksThroughItsLevels) {
  constexpr uint64_t kMany = 3000;
  Random random(GetParam());
  VmaTree tree;
  std::vector<uint64_t> order(kMany);
  for (uint64_t i = 0; i < kMany; ++i) order[i] = i;
  const auto shuffle = [&] {
    for (uint64_t i = kMany; i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
  };
  const auto check = [&](uint64_t step, uint64_t page) {
    const VmArea* found = tree.Find(VirtAddr(page << 12));
    const VmArea* before = found == nullptr ? tree.Last() : tree.Previous(*found);
    ASSERT_TRUE(found == nullptr || found->end.raw() >> 12 > page);
    ASSERT_TRUE(before == nullptr || before->end.raw() >> 12 <= page);
    if (step % 64 != 0) return;
    std::vector<std::string> violations;
    tree.CheckInvariants(&violations);
    ASSERT_EQ(violations, std::vector<std::string>());
  };
  if (GetParam() % 2 == 0) shuffle();
  for (uint64_t i = 0; i < kMany; ++i) {
    // Two pages each with a page between them; a third grows up to the next one.
    tree.Insert(Area(3 * order[i], 3 * order[i] + 2));
    check(i, 3 * order[i] + random.Below(3));
    check(i, random.Below(3 * kMany));
  }
  for (uint64_t i = 0; i < kMany; i += 3) {
    VmArea* vma = tree.Lookup(VirtAddr((3 * i) << 12));
    ASSERT_NE(vma, nullptr);
    tree.Resize(*vma, vma->start, vma->end + Bytes(1 << 12));
    EXPECT_EQ(tree.Lookup(VirtAddr((3 * i + 2) << 12)), vma);
    check(i, 3 * i + random.Below(6));
  }
  EXPECT_EQ(tree.LowestGap(Bytes(1 << 12), VirtAddr(0), VirtAddr(~uint64_t{0} << 12)), VirtAddr(5 << 12));
  shuffle();
  for (uint64_t i = 0; i < kMany; ++i) {
    VmArea* vma = tree.Lookup(VirtAddr((3 * order[i]) << 12));
    ASSERT_NE(vma, nullptr);
    tree.Remove(*vma);
    check(i, random.Below(3 * kMany));
  }
  EXPECT_EQ(tree.size(), 0u);
  EXPECT_EQ(tree.HostMemory(), Bytes(0));
}

struct FindCase {
  const char* name;
  uint64_t page;
  std::optional<uint64_t> find;          // First VMA that ends above.
  std::optional<uint64_t> lookup;        // VMA that holds the page.
  std::optional<uint64_t> starts_below;  // Last VMA that starts below.
};
class VmaTreeFindTest : public testing::TestWithParam<FindCase> {};

TEST_P(VmaTreeFindTest, FindsAsTheKernelDoes) {
  VmaTree tree;
  tree.Insert(Area(10, 20));
  tree.Insert(Area(30, 31));
  auto start = [](const VmArea* vma) { return vma == nullptr ? std::nullopt : std::optional<uint64_t>(vma->start.raw() >> 12); };
  const VirtAddr address(GetParam().page << 12);
  EXPECT_EQ(start(tree.Find(address)), GetParam().find);
  EXPECT_EQ(start(tree.Lookup(address)), GetParam().lookup);
  EXPECT_EQ(start(tree.LastStartingBelow(address)), GetParam().starts_below);
}
INSTANTIATE_TEST_SUITE_P(TwoVmas, VmaTreeFindTest,
                         testing::Values(FindCase{"BelowAll", 5, 10, {}, {}}, FindCase{"FirstPage", 10, 10, 10, {}},
                                         FindCase{"LastPage", 19, 10, 10, 10}, FindCase{"JustBehind", 20, 30, {}, 10},
                                         FindCase{"SinglePage", 30, 30, 30, 10}, FindCase{"AboveAll", 31, {}, {}, 30}),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace mmlab

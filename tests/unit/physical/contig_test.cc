// Ranges larger than the largest block.

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/physical/contents.h"
#include "server/physical/page_allocator.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

constexpr PageOrder kOrder(13);
constexpr uint64_t kPages = 8192;

// 128 MiB in one zone from frame 0 on, of whose four ranges the first holds what boot took.
PhysicalConfig Config() {
  PhysicalConfig config;
  config.ram = {{Pfn(0), Pfn(4 * kPages)}};
  config.reserved = {{{Pfn(0), Pfn(1)}, "zero page"}};
  config.zone_end = {Pfn(0), Pfn(0), Pfn(4 * kPages), Pfn(4 * kPages), Pfn(4 * kPages)};
  config.pageblock_order = 9;
  return config;
}

std::vector<std::string> Problems(const BuddyMemory& memory) {
  std::vector<std::string> problems;
  memory.CheckInvariants(&problems);
  return problems;
}

uint64_t Free(const BuddyMemory& memory) {
  uint64_t pages = 0;
  for (const Zone& zone : memory.zones()) pages += zone.free_pages_exact();
  return pages;
}

struct ContigCase {
  const char* name;
  std::optional<PfnRange> cma;
  std::vector<uint64_t> in_use;    // A page of the kernel in each of these frames.
  std::vector<uint64_t> on_lru;    // A page on an LRU list; nobody is there to move it.
  std::vector<uint64_t> expected;  // First frames of what is handed out, one after another.
};
class ContigTest : public testing::TestWithParam<ContigCase> {};

TEST_P(ContigTest, TakesTheLowestRangeThatCanBeEmptied) {
  const ContigCase& c = GetParam();
  PhysicalConfig config = Config();
  if (c.cma.has_value()) config.cma = {*c.cma};
  Tracer tracer;
  BuddyMemory memory(config, tracer);
  // All pages one by one, and all but the wanted ones back.
  std::vector<Pfn> all;
  while (const auto pfn = memory.AllocPages(kGfpHighuserMovable | kGfpMemalloc, PageOrder(0))) all.push_back(*pfn);
  const auto wanted = [](const std::vector<uint64_t>& list, Pfn pfn) {
    return std::find(list.begin(), list.end(), pfn.raw()) != list.end();
  };
  for (const Pfn pfn : all) {
    if (wanted(c.on_lru, pfn)) {
      memory.frame(pfn).state = FrameState::kAnon;
      memory.lru().Add(pfn);
    } else if (!wanted(c.in_use, pfn)) {
      memory.FreePages(pfn, PageOrder(0));
    }
  }
  memory.DrainAllPages();
  const uint64_t free = Free(memory);
  std::vector<uint64_t> got;
  while (const auto head = memory.AllocContig(kGfpHighuser, kOrder, FrameState::kHugetlb)) {
    got.push_back(head->raw());
    EXPECT_EQ(memory.frame(*head).refcount, 1);
    EXPECT_EQ(CompoundPages(memory.frame(*head)), kPages);
    EXPECT_EQ(memory.HeadOf(*head + PageCount(kPages - 1)), *head);
    EXPECT_EQ(memory.HeadOf(*head + PageCount(3 * 1024)), *head);
    memory.contents().Write(*head + PageCount(5000), 0, "x", 1);
  }
  EXPECT_EQ(got, c.expected);
  EXPECT_EQ(Free(memory), free - got.size() * kPages);
  EXPECT_EQ(memory.FrameCounts()[static_cast<size_t>(FrameState::kHugetlb)], got.size() * kPages);
  EXPECT_EQ(Problems(memory), std::vector<std::string>{});
  for (const uint64_t head : got) memory.FreeContig(Pfn(head), kOrder);
  memory.DrainAllPages();
  EXPECT_EQ(Free(memory), free);
  EXPECT_EQ(memory.contents().BytesIfAny(Pfn(2 * kPages + 5000)), nullptr);
  EXPECT_EQ(Problems(memory), std::vector<std::string>{});
  // It can be taken again, and as ordinary blocks.
  EXPECT_EQ(memory.AllocContig(kGfpHighuser, kOrder, FrameState::kHugetlb).has_value(), !got.empty());
  EXPECT_TRUE(memory.AllocPages(kGfpKernel, PageOrder(kMaxOrder)).has_value());
  EXPECT_EQ(Problems(memory), std::vector<std::string>{});
}

INSTANTIATE_TEST_SUITE_P(
    Ranges, ContigTest,
    testing::Values(ContigCase{"Free", std::nullopt, {}, {}, {kPages, 2 * kPages, 3 * kPages}},
                    ContigCase{"TheKernelsPageStays", std::nullopt, {kPages + 77, 4 * kPages - 1}, {}, {2 * kPages}},
                    ContigCase{"InEveryRange", std::nullopt, {kPages, 2 * kPages + 1, 3 * kPages + 512}, {}, {}},
                    ContigCase{"MovableWithoutWhoMovesIt", std::nullopt, {}, {2 * kPages + 9}, {kPages, 3 * kPages}},
                    ContigCase{"CmaIsForOthers", PfnRange{Pfn(kPages), Pfn(kPages + 1024)}, {}, {}, {2 * kPages, 3 * kPages}}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(ContigTest, WhatBootKeptComesUnderItsRule) {
  PhysicalConfig config = Config();
  config.reserved.push_back({{Pfn(kPages), Pfn(2 * kPages)}, "kept"});
  Tracer tracer;
  BuddyMemory memory(config, tracer);
  const uint64_t managed = memory.managed_pages().raw();
  memory.AdoptReserved(Pfn(kPages), kOrder, FrameState::kHugetlb);
  EXPECT_EQ(memory.managed_pages().raw(), managed + kPages);
  EXPECT_EQ(Problems(memory), std::vector<std::string>{});
  const uint64_t free = Free(memory);
  memory.FreeContig(Pfn(kPages), kOrder);
  memory.DrainAllPages();
  EXPECT_EQ(Free(memory), free + kPages);
  EXPECT_EQ(Problems(memory), std::vector<std::string>{});
}

}  // namespace
}  // namespace mmlab

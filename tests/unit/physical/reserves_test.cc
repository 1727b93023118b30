// How deep each kind of request may reach: watermark discounts, the high-order atomic reserve, CMA, the Movable zone.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/physical/page_allocator.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

constexpr uint32_t kFrames = 16384;
constexpr uint32_t kMinKbytes = 16384;  // 4096 pages.
constexpr int64_t kMin = kMinKbytes / 4;

struct ReserveCase {
  const char* name;
  Gfp gfp;
  int64_t keeps;  // Free pages that it leaves to others, of kMin.
};

class ReserveTest : public testing::TestWithParam<ReserveCase> {};

// Blocks of order 4 come from the free lists alone, so that the count of free pages is exact.
TEST_P(ReserveTest, StopsAtItsMark) {
  const ReserveCase& c = GetParam();
  Tracer tracer;
  const auto memory = MakeTestMemory(kFrames, tracer);
  memory->SetMinFreeKbytes(kMinKbytes);
  constexpr PageOrder kOrder(4);
  while (memory->AllocPages(c.gfp, kOrder).has_value()) {
  }
  // __zone_watermark_ok(): free - (2^order - 1) must exceed the mark.
  const auto free = static_cast<int64_t>(memory->zones()[1].free_pages_exact());
  EXPECT_LE(free - 15, c.keeps);
  EXPECT_GT(free + 16 - 15, c.keeps);
}

INSTANTIATE_TEST_SUITE_P(Kinds, ReserveTest,
                         testing::Values(ReserveCase{"Kernel", kGfpKernel, kMin}, ReserveCase{"Nowait", kGfpNowait, kMin},
                                         ReserveCase{"User", kGfpUser, kMin},
                                         ReserveCase{"MayWaitButMatters", kGfpKernel | kGfpHigh, kMin / 2},
                                         ReserveCase{"Atomic", kGfpAtomic, kMin / 2 - kMin / 8},
                                         ReserveCase{"AtomicThatMayNotUseReserves", kGfpAtomic | kGfpNoMemalloc, kMin / 2},
                                         ReserveCase{"Memalloc", kGfpKernel | kGfpMemalloc, 0},
                                         ReserveCase{"MemallocTakenBack", kGfpKernel | kGfpMemalloc | kGfpNoMemalloc, kMin}),
                         [](const auto& test) { return test.param.name; });

TEST(HighatomicTest, KeepsAPageBlockForThoseWhoCannotWait) {
  Tracer tracer;
  const auto memory = MakeTestMemory(kFrames, tracer);
  memory->SetMinFreeKbytes(kMinKbytes);
  const Zone& zone = memory->zones()[1];
  while (memory->AllocPages(kGfpNowait, PageOrder(2)).has_value()) {
  }
  EXPECT_EQ(zone.nr_reserved_highatomic, 0u);
  ASSERT_TRUE(memory->AllocPages(kGfpAtomic, PageOrder(2)).has_value());
  EXPECT_EQ(zone.nr_reserved_highatomic, memory->lists().pageblock_pages());
  EXPECT_EQ(memory->PageblockCounts(zone)[kMigrateHighatomic], 1u);
  // At most one percent of the zone and a block.
  while (memory->AllocPages(kGfpAtomic, PageOrder(2)).has_value()) {
  }
  EXPECT_LE(zone.nr_reserved_highatomic, zone.managed / 100 + 2 * memory->lists().pageblock_pages());
  // Who can wait gets it back when nothing else is left.
  memory->SetMinFreeKbytes(128);
  uint64_t got = 0;
  while (memory->AllocPages(kGfpKernel, PageOrder(0)).has_value()) ++got;
  EXPECT_GT(got, 0u);
  EXPECT_TRUE(zone.free_area[0].lists[kMigrateHighatomic].empty());
  std::vector<std::string> problems;
  memory->CheckInvariants(&problems);
  EXPECT_THAT(problems, testing::IsEmpty());
}

PhysicalConfig Arm64Config(uint32_t cma_start, uint32_t cma_end, uint32_t movable_start) {
  PhysicalConfig config;
  config.zones = ZoneSet::kArm64;
  config.pageblock_order = 9;
  config.ram = {{Pfn(0), Pfn(kFrames)}};
  config.reserved = {{{Pfn(0), Pfn(64)}, "kernel"}};
  if (cma_start != cma_end) config.cma = {{Pfn(cma_start), Pfn(cma_end)}};
  config.zone_end = {Pfn(4096), Pfn(4096), Pfn(movable_start), Pfn(movable_start), Pfn(kFrames)};
  return config;
}

TEST(CmaTest, OnlyMovableRequestsMayHaveIt) {
  Tracer tracer;
  BuddyMemory memory(Arm64Config(8192, 12288, kFrames), tracer);
  const auto in_cma = [](Pfn pfn) { return pfn >= Pfn(8192) && pfn < Pfn(12288); };
  while (const std::optional<Pfn> pfn = memory.AllocPages(kGfpKernel | kGfpMemalloc, PageOrder(0))) ASSERT_FALSE(in_cma(*pfn));
  EXPECT_EQ(memory.zones()[2].stat(ZoneStat::kNrFreeCma), 4096u);
  uint64_t movable = 0;
  while (const std::optional<Pfn> pfn = memory.AllocPages(kGfpHighuserMovable | kGfpMemalloc, PageOrder(0))) movable += in_cma(*pfn);
  EXPECT_EQ(movable, 4096u);
}

TEST(MovableZoneTest, TakesOnlyWhatMovesAndIsHighmem) {
  Tracer tracer;
  BuddyMemory memory(Arm64Config(0, 0, 8192), tracer);
  const auto zone_of = [&](Gfp gfp) { return memory.zones()[memory.frame(*memory.AllocPages(gfp, PageOrder(0))).zone].name(); };
  EXPECT_EQ(zone_of(kGfpHighuserMovable), "Movable");
  EXPECT_EQ(zone_of(kGfpHighuser), "Normal");
  EXPECT_EQ(zone_of(kGfpUser | kGfpMovable), "Normal");
  EXPECT_EQ(zone_of(kGfpKernel), "Normal");
  while (const std::optional<Pfn> pfn = memory.AllocPages(kGfpKernel | kGfpMemalloc, PageOrder(0))) ASSERT_LT(*pfn, Pfn(8192));
  EXPECT_GT(memory.zones()[3].free_pages(), 8000u);
}

TEST(ExplainRequestTest, TellsTheWholeWayToAFailure) {
  Tracer tracer;
  const auto memory = MakeTestMemory(kFrames, tracer);
  while (memory->AllocPages(kGfpKernel | kGfpMemalloc, PageOrder(0)).has_value()) continue;
  Explanation why;
  tracer.Explain(&why);
  EXPECT_FALSE(memory->AllocPages(kGfpAtomic, PageOrder(3)).has_value());
  const std::string text = ExplanationText(why);
  for (const char* part : {"gfp=GFP_ATOMIC", "preferred_zone=Normal", "migrate_type=Unmovable", "against its low watermark",
                           "half (__GFP_HIGH), a quarter of the rest (cannot wait), the high-order atomic reserve",
                           "zone Normal is not above its min watermark", "no zone could give the pages"}) {
    EXPECT_THAT(text, testing::HasSubstr(part));
  }
}

}  // namespace
}  // namespace mmlab

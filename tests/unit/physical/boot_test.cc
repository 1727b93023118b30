// What a machine's memory is right after boot: sizes of zones, what it costs on the host, the order of the free lists.

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/physical/page_allocator.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

using testing::ElementsAre;

constexpr uint32_t kKiB64 = 64 << 10;

// 1 GiB as the recorded 686-1G machine has it.
PhysicalConfig OneGib() {
  PhysicalConfig config;
  config.ram = {{Pfn(1), Pfn(159)}, {Pfn(256), Pfn(262109)}};
  config.reserved = {{{Pfn(1), Pfn(159)}, "low memory"}, {{Pfn(4096), Pfn(7558)}, "kernel"}, {{Pfn(221180), Pfn(223963)}, "memmap"}};
  config.late_freed = {{Pfn(7600), Pfn(8126)}};
  config.zone_end = {Pfn(4096), Pfn(4096), Pfn(224254), Pfn(262109), Pfn(262109)};
  return config;
}

std::vector<uint32_t> ListOf(const BuddyMemory& memory, int zone, int order, int type) {
  std::vector<uint32_t> list;
  memory.lists().ForEach(memory.zones()[static_cast<size_t>(zone)], order, type, [&](uint32_t pfn) { list.push_back(pfn); });
  return list;
}

TEST(BootTest, ZonesSpanWhatTheRecordedMachineShows) {
  Tracer tracer;
  const BuddyMemory memory(OneGib(), tracer);
  const absl::Span<const Zone> zones = memory.zones();
  ASSERT_EQ(zones.size(), 4u);
  EXPECT_EQ(zones[0].start_pfn, 1u);
  EXPECT_EQ(zones[0].spanned, 4095u);
  EXPECT_EQ(zones[0].present, 3998u);
  EXPECT_EQ(zones[0].managed, 3840u);
  EXPECT_EQ(zones[1].start_pfn, 4096u);
  EXPECT_EQ(zones[1].spanned, 220158u);
  EXPECT_EQ(zones[1].managed, 220158u - 3462 - 2783);
  EXPECT_EQ(zones[2].start_pfn, 224254u);
  EXPECT_EQ(zones[2].spanned, 37855u);
  EXPECT_EQ(zones[2].managed, 37855u);
  EXPECT_FALSE(zones[3].populated());
  std::vector<std::string> problems;
  memory.CheckInvariants(&problems);
  EXPECT_THAT(problems, testing::IsEmpty());
}

TEST(BootTest, PageBlocksThatDoNotStartInRamStartUnmovable) {
  Tracer tracer;
  const BuddyMemory memory(OneGib(), tracer);
  EXPECT_EQ(memory.PageblockCounts(memory.zones()[0])[kMigrateUnmovable], 1u);
  EXPECT_EQ(memory.PageblockCounts(memory.zones()[0])[kMigrateMovable], 3u);
  EXPECT_EQ(memory.PageblockCounts(memory.zones()[1])[kMigrateMovable], 215u);
  EXPECT_EQ(memory.PageblockCounts(memory.zones()[2])[kMigrateUnmovable], 1u);
  EXPECT_EQ(memory.PageblockCounts(memory.zones()[2])[kMigrateMovable], 36u);
}

TEST(BootTest, LowMemoryAscendsAndHighMemoryDescends) {
  Tracer tracer;
  BuddyMemory memory(OneGib(), tracer);
  EXPECT_THAT(ListOf(memory, 0, kMaxOrder, kMigrateMovable), ElementsAre(1024, 2048, 3072));
  EXPECT_THAT(ListOf(memory, 0, 9, kMigrateUnmovable), ElementsAre(512));
  EXPECT_EQ(ListOf(memory, 1, kMaxOrder, kMigrateMovable).front(), 8192u);
  EXPECT_EQ(ListOf(memory, 2, kMaxOrder, kMigrateMovable).front(), 260096u);
  EXPECT_EQ(ListOf(memory, 2, kMaxOrder, kMigrateMovable).back(), 224256u);
  // Looking into the middle of a run changes no list.
  const std::vector<uint32_t> before = ListOf(memory, 2, kMaxOrder, kMigrateMovable);
  for (const uint32_t pfn : {240000u, 260100u, 224300u, 239000u}) {
    (void)memory.frame(Pfn(pfn));
    EXPECT_EQ(ListOf(memory, 2, kMaxOrder, kMigrateMovable), before);
    std::vector<std::string> problems;
    memory.CheckInvariants(&problems);
    ASSERT_THAT(problems, testing::IsEmpty()) << pfn;
  }
}

PhysicalConfig Large(uint32_t gib) {
  PhysicalConfig config;
  config.pageblock_order = 9;
  const uint32_t end = gib << 18;
  config.ram = {{Pfn(1), Pfn(159)}, {Pfn(256), Pfn(786432)}, {Pfn(1048576), Pfn(end + 262144)}};
  for (uint32_t i = 0; i < 20; ++i) config.reserved.push_back({{Pfn(5000 + i * 10007), Pfn(5777 + i * 10007)}, "boot"});
  config.zone_end = {Pfn(4096), Pfn(4096), Pfn(225278), Pfn(end + 262144), Pfn(end + 262144)};
  return config;
}

TEST(BootTest, AnIdleMachineCostsKilobytesWhateverItsSize) {
  Tracer tracer;
  const BuddyMemory four(Large(4), tracer);
  const BuddyMemory sixty_four(Large(64), tracer);
  EXPECT_LT(four.HostMemory(), kKiB64);
  EXPECT_LT(sixty_four.HostMemory(), kKiB64);
  EXPECT_EQ(four.lists().table().blocks_made(), 0u);
}

TEST(BootTest, LateFreedMemoryDoesNotCountForTheWatermarks) {
  Tracer tracer;
  PhysicalConfig early = OneGib();
  early.late_freed.clear();
  const BuddyMemory with(OneGib(), tracer);
  const BuddyMemory without(early, tracer);
  EXPECT_EQ(with.managed_pages(), without.managed_pages());
  EXPECT_EQ(with.zones()[0].lowmem_reserve[1] + 2, without.zones()[0].lowmem_reserve[1]);
}

TEST(BootTest, CmaAreasAreFreeButApart) {
  Tracer tracer;
  PhysicalConfig config;
  config.zones = ZoneSet::kArm64;
  config.pageblock_order = 9;
  config.ram = {{Pfn(262144), Pfn(294912)}};
  config.cma = {{Pfn(284160), Pfn(286720)}};
  config.zone_end = {Pfn(1048576), Pfn(1048576), Pfn(1048576), Pfn(0), Pfn(1048576)};
  BuddyMemory memory(config, tracer);
  const Zone& dma = memory.zones()[0];
  EXPECT_EQ(dma.cma_pages, 2560u);
  EXPECT_EQ(dma.stat(ZoneStat::kNrFreeCma), 2560u);
  EXPECT_EQ(memory.PageblockCounts(dma)[kMigrateCma], 5u);
  EXPECT_EQ(memory.PageblockTypeOf(Pfn(284160)), kMigrateCma);
  EXPECT_EQ(memory.PageblockTypeOf(Pfn(284159)), kMigrateMovable);
}

TEST(TestMemoryTest, GivesEveryPageAndTakesThemBack) {
  Tracer tracer;
  const auto memory = MakeTestMemory(64, tracer);
  EXPECT_EQ(memory->managed_pages(), PageCount(64));
  std::vector<Pfn> pages;
  while (const std::optional<Pfn> pfn = memory->AllocPages(kGfpKernel, PageOrder(0))) pages.push_back(*pfn);
  EXPECT_GE(pages.size(), 61u);  // The zone's counter may lag by the CPU's part.
  for (const Pfn pfn : pages) memory->FreePages(pfn, PageOrder(0));
  memory->DrainAllPages();
  EXPECT_TRUE(memory->AllocPages(kGfpKernel, PageOrder(6)).has_value());
}

}  // namespace
}  // namespace mmlab

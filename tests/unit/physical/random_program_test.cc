// Random programs against a model that only knows which frames are taken.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/random.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr uint32_t kMiB = 256;  // Frames in a MiB.

struct ProgramCase {
  const char* name;
  ZoneSet zones;
  int pageblock_order;
  int cpus;
  uint32_t ram_mib;
  uint32_t cma_mib;
  int steps;
  int hold_most;  // Blocks held at once; many make memory short.
};

PhysicalConfig ConfigOf(const ProgramCase& c) {
  PhysicalConfig config;
  config.zones = c.zones;
  config.pageblock_order = c.pageblock_order;
  config.cpus = c.cpus;
  const Pfn end(c.ram_mib * kMiB);
  config.ram = {{Pfn(1), Pfn(159)}, {Pfn(256), end}};
  config.reserved = {
      {{Pfn(1), Pfn(16)}, "low"}, {{Pfn(5000), Pfn(5700)}, "kernel"}, {{end - PageCount(301), end - PageCount(7)}, "memmap"}};
  config.late_freed = {{Pfn(5700), Pfn(5803)}};
  if (c.cma_mib != 0) config.cma = {{Pfn(8192), Pfn(8192 + c.cma_mib * kMiB)}};
  config.zone_end = {Pfn(4096), Pfn(4096), Pfn(c.ram_mib * kMiB * 3 / 4), end, end};
  return config;
}

class RandomProgramTest : public testing::TestWithParam<ProgramCase> {};

struct Held {
  Pfn pfn;
  PageOrder order;
};

// Something that decides how much a request finds, or how much a CPU keeps.
void ChangeASetting(BuddyMemory& memory, Random& random) {
  const int zone = static_cast<int>(random.Below(memory.zones().size()));
  switch (random.Below(5)) {
    case 0:
      return memory.SetMinFreeKbytes(static_cast<uint32_t>(128 + random.Below(2000)));
    case 1:
      return memory.SetWatermarkScaleFactor(static_cast<uint32_t>(1 + random.Below(200)));
    case 2:
      return memory.SetReclaimActive(zone, random.Below(2) != 0);
    case 3:
      return memory.DropWatermarkBoost(zone);
    default:
      return memory.SetLowmemReserveRatio({static_cast<uint32_t>(random.Below(300)), 256, 32, 0, 0});
  }
}

void RunProgram(const ProgramCase& c, uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Tracer tracer;
  BuddyMemory memory(ConfigOf(c), tracer);
  Random random(seed);
  const uint64_t managed = memory.managed_pages().raw();
  std::vector<Held> held;
  std::map<uint64_t, uint64_t> taken;  // First frame -> first frame after.
  uint64_t taken_pages = 0;
  const Gfp kinds[] = {kGfpKernel,   kGfpKernel | kGfpReclaimable, kGfpAtomic, kGfpNowait, kGfpUser | kGfpMovable, kGfpHighuserMovable,
                       kGfpHighuser, kGfpKernel | kGfpZoneDma};
  for (int step = 0; step < c.steps; ++step) {
    memory.SetCurrentCpu(static_cast<int>(random.Below(static_cast<uint64_t>(c.cpus))));
    const bool allocate = held.empty() || (held.size() < static_cast<size_t>(c.hold_most) && random.Below(100) < 58);
    if (allocate) {
      const PageOrder order(random.Below(4) != 0 ? 0 : static_cast<int>(random.Below(kOrders)));
      const std::optional<Pfn> got = memory.AllocPages(kinds[random.Below(std::size(kinds))], order);
      if (got) {
        ASSERT_EQ(got->raw() % order.pages().raw(), 0u);
        const uint64_t end = got->raw() + order.pages().raw();
        const auto after = taken.lower_bound(got->raw());
        ASSERT_TRUE(after == taken.end() || after->first >= end) << "handed out twice";
        ASSERT_TRUE(after == taken.begin() || std::prev(after)->second <= got->raw()) << "handed out twice";
        ASSERT_EQ(memory.frame(*got).refcount, 1);
        taken.emplace(got->raw(), end);
        taken_pages += order.pages().raw();
        held.push_back({*got, order});
        const uint8_t mark = 0x5a;
        uint8_t was = 1;
        memory.contents().Read(*got, 77, &was, 1);
        ASSERT_EQ(was, 0) << "a fresh page shows old bytes";
        memory.contents().Write(*got, 77, &mark, 1);
      }
    } else {
      const size_t i = random.Below(held.size());
      memory.FreePages(held[i].pfn, held[i].order);
      taken.erase(held[i].pfn.raw());
      taken_pages -= held[i].order.pages().raw();
      held[i] = held.back();
      held.pop_back();
    }
    if (random.Below(100) == 0) ChangeASetting(memory, random);
    if (step % 64 == 0 || step + 1 == c.steps) {
      std::vector<std::string> problems;
      memory.CheckInvariants(&problems);
      ASSERT_THAT(problems, testing::IsEmpty()) << "step " << step;
      uint64_t have = taken_pages;
      for (const Zone& zone : memory.zones()) {
        have += zone.free_pages_exact();
        for (const PerCpuPages& pcp : zone.pcp) have += pcp.count;
      }
      ASSERT_EQ(have, managed) << "step " << step;
    }
  }
  // Everything back: nothing is lost, and it all merges again.
  for (const Held& block : held) memory.FreePages(block.pfn, block.order);
  memory.DrainAllPages();
  std::vector<std::string> problems;
  memory.CheckInvariants(&problems);
  ASSERT_THAT(problems, testing::IsEmpty());
  uint64_t have = 0;
  for (const Zone& zone : memory.zones()) have += zone.free_pages_exact();
  EXPECT_EQ(have, managed);
  EXPECT_EQ(memory.contents().pages_in_use(), 0u);
}

TEST_P(RandomProgramTest, KeepsItsPromises) {
  for (uint64_t seed = 1; seed <= 6; ++seed) RunProgram(GetParam(), seed);
}

INSTANTIATE_TEST_SUITE_P(Machines, RandomProgramTest,
                         testing::Values(ProgramCase{"X86", ZoneSet::kX86_32, 10, 1, 128, 0, 3000, 400},
                                         ProgramCase{"X86Short", ZoneSet::kX86_32, 10, 1, 32, 0, 3000, 100000},
                                         ProgramCase{"PaeTwoCpus", ZoneSet::kX86_32, 9, 2, 128, 0, 3000, 400},
                                         ProgramCase{"NoHighmem", ZoneSet::kX86_32LowMem, 10, 1, 64, 0, 3000, 100000},
                                         ProgramCase{"Arm64", ZoneSet::kArm64, 9, 4, 128, 0, 3000, 400},
                                         ProgramCase{"Arm64Cma", ZoneSet::kArm64, 9, 2, 64, 16, 3000, 100000}),
                         [](const auto& test) { return test.param.name; });

// A million requests, memory gone again and again: a frame belongs to one holder, and what is not there is refused.
TEST(LongProgramTest, AMillionRequestsGiveNothingTwice) {
  const ProgramCase c{"", ZoneSet::kX86_32, 10, 2, 48, 0, 0, 0};
  Tracer tracer;
  BuddyMemory memory(ConfigOf(c), tracer);
  const uint64_t managed = memory.managed_pages().raw();
  Random random(77);
  std::vector<uint8_t> taken(memory.end_pfn().raw());
  std::vector<Held> held;
  uint64_t taken_pages = 0;
  uint64_t refused = 0;
  bool filling = true;
  for (int step = 0; step < 1'000'000; ++step) {
    if (step % 1000 == 0) memory.SetCurrentCpu(static_cast<int>(random.Below(2)));
    if (held.empty() || random.Below(100) < (filling ? 70 : 30)) {
      const PageOrder order(random.Below(8) != 0 ? 0 : static_cast<int>(random.Below(6)));
      const Gfp gfp = random.Below(2) == 0 ? kGfpHighuserMovable : kGfpKernel;
      const std::optional<Pfn> got = memory.AllocPages(gfp, order);
      if (!got) {
        ++refused;
        filling = false;
        // Nobody can have what is taken.
        ASSERT_LT(taken_pages, managed);
        continue;
      }
      for (uint64_t i = 0; i < order.pages().raw(); ++i) ASSERT_EQ(taken[got->raw() + i]++, 0) << "handed out twice";
      taken_pages += order.pages().raw();
      held.push_back({*got, order});
    } else {
      const size_t i = random.Below(held.size());
      for (uint64_t page = 0; page < held[i].order.pages().raw(); ++page) --taken[held[i].pfn.raw() + page];
      taken_pages -= held[i].order.pages().raw();
      memory.FreePages(held[i].pfn, held[i].order);
      held[i] = held.back();
      held.pop_back();
      filling = filling || taken_pages < managed / 4;
    }
    if (step % 100'000 == 99'999) {
      std::vector<std::string> problems;
      memory.CheckInvariants(&problems);
      ASSERT_THAT(problems, testing::IsEmpty()) << "step " << step;
    }
  }
  EXPECT_GT(refused, 10u);
}

TEST(StateHashTest, SameProgramSameHash) {
  const ProgramCase c{"", ZoneSet::kArm64, 9, 2, 64, 16, 0, 0};
  Tracer tracer;
  BuddyMemory a(ConfigOf(c), tracer);
  BuddyMemory b(ConfigOf(c), tracer);
  const auto hash = [](const BuddyMemory& memory) {
    StateHasher hasher;
    memory.StateHash(hasher);
    return hasher.value();
  };
  EXPECT_EQ(hash(a), hash(b));
  for (uint32_t pfn = 0; pfn < 64 * kMiB; pfn += 511) (void)b.frame(Pfn(pfn));  // Looking changes nothing.
  EXPECT_EQ(hash(a), hash(b));
  for (int i = 0; i < 500; ++i)
    EXPECT_EQ(a.AllocPages(kGfpHighuserMovable, PageOrder(i % 5)), b.AllocPages(kGfpHighuserMovable, PageOrder(i % 5)));
  EXPECT_EQ(hash(a), hash(b));
  (void)b.AllocPages(kGfpKernel, PageOrder(0));
  EXPECT_NE(hash(a), hash(b));
}

}  // namespace
}  // namespace mmlab

#include "server/files/swap_areas.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/base/explanation.h"
#include "server/base/random.h"
#include "server/physical/page_allocator.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

constexpr uint64_t kMostSlots = uint64_t{1} << 23;

class SwapAreasTest : public testing::Test {
 protected:
  SwapAreasTest() : memory(MakeTestMemory(1024, tracer)), swap(*memory, memory->vm_stat(), tracer) {}

  void ExpectSound(const SwapCounts& counts = {}) {
    std::vector<std::string> violations;
    swap.CheckInvariants(counts, &violations);
    EXPECT_EQ(violations, std::vector<std::string>());
  }
  SwapEntry Take() {
    const std::optional<SwapEntry> entry = swap.Allocate(0);
    EXPECT_TRUE(entry.has_value());
    swap.Duplicate(*entry);
    return *entry;
  }

  Tracer tracer;
  std::unique_ptr<BuddyMemory> memory;
  SwapAreas swap;
};

TEST_F(SwapAreasTest, AreasHaveTheirPrioritiesAndRefuseWhatIsNoArea) {
  EXPECT_EQ(swap.Add("/dev/a", false, 1, kMostSlots, std::nullopt), Errno::kEINVAL);
  EXPECT_EQ(swap.Add("/dev/a", false, 1000, kMostSlots, std::nullopt), Errno::kOk);
  EXPECT_EQ(swap.Add("/dev/a", false, 1000, kMostSlots, std::nullopt), Errno::kEBUSY);
  EXPECT_EQ(swap.Add("/b", true, 2000, kMostSlots, std::nullopt), Errno::kOk);
  EXPECT_EQ(swap.Add("/c", true, 3000, 600, 7), Errno::kOk);
  EXPECT_EQ(swap.total_pages(), 999u + 1999 + 599);
  EXPECT_EQ(swap.free_pages(), swap.total_pages());
  const std::vector<SwapAreaView> views = swap.Views();
  ASSERT_EQ(views.size(), 3u);
  EXPECT_EQ(views[0].priority, -2);
  EXPECT_EQ(views[1].priority, -3);
  EXPECT_EQ(views[2].priority, 7);
  EXPECT_EQ(views[2].size, PageCount(599));
  // With the first of them gone, the next without a priority of its own takes its place.
  swap.Stop(0);
  swap.Remove(0);
  EXPECT_EQ(swap.Views()[0].priority, -2);
  EXPECT_EQ(swap.Add("/d", true, 100, kMostSlots, std::nullopt), Errno::kOk);
  EXPECT_EQ(swap.Views()[0].priority, -3);
  for (int i = 0; i < 26; ++i) EXPECT_EQ(swap.Add(std::to_string(i), true, 100, kMostSlots, 1), Errno::kOk);
  EXPECT_EQ(swap.Add("/z", true, 100, kMostSlots, 1), Errno::kEPERM);
  ExpectSound();
}

TEST_F(SwapAreasTest, SlotsComeOneAfterTheOtherFromTheHighestPriority) {
  ASSERT_EQ(swap.Add("/low", false, 1000, kMostSlots, 1), Errno::kOk);
  ASSERT_EQ(swap.Add("/high", false, 11, kMostSlots, 5), Errno::kOk);
  SwapCounts counts;
  for (uint32_t offset = 1; offset <= 10; ++offset) {
    EXPECT_EQ(Take(), (SwapEntry{1, offset}));
    counts[{1, offset}] = 1;
  }
  for (uint32_t offset = 1; offset <= 20; ++offset) {
    EXPECT_EQ(Take(), (SwapEntry{0, offset}));
    counts[{0, offset}] = 1;
  }
  ExpectSound(counts);
}

TEST_F(SwapAreasTest, AreasOfOnePriorityTakeTurnsByTheBatch) {
  ASSERT_EQ(swap.Add("/a", false, 1000, kMostSlots, 1), Errno::kOk);
  ASSERT_EQ(swap.Add("/b", false, 1000, kMostSlots, 1), Errno::kOk);
  std::vector<uint32_t> areas;
  for (int i = 0; i < 256; ++i) areas.push_back(Take().area);
  for (size_t i = 0; i < areas.size(); ++i) EXPECT_EQ(areas[i], i / 64 % 2) << i;
}

TEST_F(SwapAreasTest, ANewRunOfSlotsIsLookedForFromTheStart) {
  ASSERT_EQ(swap.Add("/a", false, 4096, kMostSlots, 1), Errno::kOk);
  std::vector<SwapEntry> taken;
  for (int i = 0; i < 1024; ++i) taken.push_back(Take());
  for (int i = 0; i < 1024; ++i) EXPECT_EQ(taken[static_cast<size_t>(i)].offset, static_cast<uint32_t>(i) + 1);
  // The first 300 slots are free again, and 64 of others: the next run of 256 starts at the first slot.
  for (size_t i = 0; i < 300; ++i) swap.Free(taken[i]);
  for (size_t i = 400; i < 500; ++i) swap.Free(taken[i]);
  EXPECT_EQ(Take().offset, 1u);
}

TEST_F(SwapAreasTest, ThePageInTheCacheKeepsItsSlotUntilSomebodyFreesIt) {
  ASSERT_EQ(swap.Add("/a", false, 100, kMostSlots, std::nullopt), Errno::kOk);
  const Pfn pfn = *memory->AllocPages(kGfpUser, PageOrder(0));
  const uint32_t word = 0xdeadbeef;
  memory->contents().Write(pfn, 100, &word, sizeof(word));
  const SwapEntry entry = *swap.Allocate(0);
  swap.AddToCache(pfn, entry);
  swap.Duplicate(entry);
  swap.Write(pfn);
  EXPECT_EQ(memory->vm_stat().Get(NodeStat::kNrSwapcached), 1);
  EXPECT_EQ(swap.CachedPage(entry), pfn);
  EXPECT_FALSE(swap.TryToFree(pfn)) << "somebody refers to the slot";
  ExpectSound({{{entry.area, entry.offset}, 1}});
  memory->contents().Clear(pfn);
  swap.Evict(pfn, 0x123);
  EXPECT_EQ(swap.CachedPage(entry), std::nullopt);
  EXPECT_EQ(swap.TakeShadow(entry), 0x123u);
  swap.Read(entry, pfn);
  uint32_t back = 0;
  memory->contents().Read(pfn, 100, &back, sizeof(back));
  EXPECT_EQ(back, word);
  swap.AddToCache(pfn, entry);
  swap.Free(entry);
  EXPECT_TRUE(swap.TryToFree(pfn));
  EXPECT_FALSE(swap.InUse(entry));
  ExpectSound();
}

TEST_F(SwapAreasTest, TheWindowGrowsWithHitsAndShrinksSlowly) {
  ASSERT_EQ(swap.Add("/a", false, 1000, kMostSlots, std::nullopt), Errno::kOk);
  const auto window = [&](uint32_t offset, int hits) {
    for (int i = 0; i < hits; ++i) swap.NoteReadaheadHit();
    return swap.ReadaheadWindow({0, offset}, 3);
  };
  EXPECT_EQ(window(100, 0), 8u);  // Four hits are assumed at first.
  EXPECT_EQ(window(500, 0), 4u);
  EXPECT_EQ(window(300, 0), 2u);
  EXPECT_EQ(window(700, 0), 1u);
  EXPECT_EQ(window(701, 0), 2u);  // A neighbour of the last one.
  EXPECT_EQ(window(800, 1), 4u);
  EXPECT_EQ(window(900, 5), 8u);
  EXPECT_EQ(swap.ReadaheadWindow({0, 1}, 0), 1u);
}

TEST_F(SwapAreasTest, RandomUseLosesNoSlot) {
  ASSERT_EQ(swap.Add("/a", false, 700, kMostSlots, 3), Errno::kOk);
  ASSERT_EQ(swap.Add("/b", false, 1500, kMostSlots, 3), Errno::kOk);
  Random random(7);
  SwapCounts counts;
  for (int step = 0; step < 30000; ++step) {
    if (random.Below(2100) > counts.size()) {
      const std::optional<SwapEntry> entry = swap.Allocate(0);
      ASSERT_TRUE(entry.has_value());
      ASSERT_TRUE(counts.emplace(std::pair(entry->area, entry->offset), 1).second) << "handed out twice";
      swap.Duplicate(*entry);
    } else {
      auto it = counts.lower_bound({static_cast<uint32_t>(random.Below(2)), static_cast<uint32_t>(random.Below(1500))});
      if (it == counts.end()) it = counts.begin();
      swap.Free({it->first.first, it->first.second});
      counts.erase(it);
    }
    if (step % 3000 == 0) ExpectSound(counts);
  }
  ExpectSound(counts);
}

}  // namespace
}  // namespace mmlab

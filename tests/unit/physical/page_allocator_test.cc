// Single rules of the page allocator that other rooms rely on. That it is Linux's allocator is shown by
// tests/conformance/kernel_replay_test.

#include "server/physical/page_allocator.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

using testing::Contains;
using testing::HasSubstr;

std::vector<std::string> Problems(const BuddyMemory& memory) {
  std::vector<std::string> problems;
  memory.CheckInvariants(&problems);
  return problems;
}

class PageAllocatorTest : public testing::Test {
 protected:
  Tracer tracer_;
  std::unique_ptr<BuddyMemory> memory_ = MakeTestMemory(4096, tracer_);
};

TEST_F(PageAllocatorTest, FreshFrameIsClean) {
  const Pfn pfn = *memory_->AllocPages(kGfpUser, PageOrder(2));
  EXPECT_EQ(pfn.raw() % 4, 0u);
  Frame& frame = memory_->frame(pfn);
  EXPECT_EQ(frame.state, FrameState::kKernel);
  EXPECT_EQ(frame.refcount, 1);
  EXPECT_EQ(frame.order, 2);
  frame.state = FrameState::kAnon;
  frame.flags = kPgReferenced | kPgDirty;
  memory_->lru().Add(pfn);
  frame.mapcount = 3;
  frame.index = 77;
  frame.mapping = 9;
  const uint32_t word = 5;
  memory_->contents().Write(pfn + PageCount(3), 8, &word, 4);
  memory_->FreePages(pfn, PageOrder(2));
  EXPECT_EQ(*memory_->AllocPages(kGfpUser, PageOrder(2)), pfn);  // Last in, first out.
  EXPECT_EQ(frame.flags, 0u);
  EXPECT_EQ(memory_->vm_stat().Get(NodeStat::kNrInactiveFile), 0);
  EXPECT_EQ(frame.mapcount, 0);
  EXPECT_EQ(uint64_t{frame.index}, 0u);
  EXPECT_EQ(uint64_t{frame.mapping}, 0u);
  EXPECT_EQ(memory_->contents().BytesIfAny(pfn + PageCount(3)), nullptr);
}

TEST_F(PageAllocatorTest, WrongFreesAreBrokenPromises) {
  const Pfn pfn = *memory_->AllocPages(kGfpKernel, PageOrder(1));
  EXPECT_THROW(memory_->FreePages(pfn, PageOrder(0)), CheckFailure);
  EXPECT_THROW(memory_->FreePages(pfn + PageCount(1), PageOrder(0)), CheckFailure);
  EXPECT_THROW(memory_->FreePages(Pfn(1023), PageOrder(0)), CheckFailure);  // Reserved.
  memory_->FreePages(pfn, PageOrder(1));
  EXPECT_THROW(memory_->FreePages(pfn, PageOrder(1)), CheckFailure);  // Twice.
  EXPECT_THAT(Problems(*memory_), testing::IsEmpty());
}

TEST_F(PageAllocatorTest, CompoundPagesSayWhichFrameLeads) {
  const Pfn pfn = *memory_->AllocPages(kGfpUser | kGfpComp, PageOrder(3));
  EXPECT_EQ(memory_->frame(pfn).flags, kPgHead);
  EXPECT_EQ(memory_->frame(pfn + PageCount(7)).flags, kPgTail);
  EXPECT_EQ(memory_->HeadOf(pfn + PageCount(7)), pfn);
  memory_->FreePages(pfn, PageOrder(3));
  EXPECT_EQ(memory_->frame(pfn + PageCount(7)).flags, 0u);
}

TEST_F(PageAllocatorTest, ExactGivesTheTailBackAtOnce) {
  const PageCount before = memory_->free_pages();
  const Pfn first = *memory_->AllocPagesExact(Bytes(5 * 4096 + 1), kGfpKernel);
  memory_->FoldCpuCounters();
  EXPECT_EQ(before - memory_->free_pages(), PageCount(6));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(memory_->frame(first + PageCount(i)).refcount, 1);
  memory_->FreePagesExact(first, Bytes(5 * 4096 + 1));
  EXPECT_FALSE(memory_->AllocPagesExact(Bytes(4096 << kMaxOrder) + Bytes(1), kGfpKernel).has_value());
  EXPECT_THAT(Problems(*memory_), testing::IsEmpty());
}

TEST_F(PageAllocatorTest, SplitPagesAreFreedOneByOne) {
  const Pfn pfn = *memory_->AllocPages(kGfpKernel, PageOrder(4));
  memory_->SplitPage(pfn, PageOrder(4));
  for (int i = 15; i >= 0; --i) memory_->FreePages(pfn + PageCount(i), PageOrder(0));
  EXPECT_THAT(Problems(*memory_), testing::IsEmpty());
}

TEST_F(PageAllocatorTest, BulkTakesOnlyWhatThereIs) {
  std::vector<Pfn> pages(5000);
  EXPECT_LE(memory_->AllocPagesBulk(kGfpKernel, absl::MakeSpan(pages)), 4096u);
  pages.resize(100);
  EXPECT_EQ(memory_->AllocPagesBulk(kGfpKernel, absl::MakeSpan(pages)), 100u);
  memory_->FreePageList(pages);
  EXPECT_THAT(Problems(*memory_), testing::IsEmpty());
}

TEST_F(PageAllocatorTest, CountsEvents) {
  const Pfn pfn = *memory_->AllocPages(kGfpKernel, PageOrder(3));
  memory_->FreePages(pfn, PageOrder(3));
  EXPECT_EQ(memory_->vm_stat().Get(VmEvent::kPgallocNormal), 8u);
  EXPECT_EQ(memory_->vm_stat().Get(VmEvent::kPgfree), 8u);
}

TEST_F(PageAllocatorTest, CountsFramesByState) {
  const Pfn anon = *memory_->AllocPages(kGfpUser, PageOrder(2));
  memory_->frame(anon).state = FrameState::kAnon;
  (void)memory_->AllocPages(kGfpKernel, PageOrder(0));
  const std::array<uint64_t, kFrameStates> counts = memory_->FrameCounts();
  EXPECT_EQ(counts[static_cast<size_t>(FrameState::kAnon)], 4u);
  EXPECT_EQ(counts[static_cast<size_t>(FrameState::kKernel)], 1u);
  EXPECT_EQ(counts[static_cast<size_t>(FrameState::kReserved)], 1u);
  uint64_t sum = 0;
  for (const uint64_t count : counts) sum += count;
  EXPECT_EQ(sum, 4097u);
}

TEST_F(PageAllocatorTest, SysctlsTakeEffectAtOnce) {
  memory_->SetMinFreeKbytes(1024);
  EXPECT_EQ(memory_->zones()[1].wmark_min, 256u);
  EXPECT_EQ(memory_->zones()[1].wmark_low, 256u + 64);
  EXPECT_EQ(memory_->zones()[1].pcp[0].high, 320u);
  memory_->SetWatermarkScaleFactor(1000);
  EXPECT_EQ(memory_->zones()[1].wmark_low, 256u + 409);
}

std::string Why(const Explanation& explanation) { return ExplanationText(explanation); }

TEST_F(PageAllocatorTest, SaysWhereAFrameCameFromAndWent) {
  Explanation first;
  tracer_.Explain(&first);
  const Pfn pfn = *memory_->AllocPages(kGfpKernel, PageOrder(0));
  EXPECT_THAT(Why(first), HasSubstr("zone Normal is above its low watermark"));
  EXPECT_THAT(Why(first), HasSubstr("stole from another migrate type"));
  EXPECT_THAT(Why(first), HasSubstr("split a larger free block"));
  EXPECT_THAT(Why(first), HasSubstr("took the head of a per-CPU list"));
  Explanation second;
  tracer_.Explain(&second);
  memory_->FreePages(pfn, PageOrder(0));
  EXPECT_THAT(Why(second), HasSubstr("went to the head of a per-CPU list"));
  Explanation third;
  tracer_.Explain(&third);
  memory_->DrainLocalPages();
  EXPECT_THAT(Why(third), HasSubstr("merged with its free buddies"));
}

TEST_F(PageAllocatorTest, SaysWhyItFailed) {
  memory_->SetMinFreeKbytes(16384);
  Explanation why;
  tracer_.Explain(&why);
  EXPECT_FALSE(memory_->AllocPages(kGfpNowait, PageOrder(0)).has_value());
  EXPECT_THAT(Why(why), HasSubstr("zone Normal is not above its low watermark"));
  EXPECT_THAT(Why(why), HasSubstr("zone Normal is not above its min watermark"));
  EXPECT_THAT(Why(why), HasSubstr("no zone could give the pages"));
}

TEST_F(PageAllocatorTest, AskingWhyChangesNothing) {
  Tracer other_tracer;
  const auto other = MakeTestMemory(4096, other_tracer);
  Explanation why;
  tracer_.Explain(&why);
  std::vector<Pfn> held;
  for (int i = 0; i < 3000; ++i) {
    if (i % 3 == 2) {
      memory_->FreePages(held.back(), PageOrder(0));
      other->FreePages(held.back(), PageOrder(0));
      held.pop_back();
      continue;
    }
    const std::optional<Pfn> pfn = memory_->AllocPages(i % 2 == 0 ? kGfpHighuserMovable : kGfpKernel, PageOrder(0));
    ASSERT_EQ(pfn, other->AllocPages(i % 2 == 0 ? kGfpHighuserMovable : kGfpKernel, PageOrder(0)));
    held.push_back(*pfn);
  }
  StateHasher a;
  StateHasher b;
  memory_->StateHash(a);
  other->StateHash(b);
  EXPECT_EQ(a.value(), b.value());
}

TEST(ZoneListTest, RequestsGoToTheirZones) {
  struct Case {
    ZoneSet zones;
    Gfp gfp;
    const char* zone;
  };
  const Case cases[] = {
      {ZoneSet::kX86_32, kGfpKernel, "Normal"},
      {ZoneSet::kX86_32, kGfpHighuserMovable, "HighMem"},
      {ZoneSet::kX86_32, kGfpHighuser, "HighMem"},
      {ZoneSet::kX86_32, kGfpKernel | kGfpZoneDma, "DMA"},
      {ZoneSet::kX86_32, kGfpKernel | kGfpZoneDma32, "Normal"},
      {ZoneSet::kX86_32LowMem, kGfpHighuser, "Normal"},
      {ZoneSet::kArm64, kGfpHighuserMovable, "Normal"},
      {ZoneSet::kArm64, kGfpKernel | kGfpZoneDma32, "DMA"},
  };
  for (const Case& c : cases) {
    PhysicalConfig config;
    config.zones = c.zones;
    config.pageblock_order = 9;
    config.ram = {{Pfn(0), Pfn(65536)}};
    config.zone_end = {Pfn(16384), Pfn(16384), Pfn(c.zones == ZoneSet::kX86_32 ? 32768 : 65536), Pfn(65536), Pfn(65536)};
    Tracer tracer;
    BuddyMemory memory(config, tracer);
    const Pfn pfn = *memory.AllocPages(c.gfp, PageOrder(0));
    EXPECT_EQ(memory.zones()[memory.frame(pfn).zone].name(), c.zone) << c.gfp;
  }
}

TEST(VmStatTest, NamesAreTheKernels) {
  EXPECT_EQ(StatName(ZoneStat::kNrFreeCma), "nr_free_cma");
  EXPECT_EQ(StatName(NodeStat::kNrPageTablePages), "nr_page_table_pages");
  EXPECT_EQ(StatName(VmEvent::kPgmajfault), "pgmajfault");
  EXPECT_EQ(StatName(NumaStat::kNumaHit), "numa_hit");
  EXPECT_EQ(StatAvailabilityOf(VmEvent::kPgallocDma32), kStatOnArm64);
  EXPECT_EQ(StatAvailabilityOf(VmEvent::kPgallocHigh), kStatOnX86);
  int on_x86 = 0;
  for (int i = 0; i < kVmEvents; ++i) on_x86 += (StatAvailabilityOf(static_cast<VmEvent>(i)) & kStatOnX86) != 0;
  EXPECT_EQ(on_x86 + kZoneStats + 3 + 41,
            155);  // The lines of /proc/vmstat there: events, zone and node counters, two dirty thresholds, nr_unstable.
}

}  // namespace
}  // namespace mmlab

#include "server/kernel/vmalloc.h"

#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/base/random.h"
#include "server/kernel/kernel_page_tables.h"
#include "server/kernel/kmap.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;

TEST(FreeAreaTreeTest, AgreesWithASortedMapUnderRandomOperations) {
  for (const uint64_t seed : {1, 2, 3, 4}) {
    SCOPED_TRACE(seed);
    Random random(seed);
    FreeAreaTree tree;
    tree.Release(kPage, 4000 * kPage);
    std::map<uint64_t, uint64_t> taken;  // Start -> end.
    for (int step = 0; step < 4000; ++step) {
      if (random.Below(5) < 3) {
        const uint64_t size = (1 + random.Below(20)) * kPage;
        // The lowest gap that fits is where a request of page alignment goes.
        uint64_t lowest = kPage;
        for (const auto& [start, end] : taken) {
          if (start - lowest >= size) break;
          lowest = end;
        }
        const std::optional<uint64_t> at = tree.Take(size, 1, kPage, 4000 * kPage, kPage, nullptr);
        ASSERT_EQ(at.has_value(), lowest + size <= 4000 * kPage);
        if (!at) continue;
        ASSERT_EQ(*at, lowest);
        taken[*at] = *at + size;
      } else if (!taken.empty()) {
        auto victim = std::next(taken.begin(), static_cast<ptrdiff_t>(random.Below(taken.size())));
        tree.Release(victim->first, victim->second);
        taken.erase(victim);
      }
      std::vector<std::string> problems;
      tree.CheckInvariants(&problems);
      ASSERT_TRUE(problems.empty()) << problems[0];
    }
  }
}

// A red-black tree of n nodes is at most 2 log2(n + 1) high; the search goes down once, and back up to where it can turn right.
TEST(FreeAreaTreeTest, ASearchVisitsALogarithmOfTheRanges) {
  std::vector<int> most;
  for (const uint64_t holes : {uint64_t{100}, uint64_t{10000}, uint64_t{1000000}}) {
    FreeAreaTree tree;
    // Holes of one page, every fourth of two, and behind them a large range.
    for (uint64_t i = 0; i < holes; ++i) tree.Release(i * 4 * kPage, i * 4 * kPage + (i % 4 == 3 ? 2 : 1) * kPage);
    tree.Release(holes * 4 * kPage, (holes * 4 + 1000) * kPage);
    int visited = 0;
    for (const uint64_t pages : {1u, 2u, 3u, 500u}) {
      for (const uint64_t low : {uint64_t{0}, holes / 3 * 4 * kPage + 1, holes * 4 * kPage - 1}) {
        FreeAreaTree::Search search;
        // With a lower limit the kernel's search may pass by a range that would do.
        EXPECT_TRUE(tree.Take(pages * kPage, kPage, low, ~uint64_t{0}, kPage, &search).has_value() || low != 0);
        visited = std::max(visited, search.nodes_visited);
      }
    }
    EXPECT_LE(visited, 2 * 2 * static_cast<int>(std::bit_width(holes + 1))) << holes << " holes";
    most.push_back(visited);
  }
  // A hundred times the ranges cost a few steps more, not a hundred times as many.
  EXPECT_LE(most[1], most[0] + 2 * 14);
  EXPECT_LE(most[2], most[1] + 2 * 14);
}

TEST(FreeAreaTreeTest, RefusesWhatIsNoTree) {
  FreeAreaTree tree;
  const FreeAreaTree::RecordedNode root{10 * kPage, 11 * kPage, false, true, false};
  EXPECT_FALSE(tree.Load(std::vector<FreeAreaTree::RecordedNode>{root}));  // A child is missing.
  EXPECT_FALSE(tree.Load(std::vector<FreeAreaTree::RecordedNode>{root, {20 * kPage, 21 * kPage, true, false, false}}));  // Out of order.
  EXPECT_TRUE(tree.Load(std::vector<FreeAreaTree::RecordedNode>{root, {2 * kPage, 3 * kPage, true, false, false}}));
}

// A small machine's kernel addresses: 64 MiB of them over 4096 frames.
class VmallocTest : public testing::TestWithParam<LayoutKind> {
 protected:
  VmallocTest() : memory_(MakeTestMemory(4096, tracer_)), tables_(GetLayout(GetParam()), *memory_, nullptr) {
    const bool arm64 = GetParam() == LayoutKind::kArm64;
    config_.start = VirtAddr(arm64 ? 0xffff800008000000 : 0xf8000000);
    config_.end = VirtAddr(config_.start.raw() + (64 << 20));
    config_.last_address = arm64 ? UINT64_MAX : UINT32_MAX;
    config_.word_bytes = arm64 ? 8 : 4;
    config_.total_ram = PageCount(4096);
    config_.system_ram = {{Pfn(1024), Pfn(5120)}};
    config_.cpus = 2;
    vmalloc_ = std::make_unique<Vmalloc>(config_, memory_.get(), &tables_, tracer_);
  }

  void ExpectSound() {
    std::vector<std::string> problems;
    vmalloc_->CheckInvariants(&problems);
    memory_->CheckInvariants(&problems);
    ASSERT_TRUE(problems.empty()) << problems[0];
  }
  uint64_t Frames(FrameState state) const { return memory_->FrameCounts()[static_cast<size_t>(state)]; }
  SysResult<VmallocOutcome> Alloc(uint64_t bytes, uint64_t align = 1) {
    return vmalloc_->Alloc({Bytes(bytes), align, VirtAddr(), VirtAddr(), kGfpKernel, 0, "test"});
  }

  Tracer tracer_;
  std::unique_ptr<BuddyMemory> memory_;
  KernelPageTables tables_;
  VmallocConfig config_;
  std::unique_ptr<Vmalloc> vmalloc_;
};

TEST_P(VmallocTest, AnAreaOwnsMappedFramesAndAGuardPage) {
  const SysResult<VmallocOutcome> area = Alloc(3 * kPage - 5);
  ASSERT_TRUE(area.ok());
  EXPECT_EQ(area.value().address, config_.start);
  EXPECT_EQ(area.value().area.length(), Bytes(4 * kPage));
  EXPECT_EQ(vmalloc_->nr_vmalloc_pages(), 3u);
  EXPECT_TRUE(tables_.Translate(config_.start + Bytes(2 * kPage + 7), nullptr).has_value());
  EXPECT_FALSE(tables_.Translate(config_.start + Bytes(3 * kPage), nullptr).has_value());
  ExpectSound();
  EXPECT_EQ(Frames(FrameState::kVmalloc), 3u);
  ASSERT_TRUE(vmalloc_->Free(config_.start + Bytes(kPage)).ok());  // Any of its pages names it.
  EXPECT_EQ(Frames(FrameState::kVmalloc), 0u);
  EXPECT_EQ(vmalloc_->lazy_pages(), PageCount(4));
  EXPECT_FALSE(tables_.Translate(config_.start, nullptr).has_value());
  EXPECT_EQ(Alloc(kPage).value().address, config_.start + Bytes(4 * kPage));  // What was freed waits for a purge.
  vmalloc_->UnmapAliases();
  EXPECT_EQ(Alloc(kPage).value().address, config_.start);
  ExpectSound();
}

TEST_P(VmallocTest, MemoryThatIsNotThereLeavesNothingBehind) {
  EXPECT_EQ(Alloc(4090 * kPage).error(), Errno::kENOMEM);  // As many as there are, but not with the tables.
  EXPECT_EQ(Frames(FrameState::kVmalloc), 0u);
  EXPECT_EQ(Frames(FrameState::kKernel), tables_.tables());
  EXPECT_EQ(vmalloc_->nr_vmalloc_pages(), 0u);
  EXPECT_TRUE(vmalloc_->areas().empty());
  ExpectSound();
}

TEST_P(VmallocTest, WhatTheKernelWouldWarnOfIsAnErrno) {
  EXPECT_EQ(Alloc(0).error(), Errno::kEINVAL);
  EXPECT_EQ(Alloc(kPage, 3).error(), Errno::kEINVAL);
  EXPECT_EQ(Alloc(UINT64_MAX).error(), Errno::kENOMEM);
  EXPECT_EQ(vmalloc_->GetArea(Bytes(UINT64_MAX), 0, "").error(), Errno::kENOMEM);
  EXPECT_EQ(vmalloc_->GetArea(Bytes(0), 0, "").error(), Errno::kEINVAL);
  EXPECT_EQ(vmalloc_->Free(VirtAddr(0)).error(), Errno::kEINVAL);
  EXPECT_EQ(vmalloc_->Free(config_.start + Bytes(1)).error(), Errno::kEINVAL);
  EXPECT_EQ(vmalloc_->Free(VirtAddr(UINT64_MAX & ~kPage)).error(), Errno::kEINVAL);
  EXPECT_EQ(vmalloc_->Ioremap(PhysAddr(UINT64_MAX), Bytes(UINT64_MAX), "").error(), Errno::kEINVAL);
  EXPECT_EQ(vmalloc_->Ioremap(PhysAddr(1100 * kPage), Bytes(1), "").error(), Errno::kEINVAL);  // RAM.
  EXPECT_EQ(vmalloc_->MapRam({}, 0).error(), Errno::kEINVAL);
  EXPECT_EQ(vmalloc_->UnmapRam(config_.start, PageCount(UINT64_MAX)).error(), Errno::kEINVAL);
  EXPECT_EQ(vmalloc_->Map({}, 0, "").error(), Errno::kEINVAL);
  ExpectSound();
}

TEST_P(VmallocTest, DevicesAreMappedByTheLargestEntriesThatFit) {
  const SysResult<VmallocOutcome> device = vmalloc_->Ioremap(PhysAddr(0xc0000000), Bytes(8 << 20), "device");
  ASSERT_TRUE(device.ok());
  EXPECT_EQ(tables_.Translate(device.value().address + Bytes(0x765432), nullptr), PhysAddr(0xc0765432));
  EXPECT_LE(tables_.tables(), 3u);  // No table of the lowest level.
  ASSERT_TRUE(vmalloc_->Iounmap(device.value().address).ok());
  EXPECT_FALSE(tables_.Translate(device.value().address, nullptr).has_value());
  ExpectSound();
}

TEST_P(VmallocTest, RandomOperationsKeepEveryPromise) {
  Random random(7);
  std::vector<VirtAddr> areas;
  std::vector<std::pair<VirtAddr, uint64_t>> rams;
  for (int step = 0; step < 3000; ++step) {
    const uint64_t what = random.Below(10);
    if (what < 3) {
      if (const auto got = Alloc(1 + random.Below(100 * kPage), uint64_t{1} << random.Below(18)); got.ok())
        areas.push_back(got.value().address);
    } else if (what < 4) {
      if (const auto got = vmalloc_->GetArea(Bytes(1 + random.Below(3 << 20)), random.Below(2) == 0 ? kVmIoremap : kVmMap, ""); got.ok()) {
        areas.push_back(got.value().address);
      }
    } else if (what < 5) {
      const std::vector<Pfn> pages(1 + random.Below(100), memory_->zero_frame());
      if (const auto got = vmalloc_->MapRam(pages, static_cast<int>(random.Below(2))); got.ok()) {
        rams.emplace_back(got.value().address, pages.size());
      }
    } else if (what < 6 && !rams.empty()) {
      std::swap(rams[random.Below(rams.size())], rams.back());
      ASSERT_TRUE(vmalloc_->UnmapRam(rams.back().first, PageCount(rams.back().second)).ok());
      rams.pop_back();
    } else if (what == 9 && random.Below(20) == 0) {
      vmalloc_->UnmapAliases();
    } else if (!areas.empty()) {
      std::swap(areas[random.Below(areas.size())], areas.back());
      ASSERT_TRUE(vmalloc_->Free(areas.back()).ok());
      areas.pop_back();
    }
    if (step % 50 == 0) ExpectSound();
  }
  for (const VirtAddr area : areas) ASSERT_TRUE(vmalloc_->Free(area).ok());
  for (const auto& [address, pages] : rams) ASSERT_TRUE(vmalloc_->UnmapRam(address, PageCount(pages)).ok());
  vmalloc_->UnmapAliases();
  EXPECT_EQ(vmalloc_->nr_vmalloc_pages(), 0u);
  EXPECT_TRUE(vmalloc_->areas().empty());
  EXPECT_EQ(vmalloc_->free_areas().size(), 1u);
  ExpectSound();
}

INSTANTIATE_TEST_SUITE_P(Layouts, VmallocTest, testing::Values(LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64),
                         [](const auto& test) { return std::string(GetLayout(test.param).name); });

class KmapTest : public testing::Test {
 protected:
  KmapTest()
      : kmap_({VirtAddr(0xc0000000), Pfn(100), Pfn(1000), VirtAddr(0xfec00000), 8, VirtAddr(0xfffbb000), 2, PageSize(12)}, nullptr,
              tracer_) {}
  Tracer tracer_;
  Kmap kmap_;
};

TEST_F(KmapTest, LowMemoryNeedsNoSlot) {
  EXPECT_EQ(kmap_.Map(Pfn(99)).value(), VirtAddr(0xc0063000));
  EXPECT_EQ(kmap_.Unmap(Pfn(99)), Errno::kOk);
  EXPECT_TRUE(kmap_.slots().empty());
}

TEST_F(KmapTest, WhenEverySlotHasAUserTheCallWouldSleep) {
  for (uint64_t i = 0; i < 8; ++i) EXPECT_TRUE(kmap_.Map(Pfn(200 + i)).ok());
  EXPECT_EQ(kmap_.Map(Pfn(300)).error(), Errno::kEAGAIN);
  EXPECT_EQ(kmap_.Map(Pfn(200)).value(), VirtAddr(0xfec01000));  // It has a slot.
  EXPECT_EQ(kmap_.Unmap(Pfn(203)), Errno::kOk);
  EXPECT_EQ(kmap_.Map(Pfn(300)).value(), VirtAddr(0xfec04000));
  EXPECT_EQ(kmap_.Unmap(Pfn(203)), Errno::kEINVAL);
  std::vector<std::string> problems;
  kmap_.CheckInvariants(&problems);
  EXPECT_TRUE(problems.empty());
}

TEST_F(KmapTest, LocalMappingsAreAStackOfEachCpu) {
  EXPECT_EQ(kmap_.MapLocal(Pfn(200), 0).value(), VirtAddr(0xfffbb000));
  EXPECT_EQ(kmap_.MapLocal(Pfn(200), 1).value(), VirtAddr(0xfffab000));
  EXPECT_EQ(kmap_.MapLocal(Pfn(201), 0).value(), VirtAddr(0xfffba000));
  EXPECT_EQ(kmap_.UnmapLocal(VirtAddr(0xfffbb000), 0), Errno::kEINVAL);
  EXPECT_EQ(kmap_.UnmapLocal(VirtAddr(0xfffba123), 0), Errno::kOk);
  EXPECT_EQ(kmap_.UnmapLocal(VirtAddr(0xfffbb000), 0), Errno::kOk);
  EXPECT_EQ(kmap_.UnmapLocal(VirtAddr(0xfffbb000), 0), Errno::kEINVAL);
  for (int i = 0; i < Kmap::kLocalSlots; ++i) EXPECT_TRUE(kmap_.MapLocal(Pfn(300), 0).ok());
  EXPECT_EQ(kmap_.MapLocal(Pfn(300), 0).error(), Errno::kEAGAIN);
  EXPECT_EQ(kmap_.MapLocal(Pfn(300), 2).error(), Errno::kEINVAL);
  EXPECT_EQ(kmap_.Map(Pfn(1000)).error(), Errno::kEINVAL);
}

}  // namespace
}  // namespace mmlab

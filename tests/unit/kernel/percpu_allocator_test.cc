#include "server/kernel/percpu_allocator.h"

#include <map>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/random.h"

namespace mmlab {
namespace {

constexpr uint32_t kPage = 4096;
constexpr uint32_t kUnit = 16 * kPage;
constexpr int kCpus = 2;

// Addresses and pages without a machine behind them.
class FakePages : public PercpuPages {
 public:
  std::optional<VirtAddr> GetArea(Bytes size) override {
    if (areas.size() >= most_areas) return std::nullopt;
    const VirtAddr start(next);
    next -= size.raw();
    areas.insert(start);
    return start;
  }
  void FreeArea(VirtAddr start) override { EXPECT_EQ(areas.erase(start), 1u); }
  bool Populate(VirtRange range) override {
    for (uint64_t at = range.start.raw(); at < range.end.raw(); at += kPage) {
      if (pages.size() == most_pages) {
        Depopulate({range.start, VirtAddr(at)});
        return false;
      }
      EXPECT_TRUE(pages.insert(at).second) << "mapped twice";
    }
    return true;
  }
  void Depopulate(VirtRange range) override {
    for (uint64_t at = range.start.raw(); at < range.end.raw(); at += kPage) EXPECT_EQ(pages.erase(at), 1u);
  }

  uint64_t next = 0xfff00000;
  size_t most_areas = 100;
  size_t most_pages = 10000;
  std::set<VirtAddr> areas;
  std::set<uint64_t> pages;
};

class PercpuAllocatorTest : public testing::Test {
 protected:
  PercpuAllocatorTest() {
    PercpuBootChunk first;
    first.base = VirtAddr(0xc0100000);
    first.start = 6 * kPage;
    first.end = kUnit;
    first.used = 2 * kPage + 100;
    first.populated = 16;
    first.immutable = true;
    percpu =
        std::make_unique<PercpuAllocator>(PercpuConfig{kCpus, kUnit, PageSize(12)}, std::vector<PercpuBootChunk>{first}, pages, tracer);
  }
  ~PercpuAllocatorTest() override { EXPECT_THAT(Problems(), testing::IsEmpty()); }
  std::vector<std::string> Problems() const {
    std::vector<std::string> problems;
    percpu->CheckInvariants(&problems);
    return problems;
  }
  uint64_t Alloc(uint64_t size, uint64_t align = 0, bool atomic = false) { return percpu->Alloc(size, align, atomic).value().raw(); }

  Tracer tracer;
  FakePages pages;
  std::unique_ptr<PercpuAllocator> percpu;
};

TEST_F(PercpuAllocatorTest, TheFirstPlaceThatFitsServes) {
  const uint64_t first = 0xc0100000 + 8 * kPage + 100;
  EXPECT_EQ(Alloc(1), first) << "in units of 4 bytes";
  EXPECT_EQ(Alloc(8, 64), first + 28) << "on a multiple of 64";
  EXPECT_EQ(Alloc(24), first + 4) << "before it, where it fits";
  EXPECT_EQ(Alloc(8, 8), first + 36);
  EXPECT_EQ(percpu->Of(VirtAddr(first), 1), VirtAddr(first + kUnit));
  EXPECT_EQ(percpu->Free(VirtAddr(first)), Errno::kOk);
  EXPECT_EQ(percpu->Free(VirtAddr(first)), Errno::kEINVAL) << "twice";
  EXPECT_EQ(percpu->Free(VirtAddr(first + 5)), Errno::kEINVAL) << "no start";
  EXPECT_EQ(Alloc(4), first);
  EXPECT_EQ(percpu->pages(), 16u * kCpus);
}

struct RefusedCase {
  uint64_t size;
  uint64_t align;
};
TEST_F(PercpuAllocatorTest, WhatTheKernelWarnsAboutIsRefused) {
  for (const RefusedCase& c : {RefusedCase{0, 4}, RefusedCase{32769, 4}, RefusedCase{~uint64_t{0}, 4}, RefusedCase{4, 12},
                               RefusedCase{4, 8192}, RefusedCase{4, ~uint64_t{0}}}) {
    EXPECT_EQ(percpu->Alloc(c.size, c.align, false).error(), Errno::kEINVAL) << c.size << " " << c.align;
  }
  EXPECT_TRUE(percpu->Alloc(32768, 4096, false).ok());
}

TEST_F(PercpuAllocatorTest, AFullChunkIsFollowedByANewOneWithAFewPages) {
  EXPECT_EQ(percpu->empty_populated_pages(), 7u);
  for (int i = 0; i < 5; ++i) EXPECT_LT(Alloc(kPage, kPage), 0xc0200000u);
  EXPECT_EQ(pages.areas.size(), 0u);
  EXPECT_EQ(percpu->empty_populated_pages(), 2u);
  Alloc(kPage, kPage);
  EXPECT_EQ(pages.areas.size(), 1u) << "less than two empty pages: the worker makes a chunk, and three pages there";
  EXPECT_EQ(percpu->empty_populated_pages(), 4u);
  EXPECT_EQ(pages.pages.size(), 3u * kCpus);
  EXPECT_EQ(percpu->pages(), 19u * kCpus);
  Alloc(kPage, kPage);
  EXPECT_EQ(Alloc(8 * kPage), 0xfff00000u) << "pages are made for it";
  EXPECT_GE(pages.pages.size(), 8u * kCpus);
}

TEST_F(PercpuAllocatorTest, AnAtomicRequestTakesOnlyPagesThatAreThere) {
  for (int i = 0; i < 7; ++i) Alloc(kPage, kPage);
  ASSERT_EQ(pages.areas.size(), 1u);
  EXPECT_EQ(percpu->Alloc(6 * kPage, 4, true).error(), Errno::kENOMEM);
  EXPECT_TRUE(percpu->Alloc(6 * kPage, 4, true).ok()) << "the worker made as many more as it ever does at once";
}

TEST_F(PercpuAllocatorTest, WithoutMemoryNothingChanges) {
  for (int i = 0; i < 6; ++i) Alloc(kPage, kPage);
  pages.most_pages = pages.pages.size();
  const auto before = percpu->Chunks();
  EXPECT_EQ(percpu->Alloc(8 * kPage, 4, false).error(), Errno::kENOMEM);
  EXPECT_EQ(percpu->Chunks().size(), before.size());
  pages.most_areas = 0;
  pages.most_pages = 10000;
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(percpu->Alloc(8 * kPage, 4, false).ok());
  EXPECT_EQ(percpu->Alloc(8 * kPage, 4, false).error(), Errno::kENOMEM) << "no addresses for one more chunk";
}

TEST_F(PercpuAllocatorTest, ChunksAndPagesGoWhenNobodyUsesThem) {
  std::vector<uint64_t> taken;
  for (int i = 0; i < 60; ++i) taken.push_back(Alloc(kPage, kPage));
  const size_t most = pages.pages.size();
  for (const uint64_t address : taken) EXPECT_EQ(percpu->Free(VirtAddr(address)), Errno::kOk);
  EXPECT_LT(pages.pages.size(), most / 2);
  EXPECT_LE(pages.areas.size(), 2u);
}

TEST_F(PercpuAllocatorTest, RandomRequestsNeverOverlap) {
  for (const uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE(seed);
    Random random(seed);
    std::map<uint64_t, uint64_t> held;  // Start -> end.
    for (int step = 0; step < 3000; ++step) {
      if (random.Below(5) < 3) {
        const uint64_t size = 1 + random.Below(random.Below(4) == 0 ? 32768 : 300);
        const uint64_t align = uint64_t{1} << random.Below(13);
        const SysResult<VirtAddr> address = percpu->Alloc(size, align, random.Below(4) == 0);
        if (!address.ok()) continue;
        const uint64_t start = address.value().raw();
        EXPECT_EQ(start % align, 0u);
        const auto next = held.lower_bound(start);
        EXPECT_TRUE(next == held.end() || next->first >= start + size);
        EXPECT_TRUE(next == held.begin() || std::prev(next)->second <= start);
        held[start] = start + size;
      } else if (!held.empty()) {
        const auto victim = std::next(held.begin(), static_cast<ptrdiff_t>(random.Below(held.size())));
        EXPECT_EQ(percpu->Free(VirtAddr(victim->first)), Errno::kOk);
        held.erase(victim);
      }
      if (step % 100 == 0) {
        ASSERT_THAT(Problems(), testing::IsEmpty());
      }
    }
    for (const auto& [start, end] : held) EXPECT_EQ(percpu->Free(VirtAddr(start)), Errno::kOk);
  }
}

}  // namespace
}  // namespace mmlab

#include "server/base/address.h"

#include <cstdint>
#include <limits>

#include "gtest/gtest.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST(AmountTest, AddsSubtractsAndCompares) {
  EXPECT_EQ(Bytes(3) + Bytes(4), Bytes(7));
  EXPECT_EQ(Bytes(7) - Bytes(7), Bytes(0));
  EXPECT_EQ(PageCount(3) * 5, PageCount(15));
  EXPECT_LT(Bytes(3), Bytes(4));
  Bytes b(10);
  b += Bytes(5);
  b -= Bytes(1);
  EXPECT_EQ(b.raw(), 14u);
}

TEST(AmountTest, OverflowFailsACheckAndNeverWraps) {
  EXPECT_EQ(Bytes(kMax) + Bytes(0), Bytes(kMax));
  EXPECT_THROW(Bytes(kMax) + Bytes(1), CheckFailure);
  EXPECT_THROW(Bytes(0) - Bytes(1), CheckFailure);
  EXPECT_EQ(Bytes(kMax / 3) * 3, Bytes(kMax));
  EXPECT_THROW(Bytes(kMax / 3 + 1) * 3, CheckFailure);
}

TEST(PlaceTest, PlaceAndDistance) {
  EXPECT_EQ(VirtAddr(0x1000) + Bytes(0x20), VirtAddr(0x1020));
  EXPECT_EQ(VirtAddr(0x1020) - VirtAddr(0x1000), Bytes(0x20));
  EXPECT_EQ(VirtAddr(0x1020) - Bytes(0x20), VirtAddr(0x1000));
  Pfn pfn(7);
  EXPECT_EQ(++pfn, Pfn(8));
  pfn += PageCount(2);
  pfn -= PageCount(10);
  EXPECT_EQ(pfn, Pfn(0));
}

TEST(PlaceTest, LeavingTheAddressSpaceFailsACheck) {
  EXPECT_THROW(VirtAddr(kMax) + Bytes(1), CheckFailure);
  EXPECT_THROW(VirtAddr(0) - Bytes(1), CheckFailure);
  EXPECT_THROW(VirtAddr(1) - VirtAddr(2), CheckFailure);
  VirtAddr last(kMax);
  EXPECT_THROW(++last, CheckFailure);
}

TEST(RangeTest, ContainsAndOverlaps) {
  const VirtRange range{VirtAddr(0x1000), VirtAddr(0x3000)};
  struct Case {
    const char* name;
    VirtRange other;
    bool contains;
    bool overlaps;
  };
  const Case cases[] = {
      {"itself", range, true, true},
      {"its first page", {VirtAddr(0x1000), VirtAddr(0x2000)}, true, true},
      {"ends where it starts", {VirtAddr(0x0), VirtAddr(0x1000)}, false, false},
      {"starts where it ends", {VirtAddr(0x3000), VirtAddr(0x4000)}, false, false},
      {"over its start", {VirtAddr(0xfff), VirtAddr(0x1001)}, false, true},
      {"over its end", {VirtAddr(0x2fff), VirtAddr(0x3001)}, false, true},
      {"around it", {VirtAddr(0x0), VirtAddr(0x4000)}, false, true},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    EXPECT_EQ(range.Contains(c.other), c.contains);
    EXPECT_EQ(range.Overlaps(c.other), c.overlaps);
    EXPECT_EQ(c.other.Overlaps(range), c.overlaps);
  }
  EXPECT_TRUE(range.Contains(VirtAddr(0x2fff)));
  EXPECT_FALSE(range.Contains(VirtAddr(0x3000)));
  EXPECT_EQ(range.length(), Bytes(0x2000));
  EXPECT_TRUE((PfnRange{Pfn(4), Pfn(4)}).empty());
}

TEST(PageOrderTest, PagesAndLimits) {
  EXPECT_EQ(PageOrder().pages(), PageCount(1));
  EXPECT_EQ(PageOrder(kMaxOrder).pages(), PageCount(1024));
  EXPECT_EQ(PageOrder(63).pages(), PageCount(uint64_t{1} << 63));
  EXPECT_THROW(PageOrder(64), CheckFailure);
  EXPECT_THROW(PageOrder(-1), CheckFailure);
}

TEST(PageSizeTest, RoundsAsEachNameSays) {
  struct Case {
    const char* name;
    int shift;
    uint64_t bytes;
    uint64_t holding;  // PagesHolding: up.
    uint64_t whole;    // WholePagesIn: down.
  };
  const Case cases[] = {
      {"nothing", 12, 0, 0, 0},
      {"one byte", 12, 1, 1, 0},
      {"a page less one", 12, 4095, 1, 0},
      {"a page", 12, 4096, 1, 1},
      {"a page and one", 12, 4097, 2, 1},
      {"the last page boundary", 12, kMax - 4095, kMax >> 12, kMax >> 12},
      {"2^64 - 4095, over the last boundary", 12, kMax - 4094, (kMax >> 12) + 1, kMax >> 12},
      {"2^64 - 1", 12, kMax, (kMax >> 12) + 1, kMax >> 12},
      {"64 KiB pages, 2^64 - 1", 16, kMax, (kMax >> 16) + 1, kMax >> 16},
      {"64 KiB pages, one page and one byte", 16, 65537, 2, 1},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const PageSize size(c.shift);
    EXPECT_EQ(size.PagesHolding(Bytes(c.bytes)).raw(), c.holding);
    EXPECT_EQ(size.WholePagesIn(Bytes(c.bytes)).raw(), c.whole);
  }
}

TEST(PageSizeTest, BytesOfPages) {
  const PageSize size(12);
  EXPECT_EQ(size.bytes(), Bytes(4096));
  EXPECT_EQ(size.BytesOf(PageCount(3)), Bytes(12288));
  EXPECT_EQ(size.BytesOf(PageCount(kMax >> 12)), Bytes(kMax - 4095));
  EXPECT_THROW(size.BytesOf(PageCount((kMax >> 12) + 1)), CheckFailure);
}

TEST(PageSizeTest, FramesAndAlignment) {
  const PageSize size(12);
  EXPECT_EQ(size.FrameHolding(PhysAddr(0xfff)), Pfn(0));
  EXPECT_EQ(size.FrameHolding(PhysAddr(0x1000)), Pfn(1));
  EXPECT_EQ(size.FrameHolding(PhysAddr(kMax)), Pfn(kMax >> 12));
  EXPECT_EQ(size.StartOf(Pfn(0x100000)), PhysAddr(0x100000000));  // 4 GiB: past what 32 bits hold.
  EXPECT_EQ(size.RoundDown(VirtAddr(0x1fff)), VirtAddr(0x1000));
  EXPECT_EQ(size.RoundDown(VirtAddr(kMax)), VirtAddr(kMax - 4095));
  EXPECT_TRUE(size.IsAligned(VirtAddr(0)));
  EXPECT_FALSE(size.IsAligned(VirtAddr(kMax)));
  EXPECT_EQ(size.OffsetIn(VirtAddr(kMax)), 4095u);
}

}  // namespace
}  // namespace mmlab

#include "server/physical/page_contents.h"

#include <cstring>
#include <map>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/random.h"

namespace mmlab {
namespace {

constexpr size_t kPage = 4096;

TEST(PageContentsTest, UntouchedReadsAsZeroAndCostsNothing) {
  PageContents contents(1 << 20, PageSize(12));
  const uint64_t empty = contents.HostMemory();
  uint64_t value = 1;
  contents.Read(Pfn(77), 4088, &value, 8);
  EXPECT_EQ(value, 0u);
  EXPECT_EQ(contents.BytesIfAny(Pfn(77)), nullptr);
  const std::vector<uint8_t> zeros(kPage, 0);
  contents.Write(Pfn(78), 0, zeros.data(), kPage);
  EXPECT_EQ(contents.HostMemory(), empty);
}

TEST(PageContentsTest, OneTouchedByteTakesNoPage) {
  PageContents contents(1 << 12, PageSize(12));
  for (uint32_t pfn = 0; pfn < 1024; ++pfn) {
    const auto byte = static_cast<uint8_t>(pfn | 1);
    contents.Write(Pfn(pfn), pfn * 4 % kPage, &byte, 1);
  }
  EXPECT_EQ(contents.pages_in_use(), 0u);
  for (uint32_t pfn = 0; pfn < 1024; ++pfn) {
    uint8_t byte = 0;
    contents.Read(Pfn(pfn), pfn * 4 % kPage, &byte, 1);
    ASSERT_EQ(byte, static_cast<uint8_t>(pfn | 1)) << pfn;
  }
}

TEST(PageContentsTest, OneTouchedWordTakesNoPage) {
  PageContents contents(1 << 12, PageSize(12));
  const uint64_t before = contents.HostMemory();
  const uint64_t word = 0x1122334455667788;
  for (uint32_t pfn = 0; pfn < 1024; ++pfn) contents.Write(Pfn(pfn), 4088, &word, 8);
  EXPECT_EQ(contents.pages_in_use(), 0u);
  EXPECT_LE(contents.HostMemory() - before, 1024u * 44);
  uint64_t got = 0;
  contents.Read(Pfn(1023), 4088, &got, 8);
  EXPECT_EQ(got, word);
  contents.Bytes(Pfn(1023))[0] = 1;
  contents.Read(Pfn(1023), 4088, &got, 8);
  EXPECT_EQ(got, word);
}

TEST(PageContentsTest, BytesKeepsWhatWasThereAndStaysPut) {
  PageContents contents(1 << 12, PageSize(12));
  const uint32_t word = 0x11223344;
  contents.Write(Pfn(5), 100, &word, 4);
  EXPECT_EQ(contents.pages_in_use(), 0u);
  uint8_t* page = contents.Bytes(Pfn(5));
  EXPECT_EQ(std::memcmp(page + 100, &word, 4), 0);
  EXPECT_EQ(page[99], 0);
  EXPECT_EQ(contents.Bytes(Pfn(5)), page);
  EXPECT_EQ(contents.BytesIfAny(Pfn(5)), page);
  contents.Clear(Pfn(5));
  EXPECT_EQ(contents.BytesIfAny(Pfn(5)), nullptr);
  EXPECT_EQ(contents.pages_in_use(), 0u);
}

// Random writes, copies and clears against plain arrays; small writes of every length, near each other and at page ends.
TEST(PageContentsTest, RandomProgramMatchesPlainArrays) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    PageContents contents(1 << 12, PageSize(12));
    std::map<uint32_t, std::vector<uint8_t>> model;
    const auto page_of = [&](uint32_t pfn) -> std::vector<uint8_t>& { return model.try_emplace(pfn, kPage, 0).first->second; };
    Random random(seed);
    for (int step = 0; step < 2000; ++step) {
      const auto pfn = static_cast<uint32_t>(random.Below(8) * 1000 / 3);
      switch (random.Below(10)) {
        case 0:
          contents.Clear(Pfn(pfn));
          model.erase(pfn);
          break;
        case 1: {
          const auto to = static_cast<uint32_t>(random.Below(8) * 1000 / 3);
          contents.Copy(Pfn(pfn), Pfn(to));
          const std::vector<uint8_t> copy = page_of(pfn);
          page_of(to) = copy;
          break;
        }
        case 2:
          if (random.Below(10) == 0) contents.Bytes(Pfn(pfn))[9] = page_of(pfn)[9] = 7;
          break;
        default: {
          uint8_t data[16];
          const size_t size = 1 + random.Below(random.Below(4) == 0 ? 16 : 8);
          for (uint8_t& byte : data) byte = random.Below(3) == 0 ? 0 : static_cast<uint8_t>(random.Next());
          const size_t offset = random.Below(4) == 0 ? kPage - size : 64 + random.Below(12);
          contents.Write(Pfn(pfn), offset, data, size);
          std::memcpy(page_of(pfn).data() + offset, data, size);
        }
      }
      std::vector<uint8_t> got(kPage);
      contents.Read(Pfn(pfn), 0, got.data(), kPage);
      ASSERT_EQ(got, page_of(pfn)) << "step " << step;
    }
    // The same bytes hash the same, however they are kept.
    PageContents other(1 << 12, PageSize(12));
    for (const auto& [pfn, bytes] : model) other.Write(Pfn(pfn), 0, bytes.data(), kPage);
    StateHasher a;
    StateHasher b;
    contents.StateHash(a);
    other.StateHash(b);
    ASSERT_EQ(a.value(), b.value());
  }
}

}  // namespace
}  // namespace mmlab

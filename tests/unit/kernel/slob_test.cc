#include "server/kernel/slob.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

class SlobTest : public testing::Test {
 protected:
  void Make(uint32_t pages, LayoutKind layout = LayoutKind::kX86_32) {
    memory_ = MakeTestMemory(pages, tracer_);
    slob_ = std::make_unique<Slob>(SlabPlatformOf(GetLayout(layout), 1, SlabAllocatorKind::kSlob), 0xc0000000, *memory_, tracer_);
  }
  VirtAddr Kmalloc(uint64_t bytes) { return *slob_->Kmalloc(bytes, kGfpKernel); }
  static uint64_t OffsetIn(VirtAddr address) { return address.raw() % 4096; }
  static uint64_t PageOf(VirtAddr address) { return address.raw() / 4096; }
  SlabPlace PlaceOf(VirtAddr address) const { return slob_->Locate(address).slab.place; }
  std::vector<std::string> Problems() const {
    std::vector<std::string> problems;
    slob_->CheckInvariants(&problems);
    memory_->CheckInvariants(&problems);
    return problems;
  }

  Tracer tracer_;
  std::unique_ptr<BuddyMemory> memory_;
  std::unique_ptr<Slob> slob_;
};

struct PlaceCase {
  const char* name;
  uint64_t bytes;
  uint64_t offset;  // In a fresh page: behind the header, where a power of two is aligned.
  SlabPlace place;
};
class SlobPlaceTest : public SlobTest, public testing::WithParamInterface<PlaceCase> {};

TEST_P(SlobPlaceTest, SizeDecidesListAndAlignment) {
  Make(64);
  const VirtAddr address = Kmalloc(GetParam().bytes);
  EXPECT_EQ(OffsetIn(address), GetParam().offset);
  EXPECT_EQ(PlaceOf(address), GetParam().place);
  EXPECT_EQ(slob_->Ksize(address).value(), (GetParam().bytes + 1) / 2 * 2);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}
INSTANTIATE_TEST_SUITE_P(Sizes, SlobPlaceTest,
                         testing::Values(PlaceCase{"One", 1, 8, SlabPlace::kSmall},       //
                                         PlaceCase{"Odd", 101, 8, SlabPlace::kSmall},     //
                                         PlaceCase{"Sixty4", 64, 64, SlabPlace::kSmall},  //
                                         PlaceCase{"Just", 247, 8, SlabPlace::kSmall},    // With its header 255 bytes.
                                         PlaceCase{"HeaderCounts", 248, 8, SlabPlace::kMedium},
                                         PlaceCase{"Power256", 256, 256, SlabPlace::kMedium},  //
                                         PlaceCase{"Medium", 1015, 8, SlabPlace::kMedium},     //
                                         PlaceCase{"Large", 1016, 8, SlabPlace::kLarge},       //
                                         PlaceCase{"Power2048", 2048, 2048, SlabPlace::kLarge}),
                         [](const auto& test) { return test.param.name; });

TEST_F(SlobTest, TheFirstHoleThatFitsIsTaken) {
  Make(64);
  EXPECT_EQ(OffsetIn(Kmalloc(100)), 8u);
  EXPECT_EQ(OffsetIn(Kmalloc(100)), 120u);  // 108 bytes each, and what is handed out starts on a multiple of 8.
  EXPECT_EQ(OffsetIn(Kmalloc(64)), 256u);   // Leaves a hole of 28 bytes at 220.
  EXPECT_EQ(OffsetIn(Kmalloc(30)), 328u);   // 38 with its header: too large for the hole.
  EXPECT_EQ(OffsetIn(Kmalloc(12)), 232u);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(SlobTest, FreeNeighboursJoin) {
  Make(64);
  const VirtAddr a = Kmalloc(100), b = Kmalloc(100), c = Kmalloc(100);
  Kmalloc(100);
  slob_->Kfree(a);
  slob_->Kfree(c);
  slob_->Kfree(b);
  EXPECT_EQ(Kmalloc(240), a);  // The hole of all three has 324 bytes.
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(SlobTest, ASearchGoesOnWhereTheLastOneFoundSomething) {
  Make(64);
  // Three pages of large blocks, each with a hole; the newest stands first.
  std::vector<VirtAddr> first, second;
  for (int i = 0; i < 3; ++i) {
    first.push_back(Kmalloc(1500));
    second.push_back(Kmalloc(2500));
  }
  ASSERT_EQ(PageOf(first[0]), PageOf(second[0]));
  for (const VirtAddr address : second) slob_->Kfree(address);
  EXPECT_EQ(PageOf(Kmalloc(1500)), PageOf(first[2]));
  EXPECT_EQ(PageOf(Kmalloc(1400)), PageOf(first[1]));  // Page 2 has no room; from page 1 on the ring goes 1, 0, 2.
  EXPECT_EQ(PageOf(Kmalloc(1020)), PageOf(first[1]));  // Still room there,
  EXPECT_EQ(PageOf(Kmalloc(1200)), PageOf(first[0]));  // and page 0 comes next.
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(SlobTest, AnEmptyPageIsGivenBack) {
  Make(64);
  const PageCount before = memory_->free_pages();
  const VirtAddr a = Kmalloc(100), b = Kmalloc(200);
  EXPECT_EQ(slob_->Usage().pages, 1u);
  slob_->Kfree(b);
  slob_->Kfree(a);
  EXPECT_EQ(slob_->Usage().pages, 0u);
  EXPECT_EQ(memory_->free_pages(), before);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(SlobTest, APageThatWasFullGoesOnTheListOfWhatIsFreed) {
  Make(64);
  const VirtAddr large = Kmalloc(2000), small_hole = Kmalloc(2000);  // 2008 bytes each leave 80.
  const VirtAddr rest = Kmalloc(1016);                               // Elsewhere.
  ASSERT_NE(PageOf(rest), PageOf(large));
  const SlabCacheId fill = slob_->CreateCache({"fill", 80, 4, 0, false, 0}).value();
  const VirtAddr small = slob_->AddressOf(*slob_->AllocObject(fill, kGfpKernel));
  EXPECT_NE(PageOf(small), PageOf(large));  // Small ones look at their own list only.
  EXPECT_EQ(PlaceOf(large), SlabPlace::kLarge);
  slob_->Kfree(small_hole);
  EXPECT_EQ(PlaceOf(large), SlabPlace::kLarge);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(SlobTest, ObjectsOfAPageComeFromThePageAllocator) {
  Make(64);
  const SlabCacheId id = slob_->CreateCache({"page", 5000, 0, 0, false, 0}).value();
  const SlabObject object = *slob_->AllocObject(id, kGfpKernel);
  EXPECT_EQ(slob_->Usage().pages, 2u);
  EXPECT_EQ(slob_->Locate(slob_->AddressOf(object), id).fault, SlabFault::kNone);
  EXPECT_EQ(slob_->Locate(slob_->AddressOf(object) + Bytes(4096), id).fault, SlabFault::kNoObject);
  EXPECT_EQ(slob_->Kfree(slob_->AddressOf(object)), SlabFault::kWrongCache);
  slob_->FreeObject(id, object);
  EXPECT_EQ(slob_->Usage().pages, 0u);
  EXPECT_EQ(slob_->Ksize(Kmalloc(4088)).value(), 4096u);  // With its header more than a page.
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(SlobTest, Arm64PutsAHeaderOf128BytesBeforeEachBlock) {
  Make(64, LayoutKind::kArm64);
  EXPECT_EQ(OffsetIn(Kmalloc(1)), 128u);
  EXPECT_EQ(OffsetIn(Kmalloc(1)), 384u);
}

TEST_F(SlobTest, RefusesAnAlignmentThatNoPageHas) {
  Make(64);
  EXPECT_EQ(slob_->CreateCache({"x", 64, 8192, 0, false, 0}).error(), Errno::kEINVAL);
  EXPECT_TRUE(slob_->CreateCache({"y", 64, 4096, 0, false, 0}).ok());
}

}  // namespace
}  // namespace mmlab

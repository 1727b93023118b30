#include "server/kernel/slub.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

class SlubTest : public testing::Test {
 protected:
  void Make(uint32_t pages, LayoutKind kind = LayoutKind::kArm64) {
    memory_ = MakeTestMemory(pages, tracer_);
    slub_ = std::make_unique<Slub>(SlabPlatformOf(GetLayout(kind), 1), 0xffff000000000000, *memory_, tracer_, 3);
  }
  std::vector<std::string> Problems() const {
    std::vector<std::string> problems;
    slub_->CheckInvariants(&problems);
    memory_->CheckInvariants(&problems);
    return problems;
  }

  Tracer tracer_;
  std::unique_ptr<BuddyMemory> memory_;
  std::unique_ptr<Slub> slub_;
};

struct RefusedCase {
  const char* name;
  SlabCacheRequest request;
};
class SlubRefusedTest : public SlubTest, public testing::WithParamInterface<RefusedCase> {};

TEST_P(SlubRefusedTest, AnswersEinvalAndMakesNothing) {
  Make(64);
  const size_t before = slub_->Caches().size();
  EXPECT_EQ(slub_->CreateCache(GetParam().request).error(), Errno::kEINVAL);
  EXPECT_EQ(slub_->Caches().size(), before);
}
INSTANTIATE_TEST_SUITE_P(Requests, SlubRefusedTest,
                         testing::Values(RefusedCase{"NoSize", {"x", 0, 0, 0, false, 0}},
                                         RefusedCase{"LargerThanAnyBlock", {"x", 4u << 20, 0, kSlabRedZone, false, 0}},
                                         RefusedCase{"Huge", {"x", 0xffffffff, 0, 0, false, 0}},
                                         RefusedCase{"AlignNoPowerOfTwo", {"x", 64, 48, 0, false, 0}},
                                         RefusedCase{"AlignHuge", {"x", 64, 1u << 31, 0, false, 0}},
                                         RefusedCase{"FlagOfTheAllocator", {"x", 64, 0, kSlabKmalloc, false, 0}}),
                         [](const auto& test) { return test.param.name; });

struct KmallocCase {
  const char* name;
  LayoutKind layout;
  uint64_t bytes;
  uint64_t ksize;
  const char* cache;  // "" = whole pages.
};
class SlubKmallocTest : public SlubTest, public testing::WithParamInterface<KmallocCase> {};

TEST_P(SlubKmallocTest, TakesTheSmallestClassThatHolds) {
  Make(2048, GetParam().layout);
  const std::optional<VirtAddr> address = slub_->Kmalloc(GetParam().bytes, kGfpKernel);
  ASSERT_TRUE(address.has_value());
  EXPECT_EQ(slub_->Ksize(*address).value(), GetParam().ksize);
  const std::optional<SlabCacheId> cache = slub_->KmallocCache(GetParam().bytes, kGfpKernel);
  EXPECT_EQ(cache.has_value() ? slub_->View(*cache).name : "", GetParam().cache);
  EXPECT_THAT(Problems(), testing::IsEmpty());
  EXPECT_EQ(slub_->Kfree(*address), SlabFault::kNone);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}
INSTANTIATE_TEST_SUITE_P(Sizes, SlubKmallocTest,
                         testing::Values(KmallocCase{"OneX86", LayoutKind::kX86_32, 1, 8, "kmalloc-8"},
                                         KmallocCase{"OneArm", LayoutKind::kArm64, 1, 128, "kmalloc-128"},
                                         KmallocCase{"SeventyX86", LayoutKind::kX86_32, 70, 96, "kmalloc-96"},
                                         KmallocCase{"Class192", LayoutKind::kX86_32, 129, 192, "kmalloc-192"},
                                         KmallocCase{"NoClass192OnArm", LayoutKind::kArm64, 129, 256, "kmalloc-256"},
                                         KmallocCase{"LargestClass", LayoutKind::kArm64, 8192, 8192, "kmalloc-8k"},
                                         KmallocCase{"WholePages", LayoutKind::kArm64, 8193, 16384, ""},
                                         KmallocCase{"LargestBlock", LayoutKind::kArm64, 4u << 20, 4u << 20, ""}),
                         [](const auto& test) { return test.param.name; });

TEST_F(SlubTest, RefusesWhatNoBlockHolds) {
  Make(2048);
  EXPECT_FALSE(slub_->Kmalloc((4u << 20) + 1, kGfpKernel).has_value());
  EXPECT_FALSE(slub_->Kmalloc(~uint64_t{0}, kGfpKernel).has_value());
  EXPECT_EQ(slub_->Kmalloc(0, kGfpKernel)->raw(), Slub::kZeroSizePtr);
  EXPECT_EQ(slub_->Kfree(VirtAddr(Slub::kZeroSizePtr)), SlabFault::kNone);
}

TEST_F(SlubTest, KnowsWhatIsWrongWithAnAddress) {
  Make(256);
  const VirtAddr first = *slub_->Kmalloc(200, kGfpKernel);
  const SlabObjectView view = slub_->Locate(first);
  EXPECT_EQ(view.fault, SlabFault::kNone);
  EXPECT_EQ(view.start, first);
  EXPECT_EQ(slub_->Kfree(first + Bytes(8)), SlabFault::kNoObject);
  EXPECT_EQ(slub_->Kfree(VirtAddr(0x1234)), SlabFault::kNotSlab);
  EXPECT_EQ(slub_->Kfree(VirtAddr(~uint64_t{0})), SlabFault::kNotSlab);
  EXPECT_EQ(slub_->Locate(first, slub_->Find("kmalloc-1k")).fault, SlabFault::kWrongCache);
  EXPECT_EQ(slub_->Kfree(first), SlabFault::kNone);
  EXPECT_EQ(slub_->Kfree(first), SlabFault::kAlreadyFree);
  EXPECT_THAT(slub_->FaultReport(first, slub_->Locate(first)), testing::HasSubstr("BUG kmalloc-256 (Not tainted): Object already free\n"));
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(SlubTest, KreallocMovesOnlyWhenItMust) {
  Make(256);
  const VirtAddr small = *slub_->Kmalloc(100, kGfpKernel);
  EXPECT_EQ(slub_->Krealloc(small, 128, kGfpKernel).value(), small);
  const VirtAddr large = slub_->Krealloc(small, 129, kGfpKernel).value();
  EXPECT_NE(large, small);
  EXPECT_EQ(slub_->Locate(small).fault, SlabFault::kAlreadyFree);
  EXPECT_EQ(slub_->Krealloc(large, 0, kGfpKernel).value().raw(), Slub::kZeroSizePtr);
  EXPECT_EQ(slub_->Krealloc(large, 500, kGfpKernel).error(), Errno::kEFAULT);
}

TEST_F(SlubTest, ACacheWithObjectsIsNotDestroyed) {
  Make(256);
  const SlabCacheId id = slub_->CreateCache({"mine", 64, 0, 0, true, 0}).value();
  const SlabObject object = *slub_->AllocObject(id, kGfpKernel);
  EXPECT_EQ(slub_->DestroyCache(id, "mine"), Errno::kEBUSY);
  EXPECT_EQ(slub_->View(id).allocated, 1u);
  slub_->FreeObject(id, object);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(SlubTest, FallsBackToTheSmallestOrderAndThenFails) {
  Make(32);
  const SlabCacheId id = slub_->CreateCache({"large", 5000, 0, 0, true, 0}).value();
  ASSERT_EQ(slub_->View(id).geometry.order, 3);
  std::vector<SlabObject> objects;
  while (const std::optional<SlabObject> object = slub_->AllocObject(id, kGfpNowait)) objects.push_back(*object);
  EXPECT_THAT(Problems(), testing::IsEmpty());
  EXPECT_FALSE(objects.empty());
  for (const SlabObject object : objects) slub_->FreeObject(id, object);
  slub_->Shrink(id);
  EXPECT_EQ(slub_->View(id).slabs, 0u);
  EXPECT_EQ(memory_->vm_stat().Get(NodeStat::kNrSlabUnreclaimable), 0);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(SlubTest, TheSameSeedGivesTheSameAddresses) {
  Make(256);
  const VirtAddr first = *slub_->Kmalloc(64, kGfpKernel);
  StateHasher hash;
  slub_->AddToHash(hash);
  Make(256);
  EXPECT_EQ(*slub_->Kmalloc(64, kGfpKernel), first);
  StateHasher again;
  slub_->AddToHash(again);
  EXPECT_EQ(hash.value(), again.value());
}

}  // namespace
}  // namespace mmlab

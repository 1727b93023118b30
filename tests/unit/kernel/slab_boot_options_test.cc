// What the kernel's command line says of slabs.

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/kernel/slub.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

constexpr SlabFlags kAll = kSlabConsistencyChecks | kSlabRedZone | kSlabPoison | kSlabStoreUser;

struct DebugCase {
  const char* name;
  const char* command_line;
  const char* cache;
  SlabFlags flags;  // That are added.
};
class SlabDebugTest : public testing::TestWithParam<DebugCase> {};

TEST_P(SlabDebugTest, ACacheGetsTheFlags) {
  SlabPlatform platform = SlabPlatformOf(GetLayout(LayoutKind::kArm64), 1);
  platform.options = ParseSlabBootOptions(GetParam().command_line);
  EXPECT_EQ(WithDebugFlags(platform, GetParam().cache, kSlabPanic), kSlabPanic | GetParam().flags);
  platform.allocator = SlabAllocatorKind::kSlab;
  EXPECT_EQ(WithDebugFlags(platform, GetParam().cache, kSlabPanic), kSlabPanic);
}
INSTANTIATE_TEST_SUITE_P(Words, SlabDebugTest,
                         testing::Values(DebugCase{"Nothing", "quiet slub_debugging", "dentry", 0},
                                         DebugCase{"Alone", "quiet slub_debug", "dentry", kAll},
                                         DebugCase{"EmptyValue", "slub_debug=", "dentry", kAll},
                                         DebugCase{"Letters", "slub_debug=Zp", "dentry", kSlabRedZone | kSlabPoison},
                                         DebugCase{"UnknownLetters", "slub_debug=xUy", "dentry", kSlabStoreUser},
                                         DebugCase{"Off", "slub_debug=FZ-", "dentry", 0},
                                         DebugCase{"Named", "slub_debug=P,dentry", "dentry", kSlabPoison},
                                         DebugCase{"NamedOthersKeepNone", "slub_debug=P,dentry", "filp", 0},
                                         DebugCase{"NamesWithoutLetters", "slub_debug=,filp,dentry", "dentry", kAll},
                                         DebugCase{"Glob", "slub_debug=Z,kmalloc-*", "kmalloc-64", kSlabRedZone},
                                         DebugCase{"GlobOfOthers", "slub_debug=Z,kmalloc-*", "dma-kmalloc-64", 0},
                                         DebugCase{"BlocksFirstMatch", "slub_debug=Z,dentry;P,d*;U", "dentry", kSlabRedZone},
                                         DebugCase{"BlocksSecond", "slub_debug=Z,dentry;P,d*;U", "dquot", kSlabPoison},
                                         DebugCase{"BlocksTheRest", "slub_debug=Z,dentry;P,d*;U", "filp", kSlabStoreUser}),
                         [](const auto& test) { return test.param.name; });

TEST(SlabBootOptionsTest, CachesThatRefuseStayWithout) {
  SlabPlatform platform = SlabPlatformOf(GetLayout(LayoutKind::kX86_32), 1);
  platform.options = ParseSlabBootOptions("slub_debug");
  EXPECT_EQ(WithDebugFlags(platform, "x", kSlabNoUserFlags), kSlabNoUserFlags);
  EXPECT_EQ(WithDebugFlags(platform, "x", kSlabNoLeakTrace), kSlabNoLeakTrace | (kAll & ~kSlabStoreUser));
}

class BootedSlubTest : public testing::Test {
 protected:
  void Make(const char* command_line) {
    SlabPlatform platform = SlabPlatformOf(GetLayout(LayoutKind::kArm64), 1);
    platform.options = ParseSlabBootOptions(command_line);
    slub_ = std::make_unique<Slub>(platform, 0xffff000000000000, *memory_, tracer_, 3);
    slub_->AddBootCaches(LayoutKind::kArm64);
  }
  SlabGeometry Geometry(const char* cache) const { return slub_->View(*slub_->Find(cache)).geometry; }
  SlabCacheView Created(uint32_t size) { return slub_->View(slub_->CreateCache({"mine", size, 0, 0, false, 0}).value()); }

  Tracer tracer_;
  std::unique_ptr<BuddyMemory> memory_ = MakeTestMemory(1024, tracer_);
  std::unique_ptr<Slub> slub_;
};

TEST_F(BootedSlubTest, DebuggingMakesObjectsLargerAndKeepsCachesApart) {
  Make("");
  const uint32_t plain = Geometry("kmalloc-256").size;
  EXPECT_EQ(Created(256).geometry.size, 256u);
  Make("slub_debug=FZPU");
  EXPECT_GT(Geometry("kmalloc-256").size, plain);
  EXPECT_GT(Geometry("task_struct").red_left_pad, 0u);
  EXPECT_EQ(Created(256).name, "mine");
  EXPECT_NE(Geometry("mine").flags & kSlabStoreUser, 0u);
}

TEST_F(BootedSlubTest, NothingMergesWithSlabNomerge) {
  Make("");
  EXPECT_NE(Created(64).name, "mine");
  Make("slab_nomerge");
  EXPECT_EQ(Created(64).name, "mine");
}

TEST_F(BootedSlubTest, OrdersFollowTheirLimits) {
  Make("");
  EXPECT_EQ(Geometry("kmalloc-128").order, 0);
  EXPECT_EQ(Geometry("kmalloc-8k").order, 3);
  Make("slub_min_order=2");
  EXPECT_EQ(Geometry("kmalloc-128").order, 2);
  Make("slub_max_order=1");
  EXPECT_EQ(Geometry("kmalloc-8k").order, 1);
  EXPECT_EQ(Geometry("kmalloc-1k").order, 1);
  Make("slub_min_objects=64");
  EXPECT_EQ(Geometry("kmalloc-128").objects, 64u);
  Make("slub_max_order=99 slub_min_order=-3");
  EXPECT_EQ(Geometry("kmalloc-128").order, 0);
}

TEST_F(BootedSlubTest, TheLetterOSparesCachesThatWouldNeedLargerSlabs) {
  Make("slub_debug=ZO");
  EXPECT_NE(Geometry("kmalloc-128").flags & kSlabRedZone, 0u);
  EXPECT_EQ(Geometry("kmalloc-4k").flags & kSlabRedZone, 0u);
  EXPECT_EQ(Geometry("kmalloc-4k").size, 4096u);
}

struct LineCase {
  const char* name;
  const char* line;
};
class SlabinfoLineTest : public testing::TestWithParam<LineCase> {};

TEST_P(SlabinfoLineTest, IsRefused) { EXPECT_FALSE(ParseSlabinfoLine(GetParam().line).has_value()); }
INSTANTIATE_TEST_SUITE_P(Lines, SlabinfoLineTest,
                         testing::Values(LineCase{"Empty", ""}, LineCase{"Header", "slabinfo - version: 2.1"},
                                         LineCase{"NoSlabs", "x 0 0 64 64 1 : tunables 0 0 0 : slabdata 0 0 0"},
                                         LineCase{"MoreActiveThanAll", "x 65 64 64 64 1 : tunables 0 0 0 : slabdata 1 1 0"},
                                         LineCase{"Negative", "x 1 64 64 64 1 : tunables 0 0 0 : slabdata 1 -1 0"},
                                         LineCase{"NoPages", "x 1 64 64 64 0 : tunables 0 0 0 : slabdata 1 1 0"},
                                         LineCase{"Huge", "x 1 64 64 64 1 : tunables 0 0 0 : slabdata 1 4294967295 0"}),
                         [](const auto& test) { return test.param.name; });

TEST(SlabinfoTextTest, SaysWhatACacheHas) {
  const std::optional<SlabinfoCounts> counts =
      ParseSlabinfoLine("dentry             6531   6552    192   21    1 : tunables    0    0    0 : slabdata    312    312      0");
  ASSERT_TRUE(counts.has_value());
  EXPECT_EQ(counts->name, "dentry");
  EXPECT_EQ(counts->active_objects, 6531u);
  EXPECT_EQ(counts->total_objects, 6552u);
  EXPECT_EQ(counts->slabs, 312u);
  EXPECT_EQ(counts->pages_per_slab, 1u);
}

}  // namespace
}  // namespace mmlab

#include "server/kernel/classic_slab.h"

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

// The published design: Bonwick's slabs as mm/slab.c of 6.1 lays them out. tunables as /proc/slabinfo shows them.
struct GeometryCase {
  const char* name;
  LayoutKind layout;
  SlabCacheRequest request;
  int order;
  uint32_t objects;
  SlabFreelist freelist;
  uint32_t colours;
  uint32_t limit;
  uint32_t batchcount;
};
class ClassicSlabGeometryTest : public testing::TestWithParam<GeometryCase> {};

TEST_P(ClassicSlabGeometryTest, IsThatOfTheDesign) {
  const GeometryCase& expected = GetParam();
  const SlabPlatform platform = SlabPlatformOf(GetLayout(expected.layout), 2, SlabAllocatorKind::kSlab);
  const SlabCacheRequest& r = expected.request;
  const uint32_t align = SlabAlignment(platform, r.flags, r.align, r.object_size);
  const SlabGeometry g = GeometryOf(platform, r.object_size, align, r.flags, r.constructor);
  EXPECT_EQ(g.order, expected.order);
  EXPECT_EQ(g.objects, expected.objects);
  EXPECT_EQ(g.freelist, expected.freelist);
  EXPECT_EQ(g.colours, expected.colours);
  EXPECT_EQ(g.limit, expected.limit);
  EXPECT_EQ(g.batchcount, expected.batchcount);
  EXPECT_EQ(g.shared, g.size <= 4096 ? 8u : 0u);
}
constexpr LayoutKind kX86 = LayoutKind::kX86_32;
constexpr LayoutKind kArm = LayoutKind::kArm64;
INSTANTIATE_TEST_SUITE_P(
    Caches, ClassicSlabGeometryTest,
    testing::Values(
        // 128 indexes do not fit an object of 32 bytes: the list stands at the slab's end and costs four objects.
        GeometryCase{"Kmalloc32", kX86, {"", 32, 32, 0, false, 0}, 0, 124, SlabFreelist::kOnSlab, 0, 120, 60},
        GeometryCase{"Kmalloc64", kX86, {"", 64, 64, 0, false, 0}, 0, 64, SlabFreelist::kInObject, 0, 120, 60},
        GeometryCase{"Kmalloc192", kX86, {"", 192, 64, 0, false, 0}, 0, 21, SlabFreelist::kInObject, 1, 120, 60},
        GeometryCase{"Kmalloc256", kX86, {"", 256, 256, 0, false, 0}, 0, 16, SlabFreelist::kInObject, 0, 120, 60},
        GeometryCase{"Kmalloc512", kX86, {"", 512, 512, 0, false, 0}, 0, 8, SlabFreelist::kInObject, 0, 54, 27},
        GeometryCase{"Kmalloc4k", kArm, {"", 4096, 4096, 0, false, 0}, 0, 1, SlabFreelist::kInObject, 0, 24, 12},
        GeometryCase{"Kmalloc8k", kArm, {"", 8192, 4096, 0, false, 0}, 1, 1, SlabFreelist::kInObject, 0, 8, 4},
        // 1304 bytes leave 184 of 4096 over, less than an eighth.
        GeometryCase{"OnePageWillDo", kX86, {"", 1300, 4, 0, false, 0}, 0, 3, SlabFreelist::kInObject, 2, 24, 12},
        // 1504 leave 1088 of a page, but only 672 of two.
        GeometryCase{"TwoPagesWasteLess", kX86, {"", 1500, 4, 0, false, 0}, 1, 5, SlabFreelist::kInObject, 10, 24, 12},
        GeometryCase{
            "ReclaimableStaysSmall", kX86, {"", 1500, 4, kSlabReclaimAccount, false, 0}, 0, 2, SlabFreelist::kInObject, 17, 24, 12},
        // A constructed object must keep what it holds. 7 indexes fit behind 7 objects of 576 bytes;
        GeometryCase{"Constructed", kArm, {"", 576, 8, 0, true, 0}, 0, 7, SlabFreelist::kOnSlab, 0, 54, 27},
        // behind 8 of 512 nothing fits: the list goes to a kmalloc-32, which is at most half an object.
        GeometryCase{"ConstructedOffSlab", kX86, {"", 512, 8, 0, true, 0}, 0, 8, SlabFreelist::kOffSlab, 0, 54, 27},
        GeometryCase{"RcuOffSlab", kArm, {"", 1024, 8, kSlabTypesafeByRcu, false, 0}, 0, 4, SlabFreelist::kOffSlab, 0, 54, 27},
        GeometryCase{"NoLeakTraceStaysOn", kX86, {"", 512, 8, kSlabNoLeakTrace, true, 0}, 0, 7, SlabFreelist::kOnSlab, 7, 54, 27},
        // Indexes are bytes: no slab has more than 255 objects.
        GeometryCase{"Tiny", kX86, {"", 8, 8, 0, false, 0}, 0, 240, SlabFreelist::kOnSlab, 0, 120, 60},
        GeometryCase{"Large", kX86, {"", 200000, 4, 0, false, 0}, 6, 1, SlabFreelist::kInObject, 971, 1, 1}),
    [](const auto& test) { return test.param.name; });

class ClassicSlabTest : public testing::Test {
 protected:
  void Make(uint32_t pages, int cpus = 1) {
    memory_ = MakeTestMemory(pages, tracer_);
    slab_ =
        std::make_unique<ClassicSlab>(SlabPlatformOf(GetLayout(kX86), cpus, SlabAllocatorKind::kSlab), 0xc0000000, *memory_, tracer_, 3);
  }
  SlabCacheId Cache(uint32_t size) { return slab_->CreateCache({"mine", size, 0, 0, true, 0}).value(); }
  std::vector<SlabObject> Take(SlabCacheId id, size_t count) {
    std::vector<SlabObject> objects;
    for (size_t i = 0; i < count; ++i) objects.push_back(*slab_->AllocObject(id, kGfpKernel));
    return objects;
  }
  void Free(SlabCacheId id, const std::vector<SlabObject>& objects) {
    for (const SlabObject object : objects) slab_->FreeObject(id, object);
  }
  std::vector<std::string> Problems() const {
    std::vector<std::string> problems;
    slab_->CheckInvariants(&problems);
    return problems;
  }

  Tracer tracer_;
  std::unique_ptr<BuddyMemory> memory_;
  std::unique_ptr<ClassicSlab> slab_;
};

TEST_F(ClassicSlabTest, KmallocStartsAtThirtyTwo) {
  Make(256);
  EXPECT_EQ(slab_->View(*slab_->KmallocCache(1, kGfpKernel)).name, "kmalloc-32");
  EXPECT_EQ(slab_->View(*slab_->KmallocCache(90, kGfpKernel)).name, "kmalloc-96");
  EXPECT_EQ(slab_->View(*slab_->KmallocCache(8192, kGfpKernel)).name, "kmalloc-8k");
  EXPECT_EQ(slab_->Caches().size(), 2 + 3 * 11u + 10u);  // Class 64 of the normal kind comes second.
}

TEST_F(ClassicSlabTest, AnArrayIsFilledByBatches) {
  Make(256);
  const SlabCacheId id = Cache(100);  // limit 120, batch 60, 39 in a slab.
  ASSERT_EQ(slab_->View(id).geometry.objects, 39u);
  Take(id, 1);
  EXPECT_EQ(slab_->View(id).array_objects, 15u);  // Not used lately: only 16 at once.
  Take(id, 15);
  EXPECT_EQ(slab_->View(id).slabs, 1u);
  Take(id, 1);
  EXPECT_EQ(slab_->View(id).array_objects, 22u);  // All that the slab still had; no batch spans a new slab.
  EXPECT_EQ(slab_->View(id).slabs, 1u);
  EXPECT_EQ(slab_->View(id).active_objects, 39u);
  EXPECT_EQ(slab_->View(id).allocated, 17u);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(ClassicSlabTest, TunablesAreSetByALineOfSlabinfo) {
  Make(256, 2);
  const SlabCacheId id = Cache(100);
  Free(id, Take(id, 100));
  EXPECT_GT(slab_->View(id).array_objects, 0u);
  EXPECT_EQ(slab_->WriteSlabinfo("mine 30 10 2\n"), Errno::kOk);
  const SlabCacheView view = slab_->View(id);
  EXPECT_EQ(view.geometry.limit, 30u);
  EXPECT_EQ(view.geometry.batchcount, 10u);
  EXPECT_EQ(view.geometry.shared, 2u);
  EXPECT_EQ(view.array_objects + view.shared_objects, 0u) << "the new arrays are empty";
  Free(id, Take(id, 100));
  EXPECT_LE(slab_->View(id).array_objects, 60u);
  EXPECT_LE(slab_->View(id).shared_objects, 20u);
  EXPECT_THAT(Problems(), testing::IsEmpty());
  for (const char* line : {"mine", "mine 1 2", "nobody 30 10 2", "mine x 1 1", ""})
    EXPECT_EQ(slab_->WriteSlabinfo(line), Errno::kEINVAL) << line;
  for (const char* line : {"mine 0 1 1", "mine 5 6 1", "mine 5 0 1", "mine 5 1 -1"})
    EXPECT_EQ(slab_->WriteSlabinfo(line), Errno::kOk) << line;
  EXPECT_EQ(slab_->WriteSlabinfo("mine 1000000 1 1"), Errno::kENOMEM) << "alloc_percpu() has no such array";
  EXPECT_EQ(slab_->WriteSlabinfo("mine 4000 4000 4000"), Errno::kENOMEM) << "kmalloc() has none";
  EXPECT_EQ(slab_->View(id).geometry.limit, 30u);
}

TEST_F(ClassicSlabTest, AFullArrayGivesTheOldestBatchToTheSharedOne) {
  Make(256, 2);
  const SlabCacheId id = Cache(100);
  std::vector<SlabObject> objects = Take(id, 200);
  const uint64_t before = slab_->View(id).array_objects;
  objects.resize(121 - before);
  Free(id, objects);
  EXPECT_EQ(slab_->View(id).array_objects, 61u);
  EXPECT_EQ(slab_->View(id).shared_objects, 60u);
  Take(id, 62);  // The last of the array, then a batch comes back.
  EXPECT_EQ(slab_->View(id).shared_objects, 0u);
  EXPECT_EQ(slab_->View(id).array_objects, 59u);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(ClassicSlabTest, TheLastObjectFreedComesBackFirst) {
  Make(256);
  const SlabCacheId id = Cache(100);
  const std::vector<SlabObject> objects = Take(id, 3);
  Free(id, objects);
  EXPECT_EQ(Take(id, 3), (std::vector<SlabObject>{objects[2], objects[1], objects[0]}));
}

TEST_F(ClassicSlabTest, FreeSlabsAreKeptUpToALimit) {
  Make(1024);
  const SlabCacheId id = Cache(2000);  // limit 24, batch 12, 2 in a slab: at most 2 x 12 + 2 free objects stay.
  Free(id, Take(id, 200));
  const SlabCacheView view = slab_->View(id);
  EXPECT_EQ(view.total_objects - view.active_objects, 26u);
  EXPECT_LE(view.array_objects, 24u);
  EXPECT_THAT(Problems(), testing::IsEmpty());
  EXPECT_FALSE(slab_->Shrink(id));
  EXPECT_EQ(slab_->View(id).slabs, 0u);
}

TEST_F(ClassicSlabTest, EachSlabStartsAtTheNextColour) {
  Make(256);
  const SlabCacheId id = slab_->CreateCache({"mine", 1300, 0, 0, false, 1300}).value();
  ASSERT_EQ(slab_->View(id).geometry.colours, 2u);
  std::vector<uint32_t> colours;
  std::set<uint32_t> seen;
  for (const SlabObject object : Take(id, 5 * 3)) {
    if (seen.insert(object.slab).second) colours.push_back(slab_->ColourOf(object));
  }
  EXPECT_EQ(colours, (std::vector<uint32_t>{64, 0, 64, 0, 64}));
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(ClassicSlabTest, AnOffSlabListIsAnObjectOfKmalloc) {
  Make(256);
  const SlabCacheId id = Cache(512);
  const SlabCacheId lists = *slab_->KmallocCache(8, kGfpKernel);
  Free(id, Take(id, 1));
  EXPECT_EQ(slab_->View(lists).allocated, 1u);
  slab_->Shrink(id);
  EXPECT_EQ(slab_->View(lists).allocated, 0u);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_F(ClassicSlabTest, WhatIsNotUsedIsReapedLittleByLittle) {
  Make(256);
  const SlabCacheId id = Cache(100);
  Free(id, Take(id, 100));
  const uint64_t start = slab_->View(id).array_objects;
  EXPECT_TRUE(slab_->Reap());  // It was used since: only noted.
  EXPECT_EQ(slab_->View(id).array_objects, start);
  EXPECT_TRUE(slab_->Reap());
  EXPECT_EQ(slab_->View(id).array_objects, start - 24);  // A fifth of the limit.
  int rounds = 0;
  while (slab_->Reap()) ASSERT_LT(++rounds, 100);
  EXPECT_EQ(slab_->View(id).slabs, 0u);
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

}  // namespace
}  // namespace mmlab

// What the three slab allocators promise alike: one random program over each, and the answers to wrong frees.

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/random.h"
#include "server/kernel/slab_allocator.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

using Built = std::tuple<SlabAllocatorKind, LayoutKind>;

std::string NameOf(const testing::TestParamInfo<Built>& info) {
  constexpr const char* kKinds[] = {"", "Slub", "Slab", "Slob"};
  return std::string(kKinds[static_cast<int>(std::get<0>(info.param))]) + (std::get<1>(info.param) == LayoutKind::kArm64 ? "Arm64" : "X86");
}

class SlabAllocatorsTest : public testing::TestWithParam<Built> {
 protected:
  void Make(uint32_t pages, int cpus = 1) {
    const auto [kind, layout] = GetParam();
    memory_ = MakeTestMemory(pages, tracer_);
    const uint64_t linear_base = layout == LayoutKind::kArm64 ? 0xffff000000000000 : 0xc0000000;
    slab_ = SlabAllocator::Make(SlabPlatformOf(GetLayout(layout), cpus, kind), linear_base, *memory_, tracer_, 3);
    slab_->AddBootCaches(layout);
  }
  std::vector<std::string> Problems() const {
    std::vector<std::string> problems;
    slab_->CheckInvariants(&problems);
    memory_->CheckInvariants(&problems);
    return problems;
  }
  bool slob() const { return std::get<0>(GetParam()) == SlabAllocatorKind::kSlob; }

  Tracer tracer_;
  std::unique_ptr<BuddyMemory> memory_;
  std::unique_ptr<SlabAllocator> slab_;
};

TEST_P(SlabAllocatorsTest, KnowsWhatIsWrongWithAnAddress) {
  Make(512);
  const SlabCacheId mine = slab_->CreateCache({"mine", 120, 0, 0, true, 0}).value();
  const SlabCacheId other = slab_->CreateCache({"other", 120, 0, 0, true, 0}).value();
  const SlabObject held = *slab_->AllocObject(mine, kGfpKernel);
  const SlabObject kept = *slab_->AllocObject(mine, kGfpKernel);
  const VirtAddr address = slab_->AddressOf(held);
  const SlabObjectView view = slab_->Locate(address, mine);
  EXPECT_EQ(view.fault, SlabFault::kNone);
  EXPECT_EQ(view.start, address);
  EXPECT_EQ(view.object, held);
  EXPECT_EQ(slab_->Locate(address + Bytes(8), mine).fault, SlabFault::kNoObject);
  EXPECT_EQ(slab_->Locate(address, other).fault, SlabFault::kWrongCache);
  EXPECT_EQ(slab_->Locate(VirtAddr(0x1234)).fault, SlabFault::kNotSlab);
  EXPECT_EQ(slab_->Locate(VirtAddr(~uint64_t{0})).fault, SlabFault::kNotSlab);
  slab_->FreeObject(mine, held);
  EXPECT_EQ(slab_->Locate(address, mine).fault, SlabFault::kAlreadyFree);
  EXPECT_FALSE(slab_->FaultReport(address, slab_->Locate(address, mine)).empty());
  EXPECT_EQ(slab_->DestroyCache(mine, "mine"), slob() ? Errno::kOk : Errno::kEBUSY);
  if (slob()) {
    EXPECT_FALSE(slab_->Locate(slab_->AddressOf(kept)).cache.has_value());  // Lost.
  }
  EXPECT_THAT(Problems(), testing::IsEmpty());
}

TEST_P(SlabAllocatorsTest, KreallocMovesOnlyWhenItMust) {
  Make(512);
  const VirtAddr small = *slab_->Kmalloc(100, kGfpKernel);
  const uint64_t usable = slab_->Ksize(small).value();
  EXPECT_GE(usable, 100u);
  EXPECT_EQ(slab_->Krealloc(small, usable, kGfpKernel).value(), small);
  const VirtAddr large = slab_->Krealloc(small, usable + 1, kGfpKernel).value();
  EXPECT_NE(large, small);
  EXPECT_EQ(slab_->Krealloc(large, 0, kGfpKernel).value().raw(), SlabAllocator::kZeroSizePtr);
  EXPECT_EQ(slab_->Ksize(large).error(), Errno::kEFAULT);
  EXPECT_EQ(slab_->Usage().objects, 0u);
}

TEST_P(SlabAllocatorsTest, UsageAddsUp) {
  Make(2048);
  std::vector<VirtAddr> held;
  for (uint64_t bytes = 1; bytes < 40000; bytes = bytes * 3 / 2 + 1) held.push_back(*slab_->Kmalloc(bytes, kGfpKernel));
  uint64_t usable = 0;
  for (const VirtAddr address : held) usable += slab_->Ksize(address).value();
  const SlabUsage usage = slab_->Usage();
  EXPECT_EQ(usage.objects, held.size());
  EXPECT_GE(usage.object_bytes, usable);
  EXPECT_GE(usage.pages * 4096, usage.object_bytes);
  for (const VirtAddr address : held) EXPECT_EQ(slab_->Kfree(address), SlabFault::kNone);
  EXPECT_EQ(slab_->Usage().object_bytes, 0u);
}

// Half a million operations each, so a million for each allocator.
TEST_P(SlabAllocatorsTest, ObjectsAreConserved) {
  Make(4096, 2);
  Random random(7);
  struct Held {
    SlabCacheId cache;
    SlabObject object;
  };
  std::vector<Held> held;
  std::vector<VirtAddr> kmalloced;
  std::vector<SlabCacheId> caches;
  for (const uint32_t size : {16u, 200u, 700u, 3000u, 9000u}) caches.push_back(slab_->CreateCache({"c", size, 0, 0, true, 0}).value());
  caches.push_back(slab_->CreateCache({"aligned", 100, 256, 0, true, 0}).value());
  caches.push_back(slab_->CreateCache({"checked", 100, 0, kSlabRedZone | kSlabPoison | kSlabStoreUser, true, 0}).value());
  caches.push_back(slab_->CreateCache({"rcu", 5000, 0, kSlabTypesafeByRcu, true, 0}).value());
  constexpr int kSteps = 500000;
  for (int step = 0; step < kSteps; ++step) {
    const SlabCacheId cache = caches[random.Below(caches.size())];
    // Grows for a while and shrinks for a while.
    const bool growing = step / 5000 % 2 == 0;
    const uint64_t dice = random.Below(100);
    if (dice < (growing ? 50 : 35)) {
      if (const std::optional<SlabObject> object = slab_->AllocObject(cache, kGfpNowait)) held.push_back({cache, *object});
    } else if (dice < 88 && !held.empty()) {
      const size_t at = random.Below(held.size());
      slab_->FreeObject(held[at].cache, held[at].object);
      held[at] = held.back();
      held.pop_back();
    } else if (dice < 94) {
      if (const std::optional<VirtAddr> address = slab_->Kmalloc(1 + random.Below(20000), kGfpNowait)) kmalloced.push_back(*address);
    } else if (dice < 98 && !kmalloced.empty()) {
      const size_t at = random.Below(kmalloced.size());
      ASSERT_EQ(slab_->Kfree(kmalloced[at]), SlabFault::kNone);
      kmalloced[at] = kmalloced.back();
      kmalloced.pop_back();
    } else if (dice == 98) {
      std::vector<SlabObject> objects(random.Below(60));
      if (slab_->AllocBulk(cache, kGfpNowait, absl::MakeSpan(objects))) slab_->FreeBulk(cache, objects);
    } else if (random.Below(20) == 0) {
      slab_->Shrink(cache);
      slab_->Reap();
    }
    if (step % 9973 == 0) {
      ASSERT_THAT(Problems(), testing::IsEmpty()) << "step " << step;
    }
  }
  for (const Held& object : held) slab_->FreeObject(object.cache, object.object);
  for (const VirtAddr address : kmalloced) EXPECT_EQ(slab_->Kfree(address), SlabFault::kNone);
  for (const SlabCacheId cache : caches) EXPECT_EQ(slab_->DestroyCache(cache, ""), Errno::kOk);
  EXPECT_THAT(Problems(), testing::IsEmpty());
  EXPECT_EQ(slab_->Usage().objects, 0u);
}

TEST_P(SlabAllocatorsTest, TheSameSeedGivesTheSameState) {
  uint64_t hashes[2];
  for (uint64_t& hash : hashes) {
    Make(512);
    for (uint64_t bytes = 1; bytes < 9000; bytes += 91) EXPECT_TRUE(slab_->Kmalloc(bytes, kGfpKernel).has_value());
    StateHasher hasher;
    slab_->AddToHash(hasher);
    hash = hasher.value();
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

INSTANTIATE_TEST_SUITE_P(AllKernels, SlabAllocatorsTest,
                         testing::Combine(testing::Values(SlabAllocatorKind::kSlub, SlabAllocatorKind::kSlab, SlabAllocatorKind::kSlob),
                                          testing::Values(LayoutKind::kX86_32, LayoutKind::kArm64)),
                         NameOf);

}  // namespace
}  // namespace mmlab

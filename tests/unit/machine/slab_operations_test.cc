// Objects of the kernel as operations of a whole machine, under each of the three allocators.

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/explanation.h"
#include "server/kernel/slab_allocator.h"
#include "server/machine/kernel_log.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "tests/unit/machine/slab_machine.h"

namespace mmlab {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

class SlabOperationsTest : public SlabMachineTest {
 protected:
  bool Is(SlabAllocatorKind kind) const { return std::get<1>(GetParam()) == kind; }
  SlabUsage Usage() const {
    SlabUsage usage;
    machine_->ReadSlab([&](const SlabAllocator& slab) { usage = slab.Usage(); });
    return usage;
  }
  int64_t SlabPages() const {
    return machine_->vm_stat().Get(NodeStat::kNrSlabReclaimable) + machine_->vm_stat().Get(NodeStat::kNrSlabUnreclaimable);
  }
  Errno Create(const char* name, uint32_t size) {
    op::KmemCacheCreate create;
    create.cache = name;
    create.object_size = size;
    create.constructor = true;
    return machine_->Apply(create).error;
  }
};

TEST_P(SlabOperationsTest, ManyObjectsComeAndGoAtOnce) {
  ASSERT_EQ(Create("mine", 300), Errno::kOk);
  const uint64_t at_first = Usage().objects;  // The cache itself.
  op::KmemCacheAllocBulk alloc;
  alloc.cache = "mine";
  alloc.count = 500;
  const Outcome taken = machine_->Apply(alloc);
  ASSERT_EQ(taken.error, Errno::kOk);
  EXPECT_EQ(taken.value, 500u);
  ASSERT_EQ(taken.addresses.size(), 500u);
  EXPECT_EQ(Usage().objects, at_first + 500);
  EXPECT_GE(SlabPages(), 500 * 300 / 4096);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());

  op::KmemCacheFreeBulk free;
  free.cache = "mine";
  free.addresses = taken.addresses;
  free.addresses.push_back(taken.addresses[7]);
  const Outcome twice = machine_->Apply(free);
  EXPECT_EQ(twice.error, Errno::kEINVAL);
  EXPECT_THAT(twice.data, testing::Not(IsEmpty()));
  EXPECT_EQ(Usage().objects, at_first + 500);  // One wrong address: nothing was freed.
  free.addresses.pop_back();
  EXPECT_EQ(machine_->Apply(free).value, 500u);
  EXPECT_EQ(Usage().objects, at_first);
  EXPECT_EQ(machine_->Apply(free).error, Errno::kEINVAL);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());

  alloc.count = 65537;
  EXPECT_EQ(machine_->Apply(alloc).error, Errno::kEINVAL);
  alloc.cache = "nobody's";
  EXPECT_EQ(machine_->Apply(alloc).error, Errno::kENOENT);
}

TEST_P(SlabOperationsTest, AWrongFreeChangesNothingAndSaysWhy) {
  op::Kmalloc kmalloc;
  kmalloc.size = 100;
  const uint64_t address = machine_->Apply(kmalloc).value;
  const SlabUsage usage = Usage();
  op::Kfree kfree;
  for (const uint64_t wrong : {address + 4, uint64_t{0x1000}, ~uint64_t{0}}) {
    kfree.address = wrong;
    const Outcome outcome = machine_->Apply(kfree);
    EXPECT_EQ(outcome.error, Errno::kEINVAL);
    EXPECT_THAT(outcome.data, testing::Not(IsEmpty()));
  }
  EXPECT_EQ(Usage().object_bytes, usage.object_bytes);
  EXPECT_EQ(Usage().pages, usage.pages);
  EXPECT_THAT(machine_->kernel_log().Text(), testing::Not(IsEmpty()));
  kfree.address = address;
  EXPECT_EQ(machine_->Apply(kfree).error, Errno::kOk);
  const Outcome again = machine_->Apply(kfree);
  EXPECT_EQ(again.error, Errno::kEINVAL);
  if (Is(SlabAllocatorKind::kSlub)) {
    EXPECT_THAT(again.data, HasSubstr("Object already free"));
  }
  if (Is(SlabAllocatorKind::kSlab)) {
    EXPECT_THAT(again.data, HasSubstr("double free detected in cache"));
  }
}

TEST_P(SlabOperationsTest, ACacheWithObjectsStaysAndSaysWhichRemain) {
  if (Is(SlabAllocatorKind::kSlob)) return;  // Knows of no objects.
  ASSERT_EQ(Create("mine", 300), Errno::kOk);
  op::KmemCacheAlloc alloc;
  alloc.cache = "mine";
  const uint64_t address = machine_->Apply(alloc).value;
  const Outcome busy = machine_->Apply(op::KmemCacheDestroy{"mine"});
  EXPECT_EQ(busy.error, Errno::kEBUSY);
  EXPECT_THAT(busy.data, HasSubstr("kmem_cache_destroy mine: Slab cache still has objects"));
  if (Is(SlabAllocatorKind::kSlub)) {
    EXPECT_THAT(busy.data, AllOf(HasSubstr("Objects remaining in mine on __kmem_cache_shutdown()"),
                                 HasSubstr(absl::StrFormat("Object 0x%0*x @offset=", machine_->layout().word_bytes * 2, address))));
  }
  EXPECT_THAT(machine_->kernel_log().Text(), HasSubstr("still has objects"));
  op::KmemCacheFree free;
  free.cache = "mine";
  free.address = address;
  EXPECT_EQ(machine_->Apply(free).error, Errno::kOk);
  EXPECT_EQ(machine_->Apply(op::KmemCacheDestroy{"mine"}).error, Errno::kOk);
  EXPECT_THAT(machine_->Apply(op::KmemCacheDestroy{"dentry"}).data, IsEmpty());
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_P(SlabOperationsTest, WhatIsZeroedHoldsZeros) {
  op::Kmalloc kmalloc;
  kmalloc.size = 5000;
  const uint64_t address = machine_->Apply(kmalloc).value;
  ASSERT_EQ(machine_->Apply(op::WriteSlabMemory{address + 4090, std::string(100, 'x')}).error, Errno::kOk);
  op::Kfree kfree;
  kfree.address = address;
  machine_->Apply(kfree);
  kmalloc.zero = true;
  ASSERT_EQ(machine_->Apply(kmalloc).value, address);
  machine_->ReadSlab([&](const SlabAllocator& slab) {
    const uint64_t offset = (VirtAddr(address) - slab.AddressOfPage(Pfn(0))).raw();
    for (const uint64_t page : {offset / 4096, offset / 4096 + 1}) {
      std::string bytes(904, '?');
      machine_->memory().contents().Read(Pfn(page), 0, bytes.data(), bytes.size());
      EXPECT_EQ(bytes, std::string(904, '\0')) << page;
    }
  });
}

TEST_P(SlabOperationsTest, WhatIsAccountedComesFromOtherCaches) {
  if (Is(SlabAllocatorKind::kSlob)) return;
  op::Kmalloc kmalloc;
  kmalloc.size = 1000;
  kmalloc.gfp = op::GfpClass::kAccount;
  const VirtAddr address(machine_->Apply(kmalloc).value);
  machine_->ReadSlab([&](const SlabAllocator& slab) { EXPECT_EQ(slab.View(*slab.Locate(address).cache).name, "kmalloc-cg-1k"); });
}

TEST_P(SlabOperationsTest, BootsSlabsAreTheKernels) {
  const BuddyMemory& memory = machine_->memory();
  const uint64_t free = memory.free_pages().raw();
  EXPECT_EQ(memory.managed_pages().raw(), free + memory.boot_slab_pages());
  if (!Is(SlabAllocatorKind::kSlub)) {
    EXPECT_EQ(memory.boot_slab_pages(), 0u);  // The recorded kernels had SLUB.
    return;
  }
  EXPECT_GT(memory.boot_slab_pages(), 2000u);
  uint64_t slabs = 0;
  std::optional<VirtAddr> inside;
  machine_->ReadSlab([&](const SlabAllocator& slab) {
    for (const SlabCacheId id : slab.Caches()) {
      const SlabCacheView view = slab.View(id);
      EXPECT_EQ(view.boot_total_objects, view.boot_slabs * view.geometry.objects) << view.name;
      slabs += view.boot_slabs << view.geometry.order;
    }
    for (uint64_t pfn = 0; pfn < memory.end_pfn().raw() && !inside; ++pfn) {
      if (slab.InBootSlab(slab.AddressOfPage(Pfn(pfn)))) inside = slab.AddressOfPage(Pfn(pfn));
    }
  });
  EXPECT_LE(slabs, memory.boot_slab_pages());
  EXPECT_LT(memory.boot_slab_pages() - slabs, 400u);  // Of large kmalloc()s.
  ASSERT_TRUE(inside.has_value());
  op::Kfree kfree;
  kfree.address = inside->raw();
  EXPECT_EQ(machine_->Apply(kfree).error, Errno::kEBUSY);
  EXPECT_EQ(machine_->Apply(op::WriteSlabMemory{inside->raw(), "x"}).error, Errno::kEBUSY);
  EXPECT_EQ(machine_->Apply(op::Ksize{inside->raw()}).error, Errno::kEFAULT);
  EXPECT_EQ(memory.FrameCounts()[static_cast<size_t>(FrameState::kSlab)], memory.boot_slab_pages());
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_P(SlabOperationsTest, WritesStayInsideAnObjectThatSomebodyHolds) {
  ASSERT_EQ(Create("mine", 300), Errno::kOk);
  op::KmemCacheAlloc alloc;
  alloc.cache = "mine";
  const uint64_t address = machine_->Apply(alloc).value;
  const auto write = [&](uint64_t at, const std::string& data) { return machine_->Apply(op::WriteSlabMemory{at, data}); };
  EXPECT_EQ(write(address + 290, "0123456789").value, 10u);
  EXPECT_EQ(write(0x1000, "x").error, Errno::kEFAULT);
  const Outcome beyond = write(address + 295, "0123456789");
  EXPECT_EQ(beyond.error, Errno::kEINVAL);
  EXPECT_THAT(beyond.data, testing::Not(IsEmpty()));
  op::KmemCacheFree free;
  free.cache = "mine";
  free.address = address;
  EXPECT_EQ(machine_->Apply(free).error, Errno::kOk);
  if (Is(SlabAllocatorKind::kSlob)) return;  // Its page is gone, and it would notice nothing.
  EXPECT_EQ(write(address + 16, "kk").error, Errno::kOk) << "the poison itself";
  const Outcome after = write(address + 16, "oops");
  EXPECT_EQ(after.error, Errno::kEINVAL);
  if (Is(SlabAllocatorKind::kSlub)) {
    EXPECT_THAT(beyond.data, AllOf(HasSubstr("BUG mine (Not tainted): Right Redzone overwritten"), HasSubstr("instead of 0xcc")));
    EXPECT_THAT(after.data, AllOf(HasSubstr("BUG mine (Not tainted): Poison overwritten\n"), HasSubstr("First byte 0x6f instead of 0x6b\n"),
                                  HasSubstr(": 6f 6f 70 73 6b 6b"), HasSubstr("FIX mine: Restoring Poison 0x"), HasSubstr("=0x6b\n")));
    EXPECT_THAT(machine_->kernel_log().Text(), AllOf(HasSubstr("Poison overwritten"), HasSubstr("FIX mine: Restoring Poison")));
  }
  if (Is(SlabAllocatorKind::kSlab)) {
    EXPECT_THAT(after.data, AllOf(HasSubstr("Slab corruption (Not tainted): mine start="), HasSubstr("len=300\n010: 6f 6f 70 73 6b")));
  }
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_P(SlabOperationsTest, SlabinfoIsWrittenWhereThereAreTunables) {
  ASSERT_EQ(Create("mine", 300), Errno::kOk);
  const Outcome outcome = machine_->Apply(op::WriteSlabinfo{"mine 20 10 4"});
  EXPECT_EQ(outcome.error, Is(SlabAllocatorKind::kSlub) ? Errno::kEIO : Is(SlabAllocatorKind::kSlob) ? Errno::kENOENT : Errno::kOk);
  EXPECT_EQ(machine_->Apply(op::WriteSlabinfo{"nobody 20 10 4"}).error, Is(SlabAllocatorKind::kSlub)   ? Errno::kEIO
                                                                        : Is(SlabAllocatorKind::kSlob) ? Errno::kENOENT
                                                                                                       : Errno::kEINVAL);
}

TEST_P(SlabOperationsTest, KfreeOfAnObjectOfACacheIsSlobsUndoing) {
  ASSERT_EQ(Create("mine", 300), Errno::kOk);
  op::KmemCacheAlloc alloc;
  alloc.cache = "mine";
  op::Kfree kfree;
  kfree.address = machine_->Apply(alloc).value;
  EXPECT_EQ(machine_->Apply(kfree).error, Is(SlabAllocatorKind::kSlob) ? Errno::kEINVAL : Errno::kOk);
}

TEST_P(SlabOperationsTest, TimeBringsBackWhatSlabKeeps) {
  op::Kmalloc kmalloc;
  kmalloc.size = 3000;
  op::Kfree kfree;
  std::vector<uint64_t> held;
  for (int i = 0; i < 100; ++i) held.push_back(machine_->Apply(kmalloc).value);
  for (const uint64_t address : held) {
    kfree.address = address;
    EXPECT_EQ(machine_->Apply(kfree).error, Errno::kOk);
  }
  const int64_t kept = SlabPages();
  EXPECT_EQ(kept == 0, Is(SlabAllocatorKind::kSlob));
  op::AdvanceTime advance;
  advance.nanoseconds = 4'000'000'000;
  machine_->Apply(advance);
  if (Is(SlabAllocatorKind::kSlab)) {
    EXPECT_LT(SlabPages(), kept);
  }
  advance.nanoseconds = int64_t{3600} * 1'000'000'000;
  machine_->Apply(advance);
  EXPECT_EQ(SlabPages(), Is(SlabAllocatorKind::kSlub) ? kept : 0);
  advance.nanoseconds = int64_t{200} * 365 * 86400 * 1'000'000'000;  // Does not take long.
  machine_->Apply(advance);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_P(SlabOperationsTest, NoObjectComesFromHighMemory) {
  const bool highmem = machine_->kernel_layout().has_highmem_zone();
  op::Kmalloc kmalloc;
  kmalloc.size = 3000;
  kmalloc.gfp = op::GfpClass::kHighuserMovable;
  Explanation why;
  const Outcome outcome = machine_->Apply(kmalloc, &why);
  ASSERT_EQ(outcome.error, Errno::kOk);
  machine_->ReadSlab([&](const SlabAllocator& slab) {
    const Pfn pfn = slab.Locate(VirtAddr(outcome.value)).slab.pfn;
    if (highmem) {
      EXPECT_LT(pfn, machine_->kernel_layout().highstart_pfn);
    }
  });
  EXPECT_EQ(ExplanationText(why).find("ZONE_HIGHMEM") != std::string::npos, highmem);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(AllKernels, SlabOperationsTest,
                         testing::Combine(testing::Values("686-1G-smp4", "arm64-1G"),
                                          testing::Values(SlabAllocatorKind::kSlub, SlabAllocatorKind::kSlab, SlabAllocatorKind::kSlob)),
                         SlabMachineName);

}  // namespace
}  // namespace mmlab

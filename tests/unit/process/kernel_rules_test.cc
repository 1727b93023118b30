#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/process/address_space.h"
#include "tests/unit/process/memory_lab.h"

// Rules of the kernel that only its source tells: one line each, what is called and what Linux answers.

namespace mmlab {
namespace {

struct RuleCase {
  const char* name;
  LayoutKind layout;
  // What is done; the last call's errno.
  Errno (*program)(MemoryLab& lab);
  Errno answer;
};
class KernelRuleTest : public testing::TestWithParam<RuleCase> {};

TEST_P(KernelRuleTest, AnswersAsLinux) {
  MemoryLab lab(GetParam().layout);
  lab.processes->limits().shmmax = lab.processes->limits().shmall = ~uint64_t{0};
  EXPECT_EQ(GetParam().program(lab), GetParam().answer);
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
}

Errno Shmget(MemoryLab& lab, uint64_t size, uint32_t flags) { return lab.processes->Shmget(lab.pid, 0, size, flags | 0x380).error(); }

// A new segment of two pages, attached with these arguments.
Errno Attach(MemoryLab& lab, uint64_t address, uint32_t flags) {
  const auto id = lab.processes->Shmget(lab.pid, 0, 2 * kPage, 0x380);
  EXPECT_TRUE(id.ok());
  return lab.processes->Shmat(lab.pid, static_cast<int32_t>(id.value()), address, flags).error();
}

Errno Advise(MemoryLab& lab, uint64_t page, uint64_t pages, int32_t advice) {
  return lab.processes->Madvise(lab.pid, MemoryLab::At(page), pages * kPage, advice);
}

Errno Grow(MemoryLab& lab, uint64_t page, uint64_t pages, uint64_t new_pages, uint32_t flags, uint64_t to = 0) {
  return lab.processes->Mremap(lab.pid, MemoryLab::At(page), pages * kPage, new_pages * kPage, flags, MemoryLab::At(to)).error();
}

constexpr auto kX86 = LayoutKind::kX86_32;
constexpr auto kArm = LayoutKind::kArm64;

INSTANTIATE_TEST_SUITE_P(
    SharedMemory, KernelRuleTest,
    testing::Values(
        RuleCase{"SegmentThatWrapsWhenRoundedUp", kArm, [](MemoryLab& l) { return Shmget(l, ~uint64_t{0}, 0); }, Errno::kENOSPC},
        RuleCase{"SegmentThatWrapsIn32Bits", kX86, [](MemoryLab& l) { return Shmget(l, 0xffffffff, 0); }, Errno::kENOSPC},
        RuleCase{"SegmentLargerThanAnyFile", kArm, [](MemoryLab& l) { return Shmget(l, uint64_t{1} << 63, 0); }, Errno::kEINVAL},
        RuleCase{"HugeSegmentNeedsACapability", kX86, [](MemoryLab& l) { return Shmget(l, kPage, 0x800); }, Errno::kEPERM},
        RuleCase{"HugeSegmentOfAnUnknownSize", kArm, [](MemoryLab& l) { return Shmget(l, kPage, 0x800 | (20u << 26)); }, Errno::kEINVAL},
        RuleCase{"UnalignedAddress", kX86, [](MemoryLab& l) { return Attach(l, MemoryLab::At(0) + 1, 0); }, Errno::kEINVAL},
        RuleCase{"UnalignedAddressRoundedDown", kX86, [](MemoryLab& l) { return Attach(l, MemoryLab::At(0) + 1, 0x2000); }, Errno::kOk},
        RuleCase{"RoundedDownToZero", kX86, [](MemoryLab& l) { return Attach(l, 1, 0x2000); }, Errno::kEPERM},
        RuleCase{"RoundedDownToZeroWithRemap", kX86, [](MemoryLab& l) { return Attach(l, 1, 0x6000); }, Errno::kEINVAL},
        RuleCase{"RemapWithoutAnAddress", kArm, [](MemoryLab& l) { return Attach(l, 0, 0x4000); }, Errno::kEINVAL},
        RuleCase{"OverAMapping", kX86,
                 [](MemoryLab& l) {
                   l.Map(l.pid, 1, 1, 3, kPrivateAnon);
                   return Attach(l, MemoryLab::At(0), 0);
                 },
                 Errno::kEINVAL},
        RuleCase{"OverAMappingWithRemap", kX86,
                 [](MemoryLab& l) {
                   l.Map(l.pid, 1, 1, 3, kPrivateAnon);
                   return Attach(l, MemoryLab::At(0), 0x4000);
                 },
                 Errno::kOk},
        RuleCase{"RangeThatWraps", kArm, [](MemoryLab& l) { return Attach(l, ~uint64_t{0} - kPage + 1, 0); }, Errno::kEINVAL}),
    [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Limits, KernelRuleTest,
    testing::Values(RuleCase{"OpenFilesBeyondTheSysctl", kX86, [](MemoryLab& l) { return l.processes->Setrlimit(l.pid, 7, 5, 1048577); },
                             Errno::kEPERM},
                    RuleCase{"SoftAboveHard", kX86, [](MemoryLab& l) { return l.processes->Setrlimit(l.pid, 9, 2, 1); }, Errno::kEINVAL},
                    RuleCase{"NoSuchLimit", kArm, [](MemoryLab& l) { return l.processes->Setrlimit(l.pid, 16, 0, 0); }, Errno::kEINVAL},
                    RuleCase{"HardLimitNeverGoesUp", kArm,
                             [](MemoryLab& l) {
                               l.processes->Setrlimit(l.pid, 9, 1, 2);
                               return l.processes->Setrlimit(l.pid, 9, 1, 3);
                             },
                             Errno::kEPERM},
                    // Valgrind's limit: a soft one of zero lets the hard one count.
                    RuleCase{"DataLimitZeroFallsBackToTheHardOne", kX86,
                             [](MemoryLab& l) {
                               l.processes->Setrlimit(l.pid, 2, 0, ~uint64_t{0});
                               return l.processes->Mmap(l.pid, 0, kPage, 3, kPrivateAnon, -1, 0).error();
                             },
                             Errno::kOk},
                    RuleCase{"DataLimitOnMprotect", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 4, 1, kPrivateAnon);
                               l.processes->Setrlimit(l.pid, 2, kPage, ~uint64_t{0});
                               return l.processes->Mprotect(l.pid, MemoryLab::At(0), 4 * kPage, 3);
                             },
                             Errno::kENOMEM},
                    RuleCase{"LockedMappingBeyondTheLimit", kX86,
                             [](MemoryLab& l) {
                               l.processes->Setrlimit(l.pid, 8, 2 * kPage, 2 * kPage);
                               return l.processes->Mmap(l.pid, 0, 3 * kPage, 3, kPrivateAnon | 0x2000, -1, 0).error();
                             },
                             Errno::kEAGAIN},
                    RuleCase{"LockedMappingWithoutAnyLimit", kX86,
                             [](MemoryLab& l) {
                               l.processes->Setrlimit(l.pid, 8, 0, 0);
                               return l.processes->Mmap(l.pid, 0, kPage, 3, kPrivateAnon | 0x2000, -1, 0).error();
                             },
                             Errno::kEPERM},
                    RuleCase{"GrowingLockedMemoryBeyondTheLimit", kArm,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 2, 3, kPrivateAnon | 0x2000);
                               l.processes->Setrlimit(l.pid, 8, 3 * kPage, 3 * kPage);
                               return Grow(l, 0, 2, 4, 1);
                             },
                             Errno::kEAGAIN},
                    RuleCase{"LockedTwiceCountsOnce", kArm,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 3, 3, kPrivateAnon);
                               l.processes->Setrlimit(l.pid, 8, 3 * kPage, 3 * kPage);
                               l.processes->Mlock(l.pid, MemoryLab::At(0), 3 * kPage, 0);
                               return l.processes->Mlock(l.pid, MemoryLab::At(1), 2 * kPage, 0);
                             },
                             Errno::kOk},
                    RuleCase{"MappingsBeyondTheLimit", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 3, 3, kPrivateAnon);
                               l.processes->limits().max_map_count = static_cast<int64_t>(l.process(l.pid).mm->map_count().raw());
                               return l.processes->Munmap(l.pid, MemoryLab::At(1), kPage);
                             },
                             Errno::kENOMEM},
                    RuleCase{"AdviceBeyondTheLimitOfMappings", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 3, 3, kPrivateAnon);
                               l.processes->limits().max_map_count = static_cast<int64_t>(l.process(l.pid).mm->map_count().raw());
                               return Advise(l, 1, 1, 10);
                             },
                             Errno::kEAGAIN},
                    RuleCase{"MovingNearTheLimitOfMappings", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 3, 3, kPrivateAnon);
                               l.processes->limits().max_map_count = static_cast<int64_t>(l.process(l.pid).mm->map_count().raw()) + 5;
                               return Grow(l, 0, 1, 1, 3, 100);
                             },
                             Errno::kENOMEM},
                    RuleCase{"MovingFurtherFromTheLimitOfMappings", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 3, 3, kPrivateAnon);
                               l.processes->limits().max_map_count = static_cast<int64_t>(l.process(l.pid).mm->map_count().raw()) + 6;
                               return Grow(l, 0, 1, 1, 3, 100);
                             },
                             Errno::kOk}),
    [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Advice, KernelRuleTest,
    testing::Values(RuleCase{"HoleFarBeyondADisksFile", kArm,
                             [](MemoryLab& l) {
                               EXPECT_TRUE(l.processes->Mmap(l.pid, kBase, kPage, 3, 0x1 | kFixed, 11, uint64_t{1} << 45).ok());
                               return Advise(l, 0, 1, 9);
                             },
                             Errno::kEFBIG},
                    RuleCase{
                        "MappingBeyondWhatAFrameCanName", kArm,
                        [](MemoryLab& l) { return l.processes->Mmap(l.pid, kBase, kPage, 3, 0x1 | kFixed, 10, uint64_t{1} << 51).error(); },
                        Errno::kEOVERFLOW},
                    RuleCase{"HoleInPrivateMemory", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 1, 3, 0x2, 10);
                               return Advise(l, 0, 1, 9);
                             },
                             Errno::kEACCES},
                    RuleCase{"DontneedOfLockedMemory", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 1, 3, kPrivateAnon | 0x2000);
                               return Advise(l, 0, 1, 4);
                             },
                             Errno::kEINVAL},
                    RuleCase{"DontneedLockedOfLockedMemory", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 1, 3, kPrivateAnon | 0x2000);
                               return Advise(l, 0, 1, 24);
                             },
                             Errno::kOk},
                    RuleCase{"FreeOfAFilesMemory", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 1, 3, 0x2, 10);
                               return Advise(l, 0, 1, 8);
                             },
                             Errno::kEINVAL},
                    RuleCase{"WipeOnForkOfSharedMemory", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 1, 3, kSharedAnon);
                               return Advise(l, 0, 1, 18);
                             },
                             Errno::kEINVAL},
                    RuleCase{"PopulateOfMemoryThatCannotBeRead", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 1, 0, kPrivateAnon);
                               return Advise(l, 0, 1, 22);
                             },
                             Errno::kEINVAL},
                    RuleCase{"PopulateBeyondAFile", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 2, 3, 0x1, 10, 19);
                               return Advise(l, 0, 2, 22);
                             },
                             Errno::kEFAULT},
                    RuleCase{"AHoleInTheRange", kX86,
                             [](MemoryLab& l) {
                               l.Map(l.pid, 0, 1, 3, kPrivateAnon);
                               l.Map(l.pid, 2, 1, 3, kPrivateAnon);
                               return Advise(l, 0, 3, 4);
                             },
                             Errno::kENOMEM},
                    RuleCase{"HardwarePoisonNeedsACapability", kArm, [](MemoryLab& l) { return Advise(l, 0, 1, 100); }, Errno::kEPERM}),
    [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(Mremap, KernelRuleTest,
                         testing::Values(RuleCase{"DontUnmapWithAnotherLength", kX86,
                                                  [](MemoryLab& l) {
                                                    l.Map(l.pid, 0, 2, 3, kPrivateAnon);
                                                    return Grow(l, 0, 1, 2, 5);
                                                  },
                                                  Errno::kEINVAL},
                                         RuleCase{"FixedOntoItself", kX86,
                                                  [](MemoryLab& l) {
                                                    l.Map(l.pid, 0, 4, 3, kPrivateAnon);
                                                    return Grow(l, 0, 2, 2, 3, 1);
                                                  },
                                                  Errno::kEINVAL},
                                         RuleCase{"OldLengthAcrossTwoVmas", kX86,
                                                  [](MemoryLab& l) {
                                                    l.Map(l.pid, 0, 1, 3, kPrivateAnon);
                                                    l.Map(l.pid, 1, 1, 1, kPrivateAnon);
                                                    return Grow(l, 0, 2, 3, 1);
                                                  },
                                                  Errno::kEFAULT},
                                         RuleCase{"DuplicateOfPrivateMemory", kX86,
                                                  [](MemoryLab& l) {
                                                    l.Map(l.pid, 0, 1, 3, kPrivateAnon);
                                                    return Grow(l, 0, 0, 1, 1);
                                                  },
                                                  Errno::kEINVAL},
                                         RuleCase{"DuplicateOfSharedMemory", kX86,
                                                  [](MemoryLab& l) {
                                                    l.Map(l.pid, 0, 1, 3, kSharedAnon);
                                                    return Grow(l, 0, 0, 1, 1);
                                                  },
                                                  Errno::kOk},
                                         RuleCase{"NoRoomToGrowInPlace", kX86,
                                                  [](MemoryLab& l) {
                                                    l.Map(l.pid, 0, 1, 3, kPrivateAnon);
                                                    l.Map(l.pid, 1, 1, 1, kPrivateAnon);
                                                    return Grow(l, 0, 1, 2, 0);
                                                  },
                                                  Errno::kENOMEM},
                                         RuleCase{"FixedWithoutMayMove", kX86, [](MemoryLab& l) { return Grow(l, 0, 1, 1, 2, 1); },
                                                  Errno::kEINVAL},
                                         RuleCase{"NothingThere", kX86, [](MemoryLab& l) { return Grow(l, 0, 1, 2, 1); }, Errno::kEFAULT}),
                         [](const auto& c) { return c.param.name; });

// On ARM64 memory of brk carries VM_MTE_ALLOWED and memory of mmap does not, whatever the CPU: mapped memory behind the heap stays apart.
TEST(HeapTest, OnArm64MappedMemoryNeverMergesWithIt) {
  for (const bool hardware_access_flag : {true, false}) {
    MemoryLab lab(LayoutKind::kArm64, hardware_access_flag);
    const uint64_t start = lab.processes->Brk(lab.pid, 0).value();
    ASSERT_EQ(lab.processes->Brk(lab.pid, start + 2 * kPage).value(), start + 2 * kPage);
    const uint64_t count = lab.process(lab.pid).mm->map_count().raw();
    ASSERT_TRUE(lab.processes->Mmap(lab.pid, start + 2 * kPage, kPage, 3, kPrivateAnon | kFixed, -1, 0).ok());
    EXPECT_EQ(lab.process(lab.pid).mm->map_count().raw(), count + 1);
  }
}

// mlockall(MCL_FUTURE) is not inherited; mlockall(MCL_ONFAULT) locks without faulting in.
TEST(MlockallTest, ChildrenStartUnlocked) {
  MemoryLab lab(LayoutKind::kX86_32);
  lab.Map(lab.pid, 0, 4, 3, kPrivateAnon);
  ASSERT_EQ(lab.processes->Mlockall(lab.pid, 7), Errno::kOk);
  const AddressSpace& parent = *lab.process(lab.pid).mm;
  EXPECT_EQ(parent.locked_vm.raw() + 6, parent.total_vm.raw());  // All but vvar (4 pages) and vdso (2).
  const auto child = lab.processes->Fork(lab.pid, 0);
  ASSERT_TRUE(child.ok());
  const AddressSpace& mm = *lab.process(child.value()).mm;
  EXPECT_EQ(mm.locked_vm, PageCount(0));
  EXPECT_EQ(mm.def_flags, 0u);
  const uint64_t faults = lab.process(lab.pid).minor_faults;
  ASSERT_TRUE(lab.processes->Mmap(lab.pid, 0, kPage, 3, kPrivateAnon, -1, 0).ok());
  EXPECT_EQ(lab.process(lab.pid).minor_faults, faults);
  EXPECT_EQ(parent.locked_vm.raw() + 6, parent.total_vm.raw());
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
}

}  // namespace
}  // namespace mmlab

#include "server/machine/memory_map.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/machine/boot_arguments.h"

namespace mmlab {
namespace {

using Type = FirmwareRange::Type;

FirmwareRange Range(uint64_t start, uint64_t end, Type type = Type::kRam) { return {{PhysAddr(start), PhysAddr(end)}, type}; }

std::string Text(const std::vector<FirmwareRange>& map) {
  std::string out;
  for (const FirmwareRange& r : map) {
    absl::StrAppend(&out, out.empty() ? "" : " ", absl::Hex(r.range.start.raw()), "-", absl::Hex(r.range.end.raw()), ":",
                    static_cast<int>(r.type));
  }
  return out;
}

struct SanitizeCase {
  const char* name;
  std::vector<FirmwareRange> map;
  const char* want;
};
class SanitizeTest : public testing::TestWithParam<SanitizeCase> {};

TEST_P(SanitizeTest, GivesTheKernelsMap) { EXPECT_EQ(Text(SanitizeFirmwareRanges(GetParam().map)), GetParam().want); }

INSTANTIATE_TEST_SUITE_P(
    E820, SanitizeTest,
    testing::Values(
        SanitizeCase{"Empty", {}, ""}, SanitizeCase{"OneRange", {Range(0x1000, 0x2000)}, "1000-2000:1"},
        SanitizeCase{"Unsorted", {Range(0x5000, 0x6000), Range(0x1000, 0x2000)}, "1000-2000:1 5000-6000:1"},
        SanitizeCase{"NeighboursOfOneTypeJoin", {Range(0x1000, 0x2000), Range(0x2000, 0x3000)}, "1000-3000:1"},
        SanitizeCase{"NeighboursOfTwoTypesStay", {Range(0x1000, 0x2000), Range(0x2000, 0x3000, Type::kAcpi)}, "1000-2000:1 2000-3000:3"},
        SanitizeCase{"OverlappingRamJoins", {Range(0x1000, 0x3000), Range(0x2000, 0x5000)}, "1000-5000:1"},
        SanitizeCase{
            "ReservedBeatsRam", {Range(0x1000, 0x9000), Range(0x3000, 0x4000, Type::kReserved)}, "1000-3000:1 3000-4000:2 4000-9000:1"},
        SanitizeCase{"HigherTypeBeatsLower",
                     {Range(0x1000, 0x9000, Type::kReserved), Range(0x3000, 0x4000, Type::kUnusable), Range(0x3800, 0x5000, Type::kNvs)},
                     "1000-3000:2 3000-4000:5 4000-5000:4 5000-9000:2"},
        SanitizeCase{"RamCannotUncoverReserved", {Range(0x3000, 0x4000, Type::kReserved), Range(0x3000, 0x4000)}, "3000-4000:2"},
        SanitizeCase{"SameRangeTwice", {Range(0x1000, 0x2000), Range(0x1000, 0x2000)}, "1000-2000:1"},
        SanitizeCase{"EmptyRangesVanish", {Range(0x1000, 0x1000), Range(0x3000, 0x2000), Range(0x4000, 0x5000)}, "4000-5000:1"},
        SanitizeCase{"OddAddressesStay", {Range(0x9fc00, 0xa0000, Type::kReserved), Range(0, 0x9fc00)}, "0-9fc00:1 9fc00-a0000:2"}),
    [](const auto& test) { return test.param.name; });

struct EditCase {
  const char* name;
  const char* command_line;
  const char* want;
};
class EditTest : public testing::TestWithParam<EditCase> {};

// parse_memmap_one() and parse_memopt(), on a machine of 256 MiB.
TEST_P(EditTest, ChangesTheMapAsTheCommandLineSays) {
  const std::vector<FirmwareRange> firmware = {Range(0, 0x9fc00), Range(0x9fc00, 0xa0000, Type::kReserved), Range(0x100000, 0x10000000),
                                               Range(0xfffc0000, 0x100000000, Type::kReserved)};
  EXPECT_EQ(Text(EditFirmwareRanges(LayoutKind::kX86_32, firmware, ParseBootArguments(GetParam().command_line).edits)), GetParam().want);
}

#define LOW "0-9fc00:1 9fc00-a0000:2 "
#define TOP " fffc0000-100000000:2"
INSTANTIATE_TEST_SUITE_P(
    Memmap, EditTest,
    testing::Values(
        EditCase{"Nothing", "quiet", LOW "100000-10000000:1" TOP}, EditCase{"Limit", "memmap=128M", LOW "100000-8000000:1" TOP},
        EditCase{"MemIsALimitToo", "mem=0x8000000", LOW "100000-8000000:1" TOP},
        EditCase{"MemZeroIsNone", "mem=0", LOW "100000-10000000:1" TOP}, EditCase{"Octal", "mem=01000000000", LOW "100000-8000000:1" TOP},
        EditCase{"AddsRam", "memmap=64M@0x20000000", LOW "100000-10000000:1 20000000-24000000:1" TOP},
        EditCase{"AddsAcpi", "memmap=64K#0x8000000", LOW "100000-8000000:1 8000000-8010000:3 8010000-10000000:1" TOP},
        EditCase{"Reserves", "memmap=64M$0x8000000", LOW "100000-8000000:1 8000000-c000000:2 c000000-10000000:1" TOP},
        EditCase{"PersistentMemoryIsNoRam", "memmap=64M!0x8000000", LOW "100000-8000000:1 8000000-c000000:2 c000000-10000000:1" TOP},
        EditCase{"Exactmap", "memmap=exactmap memmap=640K@0 memmap=255M@1M", "0-a0000:1 100000-10000000:1"},
        EditCase{"ExactmapInOneList", "memmap=exactmap,640K@0,255M@1M", "0-a0000:1 100000-10000000:1"},
        EditCase{"ExactmapForgetsWhatWasBefore", "memmap=64M@0x20000000,exactmap,1M@0", "0-100000:1"},
        EditCase{"ChangesOneTypeToAnother", "memmap=64K%0xffff0000-2+1", LOW "100000-10000000:1 fffc0000-ffff0000:2 ffff0000-100000000:1"},
        EditCase{"ChangesNothingOfAnotherType", "memmap=16M%0x8000000-2+1", LOW "100000-10000000:1" TOP},
        EditCase{"ChangesToAType", "memmap=16M%0x8000000+2", LOW "100000-8000000:1 8000000-9000000:2 9000000-10000000:1" TOP},
        EditCase{"RemovesAType", "memmap=16M%0x8000000-1", LOW "100000-8000000:1 9000000-10000000:1" TOP},
        EditCase{"RemovesWhatever", "memmap=1M%0", "100000-10000000:1" TOP},
        EditCase{"TrailingTextVoidsAChange", "memmap=16M%0x8000000-1+2x", LOW "100000-10000000:1" TOP},
        EditCase{"TrailingTextDoesNotVoidAnAddition", "memmap=64M@0x20000000x", LOW "100000-10000000:1 20000000-24000000:1" TOP},
        EditCase{"NoNumberIsNothing", "memmap=abc memmap= memmap", LOW "100000-10000000:1" TOP},
        EditCase{"WhatIsForInitIsNot", "-- memmap=1M", LOW "100000-10000000:1" TOP}),
    [](const auto& test) { return test.param.name; });
#undef LOW
#undef TOP

TEST(KernelMemoryMapTest, X86KeepsTheFirstPageAndTheBiosHole) {
  MachineSpec spec;
  spec.firmware_ranges = {Range(0, 0x200000)};
  EXPECT_EQ(Text(KernelMemoryMap(spec)), "0-1000:2 1000-a0000:1 100000-200000:1");
}

TEST(KernelMemoryMapTest, WhatTheLayoutCannotAddressIsLeftOut) {
  MachineSpec spec;
  spec.firmware_ranges = {Range(0x100000, 0x200000), Range(0x100000000, 0x140000000), Range(0x2000000000, 0x3000000000)};
  EXPECT_EQ(Text(KernelMemoryMap(spec)), "100000-200000:1");
  spec.layout = LayoutKind::kX86_32Pae;
  EXPECT_EQ(Text(KernelMemoryMap(spec)), "100000-200000:1 100000000-140000000:1");
  spec.firmware_ranges[2].range.start = PhysAddr(0xf00000000);
  EXPECT_EQ(Text(KernelMemoryMap(spec)), "100000-200000:1 100000000-140000000:1 f00000000-3000000000:1");
  spec.layout = LayoutKind::kArm64;
  EXPECT_EQ(KernelMemoryMap(spec).size(), 3u);
}

TEST(RamFramesTest, OnlyWholeFramesCount) {
  const std::vector<PfnRange> ram = RamFrames(PageSize(12), {Range(0x1001, 0x9fc00), Range(0x100000, 0x100fff), Range(0x200000, 0x202000)});
  EXPECT_EQ(ram, (std::vector<PfnRange>{{Pfn(2), Pfn(0x9f)}, {Pfn(0x200), Pfn(0x202)}}));
}

struct LowmemCase {
  const char* name;
  LayoutKind layout;
  uint64_t ram_end;
  uint64_t max_low_pfn;
  uint64_t vmalloc_kib;
};
class LowmemTest : public testing::TestWithParam<LowmemCase> {};

// "... LOWMEM available" and VmallocTotal of recorded boots.
TEST_P(LowmemTest, EndsWhereTheKernelSays) {
  const LowmemCase& c = GetParam();
  const std::vector<PfnRange> ram = {{Pfn(1), Pfn(c.ram_end >> 12)}};
  MachineSpec spec;
  spec.layout = c.layout;
  const auto layout = KernelLayoutOf(spec, ram);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->max_low_pfn, Pfn(c.max_low_pfn));
  EXPECT_EQ((layout->vmalloc_end - layout->vmalloc_start).raw() >> 10, c.vmalloc_kib);
}

INSTANTIATE_TEST_SUITE_P(Recorded, LowmemTest,
                         testing::Values(LowmemCase{"X86_64M", LayoutKind::kX86_32, 0x3fdd000, 0x3fdd, 954500},
                                         LowmemCase{"X86_512M", LayoutKind::kX86_32, 0x1ffdd000, 0x1ffdd, 495748},
                                         LowmemCase{"X86_1G", LayoutKind::kX86_32, 0x3ffdd000, 0x36bfe, 122880},
                                         LowmemCase{"Pae1G", LayoutKind::kX86_32Pae, 0x3ffdd000, 0x36ffe, 122880},
                                         LowmemCase{"Pae4G", LayoutKind::kX86_32Pae, 0x140000000, 0x36ffe, 122880},
                                         LowmemCase{"Arm64", LayoutKind::kArm64, 0x80000000, 0x80000, 133143592960}),
                         [](const auto& test) { return test.param.name; });

struct SubtractCase {
  const char* name;
  std::vector<PfnRange> from, cut, want;
};
class SubtractTest : public testing::TestWithParam<SubtractCase> {};
constexpr PfnRange P(uint64_t start, uint64_t end) { return {Pfn(start), Pfn(end)}; }

TEST_P(SubtractTest, LeavesWhatIsNotCovered) { EXPECT_EQ(Subtract(GetParam().from, GetParam().cut), GetParam().want); }

INSTANTIATE_TEST_SUITE_P(Ranges, SubtractTest,
                         testing::Values(SubtractCase{"Nothing", {P(1, 9)}, {}, {P(1, 9)}}, SubtractCase{"All", {P(1, 9)}, {P(0, 10)}, {}},
                                         SubtractCase{"Middle", {P(1, 9)}, {P(3, 4)}, {P(1, 3), P(4, 9)}},
                                         SubtractCase{"Ends", {P(1, 9)}, {P(0, 2), P(8, 12)}, {P(2, 8)}},
                                         SubtractCase{"OneCutOverTwo", {P(1, 4), P(6, 9)}, {P(3, 7)}, {P(1, 3), P(7, 9)}},
                                         SubtractCase{"Touching", {P(1, 4)}, {P(4, 9)}, {P(1, 4)}}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mmlab

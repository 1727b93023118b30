#include "server/machine/boot.h"

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "server/base/explanation.h"
#include "server/machine/board.h"
#include "server/physical/page_allocator.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

// What zoneinfo prints of a zone, as text by name: "min", "spanned", "protection:", "start_pfn:".
using ZoneFigures = std::map<std::string, std::string>;

std::map<std::string, ZoneFigures> ParseZoneinfo(const std::string& text) {
  std::map<std::string, ZoneFigures> zones;
  ZoneFigures* zone = nullptr;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.empty()) continue;
    if (words[0] == "Node") {
      zone = &zones[words.back()];
    } else if (words[0] == "pages" && words[1] == "free") {
      continue;
    } else if (zone != nullptr && words.size() >= 2) {
      zone->emplace(words[0], absl::StrJoin(words.begin() + 1, words.end(), " "));
    }
  }
  return zones;
}

class PresetBootTest : public testing::TestWithParam<std::string> {};

TEST_P(PresetBootTest, ZonesAreThoseOfTheRecordedMachine) {
  MachineSpec spec = PresetSpec(GetParam());
  ASSERT_TRUE(CompleteSpec(spec).ok());
  const absl::StatusOr<PhysicalConfig> config = PlanPhysicalMemory(spec);
  ASSERT_TRUE(config.ok()) << config.status();
  Tracer tracer;
  const BuddyMemory memory(*config, tracer);
  const auto recorded = ParseZoneinfo(RecordedFile(GetParam(), "zoneinfo"));
  ASSERT_EQ(memory.zones().size(), recorded.size());
  for (const Zone& zone : memory.zones()) {
    SCOPED_TRACE(std::string(zone.name()));
    const ZoneFigures& want = recorded.at(std::string(zone.name()));
    const auto expect = [&](const char* figure, uint64_t value) { EXPECT_EQ(absl::StrCat(value), want.at(figure)) << figure; };
    expect("spanned", zone.spanned);
    expect("present", zone.present);
    expect("managed", zone.managed);
    expect("cma", zone.cma_pages);
    expect("min", zone.wmark_min);
    expect("low", zone.wmark_low);
    expect("high", zone.wmark_high);
    EXPECT_EQ(absl::StrCat("(", absl::StrJoin(zone.lowmem_reserve, ", "), ")"), want.at("protection:"));
    if (!zone.populated()) continue;
    expect("start_pfn:", zone.start_pfn);
    expect("high:", zone.pcp[0].high);
    expect("batch:", zone.pcp[0].batch);
    EXPECT_EQ(absl::StrCat("stats threshold: ", zone.stat_threshold), want.at("vm"));
  }
  std::vector<std::string> problems;
  memory.CheckInvariants(&problems);
  EXPECT_EQ(problems, std::vector<std::string>());
}

TEST_P(PresetBootTest, DerivedMinFreeKbytesIsTheRecordedOne) {
  MachineSpec spec = PresetSpec(GetParam());
  ASSERT_TRUE(CompleteSpec(spec).ok());
  Tracer tracer;
  const BuddyMemory memory(*PlanPhysicalMemory(spec), tracer);
  EXPECT_TRUE(
      absl::StrContains(RecordedFile(GetParam(), "sys_vm.tsv"), absl::StrCat("vm.min_free_kbytes\t", memory.min_free_kbytes(), "\n")))
      << memory.min_free_kbytes();
}

INSTANTIATE_TEST_SUITE_P(Presets, PresetBootTest, testing::ValuesIn(PresetNames()), [](const auto& test) { return CaseName(test.param); });

// A kernel's early allocations, done again from the firmware's map, the place of the initramfs and (ARM64) the reserved ranges of iomem,
// leave the page allocator exactly what they left it on the recorded machine.
TEST_P(PresetBootTest, ReservationsFollowFromRules) {
  const MachineSpec preset = PresetSpec(GetParam());
  MachineSpec spec = preset;
  spec.reserved_ranges.clear();
  spec.cma_areas.clear();
  for (const BootReservation& r : preset.reserved_ranges) {
    if (r.purpose == "initramfs" && preset.layout != LayoutKind::kArm64) spec.initramfs = r.range;
  }
  ASSERT_TRUE(CompleteSpec(spec).ok());
  Tracer tracer;
  const BuddyMemory derived(*PlanPhysicalMemory(spec), tracer);
  const BuddyMemory recorded(*PlanPhysicalMemory(preset), tracer);
  for (size_t i = 0; i < derived.zones().size(); ++i) {
    const Zone& got = derived.zones()[i];
    const Zone& want = recorded.zones()[i];
    SCOPED_TRACE(std::string(got.name()));
    EXPECT_EQ(got.managed, want.managed);
    EXPECT_EQ(got.cma_pages, want.cma_pages);
    EXPECT_EQ(got.wmark_min, want.wmark_min);
    EXPECT_EQ(got.wmark_high, want.wmark_high);
  }
}

struct BoardCase {
  const char* name;
  const char* preset;  // Of the same size.
  uint64_t mib;
};
class BoardSizeTest : public testing::TestWithParam<BoardCase> {};

// A board by its size has the managed pages of the recorded one, apart from small structures (and the initramfs, freed there too).
TEST_P(BoardSizeTest, ComesCloseToTheRecordedMachine) {
  const MachineSpec preset = PresetSpec(GetParam().preset);
  MachineSpec board;
  board.layout = preset.layout;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(GetParam().mib << 20), board).ok());
  ASSERT_TRUE(CompleteSpec(board).ok());
  Tracer tracer;
  const BuddyMemory by_size(*PlanPhysicalMemory(board), tracer);
  const BuddyMemory recorded(*PlanPhysicalMemory(preset), tracer);
  for (size_t i = 0; i < by_size.zones().size(); ++i) {
    const Zone& got = by_size.zones()[i];
    const Zone& want = recorded.zones()[i];
    SCOPED_TRACE(std::string(got.name()));
    EXPECT_EQ(got.start_pfn, want.start_pfn);
    EXPECT_EQ(got.spanned, want.spanned);
    EXPECT_EQ(got.present, want.present);
    EXPECT_EQ(got.cma_pages, want.cma_pages);
    EXPECT_NEAR(got.managed, want.managed, 4.0 + want.managed / 1000.0);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, BoardSizeTest,
                         testing::Values(BoardCase{"X86_64M", "686-64M", 64}, BoardCase{"X86_512M", "686-512M", 512},
                                         BoardCase{"X86_1G", "686-1G", 1024}, BoardCase{"Pae1G", "686-pae-1G", 1024},
                                         BoardCase{"Pae4G", "686-pae-4G", 4096}, BoardCase{"Arm64_1G", "arm64-1G", 1024},
                                         BoardCase{"Arm64_4G", "arm64-4G", 4096}),
                         [](const auto& test) { return test.param.name; });

TEST(BoardTest, SizesThatAreRefused) {
  const auto refused = [](LayoutKind layout, uint64_t bytes) {
    MachineSpec spec;
    spec.layout = layout;
    return DescribeUsualBoard(Bytes(bytes), spec).code() == absl::StatusCode::kInvalidArgument;
  };
  constexpr uint64_t kMiB = 1 << 20;
  for (LayoutKind layout : {LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64}) {
    EXPECT_TRUE(refused(layout, 0));
    EXPECT_TRUE(refused(layout, kMiB));
    EXPECT_TRUE(refused(layout, 1024 * kMiB + 4096));
    EXPECT_TRUE(refused(layout, uint64_t{1} << 41));
  }
  EXPECT_TRUE(refused(LayoutKind::kX86_32, 4096 * kMiB));
  EXPECT_FALSE(refused(LayoutKind::kX86_32, 3000 * kMiB));
  EXPECT_TRUE(refused(LayoutKind::kX86_32Pae, 65536 * kMiB));
}

TEST(BoardTest, EverySizeBoots) {
  for (LayoutKind layout : {LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64}) {
    for (uint64_t mib :
         {48, 64, 100, 128, 255, 256, 512, 879, 880, 896, 1024, 2048, 3071, 3583, 3584, 4096, 8192, 32768, 64512, 65536, 1048576}) {
      MachineSpec spec;
      spec.layout = layout;
      spec.cpus = 4;
      if (!DescribeUsualBoard(Bytes(mib << 20), spec).ok()) continue;
      SCOPED_TRACE(absl::StrCat(GetLayout(layout).name, " ", mib, " MiB"));
      ASSERT_TRUE(CompleteSpec(spec).ok());
      const absl::StatusOr<PhysicalConfig> config = PlanPhysicalMemory(spec);
      ASSERT_TRUE(config.ok()) << config.status();
      Tracer tracer;
      const BuddyMemory memory(*config, tracer);
      std::vector<std::string> problems;
      memory.CheckInvariants(&problems);
      EXPECT_EQ(problems, std::vector<std::string>());
      EXPECT_LE(memory.HostMemory(), 256u << 10);
    }
  }
}

struct RefusedCase {
  const char* name;
  std::function<void(MachineSpec&)> spoil;
  const char* field;  // Start of the message.
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};
class RefusedSpecTest : public testing::TestWithParam<RefusedCase> {};

TEST_P(RefusedSpecTest, SaysWhichFieldAndRule) {
  MachineSpec spec = PresetSpec("arm64-1G");
  GetParam().spoil(spec);
  absl::Status status = CompleteSpec(spec);
  if (status.ok()) status = PlanPhysicalMemory(spec).status();
  EXPECT_EQ(status.code(), GetParam().code);
  EXPECT_TRUE(absl::StartsWith(status.message(), GetParam().field)) << status.message();
}

PhysRange R(uint64_t start, uint64_t end) { return {PhysAddr(start), PhysAddr(end)}; }

INSTANTIATE_TEST_SUITE_P(
    Fields, RefusedSpecTest,
    testing::Values(
        RefusedCase{"NegativeCpus", [](MachineSpec& s) { s.cpus = -1; }, "spec.cpus: "},
        RefusedCase{"TooManyCpus", [](MachineSpec& s) { s.cpus = 65; }, "spec.cpus: "},
        RefusedCase{"NoRam", [](MachineSpec& s) { s.firmware_ranges.clear(); }, "spec.firmware_ranges: "},
        RefusedCase{"OnlyReserved", [](MachineSpec& s) { s.firmware_ranges[0].type = FirmwareRange::Type::kReserved; },
                    "spec.firmware_ranges: "},
        RefusedCase{"Backwards", [](MachineSpec& s) { s.firmware_ranges[0].range = R(0x2000, 0x1000); }, "spec.firmware_ranges[0]: "},
        RefusedCase{"EmptyReserved", [](MachineSpec& s) { s.reserved_ranges[0].range = R(0x1000, 0x1000); }, "spec.reserved_ranges[0]: "},
        RefusedCase{"EndOfAddresses", [](MachineSpec& s) { s.reserved_ranges[0].range = R(0, ~uint64_t{0}); }, "spec.reserved_ranges[0]: "},
        RefusedCase{"HugeRam", [](MachineSpec& s) { s.firmware_ranges[0].range = R(0x40000000, uint64_t{1} << 47); },
                    "spec.firmware_ranges: "},
        RefusedCase{"EverythingReserved",
                    [](MachineSpec& s) {
                      s.reserved_ranges = {{R(0, 0x80000000), "all", false}};
                      s.cma_areas.clear();
                    },
                    "spec.reserved_ranges: "},
        RefusedCase{"CmaUnaligned", [](MachineSpec& s) { s.cma_areas[0].range = R(0x50001000, 0x50201000); }, "spec.cma_areas[0]: "},
        RefusedCase{"CmaOutsideRam", [](MachineSpec& s) { s.cma_areas[0].range = R(0x7fe00000, 0x80200000); }, "spec.cma_areas[0]: "},
        RefusedCase{"CmaReserved", [](MachineSpec& s) { s.cma_areas[0].range = R(0x40200000, 0x40400000); }, "spec.cma_areas[0]: "},
        RefusedCase{"CmaTwice", [](MachineSpec& s) { s.cma_areas.push_back(s.cma_areas[0]); }, "spec.cma_areas: "},
        RefusedCase{"ImageDoesNotFit",
                    [](MachineSpec& s) {
                      s.firmware_ranges[0].range = R(0x40000000, 0x41000000);
                      s.reserved_ranges.clear();
                    },
                    "spec.firmware_ranges: "},
        RefusedCase{"BootTime", [](MachineSpec& s) { s.boot_time_seconds = -1; }, "spec.boot_time_seconds: "},
        RefusedCase{"IomemBackwards",
                    [](MachineSpec& s) {
                      s.iomem_resources = {{PhysAddr(9), PhysAddr(3), "x", {}}};
                    },
                    "spec.iomem_resources: "},
        RefusedCase{"IomemChildOutside",
                    [](MachineSpec& s) {
                      s.iomem_resources = {{PhysAddr(0), PhysAddr(9), "x", {{PhysAddr(5), PhysAddr(11), "y", {}}}}};
                    },
                    "spec.iomem_resources: "}),
    [](const auto& test) { return test.param.name; });

TEST(ReservationsTest, OverlapsAndPartialPagesAreSortedOut) {
  MachineSpec spec;
  spec.layout = LayoutKind::kArm64;
  spec.firmware_ranges = {{R(0x40000000, 0x48000000), FirmwareRange::Type::kRam}};
  spec.reserved_ranges = {{R(0x40001800, 0x40003000), "b", false},
                          {R(0x40000000, 0x40002000), "a", false},
                          {R(0x40003800, 0x40008800), "late", true},
                          {R(0x40005000, 0x40006000), "inside late", false}};
  const absl::StatusOr<PhysicalConfig> config = PlanPhysicalMemory(spec);
  ASSERT_TRUE(config.ok()) << config.status();
  std::string text;
  for (const ReservedRange& r : config->reserved)
    absl::StrAppend(&text, absl::Hex(r.range.start.raw()), "-", absl::Hex(r.range.end.raw()), ":", r.purpose, " ");
  EXPECT_EQ(text, "40000-40002:a 40002-40003:b 40003-40004:late 40005-40006:inside late 40008-40009:late ");
  EXPECT_EQ(config->late_freed, (std::vector<PfnRange>{{Pfn(0x40004), Pfn(0x40005)}, {Pfn(0x40006), Pfn(0x40008)}}));
}

}  // namespace
}  // namespace mmlab

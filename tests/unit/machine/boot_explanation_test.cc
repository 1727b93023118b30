#include "server/machine/boot_explanation.h"

#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/machine/board.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

std::vector<ExplanationStep> Steps(const Explanation& why, StepKind kind) {
  std::vector<ExplanationStep> steps;
  for (const ExplanationStep& step : why.steps()) {
    if (step.kind == kind) steps.push_back(step);
  }
  return steps;
}

int64_t Number(const ExplanationStep& step, absl::string_view name) {
  for (const Fact& fact : step.facts) {
    if (fact.name == name) return fact.number;
  }
  ADD_FAILURE() << step.text << ": no " << name;
  return -1;
}

std::string Word(const ExplanationStep& step, absl::string_view name) {
  for (const Fact& fact : step.facts) {
    if (fact.name == name) return fact.text;
  }
  return "";
}

std::unique_ptr<Machine> Booted(const MachineSpec& spec) {
  auto machine = Machine::Boot(spec);
  EXPECT_TRUE(machine.ok()) << machine.status();
  return *std::move(machine);
}

class PresetExplanationTest : public testing::TestWithParam<std::string> {};

// What is said is what the machine has.
TEST_P(PresetExplanationTest, NumbersAreThoseOfTheMachine) {
  const auto machine = Booted(PresetSpec(GetParam()));
  const Explanation why = ExplainBoot(machine->spec());
  EXPECT_EQ(why.steps_left_out(), 0u);
  std::map<std::string, ExplanationStep> bounds, managed, marks, pcp;
  for (const auto& [kind, by_zone] : {std::pair{StepKind::kZoneBounds, &bounds}, std::pair{StepKind::kZoneManaged, &managed},
                                      std::pair{StepKind::kZoneWatermarks, &marks}, std::pair{StepKind::kPcpSizes, &pcp}}) {
    for (const ExplanationStep& step : Steps(why, kind)) by_zone->emplace(Word(step, "zone"), step);
  }
  for (const Zone& zone : machine->memory().zones()) {
    SCOPED_TRACE(zone.name());
    const std::string name(zone.name());
    ASSERT_TRUE(bounds.contains(name));
    if (zone.spanned == 0) continue;
    EXPECT_EQ(Number(bounds[name], "start_pfn"), zone.start_pfn);
    EXPECT_EQ(Number(bounds[name], "present"), zone.present);
    EXPECT_EQ(Number(managed[name], "managed"), zone.managed);
    EXPECT_EQ(Number(managed[name], "managed_for_watermarks") + Number(managed[name], "freed_late"), zone.managed);
    if (zone.managed == 0) continue;
    EXPECT_EQ(Number(marks[name], "managed"), Number(managed[name], "managed_for_watermarks"));
    EXPECT_EQ(Number(marks[name], "min"), static_cast<int64_t>(zone.wmark_min));
    EXPECT_EQ(Number(marks[name], "high"), static_cast<int64_t>(zone.wmark_high));
    EXPECT_EQ(Number(pcp[name], "batch"), zone.pageset_batch);
    EXPECT_EQ(Number(pcp[name], "high"), zone.pageset_high);
    for (const Zone& above : machine->memory().zones()) {
      if (above.index <= zone.index) continue;
      EXPECT_EQ(Number(marks[name], absl::StrCat("protection_", above.name())),
                static_cast<int64_t>(zone.lowmem_reserve[static_cast<size_t>(above.index)]));
    }
  }
  EXPECT_EQ(Number(Steps(why, StepKind::kMinFreeKbytes).at(0), "min_free_kbytes"), machine->memory().min_free_kbytes());
  EXPECT_EQ(Steps(why, StepKind::kBootReservation).size(), machine->spec().reserved_ranges.size() + machine->spec().cma_areas.size());
  EXPECT_EQ(machine->StateHash(), Booted(PresetSpec(GetParam()))->StateHash());
}
INSTANTIATE_TEST_SUITE_P(Presets, PresetExplanationTest, testing::ValuesIn(PresetNames()),
                         [](const auto& test) { return CaseName(test.param); });

TEST(BootExplanationTest, TellsOfTheMapAndItsChanges) {
  MachineSpec spec;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(uint64_t{1} << 30), spec).ok());
  std::swap(spec.firmware_ranges.front(), spec.firmware_ranges.back());
  spec.firmware_ranges.push_back({{PhysAddr(0x8000000), PhysAddr(0x9000000)}, FirmwareRange::Type::kReserved});
  spec.command_line = "mem=512M memmap=1M$0x3000000";
  const Explanation why = ExplainBoot(Booted(spec)->spec());
  const auto map = Steps(why, StepKind::kFirmwareMap);
  ASSERT_GT(map.size(), 1u);
  EXPECT_EQ(Number(map[0], "in_order"), 0);
  EXPECT_EQ(Number(map[0], "overlaps"), 1);
  EXPECT_EQ(Number(map[0], "ranges_after"), static_cast<int64_t>(map.size()) - 1);
  std::vector<std::string> edits;
  for (const ExplanationStep& step : Steps(why, StepKind::kMapEdit)) edits.push_back(step.text);
  EXPECT_THAT(edits, testing::ElementsAre("no RAM beyond this much is used", "memmap= adds a range",
                                          "the BIOS keeps its data in the first page: reserved",
                                          "video memory and ROMs lie here: no RAM is believed"));
  EXPECT_EQ(Number(Steps(why, StepKind::kRamLimit).at(0), "max_pfn"), 0x20000);
}

TEST(BootExplanationTest, TellsWhatIsLostWithoutHighmem) {
  MachineSpec spec;
  spec.highmem = Highmem::kOff;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(uint64_t{2} << 30), spec).ok());
  const Explanation why = ExplainBoot(Booted(spec)->spec());
  const auto limit = Steps(why, StepKind::kRamLimit).at(0);
  EXPECT_EQ(limit.text, "RAM goes on beyond what this kernel can use: the rest is lost");
  EXPECT_LT(Number(limit, "max_pfn"), Number(limit, "firmware_end_pfn"));
  EXPECT_EQ(Steps(why, StepKind::kAddressSplit).back().text, "without CONFIG_HIGHMEM what lies beyond lowmem cannot be used");
}

// RAM that ends beyond MAX_ARCH_PFN is used up to there.
TEST(BootExplanationTest, WithPaeRamIsUsedUpTo64GiB) {
  MachineSpec spec;
  spec.layout = LayoutKind::kX86_32Pae;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(uint64_t{8} << 30), spec).ok());
  for (FirmwareRange& range : spec.firmware_ranges) {
    if (range.range.start == PhysAddr(uint64_t{4} << 30)) range.range.end = PhysAddr(uint64_t{72} << 30);
  }
  spec.command_line = "vmalloc=24M";
  auto machine = Machine::Boot(spec);
  if (!machine.ok()) {
    EXPECT_THAT(std::string(machine.status().message()), testing::HasSubstr("memory map"));
    return;
  }
  const auto limit = Steps(ExplainBoot((*machine)->spec()), StepKind::kRamLimit).at(0);
  EXPECT_EQ(Number(limit, "max_pfn"), 1 << 24);
  EXPECT_EQ(Number(limit, "firmware_end_pfn"), 18 << 20);
}

// However many ranges there are, what comes of them is told.
TEST(BootExplanationTest, ManyRangesDoNotHideTheZones) {
  MachineSpec spec;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(uint64_t{1} << 30), spec).ok());
  for (uint64_t i = 0; i < 3000; ++i) {
    spec.firmware_ranges.push_back({{PhysAddr(0x8000000 + i * 0x2000), PhysAddr(0x8001000 + i * 0x2000)}, FirmwareRange::Type::kReserved});
  }
  const Explanation why = ExplainBoot(Booted(spec)->spec());
  EXPECT_EQ(why.steps_left_out(), 0u);
  EXPECT_EQ(Steps(why, StepKind::kFirmwareMap).back().text, "and so many more");
  EXPECT_FALSE(Steps(why, StepKind::kZoneWatermarks).empty());
}

TEST(BootExplanationTest, ASettingThatIsWrittenIsExplainedLikewise) {
  const auto machine = Booted(PresetSpec("686-1G"));
  Explanation why;
  ASSERT_EQ(machine->Apply(op::WriteSysctl{"vm.min_free_kbytes", "8192"}, &why).error, Errno::kOk);
  const auto free = Steps(why, StepKind::kMinFreeKbytes).at(0);
  EXPECT_EQ(free.text, "min_free_kbytes as it was written");
  EXPECT_EQ(Number(free, "min_free_kbytes"), 8192);
  const auto marks = Steps(why, StepKind::kZoneWatermarks);
  ASSERT_EQ(marks.size(), 3u);
  EXPECT_EQ(Number(marks[1], "min"), static_cast<int64_t>(machine->memory().zones()[1].wmark_min));
}

// zone_highsize(): CPUs keep a share of the zone instead of its low watermark.
TEST(BootExplanationTest, APagelistFractionGivesCpusTheirShare) {
  const auto machine = Booted(PresetSpec("686-1G-smp4"));
  Explanation why;
  ASSERT_EQ(machine->Apply(op::WriteSysctl{"vm.percpu_pagelist_high_fraction", "10"}, &why).error, Errno::kOk);
  const Zone& normal = machine->memory().zones()[1];
  EXPECT_EQ(normal.pageset_high, normal.managed / 10 / 4);
  EXPECT_EQ(normal.pcp[3].high, normal.pageset_high);
  EXPECT_EQ(Number(Steps(why, StepKind::kPcpSizes)[1], "high"), normal.pageset_high);
  ASSERT_EQ(machine->Apply(op::WriteSysctl{"vm.percpu_pagelist_high_fraction", "0"}).error, Errno::kOk);
  EXPECT_EQ(normal.pageset_high, normal.wmark_low / 4);
  EXPECT_EQ(machine->CheckInvariants(), std::vector<std::string>());
}

}  // namespace
}  // namespace mmlab

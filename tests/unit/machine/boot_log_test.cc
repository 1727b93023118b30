#include "server/machine/boot_log.h"

#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "server/machine/board.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

std::vector<std::string> Texts(const Machine& machine) {
  std::vector<std::string> texts;
  for (const BootLogLine& line : BootLog(machine)) {
    EXPECT_FALSE(line.why.empty()) << line.text;
    texts.push_back(line.text);
  }
  return texts;
}

class RecordedBootLogTest : public testing::TestWithParam<std::string> {};

// Every line is one that the recorded kernel wrote, level and digits included.
TEST_P(RecordedBootLogTest, SaysWhatTheKernelSaid) {
  const auto machine = Machine::Boot(PresetSpec(GetParam()));
  ASSERT_TRUE(machine.ok()) << machine.status();
  std::multiset<std::string> recorded;
  for (absl::string_view line : absl::StrSplit(RecordedFile(GetParam(), "dmesg_memory"), '\n')) recorded.emplace(line);
  // ARM64 counts available pages before most of mem_map is initialised.
  const bool deferred = absl::StartsWith(GetParam(), "arm64") && GetParam() != "arm64-128M";
  for (const BootLogLine& line : BootLog(**machine)) {
    // The log of memblock=debug is longer than its buffer, which lost the first line.
    if (GetParam() == "arm64-1G-memblock-debug" && absl::StartsWith(line.text, "Linux version ")) continue;
    if (deferred && absl::StartsWith(line.text, "Memory: ")) continue;
    const auto found = recorded.find(absl::StrCat("<", line.level, ">", line.text));
    EXPECT_NE(found, recorded.end()) << line.text;
    if (found != recorded.end()) recorded.erase(found);
  }
}
INSTANTIATE_TEST_SUITE_P(Presets, RecordedBootLogTest, testing::ValuesIn(PresetNames()),
                         [](const auto& test) { return CaseName(test.param); });

TEST(BootLogTest, SaysWhatIsLostWithoutHighmem) {
  MachineSpec spec;
  spec.highmem = Highmem::kOff;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(uint64_t{2} << 30), spec).ok());
  const auto machine = Machine::Boot(spec);
  ASSERT_TRUE(machine.ok()) << machine.status();
  const auto texts = Texts(**machine);
  EXPECT_NE(std::find(texts.begin(), texts.end(), "Warning only 879MB will be used."), texts.end());
  EXPECT_NE(std::find(texts.begin(), texts.end(), "Use a HIGHMEM enabled kernel."), texts.end());
  EXPECT_EQ((*machine)->CheckInvariants(), std::vector<std::string>());
}

TEST(BootLogTest, ProcessesHaveWhatIsBelowTheSplit) {
  MachineSpec spec;
  spec.vmsplit = VmSplit::k2G;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(uint64_t{1} << 30), spec).ok());
  const auto machine = Machine::Boot(spec);
  ASSERT_TRUE(machine.ok()) << machine.status();
  EXPECT_EQ((*machine)->layout().task_size, VirtAddr(0x80000000));
  EXPECT_EQ((*machine)->kernel_layout().task_size, VirtAddr(0x80000000));
  EXPECT_EQ((*machine)->CheckInvariants(), std::vector<std::string>());
}

TEST(BootLogTest, ShowsTheMapThatTheCommandLineMade) {
  MachineSpec spec;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(uint64_t{1} << 30), spec).ok());
  spec.command_line = "mem=512M movablecore=128M";
  const auto machine = Machine::Boot(spec);
  ASSERT_TRUE(machine.ok()) << machine.status();
  const auto texts = Texts(**machine);
  EXPECT_NE(std::find(texts.begin(), texts.end(), "user: [mem 0x0000000000100000-0x000000001fffffff] usable"), texts.end());
  EXPECT_NE(std::find(texts.begin(), texts.end(), "  Node 0: 0x0000000018000000"), texts.end());
  EXPECT_EQ((*machine)->CheckInvariants(), std::vector<std::string>());
}

}  // namespace
}  // namespace mmlab

// The files of one process: their form against those of a recorded machine's first process.

#include "server/procfs/process_files.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "server/machine/machine.h"
#include "server/process/processes.h"
#include "server/procfs/procfs.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

std::vector<std::string> LinesOf(const std::string& text) {
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  EXPECT_TRUE(lines.back().empty());
  lines.pop_back();
  return lines;
}

std::string LineWith(const std::string& text, absl::string_view part) {
  for (const std::string& line : LinesOf(text)) {
    if (absl::StrContains(line, part)) return line;
  }
  ADD_FAILURE() << "no line with " << part << " in\n" << text;
  return "";
}

std::string Label(const std::string& line) { return line.substr(0, line.find(':')); }

class ProcessFilesTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    machine_ = *Machine::Boot(PresetSpec(GetParam()));
    machine_->Apply(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    pid_ = Pid(static_cast<int32_t>(machine_->Apply(op::CreateProcess{"program", 1000, false}).value));
    ASSERT_EQ(machine_->Apply(op::Exec{pid_, SmallProgram(machine_->layout().kind), std::nullopt, {"program"}, {}}).error, Errno::kOk);
  }
  std::string Ours(const std::string& file) {
    const absl::StatusOr<std::string> text = ReadProcFile(*machine_, absl::StrCat(pid_.raw(), "/", file));
    EXPECT_TRUE(text.ok()) << text.status();
    return text.value_or("");
  }
  std::string Recorded(const std::string& file) { return RecordedFile(GetParam(), "self_" + file); }

  std::unique_ptr<Machine> machine_;
  Pid pid_;
};

TEST_P(ProcessFilesTest, MapsHaveTheKernelsColumns) {
  const std::string maps = Ours("maps");
  for (const char* name : {"[stack]", "[vdso]", "[vvar]"}) EXPECT_EQ(LineWith(maps, name), LineWith(Recorded("maps"), name));
  EXPECT_EQ(LineWith(maps, "/bin/program").find("/bin/program"), LineWith(Recorded("maps"), "/init").find("/init"));
  const uint64_t address = machine_->Apply(op::Mmap{pid_, 0, 8192, 3, 0x22, -1, 0}).value;
  const std::string start = absl::StrCat(absl::Hex(address, absl::kZeroPad8));
  const std::string end = absl::StrCat(absl::Hex(address + 8192, absl::kZeroPad8));
  EXPECT_EQ(LineWith(Ours("maps"), start + "-"), absl::StrCat(start, "-", end, " rw-p 00000000 00:00 0 "));
}

TEST_P(ProcessFilesTest, SmapsHaveTheKernelsLines) {
  const std::vector<std::string> ours = LinesOf(Ours("smaps"));
  const std::vector<std::string> recorded = LinesOf(Recorded("smaps"));
  const size_t lines = recorded.size() / LinesOf(Recorded("maps")).size();  // Of each VMA.
  ASSERT_EQ(ours.size(), lines * LinesOf(Ours("maps")).size());
  for (size_t i = 0; i < ours.size(); ++i) {
    const std::string& want = recorded[i % lines];
    if (i % lines == 0) continue;  // As in maps.
    EXPECT_EQ(Label(ours[i]), Label(want));
    if (absl::EndsWith(want, " kB")) {
      EXPECT_EQ(ours[i].size(), want.size()) << ours[i];
    } else if (Label(want) == "THPeligible") {
      EXPECT_EQ(ours[i], want);
    } else {
      EXPECT_TRUE(absl::StartsWith(ours[i], "VmFlags: rd ") && absl::EndsWith(ours[i], " ")) << ours[i];
    }
  }
  EXPECT_EQ(LineWith(Ours("smaps"), "VmFlags: rd wr mr mw me gd ac"), LineWith(Recorded("smaps"), "VmFlags: rd wr mr mw me gd ac"));
}

TEST_P(ProcessFilesTest, SmapsRollupHasTheKernelsLinesApartFromPssByKind) {
  std::vector<std::string> want = LinesOf(Recorded("smaps_rollup"));
  std::erase_if(want, [](const std::string& line) { return absl::StartsWith(line, "Pss_") && Label(line) != "Pss_Dirty"; });
  const std::vector<std::string> ours = LinesOf(Ours("smaps_rollup"));
  ASSERT_EQ(ours.size(), want.size());
  EXPECT_EQ(ours[0].substr(ours[0].find('-')), want[0].substr(want[0].find('-')));
  for (size_t i = 1; i < ours.size(); ++i) {
    EXPECT_EQ(Label(ours[i]), Label(want[i]));
    EXPECT_EQ(ours[i].size(), want[i].size());
  }
}

// Each line is in the recording, in its order, with its form.
TEST_P(ProcessFilesTest, StatusAndLimitsAreLinesOfTheKernels) {
  for (const std::string file : {"status", "limits"}) {
    const std::vector<std::string> recorded = LinesOf(Recorded(file));
    const auto label = [&](const std::string& line) { return file == "limits" ? line.substr(0, 25) : Label(line); };
    size_t at = 0;
    for (const std::string& line : LinesOf(Ours(file))) {
      while (at < recorded.size() && label(recorded[at]) != label(line)) ++at;
      ASSERT_LT(at, recorded.size()) << line;
      if (file == "limits" || absl::EndsWith(line, " kB")) {
        EXPECT_EQ(line.size(), recorded[at].size()) << line;
      }
    }
  }
  EXPECT_EQ(LineWith(Ours("status"), "VmStk"), LineWith(Recorded("status"), "VmStk"));
}

TEST_P(ProcessFilesTest, StatmAgreesWithStatus) {
  const std::vector<std::string> words = absl::StrSplit(LinesOf(Ours("statm"))[0], ' ');
  ASSERT_EQ(words.size(), 7u);
  const MemoryStatus status = machine_->processes().Status(*machine_->processes().Find(pid_));
  EXPECT_EQ(words[0], absl::StrCat(status.vm_size.raw() / 4096));
  EXPECT_EQ(words[1], absl::StrCat(status.vm_rss.raw() / 4096));
  EXPECT_EQ(words[3], "3");
  EXPECT_EQ(words[4], "0");
  EXPECT_EQ(words[5], absl::StrCat((status.vm_data + status.vm_stk).raw() / 4096));
}

TEST_P(ProcessFilesTest, AKernelThreadHasNoMemory) {
  pid_ = Pid(static_cast<int32_t>(machine_->Apply(op::CreateProcess{"kthread", 0, true}).value));
  EXPECT_EQ(Ours("maps"), "");
  EXPECT_EQ(Ours("smaps"), "");
  EXPECT_EQ(Ours("statm"), "0 0 0 0 0 0 0\n");
  EXPECT_FALSE(absl::StrContains(Ours("status"), "VmSize"));
  EXPECT_EQ(Ours("comm"), "kthread\n");
}

INSTANTIATE_TEST_SUITE_P(Layouts, ProcessFilesTest, testing::Values("686-1G", "686-pae-1G", "arm64-1G"),
                         [](const auto& test) { return CaseName(test.param); });

}  // namespace
}  // namespace mmlab

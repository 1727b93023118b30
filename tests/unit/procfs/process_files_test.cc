// The files of one process: their form against those of a recorded machine's first process.

#include "server/procfs/process_files.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "server/machine/machine.h"
#include "server/process/address_space.h"
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

TEST_P(ProcessFilesTest, SmapsRollupHasTheKernelsLines) {
  const std::vector<std::string> want = LinesOf(Recorded("smaps_rollup"));
  const std::vector<std::string> ours = LinesOf(Ours("smaps_rollup"));
  ASSERT_EQ(ours.size(), want.size());
  EXPECT_EQ(ours[0].substr(ours[0].find('-')), want[0].substr(want[0].find('-')));
  for (size_t i = 1; i < ours.size(); ++i) {
    EXPECT_EQ(Label(ours[i]), Label(want[i]));
    EXPECT_EQ(ours[i].size(), want[i].size());
  }
}

// The kernel's lines, all of them, in their order and form; what no process differs in is the same.
TEST_P(ProcessFilesTest, StatusHasTheKernelsLines) {
  static constexpr const char* kOfEachProcess[] = {"Name",
                                                   "State",
                                                   "Tgid",
                                                   "Pid",
                                                   "PPid",
                                                   "Uid",
                                                   "Gid",
                                                   "FDSize",
                                                   "NStgid",
                                                   "NSpid",
                                                   "CapPrm",
                                                   "CapEff",
                                                   "VmStk",
                                                   "voluntary_ctxt_switches",
                                                   "nonvoluntary_ctxt_switches"};
  const std::vector<std::string> recorded = LinesOf(Recorded("status"));
  const std::vector<std::string> ours = LinesOf(Ours("status"));
  ASSERT_EQ(ours.size(), recorded.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    const std::string label = Label(ours[i]);
    EXPECT_EQ(label, Label(recorded[i]));
    if (absl::EndsWith(ours[i], " kB")) {
      EXPECT_EQ(ours[i].size(), recorded[i].size()) << ours[i];
    } else if (std::find(std::begin(kOfEachProcess), std::end(kOfEachProcess), label) == std::end(kOfEachProcess)) {
      EXPECT_EQ(ours[i], recorded[i]);
    }
  }
  EXPECT_EQ(LineWith(Ours("status"), "VmStk"), LineWith(Recorded("status"), "VmStk"));
  EXPECT_EQ(LineWith(Ours("status"), "Gid:\t"), "Gid:\t1000\t1000\t1000\t1000");
  EXPECT_EQ(LineWith(Ours("status"), "CapEff"), "CapEff:\t0000000000000000");
}

TEST_P(ProcessFilesTest, LimitsAreThoseOfANewProcess) { EXPECT_EQ(Ours("limits"), Recorded("limits")); }

TEST_P(ProcessFilesTest, TheTableOfDescriptorsGrows) {
  const uint64_t word_bits = static_cast<uint64_t>(machine_->layout().word_bytes) * 8;
  EXPECT_EQ(LineWith(Ours("status"), "FDSize"), absl::StrCat("FDSize:\t", word_bits));
  ASSERT_EQ(machine_->Apply(op::Open{pid_, "/bin/program", 0, 300}).error, Errno::kOk);
  EXPECT_EQ(LineWith(Ours("status"), "FDSize"), "FDSize:\t512");
}

TEST_P(ProcessFilesTest, LeavingACpuIsASwitch) {
  const auto other = Pid(static_cast<int32_t>(machine_->Apply(op::CreateProcess{"other", 0, false}).value));
  ASSERT_EQ(machine_->Apply(op::SwitchTo{pid_, 0}).error, Errno::kOk);
  EXPECT_EQ(LineWith(Ours("status"), "voluntary_ctxt_switches"), "voluntary_ctxt_switches:\t0");
  ASSERT_EQ(machine_->Apply(op::SwitchTo{other, 0}).error, Errno::kOk);
  EXPECT_EQ(LineWith(Ours("status"), "voluntary_ctxt_switches"), "voluntary_ctxt_switches:\t1");
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

// In the kernel's columns: a word of the recorded stat for each of ours.
TEST_P(ProcessFilesTest, StatHasTheKernelsFields) {
  ASSERT_EQ(machine_->Apply(op::AdvanceTime{1'234'567'890}).error, Errno::kOk);
  const Pid child(static_cast<int32_t>(machine_->Apply(op::Fork{pid_, 0x4000}).value));
  const std::vector<std::string> words = absl::StrSplit(LinesOf(Ours("stat"))[0], ' ');
  ASSERT_EQ(words.size(), 52u);
  const AddressSpace& mm = *machine_->processes().Find(pid_)->mm;
  EXPECT_EQ(words[1], "(program)");
  EXPECT_EQ(words[2], "D") << "it waits for its vfork";
  EXPECT_EQ(Ours("wchan"), "kernel_clone");
  EXPECT_EQ(words[19], "1");
  EXPECT_EQ(words[22], absl::StrCat(mm.total_vm.raw() * 4096));
  EXPECT_EQ(words[25], absl::StrCat(mm.start_code.raw()));
  EXPECT_EQ(words[46], absl::StrCat(mm.start_brk.raw()));
  EXPECT_EQ(words[50], absl::StrCat(mm.env_end.raw()));
  EXPECT_TRUE(absl::StrContains(Ours("status"), "State:\tD (disk sleep)\n"));
  pid_ = child;
  const std::vector<std::string> of_child = absl::StrSplit(LinesOf(Ours("stat"))[0], ' ');
  EXPECT_EQ(of_child[2], "S");
  EXPECT_EQ(Ours("wchan"), "0");
  EXPECT_EQ(of_child[3], words[0]);
  EXPECT_EQ(of_child[21], "123") << "ticks since boot";
  // Now it runs.
  ASSERT_EQ(machine_->Apply(op::SwitchTo{child, 0}).error, Errno::kOk);
  EXPECT_TRUE(absl::StrContains(Ours("stat"), ") R "));
}

TEST_P(ProcessFilesTest, WhatExecLeftCanBeRead) {
  EXPECT_EQ(Ours("cmdline"), std::string("program\0", 8));
  EXPECT_EQ(Ours("environ"), "");
  EXPECT_EQ(Ours("exe"), "/bin/program");
  EXPECT_EQ(Ours("comm"), "program\n") << "the last part of the path, whatever it was called before";
  EXPECT_EQ(Ours("oom_adj"), "0\n");
  const size_t word = static_cast<size_t>(machine_->layout().word_bytes);
  EXPECT_EQ(Ours("auxv").size() % (2 * word), 0u);
  EXPECT_EQ(Ours("auxv").substr(Ours("auxv").size() - 2 * word), std::string(2 * word, '\0'));
  // A program that writes over the end of its arguments sets a title.
  AccessRequest write;
  write.kind = AccessKind::kWriteBytes;
  write.address = machine_->processes().Find(pid_)->mm->arg_start.raw();
  write.data = "title!!!";
  ASSERT_EQ(machine_->Apply(op::AccessMemory{pid_, write}).error, Errno::kOk);
  EXPECT_TRUE(absl::StartsWith(Ours("cmdline"), "title!!!"));
  ASSERT_EQ(machine_->Apply(op::WriteOomScoreAdj{pid_, 500}).error, Errno::kOk);
  EXPECT_EQ(Ours("oom_adj"), "8\n") << "-17 .. 15 instead of -1000 .. 1000";
}

TEST_P(ProcessFilesTest, NumaMapsCountsPagesWhereTheKernelIsBuiltForIt) {
  if (machine_->layout().is_x86()) {
    EXPECT_EQ(ReadProcFile(*machine_, absl::StrCat(pid_.raw(), "/numa_maps")).status().code(), absl::StatusCode::kNotFound);
    return;
  }
  const uint64_t address = machine_->Apply(op::Mmap{pid_, 0, 8192, 3, 0x8022, -1, 0}).value;
  const std::string line = LineWith(Ours("numa_maps"), absl::StrCat(absl::Hex(address)));
  EXPECT_EQ(line, absl::StrCat(absl::Hex(address), " default anon=2 dirty=2 active=0 N0=2 kernelpagesize_kB=4"));
  EXPECT_TRUE(absl::StrContains(Ours("numa_maps"), " default file=/bin/program"));
  EXPECT_TRUE(absl::StrContains(Ours("numa_maps"), " default stack anon="));
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

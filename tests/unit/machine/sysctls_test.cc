#include "server/machine/sysctls.h"

#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

struct WriteCase {
  const char* name;
  const char* sysctl;
  const char* text;
  Errno error;
  const char* reads_back;  // With its newline.
  LayoutKind layout = LayoutKind::kX86_32;
};
class SysctlWriteTest : public testing::TestWithParam<WriteCase> {};

TEST_P(SysctlWriteTest, AnswersAsTheKernel) {
  const WriteCase& c = GetParam();
  Sysctls sysctls(GetLayout(c.layout));
  const SysctlWrite written = sysctls.Write(c.sysctl, c.text);
  EXPECT_EQ(written.error, c.error);
  EXPECT_EQ(written.changed.has_value(), c.error == Errno::kOk);
  if (c.reads_back != nullptr) {
    ASSERT_TRUE(sysctls.Find(c.sysctl).has_value());
    EXPECT_EQ(sysctls.Text(*sysctls.Find(c.sysctl)), c.reads_back);
  }
}

constexpr Errno kOk = Errno::kOk;
constexpr Errno kInval = Errno::kEINVAL;
constexpr LayoutKind kArm = LayoutKind::kArm64;

INSTANTIATE_TEST_SUITE_P(
    Values, SysctlWriteTest,
    testing::Values(
        WriteCase{"Plain", "vm.swappiness", "100", kOk, "100\n"}, WriteCase{"Newline", "vm.swappiness", "7\n", kOk, "7\n"},
        WriteCase{"Blanks", "vm.swappiness", "  7  \n", kOk, "7\n"}, WriteCase{"Hex", "vm.swappiness", "0x10", kOk, "16\n"},
        WriteCase{"Octal", "vm.swappiness", "010", kOk, "8\n"}, WriteCase{"Zero", "vm.swappiness", "0", kOk, "0\n"},
        WriteCase{"Largest", "vm.swappiness", "200", kOk, "200\n"}, WriteCase{"TooLarge", "vm.swappiness", "201", kInval, "60\n"},
        WriteCase{"Negative", "vm.swappiness", "-1", kInval, "60\n"}, WriteCase{"Empty", "vm.swappiness", "", kInval, "60\n"},
        WriteCase{"OnlyBlanks", "vm.swappiness", " \n", kInval, "60\n"}, WriteCase{"Word", "vm.swappiness", "much", kInval, "60\n"},
        WriteCase{"TrailingLetter", "vm.swappiness", "10k", kInval, "60\n"},
        WriteCase{"BeyondInt", "vm.max_map_count", "2147483648", kInval, "65530\n"},
        WriteCase{"BeyondUlong", "vm.overcommit_kbytes", "99999999999999999999", kInval, "0\n"},
        WriteCase{"BeyondLongOfX86", "vm.overcommit_kbytes", "4294967296", kInval, "0\n"},
        WriteCase{"WithinLongOfArm64", "vm.overcommit_kbytes", "4294967296", kOk, "4294967296\n", kArm},
        WriteCase{"NegativeUlongIsPassedOver", "vm.admin_reserve_kbytes", "-5", kOk, "8192\n"},
        WriteCase{"NegativeIntWhereTheKernelTakesIt", "vm.overcommit_ratio", "-5", kOk, "-5\n"},
        WriteCase{"Overcommit2", "vm.overcommit_memory", "2", kOk, "2\n"},
        WriteCase{"Overcommit3", "vm.overcommit_memory", "3", kInval, "0\n"},
        WriteCase{"ScaleFactor0", "vm.watermark_scale_factor", "0", kInval, "10\n"},
        WriteCase{"ScaleFactor3001", "vm.watermark_scale_factor", "3001", kInval, "10\n"},
        WriteCase{"DirtyBytesBelowTwoPages", "vm.dirty_bytes", "8191", kInval, "0\n"},
        WriteCase{"MmapRndBitsX86", "vm.mmap_rnd_bits", "17", kInval, "8\n"},
        WriteCase{"MmapRndBitsArm64", "vm.mmap_rnd_bits", "33", kOk, "33\n", kArm},
        WriteCase{"RatiosAll", "vm.lowmem_reserve_ratio", "1 2 3 4", kOk, "1\t2\t3\t4\n"},
        WriteCase{"RatiosSome", "vm.lowmem_reserve_ratio", "128", kOk, "128\t32\t0\t0\n"},
        WriteCase{"RatiosNegative", "vm.lowmem_reserve_ratio", "-1 32", kOk, "0\t32\t0\t0\n"},
        WriteCase{"RatiosWrong", "vm.lowmem_reserve_ratio", "1 x", kInval, "256\t32\t0\t0\n"},
        WriteCase{"HighFraction7", "vm.percpu_pagelist_high_fraction", "7", kInval, "0\n"},
        WriteCase{"HighFraction8", "vm.percpu_pagelist_high_fraction", "8", kOk, "8\n"},
        WriteCase{"NoHugepages", "vm.nr_hugepages", "0", kOk, "0\n"}, WriteCase{"HugepagesNegative", "vm.nr_hugepages", "-1", kOk, "0\n"},
        WriteCase{"HugepagesTooLong", "vm.nr_hugepages", "4294967296", kInval, "0\n"},
        WriteCase{"OvercommitHugepages", "vm.nr_overcommit_hugepages", "3", kOk, "3\n"},
        WriteCase{"ZonelistOrderNode", "vm.numa_zonelist_order", "N", kOk, "Node\n", kArm},
        WriteCase{"ZonelistOrderZone", "vm.numa_zonelist_order", "Z", kInval, "Node\n", kArm},
        WriteCase{"Unknown", "vm.nonsense", "1", Errno::kENOENT, nullptr},
        WriteCase{"OfTheOtherLayout", "vm.highmem_is_dirtyable", "1", Errno::kENOENT, nullptr, kArm},
        WriteCase{"NoName", "", "1", Errno::kENOENT, nullptr}),
    [](const auto& test) { return test.param.name; });

TEST(SysctlsTest, WritingOneOfAPairClearsTheOther) {
  Sysctls sysctls(GetLayout(LayoutKind::kX86_32));
  ASSERT_EQ(sysctls.Write("vm.overcommit_kbytes", "100").error, Errno::kOk);
  EXPECT_EQ(sysctls.value(Sysctl::kVmOvercommitRatio), 0u);
  ASSERT_EQ(sysctls.Write("vm.overcommit_ratio", "80").error, Errno::kOk);
  EXPECT_EQ(sysctls.value(Sysctl::kVmOvercommitKbytes), 0u);
  ASSERT_EQ(sysctls.Write("vm.dirty_bytes", "1048576").error, Errno::kOk);
  EXPECT_EQ(sysctls.value(Sysctl::kVmDirtyRatio), 0u);
  ASSERT_EQ(sysctls.Write("vm.dirty_background_bytes", "4096").error, Errno::kOk);
  EXPECT_EQ(sysctls.value(Sysctl::kVmDirtyBackgroundRatio), 0u);
}

TEST(SysctlsTest, NamesAreSortedAndFound) {
  for (LayoutKind layout : {LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64}) {
    const Sysctls sysctls(GetLayout(layout));
    const std::vector<absl::string_view> names = sysctls.Names();
    EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
    for (absl::string_view name : names) {
      ASSERT_TRUE(sysctls.Find(name).has_value()) << name;
      EXPECT_EQ(SysctlName(*sysctls.Find(name)), name);
    }
  }
}

class RecordedSysctlsTest : public testing::TestWithParam<std::string> {};

// Every file of /proc/sys/vm that a real kernel has is known, with the kernel's default unless memory decides it.
TEST_P(RecordedSysctlsTest, DefaultsAreTheKernels) {
  const MachineSpec spec = PresetSpec(GetParam());
  const Sysctls sysctls(GetLayout(spec.layout));
  for (absl::string_view line : absl::StrSplit(RecordedFile(GetParam(), "sys_vm.tsv"), '\n', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits('\t', 1));
    ASSERT_TRUE(sysctls.Find(parts.first)) << parts.first;
    const Sysctl id = *sysctls.Find(parts.first);
    if (id == Sysctl::kVmMinFreeKbytes || id == Sysctl::kVmUserReserveKbytes || id == Sysctl::kVmAdminReserveKbytes ||
        id == Sysctl::kKernelThreadsMax || id == Sysctl::kVmStatRefresh) {
      continue;
    }
    EXPECT_EQ(*sysctls.Text(id), std::string(parts.second) + "\n") << parts.first;
  }
}

INSTANTIATE_TEST_SUITE_P(Presets, RecordedSysctlsTest, testing::ValuesIn(PresetNames()),
                         [](const auto& test) { return CaseName(test.param); });

}  // namespace
}  // namespace mmlab

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "server/files/files.h"
#include "server/machine/machine.h"
#include "server/machine/sysctls.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

constexpr char kThp[] = "/sys/kernel/mm/transparent_hugepage/";
constexpr char kKsm[] = "/sys/kernel/mm/ksm/";

std::unique_ptr<Machine> Booted(const std::string& preset) { return Machine::Boot(PresetSpec(preset)).value(); }

struct DefaultCase {
  const char* preset;
  const char* defrag;
  const char* huge_page;
  const char* use_zero_page;
  bool numa;
};

class SysfsDefaultsTest : public testing::TestWithParam<DefaultCase> {};

// As the recorded machines show them; those with less than 512 MiB of RAM start with all flags cleared.
TEST_P(SysfsDefaultsTest, AreThoseOfTheRecordedMachines) {
  const auto machine = Booted(GetParam().preset);
  EXPECT_EQ(machine->SysfsText(absl::StrCat(kThp, "enabled")), "always madvise [never]\n");
  EXPECT_EQ(machine->SysfsText(absl::StrCat(kThp, "defrag")), GetParam().defrag);
  EXPECT_EQ(machine->SysfsText(absl::StrCat(kThp, "hpage_pmd_size")), GetParam().huge_page);
  EXPECT_EQ(machine->SysfsText(absl::StrCat(kThp, "use_zero_page")), GetParam().use_zero_page);
  EXPECT_EQ(machine->SysfsText(absl::StrCat(kThp, "shmem_enabled")), "always within_size advise [never] deny force\n");
  EXPECT_EQ(machine->SysfsText("/sys/kernel/mm/swap/vma_ra_enabled"), "true\n");
  EXPECT_EQ(machine->SysfsText(absl::StrCat(kKsm, "run")), "0\n");
  EXPECT_EQ(machine->SysfsText(absl::StrCat(kKsm, "max_page_sharing")), "256\n");
  EXPECT_EQ(machine->SysfsText(absl::StrCat(kKsm, "merge_across_nodes")).has_value(), GetParam().numa);
  for (const std::string& path : machine->SysfsPaths()) EXPECT_TRUE(machine->SysfsText(path).has_value()) << path;
}

constexpr char kDefragNever[] = "always defer defer+madvise madvise [never]\n";
constexpr char kDefragMadvise[] = "always defer defer+madvise [madvise] never\n";
INSTANTIATE_TEST_SUITE_P(Presets, SysfsDefaultsTest,
                         testing::Values(DefaultCase{"686-64M", kDefragNever, "4194304\n", "0\n", false},
                                         DefaultCase{"686-1G", kDefragMadvise, "4194304\n", "1\n", false},
                                         DefaultCase{"686-pae-1G", kDefragMadvise, "2097152\n", "1\n", false},
                                         DefaultCase{"arm64-128M", kDefragNever, "2097152\n", "0\n", true},
                                         DefaultCase{"arm64-1G", kDefragMadvise, "2097152\n", "1\n", true}),
                         [](const auto& c) { return CaseName(c.param.preset); });

struct WriteCase {
  const char* name;
  std::string path;
  const char* value;
  Errno error;
  const char* text;  // Afterwards; null: no such file.
};

class SysfsWriteTest : public testing::TestWithParam<WriteCase> {};

TEST_P(SysfsWriteTest, AnswersAsTheKernelDoes) {
  const auto machine = Booted("arm64-1G");
  EXPECT_EQ(machine->Apply(op::WriteSysfs{GetParam().path, GetParam().value}).error, GetParam().error);
  const std::optional<std::string> text = machine->SysfsText(GetParam().path);
  ASSERT_EQ(text.has_value(), GetParam().text != nullptr);
  if (text.has_value()) {
    EXPECT_EQ(*text, GetParam().text);
  }
}

std::string Thp(const char* name) { return absl::StrCat(kThp, name); }
std::string KsmPath(const char* name) { return absl::StrCat(kKsm, name); }

INSTANTIATE_TEST_SUITE_P(
    Values, SysfsWriteTest,
    testing::Values(
        WriteCase{"Enabled", Thp("enabled"), "always\n", Errno::kOk, "[always] madvise never\n"},
        WriteCase{"EnabledWrong", Thp("enabled"), "sometimes", Errno::kEINVAL, "always madvise [never]\n"},
        WriteCase{"Defrag", Thp("defrag"), "defer+madvise", Errno::kOk, "always defer [defer+madvise] madvise never\n"},
        WriteCase{"ZeroPage", Thp("use_zero_page"), "0", Errno::kOk, "0\n"},
        WriteCase{"ZeroPageTwo", Thp("use_zero_page"), "2", Errno::kEINVAL, "1\n"},
        WriteCase{"ReadOnly", Thp("hpage_pmd_size"), "1", Errno::kEACCES, "2097152\n"},
        WriteCase{"NoneMost", Thp("khugepaged/max_ptes_none"), "511", Errno::kOk, "511\n"},
        WriteCase{"NoneTooMany", Thp("khugepaged/max_ptes_none"), "512", Errno::kEINVAL, "511\n"},
        WriteCase{"ScanNothing", Thp("khugepaged/pages_to_scan"), "0", Errno::kEINVAL, "4096\n"},
        WriteCase{"ShmemAlways", Thp("shmem_enabled"), "always\n", Errno::kOk, "[always] within_size advise never deny force\n"},
        WriteCase{"ShmemDeny", Thp("shmem_enabled"), "deny", Errno::kOk, "always within_size advise never [deny] force\n"},
        WriteCase{"ShmemWrong", Thp("shmem_enabled"), "madvise", Errno::kEINVAL, "always within_size advise [never] deny force\n"},
        WriteCase{"Missing", Thp("nonsense"), "0", Errno::kENOENT, nullptr},
        WriteCase{"Elsewhere", "/proc/sys/vm/swappiness", "0", Errno::kENOENT, nullptr},
        WriteCase{"KsmRun", KsmPath("run"), "1", Errno::kOk, "1\n"}, WriteCase{"KsmRunThree", KsmPath("run"), "3", Errno::kEINVAL, "0\n"},
        WriteCase{"KsmRunText", KsmPath("run"), "x", Errno::kEINVAL, "0\n"},
        WriteCase{"KsmScanNothing", KsmPath("pages_to_scan"), "0", Errno::kOk, "0\n"},
        WriteCase{"KsmSharingOne", KsmPath("max_page_sharing"), "1", Errno::kEINVAL, "256\n"},
        WriteCase{"KsmAcrossNodes", KsmPath("merge_across_nodes"), "0", Errno::kOk, "0\n"},
        WriteCase{"VmaReadahead", "/sys/kernel/mm/swap/vma_ra_enabled", "off", Errno::kOk, "false\n"},
        WriteCase{"VmaReadaheadO", "/sys/kernel/mm/swap/vma_ra_enabled", "o", Errno::kEINVAL, "true\n"},
        WriteCase{"KsmCounter", KsmPath("pages_shared"), "0", Errno::kEACCES, "0\n"}),
    [](const auto& c) { return std::string(c.param.name); });

// start_stop_khugepaged(): the reserve that helps to find huge pages comes and goes with them.
TEST(SysfsTest, PoolsOfHugePages) {
  const auto machine = Booted("arm64-128M");
  const std::string folder = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
  const auto write = [&](absl::string_view file, absl::string_view value) {
    return machine->Apply(op::WriteSysfs{absl::StrCat(folder, file), std::string(value)});
  };
  EXPECT_EQ(write("nr_hugepages", "4\n").error, Errno::kOk);
  EXPECT_EQ(machine->SysfsText(folder + "free_hugepages"), "4\n");
  EXPECT_EQ(machine->SysfsText(folder + "demote_size"), "64kB\n");
  EXPECT_EQ(*machine->sysctls().Text(Sysctl::kVmNrHugepages), "4\n");
  EXPECT_EQ(*machine->sysctls().Text(Sysctl::kVmNrHugepagesMempolicy), "4\n");
  EXPECT_EQ(write("nr_hugepages", "x").error, Errno::kEINVAL);
  EXPECT_EQ(write("free_hugepages", "1").error, Errno::kEACCES);
  EXPECT_EQ(write("nothing", "1").error, Errno::kENOENT);
  EXPECT_EQ(write("demote_size", "64K").error, Errno::kEINVAL);
  EXPECT_EQ(write("nr_overcommit_hugepages", "2").error, Errno::kOk);
  EXPECT_EQ(*machine->sysctls().Text(Sysctl::kVmNrOvercommitHugepages), "2\n");
  // Pages larger than the page allocator's blocks are never made on demand.
  const std::string gigantic = "/sys/kernel/mm/hugepages/hugepages-32768kB/";
  EXPECT_EQ(machine->Apply(op::WriteSysfs{gigantic + "nr_overcommit_hugepages", "1"}).error, Errno::kEINVAL);
  EXPECT_EQ(machine->Apply(op::WriteSysctl{"vm.nr_hugepages", "1"}).error, Errno::kOk);
  EXPECT_EQ(machine->SysfsText(folder + "nr_hugepages"), "1\n");
  EXPECT_TRUE(machine->CheckInvariants().empty());
}

struct CommandLineCase {
  const char* name;
  const char* words;
  uint64_t of_2m, of_64k, default_kilobytes;
};
class HugepagesCommandLineTest : public testing::TestWithParam<CommandLineCase> {};
TEST_P(HugepagesCommandLineTest, FillsThePools) {
  MachineSpec spec = PresetSpec("arm64-128M");
  absl::StrAppend(&spec.command_line, " ", GetParam().words);
  const auto machine = Machine::Boot(std::move(spec)).value();
  const auto count = [&](const char* size) {
    return *machine->SysfsText(absl::StrCat("/sys/kernel/mm/hugepages/hugepages-", size, "kB/nr_hugepages"));
  };
  EXPECT_EQ(count("2048"), absl::StrCat(GetParam().of_2m, "\n"));
  EXPECT_EQ(count("64"), absl::StrCat(GetParam().of_64k, "\n"));
  const HugetlbPools& pools = machine->files().hugetlb();
  EXPECT_EQ(pools.pool(pools.default_pool()).pages() * 4, GetParam().default_kilobytes);
}
INSTANTIATE_TEST_SUITE_P(Words, HugepagesCommandLineTest,
                         testing::Values(CommandLineCase{"Nothing", "", 0, 0, 2048},
                                         CommandLineCase{"OfTheDefault", "hugepages=3", 3, 0, 2048},
                                         CommandLineCase{"OfBoth", "hugepagesz=64K hugepages=5 hugepagesz=2M hugepages=2", 2, 5, 2048},
                                         CommandLineCase{"AnotherDefault", "default_hugepagesz=64K hugepages=7", 0, 7, 64},
                                         CommandLineCase{"DefaultAfterItsNumber", "hugepages=7 default_hugepagesz=64K", 0, 7, 64},
                                         CommandLineCase{"UnknownSize", "hugepagesz=1M hugepages=4 hugepages=3", 3, 0, 2048},
                                         CommandLineCase{"SizeTwice", "hugepagesz=2M hugepages=2 hugepagesz=2M hugepages=4", 2, 0, 2048}),
                         [](const auto& test) { return test.param.name; });

TEST(SysfsTest, HugePagesRaiseTheReserve) {
  const auto machine = Booted("arm64-1G");
  const uint64_t before = machine->sysctls().value(Sysctl::kVmMinFreeKbytes);
  ASSERT_EQ(machine->Apply(op::WriteSysfs{Thp("enabled"), "madvise"}).error, Errno::kOk);
  EXPECT_GE(machine->sysctls().value(Sysctl::kVmMinFreeKbytes), before);
  EXPECT_EQ(machine->CheckInvariants(), std::vector<std::string>());
}

}  // namespace
}  // namespace mmlab

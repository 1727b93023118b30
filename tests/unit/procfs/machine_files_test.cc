// The files of a whole machine against the recorded boot behind its preset.

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "server/machine/board.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/procfs/iomem.h"
#include "server/procfs/meminfo.h"
#include "server/procfs/procfs.h"
#include "server/procfs/zones.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

using Lines = std::vector<std::string>;

Lines LinesOf(const std::string& text) {
  Lines lines = absl::StrSplit(text, '\n');
  EXPECT_TRUE(lines.back().empty()) << "the file does not end with a newline";
  lines.pop_back();
  return lines;
}

// "MemFree:" of "MemFree:   12 kB", "cpu:" of "    cpu: 0", "Node 0, zone DMA32" as it is: what stands before the figures.
std::string LabelOf(const std::string& line) {
  if (absl::StartsWith(line, "Node")) return line;
  const size_t text = line.find_first_not_of(' ');
  const size_t end = line.find_first_of("0123456789(", line.find(' ', text));
  const size_t last = line.find_last_not_of(' ', end == std::string::npos ? end : end - 1);
  return line.substr(0, last + 1);
}

class RecordedFilesTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Boot(PresetSpec(GetParam()));
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
  }
  std::string Ours(const std::string& path) {
    const absl::StatusOr<std::string> text = ReadProcFile(*machine_, path);
    EXPECT_TRUE(text.ok()) << text.status();
    return text.value_or("");
  }
  std::string Recorded(const std::string& file) { return RecordedFile(GetParam(), file); }

  // The recording's lines in its order, none more; `same` judges two lines with one label.
  template <typename Same>
  void ExpectSameLines(const std::string& ours, const std::string& recorded, Same same) {
    const Lines want = LinesOf(recorded);
    const Lines have = LinesOf(ours);
    ASSERT_EQ(have.size(), want.size());
    for (size_t i = 0; i < have.size(); ++i) {
      ASSERT_EQ(LabelOf(have[i]), LabelOf(want[i]));
      same(have[i], want[i]);
    }
  }

  std::unique_ptr<Machine> machine_;
};

TEST_P(RecordedFilesTest, IomemIsTheSameByteForByte) { EXPECT_EQ(Ours("iomem"), Recorded("iomem")); }

TEST_P(RecordedFilesTest, VmallocinfoIsTheSameByteForByte) { EXPECT_EQ(Ours("vmallocinfo"), Recorded("vmallocinfo")); }

class RecordedSlabsTest : public RecordedFilesTest {};

// By name: where in the list a cache stands depends on drivers that make theirs at once, and on caches without a slab.
TEST_P(RecordedSlabsTest, SlabinfoHasTheSlabsThatBootTook) {
  const auto by_name = [](const std::string& text) {
    std::map<std::string, Lines> caches;
    for (const std::string& line : LinesOf(text)) {
      Lines words = absl::StrSplit(line, ' ', absl::SkipEmpty());
      caches[words[0]] = std::move(words);
    }
    return caches;
  };
  const std::map<std::string, Lines> ours = by_name(Ours("slabinfo"));
  int with_slabs = 0;
  for (const auto& [name, words] : by_name(Recorded("slabinfo"))) {
    if (words.size() != 16 || words[14] == "0") continue;
    ++with_slabs;
    ASSERT_TRUE(ours.contains(name)) << name;
    EXPECT_EQ(ours.at(name), words);
  }
  EXPECT_GT(with_slabs, 40);
}
INSTANTIATE_TEST_SUITE_P(Presets, RecordedSlabsTest,
                         testing::Values("686-1G", "686-1G-smp4", "686-pae-1G", "686-pae-1G-smp4", "arm64-1G", "arm64-1G-smp4"),
                         [](const auto& test) { return CaseName(test.param); });

// The two files were read one after the other, while slabs came and went.
TEST_P(RecordedFilesTest, MeminfoCountsTheSlabsThatBootTook) {
  std::map<std::string, std::map<std::string, int64_t>> kib;
  for (const auto& [whose, text] : {std::pair{"ours", Ours("meminfo")}, std::pair{"recorded", Recorded("meminfo")}}) {
    for (const std::string& line : LinesOf(text)) {
      const Lines words = absl::StrSplit(line, ' ', absl::SkipEmpty());
      ASSERT_TRUE(absl::SimpleAtoi(words.at(1), &kib[whose][words.at(0)]));
    }
  }
  for (const char* what : {"Slab:", "SReclaimable:", "SUnreclaim:", "KReclaimable:"}) {
    EXPECT_NEAR(kib["ours"][what], kib["recorded"][what], 40) << what;
  }
  EXPECT_EQ(kib["ours"]["MemFree:"], kib["ours"]["MemTotal:"] - kib["ours"]["Slab:"]);
}

TEST_P(RecordedFilesTest, CmdlineVersionAndSwapsAreTheSame) {
  EXPECT_EQ(Ours("cmdline"), Recorded("cmdline"));
  EXPECT_EQ(Ours("version"), Recorded("version"));
  EXPECT_EQ(Ours("swaps"), Recorded("swaps"));
}

// How objects lie in slabs follows from the sizes of structures and the number of CPUs; how many there are, from what ran.
class SlabinfoTest : public RecordedFilesTest {};

TEST_P(SlabinfoTest, HasTheSameCachesWithTheSameGeometry) {
  const auto by_name = [](const Lines& lines) {
    std::map<std::string, std::vector<std::string>> caches;
    for (size_t i = 2; i < lines.size(); ++i) {
      const std::vector<std::string> words = absl::StrSplit(lines[i], ' ', absl::SkipEmpty());
      caches[words[0]] = {words[3], words[4], words[5]};  // objsize, objperslab, pagesperslab
    }
    return caches;
  };
  const Lines ours = LinesOf(Ours("slabinfo"));
  const Lines recorded = LinesOf(Recorded("slabinfo"));
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(ours[i], recorded[i]);
  const auto caches = by_name(ours);
  for (const auto& [name, geometry] : by_name(recorded)) {
    const auto found = caches.find(name);
    ASSERT_NE(found, caches.end()) << name;
    EXPECT_EQ(found->second, geometry) << name;
  }
}
INSTANTIATE_TEST_SUITE_P(Presets, SlabinfoTest,
                         testing::Values("686-1G", "686-1G-smp4", "686-pae-1G", "686-pae-1G-smp4", "arm64-1G", "arm64-1G-smp4"));

TEST_P(RecordedFilesTest, SysctlsAreTheSame) {
  for (const std::string& line : LinesOf(Recorded("sys_vm.tsv"))) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits('\t', 1));
    if (parts[0] == "vm.stat_refresh") continue;
    std::string path = absl::StrCat("sys/", parts[0]);
    std::replace(path.begin(), path.end(), '.', '/');
    EXPECT_EQ(Ours(path), parts[1] + "\n") << parts[0];
  }
}

// Lines whose figures follow from the memory map are exact; of the others the form fits.
TEST_P(RecordedFilesTest, ZoneinfoHasTheSameStaticLines) {
  EXPECT_EQ(LinesOf(Ours("zoneinfo")).size(), LinesOf(Recorded("zoneinfo")).size());
  ExpectSameLines(Ours("zoneinfo"), Recorded("zoneinfo"), [](const std::string& ours, const std::string& recorded) {
    static constexpr const char* kMoving[] = {"  pages free", "              count:", "      nr_", "      numa_"};
    const bool moving =
        std::any_of(std::begin(kMoving), std::end(kMoving), [&](const char* label) { return absl::StartsWith(ours, label); });
    if (!moving) {
      EXPECT_EQ(ours, recorded);
    }
    EXPECT_EQ(ours.find_last_of(' '), recorded.find_last_of(' ')) << ours;
  });
}

// After boot there are blocks of every order, so that no allocation would fail: that is what all captures show.
TEST_P(RecordedFilesTest, ExtfragSaysThatEveryOrderCanBeServed) {
  std::string served;
  for (const std::string& line : LinesOf(Ours("buddyinfo"))) {
    served += line.substr(0, 22);
    for (int order = 0; order < kOrders; ++order) served += "-1.000 ";
    served += '\n';
  }
  EXPECT_EQ(Ours("/sys/kernel/debug/extfrag/extfrag_index"), served);
  const Lines unusable = LinesOf(Ours("/sys/kernel/debug/extfrag/unusable_index"));
  const Lines buddyinfo = LinesOf(Ours("buddyinfo"));
  ASSERT_EQ(unusable.size(), buddyinfo.size());
  for (size_t i = 0; i < unusable.size(); ++i) {
    EXPECT_EQ(unusable[i].substr(0, 28), buddyinfo[i].substr(0, 22) + "0.000 ") << unusable[i];
    EXPECT_EQ(unusable[i].size(), 22u + 6 * kOrders) << unusable[i];
  }
}

TEST_P(RecordedFilesTest, BuddyinfoHasTheSameForm) {
  const Lines ours = LinesOf(Ours("buddyinfo"));
  const Lines recorded = LinesOf(Recorded("buddyinfo"));
  ASSERT_EQ(ours.size(), recorded.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_EQ(ours[i].substr(0, 22), recorded[i].substr(0, 22));
    EXPECT_EQ(ours[i].size(), recorded[i].size());
  }
}

TEST_P(RecordedFilesTest, PagetypeinfoHasTheSameForm) {
  const Lines ours = LinesOf(Ours("pagetypeinfo"));
  const Lines recorded = LinesOf(Recorded("pagetypeinfo"));
  ASSERT_EQ(ours.size(), recorded.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_EQ(ours[i].size(), recorded[i].size()) << ours[i];
    const size_t figures = absl::StartsWith(ours[i], "Node") ? (absl::StrContains(ours[i], "type") ? 43 : 22) : ours[i].size();
    EXPECT_EQ(ours[i].substr(0, figures), recorded[i].substr(0, figures));
  }
}

TEST_P(RecordedFilesTest, MeminfoHasTheSameFormAndStaticFigures) {
  ExpectSameLines(Ours("meminfo"), Recorded("meminfo"), [](const std::string& ours, const std::string& recorded) {
    // What depends on what runs; all else follows from the configuration.
    static constexpr const char* kMoving[] = {
        "MemFree:",      "MemAvailable:", "Cached:",         "HighFree:",     "LowFree:",       "Dirty:",
        "AnonPages:",    "Mapped:",       "Shmem:",          "PageTables:",   "Committed_AS:",  "CmaFree:",
        "KReclaimable:", "Slab:",         "SReclaimable:",   "SUnreclaim:",   "KernelStack:",   "Active:",
        "Inactive:",     "Active(anon):", "Inactive(anon):", "Active(file):", "Inactive(file):"};
    const std::string label = LabelOf(ours);
    if (std::find(std::begin(kMoving), std::end(kMoving), label) == std::end(kMoving)) {
      EXPECT_EQ(ours, recorded);
    } else {
      EXPECT_EQ(ours.size(), recorded.size()) << ours;
    }
  });
}

class NodeFilesTest : public RecordedFilesTest {};

TEST_P(NodeFilesTest, MeminfoOfTheNodeHasTheSameForm) {
  const Lines ours = LinesOf(Ours("/sys/devices/system/node/node0/meminfo"));
  const Lines recorded = LinesOf(Recorded("node0_meminfo"));
  ASSERT_EQ(ours.size(), recorded.size());
  EXPECT_EQ(ours[0], recorded[0]);  // MemTotal
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_EQ(ours[i].substr(0, ours[i].find(':')), recorded[i].substr(0, recorded[i].find(':')));
    EXPECT_EQ(ours[i].size(), recorded[i].size()) << ours[i];
  }
  EXPECT_TRUE(absl::StartsWith(Ours("/sys/devices/system/node/node0/numastat"), "numa_hit "));
}
INSTANTIATE_TEST_SUITE_P(Presets, NodeFilesTest, testing::Values("arm64-1G"));

TEST_P(RecordedFilesTest, VmstatHasTheSameNamesInTheSameOrder) {
  ExpectSameLines(Ours("vmstat"), Recorded("vmstat"), [](const std::string& ours, const std::string& recorded) {
    EXPECT_EQ(ours.substr(0, ours.find(' ')), recorded.substr(0, recorded.find(' ')));
  });
}

TEST_P(RecordedFilesTest, FiguresAgreeWithEachOther) {
  uint64_t free = 0;
  for (const std::string& line : LinesOf(Ours("buddyinfo"))) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    ASSERT_EQ(words.size(), size_t{4} + kOrders);
    for (int order = 0; order < kOrders; ++order) free += std::stoull(words[4 + static_cast<size_t>(order)]) << order;
  }
  // What boot freed late may wait on per-CPU lists.
  for (const Zone& zone : machine_->memory().zones()) free += zone.free_pages() - zone.free_pages_exact();
  for (const MeminfoField& field : MeminfoFields(*machine_)) {
    if (field.name == "MemFree") {
      EXPECT_EQ(field.value, free * 4);
    } else if (field.name == "MemTotal") {
      EXPECT_EQ(field.value, machine_->memory().managed_pages().raw() * 4);
    }
  }
}

TEST_P(RecordedFilesTest, EveryFileListedCanBeRead) {
  const std::vector<std::string> paths = ListProcFiles(*machine_);
  EXPECT_TRUE(std::is_sorted(paths.begin(), paths.end()));
  for (const std::string& path : paths) EXPECT_TRUE(ReadProcFile(*machine_, path).ok()) << path;
}

INSTANTIATE_TEST_SUITE_P(Presets, RecordedFilesTest, testing::ValuesIn(PresetNames()),
                         [](const auto& test) { return CaseName(test.param); });

struct PathCase {
  const char* name;
  const char* path;
  absl::StatusCode code;
};
class PathTest : public testing::TestWithParam<PathCase> {};

TEST_P(PathTest, Answers) {
  const auto machine = *Machine::Boot(PresetSpec("686-64M"));
  EXPECT_EQ(ReadProcFile(*machine, GetParam().path).status().code(), GetParam().code);
}

constexpr absl::StatusCode kOk = absl::StatusCode::kOk;
constexpr absl::StatusCode kNotFound = absl::StatusCode::kNotFound;
constexpr absl::StatusCode kNotYet = absl::StatusCode::kUnimplemented;

INSTANTIATE_TEST_SUITE_P(
    Paths, PathTest,
    testing::Values(PathCase{"Plain", "meminfo", kOk}, PathCase{"Absolute", "/proc/meminfo", kOk},
                    PathCase{"Sysctl", "sys/vm/swappiness", kOk}, PathCase{"SysctlOfAnotherLayout", "sys/vm/numa_stat", kNotFound},
                    PathCase{"SysctlOnlyWritten", "sys/vm/drop_caches", kNotYet}, PathCase{"NoSuchSysctl", "sys/vm/x", kNotFound},
                    PathCase{"NotYet", "interrupts", kNotYet}, PathCase{"NoSuchFile", "nonsense", kNotFound},
                    PathCase{"Empty", "", kNotFound}, PathCase{"Slash", "/", kNotFound}, PathCase{"Up", "../etc/passwd", kNotFound},
                    PathCase{"NoSuchProcess", "4711/maps", kNotFound}, PathCase{"ProcessZero", "0/maps", kNotFound},
                    PathCase{"ProcessNegative", "-1/maps", kNotFound}, PathCase{"ProcessHuge", "99999999999999999999/maps", kNotFound},
                    PathCase{"ProcessPadded", "01/maps", kNotFound}),
    [](const auto& test) { return test.param.name; });

IomemResource Node(const char* name, uint64_t start, uint64_t last) { return {PhysAddr(start), PhysAddr(last), name, {}}; }

struct IomemCase {
  const char* name;
  std::vector<IomemResource> devices;
  const char* part;      // Of the text.
  const char* not_part;  // Or null.
};
class IomemTest : public testing::TestWithParam<IomemCase> {};

TEST_P(IomemTest, PutsRangesInPlace) {
  MachineSpec spec;
  spec.layout = LayoutKind::kX86_32;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(256 << 20), spec).ok());
  spec.iomem_resources = GetParam().devices;
  const std::string text = IomemText(**Machine::Boot(std::move(spec)));
  EXPECT_NE(text.find(GetParam().part), std::string::npos) << text;
  if (GetParam().not_part != nullptr) {
    EXPECT_EQ(text.find(GetParam().not_part), std::string::npos) << text;
  }
  EXPECT_NE(text.find("00100000-0ffdcfff : System RAM\n  01000000-"), std::string::npos) << text;
}

INSTANTIATE_TEST_SUITE_P(
    Devices, IomemTest,
    testing::Values(IomemCase{"Beside", {Node("device", 0xf8000000, 0xf8000fff)}, "\nf8000000-f8000fff : device\n", nullptr},
                    IomemCase{"InsideAnother",
                              {Node("bus", 0xf8000000, 0xf8ffffff), Node("device", 0xf8001000, 0xf8001fff)},
                              "f8000000-f8ffffff : bus\n  f8001000-f8001fff : device\n",
                              nullptr},
                    IomemCase{"AroundOthers",
                              {Node("device", 0xf8001000, 0xf8001fff), Node("bus", 0xf8000000, 0xf8ffffff)},
                              "f8000000-f8ffffff : bus\n  f8001000-f8001fff : device\n",
                              nullptr},
                    IomemCase{"SameRangeGoesInside",
                              {Node("bus", 0xf8000000, 0xf8ffffff), Node("device", 0xf8000000, 0xf8ffffff)},
                              "f8000000-f8ffffff : bus\n  f8000000-f8ffffff : device\n",
                              nullptr},
                    IomemCase{"CuttingIsLeftOut",
                              {Node("bus", 0xf8000000, 0xf8ffffff), Node("device", 0xf8800000, 0xf97fffff)},
                              "f8000000-f8ffffff : bus\n",
                              "device"},
                    IomemCase{"CuttingRamIsLeftOut", {Node("device", 0x0ff00000, 0x1fffffff)}, ": System RAM\n", "device"},
                    IomemCase{"BeyondTheLayoutIsLeftOut", {Node("device", 0x7000000000, 0x7fffffffff)}, ": System RAM\n", "device"}),
    [](const auto& test) { return test.param.name; });

TEST(MeminfoTest, FollowsWhatIsTaken) {
  const auto machine = *Machine::Boot(PresetSpec("686-1G"));
  const auto value = [&](absl::string_view name) {
    for (const MeminfoField& field : MeminfoFields(*machine)) {
      if (field.name == name) return field.value;
    }
    return uint64_t{0};
  };
  const uint64_t free = value("MemFree");
  const uint64_t high_free = value("HighFree");
  machine->Apply(op::AllocPages{op::GfpClass::kHighuser, 9, 0, false});
  EXPECT_EQ(value("MemFree"), free - 2048);
  EXPECT_EQ(value("HighFree"), high_free - 2048);
  EXPECT_EQ(value("LowFree"), free - high_free);
}

// A freshly booted machine of 1 GiB prints 42119 and 21033; it had taken 3768 pages more for itself.
TEST(DirtyLimitsTest, FollowTheKernelsRule) {
  const auto machine = *Machine::Boot(PresetSpec("686-1G"));
  const DirtyLimits limits = machine->dirty_limits();
  EXPECT_NEAR(static_cast<double>(limits.threshold), 42119, 0.2 * 3768);
  EXPECT_NEAR(static_cast<double>(limits.background), 21033, 0.1 * 3768);
  machine->Apply(op::WriteSysctl{"vm.dirty_bytes", "8192000"});
  machine->Apply(op::WriteSysctl{"vm.dirty_background_bytes", "81920000"});
  EXPECT_EQ(machine->dirty_limits().threshold, 2000u);
  EXPECT_EQ(machine->dirty_limits().background, 1000u);  // Never above half the threshold.
}

// Of huge pages the kernel counts pages, but /proc/vmstat and zoneinfo show how many they are.
TEST(ShownStatTest, HugePagesAreShownOneByOne) {
  VmStat stat;
  stat.Add(NodeStat::kNrAnonPages, 2048);
  stat.Add(NodeStat::kNrAnonTransparentHugepages, 2048);
  EXPECT_EQ(ShownStat(GetLayout(LayoutKind::kArm64), stat, NodeStat::kNrAnonTransparentHugepages), 4u);
  EXPECT_EQ(ShownStat(GetLayout(LayoutKind::kX86_32Pae), stat, NodeStat::kNrAnonTransparentHugepages), 4u);
  EXPECT_EQ(ShownStat(GetLayout(LayoutKind::kX86_32), stat, NodeStat::kNrAnonTransparentHugepages), 2u);
  EXPECT_EQ(ShownStat(GetLayout(LayoutKind::kArm64), stat, NodeStat::kNrAnonPages), 2048u);
}

}  // namespace
}  // namespace mmlab

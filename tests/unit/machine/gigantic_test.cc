// Huge pages larger than the page allocator's blocks: made, mapped, demoted and given back.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/explanation.h"
#include "server/base/random.h"
#include "server/files/files.h"
#include "server/hardware/page_walk.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/process/processes.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kGib = uint64_t{1} << 30;
constexpr uint64_t kPage = 4096;
constexpr uint32_t kPrivateHuge = 0x40022;
constexpr uint32_t kSharedHuge = 0x40021;
constexpr uint32_t kHugeLog[] = {16, 21, 25, 30};

class Lab {
 public:
  explicit Lab(const char* preset, const std::string& words = "") {
    MachineSpec spec = PresetSpec(preset);
    absl::StrAppend(&spec.command_line, " ", words);
    machine_ = Machine::Boot(std::move(spec)).value();
    Must(op::WriteSysctl{"vm.overcommit_memory", "1"});
    Must(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
  }

  Machine& machine() { return *machine_; }
  Outcome Apply(const Operation& operation, Explanation* why = nullptr) { return machine_->Apply(operation, why); }
  uint64_t Must(const Operation& operation, Explanation* why = nullptr) {
    const Outcome outcome = Apply(operation, why);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome.value;
  }
  static std::string Path(uint64_t kib, const char* name) { return absl::StrCat("/sys/kernel/mm/hugepages/hugepages-", kib, "kB/", name); }
  Errno Write(uint64_t kib, const char* name, absl::string_view value, Explanation* why = nullptr) {
    return Apply(op::WriteSysfs{Path(kib, name), std::string(value)}, why).error;
  }
  uint64_t Read(uint64_t kib, const char* name) {
    uint64_t value = ~uint64_t{0};
    EXPECT_TRUE(absl::SimpleAtoi(machine_->SysfsText(Path(kib, name)).value_or(""), &value)) << name;
    return value;
  }
  Pid Start() {
    const Pid pid(static_cast<int32_t>(Must(op::CreateProcess{"program", 1000, false})));
    op::Exec exec;
    exec.pid = pid;
    exec.image = SmallProgram(machine_->layout().kind);
    Must(exec);
    return pid;
  }
  uint64_t Map(Pid pid, uint64_t bytes, uint32_t flags) { return Must(op::Mmap{.pid = pid, .length = bytes, .prot = 3, .flags = flags}); }
  Outcome Access(Pid pid, AccessKind kind, uint64_t address, uint64_t value = 0) {
    op::AccessMemory access{.pid = pid, .access = {}};
    access.access.kind = kind;
    access.access.address = address;
    access.access.length = 4;
    access.access.value = value;
    return Apply(access);
  }
  void Store(Pid pid, uint64_t address, uint64_t value) {
    EXPECT_FALSE(Access(pid, AccessKind::kStore, address, value).signal.has_value());
  }
  uint64_t Load(Pid pid, uint64_t address) {
    const Outcome outcome = Access(pid, AccessKind::kLoad, address);
    EXPECT_FALSE(outcome.signal.has_value());
    return outcome.access.value_or(AccessResult()).value;
  }
  // With what the CPUs keep.
  uint64_t Free() const {
    uint64_t pages = 0;
    for (const Zone& zone : machine_->memory().zones()) {
      pages += zone.free_pages_exact();
      for (const PerCpuPages& pcp : zone.pcp) pages += pcp.count;
    }
    return pages;
  }
  void ExpectSound() {
    for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  }

 private:
  std::unique_ptr<Machine> machine_;
};

struct SizeCase {
  const char* name;
  const char* preset;
  uint64_t kib;
  uint64_t least, most;  // How many such pages the machine can have.
};
class GiganticPoolTest : public testing::TestWithParam<SizeCase> {};

TEST_P(GiganticPoolTest, TakesWhatCanBeEmptiedAndGivesItBack) {
  Lab lab(GetParam().preset);
  const uint64_t pages = GetParam().kib / 4;
  const uint64_t free = lab.Free();
  EXPECT_EQ(lab.Write(GetParam().kib, "nr_hugepages", "100000"), Errno::kOk);
  const uint64_t got = lab.Read(GetParam().kib, "nr_hugepages");
  EXPECT_GE(got, GetParam().least);
  EXPECT_LE(got, GetParam().most);
  EXPECT_EQ(lab.Read(GetParam().kib, "free_hugepages"), got);
  EXPECT_EQ(lab.Free(), free - got * pages);
  EXPECT_EQ(lab.machine().files().hugetlb().total_pages(), got * pages);
  lab.ExpectSound();
  EXPECT_EQ(lab.Write(GetParam().kib, "nr_overcommit_hugepages", "1"), Errno::kEINVAL);
  EXPECT_EQ(lab.Write(GetParam().kib, "nr_hugepages", "0"), Errno::kOk);
  EXPECT_EQ(lab.Free(), free);
  lab.ExpectSound();
}
// 4 GiB from 1 GiB on: of four such places three hold the kernel, CMA, and what boot took from the top.
INSTANTIATE_TEST_SUITE_P(Sizes, GiganticPoolTest,
                         testing::Values(SizeCase{"OneGib", "arm64-4G", 1048576, 1, 1}, SizeCase{"Mib32", "arm64-1G", 32768, 20, 29},
                                         SizeCase{"TooSmallForOne", "arm64-1G", 1048576, 0, 0}),
                         [](const auto& c) { return std::string(c.param.name); });

TEST(GiganticTest, WhatIsInTheWayMoves) {
  Lab lab("arm64-1G");
  const Pid pid = lab.Start();
  const Pid child(static_cast<int32_t>(lab.Must(op::Fork{pid, 0})));
  const uint64_t pages = 600 * kMib / kPage;
  const uint64_t own = lab.Map(pid, pages * kPage, 0x22);
  const uint64_t shared = lab.Map(child, 8 * kMib, 0x21);
  for (uint64_t i = 0; i < pages; ++i) lab.Store(pid, own + i * kPage, i + 1);
  for (uint64_t i = 0; i < 8 * kMib / kPage; ++i) lab.Store(child, shared + i * kPage, i + 7);
  for (uint64_t i = 0; i < pages; i += 2) lab.Must(op::Madvise{pid, own + i * kPage, kPage, 4});
  EXPECT_EQ(lab.Write(32768, "nr_hugepages", "15"), Errno::kOk);
  EXPECT_EQ(lab.Read(32768, "nr_hugepages"), 15u);
  EXPECT_GT(lab.machine().vm_stat().Get(VmEvent::kPgmigrateSuccess), 0u);
  lab.ExpectSound();
  for (uint64_t i = 0; i < pages; ++i) ASSERT_EQ(lab.Load(pid, own + i * kPage), i % 2 == 0 ? 0 : i + 1);
  for (uint64_t i = 0; i < 8 * kMib / kPage; ++i) ASSERT_EQ(lab.Load(child, shared + i * kPage), i + 7);
  lab.ExpectSound();
}

TEST(GiganticTest, ExplainsWhichRangesWereLookedAt) {
  Lab lab("arm64-1G");
  Explanation why;
  EXPECT_EQ(lab.Write(32768, "nr_hugepages", "1", &why), Errno::kOk);
  const std::string text = ExplanationText(why);
  EXPECT_NE(text.find("memory that boot took"), std::string::npos) << text;
  EXPECT_NE(text.find("it becomes one page"), std::string::npos) << text;
}

TEST(GiganticTest, WhatCantMoveKeepsItsRange) {
  Lab lab("arm64-1G");
  EXPECT_EQ(lab.Write(32768, "nr_hugepages", "1000"), Errno::kOk);
  const uint64_t most = lab.Read(32768, "nr_hugepages");
  EXPECT_EQ(lab.Write(32768, "nr_hugepages", "0"), Errno::kOk);
  // A page of the kernel in a range keeps the range; one that its holder can move does not.
  const Outcome movable = lab.Apply(op::AllocPages{.gfp = op::GfpClass::kHighuserMovable, .order = 0, .movable_id = 5});
  ASSERT_EQ(movable.error, Errno::kOk);
  for (int i = 0; i < 3; ++i) lab.Must(op::AllocPages{.gfp = op::GfpClass::kKernel, .order = 0});
  EXPECT_EQ(lab.Write(32768, "nr_hugepages", "1000"), Errno::kOk);
  EXPECT_LE(lab.Read(32768, "nr_hugepages"), most);
  EXPECT_GE(lab.Read(32768, "nr_hugepages") + 1, most);
  lab.ExpectSound();
}

TEST(GiganticTest, IsMappedByOneEntryOfThePud) {
  Lab lab("arm64-4G", "default_hugepagesz=1G");
  EXPECT_EQ(lab.Must(op::WriteSysctl{"vm.nr_hugepages", "1"}), 0u);
  EXPECT_EQ(lab.Apply(op::WriteSysctl{"vm.nr_overcommit_hugepages", "1"}).error, Errno::kEINVAL);
  const Pid pid = lab.Start();
  const uint64_t start = lab.Map(pid, kGib, kPrivateHuge);
  EXPECT_EQ(start % kGib, 0u);
  EXPECT_EQ(lab.Load(pid, start + 5 * kMib), 0u);
  lab.Store(pid, start + kGib - 4, 77);
  lab.Store(pid, start, 78);
  EXPECT_EQ(lab.Load(pid, start + kGib - 4), 77u);
  const Process& process = *lab.machine().processes().Find(pid);
  const PageWalk walk = lab.machine().processes().Walk(process, VirtAddr(start + 3 * kPage));
  ASSERT_EQ(walk.count, 2);
  EXPECT_EQ(walk.steps[1].level, 3);
  EXPECT_EQ(walk.physical->raw() % kGib, 3 * kPage);
  const std::vector<VmAreaView> views = lab.machine().processes().VmAreas(process);
  const std::vector<Smaps> smaps = lab.machine().processes().AllSmaps(process);
  for (size_t i = 0; i < views.size(); ++i) {
    if (views[i].start.raw() != start) continue;
    EXPECT_EQ(smaps[i].private_hugetlb.raw(), kGib);
    EXPECT_EQ(views[i].page_size.raw(), kGib);
  }
  lab.ExpectSound();
  // A child shares it until it writes, for which no second page is there.
  const Pid child(static_cast<int32_t>(lab.Must(op::Fork{pid, 0})));
  EXPECT_EQ(lab.Load(child, start), 78u);
  EXPECT_TRUE(lab.Access(child, AccessKind::kStore, start, 1).signal.has_value());
  lab.ExpectSound();
  lab.Must(op::Munmap{pid, start, kGib});
  lab.Must(op::Munmap{child, start, kGib});
  EXPECT_EQ(lab.Read(1048576, "free_hugepages"), 1u);
  // Small pages can be mapped where it was, and it where they were.
  const uint64_t small = lab.Must(op::Mmap{.pid = pid, .address = start, .length = 4 * kPage, .prot = 3, .flags = 0x32});
  lab.Store(pid, small, 5);
  EXPECT_EQ(lab.Must(op::Mmap{.pid = pid, .address = start, .length = kGib, .prot = 3, .flags = kSharedHuge | 0x10}), start);
  EXPECT_EQ(lab.Load(pid, start), 0u);
  lab.ExpectSound();
}

struct DemoteCase {
  const char* name;
  uint64_t kib;       // Of this pool
  uint64_t pages;     // so many pages are made,
  const char* to;     // demoted to this size: null, the next smaller one;
  const char* count;  // so many.
  uint64_t left, smaller_kib, smaller;
};
class DemoteTest : public testing::TestWithParam<DemoteCase> {};
TEST_P(DemoteTest, MakesSmallerPagesOfFreeOnes) {
  const DemoteCase& c = GetParam();
  Lab lab("arm64-4G");
  ASSERT_EQ(lab.Write(c.kib, "nr_hugepages", absl::StrCat(c.pages)), Errno::kOk);
  ASSERT_EQ(lab.Read(c.kib, "nr_hugepages"), c.pages);
  const uint64_t free = lab.Free();
  if (c.to != nullptr) {
    EXPECT_EQ(lab.Write(c.kib, "demote_size", c.to), Errno::kOk);
  }
  EXPECT_EQ(lab.Write(c.kib, "demote", c.count), Errno::kOk);
  EXPECT_EQ(lab.Read(c.kib, "nr_hugepages"), c.left);
  EXPECT_EQ(lab.Read(c.smaller_kib, "nr_hugepages"), c.smaller);
  EXPECT_EQ(lab.Read(c.smaller_kib, "free_hugepages"), c.smaller);
  EXPECT_EQ(lab.Free(), free);
  lab.ExpectSound();
  const Pid pid = lab.Start();
  const uint32_t log = c.smaller_kib == 64 ? 16 : c.smaller_kib == 2048 ? 21 : 25;
  const uint64_t start = lab.Map(pid, c.smaller_kib * 1024, kPrivateHuge | log << 26);
  lab.Store(pid, start + c.smaller_kib * 1024 - 4, 3);
  EXPECT_EQ(lab.Write(c.smaller_kib, "nr_hugepages", "0"), Errno::kOk);
  EXPECT_EQ(lab.Read(c.smaller_kib, "surplus_hugepages"), 1u);
  EXPECT_EQ(lab.Load(pid, start + c.smaller_kib * 1024 - 4), 3u);
  lab.ExpectSound();
}
INSTANTIATE_TEST_SUITE_P(Sizes, DemoteTest,
                         testing::Values(DemoteCase{"OneGibTo32", 1048576, 1, nullptr, "1", 0, 32768, 32},
                                         DemoteCase{"OneGibTo2", 1048576, 1, "2M", "7", 0, 2048, 512},
                                         DemoteCase{"Mib32To2", 32768, 3, nullptr, "2", 1, 2048, 32},
                                         DemoteCase{"Mib2ToKib64", 2048, 3, nullptr, "1", 2, 64, 32}),
                         [](const auto& c) { return std::string(c.param.name); });

struct DemoteSizeCase {
  const char* name;
  uint64_t kib;
  const char* size;
  Errno error;
};
class DemoteSizeTest : public testing::TestWithParam<DemoteSizeCase> {};
TEST_P(DemoteSizeTest, IsOneOfTheSmallerPoolsOfAtLeastAPmd) {
  Lab lab("arm64-1G");
  EXPECT_EQ(lab.Write(GetParam().kib, "demote_size", GetParam().size), GetParam().error);
}
INSTANTIATE_TEST_SUITE_P(
    Values, DemoteSizeTest,
    testing::Values(DemoteSizeCase{"Smaller", 1048576, "2048kB", Errno::kOk}, DemoteSizeCase{"TheNext", 1048576, "32M\n", Errno::kOk},
                    DemoteSizeCase{"BelowAPmd", 1048576, "64K", Errno::kEINVAL},
                    DemoteSizeCase{"BelowAPmdOfItsOwn", 2048, "64K", Errno::kEINVAL},
                    DemoteSizeCase{"Itself", 32768, "32M", Errno::kEINVAL}, DemoteSizeCase{"Larger", 32768, "1G", Errno::kEINVAL},
                    DemoteSizeCase{"NoSuch", 32768, "4M", Errno::kEINVAL}, DemoteSizeCase{"TheSmallestHasNone", 64, "64K", Errno::kENOENT}),
    [](const auto& c) { return std::string(c.param.name); });

struct BootCase {
  const char* name;
  const char* preset;
  const char* words;
  uint64_t of_1g, of_32m, of_2m;
};
class GiganticBootTest : public testing::TestWithParam<BootCase> {};
TEST_P(GiganticBootTest, KeepsThemFromThePageAllocator) {
  Lab lab(GetParam().preset, GetParam().words);
  EXPECT_EQ(lab.Read(1048576, "nr_hugepages"), GetParam().of_1g);
  EXPECT_EQ(lab.Read(32768, "nr_hugepages"), GetParam().of_32m);
  EXPECT_EQ(lab.Read(2048, "nr_hugepages"), GetParam().of_2m);
  Lab without(GetParam().preset);
  EXPECT_EQ(lab.machine().memory().managed_pages().raw(), without.machine().memory().managed_pages().raw());
  lab.ExpectSound();
  const uint64_t free = lab.Free();
  for (const uint64_t kib : {1048576, 32768, 2048}) EXPECT_EQ(lab.Write(kib, "nr_hugepages", "0"), Errno::kOk);
  EXPECT_EQ(lab.Free(), free + (GetParam().of_1g << 18) + (GetParam().of_32m << 13) + (GetParam().of_2m << 9));
  lab.ExpectSound();
}
INSTANTIATE_TEST_SUITE_P(Words, GiganticBootTest,
                         testing::Values(BootCase{"OneOfEach", "arm64-4G", "hugepagesz=1G hugepages=1 hugepagesz=32M hugepages=2", 1, 2, 0},
                                         BootCase{"TheDefault", "arm64-4G", "default_hugepagesz=1G hugepages=1", 1, 0, 0},
                                         BootCase{"NumberFirst", "arm64-1G", "hugepages=3 default_hugepagesz=32M", 0, 3, 0},
                                         BootCase{"AsManyAsFit", "arm64-1G", "hugepagesz=1G hugepages=4 hugepagesz=2M hugepages=1", 0, 0,
                                                  1}),
                         [](const auto& c) { return std::string(c.param.name); });

TEST(GiganticTest, FilesOfEachSize) {
  Lab lab("arm64-1G");
  const Pid pid = lab.Start();
  int number = 0;
  for (const uint64_t bytes : {64 * 1024 * uint64_t{1}, 2 * kMib, 32 * kMib}) {
    EXPECT_EQ(lab.Write(bytes / 1024, "nr_hugepages", "2"), Errno::kOk);
    op::CreateFile create{absl::StrCat("/huge", ++number), op::FileSystem::kHugetlbfs, 2 * bytes, "", false};
    create.huge_page_size = bytes;
    lab.Must(create);
    const auto fd = static_cast<int32_t>(lab.Must(op::Open{pid, create.path, 2}));
    const uint64_t start = lab.Must(op::Mmap{.pid = pid, .length = 2 * bytes, .prot = 3, .flags = 1, .fd = fd});
    EXPECT_EQ(start % bytes, 0u);
    EXPECT_EQ(lab.Read(bytes / 1024, "resv_hugepages"), 2u);
    lab.Store(pid, start + bytes, 9);
    EXPECT_EQ(lab.Read(bytes / 1024, "free_hugepages"), 1u);
    EXPECT_EQ(lab.Load(pid, start + bytes), 9u);
  }
  op::CreateFile wrong{"/wrong", op::FileSystem::kHugetlbfs, 0, "", false};
  wrong.huge_page_size = 4 * kMib;
  EXPECT_EQ(lab.Apply(wrong).error, Errno::kEINVAL);
  lab.ExpectSound();
}

TEST(GiganticTest, TheNodeShowsAndSetsTheSamePools) {
  Lab lab("arm64-1G");
  const std::string node = "/sys/devices/system/node/node0/hugepages/hugepages-32768kB/";
  EXPECT_EQ(lab.Must(op::WriteSysfs{node + "nr_hugepages", "2\n"}), 0u);
  EXPECT_EQ(lab.Read(32768, "nr_hugepages"), 2u);
  EXPECT_EQ(lab.machine().SysfsText(node + "free_hugepages"), "2\n");
  EXPECT_EQ(lab.machine().SysfsText(node + "surplus_hugepages"), "0\n");
  EXPECT_EQ(lab.machine().SysfsText(node + "demote_size"), "2048kB\n");
  EXPECT_FALSE(lab.machine().SysfsText(node + "resv_hugepages").has_value());
  lab.Must(op::WriteSysfs{node + "demote", "1"});
  EXPECT_EQ(lab.Read(2048, "nr_hugepages"), 16u);
  Lab x86("686-pae-1G");
  EXPECT_EQ(x86.Apply(op::WriteSysfs{"/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "2"}).error, Errno::kENOENT);
}

TEST(GiganticTest, SegmentsAreForRootAndOneGroup) {
  Lab lab("arm64-128M");
  EXPECT_EQ(lab.Write(2048, "nr_hugepages", "1"), Errno::kOk);
  const Pid pid = lab.Start();
  const op::Shmget get{pid, 0, 2 * kMib, 0x800 | 0x200 | 0600};
  EXPECT_EQ(lab.Apply(get).error, Errno::kEPERM);
  lab.Must(op::WriteSysctl{"vm.hugetlb_shm_group", "1000"});
  EXPECT_EQ(lab.Apply(get).error, Errno::kOk);
}

// Pools of all sizes grow, shrink and are demoted while processes use them and memory of other kinds; everything written reads back.
class PoolProgram {
 public:
  PoolProgram(Lab& lab, uint64_t seed) : lab_(lab), random_(seed), pid_(lab.Start()) {}

  void Step() {
    static constexpr uint64_t kKib[] = {64, 2048, 32768};
    const uint64_t which = random_.Below(3);
    switch (random_.Below(10)) {
      case 0:
        EXPECT_EQ(lab_.Write(kKib[which], "nr_hugepages", absl::StrCat(random_.Below(which == 0 ? 100 : which == 1 ? 20 : 6))), Errno::kOk);
        return;
      case 1:
        if (which > 0) {
          EXPECT_EQ(lab_.Write(kKib[which], "demote", absl::StrCat(random_.Below(3))), Errno::kOk);
        }
        return;
      case 2: {
        const uint64_t bytes = kKib[which] * 1024;
        const Outcome outcome = lab_.Apply(op::Mmap{.pid = pid_,
                                                    .length = bytes,
                                                    .prot = 3,
                                                    .flags = (random_.Below(2) == 0 ? kPrivateHuge : kSharedHuge) | kHugeLog[which] << 26});
        if (outcome.error == Errno::kOk) areas_[outcome.value] = bytes;
        return;
      }
      case 3:
      case 4: {
        const uint64_t bytes = (1 + random_.Below(2000)) * kPage;
        const uint64_t start = lab_.Map(pid_, bytes, random_.Below(3) == 0 ? 0x21 : 0x22);
        areas_[start] = bytes;
        for (uint64_t at = start; at < start + bytes; at += kPage) Write(at);
        return;
      }
      case 5:
        if (areas_.size() > 12) Unmap();
        return;
      default:
        for (const auto& [start, bytes] : areas_) Write(start + random_.Below(bytes / kPage) * kPage);
        return;
    }
  }
  void ExpectContents() {
    for (const auto& [address, value] : written_) ASSERT_EQ(lab_.Load(pid_, address), value) << address;
  }

 private:
  void Write(uint64_t address) {
    const uint64_t value = random_.Below(1 << 20);
    lab_.Store(pid_, address, value);
    written_[address] = value;
  }
  void Unmap() {
    auto it = areas_.begin();
    std::advance(it, static_cast<ptrdiff_t>(random_.Below(areas_.size())));
    lab_.Must(op::Munmap{pid_, it->first, it->second});
    written_.erase(written_.lower_bound(it->first), written_.lower_bound(it->first + it->second));
    areas_.erase(it);
  }

  Lab& lab_;
  Random random_;
  const Pid pid_;
  std::map<uint64_t, uint64_t> areas_;    // By start: bytes.
  std::map<uint64_t, uint64_t> written_;  // By address.
};

TEST(GiganticTest, RandomProgramsKeepTheirBytes) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    Lab lab("arm64-1G");
    PoolProgram program(lab, seed);
    for (int step = 0; step < 400; ++step) {
      program.Step();
      if (step % 40 == 0) lab.ExpectSound();
      ASSERT_FALSE(testing::Test::HasFailure()) << "at step " << step;
    }
    program.ExpectContents();
    lab.ExpectSound();
  }
}

}  // namespace
}  // namespace mmlab

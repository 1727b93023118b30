// Huge pages of tmpfs, memfd and shared anonymous memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/base/random.h"
#include "server/process/address_space.h"
#include "tests/unit/process/memory_lab.h"

namespace mmlab {
namespace {

constexpr int32_t kMadvDontneed = 4;
constexpr int32_t kMadvRemove = 9;
constexpr int32_t kMadvHugepage = 14;
constexpr int32_t kMadvNohugepage = 15;
constexpr int32_t kMadvCollapse = 25;

uint64_t HugeOf(LayoutKind layout) { return layout == LayoutKind::kX86_32 ? 1024 : 512; }

class HugeShmemTest : public testing::TestWithParam<LayoutKind> {
 protected:
  HugeShmemTest() : lab_(GetParam(), true, 32768), huge_(HugeOf(GetParam())) {}

  uint64_t Stat(NodeStat item) const { return static_cast<uint64_t>(lab_.vm_stat.Get(item)); }
  uint64_t Count(VmEvent item) const { return lab_.vm_stat.Get(item); }
  // Shared anonymous memory, from a place where huge pages fit.
  void MapShared(uint64_t page, uint64_t pages) { lab_.Map(lab_.pid, page, pages, 3, kSharedAnon); }
  Smaps SmapsAt(Pid who, uint64_t page) {
    const Process& process = lab_.process(who);
    const std::vector<VmAreaView> views = lab_.processes->VmAreas(process);
    const std::vector<Smaps> smaps = lab_.processes->AllSmaps(process);
    for (size_t i = 0; i < views.size(); ++i) {
      if (views[i].start.raw() == MemoryLab::At(page)) return smaps[i];
    }
    return {};
  }
  Errno Advise(uint64_t page, uint64_t pages, int32_t advice) {
    return lab_.processes->Madvise(lab_.pid, MemoryLab::At(page), pages * kPage, advice);
  }
  void ExpectSound() { EXPECT_EQ(lab_.Violations(), std::vector<std::string>{}); }
  void TearDown() override { ExpectSound(); }

  MemoryLab lab_;
  uint64_t huge_;
};

TEST_P(HugeShmemTest, AFaultMapsAHugePageByOneEntry) {
  lab_.files.SetShmemEnabled(ShmemEnabled::kAlways);
  MapShared(0, 2 * huge_);
  lab_.Access(lab_.pid, AccessKind::kStore, 7, 9);
  EXPECT_EQ(Stat(NodeStat::kNrShmemHugepages), huge_);
  EXPECT_EQ(Stat(NodeStat::kNrShmemPmdmapped), huge_);
  EXPECT_EQ(Count(VmEvent::kThpFileAlloc), 1u);
  EXPECT_EQ(Count(VmEvent::kThpFileMapped), 1u);
  lab_.Access(lab_.pid, AccessKind::kLoad, huge_ - 1);
  EXPECT_EQ(lab_.result.minor_faults, 0u);
  EXPECT_EQ(SmapsAt(lab_.pid, 0).shmem_pmd_mapped.raw(), huge_ * kPage);
  EXPECT_EQ(SmapsAt(lab_.pid, 0).rss.raw(), huge_ * kPage);
  EXPECT_EQ(lab_.processes->Resident(lab_.process(lab_.pid)).shmem.raw(), huge_ * kPage);
  ExpectSound();
  // A child has no entry until it looks, and then one.
  const Pid child = lab_.processes->Fork(lab_.pid, 0).value();
  EXPECT_EQ(SmapsAt(child, 0).rss.raw(), 0u);
  EXPECT_EQ(lab_.Access(child, AccessKind::kLoad, 7), 9);
  EXPECT_EQ(SmapsAt(child, 0).shmem_pmd_mapped.raw(), huge_ * kPage);
  EXPECT_EQ(Count(VmEvent::kThpFileMapped), 2u);
  EXPECT_EQ(Stat(NodeStat::kNrShmemPmdmapped), huge_);
  ExpectSound();
  lab_.processes->Exit(child, 0);
  EXPECT_EQ(lab_.processes->Munmap(lab_.pid, MemoryLab::At(0), 2 * huge_ * kPage), Errno::kOk);
  EXPECT_EQ(Stat(NodeStat::kNrShmemHugepages), 0u);
}

TEST_P(HugeShmemTest, WhereTheEntryGoesThePageStays) {
  lab_.files.SetShmemEnabled(ShmemEnabled::kForce);
  MapShared(0, 2 * huge_);
  for (uint64_t page = 0; page < 2 * huge_; page += huge_ / 4)
    lab_.Access(lab_.pid, AccessKind::kStore, page, static_cast<uint8_t>(page >> 7 | 1));
  // Part of it is given up by the mapping: the entry goes, small ones come, the page stays.
  EXPECT_EQ(Advise(3, 1, kMadvDontneed), Errno::kOk);
  EXPECT_EQ(Stat(NodeStat::kNrShmemHugepages), 2 * huge_);
  EXPECT_EQ(Stat(NodeStat::kNrShmemPmdmapped), huge_);
  EXPECT_EQ(Count(VmEvent::kThpSplitPmd), 1u);
  EXPECT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, 0), 1);
  EXPECT_EQ(Stat(NodeStat::kNrShmemPmdmapped), 2 * huge_);
  // A boundary of the VMA inside it lets small entries map it.
  EXPECT_EQ(lab_.processes->Mprotect(lab_.pid, MemoryLab::At(huge_ / 2), kPage, 1), Errno::kOk);
  EXPECT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, huge_ / 2), (huge_ / 2) >> 7 | 1);
  EXPECT_EQ(Stat(NodeStat::kNrShmemPmdmapped), huge_);
  ExpectSound();
  EXPECT_EQ(lab_.processes->Mprotect(lab_.pid, MemoryLab::At(0), huge_ * kPage, 3), Errno::kOk);
  ExpectSound();
}

TEST_P(HugeShmemTest, HolesAndTruncationSplitIt) {
  lab_.files.SetShmemEnabled(ShmemEnabled::kAlways);
  MapShared(0, 2 * huge_);
  for (uint64_t page = 0; page < 2 * huge_; page += 8) lab_.Access(lab_.pid, AccessKind::kStore, page, static_cast<uint8_t>(page / 8 + 1));
  EXPECT_EQ(Advise(8, 16, kMadvRemove), Errno::kOk);
  EXPECT_EQ(Count(VmEvent::kThpSplitPage), 1u);
  EXPECT_EQ(Stat(NodeStat::kNrShmemHugepages), huge_);
  EXPECT_EQ(Stat(NodeStat::kNrShmem), 2 * huge_ - 16 + 20);  // And the lab's own file.
  ExpectSound();
  for (uint64_t page = 0; page < 2 * huge_; page += 8) {
    ASSERT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, page), page >= 8 && page < 24 ? 0 : static_cast<uint8_t>(page / 8 + 1));
  }
  // A whole one goes as one.
  EXPECT_EQ(Advise(huge_, huge_, kMadvRemove), Errno::kOk);
  EXPECT_EQ(Stat(NodeStat::kNrShmemHugepages), 0u);
  EXPECT_EQ(Count(VmEvent::kThpSplitPage), 1u);
  EXPECT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, huge_), 0);
}

TEST_P(HugeShmemTest, FilesSplitWhereTheyEnd) {
  lab_.files.SetShmemEnabled(ShmemEnabled::kAlways);
  const auto fd = static_cast<int32_t>(lab_.processes->MemfdCreate(lab_.pid, "memory", 0).value());
  ASSERT_EQ(lab_.processes->Ftruncate(lab_.pid, fd, (huge_ + 10) * kPage), Errno::kOk);
  lab_.Map(lab_.pid, 0, 2 * huge_, 3, 1, fd);
  for (const uint64_t page : {uint64_t{1}, huge_ - 1, huge_ + 9}) lab_.Access(lab_.pid, AccessKind::kStore, page, 5);
  EXPECT_EQ(Stat(NodeStat::kNrShmemHugepages), 2 * huge_);
  ASSERT_EQ(lab_.processes->Ftruncate(lab_.pid, fd, (huge_ + 5) * kPage + 100), Errno::kOk);
  EXPECT_EQ(Stat(NodeStat::kNrShmemHugepages), huge_);
  EXPECT_EQ(Stat(NodeStat::kNrShmem), huge_ + 6 + 20);
  ExpectSound();
  lab_.Access(lab_.pid, AccessKind::kLoad, huge_ + 9);
  EXPECT_TRUE(lab_.signal.has_value());
  ASSERT_EQ(lab_.processes->Ftruncate(lab_.pid, fd, 2 * huge_ * kPage), Errno::kOk);
  EXPECT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, huge_ + 9), 0);
  EXPECT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, huge_ - 1), 5);
  ASSERT_EQ(lab_.processes->Ftruncate(lab_.pid, fd, 0), Errno::kOk);
  EXPECT_EQ(Stat(NodeStat::kNrShmem), 20u);
}

TEST_P(HugeShmemTest, APrivateMappingCopiesSmallPages) {
  lab_.files.SetShmemEnabled(ShmemEnabled::kAlways);
  const auto fd = static_cast<int32_t>(lab_.processes->MemfdCreate(lab_.pid, "memory", 0).value());
  ASSERT_EQ(lab_.processes->Ftruncate(lab_.pid, fd, huge_ * kPage), Errno::kOk);
  lab_.Map(lab_.pid, 0, huge_, 3, 1, fd);
  lab_.Map(lab_.pid, 2 * huge_, huge_, 3, 2, fd);
  lab_.Access(lab_.pid, AccessKind::kStore, 3, 33);
  EXPECT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, 2 * huge_ + 3), 33);
  EXPECT_EQ(Count(VmEvent::kThpFileMapped), 2u);
  lab_.Access(lab_.pid, AccessKind::kStore, 2 * huge_ + 3, 44);
  EXPECT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, 3), 33);
  EXPECT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, 2 * huge_ + 3), 44);
  EXPECT_EQ(SmapsAt(lab_.pid, 2 * huge_).anonymous.raw(), kPage);
  ExpectSound();
  const Pid child = lab_.processes->Fork(lab_.pid, 0).value();
  EXPECT_EQ(lab_.Access(child, AccessKind::kLoad, 2 * huge_ + 3), 44);
  lab_.Access(lab_.pid, AccessKind::kStore, 2 * huge_ + 3, 45);
  EXPECT_EQ(lab_.Access(child, AccessKind::kLoad, 2 * huge_ + 3), 44);
}

TEST_P(HugeShmemTest, LockedMemoryStaysLocked) {
  lab_.files.SetShmemEnabled(ShmemEnabled::kAlways);
  MapShared(0, huge_);
  lab_.Access(lab_.pid, AccessKind::kStore, 0, 1);
  const Pid root = lab_.pid;
  lab_.processes->Setrlimit(root, 8, ~uint64_t{0}, ~uint64_t{0});
  const Errno locked = lab_.processes->Mlock(root, MemoryLab::At(0), 4 * kPage, 0);
  if (locked == Errno::kOk) {
    EXPECT_EQ(lab_.processes->Munlock(root, MemoryLab::At(0), huge_ * kPage), Errno::kOk);
  }
  ExpectSound();
}

TEST_P(HugeShmemTest, CollapseGathersSmallPages) {
  MapShared(0, 2 * huge_);
  for (uint64_t page = 0; page < huge_; page += 3) lab_.Access(lab_.pid, AccessKind::kStore, page, static_cast<uint8_t>(page % 200 + 1));
  EXPECT_EQ(Stat(NodeStat::kNrShmemHugepages), 0u);
  ASSERT_EQ(Advise(0, huge_, kMadvCollapse), Errno::kOk);
  EXPECT_EQ(Stat(NodeStat::kNrShmemHugepages), huge_);
  EXPECT_EQ(Stat(NodeStat::kNrShmemPmdmapped), huge_);
  EXPECT_EQ(Count(VmEvent::kThpCollapseAlloc), 1u);
  ExpectSound();
  for (uint64_t page = 0; page < huge_; ++page) {
    ASSERT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, page), page % 3 == 0 ? page % 200 + 1 : 0);
    ASSERT_EQ(lab_.result.minor_faults, 0u);
  }
  EXPECT_EQ(Advise(0, huge_, kMadvCollapse), Errno::kOk);          // It is one already.
  EXPECT_EQ(Advise(huge_, huge_, kMadvCollapse), Errno::kEINVAL);  // Nothing is there.
  // Small entries that map a huge page make room for one.
  EXPECT_EQ(Advise(5, 1, kMadvDontneed), Errno::kOk);
  EXPECT_EQ(lab_.processes->Mprotect(lab_.pid, MemoryLab::At(9), kPage, 1), Errno::kOk);
  EXPECT_EQ(lab_.Access(lab_.pid, AccessKind::kLoad, 9), 10);
  EXPECT_EQ(lab_.processes->Mprotect(lab_.pid, MemoryLab::At(9), kPage, 3), Errno::kOk);
  EXPECT_EQ(Stat(NodeStat::kNrShmemPmdmapped), 0u);
  ASSERT_EQ(Advise(0, huge_, kMadvCollapse), Errno::kOk);
  EXPECT_EQ(Stat(NodeStat::kNrShmemPmdmapped), huge_);
  EXPECT_EQ(Count(VmEvent::kThpCollapseAlloc), 1u);
  lab_.files.SetShmemEnabled(ShmemEnabled::kDeny);
  EXPECT_EQ(Advise(0, huge_, kMadvCollapse), Errno::kEINVAL);
}

TEST_P(HugeShmemTest, MappingsStartWhereAHugePageFits) {
  const auto map = [&](uint64_t pages) { return lab_.processes->Mmap(lab_.pid, 0, pages * kPage, 3, kSharedAnon, -1, 0).value(); };
  map(1);
  EXPECT_NE(map(huge_ + 1) % (huge_ * kPage), 0u);
  lab_.files.SetShmemEnabled(ShmemEnabled::kAlways);
  EXPECT_EQ(map(huge_ + 1) % (huge_ * kPage), 0u);
  EXPECT_NE(map(huge_ - 1) % (huge_ * kPage), 0u);
  lab_.files.SetShmemEnabled(ShmemEnabled::kDeny);
  EXPECT_NE(map(huge_ + 2) % (huge_ * kPage), 0u);
}

// Who gets huge pages.
struct WishCase {
  const char* name;
  bool memfd;       // Else a file of a tmpfs that is mounted so:
  ShmemHuge mount;  //
  ShmemEnabled enabled;
  int32_t advice;   // 0: none.
  int64_t missing;  // So many pages of the file are missing to a huge page.
  bool huge;
};
class WishTest : public testing::TestWithParam<WishCase> {};
TEST_P(WishTest, FollowsMountSettingAndAdvice) {
  const WishCase& c = GetParam();
  MemoryLab lab(LayoutKind::kArm64, true, 8192);
  lab.files.SetShmemEnabled(c.enabled);
  const uint64_t size = static_cast<uint64_t>(512 - c.missing) * kPage;
  int32_t fd = 0;
  if (c.memfd) {
    fd = static_cast<int32_t>(lab.processes->MemfdCreate(lab.pid, "memory", 0).value());
  } else {
    ASSERT_TRUE(lab.files.CreateFile("/huge", FileKind::kTmpfs, size, "", false, MountOptions{0, c.mount}).ok());
    fd = static_cast<int32_t>(lab.processes->Open(lab.pid, "/huge", 2, -1).value());
  }
  ASSERT_EQ(lab.processes->Ftruncate(lab.pid, fd, size), Errno::kOk);
  lab.Map(lab.pid, 0, 512, 3, 1, fd);
  if (c.advice != 0) {
    ASSERT_EQ(lab.processes->Madvise(lab.pid, kBase, 512 * kPage, c.advice), Errno::kOk);
  }
  lab.Access(lab.pid, AccessKind::kStore, 1, 5);
  EXPECT_EQ(lab.vm_stat.Get(NodeStat::kNrShmemHugepages), c.huge ? 512 : 0);
  EXPECT_EQ(lab.Violations(), std::vector<std::string>{});
}
INSTANTIATE_TEST_SUITE_P(
    Rules, WishTest,
    testing::Values(WishCase{"Never", true, ShmemHuge::kNever, ShmemEnabled::kNever, 0, 0, false},
                    WishCase{"NeverAdvised", true, ShmemHuge::kNever, ShmemEnabled::kNever, kMadvHugepage, 0, false},
                    WishCase{"Always", true, ShmemHuge::kNever, ShmemEnabled::kAlways, 0, 100, true},
                    WishCase{"AlwaysRefused", true, ShmemHuge::kNever, ShmemEnabled::kAlways, kMadvNohugepage, 0, false},
                    WishCase{"WithinSize", true, ShmemHuge::kNever, ShmemEnabled::kWithinSize, 0, 0, true},
                    WishCase{"BeyondSize", true, ShmemHuge::kNever, ShmemEnabled::kWithinSize, 0, 1, false},
                    WishCase{"BeyondSizeAdvised", true, ShmemHuge::kNever, ShmemEnabled::kWithinSize, kMadvHugepage, 1, true},
                    WishCase{"AdviseWithout", true, ShmemHuge::kNever, ShmemEnabled::kAdvise, 0, 0, false},
                    WishCase{"Advise", true, ShmemHuge::kNever, ShmemEnabled::kAdvise, kMadvHugepage, 100, true},
                    WishCase{"Force", true, ShmemHuge::kNever, ShmemEnabled::kForce, 0, 100, true},
                    WishCase{"ForceRefused", true, ShmemHuge::kNever, ShmemEnabled::kForce, kMadvNohugepage, 0, false},
                    WishCase{"Deny", true, ShmemHuge::kNever, ShmemEnabled::kDeny, kMadvHugepage, 0, false},
                    WishCase{"TheMountAlways", false, ShmemHuge::kAlways, ShmemEnabled::kNever, 0, 0, true},
                    WishCase{"TheMountAlwaysDenied", false, ShmemHuge::kAlways, ShmemEnabled::kDeny, 0, 0, false},
                    WishCase{"TheMountNever", false, ShmemHuge::kNever, ShmemEnabled::kAlways, kMadvHugepage, 0, false},
                    WishCase{"TheMountNeverForced", false, ShmemHuge::kNever, ShmemEnabled::kForce, 0, 0, true},
                    WishCase{"TheMountWithinSize", false, ShmemHuge::kWithinSize, ShmemEnabled::kNever, 0, 3, false},
                    WishCase{"TheMountAdvise", false, ShmemHuge::kAdvise, ShmemEnabled::kNever, kMadvHugepage, 3, true}),
    [](const auto& c) { return std::string(c.param.name); });

// Random operations on one file that several processes map, shared and privately, beside what each byte must be.
class ShmemProgram {
 public:
  ShmemProgram(MemoryLab& lab, uint64_t huge, uint64_t seed) : lab_(lab), huge_(huge), random_(seed) {
    fd_ = static_cast<int32_t>(lab_.processes->MemfdCreate(lab_.pid, "memory", 0).value());
    Resize(kHuge * huge_);
    for (uint64_t i = 0; i < 3; ++i) {
      const Pid pid = i == 0 ? lab_.pid : lab_.processes->Fork(lab_.pid, 0).value();
      pids_.push_back(pid);
      lab_.Map(pid, Place(0), kHuge * huge_, 3, 1, fd_);
      // One page off, so that small entries map it.
      lab_.Map(pid, Place(1) + 1, kHuge * huge_, 3, 1, fd_);
    }
  }

  void Step() {
    static constexpr ShmemEnabled kSettings[] = {ShmemEnabled::kNever, ShmemEnabled::kAlways, ShmemEnabled::kWithinSize,
                                                 ShmemEnabled::kDeny, ShmemEnabled::kForce};
    const Pid pid = pids_[random_.Below(pids_.size())];
    const uint64_t page = random_.Below(kHuge * huge_);
    const uint64_t pages = 1 + random_.Below(random_.Below(3) == 0 ? 2 * huge_ : 20);
    const uint64_t end = std::min(page + pages, kHuge * huge_);
    switch (random_.Below(24)) {
      case 0:
        return lab_.files.SetShmemEnabled(kSettings[random_.Below(5)]);
      case 1:
        if (random_.Below(4) == 0) Resize(random_.Below(kHuge * huge_ + 1));
        return;
      case 2:
        return Resize(kHuge * huge_);
      case 3:
        if (lab_.processes->Madvise(pid, MemoryLab::At(Place(0) + page), (end - page) * kPage, kMadvRemove) == Errno::kOk)
          Forget(page, end);
        return;
      case 4:
        lab_.processes->Madvise(pid, MemoryLab::At(Place(0) + page), (end - page) * kPage, kMadvDontneed);
        return;
      case 5:
        lab_.processes->Madvise(pid, MemoryLab::At(Place(0) + page / huge_ * huge_), huge_ * kPage, kMadvCollapse);
        return;
      case 6:
        lab_.processes->Mprotect(pid, MemoryLab::At(Place(0) + page), (end - page) * kPage, 1);
        return;
      case 7:
        lab_.processes->Mprotect(pid, MemoryLab::At(Place(0)), kHuge * huge_ * kPage, 3);
        return;
      case 8:
        lab_.processes->Madvise(pid, MemoryLab::At(Place(0) + page), (end - page) * kPage,
                                random_.Below(2) == 0 ? kMadvHugepage : kMadvNohugepage);
        return;
      case 9:
        lab_.processes->Madvise(pid, MemoryLab::At(Place(0) + page), (end - page) * kPage, 20);  // MADV_COLD
        return;
      case 10:
        lab_.Map(pid, Place(0), kHuge * huge_, 3, 1, fd_);
        return;
      default:
        return Access(pid, page);
    }
  }

 private:
  static constexpr uint64_t kHuge = 4;
  uint64_t Place(uint64_t nth) const { return nth * (kHuge + 1) * huge_; }
  void Resize(uint64_t pages) {
    ASSERT_EQ(lab_.processes->Ftruncate(lab_.pid, fd_, pages * kPage), Errno::kOk);
    size_ = pages;
    Forget(pages, ~uint64_t{0});
  }
  void Forget(uint64_t first, uint64_t end) { bytes_.erase(bytes_.lower_bound(first), bytes_.lower_bound(end)); }
  void Access(Pid pid, uint64_t page) {
    const uint64_t at = random_.Below(3) == 0 ? Place(1) + 1 + page : Place(0) + page;
    if (random_.Below(2) == 0) {
      const uint8_t value = lab_.Access(pid, AccessKind::kLoad, at);
      ASSERT_EQ(lab_.signal.has_value(), page >= size_);
      const auto known = bytes_.find(page);
      if (page < size_) {
        ASSERT_EQ(value, known == bytes_.end() ? 0 : known->second) << page;
      }
      return;
    }
    const auto value = static_cast<uint8_t>(random_.Below(256));
    lab_.Access(pid, AccessKind::kStore, at, value);
    if (!lab_.signal.has_value()) bytes_[page] = value;
  }

  MemoryLab& lab_;
  const uint64_t huge_;
  Random random_;
  int32_t fd_ = 0;
  uint64_t size_ = 0;  // Pages.
  std::vector<Pid> pids_;
  std::map<uint64_t, uint8_t> bytes_;  // By page of the file: its first byte.
};

TEST_P(HugeShmemTest, RandomProgramsKeepTheirBytes) {
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    SCOPED_TRACE(seed);
    MemoryLab lab(GetParam(), seed % 2 == 0, 16384);
    ShmemProgram program(lab, huge_, seed);
    for (int step = 0; step < 1500; ++step) {
      program.Step();
      if (HasFatalFailure()) FAIL() << "at step " << step;
      if (step % 100 != 0) continue;
      ASSERT_EQ(lab.Violations(), std::vector<std::string>{}) << "at step " << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllLayouts, HugeShmemTest, testing::Values(LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64),
                         [](const auto& param) {
                           return param.param == LayoutKind::kArm64 ? "Arm64" : param.param == LayoutKind::kX86_32 ? "TwoLevels" : "Pae";
                         });

}  // namespace
}  // namespace mmlab

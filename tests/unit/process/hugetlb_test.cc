#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/base/random.h"
#include "server/process/address_space.h"
#include "tests/unit/process/memory_lab.h"

namespace mmlab {
namespace {

constexpr uint32_t kHugetlb = 0x40000;
constexpr uint32_t kNoReserve = 0x4000;
constexpr uint32_t kPopulateFlag = 0x8000;
constexpr uint32_t kPrivateHuge = kPrivateAnon | kHugetlb;
constexpr uint32_t kSharedHuge = kSharedAnon | kHugetlb;
constexpr uint32_t kSmallest = 16u << 26;  // MAP_HUGE_64KB
constexpr int32_t kMadvDontneed = 4;
constexpr int32_t kMadvFree = 8;

// total, free, reserved, surplus.
using Counts = std::array<uint64_t, 4>;

class HugetlbTest : public testing::TestWithParam<LayoutKind> {
 protected:
  HugetlbTest() : lab_(GetParam(), true, 32768), huge_(GetParam() == LayoutKind::kX86_32 ? 1024 : 512) {}

  HugetlbPools& Pools() { return lab_.files.hugetlb(); }
  void Keep(uint64_t count) { Pools().SetMaximum(Pools().default_pool(), count); }
  Counts Now() {
    const HugetlbPool& p = Pools().pool(Pools().default_pool());
    return {p.total, p.free.size(), p.reserved, p.surplus};
  }
  // Huge pages from kBase.
  SysResult<uint64_t> Map(Pid who, uint64_t at, uint64_t count, uint32_t flags, uint32_t prot = 3) {
    return lab_.processes->Mmap(who, Huge(at), count * huge_ * kPage, prot, flags | kFixed, -1, 0);
  }
  uint64_t Huge(uint64_t at) const { return MemoryLab::At(at * huge_); }
  // False: SIGBUS.
  bool Write(Pid who, uint64_t page, uint8_t value) {
    lab_.Access(who, AccessKind::kStore, page, value);
    if (lab_.signal.has_value()) {
      EXPECT_EQ(lab_.signal->number, SignalNumber::kSigBus);
    }
    return !lab_.signal.has_value();
  }
  bool Reads(Pid who, uint64_t page, uint8_t value) {
    return lab_.Access(who, AccessKind::kLoad, page) == value && !lab_.signal.has_value();
  }
  Pid Fork() { return lab_.processes->Fork(lab_.pid, 0).value(); }
  Smaps SmapsAt(Pid who, uint64_t address) {
    const Process& process = lab_.process(who);
    const std::vector<VmAreaView> views = lab_.processes->VmAreas(process);
    const std::vector<Smaps> smaps = lab_.processes->AllSmaps(process);
    for (size_t i = 0; i < views.size(); ++i) {
      if (views[i].start.raw() == address) return smaps[i];
    }
    return {};
  }
  void TearDown() override { EXPECT_EQ(lab_.Violations(), std::vector<std::string>{}); }

  MemoryLab lab_;
  uint64_t huge_;
};

TEST_P(HugetlbTest, AMappingReservesAndAFaultTakes) {
  Keep(4);
  EXPECT_EQ(Now(), (Counts{4, 4, 0, 0}));
  const uint64_t limit = lab_.processes->commit_limit().raw();
  const uint64_t rss = lab_.processes->Resident(lab_.process(lab_.pid)).anon.raw();
  ASSERT_TRUE(Map(lab_.pid, 0, 3, kPrivateHuge).ok());
  EXPECT_EQ(Now(), (Counts{4, 4, 3, 0}));
  EXPECT_TRUE(Write(lab_.pid, huge_ + 7, 9));
  EXPECT_EQ(lab_.result.minor_faults, 1u);
  EXPECT_EQ(Now(), (Counts{4, 3, 2, 0}));
  EXPECT_TRUE(Reads(lab_.pid, 2 * huge_ - 1, 0));
  EXPECT_EQ(lab_.result.minor_faults, 0u);
  EXPECT_EQ(SmapsAt(lab_.pid, kBase).private_hugetlb.raw(), huge_ * kPage);
  EXPECT_EQ(lab_.processes->Status(lab_.process(lab_.pid)).hugetlb.raw(), huge_ * kPage);
  EXPECT_EQ(lab_.processes->Resident(lab_.process(lab_.pid)).anon.raw(), rss);
  EXPECT_EQ(lab_.processes->commit_limit().raw(), limit);  // It was counted when the pool took its pages.
  EXPECT_EQ(lab_.processes->VmAreas(lab_.process(lab_.pid))[0].page_size, lab_.memory->page_size().bytes());
  EXPECT_EQ(lab_.processes->Munmap(lab_.pid, Huge(0), 3 * huge_ * kPage), Errno::kOk);
  EXPECT_EQ(Now(), (Counts{4, 4, 0, 0}));
  // What the last user wrote does not show.
  ASSERT_TRUE(Map(lab_.pid, 0, 4, kPrivateHuge | kPopulateFlag).ok());
  for (uint64_t i = 0; i < 4; ++i) EXPECT_TRUE(Reads(lab_.pid, i * huge_ + 7, 0));
}

TEST_P(HugetlbTest, WhatIsPromisedNobodyElseGets) {
  Keep(2);
  ASSERT_TRUE(Map(lab_.pid, 0, 2, kPrivateHuge).ok());
  EXPECT_EQ(Map(lab_.pid, 4, 1, kPrivateHuge).error(), Errno::kENOMEM);
  ASSERT_TRUE(Map(lab_.pid, 4, 1, kPrivateHuge | kNoReserve).ok());
  EXPECT_FALSE(Write(lab_.pid, 4 * huge_, 1));
  EXPECT_TRUE(Write(lab_.pid, 0, 1));
  EXPECT_TRUE(Write(lab_.pid, huge_, 1));
}

TEST_P(HugetlbTest, SurplusPagesComeAndGo) {
  Keep(1);
  EXPECT_EQ(Pools().SetOvercommit(Pools().default_pool(), 2), Errno::kOk);
  EXPECT_EQ(Map(lab_.pid, 0, 4, kPrivateHuge).error(), Errno::kENOMEM);
  EXPECT_EQ(Now(), (Counts{1, 1, 0, 0}));
  ASSERT_TRUE(Map(lab_.pid, 0, 3, kPrivateHuge).ok());
  EXPECT_EQ(Now(), (Counts{3, 3, 3, 2}));
  Keep(0);
  EXPECT_EQ(Now(), (Counts{3, 3, 3, 3}));
  Keep(2);
  EXPECT_EQ(Now(), (Counts{3, 3, 3, 1}));
  lab_.processes->Exit(lab_.pid, 0);
  EXPECT_EQ(Now(), (Counts{2, 2, 0, 0}));
}

TEST_P(HugetlbTest, ThePoolGetsWhatMemoryHas) {
  Keep(1000);
  const Counts most = Now();
  EXPECT_LT(most[0], 32768 / huge_);
  EXPECT_GT(most[0], 32768 / huge_ / 2);
  Keep(0);
  EXPECT_EQ(Now(), (Counts{0, 0, 0, 0}));
}

struct ErrnoCase {
  const char* name;
  Errno wanted;
  Errno (*call)(Processes&, Pid, uint64_t start, uint64_t huge);  // Bytes. Three huge pages are mapped from `start` on.
};

TEST_P(HugetlbTest, Errnos) {
  Keep(3);
  ASSERT_TRUE(Map(lab_.pid, 0, 3, kPrivateHuge).ok());
  const ErrnoCase cases[] = {
      {"UnmapsPartOfOne", Errno::kEINVAL, [](Processes& p, Pid pid, uint64_t s, uint64_t) { return p.Munmap(pid, s + kPage, kPage); }},
      {"UnmapsToTheMiddleOfOne", Errno::kEINVAL, [](Processes& p, Pid pid, uint64_t s, uint64_t h) { return p.Munmap(pid, s, h / 2); }},
      {"ProtectsPartOfOne", Errno::kEINVAL, [](Processes& p, Pid pid, uint64_t s, uint64_t h) { return p.Mprotect(pid, s, h / 2, 1); }},
      {"ProtectsOne", Errno::kOk, [](Processes& p, Pid pid, uint64_t s, uint64_t h) { return p.Mprotect(pid, s, h, 1); }},
      {"MovesFromTheMiddle", Errno::kEINVAL,
       [](Processes& p, Pid pid, uint64_t s, uint64_t h) { return p.Mremap(pid, s + kPage, h, h, 1, 0).error(); }},
      {"Grows", Errno::kEINVAL, [](Processes& p, Pid pid, uint64_t s, uint64_t h) { return p.Mremap(pid, s, h, 2 * h, 1, 0).error(); }},
      {"MovesToTheMiddle", Errno::kEINVAL,
       [](Processes& p, Pid pid, uint64_t s, uint64_t h) { return p.Mremap(pid, s, h, h, 3, s + 8 * h + kPage).error(); }},
      {"FixedInTheMiddle", Errno::kEINVAL,
       [](Processes& p, Pid pid, uint64_t s, uint64_t h) {
         return p.Mmap(pid, s + 8 * h + kPage, h, 3, kPrivateHuge | kFixed, -1, 0).error();
       }},
      {"UnknownSize", Errno::kEINVAL,
       [](Processes& p, Pid pid, uint64_t, uint64_t h) { return p.Mmap(pid, 0, h, 3, kPrivateHuge | 13u << 26, -1, 0).error(); }},
      {"Length0", Errno::kEINVAL,
       [](Processes& p, Pid pid, uint64_t, uint64_t) { return p.Mmap(pid, 0, 0, 3, kPrivateHuge, -1, 0).error(); }},
      {"OnAFile", Errno::kEINVAL,
       [](Processes& p, Pid pid, uint64_t, uint64_t h) { return p.Mmap(pid, 0, h, 3, 2 | kHugetlb, 10, 0).error(); }},
      {"TooLong", Errno::kENOMEM,
       [](Processes& p, Pid pid, uint64_t, uint64_t) { return p.Mmap(pid, 0, uint64_t{3} << 30, 3, kPrivateHuge, -1, 0).error(); }},
      {"FreesLazily", Errno::kEINVAL, [](Processes& p, Pid pid, uint64_t s, uint64_t h) { return p.Madvise(pid, s, h, kMadvFree); }},
      {"GivesUpFromTheMiddle", Errno::kEINVAL,
       [](Processes& p, Pid pid, uint64_t s, uint64_t h) { return p.Madvise(pid, s + kPage, h, kMadvDontneed); }},
      {"GivesUpLessThanOne", Errno::kOk,
       [](Processes& p, Pid pid, uint64_t s, uint64_t) { return p.Madvise(pid, s, kPage, kMadvDontneed); }},
      {"ShmForRootOnly", Errno::kEPERM,
       [](Processes& p, Pid pid, uint64_t, uint64_t h) { return p.Shmget(pid, 0, h, 0xa00 | 0600).error(); }},
      {"MemfdUnknownSize", Errno::kENODEV,
       [](Processes& p, Pid pid, uint64_t, uint64_t) { return p.MemfdCreate(pid, "m", 4 | 13u << 26).error(); }},
  };
  lab_.processes->limits().shmmax = lab_.processes->limits().shmall = uint64_t{1} << 31;
  for (const ErrnoCase& c : cases) {
    EXPECT_EQ(c.call(*lab_.processes, lab_.pid, Huge(0), huge_ * kPage), c.wanted) << c.name;
    EXPECT_EQ(lab_.Violations(), std::vector<std::string>{}) << c.name;
  }
}

TEST_P(HugetlbTest, ForkSharesAndAWriteCopies) {
  Keep(4);
  ASSERT_TRUE(Map(lab_.pid, 0, 2, kPrivateHuge).ok());
  EXPECT_TRUE(Write(lab_.pid, 5, 50));
  const Pid child = Fork();
  EXPECT_EQ(SmapsAt(child, kBase).shared_hugetlb.raw(), huge_ * kPage);
  EXPECT_TRUE(Reads(child, 5, 50));
  EXPECT_TRUE(Write(child, 5, 51));
  EXPECT_TRUE(Reads(lab_.pid, 5, 50));
  EXPECT_TRUE(Reads(child, 5, 51));
  // The page that the parent has yet to touch is still its own.
  EXPECT_EQ(Now(), (Counts{4, 2, 1, 0}));
  EXPECT_TRUE(Write(child, huge_, 1));
  EXPECT_TRUE(Write(lab_.pid, huge_, 2));
  lab_.processes->Exit(child, 0);
  EXPECT_EQ(Now(), (Counts{4, 2, 0, 0}));
}

TEST_P(HugetlbTest, WhoReservedKeepsItsPagesWhenThePoolIsEmpty) {
  Keep(2);
  ASSERT_TRUE(Map(lab_.pid, 0, 2, kPrivateHuge).ok());
  EXPECT_TRUE(Write(lab_.pid, 3, 30));
  const Pid child = Fork();
  EXPECT_FALSE(Write(child, huge_, 1));  // The free page is the parent's.
  EXPECT_FALSE(Write(child, 3, 31));     // So is the one that a copy would need.
  EXPECT_TRUE(Reads(child, 3, 30));
  EXPECT_TRUE(Write(lab_.pid, 3, 32));  // The page goes to the parent, and away from the child.
  EXPECT_TRUE(Reads(lab_.pid, 3, 32));
  lab_.Access(child, AccessKind::kLoad, 3);
  EXPECT_TRUE(lab_.signal.has_value());
  EXPECT_TRUE(Write(lab_.pid, huge_, 1));
}

// Linux forgets with fork() that pages were taken away (hugetlb_dup_vma_private()): the child of the child finds a hole, not an error.
TEST_P(HugetlbTest, WhatWasTakenAwayIsAHoleForThoseBornLater) {
  Keep(2);
  ASSERT_TRUE(Map(lab_.pid, 0, 2, kPrivateHuge).ok());
  EXPECT_TRUE(Write(lab_.pid, 3, 30));
  const Pid child = Fork();
  EXPECT_TRUE(Write(lab_.pid, 3, 32));
  const Pid grandchild = lab_.processes->Fork(child, 0).value();
  EXPECT_FALSE(Write(grandchild, 3, 31));  // The free page is promised.
  Keep(3);
  EXPECT_FALSE(Write(child, 3, 31));
  EXPECT_TRUE(Reads(grandchild, 3, 0));
  EXPECT_TRUE(Reads(lab_.pid, 3, 32));
}

TEST_P(HugetlbTest, SharedMemoryIsOneForAll) {
  Keep(3);
  ASSERT_TRUE(Map(lab_.pid, 0, 2, kSharedHuge).ok());
  EXPECT_EQ(Now(), (Counts{3, 3, 2, 0}));
  const Pid child = Fork();
  EXPECT_TRUE(Write(child, 8, 80));
  EXPECT_TRUE(Reads(lab_.pid, 8, 80));
  EXPECT_EQ(Now(), (Counts{3, 2, 1, 0}));
  lab_.processes->Munmap(lab_.pid, Huge(0), 2 * huge_ * kPage);
  EXPECT_EQ(Now(), (Counts{3, 2, 1, 0}));
  lab_.processes->Exit(child, 0);
  EXPECT_EQ(Now(), (Counts{3, 3, 0, 0}));
}

TEST_P(HugetlbTest, FilesAndSegmentsAreMadeOfThem) {
  Keep(6);
  lab_.processes->limits().shmmax = lab_.processes->limits().shmall = uint64_t{1} << 31;
  const Pid root = lab_.processes->Create("root", 0, false).value();
  const auto segment = static_cast<int32_t>(lab_.processes->Shmget(root, 0, huge_ * kPage + 1, 0xa00 | 0666).value());
  EXPECT_EQ(Now(), (Counts{6, 6, 2, 0}));
  const uint64_t attached = lab_.processes->Shmat(lab_.pid, segment, 0, 0).value();
  EXPECT_EQ(attached % (huge_ * kPage), 0u);
  EXPECT_EQ(Now(), (Counts{6, 6, 2, 0}));
  EXPECT_EQ(lab_.processes->Shmdt(lab_.pid, attached), Errno::kOk);
  EXPECT_EQ(lab_.processes->ShmRemove(root, segment), Errno::kOk);
  EXPECT_EQ(Now(), (Counts{6, 6, 0, 0}));

  const auto fd = static_cast<int32_t>(lab_.processes->MemfdCreate(lab_.pid, "huge", 4).value());
  EXPECT_EQ(lab_.processes->Ftruncate(lab_.pid, fd, kPage), Errno::kEINVAL);
  EXPECT_EQ(lab_.processes->Ftruncate(lab_.pid, fd, 3 * huge_ * kPage), Errno::kOk);
  ASSERT_TRUE(lab_.processes->Mmap(lab_.pid, Huge(0), 3 * huge_ * kPage, 3, 1 | kFixed, fd, 0).ok());
  EXPECT_TRUE(Write(lab_.pid, 2 * huge_, 7));
  EXPECT_EQ(lab_.processes->Pwrite(lab_.pid, fd, Huge(2), 8, 0).error(), Errno::kEINVAL);
  // What a private mapping of the file writes stays its own.
  ASSERT_TRUE(lab_.processes->Mmap(lab_.pid, Huge(4), huge_ * kPage, 3, 2 | kFixed, fd, 2 * huge_ * kPage).ok());
  EXPECT_TRUE(Reads(lab_.pid, 4 * huge_, 7));
  EXPECT_TRUE(Write(lab_.pid, 4 * huge_, 8));
  EXPECT_TRUE(Reads(lab_.pid, 2 * huge_, 7));
  EXPECT_EQ(lab_.processes->Pread(lab_.pid, fd, Huge(0), 1, 2 * huge_ * kPage).value(), 1u);
  EXPECT_TRUE(Reads(lab_.pid, 0, 7));
  // A hole in the file takes the page; the end of the file all behind it.
  EXPECT_EQ(lab_.processes->Madvise(lab_.pid, Huge(2), huge_ * kPage, 9), Errno::kOk);
  EXPECT_TRUE(Reads(lab_.pid, 2 * huge_, 0));
  EXPECT_EQ(lab_.processes->Ftruncate(lab_.pid, fd, huge_ * kPage), Errno::kOk);
  EXPECT_FALSE(Write(lab_.pid, 2 * huge_, 7));
  EXPECT_TRUE(Reads(lab_.pid, 0, 7));
}

TEST_P(HugetlbTest, MovesWithItsReservation) {
  Keep(3);
  ASSERT_TRUE(Map(lab_.pid, 0, 3, kPrivateHuge).ok());
  EXPECT_TRUE(Write(lab_.pid, huge_ + 1, 11));
  ASSERT_TRUE(lab_.processes->Mremap(lab_.pid, Huge(0), 3 * huge_ * kPage, 3 * huge_ * kPage, 3, Huge(4)).ok());
  EXPECT_EQ(Now(), (Counts{3, 2, 2, 0}));
  EXPECT_TRUE(Reads(lab_.pid, 5 * huge_ + 1, 11));
  EXPECT_TRUE(Write(lab_.pid, 6 * huge_, 1));
  // Linux forgets the reservation of what stays behind when a part moves: it is never given back.
  ASSERT_TRUE(lab_.processes->Mremap(lab_.pid, Huge(5), huge_ * kPage, huge_ * kPage, 3, Huge(0)).ok());
  EXPECT_TRUE(Reads(lab_.pid, 1, 11));
  EXPECT_EQ(lab_.Violations(), std::vector<std::string>{});
  lab_.processes->Exit(lab_.pid, 0);
  EXPECT_EQ(Now(), (Counts{3, 3, 1, 0}));
}

TEST_P(HugetlbTest, GivenUpItIsTakenAgainWithoutReservation) {
  Keep(1);
  ASSERT_TRUE(Map(lab_.pid, 0, 1, kPrivateHuge).ok());
  EXPECT_TRUE(Write(lab_.pid, 1, 1));
  EXPECT_EQ(lab_.processes->Madvise(lab_.pid, Huge(0), huge_ * kPage, kMadvDontneed), Errno::kOk);
  EXPECT_EQ(Now(), (Counts{1, 1, 0, 0}));
  EXPECT_TRUE(Reads(lab_.pid, 1, 0));
  EXPECT_EQ(Now(), (Counts{1, 0, 0, 0}));
}

TEST_P(HugetlbTest, PopulatingCountsNoFaults) {
  Keep(2);
  ASSERT_TRUE(Map(lab_.pid, 0, 2, kPrivateHuge).ok());
  const uint64_t faults = lab_.process(lab_.pid).minor_faults;
  const uint64_t locked = lab_.process(lab_.pid).mm->locked_vm.raw();
  EXPECT_EQ(lab_.processes->Mlock(lab_.pid, Huge(0), 2 * huge_ * kPage, 0), Errno::kOk);
  EXPECT_EQ(Now(), (Counts{2, 0, 0, 0}));
  EXPECT_EQ(lab_.process(lab_.pid).minor_faults, faults);
  EXPECT_EQ(lab_.process(lab_.pid).mm->locked_vm.raw(), locked);
  EXPECT_EQ(lab_.processes->Mincore(lab_.pid, Huge(0), huge_ * kPage).value(), std::string(huge_, '\1'));
}

TEST(HugetlbSizesTest, Arm64MapsSixteenNeighboursAsOne) {
  MemoryLab lab(LayoutKind::kArm64, true, 8192);
  const size_t pool = *lab.files.hugetlb().FindByLog(16);
  lab.files.hugetlb().SetMaximum(pool, 3);
  ASSERT_TRUE(lab.processes->Mmap(lab.pid, kBase, 2 * 65536, 3, kPrivateHuge | kSmallest | kFixed, -1, 0).ok());
  lab.Access(lab.pid, AccessKind::kStore, 17, 77);
  EXPECT_EQ(lab.files.hugetlb().pool(pool).free.size(), 2u);
  for (uint64_t page = 16; page < 32; ++page) {
    EXPECT_EQ(lab.Access(lab.pid, AccessKind::kLoad, page), page == 17 ? 77 : 0);
    EXPECT_EQ(lab.result.minor_faults, 0u);
  }
  const Pid child = lab.processes->Fork(lab.pid, 0).value();
  lab.Access(child, AccessKind::kStore, 18, 78);
  EXPECT_FALSE(lab.signal.has_value() && lab.files.hugetlb().pool(pool).available() > 0);
  EXPECT_EQ(lab.processes->Mprotect(lab.pid, kBase, 65536, 1), Errno::kOk);
  EXPECT_EQ(lab.Access(lab.pid, AccessKind::kLoad, 17), 77);
  EXPECT_EQ(lab.Violations(), std::vector<std::string>{});
}

TEST(HugetlbSizesTest, Arm64MapsSixteenBlocksAsOne) {
  MemoryLab lab(LayoutKind::kArm64, true, 32768);
  const size_t pool = *lab.files.hugetlb().FindByLog(25);
  lab.files.hugetlb().SetMaximum(pool, 2);
  ASSERT_EQ(lab.files.hugetlb().pool(pool).total, 2u);
  constexpr uint32_t kBlocks = 25u << 26;  // MAP_HUGE_32MB
  ASSERT_TRUE(lab.processes->Mmap(lab.pid, kBase, uint64_t{32} << 20, 3, kPrivateHuge | kBlocks | kFixed, -1, 0).ok());
  lab.Access(lab.pid, AccessKind::kStore, 8191, 77);
  for (uint64_t page = 0; page < 8192; page += 500) {
    EXPECT_EQ(lab.Access(lab.pid, AccessKind::kLoad, page), 0);
    EXPECT_EQ(lab.result.minor_faults, 0u);
  }
  EXPECT_EQ(lab.Violations(), std::vector<std::string>{});
  const Pid child = lab.processes->Fork(lab.pid, 0).value();
  lab.Access(child, AccessKind::kStore, 8191, 78);
  EXPECT_FALSE(lab.signal.has_value());
  EXPECT_EQ(lab.Access(lab.pid, AccessKind::kLoad, 8191), 77);
  EXPECT_EQ(lab.Violations(), std::vector<std::string>{});
  // What was taken for another reservation is not to be had.
  EXPECT_EQ(lab.processes->Mmap(lab.pid, 2 * kBase, uint64_t{32} << 20, 3, kPrivateHuge | kBlocks | kFixed, -1, 0).error(), Errno::kENOMEM);
}

// A program of a few processes on a small pool, and beside it what every byte must read as. By huge page: what was written to two of its
// bytes; of a shared page one for all.
struct Chunk {
  std::array<uint8_t, 2> bytes{};
};
using Chunks = std::map<uint64_t, std::pair<bool, std::shared_ptr<Chunk>>>;  // By place: shared or not, and what it holds.

class HugetlbProgram {
 public:
  HugetlbProgram(MemoryLab& lab, uint64_t huge, uint64_t seed) : lab_(lab), huge_(huge), random_(seed) { tasks_[lab.pid] = {}; }

  void Step() {
    auto it = tasks_.begin();
    std::advance(it, static_cast<ptrdiff_t>(random_.Below(tasks_.size())));
    const Pid pid = it->first;
    Chunks& chunks = it->second;
    const uint64_t at = random_.Below(kPlaces);
    const uint64_t count = 1 + random_.Below(3);
    switch (random_.Below(16)) {
      case 0:
      case 1: {
        const bool shared = random_.Below(3) == 0;
        const uint32_t flags = (shared ? kSharedHuge : kPrivateHuge) | kFixed | (random_.Below(3) == 0 ? kNoReserve : 0);
        const bool mapped = lab_.processes->Mmap(pid, Address(at), Bytes(count), 3, flags, -1, 0).ok();
        Forget(chunks, at, count);  // Whatever was there is gone, even if nothing came in its place.
        for (uint64_t i = at; mapped && i < at + count; ++i) chunks[i] = {shared, std::make_shared<Chunk>()};
        return;
      }
      case 2:
        ASSERT_EQ(lab_.processes->Munmap(pid, Address(at), Bytes(count)), Errno::kOk);
        return Forget(chunks, at, count);
      case 3:
        if (tasks_.size() == 4) return;
        return Fork(pid);
      case 4:
        if (tasks_.size() == 1 || random_.Below(3) != 0) return;
        lab_.processes->Exit(pid, 0);
        tasks_.erase(it);
        return;
      case 5:
        return Move(pid, chunks, at, random_.Below(kPlaces), count);
      case 6:
        lab_.processes->Madvise(pid, Address(at), Bytes(1), kMadvDontneed);
        if (const auto found = chunks.find(at); found != chunks.end() && !found->second.first)
          found->second.second = std::make_shared<Chunk>();
        return;
      case 7:
        Pools().SetMaximum(Pools().default_pool(), random_.Below(9));
        return;
      case 8:
        Pools().SetOvercommit(Pools().default_pool(), random_.Below(4));
        return;
      case 9:
        lab_.processes->Mprotect(pid, Address(at), Bytes(1), 1);
        lab_.processes->Mprotect(pid, Address(at), Bytes(1), 3);
        return;
      default:
        return Access(pid, chunks, at);
    }
  }

 private:
  static constexpr uint64_t kPlaces = 12;
  HugetlbPools& Pools() { return lab_.files.hugetlb(); }
  uint64_t Address(uint64_t at) const { return MemoryLab::At(at * huge_); }
  uint64_t Bytes(uint64_t count) const { return count * huge_ * kPage; }
  static void Forget(Chunks& chunks, uint64_t at, uint64_t count) { chunks.erase(chunks.lower_bound(at), chunks.lower_bound(at + count)); }

  void Fork(Pid parent) {
    const SysResult<Pid> child = lab_.processes->Fork(parent, 0);
    ASSERT_TRUE(child.ok());
    Chunks copy = tasks_[parent];
    for (auto& [at, chunk] : copy) {
      if (!chunk.first) chunk.second = std::make_shared<Chunk>(*chunk.second);
    }
    tasks_[child.value()] = std::move(copy);
  }
  void Move(Pid pid, Chunks& chunks, uint64_t from, uint64_t to, uint64_t count) {
    if (from + count > to && to + count > from) return;
    ASSERT_EQ(lab_.processes->Munmap(pid, Address(to), Bytes(count)), Errno::kOk);
    Forget(chunks, to, count);
    if (!lab_.processes->Mremap(pid, Address(from), Bytes(count), Bytes(count), 3, Address(to)).ok()) return;
    for (uint64_t i = 0; i < count; ++i) {
      ASSERT_TRUE(chunks.contains(from + i));
      chunks[to + i] = chunks[from + i];
    }
    Forget(chunks, from, count);
  }
  void Access(Pid pid, Chunks& chunks, uint64_t at) {
    const auto found = chunks.find(at);
    if (found == chunks.end()) return;
    Chunk& chunk = *found->second.second;
    const size_t which = random_.Below(2);
    const uint64_t page = at * huge_ + which * (huge_ - 1);
    if (random_.Below(2) == 0) {
      const uint8_t value = lab_.Access(pid, AccessKind::kLoad, page);
      if (lab_.signal.has_value()) return;  // The pool is empty, or the page was taken away.
      ASSERT_EQ(value, chunk.bytes[which]);
    } else {
      const auto value = static_cast<uint8_t>(random_.Below(256));
      lab_.Access(pid, AccessKind::kStore, page, value);
      if (!lab_.signal.has_value()) chunk.bytes[which] = value;
    }
  }

  MemoryLab& lab_;
  const uint64_t huge_;
  Random random_;
  std::map<Pid, Chunks> tasks_;
};

TEST_P(HugetlbTest, RandomProgramsKeepTheirBytes) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    MemoryLab lab(GetParam(), seed % 2 == 0, 32768);
    HugetlbProgram program(lab, huge_, seed);
    for (int step = 0; step < 4000; ++step) {
      program.Step();
      if (HasFatalFailure()) FAIL() << "at step " << step;
      if (step % 50 != 0) continue;
      ASSERT_EQ(lab.Violations(), std::vector<std::string>{}) << "at step " << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllLayouts, HugetlbTest, testing::Values(LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64),
                         [](const auto& param) {
                           return param.param == LayoutKind::kArm64 ? "Arm64" : param.param == LayoutKind::kX86_32 ? "TwoLevels" : "Pae";
                         });

}  // namespace
}  // namespace mmlab

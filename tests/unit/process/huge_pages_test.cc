#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "server/base/random.h"
#include "server/process/address_space.h"
#include "server/process/huge_settings.h"
#include "tests/unit/process/memory_lab.h"

namespace mmlab {
namespace {

constexpr int32_t kMadvDontneed = 4;
constexpr int32_t kMadvFree = 8;
constexpr int32_t kMadvHugepage = 14;
constexpr int32_t kMadvNohugepage = 15;
constexpr int32_t kMadvCold = 20;
constexpr int32_t kMadvCollapse = 25;
constexpr int32_t kPrSetThpDisable = 41;
constexpr int64_t kSecond = 1'000'000'000;

class HugePagesTest : public testing::TestWithParam<LayoutKind> {
 protected:
  HugePagesTest() : lab_(GetParam(), true, 32768), huge_(GetParam() == LayoutKind::kX86_32 ? 1024 : 512) {
    lab_.processes->huge_settings().enabled = ThpEnabled::kAlways;
    lab_.processes->AdvanceBackground(kSecond);
  }
  // Room for so many huge pages, from kBase.
  void MapHuge(uint64_t count) { lab_.Map(lab_.pid, 0, count * huge_, 3, kPrivateAnon); }
  void Write(uint64_t page, uint8_t value = 1) { lab_.Access(lab_.pid, AccessKind::kStore, page, value); }
  uint8_t Read(uint64_t page) { return lab_.Access(lab_.pid, AccessKind::kLoad, page); }
  Errno Madvise(uint64_t page, uint64_t pages, int32_t advice) {
    return lab_.processes->Madvise(lab_.pid, MemoryLab::At(page), pages * kPage, advice);
  }
  // Pages that huge entries of the process map.
  uint64_t AnonHuge(Pid pid) const {
    uint64_t bytes = 0;
    for (const Smaps& smaps : lab_.processes->AllSmaps(lab_.process(pid))) bytes += smaps.anon_huge_pages.raw();
    return bytes / kPage;
  }
  uint64_t AnonHuge() const { return AnonHuge(lab_.pid); }
  uint64_t RssAnon() const { return lab_.processes->Resident(lab_.process(lab_.pid)).anon.raw() / kPage; }
  uint64_t Count(VmEvent event) const { return lab_.vm_stat.Get(event); }
  void TearDown() override { EXPECT_EQ(lab_.Violations(), std::vector<std::string>{}); }

  MemoryLab lab_;
  uint64_t huge_;
};

TEST_P(HugePagesTest, FirstWriteMapsAHugePage) {
  MapHuge(2);
  const uint64_t before = RssAnon();
  Write(huge_ + 5, 7);
  EXPECT_EQ(lab_.result.minor_faults, 1u);
  EXPECT_EQ(AnonHuge(), huge_);
  EXPECT_EQ(RssAnon() - before, huge_);
  EXPECT_EQ(Read(huge_ + 5), 7);
  EXPECT_EQ(Read(huge_ + 6), 0);
  EXPECT_EQ(lab_.result.minor_faults, 0u);
  EXPECT_EQ(Count(VmEvent::kThpFaultAlloc), 1u);
  EXPECT_EQ(lab_.vm_stat.Get(NodeStat::kNrAnonTransparentHugepages), static_cast<int64_t>(huge_));
}

TEST_P(HugePagesTest, ReadMapsTheHugeZeroPageAndAWriteReplacesOnePageOfIt) {
  MapHuge(1);
  const uint64_t before = RssAnon();
  EXPECT_EQ(Read(3), 0);
  EXPECT_EQ(RssAnon(), before);
  EXPECT_EQ(Count(VmEvent::kThpZeroPageAlloc), 1u);
  Write(3, 9);
  EXPECT_EQ(RssAnon() - before, 1u);
  EXPECT_EQ(Count(VmEvent::kThpSplitPmd), 1u);
  EXPECT_EQ(Read(3), 9);
  EXPECT_EQ(Read(4), 0);
}

TEST_P(HugePagesTest, WithoutRoomForAWholeOneThereIsNone) {
  lab_.Map(lab_.pid, 1, huge_, 3, kPrivateAnon);  // Neither aligned range fits.
  Write(1);
  Write(huge_);
  EXPECT_EQ(AnonHuge(), 0u);
}

struct SettingCase {
  const char* name;
  ThpEnabled enabled;
  int32_t advice;  // 0: none.
  bool disabled;   // PR_SET_THP_DISABLE
  bool huge;
};

TEST_P(HugePagesTest, SettingsAndAdviceDecide) {
  constexpr SettingCase kCases[] = {
      {"Always", ThpEnabled::kAlways, 0, false, true},
      {"AlwaysNohugepage", ThpEnabled::kAlways, kMadvNohugepage, false, false},
      {"Madvise", ThpEnabled::kMadvise, 0, false, false},
      {"MadviseHugepage", ThpEnabled::kMadvise, kMadvHugepage, false, true},
      {"NeverHugepage", ThpEnabled::kNever, kMadvHugepage, false, false},
      {"AlwaysDisabled", ThpEnabled::kAlways, kMadvHugepage, true, false},
  };
  MapHuge(1);
  for (const SettingCase& one : kCases) {
    SCOPED_TRACE(one.name);
    lab_.processes->huge_settings().enabled = one.enabled;
    ASSERT_TRUE(lab_.processes->Prctl(lab_.pid, kPrSetThpDisable, one.disabled ? 1 : 0, 0, 0, 0).ok());
    if (one.advice != 0) {
      ASSERT_EQ(Madvise(0, huge_, one.advice), Errno::kOk);
    }
    EXPECT_EQ(lab_.processes->ThpEligible(*lab_.process(lab_.pid).mm->vmas.Find(VirtAddr(kBase))), one.huge);
    Write(1);
    EXPECT_EQ(AnonHuge(), one.huge ? huge_ : 0);
    ASSERT_EQ(lab_.processes->Munmap(lab_.pid, kBase, huge_ * kPage), Errno::kOk);
    MapHuge(1);
  }
}

TEST_P(HugePagesTest, GivingUpAPartSplitsTheEntryAndQueuesThePage) {
  MapHuge(1);
  Write(0, 3);
  const uint64_t before = RssAnon();
  ASSERT_EQ(lab_.processes->Munmap(lab_.pid, MemoryLab::At(8), kPage), Errno::kOk);
  EXPECT_EQ(AnonHuge(), 0u);
  EXPECT_EQ(before - RssAnon(), 1u);
  EXPECT_EQ(Count(VmEvent::kThpSplitPmd), 1u);
  EXPECT_EQ(Count(VmEvent::kThpDeferredSplitPage), 1u);
  EXPECT_EQ(Count(VmEvent::kThpSplitPage), 0u);
  EXPECT_EQ(Read(0), 3);
}

TEST_P(HugePagesTest, GivingUpAllOfItFreesItWhole) {
  MapHuge(1);
  Write(0);
  const auto free = [&] {
    const auto counts = lab_.memory->FrameCounts();
    return counts[static_cast<size_t>(FrameState::kFree)] + counts[static_cast<size_t>(FrameState::kPcp)];
  };
  const uint64_t before = free();
  ASSERT_EQ(Madvise(0, huge_, kMadvDontneed), Errno::kOk);
  EXPECT_EQ(free() - before, huge_ + 1);  // With the table that was put aside.
  EXPECT_EQ(Count(VmEvent::kThpSplitPmd), 0u);
}

TEST_P(HugePagesTest, ForkSharesItAndAWriteCopiesOnePage) {
  MapHuge(1);
  Write(0, 5);
  const auto child = lab_.processes->Fork(lab_.pid, 0);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(AnonHuge(child.value()), huge_);
  Write(1, 6);
  EXPECT_EQ(AnonHuge(), 0u);
  EXPECT_EQ(AnonHuge(child.value()), huge_);
  EXPECT_EQ(Read(0), 5);
  EXPECT_EQ(lab_.Access(child.value(), AccessKind::kLoad, 1), 0);
  // The last one who maps it as a whole may go on with it; the pages that the parent still maps hold it.
  ASSERT_EQ(lab_.processes->Exit(lab_.pid, 0), Errno::kOk);
  lab_.Access(child.value(), AccessKind::kStore, 2, 8);
  EXPECT_EQ(AnonHuge(child.value()), huge_);
  EXPECT_EQ(lab_.Access(child.value(), AccessKind::kLoad, 0), 5);
}

TEST_P(HugePagesTest, MovesWholeWhereTheAddressFits) {
  MapHuge(1);
  Write(4, 2);
  const uint64_t aligned = MemoryLab::At(8 * huge_);
  ASSERT_TRUE(lab_.processes->Mremap(lab_.pid, kBase, huge_ * kPage, huge_ * kPage, 3, aligned).ok());
  EXPECT_EQ(AnonHuge(), huge_);
  EXPECT_EQ(Read(8 * huge_ + 4), 2);
  ASSERT_TRUE(lab_.processes->Mremap(lab_.pid, aligned, huge_ * kPage, huge_ * kPage, 3, MemoryLab::At(1)).ok());
  EXPECT_EQ(AnonHuge(), 0u);
  EXPECT_EQ(Read(1 + 4), 2);
}

TEST_P(HugePagesTest, LazilyFreedAsAWholeItStaysWhole) {
  MapHuge(1);
  Write(0);
  ASSERT_EQ(Madvise(0, huge_, kMadvFree), Errno::kOk);
  EXPECT_EQ(AnonHuge(), huge_);
  EXPECT_EQ(Count(VmEvent::kPglazyfree), huge_);
  ASSERT_EQ(Madvise(1, 2, kMadvFree), Errno::kOk);
  EXPECT_EQ(AnonHuge(), 0u);
  EXPECT_EQ(Count(VmEvent::kThpSplitPage), 1u);
}

TEST_P(HugePagesTest, LockedAsAWholeItCountsWhole) {
  MapHuge(1);
  Write(0);
  ASSERT_EQ(lab_.processes->Mlock(lab_.pid, kBase, huge_ * kPage, 0), Errno::kOk);
  EXPECT_EQ(lab_.processes->mlocked_pages().raw(), huge_);
  // A boundary inside it: small entries do not lock a huge page.
  ASSERT_EQ(lab_.processes->Munlock(lab_.pid, kBase, kPage), Errno::kOk);
  EXPECT_EQ(lab_.processes->mlocked_pages().raw(), 0u);
}

TEST_P(HugePagesTest, KhugepagedGathersSmallPagesAsTimeGoesOn) {
  lab_.processes->huge_settings().enabled = ThpEnabled::kMadvise;
  MapHuge(2);
  for (uint64_t page = 0; page < huge_; ++page) Write(page, static_cast<uint8_t>(page));
  EXPECT_EQ(AnonHuge(), 0u);
  ASSERT_EQ(Madvise(0, 2 * huge_, kMadvHugepage), Errno::kOk);
  lab_.processes->AdvanceBackground(kSecond);
  EXPECT_EQ(AnonHuge(), huge_);
  EXPECT_EQ(lab_.processes->huge_settings().khugepaged.pages_collapsed, 1u);
  EXPECT_EQ(Count(VmEvent::kThpCollapseAlloc), 1u);
  for (uint64_t page = 0; page < huge_; ++page) ASSERT_EQ(Read(page), static_cast<uint8_t>(page));
}

TEST_P(HugePagesTest, KhugepagedKeepsToItsLimits) {
  lab_.processes->huge_settings().enabled = ThpEnabled::kMadvise;
  lab_.processes->huge_settings().khugepaged.max_ptes_none = 10;
  MapHuge(1);
  for (uint64_t page = 0; page < huge_ - 11; ++page) Write(page);
  ASSERT_EQ(Madvise(0, huge_, kMadvHugepage), Errno::kOk);
  lab_.processes->AdvanceBackground(kSecond);
  EXPECT_EQ(AnonHuge(), 0u);
  EXPECT_EQ(Count(VmEvent::kThpScanExceedNonePte), 1u);
  lab_.processes->AdvanceBackground(100 * kSecond);  // Nine rests of ten seconds later.
  EXPECT_EQ(Count(VmEvent::kThpScanExceedNonePte), 10u);
  EXPECT_EQ(Madvise(0, huge_, kMadvCollapse), Errno::kOk);  // Which knows no limits.
  EXPECT_EQ(AnonHuge(), huge_);
}

// Any time that passes costs a bounded number of rounds, and counts as if each had been made.
TEST_P(HugePagesTest, ACenturyOfRoundsIsCountedNotMade) {
  MapHuge(1);
  Write(0);
  lab_.processes->AdvanceBackground(kSecond);
  const uint32_t scans = lab_.processes->huge_settings().khugepaged.full_scans;
  lab_.processes->AdvanceBackground(kSecond + 10 * kSecond * 300'000'000);
  EXPECT_EQ(lab_.processes->huge_settings().khugepaged.full_scans - scans, 300'000'000u);
}

// Random programs over plain arrays: every byte reads back, every count agrees.
TEST_P(HugePagesTest, RandomProgramsKeepTheirBytes) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    MemoryLab lab(GetParam(), seed % 2 == 0, 32768);
    lab.processes->huge_settings().enabled = ThpEnabled::kAlways;
    const uint64_t pages = 3 * huge_;
    std::map<Pid, std::vector<uint8_t>> model;
    lab.Map(lab.pid, 0, pages, 3, kPrivateAnon);
    model[lab.pid].assign(pages, 0);
    Random random(seed);
    int64_t now = 0;
    for (int step = 0; step < 300; ++step) {
      auto it = model.begin();
      std::advance(it, static_cast<ptrdiff_t>(random.Below(model.size())));
      const Pid who = it->first;
      std::vector<uint8_t>& bytes = it->second;
      // Half of the ranges are whole huge pages.
      const bool whole = random.Below(2) == 0;
      const uint64_t first = whole ? random.Below(3) * huge_ : random.Below(pages);
      const uint64_t count = whole ? huge_ : 1 + random.Below(std::min<uint64_t>(pages - first, huge_ / 2));
      const auto address = MemoryLab::At(first);
      switch (random.Below(14)) {
        case 0:
          if (model.size() < 3) {
            const auto child = lab.processes->Fork(who, 0);
            ASSERT_TRUE(child.ok());
            const std::vector<uint8_t> copy = bytes;
            model[child.value()] = copy;
          }
          break;
        case 1:
          if (model.size() > 1) {
            ASSERT_EQ(lab.processes->Exit(who, 0), Errno::kOk);
            model.erase(it);
          }
          break;
        case 2:
          ASSERT_EQ(lab.processes->Madvise(who, address, count * kPage, kMadvDontneed), Errno::kOk);
          std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(first), count, 0);
          break;
        case 3:
          lab.Map(who, first, count, 3, kPrivateAnon);
          std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(first), count, 0);
          break;
        case 4:
          ASSERT_EQ(lab.processes->Mprotect(who, address, count * kPage, 1), Errno::kOk);
          ASSERT_EQ(lab.processes->Mprotect(who, address, count * kPage, 3), Errno::kOk);
          break;
        case 5: {
          const uint64_t elsewhere = MemoryLab::At((whole ? 8 : 7) * huge_ + (whole ? 0 : 3));
          // Refused where the range is more than one VMA.
          if (!lab.processes->Mremap(who, address, count * kPage, count * kPage, 3, elsewhere).ok()) break;
          ASSERT_TRUE(lab.processes->Mremap(who, elsewhere, count * kPage, count * kPage, 3, address).ok());
          break;
        }
        case 6:
          ASSERT_EQ(lab.processes->Madvise(who, address, count * kPage, random.Below(2) == 0 ? kMadvFree : kMadvCold), Errno::kOk);
          break;
        case 7:
          lab.processes->Madvise(who, address, count * kPage, kMadvCollapse);
          break;
        case 8:
          ASSERT_EQ(lab.processes->Mlock(who, address, count * kPage, 0), Errno::kOk);
          if (random.Below(2) == 0) {
            ASSERT_EQ(lab.processes->Munlock(who, address, count * kPage), Errno::kOk);
          }
          ASSERT_EQ(lab.processes->Munlockall(who), Errno::kOk);
          break;
        case 9:
          now += 20 * kSecond;
          lab.processes->AdvanceBackground(now);
          break;
        case 10:
          ASSERT_EQ(lab.Access(who, AccessKind::kLoad, first), bytes[first]);
          break;
        default:
          bytes[first] = static_cast<uint8_t>(1 + random.Below(255));
          lab.Access(who, AccessKind::kStore, first, bytes[first]);
          break;
      }
      if (step % 5 == 0) {
        ASSERT_EQ(lab.Violations(), std::vector<std::string>{}) << "step " << step;
      }
    }
    for (const auto& [who, bytes] : model) {
      for (uint64_t page = 0; page < pages; ++page) ASSERT_EQ(lab.Access(who, AccessKind::kLoad, page), bytes[page]) << page;
    }
    std::vector<std::string> problems;
    lab.memory->CheckInvariants(&problems);
    EXPECT_EQ(problems, std::vector<std::string>{});
  }
}

INSTANTIATE_TEST_SUITE_P(AllLayouts, HugePagesTest, testing::Values(LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64),
                         [](const auto& c) { return std::string(GetLayout(c.param).name); });

}  // namespace
}  // namespace mmlab

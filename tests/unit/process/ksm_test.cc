#include "server/process/ksm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "server/base/random.h"
#include "server/process/huge_settings.h"
#include "tests/unit/process/memory_lab.h"

namespace mmlab {
namespace {

constexpr int32_t kMadvDontneed = 4;
constexpr int32_t kMadvMergeable = 12;
constexpr int32_t kMadvUnmergeable = 13;
constexpr int64_t kSecond = 1'000'000'000;

class KsmTest : public testing::TestWithParam<LayoutKind> {
 protected:
  KsmTest() : lab_(GetParam(), true, 16384) { lab_.processes->AdvanceBackground(now_); }

  // Pages from kBase that hold values[i] in their first byte, mergeable.
  void Fill(const std::vector<uint8_t>& values) {
    lab_.Map(lab_.pid, 0, values.size(), 3, kPrivateAnon);
    for (size_t i = 0; i < values.size(); ++i) lab_.Access(lab_.pid, AccessKind::kStore, i, values[i]);
    Advise(values.size(), kMadvMergeable);
  }
  void Advise(uint64_t pages, int32_t advice) { ASSERT_EQ(lab_.processes->Madvise(lab_.pid, kBase, pages * kPage, advice), Errno::kOk); }
  Ksm& ksm() { return lab_.processes->ksm(); }
  // Full scans of everything: the first one notes checksums, the second one merges.
  void Scan(int scans) {
    if (ksm().settings().run != 1) {
      ASSERT_EQ(ksm().Run(1), Errno::kOk);
      ksm().settings().pages_to_scan = 100000;
      ksm().settings().sleep_millisecs = 1000;
    }
    for (int i = 0; i < scans; ++i) {
      lab_.processes->AdvanceBackground(now_);
      now_ += kSecond;
    }
  }
  int64_t AnonPages() const { return lab_.vm_stat.Get(NodeStat::kNrAnonPages); }
  uint8_t Read(uint64_t page) { return lab_.Access(lab_.pid, AccessKind::kLoad, page); }
  void TearDown() override { EXPECT_EQ(lab_.Violations(), std::vector<std::string>{}); }

  int64_t now_ = kSecond;
  MemoryLab lab_;
};

TEST_P(KsmTest, EqualPagesBecomeOneOnceTheirChecksumIsOld) {
  Fill({5, 5, 6, 5});
  const int64_t before = AnonPages();
  Scan(1);
  EXPECT_EQ(ksm().pages_sharing(), 0u);
  EXPECT_EQ(ksm().pages_volatile(), 4u);
  Scan(1);
  EXPECT_EQ(ksm().pages_shared(), 1u);
  EXPECT_EQ(ksm().pages_sharing(), 2u);
  EXPECT_EQ(ksm().pages_unshared(), 1u);
  EXPECT_EQ(ksm().pages_volatile(), 0u);
  EXPECT_EQ(ksm().MergingPages(*lab_.process(lab_.pid).mm), 3u);
  EXPECT_EQ(before - AnonPages(), 2);
  EXPECT_EQ(std::vector<uint8_t>({Read(0), Read(1), Read(2), Read(3)}), std::vector<uint8_t>({5, 5, 6, 5}));
}

TEST_P(KsmTest, PagesOfSeveralProcessesMergeAndExitingGivesUpItsPart) {
  Fill({5, 6});
  const auto child = lab_.processes->Fork(lab_.pid, 0);
  ASSERT_TRUE(child.ok());
  lab_.Access(child.value(), AccessKind::kStore, 0, 6);
  lab_.Access(child.value(), AccessKind::kStore, 1, 5);
  Scan(2);
  EXPECT_EQ(ksm().pages_shared(), 2u);
  EXPECT_EQ(ksm().pages_sharing(), 2u);
  ASSERT_EQ(lab_.processes->Exit(child.value(), 0), Errno::kOk);
  EXPECT_EQ(ksm().pages_sharing(), 2u);  // Until the next scan comes by.
  Scan(1);
  EXPECT_EQ(ksm().pages_shared(), 2u);
  EXPECT_EQ(ksm().pages_sharing(), 0u);
  EXPECT_EQ(Read(0), 5);
}

TEST_P(KsmTest, AWriteTakesACopyAndTheNextScanNoticesIt) {
  Fill({5, 5, 5});
  Scan(2);
  const int64_t before = AnonPages();
  lab_.Access(lab_.pid, AccessKind::kStore, 1, 9);
  EXPECT_EQ(AnonPages() - before, 1);
  EXPECT_EQ(lab_.vm_stat.Get(VmEvent::kCowKsm), 1u);
  EXPECT_EQ(ksm().pages_sharing(), 2u);
  Scan(1);
  EXPECT_EQ(ksm().pages_sharing(), 1u);
  EXPECT_EQ(Read(0), 5);
  EXPECT_EQ(Read(1), 9);
}

TEST_P(KsmTest, ALastMappingIsCopiedToo) {
  Fill({5, 5});
  Scan(2);
  ASSERT_EQ(lab_.processes->Munmap(lab_.pid, kBase, kPage), Errno::kOk);
  lab_.Access(lab_.pid, AccessKind::kStore, 1, 7);
  EXPECT_EQ(lab_.vm_stat.Get(VmEvent::kCowKsm), 1u);
  EXPECT_EQ(Read(1), 7);
  Scan(1);
  EXPECT_EQ(ksm().pages_shared(), 0u);
}

TEST_P(KsmTest, NoPageIsSharedMoreOftenThanAllowed) {
  ASSERT_EQ(ksm().SetMaxPageSharing(1), Errno::kEINVAL);
  ASSERT_EQ(ksm().SetMaxPageSharing(4), Errno::kOk);
  Fill(std::vector<uint8_t>(16, 3));
  Scan(4);
  EXPECT_EQ(ksm().pages_shared(), 4u);
  EXPECT_EQ(ksm().pages_sharing(), 12u);
  EXPECT_EQ(ksm().stable_node_chains(), 1u);
  EXPECT_EQ(ksm().stable_node_dups(), 4u);
  EXPECT_EQ(ksm().SetMaxPageSharing(8), Errno::kEBUSY);
}

TEST_P(KsmTest, RunTwoUndoesItAll) {
  Fill(std::vector<uint8_t>(8, 3));
  const int64_t before = AnonPages();
  Scan(2);
  ASSERT_EQ(ksm().Run(2), Errno::kOk);
  EXPECT_EQ(AnonPages(), before);
  EXPECT_EQ(ksm().pages_shared() + ksm().pages_sharing() + ksm().full_scans(), 0u);
  EXPECT_EQ(lab_.vm_stat.Get(VmEvent::kCowKsm), 8u);
  EXPECT_EQ(ksm().Run(3), Errno::kEINVAL);
}

TEST_P(KsmTest, UnmergeableUndoesItForItsRange) {
  Fill({3, 3, 3, 3});
  Scan(2);
  Advise(2, kMadvUnmergeable);
  EXPECT_EQ(lab_.vm_stat.Get(VmEvent::kCowKsm), 2u);
  Scan(1);
  EXPECT_EQ(ksm().pages_sharing(), 1u);
}

TEST_P(KsmTest, AForkOfMergedPagesJoinsThem) {
  Fill({3, 3});
  Scan(2);
  const auto child = lab_.processes->Fork(lab_.pid, 0);
  ASSERT_TRUE(child.ok());
  Scan(1);
  EXPECT_EQ(ksm().pages_sharing(), 3u);
  EXPECT_EQ(ksm().RmapItems(*lab_.process(child.value()).mm), 2u);
}

TEST_P(KsmTest, EmptyPagesBecomeTheZeroPageOnWish) {
  ksm().settings().use_zero_pages = true;
  Fill({0, 0, 1});
  const int64_t before = AnonPages();
  Scan(2);
  EXPECT_EQ(before - AnonPages(), 2);
  EXPECT_EQ(ksm().pages_shared(), 0u);
  EXPECT_EQ(Read(0), 0);
}

TEST_P(KsmTest, HugePagesAreSplitToMerge) {
  lab_.processes->huge_settings().enabled = ThpEnabled::kAlways;
  const uint64_t huge = GetParam() == LayoutKind::kX86_32 ? 1024 : 512;
  lab_.Map(lab_.pid, 0, huge, 3, kPrivateAnon);
  lab_.Access(lab_.pid, AccessKind::kStore, 1, 4);
  Advise(huge, kMadvMergeable);
  Scan(3);
  EXPECT_EQ(lab_.vm_stat.Get(VmEvent::kThpSplitPage), 1u);
  EXPECT_GE(ksm().pages_sharing(), huge - 1 - 4);
  EXPECT_EQ(Read(1), 4);
  EXPECT_EQ(Read(2), 0);
}

TEST_P(KsmTest, OneBatchLooksAtSoManyPages) {
  Fill(std::vector<uint8_t>(10, 3));
  ksm().settings().pages_to_scan = 4;
  ksm().settings().sleep_millisecs = 1000;
  ASSERT_EQ(ksm().Run(1), Errno::kOk);
  lab_.processes->AdvanceBackground(kSecond);
  EXPECT_EQ(ksm().pages_volatile(), 4u);
  lab_.processes->AdvanceBackground(3 * kSecond);
  EXPECT_EQ(ksm().pages_volatile(), 10u);
  EXPECT_EQ(ksm().full_scans(), 1u);
}

// Any time that passes costs a bounded number of scans, and counts as if each had been made: three batches a full scan.
TEST_P(KsmTest, ACenturyOfScansIsCountedNotMade) {
  Fill({1, 2, 3, 3, 5, 6, 7, 8});
  Scan(1);
  ksm().settings().pages_to_scan = 3;
  lab_.processes->AdvanceBackground(now_ += 100 * kSecond);
  const uint64_t before = ksm().full_scans();
  lab_.processes->AdvanceBackground(now_ + 3 * kSecond * 1'000'000'000);
  EXPECT_EQ(ksm().full_scans() - before, 1'000'000'000u);
  EXPECT_EQ(ksm().pages_sharing(), 1u);
}

// Random programs over plain arrays: merging never shows in what is read.
TEST_P(KsmTest, RandomProgramsKeepTheirBytes) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    MemoryLab lab(GetParam(), seed % 2 == 0, 16384);
    constexpr uint64_t kPages = 64;
    std::map<Pid, std::vector<uint8_t>> model;
    lab.Map(lab.pid, 0, kPages, 3, kPrivateAnon);
    ASSERT_EQ(lab.processes->Madvise(lab.pid, kBase, kPages * kPage, kMadvMergeable), Errno::kOk);
    model[lab.pid].assign(kPages, 0);
    Random random(seed);
    lab.processes->ksm().settings().pages_to_scan = 40;
    ASSERT_EQ(lab.processes->ksm().SetMaxPageSharing(5), Errno::kOk);
    ASSERT_EQ(lab.processes->ksm().Run(1), Errno::kOk);
    int64_t now = 0;
    for (int step = 0; step < 600; ++step) {
      auto it = model.begin();
      std::advance(it, static_cast<ptrdiff_t>(random.Below(model.size())));
      const Pid who = it->first;
      std::vector<uint8_t>& bytes = it->second;
      const uint64_t page = random.Below(kPages);
      switch (random.Below(16)) {
        case 0:
          if (model.size() < 4) {
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
          ASSERT_EQ(lab.processes->Madvise(who, MemoryLab::At(page), kPage, kMadvDontneed), Errno::kOk);
          bytes[page] = 0;
          break;
        case 3:
          ASSERT_EQ(lab.processes->Madvise(who, MemoryLab::At(page), kPage, random.Below(2) == 0 ? kMadvMergeable : kMadvUnmergeable),
                    Errno::kOk);
          break;
        case 4:
          ASSERT_EQ(lab.processes->ksm().Run(random.Below(8) == 0 ? 2 : 1), Errno::kOk);
          break;
        case 5:
        case 6:
        case 7:
          now += 20'000'000;
          lab.processes->AdvanceBackground(now);
          break;
        case 8:
          ASSERT_EQ(lab.Access(who, AccessKind::kLoad, page), bytes[page]);
          break;
        default:
          bytes[page] = static_cast<uint8_t>(1 + random.Below(3));
          lab.Access(who, AccessKind::kStore, page, bytes[page]);
          break;
      }
      ASSERT_EQ(lab.Violations(), std::vector<std::string>{}) << "step " << step;
    }
    EXPECT_GT(lab.vm_stat.Get(VmEvent::kCowKsm), 0u);
    while (!model.empty()) {
      const Pid who = model.begin()->first;
      for (uint64_t page = 0; page < kPages; ++page)
        ASSERT_EQ(lab.Access(who, AccessKind::kLoad, page), model.begin()->second[page]) << page;
      ASSERT_EQ(lab.processes->Exit(who, 0), Errno::kOk);
      model.erase(model.begin());
    }
    EXPECT_EQ(lab.vm_stat.Get(NodeStat::kNrAnonPages), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, KsmTest, testing::Values(LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64),
                         [](const auto& c) { return std::string(GetLayout(c.param).name); });

}  // namespace
}  // namespace mmlab

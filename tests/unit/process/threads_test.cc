#include <gtest/gtest.h>

#include <algorithm>

#include "server/hardware/page_walk.h"
#include "server/process/address_space.h"
#include "server/process/mm_view.h"
#include "tests/unit/process/memory_lab.h"

namespace mmlab {
namespace {

constexpr uint64_t kThread = 0x10d00;  // CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD
constexpr uint64_t kVfork = 0x4100;    // CLONE_VM | CLONE_VFORK

const std::vector<std::string> kNone;

struct FlagsCase {
  const char* name;
  uint64_t flags;
  Errno error;
};
class CloneFlagsTest : public testing::TestWithParam<FlagsCase> {};

TEST_P(CloneFlagsTest, AnswersAsCopyProcessDoes) {
  MemoryLab lab(LayoutKind::kArm64);
  EXPECT_EQ(lab.processes->Fork(lab.pid, GetParam().flags).error(), GetParam().error);
  EXPECT_EQ(lab.Violations(), kNone);
}
INSTANTIATE_TEST_SUITE_P(Combinations, CloneFlagsTest,
                         testing::Values(FlagsCase{"Fork", 0, Errno::kOk}, FlagsCase{"Vfork", kVfork, Errno::kOk},
                                         FlagsCase{"Thread", kThread, Errno::kOk},
                                         FlagsCase{"ThreadWithoutSignalHandlers", 0x10100, Errno::kEINVAL},
                                         FlagsCase{"SignalHandlersWithoutMemory", 0x800, Errno::kEINVAL},
                                         FlagsCase{"NewMountsWithSharedRoot", 0x20200, Errno::kEINVAL},
                                         FlagsCase{"NewUsersWithSharedRoot", 0x10000200, Errno::kEINVAL},
                                         FlagsCase{"ThreadOfNewUsers", 0x10010900, Errno::kEINVAL}),
                         [](const auto& tested) { return tested.param.name; });

// What /proc/stat and process-exporter count never falls.
TEST(ThreadsTest, FaultsStayWithTheNameUnderWhichTheyWereTaken) {
  MemoryLab lab(LayoutKind::kX86_32);
  lab.Map(lab.pid, 0, 4, 3, kPrivateAnon);
  const uint64_t tasks = lab.processes->tasks_made();
  const Pid child = lab.processes->Fork(lab.pid, 0).value();
  EXPECT_EQ(lab.processes->tasks_made(), tasks + 1);
  for (uint64_t page = 0; page < 3; ++page) lab.Access(child, AccessKind::kStore, page);
  EXPECT_TRUE(lab.processes->former_faults().empty());
  ASSERT_TRUE(lab.processes->Prctl(child, 15, lab.At(0), 0, 0, 0).ok());  // PR_SET_NAME: the byte that was stored there.
  EXPECT_EQ(lab.processes->former_faults().at("program").minor, 3u);
  lab.Access(child, AccessKind::kStore, 3);
  ASSERT_EQ(lab.processes->Exit(child, 0), Errno::kOk);
  EXPECT_EQ(lab.processes->former_faults().at("program").minor, 3u);
  EXPECT_EQ(lab.processes->former_faults().at("?").minor, 1u);
  EXPECT_EQ(lab.processes->tasks_made(), tasks + 1);
}

TEST(ThreadsTest, ShareMemoryLimitsAndDescriptorsAndCountFaultsEachForItself) {
  MemoryLab lab(LayoutKind::kX86_32);
  lab.Map(lab.pid, 0, 4, 3, kPrivateAnon);
  const Pid thread = lab.processes->Fork(lab.pid, kThread).value();
  const AddressSpace& mm = *lab.process(lab.pid).mm;
  EXPECT_EQ(mm.mm_users, 2);
  EXPECT_EQ(lab.processes->ThreadCount(lab.process(lab.pid)), 2);
  const uint64_t before = lab.process(lab.pid).minor_faults;
  const int64_t anonymous = mm.rss[static_cast<size_t>(RssKind::kAnon)];
  lab.Access(thread, AccessKind::kStore, 1, 7);
  EXPECT_EQ(lab.Access(lab.pid, AccessKind::kLoad, 1), 7);
  EXPECT_EQ(lab.process(thread).minor_faults, 1u);
  EXPECT_EQ(lab.process(lab.pid).minor_faults, before);
  EXPECT_EQ(lab.process(thread).rss.count[static_cast<size_t>(RssKind::kAnon)], 1);
  ASSERT_EQ(lab.processes->Setrlimit(thread, 8, 0, 0), Errno::kOk);
  EXPECT_EQ(lab.processes->Mlock(lab.pid, lab.At(0), kPage, 0), Errno::kEPERM);
  ASSERT_EQ(lab.processes->Close(thread, 10), Errno::kOk);
  EXPECT_EQ(lab.processes->Close(lab.pid, 10), Errno::kEBADF);
  ASSERT_EQ(lab.processes->Exit(thread, 0), Errno::kOk);
  EXPECT_EQ(mm.mm_users, 1);
  EXPECT_EQ(mm.rss[static_cast<size_t>(RssKind::kAnon)], anonymous + 1) << "what the thread had counted is folded in when it ends";
  EXPECT_EQ(lab.Access(lab.pid, AccessKind::kLoad, 1), 7);
  EXPECT_EQ(lab.Violations(), kNone);
}

TEST(ThreadsTest, EndWithTheFirstOne) {
  MemoryLab lab(LayoutKind::kArm64);
  const Pid thread = lab.processes->Fork(lab.pid, kThread).value();
  const Pid child = lab.processes->Fork(thread, 0).value();
  EXPECT_EQ(lab.process(child).parent, lab.pid);
  ASSERT_EQ(lab.processes->Exit(lab.pid, 0), Errno::kOk);
  EXPECT_EQ(lab.processes->Find(thread), nullptr);
  EXPECT_NE(lab.processes->Find(child), nullptr);
  EXPECT_EQ(lab.Violations(), kNone);
}

TEST(ThreadsTest, ExecOfAnyThreadLeavesOneTaskWithThePidOfTheFirst) {
  MemoryLab lab(LayoutKind::kX86_32Pae);
  const Pid thread = lab.processes->Fork(lab.pid, kThread).value();
  const Pid other = lab.processes->Fork(lab.pid, kThread).value();
  ElfImage image;
  image.path = "/program";
  image.program_headers = {{ProgramHeader::Type::kLoad, 0, 0x8048000, kPage, kPage, 5, kPage}};
  ASSERT_TRUE(lab.processes->Exec(thread, image, nullptr, {"next"}, {}).ok());
  EXPECT_EQ(lab.processes->Find(thread), nullptr);
  EXPECT_EQ(lab.processes->Find(other), nullptr);
  EXPECT_EQ(lab.process(lab.pid).mm->mm_users, 1);
  EXPECT_EQ(lab.Violations(), kNone);
}

TEST(ThreadsTest, AChildOfVforkThatExecsLeavesTheParentsMemoryAlone) {
  MemoryLab lab(LayoutKind::kArm64);
  lab.Map(lab.pid, 0, 1, 3, kPrivateAnon);
  const Pid child = lab.processes->Fork(lab.pid, kVfork).value();
  lab.Access(child, AccessKind::kStore, 0, 9);
  ElfImage image;
  image.path = "/program";
  image.program_headers = {{ProgramHeader::Type::kLoad, 0, 0x400000, kPage, kPage, 5, kPage}};
  ASSERT_TRUE(lab.processes->Exec(child, image, nullptr, {"next"}, {}).ok());
  EXPECT_NE(lab.process(child).mm, lab.process(lab.pid).mm);
  EXPECT_EQ(lab.Access(lab.pid, AccessKind::kLoad, 0), 9);
  EXPECT_EQ(lab.Violations(), kNone);
}

TEST(MmFlagsTest, TellWhetherProcessesShareAnAddressSpace) {
  struct Case {
    uint64_t clone_flags;
    uint64_t flags;
  };
  for (const Case& c : {Case{0, 0xcd}, Case{0x100, 0x40000cd}, Case{0x4100, 0xcd}, Case{0x10d00, 0xcd}}) {
    MemoryLab lab(LayoutKind::kX86_32);
    const Pid child = lab.processes->Fork(lab.pid, c.clone_flags).value();
    EXPECT_EQ(MmFlags(*lab.process(child).mm), c.flags) << c.clone_flags;
    EXPECT_EQ(MmFlags(*lab.process(lab.processes->Fork(child, 0).value()).mm), 0xcdu) << "a copy is nobody else's";
  }
}

class SwitchTest : public testing::TestWithParam<LayoutKind> {};

TEST_P(SwitchTest, AKernelThreadBorrowsWhatIsLoadedAndKeepsItsTopTableAlive) {
  MemoryLab lab(GetParam());
  const Pid kthread = lab.processes->Create("kworker", 0, true).value();
  EXPECT_EQ(lab.processes->SwitchTo(kthread, 0).error(), Errno::kEINVAL) << "nothing is loaded yet";
  const uint64_t base = lab.processes->SwitchTo(lab.pid, 0).value();
  EXPECT_EQ(base, lab.process(lab.pid).mm->pgd.raw() * kPage);
  EXPECT_EQ(lab.processes->MmCount(*lab.process(lab.pid).mm), 1);
  EXPECT_EQ(lab.processes->SwitchTo(kthread, 0).value(), base);
  const std::shared_ptr<AddressSpace> borrowed = lab.process(kthread).active_mm;
  EXPECT_EQ(borrowed, lab.process(lab.pid).mm);
  EXPECT_EQ(lab.processes->MmCount(*borrowed), 2);
  ASSERT_EQ(lab.processes->Exit(lab.pid, 0), Errno::kOk);
  EXPECT_EQ(lab.processes->MmCount(*borrowed), 1);
  EXPECT_EQ(lab.processes->SwitchTo(kthread, 0).value(), base);
  EXPECT_EQ(lab.memory->frame(borrowed->pgd).state, FrameState::kPageTable) << "the processor still walks it";
  // The next address space that is loaded sets it free.
  const Pid next = lab.processes->Create("next", 0, false).value();
  ElfImage image;
  image.path = "/program";
  image.program_headers = {{ProgramHeader::Type::kLoad, 0, 0x8048000, kPage, kPage, 5, kPage}};
  ASSERT_TRUE(lab.processes->Exec(next, image, nullptr, {"next"}, {}).ok());
  const Pfn pgd = borrowed->pgd;
  ASSERT_TRUE(lab.processes->SwitchTo(next, 0).ok());
  EXPECT_NE(lab.memory->frame(pgd).state, FrameState::kPageTable);
  EXPECT_EQ(lab.process(kthread).active_mm, nullptr);
  EXPECT_EQ(lab.Violations(), kNone);
}
INSTANTIATE_TEST_SUITE_P(Layouts, SwitchTest, testing::Values(LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64));

TEST(AsidTest, NumbersAreGivenInOrderAndKeptAcrossSwitches) {
  MemoryLab lab(LayoutKind::kArm64);
  const Pid child = lab.processes->Fork(lab.pid, 0).value();
  EXPECT_EQ(lab.process(lab.pid).mm->context_id, 0u);
  ASSERT_TRUE(lab.processes->SwitchTo(lab.pid, 0).ok());
  ASSERT_TRUE(lab.processes->SwitchTo(child, 0).ok());
  ASSERT_TRUE(lab.processes->SwitchTo(lab.pid, 0).ok());
  EXPECT_EQ(lab.process(lab.pid).mm->context_id, 0x10001u);
  EXPECT_EQ(lab.process(child).mm->context_id, 0x10002u);
}

TEST(AsidTest, WhenAllAreUsedUpWhatIsLoadedKeepsItsNumber) {
  MemoryLab lab(LayoutKind::kArm64);
  ASSERT_TRUE(lab.processes->SwitchTo(lab.pid, 1).ok());
  for (int i = 2; i <= 0xffff; ++i) {
    const Pid child = lab.processes->Fork(lab.pid, 0).value();
    ASSERT_TRUE(lab.processes->SwitchTo(child, 0).ok());
    ASSERT_EQ(lab.process(child).mm->context_id, 0x10000u + static_cast<uint64_t>(i));
    ASSERT_EQ(lab.processes->Exit(child, 0), Errno::kOk);
  }
  const Pid child = lab.processes->Fork(lab.pid, 0).value();
  ASSERT_TRUE(lab.processes->SwitchTo(child, 0).ok());
  EXPECT_EQ(lab.process(child).mm->context_id, 0x20002u) << "1 is still in use on the other CPU";
  ASSERT_TRUE(lab.processes->SwitchTo(lab.pid, 1).ok());
  EXPECT_EQ(lab.process(lab.pid).mm->context_id, 0x20001u);
}

TEST(SwitchExplanationTest, SaysWhatIsLoadedAndWhy) {
  for (const LayoutKind layout : {LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64}) {
    MemoryLab lab(layout);
    const bool arm = layout == LayoutKind::kArm64;
    const Pid child = lab.processes->Fork(lab.pid, 0).value();
    const Pid kthread = lab.processes->Create("kworker", 0, true).value();
    const auto explain = [&](Pid pid) {
      Explanation why;
      lab.tracer.Explain(&why);
      EXPECT_TRUE(lab.processes->SwitchTo(pid, 0).ok());
      lab.tracer.Explain(nullptr);
      return why.steps();
    };
    const std::string load = arm ? "TTBR0_EL1 is loaded" : "CR3 is loaded";
    std::vector<ExplanationStep> steps = explain(lab.pid);
    ASSERT_EQ(steps.size(), arm ? 2u : 1u);
    EXPECT_EQ(steps.back().kind, StepKind::kContextSwitch);
    EXPECT_EQ(steps.back().text.substr(0, load.size()), load);
    if (arm) {
      EXPECT_EQ(steps[0].kind, StepKind::kAsidChoice);
      EXPECT_EQ(steps[0].text, "it had no ASID of this generation: it takes the next free number");
    }
    EXPECT_EQ(explain(kthread).back().text.substr(0, 51), "a kernel thread has no address space: it borrows wh");
    EXPECT_EQ(explain(lab.pid).back().text.substr(0, 30), "its tables are loaded already:");
    explain(child);
    steps = explain(lab.pid);
    EXPECT_EQ(steps.back().text.substr(0, load.size()), load);
    if (arm) {
      EXPECT_EQ(steps[0].text, "its ASID is of the present generation: it goes on");
    }
    // A borrowed address space whose process has ended goes when something else is loaded.
    explain(kthread);
    ASSERT_EQ(lab.processes->Exit(lab.pid, 0), Errno::kOk);
    steps = explain(child);
    EXPECT_TRUE(std::any_of(steps.begin(), steps.end(), [](const ExplanationStep& step) {
      return step.text == "nobody borrows the address space of an ended process any more: its top table goes";
    }));
  }
}

}  // namespace
}  // namespace mmlab

// Bounds on the resident pages of a process: real pages that go to a real swap area and come back.

#include "server/process/page_replacement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "server/base/explanation.h"
#include "server/base/random.h"
#include "server/machine/machine.h"
#include "server/process/address_space.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"
#include "tests/unit/process/reference_strings.h"

namespace mmlab {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 8;
constexpr uint32_t kReadWrite = 3;
constexpr uint32_t kPrivateAnonymous = 0x22;

struct Computer {
  const char* name;
  const char* preset;
  LayoutKind layout;
};
constexpr Computer kComputers[] = {
    {"X86", "686-64M", LayoutKind::kX86_32}, {"Pae", "686-pae-1G", LayoutKind::kX86_32Pae}, {"Arm64", "arm64-128M", LayoutKind::kArm64}};

// A booted machine with one process that has kPages pages of anonymous memory.
class Lab {
 public:
  explicit Lab(const Computer& computer, bool swap = true) {
    machine_ = *Machine::Boot(PresetSpec(computer.preset));
    Do(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    Do(op::CreateFile{"/dev/sdb", op::FileSystem::kBlockDevice, kMib, "", false});
    if (swap) Do(op::Swapon{"/dev/sdb", std::nullopt});
    pid_ = Pid(static_cast<int32_t>(Do(op::CreateProcess{"lesson", 1000, false}).value));
    op::Exec exec;
    exec.pid = pid_;
    exec.image = SmallProgram(computer.layout);
    Do(exec);
    start_ = Do(op::Mmap{.pid = pid_, .length = kPages * kPage, .prot = kReadWrite, .flags = kPrivateAnonymous}).value;
  }
  ~Lab() {
    for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  }

  Outcome Do(const Operation& operation, Errno expected = Errno::kOk, Explanation* why = nullptr) {
    Outcome outcome = machine_->Apply(operation, why);
    EXPECT_EQ(outcome.error, expected) << OperationName(operation);
    return outcome;
  }
  uint64_t At(uint64_t page) const { return start_ + page * kPage; }
  op::SetPageReplacement Bound(ReplacementPolicy policy, uint32_t frames, const References& references = {}) const {
    op::SetPageReplacement bound{pid_, policy, frames, start_, kPages * kPage, {}};
    if (policy == ReplacementPolicy::kOptimal) {
      for (const uint64_t page : references) bound.references.push_back(At(page));
    }
    return bound;
  }
  AccessResult Access(AccessKind kind, uint64_t address, uint64_t length, uint64_t value = 0, Explanation* why = nullptr) {
    op::AccessMemory access{.pid = pid_, .access = {}};
    access.access.kind = kind;
    access.access.address = address;
    access.access.length = length;
    access.access.value = value;
    const Outcome outcome = Do(access, Errno::kOk, why);
    EXPECT_FALSE(outcome.signal.has_value());
    return outcome.access.value_or(AccessResult{});
  }
  uint64_t Faults() const { return process().minor_faults + process().major_faults; }
  const Process& process() const { return *machine_->processes().Find(pid_); }
  const PageReplacement& replacement() const { return *process().mm->replacement; }
  Machine& machine() { return *machine_; }
  Pid pid() const { return pid_; }

 private:
  std::unique_ptr<Machine> machine_;
  Pid pid_;
  uint64_t start_ = 0;
};

class TextbookOnMachineTest : public testing::TestWithParam<std::tuple<Computer, TextbookCase>> {};

TEST_P(TextbookOnMachineTest, OrdinaryCountersCountTheFaultsOfTheBook) {
  const auto& [computer, book] = GetParam();
  Lab lab(computer);
  lab.Do(lab.Bound(book.policy, book.frames, *book.references));
  const uint64_t before = lab.Faults();
  for (const uint64_t page : *book.references) lab.Access(AccessKind::kStore, lab.At(page), 1, page);
  EXPECT_EQ(lab.Faults() - before, book.faults);
  EXPECT_EQ(lab.replacement().loads(), book.faults);
  EXPECT_EQ(lab.replacement().evictions(), book.faults - book.frames);
  EXPECT_EQ(lab.machine().processes().Status(lab.process()).vm_swap.raw() > 0, true);
  for (const uint64_t page : *book.references) EXPECT_EQ(lab.Access(AccessKind::kLoad, lab.At(page), 1).value, page);
}

INSTANTIATE_TEST_SUITE_P(All, TextbookOnMachineTest, testing::Combine(testing::ValuesIn(kComputers), testing::ValuesIn(kTextbookCases)),
                         [](const auto& test) { return std::string(std::get<0>(test.param).name) + std::get<1>(test.param).name; });

TEST(PageReplacementOperationTest, RefusesWhatIsNoBound) {
  Lab lab(kComputers[0]);
  op::SetPageReplacement bound = lab.Bound(ReplacementPolicy::kFifo, 1);
  lab.Do(bound, Errno::kEINVAL);
  bound.frames = PageReplacement::kMaxFrames + 1;
  lab.Do(bound, Errno::kEINVAL);
  bound.frames = 3;
  bound.address += 1;
  lab.Do(bound, Errno::kEINVAL);
  bound.address = 0xc0000000;  // The kernel's.
  lab.Do(bound, Errno::kEINVAL);
  bound.address = ~uint64_t{0} & ~(kPage - 1);
  lab.Do(bound, Errno::kEINVAL);
  bound.pid = Pid(4711);
  lab.Do(bound, Errno::kESRCH);
  EXPECT_EQ(lab.process().mm->replacement, nullptr);
}

TEST(PageReplacementOperationTest, WhatIsTooMuchGoesAtOnceAndComesBackWhenTheBoundIsLifted) {
  Lab lab(kComputers[0]);
  for (uint64_t page = 0; page < kPages; ++page) lab.Access(AccessKind::kStore, lab.At(page), 1, page + 1);
  EXPECT_EQ(lab.Do(lab.Bound(ReplacementPolicy::kLru, 3)).value, kPages - 3);
  EXPECT_EQ(lab.replacement().held(), 3u);
  lab.Do(lab.Bound(ReplacementPolicy::kLinux, 0));
  EXPECT_EQ(lab.process().mm->replacement, nullptr);
  for (uint64_t page = 0; page < kPages; ++page) EXPECT_EQ(lab.Access(AccessKind::kLoad, lab.At(page), 1).value, page + 1);
}

TEST(PageReplacementOperationTest, PagesThatWereOnlyReadNeedNoSwap) {
  Lab lab(kComputers[0], /*swap=*/false);
  lab.Do(lab.Bound(ReplacementPolicy::kFifo, 2));
  for (uint64_t page = 0; page < kPages; ++page) EXPECT_EQ(lab.Access(AccessKind::kLoad, lab.At(page), 1).value, 0u);
  EXPECT_EQ(lab.replacement().held(), 2u);
}

TEST(PageReplacementOperationTest, WithoutSwapWrittenPagesStayAndTheProcessGetsMoreFrames) {
  Lab lab(kComputers[0], /*swap=*/false);
  lab.Do(lab.Bound(ReplacementPolicy::kFifo, 2));
  Explanation why;
  for (uint64_t page = 0; page < kPages; ++page) lab.Access(AccessKind::kStore, lab.At(page), 1, page + 1, &why);
  EXPECT_EQ(lab.replacement().held(), kPages);
  EXPECT_EQ(lab.replacement().evictions(), 0u);
  for (uint64_t page = 0; page < kPages; ++page) EXPECT_EQ(lab.Access(AccessKind::kLoad, lab.At(page), 1).value, page + 1);
}

TEST(PageReplacementOperationTest, AnAccessAcrossTwoPagesEndsWithTwoFrames) {
  for (const ReplacementPolicy policy : {ReplacementPolicy::kFifo, ReplacementPolicy::kLru, ReplacementPolicy::kClock}) {
    Lab lab(kComputers[0]);
    lab.Do(lab.Bound(policy, 2));
    for (uint64_t page = 0; page + 1 < kPages; ++page)
      lab.Access(AccessKind::kStore, lab.At(page + 1) - 4, 8, 0x1111111122222222 * (page + 1));
    for (uint64_t page = 0; page + 1 < kPages; ++page) {
      EXPECT_EQ(lab.Access(AccessKind::kLoad, lab.At(page + 1) - 4, 8).value, 0x1111111122222222 * (page + 1));
    }
    EXPECT_LE(lab.replacement().held(), 2u);
  }
}

TEST(PageReplacementOperationTest, SaysWhyAPageMakesRoom) {
  Lab lab(kComputers[2]);
  lab.Do(lab.Bound(ReplacementPolicy::kLru, 2));
  lab.Access(AccessKind::kStore, lab.At(0), 1);
  lab.Access(AccessKind::kStore, lab.At(1), 1);
  lab.Access(AccessKind::kStore, lab.At(0), 1);
  Explanation why;
  lab.Access(AccessKind::kStore, lab.At(2), 1, 0, &why);
  const auto step = std::find_if(why.steps().begin(), why.steps().end(),
                                 [](const ExplanationStep& each) { return each.kind == StepKind::kPageReplacement; });
  ASSERT_NE(step, why.steps().end());
  EXPECT_EQ(step->text, "LRU: the page whose last use is longest ago makes room");
  const auto victim = std::find_if(step->facts.begin(), step->facts.end(), [](const Fact& fact) { return fact.name == "victim"; });
  ASSERT_NE(victim, step->facts.end());
  EXPECT_EQ(static_cast<uint64_t>(victim->number), lab.At(1));
}

TEST(PageReplacementOperationTest, ForkAndExecBeginWithoutABound) {
  Lab lab(kComputers[0]);
  lab.Do(lab.Bound(ReplacementPolicy::kClock, 3));
  for (uint64_t page = 0; page < kPages; ++page) lab.Access(AccessKind::kStore, lab.At(page), 1, page);
  const Pid child(static_cast<int32_t>(lab.Do(op::Fork{lab.pid(), 0}).value));
  EXPECT_EQ(lab.machine().processes().Find(child)->mm->replacement, nullptr);
  // What both have can't be taken from one of them.
  for (uint64_t page = 0; page < kPages; ++page) EXPECT_EQ(lab.Access(AccessKind::kLoad, lab.At(page), 1).value, page);
  lab.Do(op::Munmap{lab.pid(), lab.At(0), kPages * kPage});
}

TEST(PageReplacementOperationTest, EveryByteIsReadBackAndTheBoundHoldsInARandomProgram) {
  for (const ReplacementPolicy policy : {ReplacementPolicy::kFifo, ReplacementPolicy::kLru, ReplacementPolicy::kClock}) {
    Lab lab(kComputers[2]);
    Random random(7);
    std::vector<uint8_t> shadow(kPages * kPage);
    lab.Do(lab.Bound(policy, 3));
    for (int i = 0; i < 2000; ++i) {
      const uint64_t offset = random.Below(kPages * kPage);
      const auto value = static_cast<uint8_t>(random.Below(256));
      switch (random.Below(4)) {
        case 0:
          shadow[offset] = value;
          lab.Access(AccessKind::kStore, lab.At(0) + offset, 1, value);
          break;
        case 1:
          if (random.Below(20) == 0) {
            const uint64_t page = offset / kPage;
            lab.Do(op::Madvise{lab.pid(), lab.At(page), kPage, 4});  // MADV_DONTNEED
            std::fill_n(shadow.begin() + static_cast<int64_t>(page * kPage), kPage, uint8_t{0});
          }
          break;
        default:
          ASSERT_EQ(lab.Access(AccessKind::kLoad, lab.At(0) + offset, 1).value, shadow[offset]);
      }
      ASSERT_LE(lab.replacement().held(), 3u);
      if (i % 100 == 0) {
        ASSERT_EQ(lab.machine().CheckInvariants(), std::vector<std::string>{});
      }
    }
  }
}

}  // namespace
}  // namespace mmlab

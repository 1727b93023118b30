#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/base/explanation.h"
#include "server/machine/kernel_log.h"
#include "server/machine/machine.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr uint64_t kMiB = 1 << 20;

// What is needed of an executable: one page of text.
ElfImage Program() {
  ElfImage image;
  image.path = "/program";
  image.entry = 0x8048000;
  ProgramHeader text;
  text.type = ProgramHeader::Type::kLoad;
  text.vaddr = 0x8048000;
  text.filesz = 4096;
  text.memsz = 4096;
  text.align = 4096;
  text.flags = 5;
  image.program_headers = {text};
  return image;
}

class OomTest : public testing::Test {
 protected:
  void SetUp() override {
    MachineSpec spec;
    spec.layout = LayoutKind::kX86_32;
    spec.firmware_ranges = {{{PhysAddr(0), PhysAddr(0x9fc00)}, FirmwareRange::Type::kRam},
                            {{PhysAddr(kMiB), PhysAddr(64 * kMiB)}, FirmwareRange::Type::kRam}};
    spec.reserved_ranges = {{{PhysAddr(0), PhysAddr(kMiB)}, "low memory", false},
                            {{PhysAddr(16 * kMiB), PhysAddr(32 * kMiB)}, "kernel", false}};
    auto machine = Machine::Boot(spec);
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    Start("init", 0, 0);
  }

  Pid Start(const std::string& comm, int64_t oom_score_adj, uint64_t bytes) {
    const Outcome created = machine_->Apply(op::CreateProcess{comm, 0, false});
    const Pid pid(static_cast<int32_t>(created.value));
    op::CreateFile file;
    file.path = "/" + comm;  // What a program is called names the task.
    file.size = 4096;
    machine_->Apply(file);
    op::Exec exec;
    exec.pid = pid;
    exec.image = Program();
    exec.image.path = file.path;
    EXPECT_EQ(machine_->Apply(exec).error, Errno::kOk);
    EXPECT_EQ(machine_->Apply(op::WriteOomScoreAdj{pid, oom_score_adj}).error, Errno::kOk);
    if (bytes > 0) {
      EXPECT_FALSE(Fill(pid, bytes).signal.has_value());
    }
    return pid;
  }

  Outcome Fill(Pid pid, uint64_t bytes, Explanation* why = nullptr) {
    const Outcome mapped = machine_->Apply(op::Mmap{pid, 0, bytes, 3, 0x22, -1, 0});
    EXPECT_EQ(mapped.error, Errno::kOk);
    op::AccessMemory touch;
    touch.pid = pid;
    touch.access.kind = AccessKind::kTouchWrite;
    touch.access.address = mapped.value;
    touch.access.length = bytes;
    return machine_->Apply(touch, why);
  }

  bool Lives(Pid pid) const { return machine_->processes().Find(pid) != nullptr; }

  std::unique_ptr<Machine> machine_;
};

TEST_F(OomTest, TheHighestScoreIsKilledAndItsMemoryServesWhoAsked) {
  const Pid large = Start("large", -500, 12 * kMiB);
  const Pid eager = Start("eager", 500, 6 * kMiB);
  const Pid immune = Start("immune", -1000, 4 * kMiB);
  const Pid hog = Start("hog", 0, 0);
  Explanation why;
  const Outcome outcome = Fill(hog, 24 * kMiB, &why);
  EXPECT_EQ(outcome.error, Errno::kOk);
  EXPECT_FALSE(outcome.signal.has_value());
  EXPECT_FALSE(Lives(eager));
  EXPECT_TRUE(Lives(large) && Lives(immune) && Lives(hog));
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
  const std::string log = machine_->kernel_log().RawText();
  EXPECT_THAT(log, HasSubstr("hog invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0"));
  EXPECT_THAT(log, HasSubstr("global_oom,task_memcg=/,task=eager,pid=3,uid=0\n"));
  EXPECT_THAT(log, HasSubstr("<3>[    0.000000] Out of memory: Killed process 3 (eager) total-vm:"));
  // Init is nobody's victim and not in the table.
  EXPECT_THAT(log, Not(HasSubstr(" init\n")));
}

TEST_F(OomTest, WhoAsksCanBeTheVictim) {
  const Pid hog = Start("hog", 0, 0);
  const Pid small = Start("small", 0, 2 * kMiB);
  const Outcome outcome = Fill(hog, 46 * kMiB);
  ASSERT_TRUE(outcome.signal.has_value());
  EXPECT_EQ(outcome.signal->number, SignalNumber::kSigKill);
  EXPECT_FALSE(Lives(hog));
  EXPECT_TRUE(Lives(small));
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_F(OomTest, TheAllocatingTaskIsKilledWhenThatIsAskedFor) {
  const Pid large = Start("large", 500, 20 * kMiB);
  const Pid small = Start("small", 0, 0);
  ASSERT_EQ(machine_->Apply(op::WriteSysctl{"vm.oom_kill_allocating_task", "1"}).error, Errno::kOk);
  EXPECT_TRUE(Fill(small, 40 * kMiB).signal.has_value());
  EXPECT_TRUE(Lives(large));
  EXPECT_THAT(machine_->kernel_log().Text(), HasSubstr("Out of memory (oom_kill_allocating_task): Killed process"));
}

TEST_F(OomTest, AfterAPanicNothingRuns) {
  const Pid hog = Start("hog", 0, 0);
  ASSERT_EQ(machine_->Apply(op::WriteSysctl{"vm.panic_on_oom", "1"}).error, Errno::kOk);
  Fill(hog, 46 * kMiB);
  EXPECT_THAT(machine_->kernel_log().Text(), HasSubstr("Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled"));
  EXPECT_THAT(machine_->Apply(op::AdvanceTime{1}).unimplemented, HasSubstr("panicked"));
}

TEST_F(OomTest, TheAdjustmentHasItsRange) {
  const Pid pid = Start("one", 1000, 0);
  EXPECT_EQ(machine_->Apply(op::WriteOomScoreAdj{pid, 1001}).error, Errno::kEINVAL);
  EXPECT_EQ(machine_->Apply(op::WriteOomScoreAdj{pid, -1001}).error, Errno::kEINVAL);
  EXPECT_EQ(machine_->Apply(op::WriteOomScoreAdj{Pid(99), 0}).error, Errno::kESRCH);
}

}  // namespace
}  // namespace mmlab

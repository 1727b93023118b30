#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "server/base/explanation.h"
#include "server/machine/kernel_log.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
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

TEST_F(OomTest, TheReportHasTheKernelsLinesOfSwap) {
  op::CreateFile device;
  device.path = "/dev/vdb";
  device.file_system = op::FileSystem::kBlockDevice;
  device.size = 4 * kMiB;
  machine_->Apply(device);
  ASSERT_EQ(machine_->Apply(op::Swapon{"/dev/vdb", 7}).error, Errno::kOk);
  Fill(Start("hog", 0, 0), 50 * kMiB);
  const std::string log = machine_->kernel_log().RawText();
  EXPECT_THAT(log, HasSubstr("<6>[    0.000000] Adding 4092k swap on /dev/vdb.  Priority:7 extents:1 across:4092k FS\n"));
  EXPECT_THAT(log, HasSubstr(" pages in swap cache\n<4>[    0.000000] Free swap  = 0kB\n<4>[    0.000000] Total swap = 4092kB\n"));
}

TEST_F(OomTest, ReportsAreLimited) {
  const Pid parent = Start("parent", -1000, 0);
  for (int i = 0; i < 14; ++i) Fill(Start("hog", 0, 0), 46 * kMiB);
  const auto reports = [&] {
    const std::string log = machine_->kernel_log().Text();
    int count = 0;
    for (size_t at = log.find("invoked oom-killer"); at != std::string::npos; at = log.find("invoked oom-killer", at + 1)) ++count;
    return count;
  };
  EXPECT_EQ(reports(), 10);
  machine_->Apply(op::AdvanceTime{5'000'000'001});
  Fill(Start("hog", 0, 0), 46 * kMiB);
  EXPECT_EQ(reports(), 11);
  EXPECT_THAT(machine_->kernel_log().RawText(), HasSubstr("<4>[    5.000000] oom_kill_process: 4 callbacks suppressed\n"));
  EXPECT_TRUE(Lives(parent));
}

TEST_F(OomTest, TheChoiceIsExplainedHoweverLateItComes) {
  Start("other", 0, 8 * kMiB);
  Explanation why;
  Fill(Start("hog", 0, 0), 46 * kMiB, &why);
  ASSERT_GT(why.steps_left_out(), 1000u);
  const auto scores =
      std::count_if(why.steps().begin(), why.steps().end(), [](const ExplanationStep& step) { return step.kind == StepKind::kOomScore; });
  EXPECT_EQ(scores, 2);
}

TEST_F(OomTest, AFailedAllocationIsReportedOnceInTenSeconds) {
  const auto take = [&] { return machine_->Apply(op::AllocPages{.gfp = op::GfpClass::kAtomic, .order = 10}).error; };
  while (take() == Errno::kOk) {
  }
  EXPECT_EQ(take(), Errno::kENOMEM);
  const std::string log = machine_->kernel_log().RawText();
  const std::string line =
      "<4>[    0.000000] swapper/0: page allocation failure: order:10, mode:0xa20(GFP_ATOMIC), nodemask=(null),cpuset=/,mems_allowed=0\n";
  EXPECT_THAT(log, HasSubstr(line));
  EXPECT_EQ(log.find(line), log.rfind(line));
  EXPECT_THAT(log, HasSubstr("Mem-Info:\n"));
}

TEST_F(OomTest, DropCachesIsLoggedUnlessToldNotTo) {
  for (const char* value : {"1", "4", "2"}) ASSERT_EQ(machine_->Apply(op::WriteSysctl{"vm.drop_caches", value}).error, Errno::kOk);
  const std::string log = machine_->kernel_log().RawText();
  EXPECT_THAT(log, HasSubstr("<6>[    0.000000] swapper/0 (0): drop_caches: 1\n<6>[    0.000000] swapper/0 (0): drop_caches: 4\n"));
  EXPECT_THAT(log, Not(HasSubstr("drop_caches: 2")));
}

// vm.overcommit_memory = 2 goes by the shared part of a counter that CPUs fold in batches of 0.4 % of RAM.
TEST_F(OomTest, TheCommitLimitHoldsToWithinABatch) {
  const Pid pid = Start("one", 0, 0);
  ASSERT_EQ(machine_->Apply(op::WriteSysctl{"vm.user_reserve_kbytes", "0"}).error, Errno::kOk);
  ASSERT_EQ(machine_->Apply(op::WriteSysctl{"vm.overcommit_memory", "2"}).error, Errno::kOk);
  const auto committed = [&] { return machine_->processes().committed().raw(); };
  const uint64_t limit = machine_->processes().commit_limit().raw();
  const uint64_t batch = std::max<uint64_t>(32, machine_->memory().managed_pages().raw() / 256);
  const auto map = [&](uint64_t pages) { return machine_->Apply(op::Mmap{pid, 0, pages * 4096, 3, 0x22, -1, 0}).error; };
  const uint64_t first = limit - committed() - batch / 2;  // More than a batch: known at once.
  ASSERT_EQ(map(first), Errno::kOk);
  uint64_t beyond = 0;
  while (map(1) == Errno::kOk) ++beyond;
  EXPECT_EQ(beyond, batch - 1);  // Less than a batch is not known yet, though it leaves the limit behind.
  EXPECT_GT(committed(), limit);
  EXPECT_THAT(machine_->kernel_log().RawText(),
              HasSubstr("<4>[    0.000000] __vm_enough_memory: pid: 2, comm: one, no enough memory for the allocation\n"));
}

TEST_F(OomTest, TheAdjustmentHasItsRange) {
  const Pid pid = Start("one", 1000, 0);
  EXPECT_EQ(machine_->Apply(op::WriteOomScoreAdj{pid, 1001}).error, Errno::kEINVAL);
  EXPECT_EQ(machine_->Apply(op::WriteOomScoreAdj{pid, -1001}).error, Errno::kEINVAL);
  EXPECT_EQ(machine_->Apply(op::WriteOomScoreAdj{Pid(99), 0}).error, Errno::kESRCH);
}

}  // namespace
}  // namespace mmlab

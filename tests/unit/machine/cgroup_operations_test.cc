#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "server/base/explanation.h"
#include "server/cgroup/cgroups.h"
#include "server/machine/kernel_log.h"
#include "server/machine/machine.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr uint64_t kMib = uint64_t{1} << 20;

// A booted machine whose processes can be put into cgroups.
class CgroupOperationsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto booted = Machine::Boot(PresetSpec("686-64M"));
    ASSERT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    Start("init", "");
    Write("", "cgroup.subtree_control", "+memory");
  }

  Pid Start(const std::string& comm, const std::string& cgroup) {
    const Pid pid(static_cast<int32_t>(machine_->Apply(op::CreateProcess{comm, 0, false}).value));
    // What a program is called names the task.
    const std::string path = "/bin/" + comm;
    machine_->Apply(
        op::CreateFile{.path = path, .file_system = op::FileSystem::kExt4, .size = 0x12000, .content = "program", .resident = true});
    op::Exec exec;
    exec.pid = pid;
    exec.image = SmallProgram(machine_->layout().kind);
    exec.image.path = path;
    EXPECT_EQ(machine_->Apply(exec).error, Errno::kOk);
    if (!cgroup.empty()) Write(cgroup, "cgroup.procs", std::to_string(pid.raw()));
    return pid;
  }
  void Make(const std::string& cgroup) { EXPECT_EQ(machine_->Apply(op::CreateCgroup{cgroup}).error, Errno::kOk) << cgroup; }
  void Write(const std::string& cgroup, const std::string& file, const std::string& value, Errno error = Errno::kOk) {
    EXPECT_EQ(machine_->Apply(op::WriteCgroupFile{cgroup, file, value}).error, error) << cgroup << "/" << file << " = " << value;
  }
  Outcome Fill(Pid pid, uint64_t bytes, Explanation* why = nullptr) {
    const Outcome mapped = machine_->Apply(op::Mmap{.pid = pid, .length = bytes, .prot = 3, .flags = 0x22});
    EXPECT_EQ(mapped.error, Errno::kOk);
    op::AccessMemory touch{.pid = pid, .access = {}};
    touch.access.kind = AccessKind::kTouchWrite;
    touch.access.address = mapped.value;
    touch.access.length = bytes;
    return machine_->Apply(touch, why);
  }
  std::string Read(const std::string& cgroup, const std::string& file) const {
    const std::optional<uint32_t> id = machine_->cgroups().Find(cgroup);
    return id ? machine_->cgroups().Read(*id, file).value_or("none") : "no cgroup";
  }
  int64_t Number(const std::string& cgroup, const std::string& line) const {
    const std::string text = "\n" + Read(cgroup, "memory.stat");
    const size_t at = text.find("\n" + line + " ");
    return at == std::string::npos ? -1 : std::stoll(text.substr(at + line.size() + 2));
  }
  bool Lives(Pid pid) const { return machine_->processes().Find(pid) != nullptr; }
  void ExpectSound() const { EXPECT_THAT(machine_->CheckInvariants(), IsEmpty()); }

  std::unique_ptr<Machine> machine_;
};

TEST_F(CgroupOperationsTest, HugePagesAreChargedWholeOrNotMade) {
  ASSERT_EQ(machine_->Apply(op::WriteSysfs{"/sys/kernel/mm/transparent_hugepage/enabled", "always"}).error, Errno::kOk);
  ASSERT_EQ(machine_->Apply(op::WriteSysfs{"/sys/kernel/mm/transparent_hugepage/defrag", "always"}).error, Errno::kOk);
  Make("a");
  const Pid pid = Start("worker", "a");
  EXPECT_FALSE(Fill(pid, 12 * kMib).signal.has_value());
  const int64_t huge = Number("a", "anon_thp");
  EXPECT_GE(huge, 4 * static_cast<int64_t>(kMib));
  EXPECT_EQ(Number("a", "anon"), 12 * static_cast<int64_t>(kMib));
  EXPECT_EQ(Number("a", "thp_fault_alloc"), huge / (4 * static_cast<int64_t>(kMib)));
  EXPECT_EQ(machine_->vm_stat().Get(VmEvent::kThpFaultFallbackCharge), 0u);
  ExpectSound();
  // What the limit does not allow as a whole comes in small pages.
  Make("b");
  Write("b", "memory.max", std::to_string(3 * kMib));
  const Pid other = Start("other", "b");
  EXPECT_FALSE(Fill(other, 2 * kMib).signal.has_value());
  const Outcome mapped = machine_->Apply(op::Mmap{.pid = other, .length = 12 * kMib, .prot = 3, .flags = 0x22});
  op::AccessMemory touch{.pid = other, .access = {}};
  touch.access.kind = AccessKind::kTouchWrite;
  touch.access.address = (mapped.value + 4 * kMib) & ~(4 * kMib - 1);
  touch.access.length = 4096;
  machine_->Apply(touch);
  EXPECT_GT(machine_->vm_stat().Get(VmEvent::kThpFaultFallbackCharge), 0u);
  EXPECT_EQ(Number("b", "anon_thp"), 0);
  ExpectSound();
  machine_->Apply(op::Exit{pid, 0});
  EXPECT_EQ(Number("a", "anon_thp"), 0);
  EXPECT_EQ(Number("a", "anon"), 0);
  ExpectSound();
}

// As recorded: the dentry of the shared memory and 13 of the 17 nodes of its page cache; the CPU tells of the others when it is a page.
TEST_F(CgroupOperationsTest, ObjectsOfTheKernelAreChargedByteByByte) {
  Make("a");
  const Pid pid = Start("worker", "a");
  op::AccessMemory touch{.pid = pid, .access = {}};
  touch.access.kind = AccessKind::kTouchWrite;
  touch.access.length = 4 * kMib;
  touch.access.address = machine_->Apply(op::Mmap{.pid = pid, .length = 4 * kMib, .prot = 3, .flags = 0x21}).value;
  machine_->Apply(touch);
  EXPECT_EQ(Number("a", "slab_reclaimable"), 132 + 13 * 308);
  EXPECT_EQ(Number("a", "slab"), Number("a", "slab_reclaimable") + Number("a", "slab_unreclaimable"));
  EXPECT_EQ(Number("a", "kernel") - Number("a", "pagetables"), 2 * 4096);
  ExpectSound();
  machine_->Apply(op::Exit{pid, 0});
  EXPECT_EQ(Number("a", "slab"), 0);
  ExpectSound();
}

TEST_F(CgroupOperationsTest, WhatTheKernelNeedsGoesToTheOneAboveWhenACgroupIsRemoved) {
  for (const char* preset : {"686-64M", "arm64-128M"}) {
    SCOPED_TRACE(preset);
    auto booted = Machine::Boot(PresetSpec(preset));
    ASSERT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    Write("", "cgroup.subtree_control", "+memory");
    Make("p");
    Write("p", "cgroup.subtree_control", "+memory");
    Make("p/c");
    const Pid pid(static_cast<int32_t>(machine_->Apply(op::CreateProcess{"worker", 0, false}).value));
    Write("p/c", "cgroup.procs", std::to_string(pid.raw()));
    std::vector<Pid> children;
    for (int i = 0; i < 5; ++i) children.emplace_back(static_cast<int32_t>(machine_->Apply(op::Fork{pid, 0}).value));
    const bool arm = machine_->layout().kind == LayoutKind::kArm64;
    EXPECT_EQ(Number("p/c", "kernel_stack"), 5 * (arm ? 16384 : 8192));
    EXPECT_GT(Number("p/c", "slab_unreclaimable"), 5 * (arm ? 4160 + 2112 + 1152 : 2944 + 1344 + 768));
    EXPECT_EQ(Number("p/c", "kernel"), Number("p", "kernel"));
    ExpectSound();
    const int64_t kernel = Number("p", "kernel");
    for (const Pid child : children) Write("", "cgroup.procs", std::to_string(child.raw()));
    Write("", "cgroup.procs", std::to_string(pid.raw()));
    EXPECT_EQ(machine_->Apply(op::RemoveCgroup{"p/c"}).error, Errno::kOk);
    EXPECT_EQ(Number("p", "kernel"), kernel);
    EXPECT_THAT(Read("p", "cgroup.stat"), HasSubstr("nr_dying_descendants 0\n"));
    ExpectSound();
    for (const Pid child : children) machine_->Apply(op::Exit{child, 0});
    EXPECT_EQ(Number("p", "kernel_stack"), 0);
    EXPECT_LE(Number("p", "kernel"), 4096);  // Of what was charged in advance.
    ExpectSound();
    EXPECT_EQ(machine_->Apply(op::RemoveCgroup{"p"}).error, Errno::kOk);
    ExpectSound();
  }
}

TEST_F(CgroupOperationsTest, OnlyKernelsWithNodesCountByNode) {
  Make("a");
  EXPECT_EQ(Read("a", "memory.numa_stat"), "none");
  EXPECT_EQ(Read("a", "memory.zswap.current"), "0\n");
  EXPECT_EQ(Read("a", "memory.zswap.max"), "max\n");
  Write("a", "memory.zswap.max", "8K");
  EXPECT_EQ(Read("a", "memory.zswap.max"), "8192\n");
  auto booted = Machine::Boot(PresetSpec("arm64-128M"));
  ASSERT_TRUE(booted.ok()) << booted.status();
  machine_ = std::move(booted).value();
  Write("", "cgroup.subtree_control", "+memory");
  Make("a");
  const Pid pid = Start("worker", "a");
  EXPECT_FALSE(Fill(pid, kMib).signal.has_value());
  EXPECT_THAT(Read("a", "memory.numa_stat"), HasSubstr("anon N0=1048576\nfile N0=0\nkernel_stack N0=0\npagetables N0="));
  EXPECT_THAT(Read("a", "memory.numa_stat"), HasSubstr("\nworkingset_nodereclaim N0=0\n"));
}

TEST_F(CgroupOperationsTest, WhoTouchesFirstIsCharged) {
  Make("a");
  const Pid pid = Start("worker", "a");
  EXPECT_EQ(Read("a", "memory.current"), "0\n");
  EXPECT_FALSE(Fill(pid, 4 * kMib).signal.has_value());
  EXPECT_EQ(Number("a", "anon"), 4 * static_cast<int64_t>(kMib));
  // Two tables of 4 MiB each, or one where the mapping is aligned; pages wait in a batch of 15 for the LRU lists.
  EXPECT_GE(Number("a", "pagetables"), 4096);
  EXPECT_EQ(Number("a", "kernel"), Number("a", "pagetables") + 4096);  // A VMA and an anon_vma take part of a page.
  EXPECT_LE(Number("a", "inactive_anon"), 4 * static_cast<int64_t>(kMib));
  EXPECT_GE(Number("a", "pgfault"), 1024);
  ExpectSound();
  // Moved away, its pages stay; gone, they do not.
  Make("b");
  Write("b", "cgroup.procs", std::to_string(pid.raw()));
  EXPECT_EQ(Number("a", "anon"), 4 * static_cast<int64_t>(kMib));
  EXPECT_EQ(machine_->Apply(op::RemoveCgroup{"b"}).error, Errno::kEBUSY);
  ExpectSound();
  EXPECT_EQ(machine_->Apply(op::Exit{pid, 0}).error, Errno::kOk);
  EXPECT_EQ(Number("a", "anon"), 0);
  EXPECT_EQ(machine_->Apply(op::RemoveCgroup{"b"}).error, Errno::kOk);
  ExpectSound();
}

TEST_F(CgroupOperationsTest, AForkStaysInTheCgroupOfItsParent) {
  Make("a");
  const Pid parent = Start("parent", "a");
  const Pid child(static_cast<int32_t>(machine_->Apply(op::Fork{parent, 0}).value));
  EXPECT_FALSE(Fill(child, kMib).signal.has_value());
  EXPECT_GE(Number("a", "anon"), static_cast<int64_t>(kMib));
  ExpectSound();
}

TEST_F(CgroupOperationsTest, TheLimitKillsWithinTheCgroup) {
  Make("a");
  Write("a", "memory.max", "8M");
  const Pid outside = Start("outside", "");
  EXPECT_FALSE(Fill(outside, 12 * kMib).signal.has_value());
  const Pid small = Start("small", "a");
  EXPECT_FALSE(Fill(small, kMib).signal.has_value());
  const Pid big = Start("big", "a");
  EXPECT_FALSE(Fill(big, 6 * kMib + 900 * 1024).signal.has_value());
  Explanation why;
  const Outcome outcome = Fill(big, 4 * kMib, &why);
  ASSERT_TRUE(outcome.signal.has_value());
  EXPECT_EQ(outcome.signal->number, SignalNumber::kSigKill);
  EXPECT_TRUE(Lives(outside) && Lives(small));
  EXPECT_FALSE(Lives(big));
  EXPECT_EQ(Read("a", "memory.events"), "low 0\nhigh 0\nmax 35\noom 1\noom_kill 1\noom_group_kill 0\n");
  EXPECT_EQ(Read("a", "memory.peak"), "8388608\n");
  const std::string log = machine_->kernel_log().RawText();
  EXPECT_THAT(log, HasSubstr("big invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"));
  EXPECT_THAT(log, HasSubstr("memory: usage 8192kB, limit 8192kB, failcnt 19"));
  EXPECT_THAT(log, HasSubstr("swap: usage 0kB, limit 8589934588kB, failcnt 0"));
  EXPECT_THAT(log, HasSubstr("Memory cgroup stats for /a:"));
  EXPECT_THAT(
      log, HasSubstr("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,task=big"));
  EXPECT_THAT(log, HasSubstr("Memory cgroup out of memory: Killed process"));
  EXPECT_THAT(log, Not(HasSubstr(" outside\n")));
  EXPECT_THAT(ExplanationText(why), HasSubstr("cgroup_charge"));
  ExpectSound();
}

TEST_F(CgroupOperationsTest, TheWholeGroupGoesWhereThatIsAskedFor) {
  Make("a");
  Write("a", "memory.max", "8M");
  Write("a", "memory.oom.group", "1");
  const Pid small = Start("small", "a");
  const Pid big = Start("big", "a");
  EXPECT_TRUE(Fill(big, 32 * kMib).signal.has_value());
  EXPECT_FALSE(Lives(small) || Lives(big));
  // The victim is counted again with its group.
  EXPECT_THAT(Read("a", "memory.events"), HasSubstr("oom 1\noom_kill 3\noom_group_kill 1\n"));
  EXPECT_THAT(machine_->kernel_log().Text(), HasSubstr("Tasks in /a are going to be killed due to memory.oom.group set"));
  EXPECT_EQ(machine_->Apply(op::RemoveCgroup{"a"}).error, Errno::kOk);
  ExpectSound();
}

TEST_F(CgroupOperationsTest, PagesOfFilesGoBeforeAnybodyIsKilled) {
  Make("a");
  Write("a", "memory.max", "4M");
  op::CreateFile file{.path = "/data", .file_system = op::FileSystem::kExt4, .size = 16 * kMib, .content = "x", .resident = false};
  ASSERT_EQ(machine_->Apply(file).error, Errno::kOk);
  const Pid reader = Start("reader", "a");
  const Outcome fd = machine_->Apply(op::Open{.pid = reader, .path = "/data", .flags = 0});
  const Outcome buffer = machine_->Apply(op::Mmap{.pid = reader, .length = 65536, .prot = 3, .flags = 0x22});
  for (uint64_t offset = 0; offset < 16 * kMib; offset += 65536) {
    ASSERT_EQ(machine_->Apply(op::Pread{reader, static_cast<int32_t>(fd.value), buffer.value, 65536, offset}).value, 65536u);
  }
  EXPECT_TRUE(Lives(reader));
  EXPECT_GT(Number("a", "file"), 2 * static_cast<int64_t>(kMib));
  EXPECT_GT(Number("a", "pgsteal_direct"), 2000);
  EXPECT_THAT(Read("a", "memory.events"), HasSubstr("oom 0\n"));
  // What the limit took counts for the cgroup alone.
  EXPECT_EQ(machine_->vm_stat().Get(VmEvent::kPgstealDirect), 0u);
  EXPECT_THAT(Read("a", "memory.pressure"), Not(HasSubstr("total=0\n")));
  EXPECT_EQ(Read("", "memory.pressure"), Read("a", "memory.pressure"));
  ExpectSound();
}

TEST_F(CgroupOperationsTest, ProtectedPagesStay) {
  Make("p");
  Write("p", "cgroup.subtree_control", "+memory");
  Make("p/kept");
  Make("p/taken");
  op::CreateFile file{.path = "/kept", .file_system = op::FileSystem::kExt4, .size = 4 * kMib, .content = "x", .resident = false};
  ASSERT_EQ(machine_->Apply(file).error, Errno::kOk);
  file.path = "/taken";
  ASSERT_EQ(machine_->Apply(file).error, Errno::kOk);
  for (const char* name : {"kept", "taken"}) {
    const Pid pid = Start(name, std::string("p/") + name);
    const Outcome fd = machine_->Apply(op::Open{.pid = pid, .path = std::string("/") + name, .flags = 0});
    const Outcome buffer = machine_->Apply(op::Mmap{.pid = pid, .length = 65536, .prot = 3, .flags = 0x22});
    for (uint64_t offset = 0; offset < 4 * kMib; offset += 65536) {
      ASSERT_EQ(machine_->Apply(op::Pread{pid, static_cast<int32_t>(fd.value), buffer.value, 65536, offset}).value, 65536u);
    }
  }
  const int64_t kept = Number("p/kept", "file");
  Write("p/kept", "memory.low", "max");
  Explanation why;
  EXPECT_EQ(machine_->Apply(op::WriteCgroupFile{"p", "memory.max", "6M"}, &why).error, Errno::kOk);
  EXPECT_EQ(Number("p/kept", "file"), kept);
  EXPECT_LT(Number("p/taken", "file"), 3 * static_cast<int64_t>(kMib));
  EXPECT_THAT(ExplanationText(why), HasSubstr("cgroup_protected"));
  EXPECT_THAT(Read("p/kept", "memory.events"), HasSubstr("low 0\n"));
  // When nothing else is left, the protection does not help.
  Write("p", "memory.max", "1M");
  EXPECT_LT(Number("p/kept", "file"), kept);
  EXPECT_THAT(Read("p/kept", "memory.events"), Not(HasSubstr("low 0\n")));
  ExpectSound();
}

TEST_F(CgroupOperationsTest, WhatARemovedCgroupLeftBehindCanBeReclaimed) {
  Make("p");
  Write("p", "cgroup.subtree_control", "+memory");
  Make("p/gone");
  op::CreateFile file{.path = "/data", .file_system = op::FileSystem::kExt4, .size = kMib, .content = "x", .resident = false};
  ASSERT_EQ(machine_->Apply(file).error, Errno::kOk);
  const Pid reader = Start("reader", "p/gone");
  const Outcome fd = machine_->Apply(op::Open{.pid = reader, .path = "/data", .flags = 0});
  const Outcome buffer = machine_->Apply(op::Mmap{.pid = reader, .length = 65536, .prot = 3, .flags = 0x22});
  for (uint64_t offset = 0; offset < kMib; offset += 65536) {
    ASSERT_EQ(machine_->Apply(op::Pread{reader, static_cast<int32_t>(fd.value), buffer.value, 65536, offset}).value, 65536u);
  }
  EXPECT_EQ(machine_->Apply(op::Exit{reader, 0}).error, Errno::kOk);
  EXPECT_EQ(machine_->Apply(op::RemoveCgroup{"p/gone"}).error, Errno::kOk);
  EXPECT_EQ(Number("p", "file"), static_cast<int64_t>(kMib));
  EXPECT_THAT(Read("p", "cgroup.stat"), HasSubstr("nr_dying_descendants 1\n"));
  ExpectSound();
  Write("p", "memory.reclaim", "8M", Errno::kEAGAIN);
  EXPECT_EQ(Number("p", "file"), 0);
  EXPECT_THAT(Read("p", "cgroup.stat"), HasSubstr("nr_dying_descendants 0\n"));
  ExpectSound();
}

TEST_F(CgroupOperationsTest, TimeOfTasksThatCpusWereSwitchedTo) {
  const Pid pid = Start("busy", "");
  EXPECT_EQ(machine_->Apply(op::SwitchTo{pid, 0}).error, Errno::kOk);
  machine_->Apply(op::AdvanceTime{60'000'000'000});
  const Processes& processes = machine_->processes();
  EXPECT_EQ(processes.Find(pid)->run_nanoseconds, 60'000'000'000);
  EXPECT_EQ(processes.cpu_time(0).user_nanoseconds, 60'000'000'000);
  EXPECT_EQ(processes.running(), 1);
  EXPECT_EQ(processes.switches(), 1u);
  // A minute at full load: 1 - 1/e of it in the first average.
  EXPECT_NEAR(static_cast<double>(processes.load_averages()[0]) / 2048, 0.60, 0.05);
  EXPECT_EQ(machine_->Apply(op::Exit{pid, 0}).error, Errno::kOk);
  EXPECT_EQ(processes.running(), 0);
}

}  // namespace
}  // namespace mmlab

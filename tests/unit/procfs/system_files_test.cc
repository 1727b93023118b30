// The machine's time and tasks, pressure and cgroups, as /proc and /sys/fs/cgroup show them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "server/machine/machine.h"
#include "server/procfs/procfs.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr int64_t kSecond = 1'000'000'000;

class SystemFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    MachineSpec spec = PresetSpec("686-1G");
    spec.cpus = 2;
    spec.boot_time_seconds = 1795312792;
    auto booted = Machine::Boot(spec);
    ASSERT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    pid_ = Pid(static_cast<int32_t>(machine_->Apply(op::CreateProcess{"worker", 0, true}).value));
  }
  std::string Read(const std::string& path) const {
    const absl::StatusOr<std::string> text = ReadProcFile(*machine_, path);
    return text.ok() ? *text : std::string(text.status().message());
  }
  void Write(const std::string& cgroup, const std::string& file, const std::string& value) {
    EXPECT_EQ(machine_->Apply(op::WriteCgroupFile{cgroup, file, value}).error, Errno::kOk);
  }

  std::unique_ptr<Machine> machine_;
  Pid pid_;
};

TEST_F(SystemFilesTest, AnIdleMachine) {
  machine_->Apply(op::AdvanceTime{90 * kSecond + 250'000'000});
  EXPECT_EQ(Read("stat"),
            "cpu  0 0 0 18050 0 0 0 0 0 0\n"
            "cpu0 0 0 0 9025 0 0 0 0 0 0\n"
            "cpu1 0 0 0 9025 0 0 0 0 0 0\n"
            "ctxt 0\n"
            "btime 1795312792\n"
            "processes 1\n"
            "procs_running 0\n"
            "procs_blocked 0\n");
  EXPECT_EQ(Read("uptime"), "90.25 180.50\n");
  EXPECT_EQ(Read("loadavg"), "0.00 0.00 0.00 0/1 1\n");
  for (const char* resource : {"pressure/cpu", "pressure/io", "pressure/memory"}) {
    EXPECT_EQ(Read(resource), "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
  }
  EXPECT_THAT(Read("filesystems"), StartsWith("nodev\tsysfs\nnodev\ttmpfs\n"));
}

TEST_F(SystemFilesTest, ABusyOne) {
  const Pid user(static_cast<int32_t>(machine_->Apply(op::CreateProcess{"user", 1000, false}).value));
  op::CreateFile program{.path = "/program", .file_system = op::FileSystem::kExt4, .size = 4096, .content = "", .resident = true};
  ASSERT_EQ(machine_->Apply(program).error, Errno::kOk);
  op::Exec exec;
  exec.pid = user;
  exec.image.path = "/program";
  exec.image.entry = 0x8048000;
  exec.image.program_headers = {{ProgramHeader::Type::kLoad, 0, 0x8048000, 4096, 4096, 5, 4096}};
  ASSERT_EQ(machine_->Apply(exec).error, Errno::kOk);
  machine_->Apply(op::AdvanceTime{kSecond});
  ASSERT_EQ(machine_->Apply(op::SwitchTo{user, 1}).error, Errno::kOk);
  machine_->Apply(op::AdvanceTime{2 * kSecond});
  ASSERT_EQ(machine_->Apply(op::SwitchTo{pid_, 1}).error, Errno::kOk);
  machine_->Apply(op::AdvanceTime{kSecond});
  EXPECT_THAT(Read("stat"), StartsWith("cpu  200 0 100 500 0 0 0 0 0 0\n"
                                       "cpu0 0 0 0 400 0 0 0 0 0 0\n"
                                       "cpu1 200 0 100 100 0 0 0 0 0 0\n"
                                       "ctxt 2\n"));
  EXPECT_EQ(Read("uptime"), "4.00 5.00\n");
  EXPECT_THAT(Read("1/stat"), StartsWith("1 (worker) R 0 0 0 0 -1 2097152 0 0 0 0 0 100 0 0 20 0 1 0 0 0 0 4294967295 0 0 0 "));
  EXPECT_THAT(Read("2/stat"), StartsWith("2 (program) S 0 0 0 0 -1 0 "));
  EXPECT_THAT(Read("2/stat"), HasSubstr(" 200 0 0 0 20 0 1 0 0 "));
}

TEST_F(SystemFilesTest, CgroupsAreFilesBelowTheirRoot) {
  Write("", "cgroup.subtree_control", "+memory");
  EXPECT_EQ(machine_->Apply(op::CreateCgroup{"a"}).error, Errno::kOk);
  EXPECT_EQ(machine_->Apply(op::CreateCgroup{"a/b"}).error, Errno::kOk);
  Write("a", "cgroup.procs", "1");
  EXPECT_EQ(Read("1/cgroup"), "0::/a\n");
  EXPECT_EQ(Read("cgroups"), "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t3\t1\n");
  EXPECT_EQ(Read("/sys/fs/cgroup/a/cgroup.procs"), "1\n");
  EXPECT_EQ(Read("/sys/fs/cgroup/cgroup.procs"), "");
  EXPECT_EQ(Read("/sys/fs/cgroup/a/cgroup.events"), "populated 1\nfrozen 0\n");
  EXPECT_EQ(Read("/sys/fs/cgroup/a/b/cgroup.events"), "populated 0\nfrozen 0\n");
  EXPECT_EQ(Read("/sys/fs/cgroup/a/memory.max"), "max\n");
  EXPECT_EQ(Read("/sys/fs/cgroup/cgroup.controllers"), "memory\n");
  EXPECT_THAT(Read("/sys/fs/cgroup/nothing/memory.max"), HasSubstr("no such cgroup"));
  EXPECT_THAT(Read("/sys/fs/cgroup/a/b/memory.max"), HasSubstr("no such file"));
  EXPECT_EQ(ReadProcFile(*machine_, "/sys/fs/cgroup/a/memory.numa_stat").status().code(), absl::StatusCode::kUnimplemented);
  const std::vector<std::string> files = ListProcFiles(*machine_);
  EXPECT_THAT(files, Contains("/sys/fs/cgroup/a/memory.stat"));
  EXPECT_THAT(files, Not(Contains("/sys/fs/cgroup/a/memory.reclaim")));
}

// The lines of memory.stat and their order are those of a recorded kernel.
TEST_F(SystemFilesTest, MemoryStatHasTheKernelsLines) {
  Write("", "cgroup.subtree_control", "+memory");
  EXPECT_EQ(machine_->Apply(op::CreateCgroup{"a"}).error, Errno::kOk);
  std::string expected;
  for (const char* name : {"anon",
                           "file",
                           "kernel",
                           "kernel_stack",
                           "pagetables",
                           "sec_pagetables",
                           "percpu",
                           "sock",
                           "vmalloc",
                           "shmem",
                           "zswap",
                           "zswapped",
                           "file_mapped",
                           "file_dirty",
                           "file_writeback",
                           "swapcached",
                           "anon_thp",
                           "file_thp",
                           "shmem_thp",
                           "inactive_anon",
                           "active_anon",
                           "inactive_file",
                           "active_file",
                           "unevictable",
                           "slab_reclaimable",
                           "slab_unreclaimable",
                           "slab",
                           "workingset_refault_anon",
                           "workingset_refault_file",
                           "workingset_activate_anon",
                           "workingset_activate_file",
                           "workingset_restore_anon",
                           "workingset_restore_file",
                           "workingset_nodereclaim",
                           "pgscan",
                           "pgsteal",
                           "pgscan_kswapd",
                           "pgscan_direct",
                           "pgsteal_kswapd",
                           "pgsteal_direct",
                           "pgfault",
                           "pgmajfault",
                           "pgrefill",
                           "pgactivate",
                           "pgdeactivate",
                           "pglazyfree",
                           "pglazyfreed",
                           "zswpin",
                           "zswpout",
                           "thp_fault_alloc",
                           "thp_collapse_alloc"}) {
    expected += std::string(name) + " 0\n";
  }
  EXPECT_EQ(Read("/sys/fs/cgroup/a/memory.stat"), expected);
}

}  // namespace
}  // namespace mmlab

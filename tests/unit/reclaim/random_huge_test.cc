// Random programs on huge pages of both kinds, with same-page merging, swap and a cgroup that is too small for them: whatever is collapsed,
// split, merged, swapped, copied or reserved, every byte reads back as it was written.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/base/random.h"
#include "server/files/files.h"
#include "server/machine/board.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/process/ksm.h"
#include "server/process/processes.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kPage = 4096;
constexpr uint32_t kReadWrite = 3;
constexpr uint32_t kPrivateAnonymous = 0x22;
constexpr uint32_t kSharedAnonymous = 0x21;
constexpr uint32_t kHugetlb = 0x40000;
constexpr uint64_t kRegionBytes = 8 * kMib;
constexpr uint64_t kFreePages = 11264;  // Left for the processes.
constexpr size_t kProcesses = 4;

// MMLAB_RANDOM_OPERATIONS gives another number.
int Steps() {
  const char* wished = std::getenv("MMLAB_RANDOM_OPERATIONS");
  if (wished != nullptr) return std::atoi(wished);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 6'000;
#else
  return 20'000;
#endif
}

struct HugeCase {
  const char* name;
  const char* preset;  // Null: the usual board with 64 MiB.
  LayoutKind layout;
  uint64_t huge;  // Bytes.
};

MachineSpec SpecOf(const HugeCase& c) {
  if (c.preset != nullptr) return PresetSpec(c.preset);
  MachineSpec spec;
  spec.layout = c.layout;
  EXPECT_TRUE(DescribeUsualBoard(Bytes(64 * kMib), spec).ok());
  return spec;
}

// By page, the value at its start. Shared regions are one for all.
using Content = std::map<uint64_t, uint64_t>;
enum RegionKind { kOwn, kShared, kPool, kSharedPool, kRegionKinds };
struct Region {
  uint64_t address = 0;
  uint64_t bytes = 0;
  std::shared_ptr<Content> content = std::make_shared<Content>();
};
struct Task {
  Pid pid;
  Region regions[kRegionKinds];
};

class RandomHugeTest : public testing::TestWithParam<HugeCase> {
 protected:
  RandomHugeTest() : random_(7) {
    auto booted = Machine::Boot(SpecOf(GetParam()));
    EXPECT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    Do(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    Do(op::CreateFile{"/dev/vdb", op::FileSystem::kBlockDevice, 128 * kMib, "", false});
    Do(op::Swapon{"/dev/vdb", std::nullopt});
    while (machine_->memory().free_pages().raw() > kFreePages) Do(op::AllocPages{op::GfpClass::kHighuserMovable, 6, 0, false});
    Sysfs("transparent_hugepage/enabled", "always");
    Sysfs("transparent_hugepage/defrag", "always");
    Sysfs("transparent_hugepage/khugepaged/scan_sleep_millisecs", "100");
    Sysfs("ksm/pages_to_scan", "400");
    Sysfs("ksm/run", "1");
    Do(op::WriteCgroupFile{"", "cgroup.subtree_control", "+memory"});
    Do(op::CreateCgroup{"small"});
    Do(op::WriteCgroupFile{"small", "memory.max", std::to_string(12 * kMib)});
    Do(op::WriteSysctl{"vm.nr_hugepages", "3"});
    Start();
  }

  Outcome Do(const Operation& operation) {
    Outcome outcome = machine_->Apply(operation);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome;
  }
  void Sysfs(const std::string& path, const std::string& value) { Do(op::WriteSysfs{"/sys/kernel/mm/" + path, value}); }
  void Start() {
    Task task;
    task.pid = Pid(static_cast<int32_t>(Do(op::CreateProcess{"worker", 1000, false}).value));
    op::Exec exec;
    exec.pid = task.pid;
    exec.image = SmallProgram(GetParam().layout);
    Do(exec);
    Do(op::WriteCgroupFile{"small", "cgroup.procs", std::to_string(task.pid.raw())});
    constexpr uint32_t kFlags[kRegionKinds] = {kPrivateAnonymous, kSharedAnonymous, kPrivateAnonymous | kHugetlb,
                                               kSharedAnonymous | kHugetlb};
    for (int kind = 0; kind < kRegionKinds; ++kind) {
      Region& region = task.regions[kind];
      region.bytes = kind == kPool ? 2 * GetParam().huge : kind == kSharedPool ? GetParam().huge : kRegionBytes;
      region.address = Do(op::Mmap{.pid = task.pid, .length = region.bytes, .prot = kReadWrite, .flags = kFlags[kind]}).value;
    }
    Do(op::Madvise{task.pid, task.regions[kOwn].address, kRegionBytes, 12});  // MERGEABLE
    tasks_.push_back(std::move(task));
  }

  Outcome Access(const Task& task, AccessKind kind, uint64_t address, uint64_t value) {
    op::AccessMemory access{.pid = task.pid, .access = {}};
    access.access.kind = kind;
    access.access.address = address;
    access.access.length = 8;
    access.access.value = value;
    return machine_->Apply(access);
  }
  // Only memory of pools may be missing.
  static bool MayFail(const Task& task, const Region& region) { return &region >= &task.regions[kPool]; }
  void Store(const Task& task, Region& region, uint64_t page) {
    const uint64_t value = random_.Below(8) == 0 ? random_.Next() : random_.Below(4);  // Often one that other pages have.
    const Outcome outcome = Access(task, AccessKind::kStore, region.address + page * kPage, value);
    ASSERT_EQ(outcome.error, Errno::kOk);
    if (outcome.signal.has_value() && MayFail(task, region)) return;
    ASSERT_FALSE(outcome.signal.has_value()) << "killed";
    (*region.content)[page] = value;
  }
  void Check(const Task& task, const Region& region, uint64_t page) {
    const auto it = region.content->find(page);
    const Outcome outcome = Access(task, AccessKind::kLoad, region.address + page * kPage, 0);
    ASSERT_EQ(outcome.error, Errno::kOk);
    if (outcome.signal.has_value() && MayFail(task, region)) return;
    ASSERT_FALSE(outcome.signal.has_value()) << "killed";
    ASSERT_EQ(outcome.value, it == region.content->end() ? 0 : it->second) << "page " << page << " of region " << &region - task.regions;
  }
  void Fork() {
    if (tasks_.size() == kProcesses) return;
    const Task& parent = tasks_[random_.Below(tasks_.size())];
    const Outcome forked = machine_->Apply(op::Fork{parent.pid, 0});
    ASSERT_EQ(forked.error, Errno::kOk);
    Task child = parent;
    child.pid = Pid(static_cast<int32_t>(forked.value));
    for (const int kind : {kOwn, kPool}) child.regions[kind].content = std::make_shared<Content>(*parent.regions[kind].content);
    tasks_.push_back(std::move(child));
  }
  void Exit() {
    if (tasks_.size() == 1) return;
    const size_t which = random_.Below(tasks_.size());
    Do(op::Exit{tasks_[which].pid, 0});
    tasks_.erase(tasks_.begin() + static_cast<ptrdiff_t>(which));
  }
  void Advise(const Task& task) {
    static constexpr int32_t kAdvice[] = {20, 21, 3, 12, 13, 14, 15, 25};  // COLD, PAGEOUT, WILLNEED, (UN)MERGEABLE, (NO)HUGEPAGE, COLLAPSE
    const int32_t advice = kAdvice[random_.Below(std::size(kAdvice))];
    const Region& region = task.regions[advice == 20 || advice == 21 ? random_.Below(2) : uint64_t{kOwn}];
    const uint64_t page = random_.Below(kRegionBytes / kPage - 700);
    machine_->Apply(op::Madvise{task.pid, region.address + page * kPage, (1 + random_.Below(700)) * kPage, advice});
  }
  void GiveUp(Task& task) {
    Region& region = task.regions[random_.Below(4) == 0 ? kPool : kOwn];
    const uint64_t unit = &region == &task.regions[kPool] ? GetParam().huge / kPage : 1 + random_.Below(400);
    const uint64_t page = &region == &task.regions[kPool] ? unit * random_.Below(2) : random_.Below(region.bytes / kPage - unit);
    Do(op::Madvise{task.pid, region.address + page * kPage, unit * kPage, 4});  // DONTNEED
    region.content->erase(region.content->lower_bound(page), region.content->lower_bound(page + unit));
  }
  void Manage() {
    switch (random_.Below(6)) {
      case 0:
        Do(op::WriteSysctl{"vm.nr_hugepages", std::to_string(random_.Below(5))});
        return;
      case 1:
        Do(op::WriteSysctl{"vm.nr_overcommit_hugepages", std::to_string(random_.Below(3))});
        return;
      case 2:
        Do(op::WriteCgroupFile{"small", "memory.max", random_.Below(3) == 0 ? "max" : std::to_string((8 + random_.Below(16)) * kMib)});
        return;
      case 3:
        Sysfs("ksm/run", random_.Below(8) == 0 ? "2" : "1");
        return;
      case 4:
        Sysfs("transparent_hugepage/enabled", random_.Below(4) == 0 ? "madvise" : "always");
        return;
      default:
        Do(op::CompactMemory{});
        return;
    }
  }
  void Step() {
    Task& task = tasks_[random_.Below(tasks_.size())];
    Region& region = task.regions[random_.Below(2) == 0 ? static_cast<uint64_t>(kOwn) : random_.Below(kRegionKinds)];
    const uint64_t what = random_.Below(10'000);
    const uint64_t pages = region.bytes / kPage;
    const uint64_t page = random_.Below(4) == 0 ? random_.Below(pages) : random_.Below(pages / 8);
    if (what < 4'900) return Store(task, region, page);
    if (what < 9'700) return Check(task, region, page);
    if (what < 9'800) return Advise(task);
    if (what < 9'830) return GiveUp(task);
    if (what < 9'840) return Fork();
    if (what < 9'850) return Exit();
    if (what < 9'870) return Manage();
    Do(op::AdvanceTime{static_cast<int64_t>(random_.Below(200'000'000))});
  }
  void CheckAll() {
    for (const Task& task : tasks_) {
      for (const Region& region : task.regions) {
        for (uint64_t page = 0; page < region.bytes / kPage; ++page) {
          Check(task, region, page);
          if (HasFatalFailure()) return;
        }
      }
    }
  }

  Random random_;
  std::unique_ptr<Machine> machine_;
  std::vector<Task> tasks_;
};

TEST_P(RandomHugeTest, EveryByteReadsBackAsItWasWritten) {
  const int steps = Steps();
  for (int step = 0; step < steps; ++step) {
    Step();
    if (HasFatalFailure()) FAIL() << "at step " << step;
    if (step % std::max(1, steps / 40) != 0) continue;
    for (const std::string& problem : machine_->CheckInvariants()) FAIL() << problem << " at step " << step;
  }
  CheckAll();
  for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  const VmStat& stat = machine_->vm_stat();
  EXPECT_GT(stat.Get(VmEvent::kThpFaultAlloc) + stat.Get(VmEvent::kThpCollapseAlloc), 0u);
  EXPECT_GT(stat.Get(VmEvent::kHtlbBuddyAllocSuccess), 0u);
  EXPECT_GT(stat.Get(VmEvent::kPswpout), 0u);
  EXPECT_GT(stat.Get(VmEvent::kCowKsm), 0u);
  for (const Task& task : tasks_) Do(op::Exit{task.pid, 0});
  for (const HugetlbPool& pool : machine_->files().hugetlb().pools()) EXPECT_EQ(pool.free.size(), pool.total);
  for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
}

INSTANTIATE_TEST_SUITE_P(AllLayouts, RandomHugeTest,
                         testing::Values(HugeCase{"TwoLevels", "686-64M", LayoutKind::kX86_32, 4 * kMib},
                                         HugeCase{"Pae", nullptr, LayoutKind::kX86_32Pae, 2 * kMib},
                                         HugeCase{"Arm64", "arm64-128M", LayoutKind::kArm64, 2 * kMib}),
                         [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace mmlab

// Random programs in less memory than they use: whatever is evicted, written, read ahead, shared or given up, every byte reads back as it
// was written.

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/base/random.h"
#include "server/files/files.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
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
constexpr uint64_t kRegionPages = 4096;
constexpr uint64_t kFreePages = 8192;  // Left for the processes; all that they could touch does not fit.
constexpr size_t kProcesses = 4;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSteps = 60'000;
#else
constexpr int kSteps = 1'000'000;
#endif

struct RandomCase {
  const char* name;
  const char* preset;
  LayoutKind layout;
  bool swap;
  bool generations;  // MGLRU, switched off and on by the program.
  bool cgroups;      // Processes move between memory cgroups whose limits change.
};

// What a region should read as: by page, the value at the place that the page's number gives it. Shared regions are one for all.
using Content = std::map<uint64_t, uint64_t>;
struct Region {
  uint64_t address = 0;
  std::shared_ptr<Content> content = std::make_shared<Content>();
};
struct Task {
  Pid pid;
  Region own;
  Region shared;
};

class RandomSwapTest : public testing::TestWithParam<RandomCase> {
 protected:
  RandomSwapTest() : random_(11) {
    auto booted = Machine::Boot(PresetSpec(GetParam().preset));
    EXPECT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    Do(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    Do(op::CreateFile{"/data", op::FileSystem::kExt4, 8 * kMib, "data", false});
    Do(op::CreateFile{"/dev/vdb", op::FileSystem::kBlockDevice, 128 * kMib, "", false});
    Do(op::CreateFile{"/swapfile", op::FileSystem::kExt4, 32 * kMib, "", false});
    if (GetParam().swap) Do(op::Swapon{"/dev/vdb", std::nullopt});
    if (GetParam().generations) SwitchGenerations();
    if (GetParam().cgroups) MakeCgroups();
    while (machine_->memory().free_pages().raw() > kFreePages) Do(op::AllocPages{op::GfpClass::kHighuserMovable, 6, 0, false});
    Start();
  }

  Outcome Do(const Operation& operation) {
    Outcome outcome = machine_->Apply(operation);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome;
  }
  void Start() {
    Task task;
    task.pid = Pid(static_cast<int32_t>(Do(op::CreateProcess{"worker", 1000, false}).value));
    op::Exec exec;
    exec.pid = task.pid;
    exec.image = SmallProgram(GetParam().layout);
    Do(exec);
    for (Region* region : {&task.own, &task.shared}) {
      const uint32_t flags = region == &task.own ? kPrivateAnonymous : kSharedAnonymous;
      region->address = Do(op::Mmap{.pid = task.pid, .length = Bytes(), .prot = kReadWrite, .flags = flags}).value;
    }
    tasks_.push_back(std::move(task));
  }
  // Without swap everything has to fit.
  static uint64_t Pages() { return GetParam().swap ? kRegionPages : kRegionPages / 4; }
  static uint64_t Bytes() { return Pages() * kPage; }

  Outcome Access(const Task& task, AccessKind kind, uint64_t address, uint64_t value) {
    op::AccessMemory access{.pid = task.pid, .access = {}};
    access.access.kind = kind;
    access.access.address = address;
    access.access.length = 8;
    access.access.value = value;
    return machine_->Apply(access);
  }
  static uint64_t PlaceOf(const Region& region, uint64_t page) { return region.address + page * kPage + page * 40 % (kPage - 8); }

  void Store(const Task& task, Region& region, uint64_t page) {
    const uint64_t value = random_.Next();
    const Outcome outcome = Access(task, AccessKind::kStore, PlaceOf(region, page), value);
    ASSERT_EQ(outcome.error, Errno::kOk);
    ASSERT_FALSE(outcome.signal.has_value()) << "killed";
    (*region.content)[page] = value;
  }
  void Check(const Task& task, const Region& region, uint64_t page) {
    const auto it = region.content->find(page);
    const Outcome outcome = Access(task, AccessKind::kLoad, PlaceOf(region, page), 0);
    ASSERT_EQ(outcome.error, Errno::kOk);
    ASSERT_FALSE(outcome.signal.has_value()) << "killed";
    ASSERT_EQ(outcome.value, it == region.content->end() ? 0 : it->second) << "page " << page;
  }
  void Fork() {
    if (tasks_.size() == kProcesses) return;
    const Task& parent = tasks_[random_.Below(tasks_.size())];
    const Outcome forked = machine_->Apply(op::Fork{parent.pid, 0});
    ASSERT_EQ(forked.error, Errno::kOk);
    Task child = parent;
    child.pid = Pid(static_cast<int32_t>(forked.value));
    child.own.content = std::make_shared<Content>(*parent.own.content);
    tasks_.push_back(std::move(child));
  }
  void Exit() {
    if (tasks_.size() == 1) return;
    const size_t which = random_.Below(tasks_.size());
    Do(op::Exit{tasks_[which].pid, 0});
    tasks_.erase(tasks_.begin() + static_cast<ptrdiff_t>(which));
  }
  void Advise(const Task& task) {
    static constexpr int32_t kAdvice[] = {20, 21, 3, 21};  // COLD, PAGEOUT, WILLNEED, PAGEOUT
    const Region& region = random_.Below(2) == 0 ? task.own : task.shared;
    const uint64_t page = random_.Below(Pages() - 64);
    Do(op::Madvise{task.pid, region.address + page * kPage, 64 * kPage, kAdvice[random_.Below(4)]});
  }
  void GiveUp(Task& task) {
    const uint64_t page = random_.Below(Pages() - 16);
    Do(op::Madvise{task.pid, task.own.address + page * kPage, 16 * kPage, 4});  // DONTNEED
    task.own.content->erase(task.own.content->lower_bound(page), task.own.content->lower_bound(page + 16));
  }
  void ReadFile(const Task& task) {
    const Outcome fd = Do(op::Open{.pid = task.pid, .path = "/data", .flags = 2});
    const auto number = static_cast<int32_t>(fd.value);
    Do(op::Pread{task.pid, number, task.own.address, 8, 0});
    Do(op::Close{task.pid, number});
    std::string wanted = "data";
    wanted.resize(8);
    // It went over whatever was there.
    op::AccessMemory back{.pid = task.pid, .access = {}};
    back.access.kind = AccessKind::kReadBytes;
    back.access.address = task.own.address;
    back.access.length = 8;
    ASSERT_EQ(Do(back).data, wanted);
    uint64_t value = 0;
    std::memcpy(&value, wanted.data(), sizeof(value));
    (*task.own.content)[0] = value;
  }
  void SwitchSwap() {
    if (!GetParam().swap) return;
    if (!second_area_) {
      Do(op::Swapon{"/swapfile", 7});
      second_area_ = true;
      return;
    }
    const Errno error = machine_->Apply(op::Swapoff{"/swapfile"}).error;
    ASSERT_TRUE(error == Errno::kOk || error == Errno::kENOMEM);
    second_area_ = error != Errno::kOk;
  }
  void MakeCgroups() {
    Do(op::WriteCgroupFile{"", "cgroup.subtree_control", "+memory"});
    Do(op::CreateCgroup{"a"});
    Do(op::WriteCgroupFile{"a", "cgroup.subtree_control", "+memory"});
    for (const char* path : kCgroups) Do(op::CreateCgroup{path});
  }
  // Nothing that kills: memory.high and what protects, not memory.max.
  void DisturbCgroups(const Task& task) {
    if (!GetParam().cgroups) return;
    const std::string path = kCgroups[random_.Below(std::size(kCgroups))];
    switch (random_.Below(4)) {
      case 0:
        return (void)Do(op::WriteCgroupFile{path, "cgroup.procs", std::to_string(task.pid.raw())});
      case 1:
        return (void)Do(op::WriteCgroupFile{path, "memory.high", std::to_string((4 + random_.Below(24)) * kMib)});
      case 2:
        return (void)Do(op::WriteCgroupFile{path, "memory.low", std::to_string(random_.Below(8) * kMib)});
      default: {
        const Errno error = machine_->Apply(op::WriteCgroupFile{path, "memory.reclaim", std::to_string(random_.Below(4) * kMib)}).error;
        ASSERT_TRUE(error == Errno::kOk || error == Errno::kEAGAIN);
      }
    }
  }
  void SwitchGenerations() {
    if (!GetParam().generations) return;
    generations_ = !generations_;
    Do(op::WriteSysfs{"/sys/kernel/mm/lru_gen/enabled", generations_ ? "y" : "n"});
  }
  void Step() {
    Task& task = tasks_[random_.Below(tasks_.size())];
    Region& region = random_.Below(3) == 0 ? task.shared : task.own;
    const uint64_t what = random_.Below(10'000);
    const uint64_t page = random_.Below(4) == 0 ? random_.Below(Pages()) : random_.Below(Pages() / 8);
    if (what < 5'000) return Store(task, region, page);
    if (what < 9'900) return Check(task, region, page);
    if (what < 9'945) return Advise(task);
    if (what < 9'950) return DisturbCgroups(task);
    if (what < 9'970) return GiveUp(task);
    if (what < 9'980) return ReadFile(task);
    if (what < 9'989) return Fork();
    if (what < 9'998) return Exit();
    if (random_.Below(4) == 0) SwitchGenerations();
    SwitchSwap();
  }
  void CheckAll() {
    for (const Task& task : tasks_) {
      for (const Region* region : {&task.own, &task.shared}) {
        for (uint64_t page = 0; page < Pages(); ++page) {
          Check(task, *region, page);
          if (HasFatalFailure()) return;
        }
      }
    }
  }

  Random random_;
  std::unique_ptr<Machine> machine_;
  std::vector<Task> tasks_;
  bool second_area_ = false;
  static constexpr const char* kCgroups[] = {"a/b", "a/c", "d"};
  bool generations_ = false;
};

TEST_P(RandomSwapTest, EveryByteReadsBackAsItWasWritten) {
  for (int step = 0; step < kSteps; ++step) {
    Step();
    if (HasFatalFailure()) FAIL() << "at step " << step;
    if (step % (kSteps / 20) != 0) continue;
    for (const std::string& problem : machine_->CheckInvariants()) FAIL() << problem;
  }
  CheckAll();
  for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  if (GetParam().swap) {
    EXPECT_GT(machine_->vm_stat().Get(VmEvent::kPswpout), 500u);
    EXPECT_GT(machine_->vm_stat().Get(VmEvent::kPswpin), static_cast<uint64_t>(kSteps / 100'000));
    EXPECT_GE(machine_->vm_stat().Get(VmEvent::kPgscanKswapd) + machine_->vm_stat().Get(VmEvent::kPgscanDirect),
              static_cast<uint64_t>(kSteps / 100'000));  // Rarer than MADV_PAGEOUT: a short program may see none.
  }
  for (const Task& task : tasks_) Do(op::Exit{task.pid, 0});
  EXPECT_EQ(machine_->files().swap().cached_pages(), 0u);
}

INSTANTIATE_TEST_SUITE_P(AllLayouts, RandomSwapTest,
                         testing::Values(RandomCase{"TwoLevelsWithSwap", "686-64M", LayoutKind::kX86_32, true, false, false},
                                         RandomCase{"TwoLevelsWithoutSwap", "686-64M", LayoutKind::kX86_32, false, false, false},
                                         RandomCase{"TwoLevelsWithGenerations", "686-64M", LayoutKind::kX86_32, true, true, false},
                                         RandomCase{"Arm64WithCgroups", "arm64-128M", LayoutKind::kArm64, true, false, true},
                                         RandomCase{"Arm64WithCgroupsAndGenerations", "arm64-128M", LayoutKind::kArm64, true, true, true}),
                         [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace mmlab

// Random programs in less memory than they use: whatever is evicted, written, read ahead, shared or given up, every byte reads back as it
// was written.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "server/files/files.h"
#include "server/process/processes.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/reclaim/random_pressure.h"

namespace mmlab {
namespace {

constexpr uint64_t kRegionPages = 4096;
constexpr uint64_t kFreePages = 8192;  // Left for the processes; all that they could touch does not fit.

struct RandomCase {
  const char* name;
  const char* preset;
  LayoutKind layout;
  bool swap;
  bool generations;  // MGLRU, switched off and on by the program.
  bool cgroups;      // Processes move between memory cgroups whose limits change.
};

class RandomSwapTest : public RandomPressureTest<RandomCase> {
 protected:
  RandomSwapTest() : RandomPressureTest(11) {
    Boot(PresetSpec(GetParam().preset));
    Do(op::CreateFile{"/data", op::FileSystem::kExt4, 8 * kMib, "data", false});
    Do(op::CreateFile{"/swapfile", op::FileSystem::kExt4, 32 * kMib, "", false});
    if (GetParam().swap) Do(op::Swapon{"/dev/vdb", std::nullopt});
    if (GetParam().generations) SwitchGenerations();
    if (GetParam().cgroups) MakeCgroups();
    LeaveFree(kFreePages);
    // Without swap everything has to fit.
    const uint64_t bytes = (GetParam().swap ? kRegionPages : kRegionPages / 4) * kPage;
    Start(GetParam().layout, {{bytes, kPrivateAnonymous}, {bytes, kSharedAnonymous}});
  }

  uint64_t OffsetIn(uint64_t page) const override { return page * 40 % (kPage - 8); }

  void Advise(const Task& task) {
    static constexpr int32_t kAdvice[] = {20, 21, 3, 21};  // COLD, PAGEOUT, WILLNEED, PAGEOUT
    const Region& region = task.regions[random_.Below(2)];
    const uint64_t page = random_.Below(region.pages() - 64);
    Do(op::Madvise{task.pid, region.address + page * kPage, 64 * kPage, kAdvice[random_.Below(4)]});
  }
  void ReadFile(const Task& task) {
    const Outcome fd = Do(op::Open{.pid = task.pid, .path = "/data", .flags = 2});
    const auto number = static_cast<int32_t>(fd.value);
    const Region& own = task.regions[0];
    Do(op::Pread{task.pid, number, own.address, 8, 0});
    Do(op::Close{task.pid, number});
    std::string wanted = "data";
    wanted.resize(8);
    // It went over whatever was there.
    op::AccessMemory back{.pid = task.pid, .access = {}};
    back.access.kind = AccessKind::kReadBytes;
    back.access.address = own.address;
    back.access.length = 8;
    ASSERT_EQ(Do(back).data, wanted);
    uint64_t value = 0;
    std::memcpy(&value, wanted.data(), sizeof(value));
    (*own.content)[0] = value;
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
    switch (random_.Below(5)) {
      case 0:
        return (void)Do(op::WriteCgroupFile{path, "cgroup.procs", std::to_string(task.pid.raw())});
      case 1:
        return (void)Do(op::WriteCgroupFile{path, "memory.high", std::to_string((4 + random_.Below(24)) * kMib)});
      case 2:
        return (void)Do(op::WriteCgroupFile{path, "memory.low", std::to_string(random_.Below(8) * kMib)});
      case 3: {
        // What it was charged for stays, and goes to others.
        const Errno error = machine_->Apply(op::RemoveCgroup{path}).error;
        ASSERT_TRUE(error == Errno::kOk || error == Errno::kEBUSY);
        if (error == Errno::kOk) Do(op::CreateCgroup{path});
        return;
      }
      default: {
        const Errno error = machine_->Apply(op::WriteCgroupFile{path, "memory.reclaim", std::to_string(random_.Below(4) * kMib)}).error;
        ASSERT_TRUE(error == Errno::kOk || error == Errno::kEAGAIN);
      }
    }
  }
  void SwitchGenerations() {
    if (!GetParam().generations) return;
    generations_ = !generations_;
    Sysfs("lru_gen/enabled", generations_ ? "y" : "n");
  }
  void Step() override {
    Task& task = AnyTask();
    Region& region = task.regions[random_.Below(3) == 0 ? 1 : 0];
    const uint64_t what = random_.Below(10'000);
    const uint64_t page = AnyPage(region);
    if (what < 5'000) return Store(task, region, page, random_.Next());
    if (what < 9'900) return Check(task, region, page);
    if (what < 9'945) return Advise(task);
    if (what < 9'950) return DisturbCgroups(task);
    if (what < 9'970) return GiveUp(task, task.regions[0], random_.Below(task.regions[0].pages() - 16), 16);
    if (what < 9'980) return ReadFile(task);
    if (what < 9'989) return Fork();
    if (what < 9'998) return Exit();
    if (random_.Below(4) == 0) SwitchGenerations();
    SwitchSwap();
  }

  bool second_area_ = false;
  static constexpr const char* kCgroups[] = {"a/b", "a/c", "d"};
  bool generations_ = false;
};

TEST_P(RandomSwapTest, EveryByteReadsBackAsItWasWritten) {
  const int steps = RandomSteps(1'000'000, 60'000);
  Run(steps, 20);
  if (GetParam().swap && steps >= 60'000) {  // A shorter program may not come to it.
    EXPECT_GT(machine_->vm_stat().Get(VmEvent::kPswpout), 500u);
    EXPECT_GT(machine_->vm_stat().Get(VmEvent::kPswpin), static_cast<uint64_t>(steps / 100'000));
    EXPECT_GE(machine_->vm_stat().Get(VmEvent::kPgscanKswapd) + machine_->vm_stat().Get(VmEvent::kPgscanDirect),
              static_cast<uint64_t>(steps / 100'000));  // Rarer than MADV_PAGEOUT: a short program may see none.
  }
  EndAll();
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

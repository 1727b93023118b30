// Random programs on huge pages of both kinds, with same-page merging, swap and a cgroup that is too small for them: whatever is collapsed,
// split, merged, swapped, copied or reserved, every byte reads back as it was written.

#include <gtest/gtest.h>

#include <string>

#include "server/files/files.h"
#include "server/machine/board.h"
#include "server/process/ksm.h"
#include "server/process/processes.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/reclaim/random_pressure.h"

namespace mmlab {
namespace {

constexpr uint32_t kHugetlb = 0x40000;
constexpr uint64_t kRegionBytes = 8 * kMib;
constexpr uint64_t kFreePages = 11264;  // Left for the processes.

struct HugeCase {
  const char* name;
  const char* preset;  // Null: the usual board with 64 MiB.
  LayoutKind layout;
  uint64_t huge;     // Bytes.
  bool generations;  // MGLRU, switched off and on by the program.
};

MachineSpec SpecOf(const HugeCase& c) {
  if (c.preset != nullptr) return PresetSpec(c.preset);
  MachineSpec spec;
  spec.layout = c.layout;
  EXPECT_TRUE(DescribeUsualBoard(Bytes(64 * kMib), spec).ok());
  return spec;
}

enum RegionKind { kOwn, kShared, kPool, kSharedPool, kRegionKinds };

class RandomHugeTest : public RandomPressureTest<HugeCase> {
 protected:
  RandomHugeTest() : RandomPressureTest(7) {
    Boot(SpecOf(GetParam()));
    Do(op::Swapon{"/dev/vdb", std::nullopt});
    LeaveFree(kFreePages);
    Sysfs("transparent_hugepage/enabled", "always");
    Sysfs("transparent_hugepage/defrag", "always");
    Sysfs("transparent_hugepage/khugepaged/scan_sleep_millisecs", "100");
    Sysfs("ksm/pages_to_scan", "400");
    Sysfs("ksm/run", "1");
    Do(op::WriteCgroupFile{"", "cgroup.subtree_control", "+memory"});
    Do(op::CreateCgroup{"small"});
    Do(op::WriteCgroupFile{"small", "memory.max", std::to_string(12 * kMib)});
    Do(op::WriteSysctl{"vm.nr_hugepages", "3"});
    // Only memory of pools may be missing.
    Start(GetParam().layout, {{kRegionBytes, kPrivateAnonymous},
                              {kRegionBytes, kSharedAnonymous},
                              {2 * GetParam().huge, kPrivateAnonymous | kHugetlb, true},
                              {GetParam().huge, kSharedAnonymous | kHugetlb, true}});
    Do(op::WriteCgroupFile{"small", "cgroup.procs", std::to_string(tasks_[0].pid.raw())});
    Do(op::Madvise{tasks_[0].pid, tasks_[0].regions[kOwn].address, kRegionBytes, 12});  // MERGEABLE
  }

  void Advise(const Task& task) {
    static constexpr int32_t kAdvice[] = {20, 21, 3, 12, 13, 14, 15, 25};  // COLD, PAGEOUT, WILLNEED, (UN)MERGEABLE, (NO)HUGEPAGE, COLLAPSE
    const int32_t advice = kAdvice[random_.Below(std::size(kAdvice))];
    const Region& region = task.regions[advice == 20 || advice == 21 ? random_.Below(2) : uint64_t{kOwn}];
    const uint64_t page = random_.Below(kRegionBytes / kPage - 700);
    machine_->Apply(op::Madvise{task.pid, region.address + page * kPage, (1 + random_.Below(700)) * kPage, advice});
  }
  void GiveUpSome(Task& task) {
    Region& region = task.regions[random_.Below(4) == 0 ? kPool : kOwn];
    const bool pool = &region == &task.regions[kPool];
    const uint64_t pages = pool ? GetParam().huge / kPage : 1 + random_.Below(400);
    GiveUp(task, region, pool ? pages * random_.Below(2) : random_.Below(region.pages() - pages), pages);
  }
  void Manage() {
    switch (random_.Below(GetParam().generations ? 7 : 6)) {
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
      case 5:
        Do(op::CompactMemory{});
        return;
      default:
        Sysfs("lru_gen/enabled", random_.Below(3) == 0 ? "n" : "y");
        return;
    }
  }
  void Step() override {
    Task& task = AnyTask();
    Region& region = task.regions[random_.Below(2) == 0 ? static_cast<uint64_t>(kOwn) : random_.Below(kRegionKinds)];
    const uint64_t what = random_.Below(10'000);
    const uint64_t page = AnyPage(region);
    // Often a value that other pages have.
    if (what < 4'900) return Store(task, region, page, random_.Below(8) == 0 ? random_.Next() : random_.Below(4));
    if (what < 9'700) return Check(task, region, page);
    if (what < 9'800) return Advise(task);
    if (what < 9'830) return GiveUpSome(task);
    if (what < 9'840) return Fork();
    if (what < 9'850) return Exit();
    if (what < 9'870) return Manage();
    Do(op::AdvanceTime{static_cast<int64_t>(random_.Below(200'000'000))});
  }
};

TEST_P(RandomHugeTest, EveryByteReadsBackAsItWasWritten) {
  const int steps = RandomSteps(20'000, 6'000);
  Run(steps, 40);
  if (steps >= 20'000) {  // A short program may not come to all of it.
    const VmStat& stat = machine_->vm_stat();
    EXPECT_GT(stat.Get(VmEvent::kThpFaultAlloc) + stat.Get(VmEvent::kThpCollapseAlloc), 0u);
    EXPECT_GT(stat.Get(VmEvent::kHtlbBuddyAllocSuccess), 0u);
    EXPECT_GT(stat.Get(VmEvent::kPswpout), 0u);
    EXPECT_GT(stat.Get(VmEvent::kCowKsm), 0u);
  }
  EndAll();
  for (const HugetlbPool& pool : machine_->files().hugetlb().pools()) EXPECT_EQ(pool.free.size(), pool.total);
}

INSTANTIATE_TEST_SUITE_P(AllLayouts, RandomHugeTest,
                         testing::Values(HugeCase{"TwoLevels", "686-64M", LayoutKind::kX86_32, 4 * kMib, false},
                                         HugeCase{"Pae", nullptr, LayoutKind::kX86_32Pae, 2 * kMib, false},
                                         HugeCase{"Arm64", "arm64-128M", LayoutKind::kArm64, 2 * kMib, false},
                                         HugeCase{"Arm64WithGenerations", "arm64-128M", LayoutKind::kArm64, 2 * kMib, true}),
                         [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace mmlab

#ifndef MMLAB_TESTS_UNIT_RECLAIM_RANDOM_PRESSURE_H_
#define MMLAB_TESTS_UNIT_RECLAIM_RANDOM_PRESSURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/base/random.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {

inline constexpr uint64_t kMib = uint64_t{1} << 20;
inline constexpr uint64_t kPage = 4096;
inline constexpr uint32_t kReadWrite = 3;
inline constexpr uint32_t kPrivateAnonymous = 0x22;
inline constexpr uint32_t kSharedAnonymous = 0x21;

// How long a random program is: MMLAB_RANDOM_OPERATIONS steps, or as many as a test has time for.
inline int RandomSteps([[maybe_unused]] int usual, [[maybe_unused]] int under_sanitizers) {
  if (const char* wished = std::getenv("MMLAB_RANDOM_OPERATIONS"); wished != nullptr) return std::atoi(wished);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return under_sanitizers;
#else
  return usual;
#endif
}

// A random program in less memory than it uses, and what each of its processes should read: the model that the machine is compared with.
// Every page of a region holds one value of eight bytes, 0 until it is written.
template <typename Case>
class RandomPressureTest : public testing::TestWithParam<Case> {
 protected:
  // By page. Shared regions are one for all.
  using Content = std::map<uint64_t, uint64_t>;
  struct Region {
    uint64_t address = 0;
    uint64_t bytes = 0;
    bool shared = false;
    bool may_fail = false;  // Its memory may be missing: an access gets a signal, and nothing is known then.
    std::shared_ptr<Content> content = std::make_shared<Content>();
    uint64_t pages() const { return bytes / kPage; }
  };
  struct Mapping {
    uint64_t bytes;
    uint32_t flags;
    bool may_fail = false;
  };
  struct Task {
    Pid pid;
    std::vector<Region> regions;
  };
  static constexpr size_t kProcesses = 4;

  explicit RandomPressureTest(uint64_t seed) : random_(seed) {}

  // Boots the machine; LeaveFree() then takes all but so many pages of it.
  void Boot(const MachineSpec& spec) {
    auto booted = Machine::Boot(spec);
    ASSERT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    Do(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    Do(op::CreateFile{"/dev/vdb", op::FileSystem::kBlockDevice, 128 * kMib, "", false});
  }
  void LeaveFree(uint64_t pages) {
    while (machine_->memory().free_pages().raw() > pages) Do(op::AllocPages{op::GfpClass::kHighuserMovable, 6, 0, false});
  }
  void Start(LayoutKind layout, const std::vector<Mapping>& mappings) {
    Task task;
    task.pid = Pid(static_cast<int32_t>(Do(op::CreateProcess{"worker", 1000, false}).value));
    op::Exec exec;
    exec.pid = task.pid;
    exec.image = SmallProgram(layout);
    Do(exec);
    for (const Mapping& mapping : mappings) {
      Region region;
      region.bytes = mapping.bytes;
      region.shared = (mapping.flags & 1) != 0;
      region.may_fail = mapping.may_fail;
      region.address = Do(op::Mmap{.pid = task.pid, .length = region.bytes, .prot = kReadWrite, .flags = mapping.flags}).value;
      task.regions.push_back(std::move(region));
    }
    tasks_.push_back(std::move(task));
  }

  Outcome Do(const Operation& operation) {
    Outcome outcome = machine_->Apply(operation);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome;
  }
  void Sysfs(const std::string& path, const std::string& value) { Do(op::WriteSysfs{"/sys/kernel/mm/" + path, value}); }
  Task& AnyTask() { return tasks_[random_.Below(tasks_.size())]; }
  // Mostly one of those that are used most.
  uint64_t AnyPage(const Region& region) { return random_.Below(random_.Below(4) == 0 ? region.pages() : region.pages() / 8); }

  // Where in its page the value stands.
  virtual uint64_t OffsetIn(uint64_t /*page*/) const { return 0; }
  void Store(const Task& task, Region& region, uint64_t page, uint64_t value) {
    const Outcome outcome = Access(task, AccessKind::kStore, region, page, value);
    ASSERT_EQ(outcome.error, Errno::kOk);
    if (outcome.signal.has_value() && region.may_fail) return;
    ASSERT_FALSE(outcome.signal.has_value()) << "killed";
    (*region.content)[page] = value;
  }
  void Check(const Task& task, const Region& region, uint64_t page) {
    const auto it = region.content->find(page);
    const Outcome outcome = Access(task, AccessKind::kLoad, region, page, 0);
    ASSERT_EQ(outcome.error, Errno::kOk);
    if (outcome.signal.has_value() && region.may_fail) return;
    ASSERT_FALSE(outcome.signal.has_value()) << "killed";
    ASSERT_EQ(outcome.value, it == region.content->end() ? 0 : it->second) << "page " << page << " at address " << region.address;
  }
  void Fork() {
    if (tasks_.size() == kProcesses) return;
    const Task& parent = AnyTask();
    const Outcome forked = machine_->Apply(op::Fork{parent.pid, 0});
    ASSERT_EQ(forked.error, Errno::kOk);
    Task child = parent;
    child.pid = Pid(static_cast<int32_t>(forked.value));
    for (Region& region : child.regions) {
      if (region.shared) continue;
      region.content = std::make_shared<Content>(*region.content);
      if (region.may_fail) ForgetWhatIsNotThere(child, region);
    }
    tasks_.push_back(std::move(child));
  }
  void Exit() {
    if (tasks_.size() == 1) return;
    const size_t which = random_.Below(tasks_.size());
    Do(op::Exit{tasks_[which].pid, 0});
    tasks_.erase(tasks_.begin() + static_cast<ptrdiff_t>(which));
  }
  // MADV_DONTNEED
  void GiveUp(const Task& task, Region& region, uint64_t page, uint64_t pages) {
    Do(op::Madvise{task.pid, region.address + page * kPage, pages * kPage, 4});
    region.content->erase(region.content->lower_bound(page), region.content->lower_bound(page + pages));
  }

  virtual void Step() = 0;
  void Run(int steps, int checks) {
    for (int step = 0; step < steps; ++step) {
      Step();
      if (this->HasFatalFailure()) FAIL() << "at step " << step;
      if (step % std::max(1, steps / checks) != 0) continue;
      for (const std::string& problem : machine_->CheckInvariants()) FAIL() << problem << " at step " << step;
    }
    for (const Task& task : tasks_) {
      for (const Region& region : task.regions) {
        for (uint64_t page = 0; page < region.pages(); ++page) {
          Check(task, region, page);
          if (this->HasFatalFailure()) return;
        }
      }
    }
    ExpectSound();
  }
  void EndAll() {
    for (const Task& task : tasks_) Do(op::Exit{task.pid, 0});
    tasks_.clear();
    ExpectSound();
  }
  void ExpectSound() {
    for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  }

  Random random_;
  std::unique_ptr<Machine> machine_;
  std::vector<Task> tasks_;

 private:
  // A page of a pool that was taken away from a process for the one that reserved it fails there from then on, but fork() does not hand
  // that on: a child made since has no page there and knows nothing of the lost one, so that it reads zeros if the pool has a page for it.
  void ForgetWhatIsNotThere(const Task& task, Region& region) {
    const std::string there = Do(op::Mincore{task.pid, region.address, region.bytes}).data;
    ASSERT_EQ(there.size(), region.pages());
    std::erase_if(*region.content, [&](const auto& page) { return there[page.first] == 0; });
  }
  Outcome Access(const Task& task, AccessKind kind, const Region& region, uint64_t page, uint64_t value) {
    op::AccessMemory access{.pid = task.pid, .access = {}};
    access.access.kind = kind;
    access.access.address = region.address + page * kPage + OffsetIn(page);
    access.access.length = 8;
    access.access.value = value;
    return machine_->Apply(access);
  }
};

}  // namespace mmlab

#endif  // MMLAB_TESTS_UNIT_RECLAIM_RANDOM_PRESSURE_H_

// MGLRU in the place of active and inactive lists.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/procfs/lru_gen.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kPage = 4096;
constexpr const char* kEnabled = "/sys/kernel/mm/lru_gen/enabled";
constexpr const char* kMinTtl = "/sys/kernel/mm/lru_gen/min_ttl_ms";

// A machine with swap where MGLRU runs, and one process.
class GenerationsTest : public testing::Test {
 protected:
  GenerationsTest() {
    auto booted = Machine::Boot(PresetSpec("arm64-128M"));
    EXPECT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    Do(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    Do(op::CreateFile{"/dev/vdb", op::FileSystem::kBlockDevice, 256 * kMib, "", false});
    Do(op::CreateFile{"/data", op::FileSystem::kExt4, 32 * kMib, "data", false});
    Do(op::CreateProcess{"init", 0, false});  // Which is never killed.
    pid_ = Pid(static_cast<int32_t>(Do(op::CreateProcess{"worker", 1000, false}).value));
    op::Exec exec;
    exec.pid = pid_;
    exec.image = SmallProgram(LayoutKind::kArm64);
    Do(exec);
    Do(op::WriteSysfs{kEnabled, "y"});
  }
  ~GenerationsTest() override {
    for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  }

  Outcome Do(const Operation& operation, Explanation* why = nullptr) {
    Outcome outcome = machine_->Apply(operation, why);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome;
  }
  void Swapon() { Do(op::Swapon{"/dev/vdb", std::nullopt}); }
  uint64_t Map(uint64_t bytes) { return Do(op::Mmap{.pid = pid_, .length = bytes, .prot = 3, .flags = 0x22}).value; }
  Outcome Touch(uint64_t address, uint64_t bytes, Explanation* why = nullptr) {
    op::AccessMemory touch{.pid = pid_, .access = {}};
    touch.access.kind = AccessKind::kTouchWrite;
    touch.access.address = address;
    touch.access.length = bytes;
    touch.access.stride = kPage;
    return machine_->Apply(touch, why);
  }
  void Read(uint64_t offset, uint64_t bytes) {
    const auto fd = static_cast<int32_t>(Do(op::Open{.pid = pid_, .path = "/data", .flags = 0}).value);
    if (buffer_ == 0) buffer_ = Map(kMib);
    for (uint64_t at = offset; at < offset + bytes; at += kMib) Do(op::Pread{pid_, fd, buffer_, std::min(kMib, offset + bytes - at), at});
    Do(op::Close{pid_, fd});
  }
  const LruGenerations& generations() const { return *machine_->memory().lru().root().generations; }
  uint64_t FreeBytes() const { return machine_->memory().free_pages().raw() * kPage; }
  uint64_t Count(VmEvent event) const { return machine_->vm_stat().Get(event); }
  int64_t Pages(NodeStat item) const { return machine_->vm_stat().Get(item); }

  std::unique_ptr<Machine> machine_;
  Pid pid_;
  uint64_t buffer_ = 0;
};

TEST_F(GenerationsTest, SwitchingMovesEveryPageAndBack) {
  Touch(Map(4 * kMib), 4 * kMib);
  Read(0, 2 * kMib);
  machine_->Apply(op::Madvise{pid_, Map(kPage), kPage, 20});  // Empties the batches.
  const auto evictable = [&] {
    return Pages(NodeStat::kNrInactiveAnon) + Pages(NodeStat::kNrActiveAnon) + Pages(NodeStat::kNrInactiveFile) +
           Pages(NodeStat::kNrActiveFile);
  };
  const int64_t pages = evictable();
  Do(op::WriteSysfs{kEnabled, "n"});
  EXPECT_EQ(evictable(), pages);
  EXPECT_EQ(machine_->memory().lru().root().generations, nullptr);
  for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  Do(op::WriteSysfs{kEnabled, "0x0003"});
  EXPECT_EQ(evictable(), pages);
  EXPECT_EQ(machine_->SysfsText(kEnabled), "0x0003\n");
}

TEST_F(GenerationsTest, TheSwitchReadsBackWhatTheProcessorCanDo) {
  EXPECT_EQ(machine_->SysfsText(kEnabled), "0x0003\n");  // No accessed marks of tables on ARM64.
  Do(op::WriteSysfs{kEnabled, "0"});
  EXPECT_EQ(machine_->SysfsText(kEnabled), "0x0000\n");
  EXPECT_EQ(machine_->Apply(op::WriteSysfs{kEnabled, "perhaps"}).error, Errno::kEINVAL);
  Do(op::WriteSysfs{kMinTtl, "1000"});
  EXPECT_EQ(machine_->SysfsText(kMinTtl), "1000\n");
}

TEST_F(GenerationsTest, FaultedPagesAreYoungAndReadOnesAreNot) {
  Touch(Map(4 * kMib), 4 * kMib);
  Read(0, 4 * kMib);
  machine_->Apply(op::Madvise{pid_, Map(kPage), kPage, 20});
  EXPECT_GE(generations().Pages(generations().max_seq, 0), 4 * kMib / kPage - 15);
  EXPECT_GE(generations().Pages(generations().min_seq[1] + 1, 1) + generations().Pages(generations().min_seq[1], 1), 4 * kMib / kPage - 15);
}

TEST_F(GenerationsTest, WhatIsUsedStaysAndWhatIsNotGoes) {
  Swapon();
  const uint64_t hot = Map(8 * kMib);
  Touch(hot, 8 * kMib);
  const uint64_t bytes = FreeBytes() + 16 * kMib;
  const uint64_t cold = Map(bytes);
  for (uint64_t at = 0; at < bytes; at += kMib) {
    Touch(cold + at, std::min(kMib, bytes - at));
    Touch(hot, 8 * kMib);
  }
  EXPECT_GT(Count(VmEvent::kPswpout), 2000u);
  op::Mincore resident{pid_, hot, 8 * kMib};
  const std::string vector = Do(resident).data;
  const auto here = static_cast<uint64_t>(std::count(vector.begin(), vector.end(), '\1'));
  EXPECT_GT(here, 8 * kMib / kPage * 95 / 100);
}

TEST_F(GenerationsTest, FilesThatDoNotFitComeBackAsRefaults) {
  Read(0, 8 * kMib);
  const uint64_t free = FreeBytes();
  const uint64_t eater = Map(free - 12 * kMib);
  Touch(eater, free - 12 * kMib);
  // Again and again, while the rest of the file passes by once.
  for (int round = 0; round < 12; ++round) {
    Read(0, 8 * kMib);
    Read(8 * kMib, 24 * kMib);
  }
  EXPECT_GT(Count(VmEvent::kPgstealFile), 0u);
  EXPECT_GT(Pages(NodeStat::kWorkingsetRefaultFile), 0);
  // New pages of files begin old: as long as there are some to take, nobody has to ask what else was used.
  EXPECT_EQ(generations().max_seq, uint64_t{kMinGenerations + 1});
}

TEST_F(GenerationsTest, NothingYoungerThanMinTtlIsEvictedAProcessIsKilledRather) {
  Swapon();
  Do(op::WriteSysfs{kMinTtl, "60000"});
  const uint64_t bytes = FreeBytes() + 32 * kMib;
  const Outcome outcome = Touch(Map(bytes), bytes);
  EXPECT_TRUE(outcome.signal.has_value());
  EXPECT_GT(Count(VmEvent::kOomKill), 0u);
}

TEST_F(GenerationsTest, SaysWhyPagesGoAndWhyAGenerationBegins) {
  Swapon();
  const uint64_t bytes = FreeBytes() + 24 * kMib;
  const uint64_t address = Map(bytes);
  Touch(address, FreeBytes() - 8 * kMib);
  bool added = false, scanned = false, evicted = false;
  for (uint64_t at = 0; at < bytes && !(added && scanned && evicted); at += 16 * kPage) {
    Explanation why;
    Touch(address + at, 16 * kPage, &why);
    for (const ExplanationStep& step : why.steps()) {
      added = added || step.kind == StepKind::kGenerationAdded;
      scanned = scanned || step.kind == StepKind::kGenerationScan;
      evicted = evicted || step.kind == StepKind::kPageEvicted;
    }
  }
  EXPECT_TRUE(added);
  EXPECT_TRUE(scanned);
  EXPECT_TRUE(evicted);
}

TEST_F(GenerationsTest, CgroupsHaveGenerationsOfTheirOwn) {
  Swapon();
  Do(op::WriteCgroupFile{"", "cgroup.subtree_control", "+memory"});
  Do(op::CreateCgroup{"small"});
  Do(op::WriteCgroupFile{"small", "memory.max", "8388608"});
  Do(op::WriteCgroupFile{"small", "cgroup.procs", std::to_string(pid_.raw())});
  EXPECT_FALSE(Touch(Map(16 * kMib), 16 * kMib).signal.has_value());
  EXPECT_GT(Count(VmEvent::kPswpout), 1500u);
  const std::string text = LruGenText(*machine_);
  EXPECT_TRUE(absl::StrContains(text, " /small\n")) << text;
}

TEST(GenerationsOffTest, TheViewShowsFourEmptyGenerationsAsOldAsTheMachine) {
  auto machine = std::move(Machine::Boot(PresetSpec("arm64-128M"))).value();
  ASSERT_EQ(machine->Apply(op::AdvanceTime{1'208'000'000}).error, Errno::kOk);
  EXPECT_EQ(LruGenText(*machine),
            "memcg     1 /\n"
            " node     0\n"
            "          0       1208          0           0 \n"
            "          1       1208          0           0 \n"
            "          2       1208          0           0 \n"
            "          3       1208          0           0 \n");
}

}  // namespace
}  // namespace mmlab

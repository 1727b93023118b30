// Swap as a process meets it: out and back with its content, shared after fork, shmem, swapoff.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "server/base/explanation.h"
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
constexpr int32_t kMadvWillneed = 3;
constexpr int32_t kMadvDontneed = 4;
constexpr int32_t kMadvPageout = 21;

struct SwapCase {
  const char* name;
  const char* preset;
  LayoutKind layout;
};

// A booted machine with a swap device and one process.
class SwapTest : public testing::TestWithParam<SwapCase> {
 protected:
  SwapTest() {
    MachineSpec spec = PresetSpec(GetParam().preset);
    auto booted = Machine::Boot(spec);
    EXPECT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    Do(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    Do(op::CreateFile{"/dev/vdb", op::FileSystem::kBlockDevice, 64 * kMib + kPage, "", false});
    pid_ = Pid(static_cast<int32_t>(Do(op::CreateProcess{"worker", 1000, false}).value));
    op::Exec exec;
    exec.pid = pid_;
    exec.image = SmallProgram(GetParam().layout);
    Do(exec);
    Do(op::Swapon{"/dev/vdb", std::nullopt});
  }
  ~SwapTest() override {
    for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  }

  Outcome Do(const Operation& operation, Explanation* why = nullptr) {
    Outcome outcome = machine_->Apply(operation, why);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome;
  }
  uint64_t Map(uint64_t bytes, uint32_t flags = kPrivateAnonymous) {
    return Do(op::Mmap{.pid = pid_, .length = bytes, .prot = kReadWrite, .flags = flags}).value;
  }
  AccessResult Access(Pid pid, AccessKind kind, uint64_t address, uint64_t length, uint64_t value = 0, Explanation* why = nullptr) {
    op::AccessMemory access{.pid = pid, .access = {}};
    access.access.kind = kind;
    access.access.address = address;
    access.access.length = length;
    access.access.value = value;
    access.access.stride = kPage;
    const Outcome outcome = Do(access, why);
    EXPECT_FALSE(outcome.signal.has_value());
    return outcome.access.value_or(AccessResult{});
  }
  void Fill(uint64_t address, uint64_t pages) {
    for (uint64_t i = 0; i < pages; ++i) Access(pid_, AccessKind::kStore, address + i * kPage + 8 * (i % 512), 8, 0x1234567890ab + i);
  }
  void ExpectFilled(Pid pid, uint64_t address, uint64_t pages) {
    for (uint64_t i = 0; i < pages; ++i) {
      const uint64_t wanted = 0x1234567890ab + i;
      ASSERT_EQ(Access(pid, AccessKind::kLoad, address + i * kPage + 8 * (i % 512), 8).value, wanted) << "page " << i;
    }
  }
  void PageOut(Pid pid, uint64_t address, uint64_t bytes) { Do(op::Madvise{pid, address, bytes, kMadvPageout}); }
  Bytes Swapped(Pid pid) const { return machine_->processes().Status(*machine_->processes().Find(pid)).vm_swap; }
  // What the swap cache has of pages goes, so that the next access has to read.
  void EmptySwapCache() {
    const uint64_t bytes = machine_->memory().free_pages().raw() * kPage + 8 * kMib;
    const Pid eater = Fork();
    const Outcome map = Do(op::Mmap{.pid = eater, .length = bytes, .prot = kReadWrite, .flags = kPrivateAnonymous});
    Access(eater, AccessKind::kTouchWrite, map.value, bytes);
    Do(op::Exit{eater, 0});
  }
  Pid Fork() { return Pid(static_cast<int32_t>(Do(op::Fork{pid_, 0}).value)); }
  uint64_t Count(VmEvent event) const { return machine_->vm_stat().Get(event); }
  const SwapAreas& swap() const { return machine_->files().swap(); }

  std::unique_ptr<Machine> machine_;
  Pid pid_;
};

TEST_P(SwapTest, PagesGoOutAndComeBackWithTheirContent) {
  const uint64_t address = Map(4 * kMib);
  Fill(address, 1024);
  PageOut(pid_, address, 4 * kMib);
  EXPECT_EQ(Swapped(pid_), Bytes(4 * kMib));
  EXPECT_EQ(Count(VmEvent::kPswpout), 1024u);
  EXPECT_LT(machine_->processes().Resident(*machine_->processes().Find(pid_)).anon, Bytes(kMib));
  // They are in memory still, in the swap cache.
  EXPECT_EQ(swap().cached_pages(), 1024u);
  ExpectFilled(pid_, address, 1024);
  EXPECT_EQ(Count(VmEvent::kPswpin), 0u);
  EXPECT_LE(Swapped(pid_), Bytes(65 * kPage));  // A task's own counters lag behind.
}

TEST_P(SwapTest, PressureTakesThemOutOfMemoryAndFaultsReadThemWithTheirNeighbours) {
  const uint64_t address = Map(4 * kMib);
  Fill(address, 1024);
  PageOut(pid_, address, 4 * kMib);
  EmptySwapCache();
  EXPECT_LT(swap().cached_pages(), 1024u);
  const uint64_t swapped = Swapped(pid_).raw() / kPage;
  EXPECT_GE(swapped, 1024u);
  ExpectFilled(pid_, address, 1024);
  EXPECT_GE(Count(VmEvent::kPswpin), 900u);
  EXPECT_GT(Count(VmEvent::kPgmajfault), 100u);
  EXPECT_LT(Count(VmEvent::kPgmajfault), 400u);
  EXPECT_GT(Count(VmEvent::kSwapRaHit), 600u);
}

TEST_P(SwapTest, AForkSharesWhatIsSwappedAndWritesItsOwn) {
  const uint64_t address = Map(kMib);
  Fill(address, 256);
  PageOut(pid_, address, kMib);
  const Pid child = Fork();
  EXPECT_EQ(Swapped(child), Swapped(pid_));
  Access(child, AccessKind::kTouchWrite, address, kMib / 2, 0x77);
  ExpectFilled(pid_, address, 256);
  EXPECT_EQ(Access(child, AccessKind::kLoad, address + 4 * kPage, 1).value, 0x77u);
  EXPECT_EQ(Access(child, AccessKind::kLoad, address + 200 * kPage + 8 * 200, 8).value, 0x1234567890abu + 200);
  Do(op::Exit{child, 0});
  Do(op::Munmap{pid_, address, kMib});
  EXPECT_EQ(swap().cached_pages(), 0u);
}

TEST_P(SwapTest, WhatIsGivenUpLeavesNoSlotTaken) {
  const uint64_t address = Map(kMib);
  Fill(address, 256);
  PageOut(pid_, address, kMib);
  EmptySwapCache();
  Do(op::Madvise{pid_, address, kMib / 2, kMadvDontneed});
  EXPECT_EQ(Access(pid_, AccessKind::kLoad, address + 8, 8).value, 0u);
  const uint64_t moved = Do(op::Mremap{pid_, address + kMib / 2, kMib / 2, kMib, 1, 0}).value;
  EXPECT_EQ(Access(pid_, AccessKind::kLoad, moved + 8 * 128, 8).value, 0x1234567890abu + 128);
  Do(op::Exit{pid_, 0});
  Do(op::Swapoff{"/dev/vdb"});
  EXPECT_EQ(swap().total_pages(), 0u);
}

TEST_P(SwapTest, SwapoffBringsEverythingBack) {
  const uint64_t address = Map(4 * kMib);
  const uint64_t shared = Map(2 * kMib, kSharedAnonymous);
  Fill(address, 1024);
  Fill(shared, 512);
  PageOut(pid_, address, 4 * kMib);
  PageOut(pid_, shared, 2 * kMib);
  EmptySwapCache();
  const Pid child = Fork();
  Do(op::Swapoff{"/dev/vdb"});
  EXPECT_EQ(Swapped(pid_), Bytes(0));
  EXPECT_EQ(swap().Views().size(), 0u);
  EXPECT_EQ(machine_->Apply(op::Swapoff{"/dev/vdb"}).error, Errno::kEINVAL);
  EXPECT_EQ(machine_->Apply(op::Swapoff{"/nothing"}).error, Errno::kENOENT);
  ExpectFilled(child, address, 1024);
  ExpectFilled(pid_, shared, 512);
  Access(child, AccessKind::kTouchWrite, address, 4 * kMib, 1);
  ExpectFilled(pid_, address, 1);
}

TEST_P(SwapTest, PagesOfShmemComeBackThroughFaultsAndThroughReads) {
  const uint64_t shared = Map(2 * kMib, kSharedAnonymous);
  Fill(shared, 512);
  PageOut(pid_, shared, 2 * kMib);
  EmptySwapCache();
  EXPECT_EQ(machine_->files().shmem_pages(), 0u);
  const Outcome residency = Do(op::Mincore{pid_, shared, 2 * kMib});
  EXPECT_LT(std::count(residency.data.begin(), residency.data.end(), '\1'), 512);
  Do(op::Madvise{pid_, shared, kMib, kMadvWillneed});
  EXPECT_GE(swap().cached_pages(), 256u);
  ExpectFilled(pid_, shared, 512);
  EXPECT_EQ(machine_->files().shmem_pages(), 512u);
}

TEST_P(SwapTest, ASwapAreaIsNotForAnythingElse) {
  Do(op::CreateFile{"/t/file", op::FileSystem::kTmpfs, kMib, "", true});
  EXPECT_EQ(machine_->Apply(op::Swapon{"/t/file", 1}).error, Errno::kEINVAL);
  EXPECT_EQ(machine_->Apply(op::Swapon{"/nothing", 1}).error, Errno::kENOENT);
  EXPECT_EQ(machine_->Apply(op::Swapon{"/dev/vdb", 1}).error, Errno::kEBUSY);
  EXPECT_EQ(machine_->Apply(op::Unlink{"/dev/vdb"}).error, Errno::kEPERM);
  const Outcome fd = Do(op::Open{.pid = pid_, .path = "/dev/vdb", .flags = 2});
  EXPECT_EQ(machine_->Apply(op::Pwrite{pid_, static_cast<int32_t>(fd.value), Map(kPage), 16, 0}).error, Errno::kETXTBSY);
}

TEST_P(SwapTest, SaysWhereAPageWentAndWhereItCameFrom) {
  const uint64_t address = Map(kPage);
  Access(pid_, AccessKind::kStore, address, 4, 7);
  Explanation out;
  Do(op::Madvise{pid_, address, kPage, kMadvPageout}, &out);
  Explanation in;
  Access(pid_, AccessKind::kLoad, address, 4, 0, &in);
  const auto has = [](const Explanation& why, StepKind kind) {
    return std::any_of(why.steps().begin(), why.steps().end(), [kind](const ExplanationStep& step) { return step.kind == kind; });
  };
  EXPECT_TRUE(has(out, StepKind::kSwapSlot));
  EXPECT_TRUE(has(out, StepKind::kSwapOut));
  EXPECT_TRUE(has(in, StepKind::kSwapIn));
}

INSTANTIATE_TEST_SUITE_P(AllLayouts, SwapTest,
                         testing::Values(SwapCase{"TwoLevels", "686-64M", LayoutKind::kX86_32},
                                         SwapCase{"Pae", "686-pae-1G", LayoutKind::kX86_32Pae},
                                         SwapCase{"Arm64", "arm64-128M", LayoutKind::kArm64}),
                         [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace mmlab

// Files in memory as a process meets them: how much is read together, when what was written reaches the disk.

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "server/cgroup/cgroups.h"
#include "server/files/files.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kPage = 4096;
constexpr int64_t kSecond = 1'000'000'000;
constexpr uint32_t kReadWrite = 3;

class PageCacheTest : public testing::Test {
 protected:
  PageCacheTest() {
    auto booted = Machine::Boot(PresetSpec("arm64-128M"));
    EXPECT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    Do(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    Do(op::CreateFile{"/data", op::FileSystem::kExt4, 16 * kMib, "", false});
    pid_ = Pid(static_cast<int32_t>(Do(op::CreateProcess{"reader", 1000, false}).value));
    op::Exec exec;
    exec.pid = pid_;
    exec.image = SmallProgram(LayoutKind::kArm64);
    Do(exec);
    fd_ = static_cast<int32_t>(Do(op::Open{.pid = pid_, .path = "/data", .flags = 2}).value);
    buffer_ = Do(op::Mmap{.pid = pid_, .length = 16 * kMib, .prot = kReadWrite, .flags = 0x22}).value;
  }
  ~PageCacheTest() override {
    for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  }

  Outcome Do(const Operation& operation) {
    Outcome outcome = machine_->Apply(operation);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome;
  }
  void Read(uint64_t offset, uint64_t bytes) { Do(op::Pread{pid_, fd_, buffer_, bytes, offset}); }
  void Write(uint64_t offset, uint64_t bytes) { Do(op::Pwrite{pid_, fd_, buffer_, bytes, offset}); }
  size_t Cached() const { return machine_->files().Find("/data")->pages.pages(); }
  int64_t Dirty() const { return machine_->vm_stat().Get(NodeStat::kNrDirty); }
  int64_t UnderWay() const { return machine_->vm_stat().Get(NodeStat::kNrWriteback); }

  std::unique_ptr<Machine> machine_;
  Pid pid_;
  int32_t fd_ = 0;
  uint64_t buffer_ = 0;
};

TEST_F(PageCacheTest, SmallReadsFromTheStartReadMoreAndMoreAhead) {
  Read(0, 1);
  EXPECT_EQ(Cached(), 4u);
  Read(1, 100);
  EXPECT_EQ(Cached(), 4u);
  // The second page is the mark: the next window comes.
  Read(kPage, 1);
  EXPECT_EQ(Cached(), 12u);
  Read(2 * kPage, 1);
  EXPECT_EQ(Cached(), 12u);
  Read(4 * kPage, 1);
  EXPECT_EQ(Cached(), 28u);
  Read(12 * kPage, 1);
  EXPECT_EQ(Cached(), 60u);
}

TEST_F(PageCacheTest, ReadsHereAndThereReadNothingAhead) {
  for (const uint64_t page : {100, 900, 300, 2000}) Read(page * kPage, 1);
  EXPECT_EQ(Cached(), 4u);
}

TEST_F(PageCacheTest, AFaultReadsAroundItselfUnlessTheAdviceIsRandom) {
  const uint64_t map = Do(op::Mmap{.pid = pid_, .length = 16 * kMib, .prot = 1, .flags = 1, .fd = fd_}).value;
  const auto touch = [&](uint64_t page) {
    op::AccessMemory load{.pid = pid_, .access = {}};
    load.access.kind = AccessKind::kLoad;
    load.access.address = map + page * kPage;
    load.access.length = 1;
    return Do(load).access->major_faults;
  };
  EXPECT_EQ(touch(1000), 1u);
  EXPECT_EQ(Cached(), 32u);
  EXPECT_EQ(touch(985), 0u);
  Do(op::Madvise{pid_, map, 16 * kMib, 1});  // MADV_RANDOM
  EXPECT_EQ(touch(2000), 1u);
  EXPECT_EQ(Cached(), 33u);
}

TEST_F(PageCacheTest, OnlyWhatAWriteLeavesOfAPageIsRead) {
  const auto read_kib = [&] { return machine_->vm_stat().Get(VmEvent::kPgpgin); };
  const uint64_t before = read_kib();
  Write(0, 8 * kPage);
  EXPECT_EQ(read_kib(), before);
  Write(8 * kPage + 1, 100);
  EXPECT_EQ(read_kib(), before + 4);
}

TEST_F(PageCacheTest, WhatWasWrittenReachesTheDiskAfterThirtySeconds) {
  Write(0, kMib);
  EXPECT_EQ(Dirty(), 256);
  Do(op::AdvanceTime{29 * kSecond});
  EXPECT_EQ(Dirty(), 256);
  Do(op::AdvanceTime{6 * kSecond});
  EXPECT_EQ(Dirty(), 0);
  // The flusher looked just now: the disk has to write a MiB yet.
  EXPECT_EQ(UnderWay(), 256);
  Do(op::AdvanceTime{kSecond / 200});
  EXPECT_EQ(UnderWay(), 129);
  Do(op::AdvanceTime{kSecond / 100});
  EXPECT_EQ(UnderWay(), 0);
  EXPECT_EQ(machine_->vm_stat().Get(NodeStat::kNrWritten), 256);
  Do(op::WriteSysctl{"vm.dirty_writeback_centisecs", "0"});
  Write(0, kMib);
  Do(op::AdvanceTime{3600 * kSecond});
  EXPECT_EQ(Dirty(), 256);
  Do(op::Fsync{pid_, fd_});
  EXPECT_EQ(Dirty(), 0);
  Write(0, kPage);
  Do(op::Sync{});
  EXPECT_EQ(Dirty(), 0);
}

TEST_F(PageCacheTest, AboveTheBackgroundLimitTheOldestIsWrittenAtOnce) {
  Do(op::WriteSysctl{"vm.dirty_background_bytes", "2097152"});
  Write(0, kMib);
  EXPECT_EQ(Dirty(), 256);
  Write(kMib, 8 * kMib);
  EXPECT_LE(Dirty(), 512 + 300);
  EXPECT_GT(UnderWay(), 1000);
  Do(op::AdvanceTime{kSecond});
  EXPECT_EQ(UnderWay(), 0);
  EXPECT_GT(machine_->vm_stat().Get(NodeStat::kNrWritten), 1000);
}

TEST_F(PageCacheTest, AWriterWaitsHalfWayFromTheBackgroundLimitToTheLimit) {
  Do(op::WriteSysctl{"vm.dirty_background_bytes", "1048576"});
  Do(op::WriteSysctl{"vm.dirty_bytes", "3145728"});
  for (uint64_t at = 0; at < 16 * kMib; at += kMib) {
    Write(at, kMib);
    EXPECT_LE(Dirty() + UnderWay(), 512 + 24) << at;
  }
  EXPECT_GT(machine_->vm_stat().Get(NodeStat::kNrWritten), 3500);
  // A MiB takes 10 ms.
  EXPECT_GT(machine_->cgroups().psi(0).total(StallKind::kIo), 130'000);
}

TEST_F(PageCacheTest, WhoeverTakesAwayOrNeedsAPageWaitsUntilItIsOnTheDisk) {
  Do(op::WriteSysctl{"vm.dirty_background_bytes", "4096"});
  Write(0, 4 * kMib);
  EXPECT_GT(UnderWay(), 900);
  Do(op::Fsync{pid_, fd_});
  EXPECT_EQ(UnderWay(), 0);
  Write(0, 4 * kMib);
  Do(op::Ftruncate{pid_, fd_, 0});
  EXPECT_EQ(UnderWay(), 0);
  EXPECT_EQ(Dirty(), 0);
}

TEST_F(PageCacheTest, DisksCountWhatTheyWereAskedFor) {
  const auto disk = [&] { return machine_->files().Disks().front(); };
  EXPECT_EQ(disk().name, "sda");
  const DiskStats before = disk().stats;
  Read(0, 1);
  EXPECT_EQ(disk().stats.reads.requests, before.reads.requests + 1);
  EXPECT_EQ(disk().stats.reads.merges, before.reads.merges + 3);
  EXPECT_EQ(disk().stats.reads.kib, before.reads.kib + 16);
  Write(0, kMib);
  Do(op::Sync{});
  EXPECT_EQ(disk().stats.writes.requests, before.writes.requests + 1);
  EXPECT_EQ(disk().stats.writes.kib, before.writes.kib + 1024);
}

TEST_F(PageCacheTest, APathThatIsUnlinkedLeavesTheFileToWhoHasItOpen) {
  Read(0, 16);
  Do(op::Unlink{"/data"});
  EXPECT_EQ(machine_->Apply(op::Unlink{"/data"}).error, Errno::kENOENT);
  Read(0, 16);
  const uint64_t cached = machine_->files().cached_pages();
  Do(op::Close{pid_, fd_});
  EXPECT_LT(machine_->files().cached_pages(), cached);
}

TEST_F(PageCacheTest, PagesOfADiskAreBuffers) {
  Do(op::CreateFile{"/dev/vda", op::FileSystem::kBlockDevice, kMib, "boot", false});
  const Outcome fd = Do(op::Open{.pid = pid_, .path = "/dev/vda", .flags = 0});
  Do(op::Pread{pid_, static_cast<int32_t>(fd.value), buffer_, 4, 0});
  EXPECT_EQ(machine_->files().buffer_pages(), 4u);
}

}  // namespace
}  // namespace mmlab

#include "server/reclaim/reclaim.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint32_t kReadWrite = 3;
constexpr uint32_t kPrivateAnonymous = 0x22;
constexpr int32_t kMadvDontneed = 4;
constexpr int32_t kMadvFree = 8;

// A booted machine with one process, and what it does to its memory.
class Pressure {
 public:
  Pressure() {
    auto booted = Machine::Boot(PresetSpec("arm64-128M"));
    EXPECT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    CreateFile("/bin/program", 0x12000, "program");
    pid_ = Pid(static_cast<int32_t>(machine_->Apply(op::CreateProcess{"eater", 1000, false}).value));
    op::Exec exec;
    exec.pid = pid_;
    exec.image = SmallProgram(LayoutKind::kArm64);
    EXPECT_EQ(machine_->Apply(exec).error, Errno::kOk);
  }

  Machine& machine() { return *machine_; }
  Pid pid() const { return pid_; }
  uint64_t Map(uint64_t bytes) {
    return machine_->Apply(op::Mmap{.pid = pid_, .length = bytes, .prot = kReadWrite, .flags = kPrivateAnonymous}).value;
  }
  // Writes a byte into each page; how many could be written.
  uint64_t Write(uint64_t address, uint64_t bytes, Explanation* why = nullptr) {
    op::AccessMemory touch{.pid = pid_, .access = {}};
    touch.access.kind = AccessKind::kTouchWrite;
    touch.access.address = address;
    touch.access.length = bytes;
    touch.access.stride = 4096;
    const Outcome outcome = machine_->Apply(touch, why);
    return outcome.access ? outcome.access->done : 0;
  }
  void CreateFile(const char* path, uint64_t bytes, const std::string& content) {
    op::CreateFile file{.path = path, .file_system = op::FileSystem::kExt4, .size = bytes, .content = content, .resident = true};
    EXPECT_EQ(machine_->Apply(file).error, Errno::kOk);
  }
  // The first bytes of a file, by pread().
  std::string ReadBack(const char* path, uint64_t offset, uint64_t bytes) {
    const Outcome fd = machine_->Apply(op::Open{.pid = pid_, .path = path, .flags = 0});
    const uint64_t buffer = Map(4096);
    EXPECT_EQ(machine_->Apply(op::Pread{pid_, static_cast<int32_t>(fd.value), buffer, bytes, offset}).value, bytes);
    op::AccessMemory load{.pid = pid_, .access = {}};
    load.access.kind = AccessKind::kReadBytes;
    load.access.address = buffer;
    load.access.length = bytes;
    return machine_->Apply(load).data;
  }
  void Advise(uint64_t address, uint64_t bytes, int32_t advice) {
    EXPECT_EQ(machine_->Apply(op::Madvise{pid_, address, bytes, advice}).error, Errno::kOk);
  }
  uint64_t Count(VmEvent event) const { return machine_->vm_stat().Get(event); }
  void ExpectSound() {
    for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  }

 private:
  std::unique_ptr<Machine> machine_;
  Pid pid_;
};

TEST(ReclaimTest, CleanPagesOfFilesMakeRoomAndComeBackWithTheirContent) {
  Pressure lab;
  lab.CreateFile("/data", 48 * kMib, "first bytes");
  const uint64_t free = lab.machine().memory().free_pages().raw() * 4096;
  const uint64_t bytes = free + 16 * kMib;
  EXPECT_EQ(lab.Write(lab.Map(bytes), bytes), bytes / 4096);
  EXPECT_GT(lab.Count(VmEvent::kPgstealKswapd), 0u);
  EXPECT_LT(lab.machine().files().cached_pages(), 48 * kMib / 4096);
  EXPECT_EQ(lab.ReadBack("/data", 0, 11), "first bytes");
  lab.ExpectSound();
}

TEST(ReclaimTest, WhenNothingCanBeFreedMemoryIsGone) {
  Pressure lab;
  const uint64_t bytes = 400 * kMib;
  ASSERT_EQ(lab.machine().Apply(op::WriteSysctl{"vm.overcommit_memory", "1"}).error, Errno::kOk);
  EXPECT_LT(lab.Write(lab.Map(bytes), bytes), bytes / 4096);
  EXPECT_GT(lab.Count(VmEvent::kPgscanDirect) + lab.Count(VmEvent::kAllocstallMovable) + lab.Count(VmEvent::kAllocstallNormal), 0u);
  lab.ExpectSound();
}

TEST(ReclaimTest, LazilyFreedPagesGoUnlessTheyWereWrittenAgain) {
  Pressure lab;
  const uint64_t lazy = lab.Map(32 * kMib);
  ASSERT_EQ(lab.Write(lazy, 32 * kMib), 8192u);
  lab.Advise(lazy, 32 * kMib, kMadvFree);
  ASSERT_EQ(lab.Write(lazy, kMib), 256u);
  const uint64_t bytes = lab.machine().memory().free_pages().raw() * 4096 + 8 * kMib;
  EXPECT_EQ(lab.Write(lab.Map(bytes), bytes), bytes / 4096);
  EXPECT_GT(lab.Count(VmEvent::kPglazyfreed), 0u);
  EXPECT_LE(lab.Count(VmEvent::kPglazyfreed), 8192u - 256u);
  lab.ExpectSound();
}

TEST(ReclaimTest, DropCachesTakesWhatIsCleanAndUnmapped) {
  Pressure lab;
  lab.CreateFile("/data", 8 * kMib, "kept");
  const uint64_t cached = lab.machine().files().cached_pages();
  ASSERT_EQ(lab.machine().Apply(op::WriteSysctl{"vm.drop_caches", "1"}).error, Errno::kOk);
  EXPECT_LE(lab.machine().files().cached_pages() + 2048, cached);
  EXPECT_EQ(lab.ReadBack("/data", 0, 4), "kept");
  EXPECT_EQ(lab.machine().Apply(op::WriteSysctl{"vm.drop_caches", "5"}).error, Errno::kEINVAL);
  lab.ExpectSound();
}

TEST(ReclaimTest, SaysWhyKswapdWokeAndWhatItDid) {
  Pressure lab;
  lab.CreateFile("/data", 48 * kMib, "");
  const uint64_t bytes = lab.machine().memory().free_pages().raw() * 4096 - 8 * kMib;
  const uint64_t address = lab.Map(bytes + 16 * kMib);
  lab.Write(address, bytes);
  bool woke = false;
  bool evicted = false;
  for (uint64_t at = bytes; at < bytes + 16 * kMib && !evicted; at += 4096) {
    Explanation why;
    lab.Write(address + at, 4096, &why);
    for (const ExplanationStep& step : why.steps()) {
      woke = woke || step.kind == StepKind::kKswapdWake;
      evicted = evicted || step.kind == StepKind::kPageEvicted;
    }
  }
  EXPECT_TRUE(woke);
  EXPECT_TRUE(evicted);
}

// kswapd sleeps lightly for a tenth of a second: woken before, it was too early to sleep; after that it looks for itself.
TEST(ReclaimTest, KswapdSleepsLightlyAtFirst) {
  Pressure lab;
  lab.CreateFile("/data", 48 * kMib, "");
  ASSERT_EQ(lab.machine().Apply(op::WriteSysctl{"vm.overcommit_memory", "1"}).error, Errno::kOk);
  const uint64_t address = lab.Map(160 * kMib);
  uint64_t at = 0;
  const auto write_until = [&](VmEvent event, uint64_t count) {
    for (; at < 160 * kMib && lab.Count(event) < count; at += 4096) lab.Write(address + at, 4096);
  };
  write_until(VmEvent::kPageoutrun, 1);
  ASSERT_EQ(lab.Count(VmEvent::kPageoutrun), 1u);
  EXPECT_EQ(lab.Count(VmEvent::kKswapdLowWmarkHitQuickly), 0u);
  write_until(VmEvent::kPageoutrun, 2);
  EXPECT_EQ(lab.Count(VmEvent::kKswapdLowWmarkHitQuickly), 1u);
  // Now a little is taken, so that no zone is above its high watermark while nobody wakes kswapd.
  for (int page = 0; page < 64; ++page, at += 4096) lab.Write(address + at, 4096);
  ASSERT_EQ(lab.Count(VmEvent::kPageoutrun), 2u);
  const uint64_t free = lab.machine().memory().free_pages().raw();
  Explanation why;
  ASSERT_EQ(lab.machine().Apply(op::AdvanceTime{100'000'000}, &why).error, Errno::kOk);
  EXPECT_EQ(lab.Count(VmEvent::kKswapdHighWmarkHitQuickly), 1u);
  EXPECT_EQ(lab.Count(VmEvent::kPageoutrun), 3u);
  EXPECT_GT(lab.machine().memory().free_pages().raw(), free);
  ASSERT_FALSE(why.steps().empty());
  EXPECT_EQ(why.steps()[0].kind, StepKind::kKswapdWake);
  // Asleep for good: the next time is not early.
  ASSERT_EQ(lab.machine().Apply(op::AdvanceTime{200'000'000}).error, Errno::kOk);
  write_until(VmEvent::kPageoutrun, 4);
  EXPECT_EQ(lab.Count(VmEvent::kKswapdLowWmarkHitQuickly), 1u);
  lab.ExpectSound();
}

TEST(ReclaimTest, EntriesThatGoAreForgottenByTlbs) {
  Pressure lab;
  ASSERT_EQ(lab.machine().Apply(op::CreateFile{"/dev/vdb", op::FileSystem::kBlockDevice, 16 * kMib, "", false}).error, Errno::kOk);
  ASSERT_EQ(lab.machine().Apply(op::Swapon{"/dev/vdb", std::nullopt}).error, Errno::kOk);
  constexpr int32_t kMadvPageout = 21;
  const uint64_t address = lab.Map(64 * 4096);
  ASSERT_EQ(lab.Write(address, 64 * 4096), 64u);
  Explanation why;
  EXPECT_EQ(lab.machine().Apply(op::Madvise{lab.pid(), address, 64 * 4096, kMadvPageout}, &why).error, Errno::kOk);
  int64_t entries = 0, flushes = 0;
  for (const ExplanationStep& step : why.steps()) {
    if (step.kind != StepKind::kTlbFlush) continue;
    for (const Fact& fact : step.facts) {
      if (fact.name == "entries") entries += fact.number;
      if (fact.name == "flushes") flushes += fact.number;
    }
  }
  EXPECT_EQ(entries, 64);
  EXPECT_EQ(flushes, 64);  // ARM64 does not put any off.
}

// A request that has to steal from page blocks of another kind boosts the watermarks, and kswapd takes as many clean pages of files.
TEST(ReclaimTest, StolenPageBlocksWakeKswapdForTheirBoost) {
  Pressure lab;
  lab.CreateFile("/data", 16 * kMib, "");
  const uint64_t bytes = lab.machine().memory().free_pages().raw() * 4096 - 8 * kMib;
  const uint64_t address = lab.Map(bytes);
  ASSERT_EQ(lab.Write(address, bytes), bytes / 4096);
  for (uint64_t at = 0; at < 32 * kMib; at += 2 * 4096) lab.Advise(address + at, 4096, kMadvDontneed);
  const uint64_t stolen_before = lab.Count(VmEvent::kPgstealKswapd);
  bool woke = false;
  for (int i = 0; i < 4000 && !woke; ++i) {
    Explanation why;
    ASSERT_EQ(lab.machine().Apply(op::AllocPages{op::GfpClass::kKernel, 0, 0}, &why).error, Errno::kOk);
    for (const ExplanationStep& step : why.steps()) {
      woke = woke || (step.kind == StepKind::kKswapdWake && absl::StartsWith(step.text, "page blocks were stolen"));
    }
  }
  EXPECT_TRUE(woke);
  EXPECT_GT(lab.Count(VmEvent::kPgstealKswapd), stolen_before);
  EXPECT_EQ(lab.machine().vm_stat().Get(NodeStat::kNrVmscanWrite), 0);
  for (const Zone& zone : lab.machine().memory().zones()) EXPECT_EQ(zone.watermark_boost, 0u);
  lab.ExpectSound();
}

}  // namespace
}  // namespace mmlab

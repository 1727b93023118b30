#include "server/physical/compaction.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/explanation.h"
#include "server/base/random.h"
#include "server/machine/machine.h"
#include "server/machine/movable_pages.h"
#include "server/physical/page_allocator.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kPage = 4096;

// A booted machine with processes whose memory is known byte for byte.
class Lab {
 public:
  explicit Lab(const char* preset) {
    auto booted = Machine::Boot(PresetSpec(preset));
    EXPECT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    Must(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    Must(op::WriteSysctl{"vm.overcommit_memory", "1"});
  }

  Machine& machine() { return *machine_; }
  const BuddyMemory& memory() const { return machine_->memory(); }
  Pid Start(const char* comm) {
    const Pid pid(static_cast<int32_t>(Must(op::CreateProcess{comm, 1000, false})));
    op::Exec exec;
    exec.pid = pid;
    exec.image = SmallProgram(machine_->layout().kind);
    Must(exec);
    return pid;
  }
  uint64_t Must(const Operation& operation, Explanation* why = nullptr) {
    const Outcome outcome = machine_->Apply(operation, why);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome.value;
  }
  uint64_t Map(Pid pid, uint64_t bytes, bool shared = false) {
    return Must(op::Mmap{.pid = pid, .length = bytes, .prot = 3, .flags = shared ? 0x21u : 0x22u});
  }
  AccessResult Access(Pid pid, AccessKind kind, uint64_t address, uint64_t value = 0) {
    op::AccessMemory access{.pid = pid, .access = {}};
    access.access.kind = kind;
    access.access.address = address;
    access.access.length = 4;
    access.access.value = value;
    const Outcome outcome = machine_->Apply(access);
    EXPECT_FALSE(outcome.signal.has_value());
    return outcome.access.value_or(AccessResult());
  }
  // Maps memory, writes each page's number into it and gives every n-th page away again.
  uint64_t Fragment(Pid pid, uint64_t pages, uint64_t every, bool shared = false) {
    const uint64_t start = Map(pid, pages * kPage, shared);
    for (uint64_t i = 0; i < pages; ++i) Access(pid, AccessKind::kStore, start + i * kPage, i + 1);
    for (uint64_t i = 0; i < pages; i += every) Must(op::Madvise{pid, start + i * kPage, kPage, 4});
    return start;
  }
  void ExpectContents(Pid pid, uint64_t start, uint64_t pages, uint64_t every) {
    for (uint64_t i = 0; i < pages; ++i) {
      const uint64_t expected = i % every == 0 ? 0 : i + 1;
      ASSERT_EQ(Access(pid, AccessKind::kLoad, start + i * kPage).value, expected) << "page " << i;
    }
  }
  uint64_t FreeBlocks(int order) const {
    uint64_t blocks = 0;
    for (const Zone& zone : memory().zones()) {
      for (int at = order; at <= kMaxOrder; ++at) blocks += uint64_t{zone.free_area[static_cast<size_t>(at)].nr_free} << (at - order);
    }
    return blocks;
  }
  // A part of what is free, in pages, that leaves room for compaction.
  uint64_t Half() const { return std::min<uint64_t>(memory().free_pages().raw() / 2, 40 * kMib / kPage); }
  uint64_t Count(VmEvent event) const { return machine_->vm_stat().Get(event); }
  void ExpectSound() {
    for (const std::string& problem : machine_->CheckInvariants()) ADD_FAILURE() << problem;
  }
  // Takes all memory but `left` pages in single pages that stay where they are.
  void TakeAllBut(uint64_t left) {
    while (memory().free_pages().raw() > left + 64) {
      op::AllocPagesBulk bulk{op::GfpClass::kHighuser, 64, 0};
      if (machine_->Apply(bulk).pfns.empty()) break;
    }
  }

 private:
  std::unique_ptr<Machine> machine_;
};

class CompactionTest : public testing::TestWithParam<const char*> {};

TEST_P(CompactionTest, CompactMemoryMakesLargeBlocksAndKeepsContents) {
  Lab lab(GetParam());
  const Pid pid = lab.Start("fragmenter");
  const uint64_t pages = lab.Half();
  const uint64_t start = lab.Fragment(pid, pages, 2);
  const uint64_t before = lab.FreeBlocks(8);
  Explanation why;
  const uint64_t moved = lab.Must(op::CompactMemory{}, &why);
  EXPECT_GT(moved, pages / 8);
  EXPECT_GT(lab.FreeBlocks(8), before);
  EXPECT_EQ(lab.Count(VmEvent::kPgmigrateSuccess), moved);
  EXPECT_GE(lab.Count(VmEvent::kCompactIsolated), 2 * moved);
  EXPECT_GT(lab.Count(VmEvent::kCompactMigrateScanned), 0u);
  EXPECT_NE(ExplanationText(why).find("the page moved"), std::string::npos);
  lab.ExpectSound();
  lab.ExpectContents(pid, start, pages, 2);
  lab.ExpectSound();
}

TEST_P(CompactionTest, SharedPagesMoveForAllWhoMapThem) {
  Lab lab(GetParam());
  const Pid parent = lab.Start("parent");
  const uint64_t pages = 8 * kMib / kPage;
  lab.TakeAllBut(8 * pages);  // Both scanners get to where the processes' pages are.
  const uint64_t own = lab.Fragment(parent, pages, 2);
  const uint64_t shared = lab.Fragment(parent, pages, 3, true);
  const Pid child(static_cast<int32_t>(lab.Must(op::Fork{parent, 0})));
  lab.Must(op::Mlock{parent, own, kMib, 0});
  lab.Must(op::WriteSysctl{"vm.compact_memory", "1"});
  EXPECT_GT(lab.Count(VmEvent::kPgmigrateSuccess), 0u);
  lab.ExpectSound();
  for (const Pid pid : {parent, child}) lab.ExpectContents(pid, own, pages, 2);
  // Shared anonymous memory lives in a file, so that giving pages away loses nothing.
  for (uint64_t i = 0; i < pages; ++i) ASSERT_EQ(lab.Access(child, AccessKind::kLoad, shared + i * kPage).value, i + 1);
  // What the child writes the parent sees, or not.
  lab.Access(child, AccessKind::kStore, shared, 77);
  EXPECT_EQ(lab.Access(parent, AccessKind::kLoad, shared).value, 77u);
  lab.Access(child, AccessKind::kStore, own + kPage, 78);
  EXPECT_EQ(lab.Access(parent, AccessKind::kLoad, own + kPage).value, 2u);
  lab.ExpectSound();
}

TEST_P(CompactionTest, ACostlyRequestCompactsFirst) {
  Lab lab(GetParam());
  const Pid pid = lab.Start("fragmenter");
  const uint64_t pages = lab.Half();
  const uint64_t start = lab.Fragment(pid, pages, 2);
  lab.TakeAllBut(pages / 4);
  Explanation why;
  std::vector<uint64_t> got;
  for (int i = 0; i < 16; ++i) {
    const Outcome outcome = lab.machine().Apply(op::AllocPages{op::GfpClass::kHighuserMovable, 9, 0}, i == 0 ? &why : nullptr);
    if (outcome.error == Errno::kOk) got.push_back(outcome.value);
  }
  // The single pages leave no high memory free: there it is no use to compact.
  const bool highmem = lab.machine().layout().is_x86() && lab.memory().end_pfn() > Pfn(uint64_t{896} * kMib / kPage);
  if (!highmem) {
    EXPECT_GT(lab.Count(VmEvent::kCompactStall) + lab.Count(VmEvent::kCompactDaemonWake), 0u);
  }
  EXPECT_GE(lab.Count(VmEvent::kCompactStall), lab.Count(VmEvent::kCompactSuccess) + lab.Count(VmEvent::kCompactFail));
  lab.ExpectSound();
  lab.ExpectContents(pid, start, pages, 2);
}

INSTANTIATE_TEST_SUITE_P(Layouts, CompactionTest, testing::Values("arm64-128M", "686-64M", "686-pae-1G"), [](const auto& test) {
  std::string name = test.param;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
});

TEST(MovablePageTest, GoesWithItsNumberAndItsBytes) {
  Lab lab("arm64-128M");
  std::map<uint64_t, uint64_t> first;
  for (uint64_t id = 1; id <= 2000; ++id) first[id] = lab.Must(op::AllocPages{op::GfpClass::kHighuserMovable, 0, 0, false, id});
  for (uint64_t id = 1; id <= 2000; id += 2) lab.Must(op::FreePages{0, 0, 0, id});
  EXPECT_EQ(lab.machine().Apply(op::AllocPages{op::GfpClass::kKernel, 0, 0, false, 2}).error, Errno::kEEXIST);
  EXPECT_EQ(lab.machine().Apply(op::AllocPages{op::GfpClass::kKernel, 1, 0, false, 1}).error, Errno::kEINVAL);
  EXPECT_EQ(lab.machine().Apply(op::FreePages{0, 0, 0, 1}).error, Errno::kEINVAL);
  EXPECT_GT(lab.Must(op::CompactMemory{}), 0u);
  size_t moved = 0;
  for (const auto& [id, pfn] : lab.machine().movable_pages().all()) {
    moved += pfn.raw() != first[id];
    EXPECT_EQ(uint64_t{lab.memory().PeekFrame(pfn).index}, id);
  }
  EXPECT_GT(moved, 0u);
  lab.ExpectSound();
  for (uint64_t id = 2; id <= 2000; id += 2) lab.Must(op::FreePages{0, 0, 0, id});
  EXPECT_TRUE(lab.machine().movable_pages().all().empty());
  lab.ExpectSound();
}

TEST(MovablePageTest, PagesOfAllocPagesStay) {
  Lab lab("arm64-128M");
  std::vector<uint64_t> pfns;
  for (int i = 0; i < 1000; ++i) pfns.push_back(lab.Must(op::AllocPages{op::GfpClass::kHighuserMovable, 0, 0}));
  lab.Must(op::CompactMemory{});
  for (const uint64_t pfn : pfns) lab.Must(op::FreePages{pfn, 0, 0});
  lab.ExpectSound();
}

TEST(KcompactdTest, LooksTwiceASecondAndGivesUpForHalfAMinute) {
  Lab lab("arm64-128M");
  const Pid pid = lab.Start("fragmenter");
  lab.Fragment(pid, lab.Half(), 2);
  lab.Must(op::WriteSysctl{"vm.compaction_proactiveness", "0"});
  lab.Must(op::AdvanceTime{10'000'000'000});
  EXPECT_EQ(lab.Count(VmEvent::kPgmigrateSuccess), 0u);
  lab.Must(op::WriteSysctl{"vm.compaction_proactiveness", "90"});
  EXPECT_GT(lab.Count(VmEvent::kPgmigrateSuccess), 0u);
  lab.ExpectSound();
}

// Processes that fragment memory, requests of any order, compaction now and then: nothing is lost and nothing is given twice.
TEST(CompactionRandomTest, ContentsSurviveWhateverMoves) {
  for (const uint64_t seed : {1u, 2u, 3u}) {
    SCOPED_TRACE(seed);
    Lab lab(seed == 1 ? "arm64-128M" : seed == 2 ? "686-64M" : "686-pae-1G");
    Random random(seed);
    struct Area {
      Pid pid;
      uint64_t start, pages, every;
    };
    std::vector<Area> areas;
    std::vector<std::pair<uint64_t, int32_t>> blocks;
    for (int step = 0; step < 60; ++step) {
      switch (random.Below(5)) {
        case 0: {
          const Pid pid = lab.Start("worker");
          const uint64_t pages = 200 + random.Below(1500);
          const uint64_t every = 2 + random.Below(4);
          if (lab.memory().free_pages().raw() < pages + 4000) break;
          areas.push_back({pid, lab.Fragment(pid, pages, every), pages, every});
          break;
        }
        case 1:
          if (areas.size() < 3) break;
          lab.Must(op::Exit{areas.front().pid, 0});
          areas.erase(areas.begin());
          break;
        case 2: {
          const auto order = static_cast<int32_t>(random.Below(11));
          const auto gfp = static_cast<op::GfpClass>(1 + random.Below(10));
          if (lab.memory().free_pages().raw() < (uint64_t{1} << order) + 5000) break;  // Nobody is to be killed.
          const Outcome outcome = lab.machine().Apply(op::AllocPages{gfp, order, 0});
          if (outcome.error == Errno::kOk) blocks.emplace_back(outcome.value, order);
          break;
        }
        case 3:
          if (blocks.size() < 10) break;
          lab.Must(op::FreePages{blocks.front().first, blocks.front().second, 0});
          blocks.erase(blocks.begin());
          break;
        default:
          lab.Must(op::CompactMemory{});
          break;
      }
      if (step % 10 == 9) lab.ExpectSound();
    }
    for (const Area& area : areas) lab.ExpectContents(area.pid, area.start, area.pages, area.every);
    lab.ExpectSound();
    EXPECT_GT(lab.Count(VmEvent::kPgmigrateSuccess), 0u);
  }
}

}  // namespace
}  // namespace mmlab

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/event.h"
#include "server/machine/machine.h"
#include "server/process/processes.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

class Counting final : public EventSink {
 public:
  Counting() { SetWanted(EventKinds().set()); }
  std::map<std::string, int> counts;
  std::vector<std::string> lines;  // The first of each kind.

 private:
  void Record(EventKind kind, absl::Span<const EventValue> values) override {
    const EventFormat& format = FormatOf(kind);
    ASSERT_EQ(values.size(), format.fields.size());
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_TRUE(format.fields[i].is_text() || values[i].text().empty()) << format.full_name << " " << format.fields[i].name;
    }
    if (counts[format.full_name]++ == 0) lines.push_back(format.full_name + ": " + format.Print(values));
  }
};

// Nothing that a machine does depends on whether somebody watches, and every kind tells as many values as it has fields.
TEST(EventsTest, WatchingChangesNothing) {
  for (const char* preset : {"686-pae-1G", "arm64-128M"}) {
    SCOPED_TRACE(preset);
    auto watched = Machine::Boot(PresetSpec(preset)).value();
    auto alone = Machine::Boot(PresetSpec(preset)).value();
    RandomProgram program(11, *watched);
    Counting events;
    for (int step = 0; step < 3000; ++step) {
      const Operation operation = program.Next();
      const Outcome outcome = watched->Apply(operation, nullptr, &events);
      program.Answered(operation, outcome);
      ASSERT_EQ(alone->Apply(operation).error, outcome.error) << step;
    }
    EXPECT_EQ(watched->StateHash(), alone->StateHash());
    EXPECT_TRUE(watched->CheckInvariants().empty());
    for (const char* kind : {"kmem:mm_page_alloc", "kmem:mm_page_free", "kmem:mm_page_alloc_zone_locked", "kmem:mm_page_pcpu_drain",
                             "exceptions:page_fault_user", "mmap:vm_unmapped_area", "task:task_newtask", "sched:sched_process_exit"}) {
      EXPECT_GT(events.counts[kind], 0) << kind;
    }
    for (const std::string& line : events.lines) EXPECT_EQ(line.find('{'), std::string::npos) << line;
  }
}

// A fault of a process, as a kernel with all of kmem and exceptions switched on would trace it.
TEST(EventsTest, AFaultIsToldInTheKernelsOrder) {
  for (const std::string preset : {"686-1G", "arm64-1G"}) {
    auto machine = Machine::Boot(PresetSpec(preset)).value();
    RandomProgram program(1, *machine);  // Its first operations make files and a process that runs a program.
    Counting events;
    std::optional<Pid> pid;
    for (int step = 0; step < 200 && !pid; ++step) {
      const Operation operation = program.Next();
      const Outcome outcome = machine->Apply(operation);
      program.Answered(operation, outcome);
      if (const auto* exec = std::get_if<op::Exec>(&operation); exec != nullptr && outcome.error == Errno::kOk) pid = exec->pid;
    }
    ASSERT_TRUE(pid.has_value());
    op::Mmap map{};
    map.pid = *pid;
    map.length = 64 << 20;
    map.prot = 3;
    map.flags = 0x22;
    map.fd = -1;
    const uint64_t address = machine->Apply(Operation(map)).value;
    op::AccessMemory store{};
    store.pid = *pid;
    store.access = AccessRequest{AccessKind::kStore, address + (32 << 20), 4, 0, 7, ""};
    machine->Apply(Operation(store), nullptr, &events);
    ASSERT_GE(events.lines.size(), 2u);
    EXPECT_NE(events.lines.front().find("exceptions:page_fault_user: address=0x"), std::string::npos) << events.lines.front();
    // x86: a user-mode write to what is not present. ARM64: a data abort from below, a write, a translation fault at some level.
    const std::string code = preset == "686-1G" ? " ip=0x0 error_code=0x6" : " ip=0x0 error_code=0x9200004";
    EXPECT_NE(events.lines.front().find(code), std::string::npos) << events.lines.front();
    EXPECT_EQ(events.counts["exceptions:page_fault_user"], 1);
    EXPECT_GE(events.counts["kmem:mm_page_alloc"], 1);
  }
}

// A machine that does a bit of everything that has a tracepoint: files, swap, huge pages, compaction, kernel memory, a cgroup's limit, a
// kill.
class Story {
 public:
  explicit Story(const char* preset, LayoutKind layout) : machine_(Machine::Boot(PresetSpec(preset)).value()), layout_(layout) {}

  uint64_t Do(const Operation& operation) {
    const Outcome outcome = machine_->Apply(operation, nullptr, &events);
    return outcome.value;
  }
  Pid Start(const char* comm) {
    const Pid pid(static_cast<int32_t>(Do(op::CreateProcess{comm, 0, false})));
    op::Exec exec;
    exec.pid = pid;
    exec.image = SmallProgram(layout_);
    Do(exec);
    return pid;
  }
  uint64_t Touch(Pid pid, uint64_t bytes) {
    const uint64_t address = Do(op::Mmap{.pid = pid, .length = bytes, .prot = 3, .flags = 0x22});
    Do(op::AccessMemory{pid, {AccessKind::kTouchWrite, address, bytes, 0, 1, ""}});
    return address;
  }

  void Tell() {
    Do(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    Do(op::CreateFile{"/dev/sdb", op::FileSystem::kBlockDevice, 24 * kMib, "", false});
    Do(op::CreateFile{"/data", op::FileSystem::kExt4, 8 * kMib, "", false});
    const Pid pid = Start("story");
    KernelMemory();
    Do(op::Swapon{"/dev/sdb", std::nullopt});
    Do(op::WriteOomScoreAdj{pid, -500});
    Do(op::Fork{pid, 0});
    const uint64_t fd = Do(op::Open{pid, "/data", 2, -1});
    const uint64_t buffer = Touch(pid, kMib);
    Do(op::Pwrite{pid, static_cast<int32_t>(fd), buffer, kMib, 0});
    HugePages(pid);
    Cgroup();
    for (uint64_t i = 0; i < 400; ++i) Do(op::AllocPages{.gfp = op::GfpClass::kKernel, .order = 0});
    Do(op::CompactMemory{});
    const Pid hog = Start("hog");
    for (int i = 0; i < 20 && machine_->processes().Find(hog) != nullptr; ++i) Touch(hog, 16 * kMib);
    for (int i = 0; i < 40; ++i) Do(op::AllocPages{.gfp = op::GfpClass::kKernel, .order = 9});
    Do(op::AdvanceTime{5'000'000'000});
    Do(op::Exit{pid, 0});
  }

  Counting events;

 private:
  static constexpr uint64_t kMib = uint64_t{1} << 20;

  void KernelMemory() {
    const uint64_t block = Do(op::Kmalloc{100, op::GfpClass::kKernel, 0});
    Do(op::Kfree{Do(op::Krealloc{block, 5000, op::GfpClass::kKernel, 0}), 0});
    op::KmemCacheCreate cache;
    cache.cache = "story";
    cache.object_size = 100;
    Do(cache);
    Do(op::KmemCacheFree{"story", Do(op::KmemCacheAlloc{"story", op::GfpClass::kKernel, 0}), 0});
  }
  void HugePages(Pid pid) {
    const uint64_t address = Do(op::Mmap{.pid = pid, .length = 16 * kMib, .prot = 3, .flags = 0x22});
    Do(op::AccessMemory{pid, {AccessKind::kTouchWrite, address, 16 * kMib, 0, 1, ""}});
    Do(op::Madvise{pid, address, 16 * kMib, 25});  // MADV_COLLAPSE
    Do(op::Munmap{pid, address, 16 * kMib});
  }
  void Cgroup() {
    Do(op::WriteCgroupFile{"", "cgroup.subtree_control", "+memory"});
    Do(op::CreateCgroup{"small"});
    Do(op::WriteCgroupFile{"small", "memory.max", "1M"});
    const Pid pid = Start("small");
    Do(op::WriteCgroupFile{"small", "cgroup.procs", std::to_string(pid.raw())});
    Touch(pid, 4 * kMib);
    Do(op::Exit{pid, 0});
  }

  std::unique_ptr<Machine> machine_;
  LayoutKind layout_;
};

// What `mmlab watch --list` promises comes to pass.
TEST(EventsTest, EveryKindIsTold) {
  std::map<std::string, int> counts;
  for (const auto& [preset, layout] : {std::pair("686-64M", LayoutKind::kX86_32), std::pair("arm64-128M", LayoutKind::kArm64)}) {
    Story story(preset, layout);
    story.Tell();
    for (const auto& [kind, count] : story.events.counts) counts[kind] += count;
  }
  std::vector<std::string> silent;
  for (size_t kind = 0; kind < kEventKinds; ++kind) {
    const std::string& name = FormatOf(static_cast<EventKind>(kind)).full_name;
    if (counts[name] == 0) silent.push_back(name);
  }
  // What takes a machine that is short of large blocks again and again, or of active pages.
  EXPECT_EQ(silent, (std::vector<std::string>{"kmem:mm_page_free_batched", "compaction:mm_compaction_deferred",
                                              "compaction:mm_compaction_defer_compaction", "compaction:mm_compaction_defer_reset",
                                              "compaction:mm_compaction_kcompactd_sleep", "compaction:mm_compaction_wakeup_kcompactd",
                                              "compaction:mm_compaction_kcompactd_wake", "vmscan:mm_vmscan_lru_shrink_active",
                                              "oom:compact_retry"}));
}

}  // namespace
}  // namespace mmlab

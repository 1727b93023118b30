#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/event.h"
#include "server/machine/machine.h"
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

}  // namespace
}  // namespace mmlab

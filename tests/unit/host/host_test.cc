#include "server/host/host.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "mmlab/v1/machine.pb.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

v1::MachineSpec Preset(const char* name) {
  v1::MachineSpec spec;
  spec.set_preset(name);
  return spec;
}

absl::StatusOr<std::shared_ptr<HostedMachine>> Create(Host& host, const std::string& id, const char* preset = "686-64M") {
  const v1::MachineSpec spec = Preset(preset);
  return host.Create({id, &spec, {}});
}

std::string Reason(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  const auto payload = status.GetPayload("type.googleapis.com/google.rpc.ErrorInfo");
  if (payload.has_value()) info.ParseFromString(std::string(*payload));
  return info.reason();
}

// Work that runs a function until it says that it is done.
template <typename Step>
class StepWork final : public LaneWork {
 public:
  explicit StepWork(Step step) : step_(std::move(step)) {}
  bool Run(MachineLane& lane) override { return step_(lane); }

 private:
  Step step_;
};
template <typename Step>
std::unique_ptr<LaneWork> Steps(Step step) {
  return std::make_unique<StepWork<Step>>(std::move(step));
}

void WaitForLane(HostedMachine& machine) {
  absl::Notification done;
  machine.Submit(Steps([&done](MachineLane&) {
    done.Notify();
    return true;
  }));
  done.WaitForNotification();
}

TEST(HostTest, CreatesFindsListsAndDeletes) {
  Host host;
  for (const char* id : {"b", "a", "c"}) ASSERT_TRUE(Create(host, id).ok());
  EXPECT_EQ(host.machine_count(), 3u);
  std::string order;
  for (const auto& machine : host.All()) order += machine->id();
  EXPECT_EQ(order, "abc");
  EXPECT_EQ(host.List("a", 1).at(0)->id(), "b");
  EXPECT_EQ(host.Delete("b"), absl::OkStatus());
  EXPECT_EQ(Reason(host.Find("b").status()), "MACHINE_NOT_FOUND");
  EXPECT_EQ(Reason(host.Delete("b")), "MACHINE_NOT_FOUND");
  EXPECT_EQ(host.Totals().machines_deleted, 1u);
  EXPECT_EQ(host.Totals().machines_created.at(LayoutKind::kX86_32), 3u);
}

TEST(HostTest, RefusesWhatItShould) {
  HostOptions options;
  options.max_machines = 2;
  Host host(options);
  ASSERT_TRUE(Create(host, "a").ok());
  EXPECT_EQ(Reason(Create(host, "a").status()), "MACHINE_ALREADY_EXISTS");
  EXPECT_EQ(Reason(Create(host, "A").status()), "FIELD_INVALID");
  EXPECT_EQ(Reason(Create(host, "b", "vax-1G").status()), "PRESET_NOT_FOUND");
  ASSERT_TRUE(Create(host, "b").ok());
  EXPECT_EQ(Reason(Create(host, "c").status()), "TOO_MANY_MACHINES");
  EXPECT_EQ(host.Totals().machine_limit_rejections, 1u);
}

TEST(HostTest, RehearsingMakesNothing) {
  Host host;
  const v1::MachineSpec spec = Preset("arm64-1G");
  const auto machine = host.Rehearse({"a", &spec, {}});
  ASSERT_TRUE(machine.ok()) << machine.status();
  EXPECT_EQ((*machine)->Read().machine().spec().hostname, "a");
  EXPECT_EQ(host.machine_count(), 0u);
}

struct LabelCase {
  const char* name;
  std::string key;
  std::string value;
  bool good;
};
class LabelTest : public testing::TestWithParam<LabelCase> {};
TEST_P(LabelTest, IsAsDocumented) {
  Host host;
  const v1::MachineSpec spec = Preset("686-64M");
  EXPECT_EQ(host.Create({"a", &spec, {{GetParam().key, GetParam().value}}}).ok(), GetParam().good);
}
INSTANTIATE_TEST_SUITE_P(Labels, LabelTest,
                         testing::Values(LabelCase{"Plain", "course", "os 2026", true}, LabelCase{"Underscore", "my_key-1", "", true},
                                         LabelCase{"UnderscoreFirst", "_a", "x", false}, LabelCase{"UpperCase", "A", "x", false},
                                         LabelCase{"Empty", "", "x", false}, LabelCase{"LongValue", "a", std::string(64, 'x'), false},
                                         LabelCase{"ControlCharacter", "a", "x\n", false}),
                         [](const auto& tested) { return tested.param.name; });

TEST(HostTest, OnceRunsOnceHoweverManyAsk) {
  Host host;
  std::atomic<int> runs{0};
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      const RequestIds::Answer answer = host.Once("id", 1, [&]() -> RequestIds::Answer {
        return {absl::OkStatus(), absl::StrCat("run ", ++runs)};
      });
      if (answer.response == "run 1") ++right;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(right, 8);
}

TEST(HostTest, OnceForgetsErrors) {
  Host host;
  EXPECT_FALSE(host.Once("id", 1, [] { return RequestIds::Answer{absl::NotFoundError(""), {}}; }).status.ok());
  EXPECT_TRUE(host.Once("id", 1, [] { return RequestIds::Answer{absl::OkStatus(), {}}; }).status.ok());
}

TEST(HostedMachineTest, WorkRunsInTheOrderOfItsArrival) {
  Host host;
  const std::shared_ptr<HostedMachine> machine = *Create(host, "a");
  std::vector<int> order;  // Only the lane touches it.
  for (int i = 0; i < 100; ++i) {
    machine->Submit(Steps([&order, i, steps = 0](MachineLane&) mutable {
      order.push_back(i);
      return ++steps == 3;  // Nobody comes between the three.
    }));
  }
  WaitForLane(*machine);
  ASSERT_EQ(order.size(), 300u);
  for (int i = 0; i < 300; ++i) ASSERT_EQ(order[i], i / 3);
}

TEST(HostedMachineTest, ReadersGetInBetweenTheStepsOfLongWork) {
  Host host;
  const std::shared_ptr<HostedMachine> machine = *Create(host, "a");
  std::atomic<bool> read{false};
  machine->Submit(Steps([&read](MachineLane&) { return read.load(); }));  // Goes on until somebody has read.
  machine->Read();
  read = true;
  WaitForLane(*machine);
}

TEST(HostedMachineTest, EntersAtOnceOnlyWhenNobodyIsThere) {
  Host host;
  const std::shared_ptr<HostedMachine> machine = *Create(host, "a");
  {
    const std::optional<MachineLane> lane = machine->TryEnter();
    ASSERT_TRUE(lane.has_value());
    EXPECT_FALSE(machine->TryEnter().has_value());
    EXPECT_FALSE(machine->TryRead().has_value());
  }
  const MachineReader reader = machine->Read();
  EXPECT_FALSE(machine->TryEnter().has_value());
  EXPECT_TRUE(machine->TryRead().has_value());
}

TEST(HostedMachineTest, ABusyMachineDoesNotHoldUpAnother) {
  HostOptions options;
  options.worker_threads = 1;
  Host host(options);
  const std::shared_ptr<HostedMachine> busy = *Create(host, "busy");
  const std::shared_ptr<HostedMachine> quick = *Create(host, "quick");
  std::atomic<bool> stop{false};
  busy->Submit(Steps([&stop](MachineLane&) { return stop.load(); }));
  for (int i = 0; i < 100; ++i) WaitForLane(*quick);
  stop = true;
  WaitForLane(*busy);
}

TEST(HostedMachineTest, CountsOperations) {
  Host host;
  const std::shared_ptr<HostedMachine> machine = *Create(host, "a");
  Outcome outcome;
  {
    std::optional<MachineLane> lane = machine->TryEnter();
    ASSERT_TRUE(lane->Apply(op::AllocPages{}, nullptr, outcome).ok());
    ASSERT_TRUE(lane->Apply(op::AllocPages{op::GfpClass::kKernel, 11}, nullptr, outcome).ok());
    EXPECT_EQ(outcome.error, Errno::kEINVAL);
  }
  const size_t kind = Operation(op::AllocPages{}).index();
  EXPECT_EQ(OperationNames()[kind], "alloc_pages");
  EXPECT_EQ(host.Totals().operations[kind], 2u);
  EXPECT_EQ(host.Totals().operation_errors[kind], 1u);
  EXPECT_TRUE(host.Delete("a").ok());
  EXPECT_EQ(host.Totals().operations[kind], 2u);
}

TEST(HostedMachineTest, ADeletedMachineTakesNoMoreOperations) {
  Host host;
  const std::shared_ptr<HostedMachine> machine = *Create(host, "a");
  ASSERT_TRUE(host.Delete("a").ok());
  std::optional<MachineLane> lane = machine->TryEnter();
  ASSERT_TRUE(lane.has_value());
  EXPECT_EQ(Reason(lane->CheckUsable()), "MACHINE_NOT_FOUND");
  EXPECT_EQ(lane->machine().spec().cpus, 1);  // Whoever holds it may read on.
}

TEST(HostThreadsTest, CreatingDeletingAndWorkingAtOnce) {
  Host host;
  constexpr int kThreads = 4;
  constexpr int kRounds = 40;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&host, t] {
      for (int round = 0; round < kRounds; ++round) {
        const std::string id = absl::StrCat("m", (t + round) % 3);  // They get into each other's way.
        const auto created = Create(host, id);
        ASSERT_TRUE(created.ok() || absl::IsAlreadyExists(created.status())) << created.status();
        if (const auto found = host.Find(id); found.ok()) {
          (*found)->Submit(Steps([](MachineLane& lane) {
            Outcome outcome;
            EXPECT_TRUE(!lane.CheckUsable().ok() || lane.Apply(op::AllocPages{}, nullptr, outcome).ok());
            return true;
          }));
          EXPECT_GT((*found)->Read().machine().HostMemory().raw(), 0u);
        }
        for (const auto& machine : host.All()) EXPECT_FALSE(machine->Read().spec().preset().empty());
        host.Totals();
        if (round % 2 == 0) host.Delete(id).IgnoreError();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(HostTest, HoldsAThousandMachines) {
  Host host;
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(Create(host, absl::StrFormat("m%04d", i), "arm64-1G").ok());
  EXPECT_EQ(host.machine_count(), 1000u);
  uint64_t bytes = 0;
  for (const auto& machine : host.All()) bytes += machine->Read().machine().HostMemory().raw();
  EXPECT_LT(bytes / 1000, uint64_t{256} << 10);  // Each idle machine.
}

// A machine whose accounting turns out broken in the middle of an operation is kept for inspection, and only that one.
TEST(QuarantineTest, KeepsABrokenMachineForReadersOnly) {
  Host host(HostOptions{});
  const std::shared_ptr<HostedMachine> broken = *Create(host, "broken");
  const std::shared_ptr<HostedMachine> other = *Create(host, "other");
  Outcome outcome;
  {
    std::optional<MachineLane> lane = broken->TryEnter();
    ASSERT_TRUE(lane.has_value());
    ElfImage image{"/bin/a", 0x8048000, false, 0, {{ProgramHeader::Type::kLoad, 0, 0x8048000, 4096, 4096, 5, 4096}}};
    ASSERT_TRUE(lane->Apply(op::CreateFile{"/bin/a", op::FileSystem::kExt4, 4096, "", true}, nullptr, outcome).ok());
    ASSERT_TRUE(lane->Apply(op::CreateProcess{"a"}, nullptr, outcome).ok());
    ASSERT_TRUE(lane->Apply(op::Exec{Pid(1), image, std::nullopt, {}, {}}, nullptr, outcome).ok());
    ASSERT_EQ(outcome.error, Errno::kOk);
    // What only a bug of the engine could do: nobody maps the pages of the stack any more, says their count.
    auto& memory = const_cast<BuddyMemory&>(lane->machine().memory());
    for (Pfn pfn(0); pfn < memory.end_pfn(); pfn = pfn + PageCount(1)) {
      if (memory.PeekFrame(pfn).state == FrameState::kAnon) memory.frame(pfn).mapcount = 0;
    }
    const absl::Status status = lane->Apply(op::Exit{Pid(1)}, nullptr, outcome);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_EQ(Reason(lane->CheckUsable()), "MACHINE_QUARANTINED");
  }
  EXPECT_EQ(broken->state(), HostedMachine::State::kQuarantined);
  EXPECT_EQ(broken->Read().machine().operations_applied(), 4u);
  EXPECT_EQ(other->state(), HostedMachine::State::kRunning);
  EXPECT_TRUE(other->TryEnter()->Apply(op::AllocPages{}, nullptr, outcome).ok());
}

}  // namespace
}  // namespace mmlab

#include "server/machine/machine.h"

#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "server/base/explanation.h"
#include "server/hardware/page_walk.h"
#include "server/machine/board.h"
#include "server/machine/sysctls.h"
#include "server/physical/page_allocator.h"
#include "server/process/processes.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

std::unique_ptr<Machine> Booted(MachineSpec spec) {
  absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Boot(std::move(spec));
  EXPECT_TRUE(machine.ok()) << machine.status();
  return machine.ok() ? *std::move(machine) : nullptr;
}
std::unique_ptr<Machine> Preset(const std::string& name) { return Booted(PresetSpec(name)); }

const Zone& ZoneNamed(const Machine& machine, absl::string_view name) {
  for (const Zone& zone : machine.memory().zones()) {
    if (zone.name() == name) return zone;
  }
  ADD_FAILURE() << name;
  return machine.memory().zones()[0];
}

class PresetMachineTest : public testing::TestWithParam<std::string> {};

TEST_P(PresetMachineTest, BootsAndHoldsItsInvariants) {
  const auto machine = Preset(GetParam());
  EXPECT_EQ(machine->CheckInvariants(), std::vector<std::string>());
  EXPECT_LE(machine->HostMemory().raw(), 64u << 10);
  EXPECT_EQ(machine->operations_applied(), 0u);
  EXPECT_EQ(machine->StateHash(), Preset(GetParam())->StateHash());
}

INSTANTIATE_TEST_SUITE_P(All, PresetMachineTest, testing::ValuesIn(PresetNames()), [](const auto& test) { return CaseName(test.param); });

TEST(MachineTest, CostsAsLittleHoweverMuchRamItHas) {
  for (uint64_t gib : {1, 4, 64, 1024}) {
    MachineSpec spec;
    spec.layout = LayoutKind::kArm64;
    ASSERT_TRUE(DescribeUsualBoard(Bytes(gib << 30), spec).ok());
    EXPECT_LE(Booted(spec)->HostMemory().raw(), 64u << 10) << gib << " GiB";
  }
}

TEST(MachineTest, OperationsHaveDistinctNames) {
  EXPECT_STREQ(OperationName(op::CreateProcess{}), "create_process");
  EXPECT_STREQ(OperationName(op::AccessMemory{}), "access_memory");
  EXPECT_STREQ(OperationName(op::AllocPages{}), "alloc_pages");
  EXPECT_STREQ(OperationName(op::AdvanceTime{}), "advance_time");
}

TEST(MachineTest, SpecSysctlsTakeEffectAtBoot) {
  MachineSpec spec = PresetSpec("686-1G");
  spec.sysctls = {{"vm.min_free_kbytes", "8192"}, {"vm.overcommit_memory", "2"}};
  const auto machine = Booted(spec);
  EXPECT_EQ(machine->memory().min_free_kbytes(), 8192u);
  EXPECT_EQ(machine->processes().limits().overcommit_memory, 2);
}

struct SpecSysctlCase {
  const char* name;
  const char* sysctl;
  const char* value;
  absl::StatusCode code;
};
class SpecSysctlTest : public testing::TestWithParam<SpecSysctlCase> {};
TEST_P(SpecSysctlTest, IsRefused) {
  MachineSpec spec = PresetSpec("arm64-1G");
  spec.sysctls = {{GetParam().sysctl, GetParam().value}};
  const absl::Status status = Machine::Boot(spec).status();
  EXPECT_EQ(status.code(), GetParam().code);
  EXPECT_NE(status.message().find("spec.sysctls"), absl::string_view::npos) << status;
}
INSTANTIATE_TEST_SUITE_P(Values, SpecSysctlTest,
                         testing::Values(SpecSysctlCase{"Unknown", "vm.nonsense", "1", absl::StatusCode::kInvalidArgument},
                                         SpecSysctlCase{"OfAnotherLayout", "vm.vdso_enabled", "1", absl::StatusCode::kInvalidArgument},
                                         SpecSysctlCase{"OutOfRange", "vm.swappiness", "201", absl::StatusCode::kInvalidArgument}),
                         [](const auto& test) { return test.param.name; });

TEST(MachineSysctlTest, WatermarksAndReservesAreComputedAnew) {
  const auto machine = Preset("686-1G");
  const Zone& normal = ZoneNamed(*machine, "Normal");
  const Zone& dma = ZoneNamed(*machine, "DMA");
  const uint64_t min = normal.wmark_min;
  ASSERT_EQ(machine->Apply(op::WriteSysctl{"vm.min_free_kbytes", "7430"}).error, Errno::kOk);
  EXPECT_NEAR(static_cast<double>(normal.wmark_min), 2.0 * static_cast<double>(min), 2.0);
  const uint64_t gap = normal.wmark_low - normal.wmark_min;
  ASSERT_EQ(machine->Apply(op::WriteSysctl{"vm.watermark_scale_factor", "1000"}).error, Errno::kOk);
  EXPECT_GT(normal.wmark_low - normal.wmark_min, gap);
  ASSERT_EQ(machine->Apply(op::WriteSysctl{"vm.lowmem_reserve_ratio", "128 32 0 0"}).error, Errno::kOk);
  EXPECT_EQ(dma.lowmem_reserve[1], normal.managed / 128);
  EXPECT_EQ(machine->Apply(op::WriteSysctl{"vm.min_free_kbytes", "x"}).error, Errno::kEINVAL);
  EXPECT_EQ(machine->Apply(op::WriteSysctl{"vm.nothing", "1"}).error, Errno::kENOENT);
}

struct AllocCase {
  const char* name;
  op::AllocPages alloc;
  Errno error;
};
class AllocPagesTest : public testing::TestWithParam<AllocCase> {};
TEST_P(AllocPagesTest, AnswersAndGivesBack) {
  const auto machine = Preset("686-1G-smp4");
  const uint64_t free = machine->memory().free_pages().raw();
  const Outcome taken = machine->Apply(GetParam().alloc);
  ASSERT_EQ(taken.error, GetParam().error);
  if (taken.error != Errno::kOk) {
    EXPECT_EQ(machine->memory().free_pages().raw(), free);
    return;
  }
  EXPECT_EQ(taken.value % (uint64_t{1} << GetParam().alloc.order), 0u);
  EXPECT_EQ(machine->Apply(op::FreePages{taken.value, GetParam().alloc.order, GetParam().alloc.cpu}).error, Errno::kOk);
  EXPECT_EQ(machine->CheckInvariants(), std::vector<std::string>());
}
INSTANTIATE_TEST_SUITE_P(Arguments, AllocPagesTest,
                         testing::Values(AllocCase{"Kernel", {op::GfpClass::kKernel, 0, 0, false}, Errno::kOk},
                                         AllocCase{"LargestOrder", {op::GfpClass::kKernel, 10, 3, true}, Errno::kOk},
                                         AllocCase{"Movable", {op::GfpClass::kHighuserMovable, 3, 1, false}, Errno::kOk},
                                         AllocCase{"OrderBeyond", {op::GfpClass::kKernel, 11, 0, false}, Errno::kEINVAL},
                                         AllocCase{"OrderNegative", {op::GfpClass::kKernel, -1, 0, false}, Errno::kEINVAL},
                                         AllocCase{"NoSuchCpu", {op::GfpClass::kKernel, 0, 4, false}, Errno::kEINVAL},
                                         AllocCase{"NegativeCpu", {op::GfpClass::kKernel, 0, -1, false}, Errno::kEINVAL}),
                         [](const auto& test) { return test.param.name; });

TEST(FreePagesTest, OnlyWhatWasHandedOutThatWayIsTaken) {
  const auto machine = Preset("arm64-1G");
  const uint64_t pfn = machine->Apply(op::AllocPages{op::GfpClass::kKernel, 2, 0, false}).value;
  const uint64_t end = machine->memory().end_pfn().raw();
  const auto free = [&](uint64_t frame, int32_t order, int32_t cpu) { return machine->Apply(op::FreePages{frame, order, cpu}).error; };
  EXPECT_EQ(free(pfn, 1, 0), Errno::kEINVAL);           // Another order.
  EXPECT_EQ(free(pfn + 1, 2, 0), Errno::kEINVAL);       // Inside the block.
  EXPECT_EQ(free(pfn + 1, 0, 0), Errno::kEINVAL);       //
  EXPECT_EQ(free(pfn, 2, 1), Errno::kEINVAL);           // No such CPU.
  EXPECT_EQ(free(pfn, -1, 0), Errno::kEINVAL);          //
  EXPECT_EQ(free(pfn, 64, 0), Errno::kEINVAL);          //
  EXPECT_EQ(free(0, 0, 0), Errno::kEINVAL);             // No RAM there.
  EXPECT_EQ(free(0x40210, 0, 0), Errno::kEINVAL);       // The kernel's image.
  EXPECT_EQ(free(end, 0, 0), Errno::kEINVAL);           // Beyond memory.
  EXPECT_EQ(free(~uint64_t{0}, 0, 0), Errno::kEINVAL);  //
  EXPECT_EQ(free(machine->memory().zero_frame().raw(), 0, 0), Errno::kEINVAL);
  EXPECT_EQ(free(pfn, 2, 0), Errno::kOk);
  EXPECT_EQ(free(pfn, 2, 0), Errno::kEINVAL);  // Twice.
  EXPECT_EQ(machine->CheckInvariants(), std::vector<std::string>());
}

TEST(AllocPagesTest, WhenMemoryIsGoneTheAnswerIsEnomem) {
  const auto machine = Preset("686-64M");
  std::set<uint64_t> taken;
  for (;;) {
    const Outcome outcome = machine->Apply(op::AllocPages{op::GfpClass::kKernel, 0, 0, false});
    if (outcome.error != Errno::kOk) {
      EXPECT_EQ(outcome.error, Errno::kENOMEM);
      break;
    }
    ASSERT_TRUE(taken.insert(outcome.value).second) << outcome.value << " was handed out twice";
  }
  EXPECT_GT(taken.size(), 9000u);
  EXPECT_EQ(machine->CheckInvariants(), std::vector<std::string>());
  for (uint64_t pfn : taken) ASSERT_EQ(machine->Apply(op::FreePages{pfn, 0, 0}).error, Errno::kOk);
  EXPECT_EQ(machine->CheckInvariants(), std::vector<std::string>());
}

TEST(ClockTest, MovesOnlyByOperations) {
  const auto machine = Preset("686-64M");
  const int64_t start = machine->now_nanoseconds();
  EXPECT_EQ(start, int64_t{1700000000} * 1'000'000'000);
  EXPECT_EQ(machine->Apply(op::AdvanceTime{5}).value, static_cast<uint64_t>(start + 5));
  EXPECT_EQ(machine->Apply(op::AdvanceTime{-1}).error, Errno::kEINVAL);
  EXPECT_EQ(machine->Apply(op::AdvanceTime{INT64_MAX}).error, Errno::kEINVAL);
  EXPECT_EQ(machine->Apply(op::AdvanceTime{INT64_MAX - start - 5}).error, Errno::kOk);
  EXPECT_EQ(machine->now_nanoseconds(), INT64_MAX);
  EXPECT_EQ(machine->operations_applied(), 4u);
}

TEST(ClockTest, TheCountersOfTheCpusAreAddedUpEverySecond) {
  const auto machine = Preset("686-1G");
  const Zone& normal = ZoneNamed(*machine, "Normal");
  machine->Apply(op::AllocPages{op::GfpClass::kKernel, 4, 0, false});
  machine->Apply(op::AdvanceTime{1'000'000'000});
  for (const PerCpuPages& cpu : normal.pcp) EXPECT_EQ(cpu.free_diff, 0);
}

TEST(ExplanationTest, IsGivenWhenAskedForOnly) {
  const auto machine = Preset("686-1G");
  Explanation why;
  machine->Apply(op::AllocPages{op::GfpClass::kKernel, 0, 0, false}, &why);
  EXPECT_FALSE(why.steps().empty());
  const size_t steps = why.steps().size();
  machine->Apply(op::AllocPages{op::GfpClass::kKernel, 0, 0, false});
  EXPECT_EQ(why.steps().size(), steps);
}

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

MachineSpec SmallMachine(uint64_t seed) {
  static constexpr const char* kPresets[] = {"686-64M", "arm64-128M", "686-64M"};
  MachineSpec spec = PresetSpec(kPresets[seed % 3]);
  if (seed % 3 == 2) {  // With PAE: the same board by its size.
    spec = MachineSpec();
    spec.layout = LayoutKind::kX86_32Pae;
    EXPECT_TRUE(DescribeUsualBoard(Bytes(64 << 20), spec).ok());
  }
  spec.cpus = seed % 2 == 0 ? 1 : 2;
  if (seed % 4 < 2) spec.transparent_hugepage = MachineSpec::TransparentHugepage::kAlways;
  spec.slab_allocator = static_cast<SlabAllocatorKind>(1 + (seed + seed / 3) % 3);
  return spec;
}

// Longer by environment: MMLAB_RANDOM_SEEDS programs of MMLAB_RANDOM_STEPS operations.
TEST(RandomProgramTest, InvariantsHoldAfterEveryOperation) {
  const uint64_t seeds = FromEnvironment("MMLAB_RANDOM_SEEDS", 6);
  const uint64_t steps = FromEnvironment("MMLAB_RANDOM_STEPS", 250);
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    const auto machine = Booted(SmallMachine(seed));
    RandomProgram program(seed, *machine);
    for (uint64_t step = 0; step < steps; ++step) {
      const Operation operation = program.Next();
      SCOPED_TRACE(absl::StrCat("seed ", seed, " step ", step, " ", OperationName(operation)));
      Explanation why;
      const Outcome outcome = machine->Apply(operation, step % 7 == 0 ? &why : nullptr);
      program.Answered(operation, outcome);
      const std::vector<std::string> violations = machine->CheckInvariants();
      ASSERT_TRUE(violations.empty()) << absl::StrJoin(violations, "\n");
    }
    EXPECT_EQ(machine->operations_applied(), steps);
  }
}

TEST(RandomProgramTest, TheSameProgramGivesTheSameState) {
  const uint64_t seeds = FromEnvironment("MMLAB_RANDOM_SEEDS", 6);
  const uint64_t steps = FromEnvironment("MMLAB_RANDOM_STEPS", 1500);
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    const auto one = Booted(SmallMachine(seed));
    const auto other = Booted(SmallMachine(seed));
    RandomProgram program(seed, *one);
    for (uint64_t step = 0; step < steps; ++step) {
      const Operation operation = program.Next();
      const Outcome outcome = one->Apply(operation);
      Explanation why;
      const Outcome again = other->Apply(operation, &why);  // Being asked why changes nothing.
      program.Answered(operation, outcome);
      ASSERT_EQ(outcome.value, again.value) << step << OperationName(operation);
      ASSERT_EQ(outcome.error, again.error) << step << OperationName(operation);
      if (step % 100 == 0) {
        ASSERT_EQ(one->StateHash(), other->StateHash()) << step << OperationName(operation);
      }
    }
    EXPECT_EQ(one->StateHash(), other->StateHash());
    EXPECT_EQ(one->CheckInvariants(), std::vector<std::string>());
  }
}

TEST(RandomProgramTest, WhenTheLastProcessIsGoneItsMemoryIsBack) {
  const auto machine = Booted(SmallMachine(1));
  RandomProgram program(99, *machine);
  std::set<uint64_t> taken;
  for (int step = 0; step < 600; ++step) {
    const Operation operation = program.Next();
    if (std::holds_alternative<op::AllocPages>(operation) || std::holds_alternative<op::FreePages>(operation)) continue;
    program.Answered(operation, machine->Apply(operation));
  }
  while (!machine->processes().all().empty()) {
    const Pid pid = machine->processes().all().begin()->first;
    ASSERT_EQ(machine->Apply(op::Exit{pid, 0}).error, Errno::kOk);
  }
  EXPECT_EQ(machine->CheckInvariants(), std::vector<std::string>());
  EXPECT_EQ(machine->vm_stat().Get(NodeStat::kNrAnonPages), 0);
  EXPECT_EQ(machine->vm_stat().Get(NodeStat::kNrMapped), 0);
  EXPECT_EQ(machine->vm_stat().Get(NodeStat::kNrPageTablePages), 0);
}

TEST(VirtualAddressBitsTest, ThirtyNineBitsHaveThreeLevelsOfTables) {
  MachineSpec spec = PresetSpec("arm64-128M");
  spec.va_bits = 39;
  const auto machine = Booted(spec);
  machine->Apply(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
  const Pid pid(static_cast<int32_t>(machine->Apply(op::CreateProcess{"small", 1000, false}).value));
  op::Exec exec;
  exec.pid = pid;
  exec.image = SmallProgram(LayoutKind::kArm64);
  ASSERT_EQ(machine->Apply(exec).error, Errno::kOk);
  const Outcome mapped = machine->Apply(op::Mmap{.pid = pid, .length = 1 << 20, .prot = 3, .flags = 0x22});
  ASSERT_EQ(mapped.error, Errno::kOk);
  EXPECT_LT(mapped.value, uint64_t{1} << 39);
  EXPECT_GT(mapped.value, uint64_t{1} << 38);
  op::AccessMemory touch{.pid = pid, .access = {}};
  touch.access.kind = AccessKind::kTouchWrite;
  touch.access.address = mapped.value;
  touch.access.length = 1 << 20;
  EXPECT_EQ(machine->Apply(touch).access->done, 256u);
  EXPECT_EQ(machine->processes().Walk(*machine->processes().Find(pid), VirtAddr(mapped.value)).count, 3);
  EXPECT_EQ(machine->Apply(op::Mmap{.pid = pid, .address = uint64_t{1} << 39, .length = 4096, .prot = 3, .flags = 0x32}).error,
            Errno::kENOMEM);
  EXPECT_EQ(machine->Apply(op::Exit{pid, 0}).error, Errno::kOk);
  EXPECT_EQ(machine->CheckInvariants(), std::vector<std::string>());
}

}  // namespace
}  // namespace mmlab

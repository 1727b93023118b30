// Areas of the kernel's address space and mappings of high memory as operations of a whole machine.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/kernel/vmalloc.h"
#include "server/machine/board.h"
#include "server/machine/kernel_log.h"
#include "server/machine/machine.h"
#include "server/machine/virtual_translation.h"
#include "server/physical/page_allocator.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

class KernelAddressesTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Boot(PresetSpec(GetParam()));
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
  }
  uint64_t Used() const {
    uint64_t pages = 0;
    machine_->ReadVmalloc([&](const Vmalloc& vmalloc) { pages = vmalloc.nr_vmalloc_pages(); });
    return pages;
  }
  uint64_t Frames() const { return machine_->memory().FrameCounts()[static_cast<size_t>(FrameState::kVmalloc)]; }

  std::unique_ptr<Machine> machine_;
};

TEST_P(KernelAddressesTest, AnAreaTakesFramesOfTheMachineAndGivesThemBack) {
  const uint64_t used = Used();
  EXPECT_GT(used, 0u);  // What the recorded boot took.
  op::Vmalloc vmalloc;
  vmalloc.size = 100000;
  const Outcome area = machine_->Apply(vmalloc);
  ASSERT_EQ(area.error, Errno::kOk);
  EXPECT_EQ(Used(), used + 25);
  EXPECT_EQ(Frames(), 25u);
  EXPECT_TRUE(machine_->CheckInvariants().empty());
  op::Vfree vfree;
  vfree.address = area.value;
  EXPECT_EQ(machine_->Apply(vfree).error, Errno::kOk);
  EXPECT_EQ(machine_->Apply(vfree).error, Errno::kEINVAL);
  EXPECT_EQ(Frames(), 0u);
  EXPECT_NE(machine_->Apply(vmalloc).value, area.value);  // Not before a purge.
  EXPECT_TRUE(machine_->CheckInvariants().empty());
}

TEST_P(KernelAddressesTest, TheLogSaysWhenAddressesRunOut) {
  op::GetVmArea get;
  get.size = uint64_t{1} << 30;
  if (!machine_->layout().is_x86()) get.size <<= 17;  // 128 TiB.
  EXPECT_EQ(machine_->Apply(get).error, Errno::kENOMEM);
  const std::string line =
      absl::StrCat("<4>[    0.000000] vmap allocation for size ", get.size + 4096, " failed: use vmalloc=<size> to increase size\n");
  EXPECT_NE(machine_->kernel_log().RawText().find(line), std::string::npos) << machine_->kernel_log().RawText();
}

// Only by mapping them does the kernel reach pages of high memory: what it takes for itself is not from there.
TEST_P(KernelAddressesTest, SaysWhyHighMemoryIsLeftOut) {
  const bool high = std::any_of(machine_->memory().zones().begin(), machine_->memory().zones().end(),
                                [](const Zone& zone) { return zone.highmem && zone.managed > 0; });
  for (const op::GfpClass gfp : {op::GfpClass::kKernel, op::GfpClass::kHighuser}) {
    Explanation why;
    const Outcome page = machine_->Apply(op::AllocPages{.gfp = gfp}, &why);
    EXPECT_EQ(page.error, Errno::kOk);
    const auto said = [&](const Fact& fact) {
      return fact.name == "zones_left_out" && absl::StrContains(fact.text, "without __GFP_HIGHMEM");
    };
    ASSERT_FALSE(why.steps().empty());
    const std::vector<Fact>& facts = why.steps()[0].facts;
    EXPECT_EQ(std::any_of(facts.begin(), facts.end(), said), high && gfp == op::GfpClass::kKernel);
    Explanation mapped;
    EXPECT_EQ(machine_->Apply(op::Kmap{page.value}, &mapped).error, Errno::kOk);
    const bool needs_slot = high && gfp == op::GfpClass::kHighuser;
    ASSERT_FALSE(mapped.steps().empty());
    EXPECT_EQ(absl::StartsWith(mapped.steps().back().text, "the frame is in the linear map"), !needs_slot);
    Explanation unmapped;
    EXPECT_EQ(machine_->Apply(op::Kunmap{page.value}, &unmapped).error, Errno::kOk);
    EXPECT_EQ(unmapped.steps().size(), needs_slot ? 1u : 0u);
  }
}

TEST_P(KernelAddressesTest, SaysWhyAnAddress) {
  Explanation why;
  op::GetVmArea get;
  get.size = 8192;
  EXPECT_EQ(machine_->Apply(get, &why).error, Errno::kOk);
  ASSERT_FALSE(why.steps().empty());
  EXPECT_EQ(why.steps()[0].kind, StepKind::kVmapAreaSearch);
}

TEST_P(KernelAddressesTest, HighMemoryIsMappedForAWhile) {
  if (!machine_->kernel_layout().has_highmem_zone()) return;
  const uint64_t high = machine_->kernel_layout().highstart_pfn.raw();
  op::Kmap kmap;
  kmap.pfn = high;
  const Outcome first = machine_->Apply(kmap);
  ASSERT_EQ(first.error, Errno::kOk);
  EXPECT_EQ(first.value, machine_->kernel_layout().pkmap_base.raw() + 4096);
  EXPECT_EQ(machine_->Apply(kmap).value, first.value);
  op::KmapLocal local;
  local.pfn = high;
  EXPECT_EQ(machine_->Apply(local).value, 0xfffbb000u);
  local.pfn = ~uint64_t{0};
  EXPECT_EQ(machine_->Apply(local).error, Errno::kEINVAL);
  EXPECT_TRUE(machine_->CheckInvariants().empty());
}

TEST_P(KernelAddressesTest, PercpuMemoryComesInChunks) {
  const int cpus = machine_->spec().cpus;
  const uint64_t at_boot = machine_->percpu_pages();
  EXPECT_EQ(at_boot, (machine_->layout().is_x86() ? 33u : 34u) * static_cast<uint64_t>(cpus))
      << "as /proc/meminfo of the recordings has it";
  const Outcome small = machine_->Apply(op::AllocPercpu{100, 8, false});
  ASSERT_EQ(small.error, Errno::kOk);
  ASSERT_EQ(small.addresses.size(), static_cast<size_t>(cpus));
  EXPECT_EQ(small.addresses[0], small.value);
  EXPECT_TRUE(machine_->kernel_layout().LinearPhysOf(VirtAddr(small.value)).has_value()) << "in the first chunk, of boot";
  EXPECT_EQ(machine_->percpu_pages(), at_boot);
  std::vector<uint64_t> taken;
  const uint64_t free_before = machine_->memory().FrameCounts()[static_cast<size_t>(FrameState::kFree)];
  for (int i = 0; i < 40; ++i) taken.push_back(machine_->Apply(op::AllocPercpu{8192, 4096, false}).value);
  EXPECT_GT(machine_->percpu_pages(), at_boot + 40u);
  EXPECT_LT(machine_->memory().FrameCounts()[static_cast<size_t>(FrameState::kFree)], free_before);
  const VirtAddr last(taken.back());
  EXPECT_GE(last, machine_->kernel_layout().vmalloc_start);
  EXPECT_LT(last, machine_->kernel_layout().vmalloc_end);
  EXPECT_TRUE(TranslateVirtual(*machine_, nullptr, last, ProcessorAccess{true, false, false}).physical.has_value()) << "by real entries";
  machine_->ReadVmalloc([&](const Vmalloc& vmalloc) {
    int areas = 0;
    for (const auto& [start, area] : vmalloc.areas()) areas += area.caller.rfind("pcpu_get_vm_areas", 0) == 0 ? 1 : 0;
    EXPECT_GT(areas, 1);
  });
  op::Vfree vfree;
  vfree.address = last.raw() & ~uint64_t{0xfff};
  EXPECT_EQ(machine_->Apply(vfree).error, Errno::kEBUSY) << "the area is the allocator's";
  EXPECT_EQ(machine_->Apply(op::Vunmap{vfree.address}).error, Errno::kEBUSY);
  EXPECT_TRUE(machine_->CheckInvariants().empty());
  for (const uint64_t address : taken) EXPECT_EQ(machine_->Apply(op::FreePercpu{address}).error, Errno::kOk);
  EXPECT_EQ(machine_->Apply(op::FreePercpu{taken[0]}).error, Errno::kEINVAL);
  EXPECT_LT(machine_->percpu_pages(), at_boot + 40u * static_cast<uint64_t>(cpus));
  EXPECT_TRUE(machine_->CheckInvariants().empty());
  Explanation why;
  machine_->Apply(op::AllocPercpu{64, 64, false}, &why);
  ASSERT_FALSE(why.steps().empty());
  EXPECT_EQ(why.steps()[0].kind, StepKind::kPercpuArea);
}

// What boot took is there before anybody asks for more, on machines that no recording describes too.
TEST(BootedKernelAddressesTest, Arm64HasTheAreaOfItsSecondPercpuChunk) {
  MachineSpec spec;
  spec.layout = LayoutKind::kArm64;
  spec.cpus = 2;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(uint64_t{1} << 30), spec).ok());
  absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Boot(std::move(spec));
  ASSERT_TRUE(machine.ok()) << machine.status();
  const auto areas = [&] {
    std::vector<std::pair<uint64_t, uint64_t>> found;
    (*machine)->ReadVmalloc([&](const Vmalloc& vmalloc) {
      for (const auto& [start, area] : vmalloc.areas()) found.emplace_back(start, area.end);
    });
    return found;
  };
  const std::vector<std::pair<uint64_t, uint64_t>> idle = areas();
  ASSERT_EQ(idle.size(), 1u);
  EXPECT_EQ(idle[0].second - idle[0].first, 2u * 126976);
  EXPECT_EQ((*machine)->Apply(op::AllocPercpu{100, 8, false}).error, Errno::kOk);
  EXPECT_EQ(areas(), idle);
}

INSTANTIATE_TEST_SUITE_P(Presets, KernelAddressesTest, testing::Values("686-1G", "686-pae-1G", "arm64-1G", "arm64-1G-smp4"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace mmlab

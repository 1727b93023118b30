// Areas of the kernel's address space and mappings of high memory as operations of a whole machine.

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "server/kernel/vmalloc.h"
#include "server/machine/machine.h"
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

INSTANTIATE_TEST_SUITE_P(Presets, KernelAddressesTest, testing::Values("686-1G", "686-pae-1G", "arm64-1G", "arm64-1G-smp4"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace mmlab

// The operations on the page allocator as a machine performs them; which frames they give is the business of tests/conformance.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

class PageOperationsTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Boot(PresetSpec(GetParam()));
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
  }
  void TearDown() override { EXPECT_EQ(machine_->CheckInvariants(), std::vector<std::string>()); }
  // Frames neither on free lists nor on per-CPU lists.
  uint64_t InUse() const {
    uint64_t in_use = 0;
    const auto counts = machine_->memory().FrameCounts();
    for (size_t state = 0; state < counts.size(); ++state) in_use += state == 1 || state == 2 ? 0 : counts[state];
    return in_use;
  }
  uint64_t Must(const Operation& operation) {
    const Outcome outcome = machine_->Apply(operation);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome.value;
  }
  void Refused(const Operation& operation, Errno error = Errno::kEINVAL) {
    const uint64_t before = InUse();
    EXPECT_EQ(machine_->Apply(operation).error, error) << OperationName(operation);
    EXPECT_EQ(InUse(), before);
  }

  std::unique_ptr<Machine> machine_;
};

TEST_P(PageOperationsTest, ExactTakesJustThePagesThatHoldTheBytes) {
  const uint64_t before = InUse();
  const uint64_t pfn = Must(op::AllocPagesExact{op::GfpClass::kKernel, 5 * 4096 + 1, 0, false});
  EXPECT_EQ(InUse(), before + 6);
  Refused(op::FreePages{pfn, 3, 0});              // Its pages are single ones by now.
  Refused(op::FreePagesExact{pfn, 7 * 4096, 0});  // One page more than is held.
  Refused(op::FreePagesExact{pfn, 0, 0});
  Must(op::FreePages{pfn + 5, 0, 0});
  Must(op::FreePagesExact{pfn, 5 * 4096, 0});
  Refused(op::FreePagesExact{pfn, 5 * 4096, 0});
  EXPECT_EQ(InUse(), before);
  Refused(op::AllocPagesExact{op::GfpClass::kKernel, 0, 0, false});
  Refused(op::AllocPagesExact{op::GfpClass::kKernel, (4 << 20) + 1, 0, false}, Errno::kENOMEM);
  Refused(op::AllocPagesExact{op::GfpClass::kKernel, ~uint64_t{0}, 0, false}, Errno::kENOMEM);
}

TEST_P(PageOperationsTest, BulkGivesSinglePagesAndAListTakesThemBack) {
  const uint64_t before = InUse();
  const Outcome outcome = machine_->Apply(op::AllocPagesBulk{op::GfpClass::kUserMovable, 100, 0});
  ASSERT_EQ(outcome.value, 100u);
  ASSERT_EQ(outcome.pfns.size(), 100u);
  EXPECT_EQ(InUse(), before + 100);
  std::vector<uint64_t> pfns;
  for (const Pfn pfn : outcome.pfns) pfns.push_back(pfn.raw());
  std::vector<uint64_t> twice = pfns;
  twice.push_back(pfns[7]);
  Refused(op::FreePageList{twice, 0});
  std::vector<uint64_t> foreign = pfns;
  foreign.push_back(0);
  Refused(op::FreePageList{foreign, 0});
  foreign.back() = ~uint64_t{0};
  Refused(op::FreePageList{foreign, 0});
  Must(op::FreePageList{pfns, 0});
  EXPECT_EQ(InUse(), before);
  EXPECT_EQ(Must(op::AllocPagesBulk{op::GfpClass::kKernel, 0, 0}), 0u);
}

TEST_P(PageOperationsTest, SplitMakesABlockSinglePages) {
  const uint64_t before = InUse();
  const uint64_t pfn = Must(op::AllocPages{op::GfpClass::kKernel, 4, 0, false});
  Refused(op::SplitPage{pfn, 3});
  Refused(op::SplitPage{pfn + 1, 4});
  Refused(op::SplitPage{pfn, 11});
  Must(op::SplitPage{pfn, 4});
  Refused(op::FreePages{pfn, 4, 0});
  for (uint64_t i = 0; i < 16; ++i) Must(op::FreePages{pfn + (i * 7) % 16, 0, 0});
  EXPECT_EQ(InUse(), before);
}

TEST_P(PageOperationsTest, FreePagesHaveAnAddressInTheLinearMap) {
  const uint64_t address = Must(op::GetFreePages{op::GfpClass::kHighuser, 2, 0, true});
  const PhysAddr physical = machine_->kernel_layout().PhysOf(VirtAddr(address));
  EXPECT_LT(machine_->layout().page_size.FrameHolding(physical), machine_->kernel_layout().max_low_pfn);
  Must(op::FreePages{machine_->layout().page_size.FrameHolding(physical).raw(), 2, 0});
  Refused(op::GetFreePages{op::GfpClass::kKernel, 11, 0, false});
}

TEST_P(PageOperationsTest, DrainingEmptiesTheListsOfTheCpu) {
  Must(op::FreePages{Must(op::AllocPages{op::GfpClass::kKernel, 0, 0, false}), 0, 0});
  const auto on_cpu = [&] {
    uint32_t pages = 0;
    for (const Zone& zone : machine_->memory().zones()) pages += zone.populated() ? zone.pcp[0].count : 0;
    return pages;
  };
  EXPECT_GT(on_cpu(), 0u);
  Must(op::DrainPages{0, false});
  EXPECT_EQ(on_cpu(), 0u);
  Refused(op::DrainPages{64, false});
  Must(op::DrainPages{0, true});
}

INSTANTIATE_TEST_SUITE_P(Flavours, PageOperationsTest, testing::Values("686-1G", "686-pae-1G", "arm64-1G"),
                         [](const auto& test) { return CaseName(test.param); });

}  // namespace
}  // namespace mmlab

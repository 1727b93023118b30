#include "server/base/explanation.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace mmlab {
namespace {

TEST(ExplanationTest, EveryUnitHasItsNotation) {
  Explanation why;
  why.Add(StepKind::kPageTableWalk, "walked")
      .Number("level", -3)
      .Address("address", VirtAddr(0xffff'ffff'ffff'f000))
      .Physical("table", PhysAddr(0x1000))
      .Frame("frame", Pfn(0x1f))
      .Pages("free", PageCount(12))
      .Pages("moved", 1)
      .Size("size", Bytes(4096))
      .Bits("entry", 0x8000'0000'0000'0067)
      .Truth("present", true)
      .Truth("dirty", false)
      .Text("zone", "HighMem")
      .Error(Errno::kENOMEM);
  const std::string expected[] = {
      "level=-3",    "address=0xfffffffffffff000", "table=0x1000", "frame=pfn 0x1f", "free=12 pages", "moved=1 page",
      "size=4096 B", "entry=0x8000000000000067",   "present=true", "dirty=false",    "zone=HighMem",  "errno=ENOMEM",
  };
  const auto& facts = why.steps().front().facts;
  ASSERT_EQ(facts.size(), std::size(expected));
  for (size_t i = 0; i < facts.size(); ++i) EXPECT_EQ(FactText(facts[i]), expected[i]);
}

TEST(ExplanationTest, TextIsOneLineAStep) {
  Explanation why;
  why.Add(StepKind::kVmaLookup, "no VMA ends above it").Address("address", VirtAddr(0x1000)).Number("vmas", 7);
  why.Add(StepKind::kSignal, "SIGSEGV");
  EXPECT_EQ(ExplanationText(why),
            " 1. vma_lookup         no VMA ends above it  [address=0x1000, vmas=7]\n"
            " 2. signal             SIGSEGV\n");
}

TEST(ExplanationTest, BehindTheFirstStepsSomeOfEachKindAreKept) {
  constexpr size_t kOfOneKind = Explanation::kFirstSteps + Explanation::kMoreOfAKind;
  Explanation why;
  for (size_t i = 0; i < kOfOneKind + 5; ++i) why.Add(StepKind::kFaultDecision, "anonymous").Number("i", 1);
  EXPECT_EQ(why.steps().size(), kOfOneKind);
  EXPECT_EQ(why.steps_left_out(), 5u);
  why.Add(StepKind::kOomScore, "chosen").Number("i", 1);
  ASSERT_EQ(why.steps().size(), kOfOneKind + 1);
  EXPECT_EQ(why.steps().back().kind, StepKind::kOomScore);
  EXPECT_EQ(why.steps().back().number, kOfOneKind + 6);
  for (const ExplanationStep& step : why.steps()) EXPECT_EQ(step.facts.size(), 1u);
  const std::string text = ExplanationText(why);
  EXPECT_NE(text.find("\n1056. oom_score          chosen  [i=1]\n... 5 more steps where the numbers jump"), std::string::npos) << text;
}

TEST(ExplanationTest, BeyondTheLimitOnlyTheCountGrows) {
  Explanation why;
  for (size_t i = 0; i < 100 * Explanation::kMaxSteps; ++i) why.Add(static_cast<StepKind>(i % 100), "one of a hundred kinds");
  EXPECT_EQ(why.steps().size(), Explanation::kMaxSteps);
  EXPECT_EQ(why.steps_left_out(), 99 * Explanation::kMaxSteps);
}

TEST(ExplanationTest, EveryKindHasItsOwnName) {
  std::set<std::string> names;
  for (int i = 0; i <= static_cast<int>(StepKind::kAddressLayout); ++i) names.insert(std::string(StepKindName(static_cast<StepKind>(i))));
  EXPECT_EQ(names.size(), static_cast<size_t>(StepKind::kAddressLayout) + 1);
}

TEST(TracerTest, ExplainsOnlyWhileAsked) {
  Tracer tracer;
  EXPECT_EQ(tracer.explanation(), nullptr);
  Explanation why;
  tracer.Explain(&why);
  EXPECT_EQ(tracer.explanation(), &why);
  tracer.Explain(nullptr);
  EXPECT_EQ(tracer.explanation(), nullptr);
}

}  // namespace
}  // namespace mmlab

#include "server/service/outcome_converters.h"

#include "gtest/gtest.h"

namespace mmlab {
namespace {

v1::Outcome ProtoOf(Outcome outcome) {
  v1::Outcome proto;
  OutcomeToProto(outcome, &proto);
  return proto;
}

TEST(OutcomeToProtoTest, ValuesAreFullUnsigned) {
  Outcome outcome;
  outcome.value = ~uint64_t{0};
  EXPECT_EQ(ProtoOf(outcome).value(), ~uint64_t{0});
  EXPECT_EQ(ProtoOf(outcome).error_number(), 0);
  EXPECT_EQ(ProtoOf(outcome).error_name(), "");
  EXPECT_FALSE(ProtoOf(outcome).has_signal());
  EXPECT_FALSE(ProtoOf(outcome).has_access());
}

TEST(OutcomeToProtoTest, ErrorsHaveNumberAndName) {
  Outcome outcome;
  outcome.error = Errno::kENOMEM;
  EXPECT_EQ(ProtoOf(outcome).error_number(), 12);
  EXPECT_EQ(ProtoOf(outcome).error_name(), "ENOMEM");
}

TEST(OutcomeToProtoTest, SignalsAreAsInSiginfo) {
  Outcome outcome;
  outcome.signal = Signal{SignalNumber::kSigSegv, kSegvAccerr, 0xffffffffffff1000, 14, 7};
  outcome.access = AccessResult{0x11, 3, 0xffffffffffff1000, 0xcbf29ce484222325, 2, 1};
  const v1::Outcome proto = ProtoOf(outcome);
  EXPECT_EQ(proto.signal().signo(), 11);
  EXPECT_EQ(proto.signal().name(), "SIGSEGV");
  EXPECT_EQ(proto.signal().code_name(), "SEGV_ACCERR");
  EXPECT_EQ(proto.signal().address(), 0xffffffffffff1000);
  EXPECT_EQ(proto.signal().x86_trap(), 14);
  EXPECT_EQ(proto.signal().x86_error_code(), 7);
  EXPECT_EQ(proto.access().done(), 3);
  EXPECT_EQ(proto.access().fnv1a64(), 0xcbf29ce484222325);
  EXPECT_EQ(proto.access().minor_faults(), 2);
  EXPECT_EQ(proto.access().major_faults(), 1);
  outcome.signal = Signal{SignalNumber::kSigBus, kBusAdrerr, 1, 0, 0};
  EXPECT_EQ(ProtoOf(outcome).signal().name(), "SIGBUS");
  EXPECT_EQ(ProtoOf(outcome).signal().code_name(), "BUS_ADRERR");
}

TEST(ExplanationToProtoTest, EveryUnitHasItsField) {
  Explanation explanation;
  explanation.Add(StepKind::kZoneCheck, "enough is free")
      .Number("n", -1)
      .Address("a", VirtAddr(0xffff000000000000))
      .Physical("p", PhysAddr(0x100000000))
      .Frame("f", Pfn(7))
      .Pages("pages", int64_t{-3})
      .Size("size", Bytes(4096))
      .Bits("bits", 0x8000000000000001)
      .Text("zone", "Normal")
      .Truth("ok", true);
  v1::Explanation proto;
  ExplanationToProto(explanation, 1000, &proto);
  ASSERT_EQ(proto.steps_size(), 1);
  EXPECT_EQ(proto.steps(0).kind(), v1::STEP_KIND_ZONE_CHECK);
  const auto& facts = proto.steps(0).facts();
  ASSERT_EQ(facts.size(), 9);
  EXPECT_EQ(facts[0].number(), -1);
  EXPECT_EQ(facts[1].address(), 0xffff000000000000);
  EXPECT_EQ(facts[2].phys_address(), uint64_t{0x100000000});
  EXPECT_EQ(facts[3].pfn(), 7u);
  EXPECT_EQ(facts[4].pages(), -3);
  EXPECT_EQ(facts[5].bytes(), 4096);
  EXPECT_EQ(facts[6].bits(), 0x8000000000000001);
  EXPECT_EQ(facts[7].text(), "Normal");
  EXPECT_TRUE(facts[8].truth());
  EXPECT_FALSE(proto.text().empty());
}

TEST(ExplanationToProtoTest, CountsWhatDoesNotFit) {
  Explanation explanation;
  for (int i = 0; i < 1500; ++i) explanation.Add(StepKind::kSignal, "s");
  v1::Explanation proto;
  ExplanationToProto(explanation, 1000, &proto);
  EXPECT_EQ(proto.steps_size(), 1000);
  EXPECT_EQ(proto.steps(999).number(), 1000);
  EXPECT_EQ(proto.steps_left_out(), 500);
  v1::Explanation small;
  ExplanationToProto(explanation, 10, &small);
  EXPECT_EQ(small.steps_size(), 10);
  EXPECT_EQ(small.steps_left_out(), 1490);
}

TEST(ExplanationToProtoTest, StepKindsHaveTheSameNumbers) {
  for (int kind = 1; kind < v1::StepKind_ARRAYSIZE; ++kind) {
    if (!v1::StepKind_IsValid(kind)) continue;
    std::string name = v1::StepKind_Name(kind).substr(sizeof("STEP_KIND_") - 1);
    for (char& c : name) c = static_cast<char>(std::tolower(c));
    EXPECT_EQ(name, std::string(StepKindName(static_cast<StepKind>(kind))));
  }
}

}  // namespace
}  // namespace mmlab

#include "server/service/outcome_converters.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/errno.h"

namespace mmlab {
namespace {

const char* SignalName(SignalNumber number) {
  switch (number) {
    case SignalNumber::kSigIll:
      return "SIGILL";
    case SignalNumber::kSigBus:
      return "SIGBUS";
    case SignalNumber::kSigKill:
      return "SIGKILL";
    case SignalNumber::kSigSegv:
      return "SIGSEGV";
  }
  return "";
}

const char* SignalCodeName(const Signal& signal) {
  if (signal.number == SignalNumber::kSigSegv && signal.code == kSegvMaperr) return "SEGV_MAPERR";
  if (signal.number == SignalNumber::kSigSegv && signal.code == kSegvAccerr) return "SEGV_ACCERR";
  if (signal.number == SignalNumber::kSigBus && signal.code == kBusAdrerr) return "BUS_ADRERR";
  return "";
}

void SignalToProto(const Signal& signal, v1::Signal* proto) {
  proto->set_signo(static_cast<int32_t>(signal.number));
  proto->set_name(SignalName(signal.number));
  proto->set_code(signal.code);
  proto->set_code_name(SignalCodeName(signal));
  proto->set_address(signal.address);
  proto->set_x86_trap(signal.x86_trap);
  proto->set_x86_error_code(signal.x86_error_code);
}

void AccessToProto(const AccessResult& access, v1::AccessResult* proto) {
  proto->set_value(access.value);
  proto->set_done(static_cast<int64_t>(access.done));
  proto->set_failed_at(access.failed_at);
  proto->set_fnv1a64(access.fnv1a64);
  proto->set_minor_faults(static_cast<int64_t>(access.minor_faults));
  proto->set_major_faults(static_cast<int64_t>(access.major_faults));
}

void FactToProto(const Fact& fact, v1::Fact* proto) {
  proto->set_name(fact.name);
  const auto bits = static_cast<uint64_t>(fact.number);
  switch (fact.unit) {
    case FactUnit::kNumber:
      return proto->set_number(fact.number);
    case FactUnit::kAddress:
      return proto->set_address(bits);
    case FactUnit::kPhysAddress:
      return proto->set_phys_address(bits);
    case FactUnit::kPfn:
      return proto->set_pfn(bits);
    case FactUnit::kPages:
      return proto->set_pages(fact.number);
    case FactUnit::kBytes:
      return proto->set_bytes(fact.number);
    case FactUnit::kBits:
      return proto->set_bits(bits);
    case FactUnit::kText:
      return proto->set_text(fact.text);
    case FactUnit::kTruth:
      return proto->set_truth(fact.number != 0);
  }
}

}  // namespace

void OutcomeToProto(Outcome& outcome, v1::Outcome* proto) {
  proto->set_value(outcome.value);
  if (outcome.error != Errno::kOk) {
    const absl::string_view name = ErrnoName(outcome.error);
    proto->set_error_number(static_cast<int32_t>(outcome.error));
    proto->set_error_name(name.data(), name.size());
  }
  if (outcome.signal.has_value()) SignalToProto(*outcome.signal, proto->mutable_signal());
  if (outcome.access.has_value()) AccessToProto(*outcome.access, proto->mutable_access());
  if (!outcome.data.empty()) proto->set_data(std::move(outcome.data));
  for (const Pfn pfn : outcome.pfns) proto->add_pfns(pfn.raw());
  for (const uint64_t address : outcome.addresses) proto->add_addresses(address);
}

void ExplanationToProto(const Explanation& explanation, size_t max_steps, v1::Explanation* proto) {
  const size_t kept = std::min(max_steps, explanation.steps().size());
  for (size_t i = 0; i < kept; ++i) {
    const ExplanationStep& step = explanation.steps()[i];
    v1::ExplanationStep* added = proto->add_steps();
    added->set_kind(static_cast<v1::StepKind>(step.kind));
    added->set_text(step.text);
    added->set_number(static_cast<int64_t>(step.number));
    for (const Fact& fact : step.facts) FactToProto(fact, added->add_facts());
  }
  const size_t left_out = explanation.steps().size() - kept;
  proto->set_steps_left_out(static_cast<int64_t>(explanation.steps_left_out() + left_out));
  if (left_out == 0) proto->set_text(ExplanationText(explanation));
}

}  // namespace mmlab

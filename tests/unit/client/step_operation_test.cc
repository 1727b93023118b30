#include "client/replay/step_operation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mmlab {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;

constexpr int32_t kPid = 7;

struct TranslationCase {
  const char* name;
  const char* step;
  const char* operation;  // As protobuf's short text.
};

class StepOperationTest : public testing::TestWithParam<TranslationCase> {};

TEST_P(StepOperationTest, SaysTheSameInTheContractsWords) {
  const absl::StatusOr<v1::Operation> operation = StepOperation(ordered_json::parse(GetParam().step), kPid, {{1, 32769}});
  ASSERT_TRUE(operation.ok()) << operation.status();
  EXPECT_EQ(operation->ShortDebugString(), GetParam().operation);
}

INSTANTIATE_TEST_SUITE_P(
    Operations, StepOperationTest,
    testing::Values(
        TranslationCase{"Mmap",
                        R"({"op":"mmap","args":{"addr":"0x1000","len":"0x2000","prot":"0x3","flags":"0x22","fd":-1,"offset":"0x0"}})",
                        "mmap { pid: 7 address: 4096 length_bytes: 8192 prot: 3 flags: 34 fd: -1 }"},
        TranslationCase{"MmapFile",
                        R"({"op":"mmap","args":{"addr":"0x0","len":"0x1","prot":"0x1","flags":"0x1","fd":50,"offset":"0x2000"}})",
                        "mmap { pid: 7 length_bytes: 1 prot: 1 flags: 1 fd: 50 offset_bytes: 8192 }"},
        TranslationCase{"Munmap", R"({"op":"munmap","args":{"addr":"0x1000","len":"0x1000"}})",
                        "munmap { pid: 7 address: 4096 length_bytes: 4096 }"},
        TranslationCase{"Mprotect", R"({"op":"mprotect","args":{"addr":"0x1000","len":"0x1000","prot":"0x1000001"}})",
                        "mprotect { pid: 7 address: 4096 length_bytes: 4096 prot: 16777217 }"},
        TranslationCase{"Mremap", R"({"op":"mremap","args":{"addr":"0x1","old_len":"0x2","new_len":"0x3","flags":"0x4","new_addr":"0x5"}})",
                        "mremap { pid: 7 old_address: 1 old_length_bytes: 2 new_length_bytes: 3 flags: 4 new_address: 5 }"},
        TranslationCase{"MadviseUnknown", R"({"op":"madvise","args":{"addr":"0x1000","len":"0x1000","advice":-3}})",
                        "madvise { pid: 7 address: 4096 length_bytes: 4096 advice: -3 }"},
        TranslationCase{"Mlock2", R"({"op":"mlock2","args":{"addr":"0x1000","len":"0x1000","flags":"0x1"}})",
                        "mlock { pid: 7 address: 4096 length_bytes: 4096 flags: 1 }"},
        TranslationCase{"Munlockall", R"({"op":"munlockall","args":{}})", "munlockall { pid: 7 }"},
        TranslationCase{"Brk", R"({"op":"brk","args":{"addr":"0x0"}})", "brk { pid: 7 }"},
        TranslationCase{"Setrlimit", R"({"op":"setrlimit","args":{"resource":9,"cur":"0x1000","max":"unlimited"}})",
                        "setrlimit { pid: 7 resource: 9 current_bytes: 4096 maximum_bytes: 18446744073709551615 }"},
        TranslationCase{"Load", R"({"op":"ld","args":{"addr":"0x1000","size":"0x4"}})",
                        "access_memory { pid: 7 kind: ACCESS_KIND_LOAD address: 4096 length_bytes: 4 }"},
        TranslationCase{"Store", R"({"op":"st","args":{"addr":"0x1000","size":"0x1","value":"0x5a"}})",
                        "access_memory { pid: 7 kind: ACCESS_KIND_STORE address: 4096 length_bytes: 1 value: 90 }"},
        TranslationCase{"TouchRead", R"({"op":"touch_read","args":{"addr":"0x1000","len":"0x3000","stride":"0x1000"}})",
                        "access_memory { pid: 7 kind: ACCESS_KIND_TOUCH_READ address: 4096 length_bytes: 12288 stride_bytes: 4096 }"},
        TranslationCase{"Execute", R"({"op":"exec","args":{"addr":"0x1000"}})",
                        "access_memory { pid: 7 kind: ACCESS_KIND_EXECUTE address: 4096 }"},
        TranslationCase{"Fork", R"({"op":"fork","args":{"child":1}})", "fork { pid: 7 }"},
        TranslationCase{"Exit", R"({"op":"exit","args":{"code":0}})", "exit { pid: 7 }"},
        TranslationCase{"ShmatKnown", R"({"op":"shmat","args":{"id":1,"addr":"0x0","flags":"0x0"}})", "shmat { pid: 7 shm_id: 32769 }"},
        TranslationCase{"ShmatUnknown", R"({"op":"shmat","args":{"id":9,"addr":"0x0","flags":"0x0"}})", "shmat { pid: 7 shm_id: -1 }"}),
    [](const auto& tested) { return tested.param.name; });

TEST(StepOperationErrorTest, NamesWhatIsWrong) {
  const auto message = [](const char* step) { return std::string(StepOperation(ordered_json::parse(step), kPid, {}).status().message()); };
  EXPECT_EQ(message(R"({"op":"teleport","args":{}})"), "no operation of this format: \"teleport\"");
  EXPECT_EQ(message(R"({"op":"munmap","args":{"addr":"0x1000"}})"), "munmap: argument \"len\" is missing or no number");
  EXPECT_EQ(message(R"({"op":"munmap","args":{"addr":"soon","len":1}})"), "munmap: argument \"addr\" is missing or no number");
  EXPECT_EQ(message(R"({"op":"brk"})"), "brk: argument \"addr\" is missing or no number");
}

struct OutcomeCase {
  const char* name;
  const char* op;
  const char* outcome;  // Which of the outcomes below.
  const char* answer;
};

class AddOutcomeTest : public testing::TestWithParam<OutcomeCase> {};

TEST_P(AddOutcomeTest, SpeaksTheRecordingsWords) {
  v1::Outcome outcome;
  outcome.set_value(strcmp(GetParam().outcome, "value") == 0 ? 0xb7ff9000 : 0);
  if (strcmp(GetParam().outcome, "enomem") == 0) {
    outcome.set_error_number(12);
    outcome.set_error_name("ENOMEM");
  } else if (strcmp(GetParam().outcome, "segv") == 0) {
    outcome.mutable_access()->set_done(3);
    outcome.mutable_access()->set_failed_at(0x4000);
    v1::Signal& signal = *outcome.mutable_signal();
    signal.set_name("SIGSEGV");
    signal.set_code_name("SEGV_ACCERR");
    signal.set_address(0x4000);
    signal.set_x86_trap(14);
    signal.set_x86_error_code(7);
  } else if (strcmp(GetParam().outcome, "access") == 0) {
    outcome.mutable_access()->set_value(0x5a);
    outcome.mutable_access()->set_done(1);
    outcome.mutable_access()->set_fnv1a64(0xcbf29ce484222325);
  } else if (strcmp(GetParam().outcome, "vector") == 0) {
    outcome.set_data(std::string("\1\0\1", 3));
  }
  ordered_json answer = ordered_json::object();
  AddOutcome(ordered_json{{"op", GetParam().op}}, outcome, answer);
  EXPECT_EQ(answer.dump(), GetParam().answer);
}

INSTANTIATE_TEST_SUITE_P(
    Outcomes, AddOutcomeTest,
    testing::Values(OutcomeCase{"Address", "mmap", "value", R"({"ret":"0xb7ff9000"})"},
                    OutcomeCase{"Number", "munmap", "zero", R"({"ret":0})"}, OutcomeCase{"Child", "fork", "value", R"({"ret":"child"})"},
                    OutcomeCase{"Errno", "mmap", "enomem", R"({"ret":-1,"errno":"ENOMEM"})"},
                    OutcomeCase{"Load", "ld", "access", R"({"value":"0x5a"})"}, OutcomeCase{"Store", "st", "access", "{}"},
                    OutcomeCase{"Touch", "touch_write", "access", R"({"done":1})"},
                    OutcomeCase{"Hash", "hash", "access", R"({"done":1,"fnv1a64":"0xcbf29ce484222325"})"},
                    OutcomeCase{"Mincore", "mincore", "vector", R"({"ret":0,"mincore":"101"})"},
                    OutcomeCase{"SignalOfTouch", "touch_read", "segv",
                                R"({"signal":{"signo":"SIGSEGV","code":"SEGV_ACCERR","addr":"0x4000","x86_trap":14,"x86_error_code":7},)"
                                R"("done":3,"failed_at":"0x4000"})"},
                    OutcomeCase{"SignalOfLoad", "ld", "segv",
                                R"({"signal":{"signo":"SIGSEGV","code":"SEGV_ACCERR","addr":"0x4000","x86_trap":14,"x86_error_code":7}})"}),
    [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace mmlab

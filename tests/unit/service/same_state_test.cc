// The same operations give the same answers and the same state, whichever way they come.
#include <algorithm>
#include <string>
#include <vector>

#include "tests/unit/service/random_program.h"

namespace mmlab {
namespace {

constexpr int kLength = 600;

struct History {
  std::vector<std::string> outcomes;  // Serialised.
  uint64_t state_hash = 0;
  int64_t operations = 0;
};

class SameStateTest : public testing::TestWithParam<uint64_t> {
 protected:
  int32_t NextPid() {
    const std::string machine = server_.CreateMachine("probe");
    v1::CreateProcessRequest request;
    request.set_machine(machine);
    v1::CreateProcessResponse response;
    EXPECT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::CreateProcess, request, &response).ok());
    return static_cast<int32_t>(response.outcome().value());
  }

  void End(const std::string& machine, History& run) {
    v1::CheckMachineRequest request;
    request.set_name(machine);
    v1::CheckMachineResponse response;
    EXPECT_TRUE(Call(server_.machines, &v1::MachineService::Stub::CheckMachine, request, &response).ok());
    EXPECT_EQ(response.violations_size(), 0) << response.violations(0);
    run.state_hash = response.state_hash();
    run.operations = server_.GetMachine(machine).operations_applied();
  }

  History InBatches(const std::string& machine, const std::vector<v1::Operation>& program, size_t batch_size) {
    History run;
    for (size_t i = 0; i < program.size(); i += batch_size) {
      v1::ExecuteBatchRequest request;
      request.set_machine(machine);
      const size_t end = std::min(program.size(), i + batch_size);
      for (size_t j = i; j < end; ++j) *request.add_operations() = program[j];
      v1::ExecuteBatchResponse response;
      const grpc::Status status = Call(server_.operations, &v1::OperationService::Stub::ExecuteBatch, request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      for (const v1::Outcome& outcome : response.outcomes()) run.outcomes.push_back(outcome.SerializeAsString());
    }
    End(machine, run);
    return run;
  }

  History Streamed(const std::string& machine, const std::vector<v1::Operation>& program, size_t batch_size) {
    History run;
    grpc::ClientContext context;
    auto stream = server_.operations->Execute(&context);
    v1::ExecuteResponse response;
    size_t batches = 0;
    for (size_t i = 0; i < program.size(); i += batch_size, ++batches) {
      v1::ExecuteRequest request;
      request.mutable_batch()->set_machine(machine);
      const size_t end = std::min(program.size(), i + batch_size);
      for (size_t j = i; j < end; ++j) *request.mutable_batch()->add_operations() = program[j];
      EXPECT_TRUE(stream->Write(request));
      if (batches < 4) continue;  // Some batches ahead of the answers.
      EXPECT_TRUE(stream->Read(&response));
      for (const v1::Outcome& outcome : response.batch().outcomes()) run.outcomes.push_back(outcome.SerializeAsString());
    }
    stream->WritesDone();
    while (stream->Read(&response)) {
      for (const v1::Outcome& outcome : response.batch().outcomes()) run.outcomes.push_back(outcome.SerializeAsString());
    }
    const grpc::Status status = stream->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    End(machine, run);
    return run;
  }

  // Alone, a missing process is NOT_FOUND; where a batch says ESRCH, and the machine counts an operation.
  History Alone(const std::string& machine, const std::vector<v1::Operation>& program, int64_t* missing) {
    History run;
    for (const v1::Operation& operation : program) {
      v1::Outcome outcome;
      const grpc::Status status = CallAlone(server_, machine, operation, &outcome);
      if (status.error_code() == grpc::StatusCode::NOT_FOUND) {
        ++*missing;
        outcome.Clear();
        outcome.set_error_number(3);
        outcome.set_error_name("ESRCH");
      } else {
        EXPECT_TRUE(status.ok()) << status.error_message();
      }
      run.outcomes.push_back(outcome.SerializeAsString());
    }
    End(machine, run);
    return run;
  }

  static void ExpectSame(const History& a, const History& b) {
    ASSERT_EQ(a.outcomes.size(), b.outcomes.size());
    for (size_t i = 0; i < a.outcomes.size(); ++i) {
      v1::Outcome left;
      v1::Outcome right;
      left.ParseFromString(a.outcomes[i]);
      right.ParseFromString(b.outcomes[i]);
      if (left.error_name() == "ESRCH" && right.error_name() == "ESRCH") continue;  // Whatever else came with it.
      ASSERT_EQ(a.outcomes[i], b.outcomes[i]) << "operation " << i << ": " << left.ShortDebugString() << " / " << right.ShortDebugString();
    }
  }

  TestServer server_;
};

TEST_P(SameStateTest, HoweverItComes) {
  const std::vector<v1::Operation> program = RandomProgram(GetParam(), kLength, NextPid());
  const History whole = InBatches(server_.CreateMachine("whole"), program, kLength);
  const History again = InBatches(server_.CreateMachine("again"), program, kLength);
  const History pieces = InBatches(server_.CreateMachine("pieces"), program, 7);
  const History streamed = Streamed(server_.CreateMachine("streamed"), program, 13);
  int64_t missing = 0;
  const History alone = Alone(server_.CreateMachine("alone"), program, &missing);
  for (const History& other : {again, pieces, streamed}) {
    ExpectSame(whole, other);
    EXPECT_EQ(other.state_hash, whole.state_hash);
    EXPECT_EQ(other.operations, whole.operations);
  }
  ExpectSame(whole, alone);
  EXPECT_EQ(alone.operations + missing, whole.operations);
  EXPECT_TRUE(missing != 0 || alone.state_hash == whole.state_hash);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SameStateTest, testing::Values(1, 2, 3), [](const auto& tested) { return absl::StrCat(tested.param); });

}  // namespace
}  // namespace mmlab

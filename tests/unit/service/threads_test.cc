// Many clients at once, on several machines, in every way that operations can come.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/unit/service/test_server.h"

namespace mmlab {
namespace {

void AllocateAlone(TestServer& server, const std::string& machine, int times) {
  v1::AllocPagesRequest request;
  request.set_machine(machine);
  for (int i = 0; i < times; ++i) {
    v1::AllocPagesResponse response;
    ASSERT_TRUE(Call(server.pages, &v1::PageService::Stub::AllocPages, request, &response).ok());
  }
}

v1::ExecuteBatchRequest Batch(const std::string& machine, int operations) {
  v1::ExecuteBatchRequest batch;
  batch.set_machine(machine);
  for (int i = 0; i < operations; ++i) batch.add_operations()->mutable_alloc_pages();
  return batch;
}

void AllocateStreamed(TestServer& server, const std::vector<std::string>& machines, int batches, int operations) {
  grpc::ClientContext context;
  const auto stream = server.operations->Execute(&context);
  std::thread writer([&] {
    for (int i = 0; i < batches; ++i) {
      v1::ExecuteRequest request;
      *request.mutable_batch() = Batch(machines[i % machines.size()], operations);
      ASSERT_TRUE(stream->Write(request));
    }
    stream->WritesDone();
  });
  int answers = 0;
  v1::ExecuteResponse response;
  while (stream->Read(&response)) {
    ++answers;
    ASSERT_EQ(response.batch().outcomes_size(), operations);
  }
  writer.join();
  EXPECT_EQ(answers, batches);
  EXPECT_TRUE(stream->Finish().ok());
}

TEST(ServiceThreadsTest, EveryOperationIsAppliedOnce) {
  TestServer server;
  const std::vector<std::string> machines = {server.CreateMachine("a"), server.CreateMachine("b"), server.CreateMachine("c")};
  std::vector<std::thread> threads;
  for (const std::string& machine : machines) {
    for (int t = 0; t < 2; ++t) threads.emplace_back([&] { AllocateAlone(server, machine, 50); });
  }
  threads.emplace_back([&] { AllocateStreamed(server, machines, 30, 300); });
  threads.emplace_back([&] { AllocateStreamed(server, machines, 60, 5); });
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    while (!stop) {
      v1::ListMachinesResponse listed;
      ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::ListMachines, v1::ListMachinesRequest(), &listed).ok());
      ASSERT_EQ(listed.machines_size(), 3);
      v1::ReadProcFileRequest request;
      request.set_machine(machines[0]);
      request.set_path("meminfo");
      v1::ReadProcFileResponse response;
      ASSERT_TRUE(Call(server.proc, &v1::ProcService::Stub::ReadProcFile, request, &response).ok());
    }
  });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  reader.join();
  int64_t operations = 0;
  for (const std::string& machine : machines) operations += server.GetMachine(machine).operations_applied();
  EXPECT_EQ(operations, 6 * 50 + 30 * 300 + 60 * 5);
}

TEST(ServiceThreadsTest, MachinesComeAndGoUnderTheirClients) {
  TestServer server;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&server, t] {
      for (int i = 0; i < 15; ++i) {
        v1::CreateMachineRequest create;
        create.set_machine_id(absl::StrCat("m", (t + i) % 2));
        create.mutable_spec()->set_preset(kPreset);
        v1::CreateMachineResponse created;
        const grpc::Status status = Call(server.machines, &v1::MachineService::Stub::CreateMachine, create, &created);
        ASSERT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::ALREADY_EXISTS) << status.error_message();
        v1::ExecuteBatchResponse executed;
        const grpc::Status batch =
            Call(server.operations, &v1::OperationService::Stub::ExecuteBatch, Batch("machines/" + create.machine_id(), 500), &executed);
        ASSERT_TRUE(batch.ok() || batch.error_code() == grpc::StatusCode::NOT_FOUND) << batch.error_message();
        v1::DeleteMachineRequest end;
        end.set_name("machines/" + create.machine_id());
        v1::DeleteMachineResponse ended;
        const grpc::Status deleted = Call(server.machines, &v1::MachineService::Stub::DeleteMachine, end, &ended);
        ASSERT_TRUE(deleted.ok() || deleted.error_code() == grpc::StatusCode::NOT_FOUND) << deleted.error_message();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ServiceThreadsTest, CancelledStreamsEnd) {
  TestServer server;
  const std::string machine = server.CreateMachine("m");
  for (int i = 0; i < 10; ++i) {
    grpc::ClientContext context;
    const auto stream = server.operations->Execute(&context);
    v1::ExecuteRequest request;
    *request.mutable_batch() = Batch(machine, 2000);
    for (int batch = 0; batch < 3; ++batch) stream->Write(request);
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  AllocateAlone(server, machine, 1);  // It still serves.
}

TEST(ServiceThreadsTest, AClientThatDoesNotReadHoldsUpNobody) {
  TestServer server;
  const std::string machine = server.CreateMachine("m");
  grpc::ClientContext context;
  const auto stream = server.operations->Execute(&context);
  std::thread writer([&] {
    v1::ExecuteRequest request;
    *request.mutable_batch() = Batch(machine, 500);
    while (stream->Write(request)) {
    }
  });
  absl::SleepFor(absl::Milliseconds(100));
  AllocateAlone(server, machine, 20);
  AllocateAlone(server, server.CreateMachine("other"), 20);
  context.TryCancel();
  writer.join();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

}  // namespace
}  // namespace mmlab

#include "absl/strings/str_cat.h"
#include "tests/unit/service/test_server.h"

namespace mmlab {
namespace {

v1::AllocPagesRequest Alloc(const std::string& id) {
  v1::AllocPagesRequest request;
  request.set_machine("machines/m");
  request.set_request_id(id);
  return request;
}

class RequestIdTest : public testing::Test {
 protected:
  RequestIdTest() { server_.CreateMachine("m"); }
  int64_t Applied() { return server_.GetMachine("machines/m").operations_applied(); }
  TestServer server_;
};

TEST_F(RequestIdTest, AnOperationIsDoneOnce) {
  v1::AllocPagesResponse first;
  v1::AllocPagesResponse second;
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::AllocPages, Alloc("a"), &first).ok());
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::AllocPages, Alloc("a"), &second).ok());
  EXPECT_EQ(first.SerializeAsString(), second.SerializeAsString());
  EXPECT_EQ(Applied(), 1);
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::AllocPages, Alloc("b"), &second).ok());
  EXPECT_NE(first.outcome().value(), second.outcome().value());
}

TEST_F(RequestIdTest, AnotherRequestWithTheIdIsRefused) {
  v1::AllocPagesResponse response;
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::AllocPages, Alloc("a"), &response).ok());
  v1::AllocPagesRequest other = Alloc("a");
  other.set_order(1);
  const grpc::Status status = Call(server_.pages, &v1::PageService::Stub::AllocPages, other, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(status).reason, "REQUEST_ID_REUSED");
}

TEST_F(RequestIdTest, ExitAnswersAgainAlthoughTheProcessIsGone) {
  v1::ExitRequest request;
  request.set_machine("machines/m");
  request.set_pid(server_.Exec("machines/m"));
  request.set_request_id("bye");
  v1::ExitResponse response;
  EXPECT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::Exit, request, &response).ok());
  EXPECT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::Exit, request, &response).ok());
  request.clear_request_id();
  EXPECT_EQ(Call(server_.processes, &v1::ProcessService::Stub::Exit, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(RequestIdTest, ABatchIsDoneOnceAloneOrInAStream) {
  v1::ExecuteBatchRequest batch;
  batch.set_machine("machines/m");
  batch.set_request_id("batch");
  for (int i = 0; i < 10; ++i) batch.add_operations()->mutable_alloc_pages();
  v1::ExecuteBatchResponse first;
  ASSERT_TRUE(Call(server_.operations, &v1::OperationService::Stub::ExecuteBatch, batch, &first).ok());
  grpc::ClientContext context;
  auto stream = server_.operations->Execute(&context);
  v1::ExecuteRequest request;
  *request.mutable_batch() = batch;
  v1::ExecuteResponse response;
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(response.batch().SerializeAsString(), first.SerializeAsString());
  EXPECT_EQ(Applied(), 10);
}

TEST_F(RequestIdTest, AMachineIsMadeAndEndedOnce) {
  v1::CreateMachineRequest create;
  create.set_machine_id("n");
  create.set_request_id("create");
  create.mutable_spec()->set_preset(kPreset);
  v1::CreateMachineResponse first;
  v1::CreateMachineResponse second;
  ASSERT_TRUE(Call(server_.machines, &v1::MachineService::Stub::CreateMachine, create, &first).ok());
  ASSERT_TRUE(Call(server_.machines, &v1::MachineService::Stub::CreateMachine, create, &second).ok());
  EXPECT_EQ(first.machine().create_time().nanos(), second.machine().create_time().nanos());
  create.clear_request_id();
  EXPECT_EQ(Call(server_.machines, &v1::MachineService::Stub::CreateMachine, create, &second).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  v1::DeleteMachineRequest end;
  end.set_name("machines/n");
  end.set_request_id("delete");
  v1::DeleteMachineResponse ended;
  EXPECT_TRUE(Call(server_.machines, &v1::MachineService::Stub::DeleteMachine, end, &ended).ok());
  EXPECT_TRUE(Call(server_.machines, &v1::MachineService::Stub::DeleteMachine, end, &ended).ok());
}

TEST_F(RequestIdTest, ABootIsDoneOnce) {
  v1::AllocPagesResponse allocated;
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::AllocPages, Alloc(""), &allocated).ok());
  v1::BootMachineRequest boot;
  boot.set_name("machines/m");
  boot.set_request_id("boot");
  v1::BootMachineResponse response;
  ASSERT_TRUE(Call(server_.machines, &v1::MachineService::Stub::BootMachine, boot, &response).ok());
  EXPECT_EQ(response.machine().operations_applied(), 0);
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::AllocPages, Alloc(""), &allocated).ok());
  ASSERT_TRUE(Call(server_.machines, &v1::MachineService::Stub::BootMachine, boot, &response).ok());
  EXPECT_EQ(Applied(), 1);
}

}  // namespace
}  // namespace mmlab

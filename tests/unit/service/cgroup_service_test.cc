// Control groups through the service: made, listed page by page, limited, and what is refused.
#include <string>
#include <vector>

#include "mmlab/v1/cgroup.grpc.pb.h"
#include "tests/unit/service/test_server.h"

namespace mmlab {
namespace {

class CgroupServiceTest : public testing::Test {
 protected:
  CgroupServiceTest() : cgroups_(v1::CgroupService::NewStub(server_.server().InProcessChannel())), machine_(server_.CreateMachine("m")) {}

  grpc::Status Make(const std::string& cgroup, v1::Outcome* outcome = nullptr) {
    v1::CreateCgroupRequest request;
    request.set_machine(machine_);
    request.set_cgroup(cgroup);
    v1::CreateCgroupResponse response;
    const grpc::Status status = Call(cgroups_, &v1::CgroupService::Stub::CreateCgroup, request, &response);
    if (outcome != nullptr) *outcome = response.outcome();
    return status;
  }
  grpc::Status Write(const std::string& cgroup, const std::string& file, const std::string& value, v1::Outcome* outcome = nullptr) {
    v1::WriteCgroupFileRequest request;
    request.set_machine(machine_);
    request.set_cgroup(cgroup);
    request.set_file(file);
    request.set_value(value);
    v1::WriteCgroupFileResponse response;
    const grpc::Status status = Call(cgroups_, &v1::CgroupService::Stub::WriteCgroupFile, request, &response);
    if (outcome != nullptr) *outcome = response.outcome();
    return status;
  }
  std::vector<v1::Cgroup> List(int page_size) {
    std::vector<v1::Cgroup> all;
    v1::ListCgroupsRequest request;
    request.set_parent(machine_);
    request.set_page_size(page_size);
    do {
      v1::ListCgroupsResponse response;
      const grpc::Status status = Call(cgroups_, &v1::CgroupService::Stub::ListCgroups, request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      all.insert(all.end(), response.cgroups().begin(), response.cgroups().end());
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return all;
  }

  TestServer server_;
  std::unique_ptr<v1::CgroupService::Stub> cgroups_;
  std::string machine_;
};

TEST_F(CgroupServiceTest, WhatWasMadeIsListedInOrder) {
  v1::Outcome outcome;
  ASSERT_TRUE(Write("", "cgroup.subtree_control", "+memory", &outcome).ok());
  EXPECT_EQ(outcome.error_name(), "");
  for (const char* path : {"b", "a", "a/c"}) ASSERT_TRUE(Make(path).ok());
  ASSERT_TRUE(Write("a", "memory.max", "64M").ok());
  const int32_t pid = server_.Exec(machine_);
  ASSERT_TRUE(Write("b", "cgroup.procs", std::to_string(pid)).ok());
  for (const int page_size : {1, 2, 100}) {
    const std::vector<v1::Cgroup> all = List(page_size);
    ASSERT_EQ(all.size(), 4u);
    EXPECT_EQ(all[0].path(), "");
    EXPECT_EQ(all[1].path(), "a");
    EXPECT_EQ(all[2].path(), "a/c");
    EXPECT_EQ(all[3].path(), "b");
    EXPECT_FALSE(all[0].memory_controller());
    EXPECT_FALSE(all[2].memory_controller());
    EXPECT_EQ(all[1].max_bytes(), 64 << 20);
    EXPECT_FALSE(all[3].has_max_bytes());
    ASSERT_EQ(all[3].pids_size(), 1);
    EXPECT_EQ(all[3].pids(0), pid);
  }
}

TEST_F(CgroupServiceTest, WhatTheKernelRefusesIsAnOutcome) {
  v1::Outcome outcome;
  ASSERT_TRUE(Make("a/b", &outcome).ok());
  EXPECT_EQ(outcome.error_name(), "ENOENT");
  ASSERT_TRUE(Write("nothing", "memory.max", "1", &outcome).ok());
  EXPECT_EQ(outcome.error_name(), "ENOENT");
  ASSERT_TRUE(Write("", "cgroup.procs", "4711", &outcome).ok());
  EXPECT_EQ(outcome.error_name(), "ESRCH");
}

TEST_F(CgroupServiceTest, WhatNoKernelCouldBeAskedIsAStatus) {
  EXPECT_EQ(DetailsOf(Make("")).field, "cgroup");
  EXPECT_EQ(DetailsOf(Make(std::string(5000, 'a'))).field, "cgroup");
  EXPECT_EQ(DetailsOf(Write("", "", "1")).field, "file");
  EXPECT_EQ(DetailsOf(Write("", "memory.max", std::string(5000, '1'))).field, "value");
  EXPECT_EQ(Write("", "cgroup.subtree_control", "+cpu").error_code(), grpc::StatusCode::UNIMPLEMENTED);
  v1::ListCgroupsRequest request;
  request.set_parent("machines/nothing");
  v1::ListCgroupsResponse response;
  EXPECT_EQ(Call(cgroups_, &v1::CgroupService::Stub::ListCgroups, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace mmlab

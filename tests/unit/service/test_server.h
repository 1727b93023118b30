#ifndef MMLAB_TESTS_UNIT_SERVICE_TEST_SERVER_H_
#define MMLAB_TESTS_UNIT_SERVICE_TEST_SERVER_H_

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "mmlab/v1/file.grpc.pb.h"
#include "mmlab/v1/machine.grpc.pb.h"
#include "mmlab/v1/memory.grpc.pb.h"
#include "mmlab/v1/operation.grpc.pb.h"
#include "mmlab/v1/page.grpc.pb.h"
#include "mmlab/v1/proc.grpc.pb.h"
#include "mmlab/v1/process.grpc.pb.h"
#include "server/service/server.h"

namespace mmlab {

inline constexpr char kPreset[] = "686-64M";  // The smallest of the recorded machines.

// A server in this process and a client's stubs.
class TestServer {
 public:
  explicit TestServer(const ServerOptions& options = {})
      : server_(*Server::Start(options)),
        channel_(server_->InProcessChannel()),
        machines(v1::MachineService::NewStub(channel_)),
        processes(v1::ProcessService::NewStub(channel_)),
        memory(v1::MemoryService::NewStub(channel_)),
        files(v1::FileService::NewStub(channel_)),
        pages(v1::PageService::NewStub(channel_)),
        proc(v1::ProcService::NewStub(channel_)),
        operations(v1::OperationService::NewStub(channel_)) {}

  Server& server() { return *server_; }

  // "machines/{id}"
  std::string CreateMachine(const std::string& id, const std::string& preset = kPreset) {
    v1::CreateMachineRequest request;
    request.set_machine_id(id);
    request.mutable_spec()->set_preset(preset);
    request.mutable_spec()->set_hostname("test");  // The same state, whatever the machine's name.
    v1::CreateMachineResponse response;
    grpc::ClientContext context;
    const grpc::Status status = machines->CreateMachine(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.machine().name();
  }

  v1::Machine GetMachine(const std::string& name) {
    v1::GetMachineRequest request;
    request.set_name(name);
    v1::GetMachineResponse response;
    grpc::ClientContext context;
    const grpc::Status status = machines->GetMachine(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.machine();
  }

  // A process that exec'ed a small program; its pid.
  int32_t Exec(const std::string& machine);

 private:
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;

 public:
  std::unique_ptr<v1::MachineService::Stub> machines;
  std::unique_ptr<v1::ProcessService::Stub> processes;
  std::unique_ptr<v1::MemoryService::Stub> memory;
  std::unique_ptr<v1::FileService::Stub> files;
  std::unique_ptr<v1::PageService::Stub> pages;
  std::unique_ptr<v1::ProcService::Stub> proc;
  std::unique_ptr<v1::OperationService::Stub> operations;
};

// One call of a method: `stub`->*`method`.
template <typename Stub, typename Request, typename Response>
grpc::Status Call(const std::unique_ptr<Stub>& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, Response* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  return (stub.get()->*method)(&context, request, response);
}

// The details of an error; what the error has not stays empty.
struct Details {
  int error_infos = 0;
  std::string reason;
  std::string domain;
  std::string field;
  std::string resource;
  std::string quota_subject;
  std::string precondition;
  std::map<std::string, std::string> metadata;
};
inline Details DetailsOf(const grpc::Status& status) {
  Details details;
  google::rpc::Status proto;
  EXPECT_TRUE(proto.ParseFromString(status.error_details()));
  EXPECT_EQ(proto.code(), static_cast<int>(status.error_code()));
  for (const google::protobuf::Any& any : proto.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::ResourceInfo resource;
    google::rpc::QuotaFailure quota;
    google::rpc::PreconditionFailure precondition;
    if (any.UnpackTo(&info)) {
      ++details.error_infos;
      details.reason = info.reason();
      details.domain = info.domain();
      details.metadata = {info.metadata().begin(), info.metadata().end()};
    } else if (any.UnpackTo(&bad)) {
      details.field = bad.field_violations(0).field();
    } else if (any.UnpackTo(&resource)) {
      details.resource = resource.resource_name();
    } else if (any.UnpackTo(&quota)) {
      details.quota_subject = quota.violations(0).subject();
    } else if (any.UnpackTo(&precondition)) {
      details.precondition = precondition.violations(0).type();
    }
  }
  return details;
}

// A program with one read-execute and one read-write segment.
inline v1::ElfImage SmallImage() {
  v1::ElfImage image;
  image.set_path("/bin/small");
  image.set_entry_address(0x08048100);
  v1::ProgramHeader* text = image.add_program_headers();
  text->set_type(v1::ProgramHeader::TYPE_LOAD);
  text->set_virtual_address(0x08048000);
  text->set_file_size_bytes(0x1000);
  text->set_memory_size_bytes(0x1000);
  text->set_flags(5);
  text->set_align_bytes(0x1000);
  v1::ProgramHeader* data = image.add_program_headers();
  data->set_type(v1::ProgramHeader::TYPE_LOAD);
  data->set_offset_bytes(0x1000);
  data->set_virtual_address(0x08049000);
  data->set_file_size_bytes(0x1000);
  data->set_memory_size_bytes(0x3000);
  data->set_flags(6);
  data->set_align_bytes(0x1000);
  return image;
}

// The operations that put SmallImage into a new process; its pid is the value of the second outcome.
inline void AddExec(const std::string& path, int32_t pid, v1::ExecuteBatchRequest* batch) {
  v1::CreateFileRequest* file = batch->add_operations()->mutable_create_file();
  file->set_path(path);
  file->set_size_bytes(0x2000);
  batch->add_operations()->mutable_create_process()->set_comm("small");
  if (pid == 0) return;
  v1::ExecRequest* exec = batch->add_operations()->mutable_exec();
  exec->set_pid(pid);
  *exec->mutable_image() = SmallImage();
  exec->mutable_image()->set_path(path);
  exec->add_arguments("small");
}

inline int32_t TestServer::Exec(const std::string& machine) {
  v1::ExecuteBatchRequest batch;
  batch.set_machine(machine);
  AddExec("/bin/small", 0, &batch);
  v1::ExecuteBatchResponse response;
  grpc::Status status = Call(operations, &v1::OperationService::Stub::ExecuteBatch, batch, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  const auto pid = static_cast<int32_t>(response.outcomes(1).value());
  v1::ExecRequest exec;
  exec.set_machine(machine);
  exec.set_pid(pid);
  *exec.mutable_image() = SmallImage();
  exec.add_arguments("small");
  v1::ExecResponse executed;
  status = Call(processes, &v1::ProcessService::Stub::Exec, exec, &executed);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(executed.outcome().error_name(), "");
  return pid;
}

}  // namespace mmlab

#endif  // MMLAB_TESTS_UNIT_SERVICE_TEST_SERVER_H_

// Every way in which a call can be wrong, and that each says so the same way.
#include <functional>
#include <string>

#include "tests/unit/service/test_server.h"

namespace mmlab {
namespace {

struct ErrorCase {
  const char* name;
  std::function<grpc::Status(TestServer&)> call;
  grpc::StatusCode code;
  const char* reason;
  const char* field = "";     // Of BadRequest.
  const char* resource = "";  // Of ResourceInfo.
};
class ErrorTest : public testing::TestWithParam<ErrorCase> {
 protected:
  // One server for all cases: none of them changes anything.
  static void SetUpTestSuite() {
    ServerOptions options;
    options.max_machines = 1;
    server_ = new TestServer(options);
    server_->CreateMachine("m");
  }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
  }
  static TestServer* server_;
};
TestServer* ErrorTest::server_ = nullptr;

TEST_P(ErrorTest, HasCodeAndDetails) {
  const grpc::Status status = GetParam().call(*server_);
  EXPECT_EQ(status.error_code(), GetParam().code) << status.error_message();
  EXPECT_FALSE(status.error_message().empty());
  const Details details = DetailsOf(status);
  EXPECT_EQ(details.error_infos, 1);
  EXPECT_EQ(details.domain, "mmlab");
  EXPECT_EQ(details.reason, GetParam().reason);
  EXPECT_EQ(details.field, GetParam().field);
  EXPECT_EQ(details.resource, GetParam().resource);
}

using Server = TestServer;
constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr auto kNotFound = grpc::StatusCode::NOT_FOUND;
constexpr auto kOutOfRange = grpc::StatusCode::OUT_OF_RANGE;

grpc::Status Create(Server& s, const std::string& id, const std::function<void(v1::CreateMachineRequest&)>& change = nullptr) {
  v1::CreateMachineRequest request;
  request.set_machine_id(id);
  request.mutable_spec()->set_preset(kPreset);
  if (change) change(request);
  v1::CreateMachineResponse response;
  return Call(s.machines, &v1::MachineService::Stub::CreateMachine, request, &response);
}
grpc::Status Get(Server& s, const std::string& name) {
  v1::GetMachineRequest request;
  request.set_name(name);
  v1::GetMachineResponse response;
  return Call(s.machines, &v1::MachineService::Stub::GetMachine, request, &response);
}
grpc::Status List(Server& s, int32_t size, const std::string& token) {
  v1::ListMachinesRequest request;
  request.set_page_size(size);
  request.set_page_token(token);
  v1::ListMachinesResponse response;
  return Call(s.machines, &v1::MachineService::Stub::ListMachines, request, &response);
}
grpc::Status ListPresets(Server& s, int32_t size, const std::string& token) {
  v1::ListPresetsRequest request;
  request.set_page_size(size);
  request.set_page_token(token);
  v1::ListPresetsResponse response;
  return Call(s.machines, &v1::MachineService::Stub::ListPresets, request, &response);
}
grpc::Status Delete(Server& s, const std::string& name) {
  v1::DeleteMachineRequest request;
  request.set_name(name);
  v1::DeleteMachineResponse response;
  return Call(s.machines, &v1::MachineService::Stub::DeleteMachine, request, &response);
}
grpc::Status Boot(Server& s, const std::string& name, const std::function<void(v1::BootMachineRequest&)>& change = nullptr) {
  v1::BootMachineRequest request;
  request.set_name(name);
  if (change) change(request);
  v1::BootMachineResponse response;
  return Call(s.machines, &v1::MachineService::Stub::BootMachine, request, &response);
}
grpc::Status Check(Server& s, const std::string& name) {
  v1::CheckMachineRequest request;
  request.set_name(name);
  v1::CheckMachineResponse response;
  return Call(s.machines, &v1::MachineService::Stub::CheckMachine, request, &response);
}
grpc::Status Brk(Server& s, const std::string& machine, int32_t pid, const std::string& request_id = "") {
  v1::BrkRequest request;
  request.set_machine(machine);
  request.set_pid(pid);
  request.set_request_id(request_id);
  v1::BrkResponse response;
  return Call(s.processes, &v1::ProcessService::Stub::Brk, request, &response);
}
grpc::Status Access(Server& s, v1::AccessKind kind, uint64_t length) {
  v1::AccessMemoryRequest request;
  request.set_machine("machines/m");
  request.set_pid(1);
  request.set_kind(kind);
  request.set_length_bytes(length);
  v1::AccessMemoryResponse response;
  return Call(s.processes, &v1::ProcessService::Stub::AccessMemory, request, &response);
}
grpc::Status GetProcess(Server& s, const std::string& name, int view = 0) {
  v1::GetProcessRequest request;
  request.set_name(name);
  request.set_view(static_cast<v1::ProcessView>(view));
  v1::GetProcessResponse response;
  return Call(s.processes, &v1::ProcessService::Stub::GetProcess, request, &response);
}
grpc::Status ListProcesses(Server& s, const std::string& parent, int32_t size, const std::string& token) {
  v1::ListProcessesRequest request;
  request.set_parent(parent);
  request.set_page_size(size);
  request.set_page_token(token);
  v1::ListProcessesResponse response;
  return Call(s.processes, &v1::ProcessService::Stub::ListProcesses, request, &response);
}
grpc::Status AllocPages(Server& s, int32_t cpu) {
  v1::AllocPagesRequest request;
  request.set_machine("machines/m");
  request.set_cpu(cpu);
  v1::AllocPagesResponse response;
  return Call(s.pages, &v1::PageService::Stub::AllocPages, request, &response);
}
grpc::Status ListFrames(Server& s, const std::string& parent, uint64_t first) {
  v1::ListFramesRequest request;
  request.set_parent(parent);
  request.set_first_pfn(first);
  v1::ListFramesResponse response;
  return Call(s.pages, &v1::PageService::Stub::ListFrames, request, &response);
}
grpc::Status ReadPhysical(Server& s, uint64_t address, int64_t length) {
  v1::ReadPhysicalRequest request;
  request.set_parent("machines/m");
  request.set_address(address);
  request.set_length_bytes(length);
  v1::ReadPhysicalResponse response;
  return Call(s.pages, &v1::PageService::Stub::ReadPhysical, request, &response);
}
grpc::Status ReadFile(Server& s, const std::string& machine, const std::string& path) {
  v1::ReadProcFileRequest request;
  request.set_machine(machine);
  request.set_path(path);
  v1::ReadProcFileResponse response;
  return Call(s.proc, &v1::ProcService::Stub::ReadProcFile, request, &response);
}
grpc::Status ListFiles(Server& s, const std::string& parent) {
  v1::ListProcFilesRequest request;
  request.set_parent(parent);
  v1::ListProcFilesResponse response;
  return Call(s.proc, &v1::ProcService::Stub::ListProcFiles, request, &response);
}
grpc::Status Meminfo(Server& s, const std::string& machine) {
  v1::GetMeminfoRequest request;
  request.set_machine(machine);
  v1::GetMeminfoResponse response;
  return Call(s.proc, &v1::ProcService::Stub::GetMeminfo, request, &response);
}
grpc::Status ListVmas(Server& s, const std::string& parent) {
  v1::ListVmAreasRequest request;
  request.set_parent(parent);
  v1::ListVmAreasResponse response;
  return Call(s.proc, &v1::ProcService::Stub::ListVmAreas, request, &response);
}
v1::ExecuteBatchRequest Batch(const std::string& machine, int operations) {
  v1::ExecuteBatchRequest request;
  request.set_machine(machine);
  for (int i = 0; i < operations; ++i) request.add_operations()->mutable_alloc_pages();
  return request;
}
grpc::Status Execute(Server& s, const v1::ExecuteBatchRequest& request) {
  v1::ExecuteBatchResponse response;
  return Call(s.operations, &v1::OperationService::Stub::ExecuteBatch, request, &response);
}
grpc::Status Stream(Server& s, const v1::ExecuteBatchRequest& batch) {
  grpc::ClientContext context;
  auto stream = s.operations->Execute(&context);
  v1::ExecuteRequest request;
  *request.mutable_batch() = batch;
  stream->Write(request);
  stream->WritesDone();
  v1::ExecuteResponse response;
  while (stream->Read(&response)) {
  }
  return stream->Finish();
}

INSTANTIATE_TEST_SUITE_P(
    Machines, ErrorTest,
    testing::Values(
        ErrorCase{"CreateBadId", [](Server& s) { return Create(s, "M"); }, kInvalid, "FIELD_INVALID", "machine_id"},
        ErrorCase{"CreateNoLayout",
                  [](Server& s) {
                    return Create(s, "n", [](auto& r) {
                      r.clear_spec();
                      r.set_validate_only(true);
                    });
                  },
                  kInvalid, "FIELD_INVALID", "spec.layout"},
        ErrorCase{"CreateBadCpus",
                  [](Server& s) {
                    return Create(s, "n", [](auto& r) {
                      r.mutable_spec()->set_cpus(99);
                      r.set_validate_only(true);
                    });
                  },
                  kInvalid, "FIELD_INVALID", "spec.cpus"},
        ErrorCase{"CreateBadFirmware",
                  [](Server& s) {
                    return Create(s, "n", [](auto& r) {
                      r.mutable_spec()->add_firmware_ranges()->set_type(v1::FirmwareRange::TYPE_RAM);
                      r.set_validate_only(true);
                    });
                  },
                  kInvalid, "FIELD_INVALID", "spec.firmware_ranges[0].end_address"},
        ErrorCase{"CreateBadRequestId", [](Server& s) { return Create(s, "n", [](auto& r) { r.set_request_id("a b"); }); }, kInvalid,
                  "FIELD_INVALID", "request_id"},
        ErrorCase{"CreateBadSysctl",
                  [](Server& s) {
                    return Create(s, "n", [](auto& r) {
                      (*r.mutable_spec()->mutable_sysctls())["vm.nonsense"] = "1";
                      r.set_validate_only(true);
                    });
                  },
                  kInvalid, "FIELD_INVALID", "spec.sysctls[\"vm.nonsense\"]"},
        ErrorCase{"CreateNoPreset",
                  [](Server& s) {
                    return Create(s, "n", [](auto& r) {
                      r.mutable_spec()->set_preset("vax");
                      r.set_validate_only(true);
                    });
                  },
                  kNotFound, "PRESET_NOT_FOUND", "", "vax"},
        ErrorCase{"CreateNotSimulated",
                  [](Server& s) {
                    return Create(s, "n", [](auto& r) {
                      r.mutable_spec()->set_preset("arm64-1G");
                      r.mutable_spec()->set_page_size_bytes(65536);
                      r.set_validate_only(true);
                    });
                  },
                  grpc::StatusCode::UNIMPLEMENTED, "NOT_SIMULATED"},
        ErrorCase{"CreateExists", [](Server& s) { return Create(s, "m"); }, grpc::StatusCode::ALREADY_EXISTS, "MACHINE_ALREADY_EXISTS", "",
                  "machines/m"},
        ErrorCase{"CreateTooMany", [](Server& s) { return Create(s, "n"); }, grpc::StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_MACHINES"},
        ErrorCase{"GetBadName", [](Server& s) { return Get(s, "m"); }, kInvalid, "FIELD_INVALID", "name"},
        ErrorCase{"GetMissing", [](Server& s) { return Get(s, "machines/x"); }, kNotFound, "MACHINE_NOT_FOUND", "", "machines/x"},
        ErrorCase{"ListNegative", [](Server& s) { return List(s, -1, ""); }, kInvalid, "FIELD_INVALID", "page_size"},
        ErrorCase{"ListBadToken", [](Server& s) { return List(s, 0, "abc"); }, kInvalid, "FIELD_INVALID", "page_token"},
        ErrorCase{"PresetsNegative", [](Server& s) { return ListPresets(s, -1, ""); }, kInvalid, "FIELD_INVALID", "page_size"},
        ErrorCase{"PresetsBadToken", [](Server& s) { return ListPresets(s, 0, "abc"); }, kInvalid, "FIELD_INVALID", "page_token"},
        ErrorCase{"DeleteBadName", [](Server& s) { return Delete(s, "machines/"); }, kInvalid, "FIELD_INVALID", "name"},
        ErrorCase{"DeleteMissing", [](Server& s) { return Delete(s, "machines/x"); }, kNotFound, "MACHINE_NOT_FOUND", "", "machines/x"},
        ErrorCase{"BootMissing", [](Server& s) { return Boot(s, "machines/x"); }, kNotFound, "MACHINE_NOT_FOUND", "", "machines/x"},
        ErrorCase{"BootBadSpec", [](Server& s) { return Boot(s, "machines/m", [](auto& r) { r.mutable_spec()->set_cpus(-1); }); }, kInvalid,
                  "FIELD_INVALID", "spec.layout"},
        ErrorCase{"CheckMissing", [](Server& s) { return Check(s, "machines/x"); }, kNotFound, "MACHINE_NOT_FOUND", "", "machines/x"}),
    [](const auto& tested) { return tested.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Operations, ErrorTest,
    testing::Values(ErrorCase{"NoMachine", [](Server& s) { return Brk(s, "", 1); }, kInvalid, "FIELD_INVALID", "machine"},
                    ErrorCase{"MissingMachine", [](Server& s) { return Brk(s, "machines/x", 1); }, kNotFound, "MACHINE_NOT_FOUND", "",
                              "machines/x"},
                    ErrorCase{"MissingProcess", [](Server& s) { return Brk(s, "machines/m", 4711); }, kNotFound, "PROCESS_NOT_FOUND", "",
                              "machines/m/processes/4711"},
                    ErrorCase{"LongRequestId", [](Server& s) { return Brk(s, "machines/m", 1, std::string(65, 'x')); }, kInvalid,
                              "FIELD_INVALID", "request_id"},
                    ErrorCase{"AccessWithoutKind", [](Server& s) { return Access(s, v1::ACCESS_KIND_UNSPECIFIED, 1); }, kInvalid,
                              "FIELD_INVALID", "kind"},
                    ErrorCase{"AccessTooLong", [](Server& s) { return Access(s, v1::ACCESS_KIND_READ_BYTES, 2 << 20); }, kOutOfRange,
                              "OUT_OF_RANGE", "length_bytes"},
                    ErrorCase{"CpuTooHigh", [](Server& s) { return AllocPages(s, 1); }, kInvalid, "FIELD_INVALID", "cpu"},
                    ErrorCase{"BatchNoMachine", [](Server& s) { return Execute(s, Batch("", 1)); }, kInvalid, "FIELD_INVALID", "machine"},
                    ErrorCase{"BatchMissingMachine", [](Server& s) { return Execute(s, Batch("machines/x", 1)); }, kNotFound,
                              "MACHINE_NOT_FOUND", "", "machines/x"},
                    ErrorCase{"BatchTooMany", [](Server& s) { return Execute(s, Batch("machines/m", 65537)); }, kInvalid, "FIELD_INVALID",
                              "operations"},
                    ErrorCase{"BatchBadMember",
                              [](Server& s) {
                                v1::ExecuteBatchRequest batch = Batch("machines/m", 2);
                                batch.mutable_operations(1)->mutable_alloc_pages()->set_cpu(7);
                                return Execute(s, batch);
                              },
                              kInvalid, "FIELD_INVALID", "operations[1].alloc_pages.cpu"},
                    ErrorCase{"BatchEmptyMember",
                              [](Server& s) {
                                v1::ExecuteBatchRequest batch = Batch("machines/m", 0);
                                batch.add_operations();
                                return Execute(s, batch);
                              },
                              kInvalid, "FIELD_INVALID", "operations[0].operation"},
                    ErrorCase{"BatchTooMuchData",
                              [](Server& s) {
                                v1::ExecuteBatchRequest batch = Batch("machines/m", 0);
                                for (int i = 0; i < 5; ++i) {
                                  v1::AccessMemoryRequest* access = batch.add_operations()->mutable_access_memory();
                                  access->set_kind(v1::ACCESS_KIND_READ_BYTES);
                                  access->set_length_bytes(1 << 20);
                                }
                                return Execute(s, batch);
                              },
                              kInvalid, "FIELD_INVALID", "operations"},
                    ErrorCase{"StreamMissingMachine", [](Server& s) { return Stream(s, Batch("machines/x", 1)); }, kNotFound,
                              "MACHINE_NOT_FOUND", "", "machines/x"},
                    ErrorCase{"StreamBadMember",
                              [](Server& s) {
                                v1::ExecuteBatchRequest batch = Batch("machines/m", 1);
                                batch.mutable_operations(0)->mutable_alloc_pages()->set_machine("machines/m");
                                return Stream(s, batch);
                              },
                              kInvalid, "FIELD_INVALID", "operations[0].alloc_pages.machine"}),
    [](const auto& tested) { return tested.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Reading, ErrorTest,
    testing::Values(
        ErrorCase{"ProcessBadName", [](Server& s) { return GetProcess(s, "machines/m/processes/x"); }, kInvalid, "FIELD_INVALID", "name"},
        ErrorCase{"ProcessBadView", [](Server& s) { return GetProcess(s, "machines/m/processes/1", 9); }, kInvalid, "FIELD_INVALID",
                  "view"},
        ErrorCase{"ProcessMissing", [](Server& s) { return GetProcess(s, "machines/m/processes/4711"); }, kNotFound, "PROCESS_NOT_FOUND",
                  "", "machines/m/processes/4711"},
        ErrorCase{"ProcessesBadParent", [](Server& s) { return ListProcesses(s, "machines/m/", 0, ""); }, kInvalid, "FIELD_INVALID",
                  "parent"},
        ErrorCase{"ProcessesNegative", [](Server& s) { return ListProcesses(s, "machines/m", -1, ""); }, kInvalid, "FIELD_INVALID",
                  "page_size"},
        ErrorCase{"ProcessesBadToken", [](Server& s) { return ListProcesses(s, "machines/m", 0, "x"); }, kInvalid, "FIELD_INVALID",
                  "page_token"},
        ErrorCase{"FramesMissingMachine", [](Server& s) { return ListFrames(s, "machines/x", 0); }, kNotFound, "MACHINE_NOT_FOUND", "",
                  "machines/x"},
        ErrorCase{"FramesBeyond", [](Server& s) { return ListFrames(s, "machines/m", uint64_t{1} << 40); }, kOutOfRange, "OUT_OF_RANGE",
                  "first_pfn"},
        ErrorCase{"PhysicalBeyond", [](Server& s) { return ReadPhysical(s, uint64_t{1} << 40, 1); }, kOutOfRange, "OUT_OF_RANGE",
                  "address"},
        ErrorCase{"PhysicalTooLong", [](Server& s) { return ReadPhysical(s, 0, 2 << 20); }, kOutOfRange, "OUT_OF_RANGE", "length_bytes"},
        ErrorCase{"PhysicalNegative", [](Server& s) { return ReadPhysical(s, 0, -1); }, kInvalid, "FIELD_INVALID", "length_bytes"},
        ErrorCase{"FileNoPath", [](Server& s) { return ReadFile(s, "machines/m", ""); }, kInvalid, "FIELD_INVALID", "path"},
        ErrorCase{"FileMissing", [](Server& s) { return ReadFile(s, "machines/m", "nonsense"); }, kNotFound, "PROC_FILE_NOT_FOUND", "",
                  "nonsense"},
        ErrorCase{"FileNotYet", [](Server& s) { return ReadFile(s, "machines/m", "interrupts"); }, grpc::StatusCode::UNIMPLEMENTED,
                  "NOT_SIMULATED"},
        ErrorCase{"FileOfMissingProcess", [](Server& s) { return ReadFile(s, "machines/m", "4711/maps"); }, kNotFound,
                  "PROC_FILE_NOT_FOUND", "", "4711/maps"},
        ErrorCase{"FilesBadParent", [](Server& s) { return ListFiles(s, "x"); }, kInvalid, "FIELD_INVALID", "parent"},
        ErrorCase{"FilesOfMissingProcess", [](Server& s) { return ListFiles(s, "machines/m/processes/4711"); }, kNotFound,
                  "PROCESS_NOT_FOUND", "", "machines/m/processes/4711"},
        ErrorCase{"MeminfoMissing", [](Server& s) { return Meminfo(s, "machines/x"); }, kNotFound, "MACHINE_NOT_FOUND", "", "machines/x"},
        ErrorCase{"VmasBadParent", [](Server& s) { return ListVmas(s, "machines/m"); }, kInvalid, "FIELD_INVALID", "parent"},
        ErrorCase{"VmasMissing", [](Server& s) { return ListVmas(s, "machines/m/processes/4711"); }, kNotFound, "PROCESS_NOT_FOUND", "",
                  "machines/m/processes/4711"}),
    [](const auto& tested) { return tested.param.name; });

TEST_F(ErrorTest, NothingOfTheseChangedTheMachine) { EXPECT_EQ(server_->GetMachine("machines/m").operations_applied(), 0); }

TEST_F(ErrorTest, ARefusalOfTheKernelIsNoError) {
  v1::AllocPagesRequest request;
  request.set_machine("machines/m");
  request.set_order(11);
  v1::AllocPagesResponse response;
  EXPECT_TRUE(Call(server_->pages, &v1::PageService::Stub::AllocPages, request, &response).ok());
  EXPECT_EQ(response.outcome().error_name(), "EINVAL");
}

TEST_F(ErrorTest, InABatchAMissingProcessIsEsrch) {
  v1::ExecuteBatchRequest request;
  request.set_machine("machines/m");
  request.add_operations()->mutable_brk()->set_pid(4711);
  v1::ExecuteBatchResponse response;
  EXPECT_TRUE(Call(server_->operations, &v1::OperationService::Stub::ExecuteBatch, request, &response).ok());
  EXPECT_EQ(response.outcomes(0).error_name(), "ESRCH");
}

TEST_F(ErrorTest, StopOnFailureEndsTheBatchBehindIt) {
  v1::ExecuteBatchRequest request = Batch("machines/m", 3);
  request.mutable_operations(1)->mutable_alloc_pages()->set_order(11);
  v1::ExecuteBatchResponse response;
  EXPECT_TRUE(Call(server_->operations, &v1::OperationService::Stub::ExecuteBatch, request, &response).ok());
  EXPECT_EQ(response.outcomes_size(), 3);
  request.set_stop_on_failure(true);
  response.Clear();
  EXPECT_TRUE(Call(server_->operations, &v1::OperationService::Stub::ExecuteBatch, request, &response).ok());
  EXPECT_EQ(response.outcomes_size(), 2);
}

}  // namespace
}  // namespace mmlab

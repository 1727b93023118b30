#include "client/replay/system/scenario_player.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "client/replay/recording.h"
#include "client/replay/system/scenario_player_state.h"
#include "client/replay/system/worker_program.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kEnosys = 38;
constexpr uint32_t kReadWrite = 2;  // O_RDWR
constexpr uint64_t kPage = 4096;
constexpr int64_t kHighestSwapPriority = 0x7fff;  // SWAP_FLAG_PRIO_MASK
constexpr char kDisk[] = "/dev/vda";
constexpr uint64_t kMostFileBytes = uint64_t{1} << 36;

v1::FileSystem FileSystemOf(const Json& file) { return file.value("fs", "ext4") == "tmpfs" ? v1::FILE_SYSTEM_TMPFS : v1::FILE_SYSTEM_EXT4; }

v1::Operation CreateFile(const std::string& path, v1::FileSystem file_system, uint64_t bytes) {
  v1::Operation operation;
  operation.mutable_create_file()->set_path(path);
  operation.mutable_create_file()->set_file_system(file_system);
  operation.mutable_create_file()->set_size_bytes(bytes);
  return operation;
}

std::string MachineId(const Json& header) {
  std::string id = absl::AsciiStrToLower(absl::StrCat("replay-", header.value("flavour", ""), "-", header.value("name", "")));
  for (char& c : id) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c))) c = '-';
  }
  return std::string(absl::StripSuffix(id.substr(0, 59), "-"));
}

// Names become names of files.
absl::Status CheckName(const Json& op, const char* key) {
  const std::string name = op.value(key, "plain");
  const bool plain = !name.empty() && name[0] != '.' && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isprint(static_cast<unsigned char>(c)) && c != '/';
  });
  return plain ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrCat(key, ": no name of a file"));
}

absl::StatusOr<Stage> MakeMachine(Connection& connection, const Json& header, const v1::MachineSpec& spec) {
  const std::string id = MachineId(header);
  for (int attempt = 1;; ++attempt) {
    v1::CreateMachineRequest request;
    request.set_machine_id(attempt == 1 ? id : absl::StrCat(id, "-", attempt));
    *request.mutable_spec() = spec;
    v1::CreateMachineResponse response;
    const absl::Status status = ToAbsl(connection.Call(*connection.machines, &v1::MachineService::Stub::CreateMachine, request, &response));
    if (status.ok()) return Stage(connection, response.machine().name());
    if (!absl::IsAlreadyExists(status) || attempt == 100) return status;
  }
}

}  // namespace

int64_t ScenarioPlayer::Tried::Return() const { return simulated ? -int64_t{outcome.error_number()} : -kEnosys; }

std::string ScenarioPlayer::Tried::ErrorText() const {
  const int64_t error = -Return();
  return error == 0 ? "" : std::strerror(static_cast<int>(error));
}

absl::StatusOr<ScenarioPlayer::Tried> ScenarioPlayer::Try(const std::string& what, const v1::Operation& operation) {
  Tried tried;
  absl::StatusOr<v1::Outcome> outcome = stage_.Apply(operation);
  if (absl::IsUnimplemented(outcome.status())) {
    CountMissing(what);
    tried.simulated = false;
    return tried;
  }
  MMLAB_RETURN_IF_ERROR(outcome.status());
  tried.outcome = *std::move(outcome);
  return tried;
}

absl::Status ScenarioPlayer::SetUp() {
  for (const Json& file : header_.value("files", Json::array())) {
    const std::string path = file.at("path");
    file_bytes_[path] = file.at("bytes");
    MMLAB_RETURN_IF_ERROR(stage_.MustApply(CreateFile(path, FileSystemOf(file), file_bytes_[path])).status());
  }
  // The first page of a swap device is its header, which is not among the bytes that can be used.
  for (const Json& device : header_.value("swap_devices", Json::array())) {
    const uint64_t bytes = device.at("bytes").get<uint64_t>() + kPage;
    MMLAB_RETURN_IF_ERROR(stage_.MustApply(CreateFile(device.at("device"), v1::FILE_SYSTEM_BLOCK_DEVICE, bytes)).status());
  }
  MMLAB_ASSIGN_OR_RETURN(init_, StartWorkerProgram(stage_, layout_));
  // It had started workers before, so that the kernel has what such things are made from.
  Worker earlier;
  MMLAB_RETURN_IF_ERROR(MakePipes(earlier));
  MMLAB_ASSIGN_OR_RETURN(const std::optional<int32_t> pid, ForkWorker(stage_, layout_, init_));
  if (!pid.has_value()) return absl::FailedPreconditionError("the machine has no memory for a worker");
  v1::Operation exit;
  exit.mutable_exit()->set_pid(*pid);
  MMLAB_RETURN_IF_ERROR(stage_.MustApply(exit).status());
  MMLAB_RETURN_IF_ERROR(ClosePipes(earlier));
  MMLAB_RETURN_IF_ERROR(PlanBaseline());
  return ReadDisk();
}

absl::Status ScenarioPlayer::ReadDisk() {
  const Json& baseline = header_.value("baseline", Json::object());
  const auto bytes = baseline.value("Buffers", uint64_t{0});
  if (bytes == 0) return absl::OkStatus();
  MMLAB_RETURN_IF_ERROR(stage_.MustApply(CreateFile(kDisk, v1::FILE_SYSTEM_BLOCK_DEVICE, bytes)).status());
  MMLAB_ASSIGN_OR_RETURN(const std::optional<int32_t> fd, OpenIn(init_, kDisk));
  if (!fd.has_value()) return absl::InternalError("the disk can't be opened");
  // Twice: a file system uses them again and again, which makes them active.
  MMLAB_RETURN_IF_ERROR(MoveBytes(/*write=*/false, *fd, bytes));
  MMLAB_RETURN_IF_ERROR(MoveBytes(/*write=*/false, *fd, bytes));
  return CloseIn(init_, *fd);
}

absl::Status ScenarioPlayer::Perform(const Json& op) {
  const std::string name = op.at("op");
  MMLAB_RETURN_IF_ERROR(CheckName(op, "name"));
  MMLAB_RETURN_IF_ERROR(CheckName(op, "process"));
  static const std::map<std::string, Performer> kOperations = {
      {"create_file", &ScenarioPlayer::MakeFile},
      {"end", &ScenarioPlayer::EndWorker},
      {"fill_identical", &ScenarioPlayer::TouchRegion},
      {"hog", &ScenarioPlayer::Hog},
      {"madvise", &ScenarioPlayer::RangeCall},
      {"mlock", &ScenarioPlayer::RangeCall},
      {"mmap", &ScenarioPlayer::MapRegion},
      {"munlock", &ScenarioPlayer::RangeCall},
      {"munmap", &ScenarioPlayer::RangeCall},
      {"note", nullptr},
      {"punch", &ScenarioPlayer::PunchRegion},
      {"read_file", &ScenarioPlayer::ReadWholeFile},
      {"snapshot", &ScenarioPlayer::Snapshot},
      {"snapshot_cgroup", &ScenarioPlayer::SnapshotCgroup},
      {"start", &ScenarioPlayer::StartWorker},
      {"swapoff", &ScenarioPlayer::WholeMachine},
      {"swapon", &ScenarioPlayer::WholeMachine},
      {"sync", &ScenarioPlayer::WholeMachine},
      {"touch", &ScenarioPlayer::TouchRegion},
      {"unlink", &ScenarioPlayer::WholeMachine},
      {"write_file", &ScenarioPlayer::WriteFile},
  };
  const auto performer = kOperations.find(name);
  if (performer == kOperations.end()) {
    CountMissing(name);
  } else if (performer->second != nullptr) {
    MMLAB_RETURN_IF_ERROR((this->*performer->second)(op));
  }
  // What needs memory, or gives less of it to somebody, may have killed.
  constexpr const char* kHarmless[] = {"end", "munmap", "note", "snapshot", "snapshot_cgroup", "swapon", "sync", "unlink"};
  const bool harmless = std::any_of(std::begin(kHarmless), std::end(kHarmless), [&](const char* of) { return name == of; });
  if (!harmless) MMLAB_RETURN_IF_ERROR(ReportKilled(op.value("process", "")));
  return SnapshotBetween(op);
}

absl::Status ScenarioPlayer::WriteFile(const Json& op) {
  const std::string path = op.at("path");
  absl::string_view name = path;
  Json result{{"kind", "result"}, {"path", path}};
  if (absl::ConsumePrefix(&name, "/proc/sys/")) {
    v1::Operation write;
    write.mutable_write_sysctl()->set_sysctl(absl::StrReplaceAll(name, {{"/", "."}}));
    write.mutable_write_sysctl()->set_value(op.at("value").get<std::string>());
    MMLAB_ASSIGN_OR_RETURN(const Tried tried, Try(absl::StrCat("write ", path), write));
    result["error"] = tried.ErrorText();
  } else if (absl::StartsWith(path, "/sys/kernel/mm/")) {
    v1::Operation write;
    write.mutable_write_sysfs()->set_path(path);
    write.mutable_write_sysfs()->set_value(op.at("value").get<std::string>());
    MMLAB_ASSIGN_OR_RETURN(const Tried tried, Try(absl::StrCat("write ", path), write));
    result["error"] = tried.ErrorText();
    if (path == "/sys/kernel/mm/transparent_hugepage/enabled" && op.at("value") != "never") huge_aligned_ = true;
    if (path == "/sys/kernel/mm/ksm/run" && op.at("value") == "1") MMLAB_RETURN_IF_ERROR(WaitForKsmd());
  } else if (absl::ConsumePrefix(&name, "/cg/")) {
    const size_t slash = name.rfind('/');
    const std::string cgroup(slash == absl::string_view::npos ? "" : name.substr(0, slash));
    const std::string file(slash == absl::string_view::npos ? name : name.substr(slash + 1));
    MMLAB_RETURN_IF_ERROR(MakeCgroup(cgroup));
    MMLAB_ASSIGN_OR_RETURN(const Tried tried, WriteCgroupFile(cgroup, file, op.at("value")));
    result["error"] = tried.ErrorText();
  } else {
    CountMissing(absl::StrCat("write ", path));
    result["error"] = std::strerror(kEnosys);
  }
  answers_.results.push_back(std::move(result));
  return absl::OkStatus();
}

// The recorder waited until ksmd had nothing more to merge: some rounds over all that it looks at. It may have been told not to look.
absl::Status ScenarioPlayer::WaitForKsmd() {
  constexpr int64_t kRounds = 6;
  constexpr int kMostSteps = 1200;
  v1::Operation wait;
  wait.mutable_advance_time()->set_nanoseconds(int64_t{50'000'000});
  const auto rounds = [&]() -> absl::StatusOr<int64_t> {
    MMLAB_ASSIGN_OR_RETURN(const std::string text, ReadProcFile("/sys/kernel/mm/ksm/full_scans"));
    int64_t number = 0;
    return absl::SimpleAtoi(text, &number) ? number : 0;
  };
  MMLAB_ASSIGN_OR_RETURN(const int64_t before, rounds());
  for (int step = 0; step < kMostSteps; ++step) {
    MMLAB_RETURN_IF_ERROR(stage_.MustApply(wait).status());
    MMLAB_ASSIGN_OR_RETURN(const int64_t now, rounds());
    if (now >= before + kRounds) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<int32_t>> ScenarioPlayer::OpenIn(int32_t pid, const std::string& path) {
  v1::Operation open;
  open.mutable_open()->set_pid(pid);
  open.mutable_open()->set_path(path);
  open.mutable_open()->set_flags(kReadWrite);
  open.mutable_open()->set_wished_fd(-1);
  MMLAB_ASSIGN_OR_RETURN(const v1::Outcome opened, stage_.Apply(open));
  if (opened.error_number() != 0) return std::nullopt;
  return static_cast<int32_t>(opened.value());
}

absl::Status ScenarioPlayer::CloseIn(int32_t pid, int32_t fd) {
  v1::Operation close;
  close.mutable_close()->set_pid(pid);
  close.mutable_close()->set_fd(fd);
  return stage_.MustApply(close).status();
}

// Through init's buffer, from the file's start on.
absl::Status ScenarioPlayer::MoveBytes(bool write, int32_t fd, uint64_t bytes) {
  if (bytes > kMostFileBytes) return absl::InvalidArgumentError("a file of more than 64 GiB");
  v1::ExecuteBatchRequest batch;
  batch.set_machine(stage_.machine());
  for (uint64_t offset = 0; offset < bytes; offset += kWorkerBufferBytes) {
    const uint64_t length = std::min(kWorkerBufferBytes, bytes - offset);
    const auto fill = [&](auto& request) {
      request.set_pid(init_);
      request.set_fd(fd);
      request.set_address(WorkerBuffer(layout_));
      request.set_length_bytes(length);
      request.set_offset_bytes(offset);
    };
    v1::Operation& operation = *batch.add_operations();
    if (write) {
      fill(*operation.mutable_pwrite());
    } else {
      fill(*operation.mutable_pread());
    }
    if (batch.operations_size() < 4096 && offset + length < bytes) continue;
    MMLAB_RETURN_IF_ERROR(stage_.ApplyBatch(batch).status());
    batch.clear_operations();
  }
  return absl::OkStatus();
}

absl::Status ScenarioPlayer::ReadWholeFile(const Json& op) {
  const std::string path = op.at("path");
  MMLAB_ASSIGN_OR_RETURN(const std::optional<int32_t> fd, OpenIn(init_, path));
  if (!fd.has_value()) return absl::OkStatus();
  MMLAB_RETURN_IF_ERROR(MoveBytes(/*write=*/false, *fd, file_bytes_[path]));
  return CloseIn(init_, *fd);
}

absl::Status ScenarioPlayer::MakeFile(const Json& op) {
  const std::string path = op.at("path");
  v1::Operation unlink;  // O_TRUNC, as far as it can be told from a new file.
  unlink.mutable_unlink()->set_path(path);
  MMLAB_RETURN_IF_ERROR(stage_.Apply(unlink).status());
  MMLAB_RETURN_IF_ERROR(stage_.MustApply(CreateFile(path, FileSystemOf(op), 0)).status());
  file_bytes_[path] = op.at("kib").get<uint64_t>() << 10;
  MMLAB_ASSIGN_OR_RETURN(const std::optional<int32_t> fd, OpenIn(init_, path));
  if (!fd.has_value()) return absl::InternalError(absl::StrCat(path, ": can't be opened"));
  MMLAB_RETURN_IF_ERROR(MoveBytes(/*write=*/true, *fd, file_bytes_[path]));
  return CloseIn(init_, *fd);
}

absl::Status ScenarioPlayer::WholeMachine(const Json& op) {
  const std::string name = op.at("op");
  v1::Operation operation;
  if (name == "unlink") {
    operation.mutable_unlink()->set_path(op.at("path").get<std::string>());
  } else if (name == "sync") {
    operation.mutable_sync();
  } else if (name == "swapoff") {
    operation.mutable_swapoff()->set_path(op.at("device").get<std::string>());
  } else {
    operation.mutable_swapon()->set_path(op.at("device").get<std::string>());
    const auto priority = op.value("priority", int64_t{-1});
    if (priority >= 0) operation.mutable_swapon()->set_priority(static_cast<int32_t>(std::min(priority, kHighestSwapPriority)));
  }
  return Try(name, operation).status();
}

absl::Status PlayScenario(Connection& connection, const Scenario& scenario, bool keep_machine, ScenarioAnswers& answers) {
  MMLAB_ASSIGN_OR_RETURN(const v1::MachineSpec spec, ReadingRecording([&] { return SpecOfScenario(scenario.header); }));
  MMLAB_ASSIGN_OR_RETURN(Stage stage, MakeMachine(connection, scenario.header, spec));
  answers.machine = stage.machine();
  ScenarioPlayer player(connection, stage, scenario, spec.layout(), answers);
  absl::Status status = ReadingRecording([&] { return player.SetUp(); });
  int number = 0;
  for (const Json& op : scenario.operations) {
    if (!status.ok()) break;
    ++number;
    status = ReadingRecording([&] { return player.Perform(op); });
    if (!status.ok()) status = absl::Status(status.code(), absl::StrCat("operation ", number, ", ", op.dump(), ": ", status.message()));
  }
  if (!keep_machine) stage.Delete().IgnoreError();
  return status;
}

}  // namespace mmlab

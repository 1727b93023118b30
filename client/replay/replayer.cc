#include "client/replay/replayer.h"

#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/replay/observation.h"
#include "client/replay/stage.h"
#include "client/replay/step_operation.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostProcesses = 32768;  // pid_max

// The replay of one recording: its processes by the recording's index, and what was last seen of each.
class Performance {
 public:
  Performance(Stage& stage, const Json& header) : stage_(stage), header_(header) {}

  absl::Status Start(const Json& initial, Json* answer);
  absl::Status Perform(const Json& step, Json* answer);
  std::vector<int32_t> pids() const;

 private:
  struct Actor {
    int32_t pid = 0;
    ProcessObserver observer;
  };

  absl::Status PerformOne(const Json& step, int32_t pid, Json* answer);
  absl::Status MapMany(const Json& step, int32_t pid, Json* answer);
  absl::Status AfterFork(const Json& step, int32_t parent, int32_t child);
  absl::Status ObserveAll(Json* answer);

  Stage& stage_;
  const Json& header_;
  std::map<int, Actor> actors_;  // Living ones.
  std::map<uint64_t, int32_t> shm_ids_;
  int64_t committed_ = 0;
};

std::vector<int32_t> Performance::pids() const {
  std::vector<int32_t> pids;
  for (const auto& [index, actor] : actors_) {
    pids.resize(std::max(pids.size(), static_cast<size_t>(index) + 1));
    pids[static_cast<size_t>(index)] = actor.pid;
  }
  return pids;
}

absl::Status Performance::Start(const Json& initial, Json* answer) {
  MMLAB_ASSIGN_OR_RETURN(actors_[0].pid, stage_.StartProgram(header_, initial));
  MMLAB_ASSIGN_OR_RETURN(committed_, stage_.CommittedBytes());
  MMLAB_ASSIGN_OR_RETURN(const v1::Process process, stage_.Look(actors_[0].pid));
  *answer = Json{{"kind", "initial"}, {"step", 0}};
  (*answer)["procs"]["0"] = actors_[0].observer.Initial(process);
  (*answer)["committed_as"] = committed_;
  return absl::OkStatus();
}

absl::Status Performance::Perform(const Json& step, Json* answer) {
  *answer = Json{{"kind", "step"}, {"step", step.at("step")}, {"proc", step.at("proc")}, {"op", step.at("op")}, {"args", step.at("args")}};
  const auto actor = actors_.find(step.at("proc").get<int>());
  if (actor == actors_.end()) {
    (*answer)["aborted"] = "dead";
    return absl::OkStatus();
  }
  const int32_t pid = actor->second.pid;
  if (step.at("op") == "mmap_many") {
    MMLAB_RETURN_IF_ERROR(MapMany(step, pid, answer));
  } else {
    MMLAB_RETURN_IF_ERROR(PerformOne(step, pid, answer));
  }
  return ObserveAll(answer);
}

absl::Status Performance::PerformOne(const Json& step, int32_t pid, Json* answer) {
  MMLAB_ASSIGN_OR_RETURN(const v1::Operation operation, StepOperation(step, pid, shm_ids_));
  MMLAB_ASSIGN_OR_RETURN(v1::Outcome outcome, stage_.Apply(operation));
  const bool ok = outcome.error_number() == 0;
  if (ok && step.at("op") == "shmget") {
    // The recordings number the segments in the order of their creation.
    const auto id = static_cast<int32_t>(outcome.value());
    uint64_t number = 0;
    for (const auto& [known, machine_id] : shm_ids_) {
      if (machine_id == id) number = known;
    }
    if (number == 0) number = shm_ids_.size() + 1;
    shm_ids_[number] = id;
    outcome.set_value(number);
  }
  AddOutcome(step, outcome, *answer);
  if (step.at("op") == "fork") return AfterFork(step, pid, ok ? static_cast<int32_t>(outcome.value()) : 0);
  return absl::OkStatus();
}

// Protection alternates with PROT_NONE so that neighbours do not merge.
absl::Status Performance::MapMany(const Json& step, int32_t pid, Json* answer) {
  Json one = step;
  one["op"] = "mmap";
  one["args"] = Json{{"addr", "0x0"},
                     {"len", step.at("args").at("len")},
                     {"prot", step.at("args").at("prot")},
                     {"flags", step.at("args").at("flags")},
                     {"fd", -1},
                     {"offset", "0x0"}};
  MMLAB_ASSIGN_OR_RETURN(v1::Operation operation, StepOperation(one, pid, shm_ids_));
  const uint32_t prot = operation.mmap().prot();
  int64_t left = step.at("args").at("count");
  int64_t done = 0;
  while (left > 0) {
    v1::ExecuteBatchRequest batch;
    batch.set_machine(stage_.machine());
    batch.set_stop_on_failure(true);
    const int64_t now = std::min<int64_t>(left, 8192);
    for (int64_t i = 0; i < now; ++i) {
      operation.mutable_mmap()->set_prot((done + i) % 2 == 0 ? prot : 0);
      *batch.add_operations() = operation;
    }
    MMLAB_ASSIGN_OR_RETURN(const v1::ExecuteBatchResponse response, stage_.ApplyBatch(batch));
    for (const v1::Outcome& outcome : response.outcomes()) {
      if (outcome.error_number() != 0) {
        (*answer)["errno"] = outcome.error_name();
        left = now;
        break;
      }
      ++done;
      (*answer)["last_addr"] = Hex(outcome.value());
    }
    left -= now;
  }
  (*answer)["ret"] = done;
  return absl::OkStatus();
}

// What the recorded program itself did behind a fork: both write their control pages, and the child goes on in the text page. `child` 0:
// the fork failed; the parent's pages were protected for copying all the same.
absl::Status Performance::AfterFork(const Json& step, int32_t parent, int32_t child) {
  const int index = step.at("args").at("child");
  if (index < 0 || index > kMostProcesses) return absl::InvalidArgumentError(absl::StrCat("child: a process index, not ", index));
  if (child != 0) actors_[index].pid = child;
  uint64_t control = 0, length = 0, page = 0, entry = 0;
  ParseWord(header_.at("regions").at("control_pages"), &control);
  ParseWord(header_.at("regions").at("control_pages_len"), &length);
  ParseWord(header_.at("page_size"), &page);
  ParseWord(header_.at("elf").at("entry"), &entry);
  v1::ExecuteBatchRequest batch;
  batch.set_machine(stage_.machine());
  auto add_touch = [&](int32_t pid, v1::AccessKind kind) {
    v1::AccessMemoryRequest& touch = *batch.add_operations()->mutable_access_memory();
    touch.set_pid(pid);
    touch.set_kind(kind);
    touch.set_address(control);
    touch.set_length_bytes(length);
    touch.set_stride_bytes(page);
    touch.set_value(1);
  };
  add_touch(parent, v1::ACCESS_KIND_TOUCH_WRITE);
  if (child == 0) return stage_.ApplyBatch(batch).status();
  // The child reads before it writes: a fault of its own where the processor does not mark old entries as used.
  add_touch(child, v1::ACCESS_KIND_TOUCH_READ);
  add_touch(child, v1::ACCESS_KIND_TOUCH_WRITE);
  v1::AccessMemoryRequest& fetch = *batch.add_operations()->mutable_access_memory();
  fetch.set_pid(child);
  fetch.set_kind(v1::ACCESS_KIND_EXECUTE);
  fetch.set_address(entry);
  return stage_.ApplyBatch(batch).status();
}

absl::Status Performance::ObserveAll(Json* answer) {
  Json procs = Json::object();
  for (auto it = actors_.begin(); it != actors_.end();) {
    const absl::StatusOr<v1::Process> process = stage_.Look(it->second.pid);
    const std::string index = absl::StrCat(it->first);
    if (absl::IsNotFound(process.status())) {
      procs[index] = Json{{"exited", true}};
      it = actors_.erase(it);
      continue;
    }
    MMLAB_RETURN_IF_ERROR(process.status());
    Json changes = it->second.observer.Changes(*process);
    if (!changes.is_null()) procs[index] = std::move(changes);
    ++it;
  }
  if (!procs.empty()) (*answer)["procs"] = std::move(procs);
  MMLAB_ASSIGN_OR_RETURN(const int64_t committed, stage_.CommittedBytes());
  if (committed != committed_) (*answer)["committed_as_delta"] = committed - committed_;
  committed_ = committed;
  return absl::OkStatus();
}

// "replay-686-pae-r0001": a legal machine id.
std::string MachineId(const Json& header) {
  std::string id = absl::AsciiStrToLower(absl::StrCat("replay-", header.value("flavour", ""), "-", header.value("name", "")));
  for (char& c : id) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c))) c = '-';
  }
  id = id.substr(0, 59);
  return std::string(absl::StripSuffix(id, "-"));
}

absl::Status PerformAll(const Recording& recording, const ReplayOptions& options, Performance& performance, Answers& answers) {
  const std::vector<Json>& records = recording.records;
  MMLAB_RETURN_IF_ERROR(performance.Start(records[1], &answers.records.emplace_back()));
  for (size_t i = 2; i < records.size(); ++i) {
    if (records[i].value("kind", "") != "step") continue;
    const absl::Status status = ReadingRecording([&] { return performance.Perform(records[i], &answers.records.emplace_back()); });
    if (!status.ok()) return absl::Status(status.code(), absl::StrCat("step ", records[i].value("step", 0), ": ", status.message()));
    if (options.progress) options.progress(i - 1, records.size() - 2);
  }
  return absl::OkStatus();
}

absl::StatusOr<Stage> FreshStage(Connection& connection, const Json& header) {
  const std::string id = MachineId(header);
  absl::StatusOr<Stage> stage = Stage::SetUp(connection, header, id);
  for (int attempt = 2; absl::IsAlreadyExists(stage.status()) && attempt < 100; ++attempt) {
    stage = Stage::SetUp(connection, header, absl::StrCat(id, "-", attempt));
  }
  return stage;
}

}  // namespace

absl::StatusOr<Answers> Replay(Connection& connection, const Recording& recording, const ReplayOptions& options) {
  const Json& header = recording.records[0];
  if (header.value("format", "") != "lab-trace" || recording.records.size() < 2 || recording.records[1].value("kind", "") != "initial") {
    return absl::InvalidArgumentError(absl::StrCat(recording.path, ": not a recording of format lab-trace with an initial state"));
  }
  MMLAB_ASSIGN_OR_RETURN(Stage stage, ReadingRecording([&] { return FreshStage(connection, header); }));
  Answers answers;
  answers.machine = stage.machine();
  answers.records.push_back(header);
  Performance performance(stage, header);
  const absl::Status status = ReadingRecording([&] { return PerformAll(recording, options, performance, answers); });
  answers.pids = performance.pids();
  if (!options.keep_machine) stage.Delete().IgnoreError();
  MMLAB_RETURN_IF_ERROR(status);
  return answers;
}

}  // namespace mmlab

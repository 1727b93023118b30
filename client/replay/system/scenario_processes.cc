#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/replay/recording.h"
#include "client/replay/system/scenario_player_state.h"
#include "client/replay/system/worker_program.h"
#include "server/base/status_macros.h"

// What the processes of a scenario do.

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMostKib = uint64_t{1} << 32;
constexpr uint64_t kMostSteps = 1 << 20;  // Of a hog that nothing ever stops.
constexpr uint32_t kReadWriteProt = 3;
constexpr uint32_t kMapShared = 1, kMapPrivate = 2, kMapAnonymous = 0x20, kMapNoreserve = 0x4000, kMapHugetlb = 0x40000;
constexpr int kMadvDontneed = 4;

absl::StatusOr<uint64_t> KibBytes(const Json& op, const char* key) {
  const auto kib = op.value(key, uint64_t{0});
  if (kib > kMostKib) return absl::InvalidArgumentError(absl::StrCat(key, ": more than 4 TiB"));
  return kib << 10;
}

v1::Operation AnonymousMap(int32_t pid, uint64_t bytes, uint32_t flags) {
  v1::Operation operation;
  v1::MmapRequest& map = *operation.mutable_mmap();
  map.set_pid(pid);
  map.set_length_bytes(bytes);
  map.set_prot(kReadWriteProt);
  map.set_flags(flags | kMapAnonymous);
  map.set_fd(-1);
  return operation;
}

v1::Operation Touch(int32_t pid, bool write, uint64_t address, uint64_t bytes) {
  v1::Operation operation;
  v1::AccessMemoryRequest& access = *operation.mutable_access_memory();
  access.set_pid(pid);
  access.set_kind(write ? v1::ACCESS_KIND_TOUCH_WRITE : v1::ACCESS_KIND_TOUCH_READ);
  access.set_address(address);
  access.set_length_bytes(bytes);
  access.set_stride_bytes(kPage);
  access.set_value(1);
  return operation;
}

}  // namespace

absl::StatusOr<ScenarioPlayer::Worker*> ScenarioPlayer::Acting(const Json& op) {
  const std::string name = op.at("process");
  const auto it = workers_.find(name);
  return it == workers_.end() ? nullptr : &it->second;
}

absl::StatusOr<uint64_t> ScenarioPlayer::RegionStart(const Worker& worker, const Json& op) const {
  const auto region = op.at("region").get<int64_t>();
  if (region < 0 || static_cast<size_t>(region) >= worker.regions.size()) {
    return absl::FailedPreconditionError(absl::StrCat("region ", region, " was not mapped"));
  }
  return worker.regions[static_cast<size_t>(region)];
}

absl::StatusOr<bool> ScenarioPlayer::Lives(int32_t pid) {
  const absl::StatusOr<std::string> comm = ReadProcFile(absl::StrCat(pid, "/comm"));
  if (absl::IsNotFound(comm.status())) return false;
  MMLAB_RETURN_IF_ERROR(comm.status());
  return true;
}

// Two pipes lead from the recorder to a worker and back; each keeps the page through which the last words went.
absl::Status ScenarioPlayer::MakePipes(Worker& worker) {
  for (int i = 0; i < 2; ++i) {
    v1::Operation pipe;
    pipe.mutable_pipe()->set_pid(init_);
    pipe.mutable_pipe()->set_wished_fd(-1);
    MMLAB_ASSIGN_OR_RETURN(const v1::Outcome opened, stage_.MustApply(pipe));
    worker.pipes.push_back(static_cast<int32_t>(opened.value()));
    v1::Operation page;
    page.mutable_alloc_pages()->set_gfp(v1::GFP_CLASS_HIGHUSER);
    MMLAB_ASSIGN_OR_RETURN(const Tried taken, Try("alloc_pages", page));
    if (taken.ok()) worker.pipe_pages.push_back(taken.outcome.value());
  }
  return absl::OkStatus();
}

absl::Status ScenarioPlayer::ClosePipes(const Worker& worker) {
  for (const int32_t fd : worker.pipes) MMLAB_RETURN_IF_ERROR(CloseIn(init_, fd));
  for (const uint64_t pfn : worker.pipe_pages) MMLAB_RETURN_IF_ERROR(GivePages(pfn, 0));
  return absl::OkStatus();
}

absl::Status ScenarioPlayer::StartWorker(const Json& op) {
  const std::string name = op.at("process");
  Worker worker;
  MMLAB_RETURN_IF_ERROR(MakePipes(worker));
  MMLAB_ASSIGN_OR_RETURN(const std::optional<int32_t> pid, ForkWorker(stage_, layout_, init_));
  if (!pid.has_value()) return ClosePipes(worker);
  worker.pid = *pid;
  v1::Operation adjust;
  adjust.mutable_write_oom_score_adj()->set_pid(worker.pid);
  adjust.mutable_write_oom_score_adj()->set_oom_score_adj(op.value("oom_score_adj", 0));
  MMLAB_RETURN_IF_ERROR(Try("oom_score_adj", adjust).status());
  if (const std::string cgroup = op.value("cgroup", ""); !cgroup.empty()) {
    MMLAB_RETURN_IF_ERROR(MakeCgroup(cgroup));
    MMLAB_RETURN_IF_ERROR(WriteCgroupFile(cgroup, "cgroup.procs", absl::StrCat(worker.pid)).status());
  }
  workers_[name] = worker;
  started_.push_back(name);
  return absl::OkStatus();
}

absl::Status ScenarioPlayer::EndWorker(const Json& op) {
  MMLAB_ASSIGN_OR_RETURN(Worker* const worker, Acting(op));
  if (worker == nullptr) return absl::OkStatus();  // Killed before.
  MMLAB_ASSIGN_OR_RETURN(const bool lives, Lives(worker->pid));
  if (lives) {  // It may have been killed by what was not its own doing.
    v1::Operation exit;
    exit.mutable_exit()->set_pid(worker->pid);
    MMLAB_RETURN_IF_ERROR(stage_.MustApply(exit).status());
  }
  const Worker ended = *worker;
  workers_.erase(op.at("process").get<std::string>());
  return ClosePipes(ended);
}

absl::Status ScenarioPlayer::MapRegion(const Json& op) {
  const std::string kind = op.at("kind_of");
  MMLAB_ASSIGN_OR_RETURN(Worker* const worker, Acting(op));
  if (worker == nullptr) return absl::OkStatus();
  MMLAB_ASSIGN_OR_RETURN(const uint64_t bytes, KibBytes(op, "kib"));
  uint64_t more = 0;
  if (op.contains("flags")) ParseWord(op.at("flags"), &more);
  const bool shared = absl::StrContains(kind, "shared");
  // Of this scenario's mapping Committed_AS knows nothing: the recorder asked for no reserve.
  if (header_.value("name", "") == "swap-priorities") more |= kMapNoreserve;
  v1::Operation map = AnonymousMap(worker->pid, bytes, (shared ? kMapShared : kMapPrivate) | static_cast<uint32_t>(more));
  std::optional<int32_t> fd;
  if (kind == "hugetlb") map.mutable_mmap()->set_flags(map.mmap().flags() | kMapHugetlb);
  if (absl::StartsWith(kind, "file")) {
    MMLAB_ASSIGN_OR_RETURN(fd, OpenIn(worker->pid, op.at("file")));
    if (!fd.has_value()) return absl::OkStatus();
    map.mutable_mmap()->set_flags(map.mmap().flags() & ~kMapAnonymous);
    map.mutable_mmap()->set_fd(*fd);
  }
  Tried tried;
  if (kind == "anon" && huge_aligned_) {
    MMLAB_ASSIGN_OR_RETURN(tried, MapHugeAligned(map));
  } else {
    MMLAB_ASSIGN_OR_RETURN(tried, Try(absl::StrCat("mmap ", kind), map));
  }
  if (tried.ok()) {
    worker->regions.push_back(tried.outcome.value());
    worker->lengths.push_back(bytes);
  }
  MMLAB_ASSIGN_OR_RETURN(const bool lives, Lives(worker->pid));
  if (!lives) return absl::OkStatus();
  if (fd.has_value()) return CloseIn(worker->pid, *fd);  // The mapping keeps the file. The script wants no result of these.
  answers_.results.push_back({{"kind", "result"},
                              {"process", op.at("process")},
                              {"mmap", tried.ok() ? static_cast<int64_t>(worker->regions.size()) - 1 : tried.Return()}});
  return absl::OkStatus();
}

// The recorder kept room for one more huge page, without permissions, and gave them to the aligned part. Its mmap() is what fails.
absl::StatusOr<ScenarioPlayer::Tried> ScenarioPlayer::MapHugeAligned(v1::Operation map) {
  MMLAB_ASSIGN_OR_RETURN(const std::string text, ReadProcFile("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"));
  uint64_t huge = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &huge) || huge == 0) return absl::InternalError("hpage_pmd_size: no number");
  const uint64_t bytes = map.mmap().length_bytes();
  map.mutable_mmap()->set_length_bytes(bytes + huge);
  map.mutable_mmap()->set_prot(0);
  MMLAB_ASSIGN_OR_RETURN(Tried mapped, Try("mmap anon", map));
  if (!mapped.ok()) return mapped;
  mapped.outcome.set_value((mapped.outcome.value() + huge - 1) / huge * huge);
  v1::Operation protect;
  protect.mutable_mprotect()->set_pid(map.mmap().pid());
  protect.mutable_mprotect()->set_address(mapped.outcome.value());
  protect.mutable_mprotect()->set_length_bytes(bytes);
  protect.mutable_mprotect()->set_prot(kReadWriteProt);
  MMLAB_ASSIGN_OR_RETURN(const Tried protect_tried, Try("mprotect", protect));
  if (!protect_tried.ok()) return protect_tried;
  return mapped;
}

absl::Status ScenarioPlayer::DieOfSignal(int32_t pid, const Tried& tried) {
  if (!tried.outcome.has_signal()) return absl::OkStatus();
  MMLAB_ASSIGN_OR_RETURN(const bool lives, Lives(pid));
  if (!lives) return absl::OkStatus();
  v1::Operation exit;
  exit.mutable_exit()->set_pid(pid);
  return stage_.MustApply(exit).status();
}

absl::Status ScenarioPlayer::ReportKilled(const std::string& acting) {
  std::vector<std::string> names = started_;
  std::stable_partition(names.begin(), names.end(), [&](const std::string& name) { return name == acting; });
  for (const std::string& name : names) {
    const auto it = workers_.find(name);
    if (it == workers_.end()) continue;
    MMLAB_ASSIGN_OR_RETURN(const bool lives, Lives(it->second.pid));
    if (lives) continue;
    MMLAB_RETURN_IF_ERROR(ClosePipes(it->second));
    workers_.erase(it);
    answers_.results.push_back({{"kind", "result"}, {"process", name}, {"killed", true}});
  }
  return absl::OkStatus();
}

absl::Status ScenarioPlayer::TouchRegion(const Json& op) {
  MMLAB_ASSIGN_OR_RETURN(Worker* const worker, Acting(op));
  if (worker == nullptr) return absl::OkStatus();
  const absl::StatusOr<uint64_t> start = RegionStart(*worker, op);
  if (!start.ok()) return absl::OkStatus();  // The mapping was refused; that is among the results already.
  MMLAB_ASSIGN_OR_RETURN(const uint64_t bytes, KibBytes(op, "kib"));
  MMLAB_ASSIGN_OR_RETURN(const uint64_t offset, KibBytes(op, "offset_kib"));
  const bool write = op.at("op") == "fill_identical" || op.at("write").get<bool>();
  MMLAB_ASSIGN_OR_RETURN(const Tried tried, Try("touch", Touch(worker->pid, write, *start + offset, bytes)));
  return DieOfSignal(worker->pid, tried);
}

absl::Status ScenarioPlayer::RangeCall(const Json& op) {
  const std::string name = op.at("op");
  MMLAB_ASSIGN_OR_RETURN(Worker* const worker, Acting(op));
  if (worker == nullptr) return absl::OkStatus();
  Json result{{"kind", "result"}, {"process", op.at("process")}};
  const absl::StatusOr<uint64_t> start = RegionStart(*worker, op);
  if (!start.ok()) {
    result["ret"] = -22;
    answers_.results.push_back(std::move(result));
    return absl::OkStatus();
  }
  MMLAB_ASSIGN_OR_RETURN(const uint64_t offset, KibBytes(op, "offset_kib"));
  MMLAB_ASSIGN_OR_RETURN(const uint64_t bytes, KibBytes(op, "kib"));
  v1::Operation operation;
  const auto fill = [&](auto& request, uint64_t address, uint64_t length) {
    request.set_pid(worker->pid);
    request.set_address(address);
    request.set_length_bytes(length);
  };
  if (name == "munmap") {
    fill(*operation.mutable_munmap(), *start + offset, bytes);
  } else if (name == "mlock") {
    fill(*operation.mutable_mlock(), *start + offset, bytes);
  } else if (name == "munlock") {
    fill(*operation.mutable_munlock(), *start + offset, bytes);
  } else {
    fill(*operation.mutable_madvise(), *start, worker->lengths[op.at("region").get<size_t>()]);
    operation.mutable_madvise()->set_advice(op.at("advice"));
  }
  MMLAB_ASSIGN_OR_RETURN(const Tried tried, Try(name, operation));
  MMLAB_ASSIGN_OR_RETURN(const bool lives, Lives(worker->pid));
  if (!lives) return absl::OkStatus();  // Nobody is left to say what the call returned.
  result["ret"] = tried.Return();
  answers_.results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status ScenarioPlayer::PunchRegion(const Json& op) {
  MMLAB_ASSIGN_OR_RETURN(Worker* const worker, Acting(op));
  if (worker == nullptr) return absl::OkStatus();
  const absl::StatusOr<uint64_t> start = RegionStart(*worker, op);
  if (!start.ok()) return absl::OkStatus();
  const auto every = op.at("every").get<uint64_t>();
  if (every == 0) return absl::InvalidArgumentError("every: must be positive");
  const uint64_t length = worker->lengths[op.at("region").get<size_t>()];
  v1::ExecuteBatchRequest batch;
  batch.set_machine(stage_.machine());
  for (uint64_t offset = 0; offset < length; offset += every * kPage) {
    v1::MadviseRequest& madvise = *batch.add_operations()->mutable_madvise();
    madvise.set_pid(worker->pid);
    madvise.set_address(*start + offset);
    madvise.set_length_bytes(kPage);
    madvise.set_advice(kMadvDontneed);
    if (batch.operations_size() < 16384 && offset + every * kPage < length) continue;
    MMLAB_RETURN_IF_ERROR(stage_.ApplyBatch(batch).status());
    batch.clear_operations();
  }
  return absl::OkStatus();
}

// Maps and writes a step at a time until somebody is killed, as "until" says: itself or another one.
absl::Status ScenarioPlayer::Hog(const Json& op) {
  const std::string name = op.at("process");
  const bool until_another = op.value("until", "") == "another process is killed";
  MMLAB_ASSIGN_OR_RETURN(Worker* const worker, Acting(op));
  if (worker == nullptr) return absl::OkStatus();
  MMLAB_ASSIGN_OR_RETURN(const uint64_t step, KibBytes(op, "step_kib"));
  if (step == 0) return absl::InvalidArgumentError("step_kib: must be positive");
  const int32_t pid = worker->pid;
  const size_t others = workers_.size();
  const auto others_gone = [&]() -> absl::StatusOr<bool> {
    size_t alive = 0;
    for (const auto& [other, it] : workers_) {
      MMLAB_ASSIGN_OR_RETURN(const bool lives, Lives(it.pid));
      alive += lives ? 1 : 0;
    }
    return alive < others;
  };
  uint64_t hogged = 0;
  for (uint64_t i = 0; i < kMostSteps; ++i) {
    MMLAB_ASSIGN_OR_RETURN(const Tried mapped, Try("mmap anon", AnonymousMap(pid, step, kMapPrivate)));
    if (!mapped.ok()) break;
    MMLAB_ASSIGN_OR_RETURN(const Tried touched, Try("touch", Touch(pid, /*write=*/true, mapped.outcome.value(), step)));
    hogged += step;
    MMLAB_RETURN_IF_ERROR(DieOfSignal(pid, touched));
    if (!touched.ok()) break;
    if (!until_another) continue;
    MMLAB_ASSIGN_OR_RETURN(const bool gone, others_gone());
    if (gone) break;
  }
  MMLAB_ASSIGN_OR_RETURN(const bool lives, Lives(pid));
  if (lives && until_another) answers_.results.push_back({{"kind", "result"}, {"process", name}, {"hogged_mib", hogged >> 20}});
  return absl::OkStatus();
}

}  // namespace mmlab

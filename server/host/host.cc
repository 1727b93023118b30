#include "server/host/host.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "mmlab/v1/machine.pb.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/host/event_log.h"
#include "server/host/names.h"
#include "server/host/presets.h"
#include "server/host/spec_converter.h"

namespace mmlab {
namespace {

constexpr size_t kMaxLabels = 16;
constexpr size_t kMaxLabelLength = 63;
constexpr LayoutKind kLayouts[] = {LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64};

EventLog& Silence() {
  static auto* const log = new EventLog(nullptr, EventLog::Format::kText);
  return *log;
}

int WorkerThreads(int wished) {
  if (wished > 0) return wished;
  return std::max(4, 2 * static_cast<int>(std::thread::hardware_concurrency()));
}

// Keys like machine ids, with '_' too.
bool IsLabelKey(absl::string_view key) {
  std::string id(key);
  std::replace(id.begin(), id.end(), '_', 'a');
  return IsMachineId(id) && key.front() != '_';
}

bool IsLabelValue(absl::string_view value) {
  return value.size() <= kMaxLabelLength && std::all_of(value.begin(), value.end(), [](char c) { return absl::ascii_isprint(c); });
}

absl::Status CheckLabels(const std::map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) return InvalidField("labels", "must be at most 16");
  for (const auto& [key, value] : labels) {
    if (!IsLabelKey(key)) {
      return InvalidField(absl::StrCat("labels[\"", absl::CHexEscape(key), "\"]"),
                          "must have a key of 1 to 63 of a-z, 0-9, '-' and '_' that starts with a letter and does not end with '-'");
    }
    if (!IsLabelValue(value)) return InvalidField(absl::StrCat("labels[\"", key, "\"]"), "must be at most 63 printable characters");
  }
  return absl::OkStatus();
}

absl::Status CheckDescription(const Host::Description& description) {
  if (!IsMachineId(description.machine_id)) {
    return InvalidField("machine_id", "must be 1 to 63 of a-z, 0-9 and '-', the first a letter, the last no '-'");
  }
  return CheckLabels(description.labels);
}

template <size_t... I>
std::array<absl::string_view, kOperationKinds> NamesOf(std::index_sequence<I...>) {
  return {OperationName(Operation(std::in_place_index<I>))...};
}

void AddCounts(const HostedMachine& machine, HostTotals& totals) {
  for (size_t kind = 0; kind < kOperationKinds; ++kind) {
    totals.operations[kind] += machine.applied(kind);
    totals.operation_errors[kind] += machine.failed(kind);
  }
}

}  // namespace

const std::array<absl::string_view, kOperationKinds>& OperationNames() {
  static const auto* const names = new auto(NamesOf(std::make_index_sequence<kOperationKinds>()));
  return *names;
}

Host::Host(const HostOptions& options)
    : max_machines_(options.max_machines),
      presets_(options.presets != nullptr ? *options.presets : Presets::BuiltIn()),
      log_(options.log != nullptr ? *options.log : Silence()),
      pool_(std::make_unique<WorkerPool>(WorkerThreads(options.worker_threads))) {
  for (const LayoutKind layout : kLayouts) retired_.machines_created[layout] = 0;
}

Host::~Host() { pool_.reset(); }  // What is queued still reaches the machines.

absl::StatusOr<Host::Booted> Host::Boot(absl::string_view machine_id, const v1::MachineSpec& spec) const {
  Booted booted;
  MMLAB_ASSIGN_OR_RETURN(v1::MachineSpec merged, MergePreset(presets_, spec));
  MMLAB_ASSIGN_OR_RETURN(MachineSpec native, MachineSpecFromProto(merged));
  if (native.hostname.empty()) native.hostname = std::string(machine_id);
  try {
    absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Boot(std::move(native));
    if (!machine.ok()) return DetailedBootError(machine.status());
    booted.machine = *std::move(machine);
  } catch (const std::exception& failure) {
    log_.Error("boot_failed", {{"machine", machine_id}, {"broken", failure.what()}});
    return InvariantBroken(MachineName(machine_id), failure.what());
  }
  booted.spec = std::make_shared<const v1::MachineSpec>(std::move(merged));
  return booted;
}

absl::StatusOr<std::shared_ptr<HostedMachine>> Host::Make(const Description& description) {
  absl::StatusOr<Booted> booted = Boot(description.machine_id, *description.spec);
  if (!booted.ok()) return InField("spec", booted.status());
  return std::make_shared<HostedMachine>(description.machine_id, description.labels, absl::Now(), std::move(booted->machine),
                                         std::move(booted->spec), *pool_, log_);
}

absl::StatusOr<std::shared_ptr<HostedMachine>> Host::Rehearse(const Description& description) {
  MMLAB_RETURN_IF_ERROR(CheckDescription(description));
  {
    absl::ReaderMutexLock lock(&mutex_);
    if (by_id_.contains(description.machine_id)) return ResourceExists("machine", MachineName(description.machine_id));
  }
  return Make(description);
}

absl::StatusOr<std::shared_ptr<HostedMachine>> Host::Create(const Description& description) {
  MMLAB_RETURN_IF_ERROR(CheckDescription(description));
  // Asked before the boot, because it is cheap, and again afterwards, because others create too.
  const auto refusal = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) -> absl::Status {
    if (by_id_.contains(description.machine_id)) return ResourceExists("machine", MachineName(description.machine_id));
    if (by_id_.size() < static_cast<size_t>(max_machines_)) return absl::OkStatus();
    return LimitReached("TOO_MANY_MACHINES", "machines", absl::StrCat("this server holds at most ", max_machines_, " machines"));
  };
  {
    absl::MutexLock lock(&mutex_);
    const absl::Status refused = refusal();
    if (refused.code() == absl::StatusCode::kResourceExhausted) ++retired_.machine_limit_rejections;
    MMLAB_RETURN_IF_ERROR(refused);
  }
  MMLAB_ASSIGN_OR_RETURN(std::shared_ptr<HostedMachine> machine, Make(description));
  {
    absl::MutexLock lock(&mutex_);
    const absl::Status refused = refusal();
    if (refused.code() == absl::StatusCode::kResourceExhausted) ++retired_.machine_limit_rejections;
    MMLAB_RETURN_IF_ERROR(refused);
    by_id_.emplace(description.machine_id, machine);
    in_order_.emplace(description.machine_id, machine);
    ++retired_.machines_created[machine->layout()];
  }
  log_.Info("machine_created", {{"machine", machine->id()}, {"arch", GetLayout(machine->layout()).name}});
  return machine;
}

absl::StatusOr<std::shared_ptr<HostedMachine>> Host::Find(absl::string_view machine_id) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = by_id_.find(machine_id);
  if (found == by_id_.end()) return ResourceNotFound("machine", MachineName(machine_id));
  return found->second;
}

absl::Status Host::Delete(absl::string_view machine_id) {
  std::shared_ptr<HostedMachine> machine;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = by_id_.find(machine_id);
    if (found == by_id_.end()) return ResourceNotFound("machine", MachineName(machine_id));
    machine = std::move(found->second);
    machine->MarkDeleted();
    by_id_.erase(found);
    in_order_.erase(std::string(machine_id));
    ++retired_.machines_deleted;
    AddCounts(*machine, retired_);
  }
  log_.Info("machine_deleted", {{"machine", machine->id()}});
  // A big machine takes a while to take apart: not on the caller's thread.
  pool_->Post([machine = std::move(machine)]() mutable { machine.reset(); });
  return absl::OkStatus();
}

std::vector<std::shared_ptr<HostedMachine>> Host::List(absl::string_view after, size_t limit) const {
  std::vector<std::shared_ptr<HostedMachine>> machines;
  absl::ReaderMutexLock lock(&mutex_);
  for (auto it = in_order_.upper_bound(std::string(after)); it != in_order_.end() && machines.size() < limit; ++it) {
    machines.push_back(it->second);
  }
  return machines;
}

std::vector<std::shared_ptr<HostedMachine>> Host::All() const { return List("", SIZE_MAX); }

size_t Host::machine_count() const {
  absl::ReaderMutexLock lock(&mutex_);
  return by_id_.size();
}

RequestIds::Answer Host::Once(absl::string_view request_id, uint64_t fingerprint, absl::FunctionRef<RequestIds::Answer()> work) {
  if (request_id.empty()) return work();
  const std::string id(request_id);
  {
    absl::MutexLock lock(&once_mutex_);
    const auto is_free = [this, &id]() ABSL_SHARED_LOCKS_REQUIRED(once_mutex_) { return OnceIsFree(id); };
    once_mutex_.Await(absl::Condition(&is_free));
    const absl::StatusOr<const RequestIds::Answer*> known = request_ids_.Find(id, fingerprint);
    if (!known.ok()) return RequestIds::Answer{known.status(), {}};
    if (*known != nullptr) return **known;
    once_running_.insert(id);
  }
  RequestIds::Answer answer = work();
  absl::MutexLock lock(&once_mutex_);
  once_running_.erase(id);
  if (answer.status.ok()) request_ids_.Remember(id, fingerprint, answer);
  return answer;
}

HostTotals Host::Totals() const {
  absl::ReaderMutexLock lock(&mutex_);
  HostTotals totals = retired_;
  for (const auto& [id, machine] : in_order_) AddCounts(*machine, totals);
  return totals;
}

}  // namespace mmlab

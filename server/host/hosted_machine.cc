#include "server/host/hosted_machine.h"

#include <exception>
#include <utility>

#include "absl/time/clock.h"
#include "mmlab/v1/machine.pb.h"
#include "server/base/check.h"
#include "server/host/errors.h"
#include "server/host/event_hub.h"
#include "server/host/event_log.h"
#include "server/host/names.h"

namespace mmlab {
namespace {

// Long enough that a switch of threads costs little beside it, short enough that nobody notices the wait.
constexpr int64_t kSliceNanos = 1'000'000;

void Increment(std::atomic<uint64_t>& counter) {  // Only one thread at a time writes: no locked instruction needed.
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

MachineReader::~MachineReader() {
  if (hosted_ != nullptr) hosted_->lock_.ReaderUnlock();
}
const Machine& MachineReader::machine() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return *hosted_->machine_; }
const v1::MachineSpec& MachineReader::spec() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return *hosted_->spec_; }

MachineLane::MachineLane(std::shared_ptr<HostedMachine> hosted, bool own_turn)
    : hosted_(std::move(hosted)), slice_end_nanos_(absl::GetCurrentTimeNanos() + kSliceNanos), own_turn_(own_turn) {}
MachineLane::~MachineLane() {
  if (hosted_ == nullptr) return;
  hosted_->lock_.Unlock();
  if (own_turn_) hosted_->EndTurn();
}
const Machine& MachineLane::machine() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return *hosted_->machine_; }
const v1::MachineSpec& MachineLane::spec() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return *hosted_->spec_; }
RequestIds& MachineLane::request_ids() ABSL_NO_THREAD_SAFETY_ANALYSIS { return hosted_->request_ids_; }
bool MachineLane::SliceIsOver() const { return absl::GetCurrentTimeNanos() >= slice_end_nanos_; }

absl::Status MachineLane::CheckUsable() const {
  if (hosted_->deleted()) return ResourceNotFound("machine", MachineName(hosted_->id()));
  if (hosted_->state() == HostedMachine::State::kQuarantined) {
    return WrongState("MACHINE_QUARANTINED", MachineName(hosted_->id()),
                      "is quarantined because its accounting was found broken; it can be read, booted anew or deleted");
  }
  return absl::OkStatus();
}

absl::Status MachineLane::Apply(const Operation& operation, Explanation* explanation, Outcome& outcome) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  EventHub* const hub = hosted_->hub_now_.load(std::memory_order_acquire);
  const bool watched = hub != nullptr && hub->active();
  if (watched) hub->Enter(*hosted_->machine_);
  try {
    outcome = hosted_->machine_->Apply(operation, explanation, watched ? hub : nullptr);
    if (watched) hub->Publish();
  } catch (const std::exception& failure) {
    // CheckFailure, or bad_alloc in the middle of a change: either way the state cannot be trusted any more.
    hosted_->Quarantine(failure.what());
    return InvariantBroken(MachineName(hosted_->id()), failure.what());
  }
  if (outcome.unimplemented.empty() && !outcome.held) {
    Increment(hosted_->applied_[operation.index()]);
    if (outcome.error != Errno::kOk || outcome.signal.has_value()) Increment(hosted_->failed_[operation.index()]);
  }
  return absl::OkStatus();
}

void MachineLane::Replace(std::unique_ptr<Machine> machine, std::shared_ptr<const v1::MachineSpec> spec) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  hosted_->layout_.store(machine->spec().layout, std::memory_order_relaxed);
  hosted_->cpus_.store(machine->spec().cpus, std::memory_order_relaxed);
  if (EventHub* const hub = hosted_->hub_now_.load(std::memory_order_acquire); hub != nullptr) hub->MachineReplaced();
  hosted_->machine_ = std::move(machine);
  hosted_->spec_ = std::move(spec);
  hosted_->state_.store(HostedMachine::State::kRunning, std::memory_order_release);
}

HostedMachine::HostedMachine(std::string id, std::map<std::string, std::string> labels, absl::Time create_time,
                             std::unique_ptr<Machine> machine, std::shared_ptr<const v1::MachineSpec> spec, WorkerPool& pool, EventLog& log)
    : id_(std::move(id)),
      labels_(std::move(labels)),
      create_time_(create_time),
      pool_(pool),
      log_(log),
      layout_(machine->spec().layout),
      cpus_(machine->spec().cpus),
      machine_(std::move(machine)),
      spec_(std::move(spec)) {}

HostedMachine::~HostedMachine() = default;

std::shared_ptr<EventHub> HostedMachine::event_hub() {
  absl::MutexLock lock(&hub_mutex_);
  if (hub_ == nullptr) {
    hub_ = std::make_shared<EventHub>(pool_);
    hub_now_.store(hub_.get(), std::memory_order_release);
    if (deleted()) hub_->Close();
  }
  return hub_;
}

void HostedMachine::MarkDeleted() {
  deleted_.store(true, std::memory_order_release);
  absl::MutexLock lock(&hub_mutex_);
  if (hub_ != nullptr) hub_->Close();
}

MachineReader HostedMachine::Read() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  lock_.ReaderLock();
  return MachineReader(shared_from_this());
}

std::optional<MachineReader> HostedMachine::TryRead() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (!lock_.ReaderTryLock()) return std::nullopt;
  return MachineReader(shared_from_this());
}

std::optional<MachineLane> HostedMachine::TryEnter() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  {
    absl::MutexLock lock(&queue_mutex_);
    if (has_turn_) return std::nullopt;
    has_turn_ = true;
  }
  if (lock_.TryLock()) return MachineLane(shared_from_this(), /*own_turn=*/true);
  EndTurn();  // Readers hold it. They are quick, but this thread does not wait.
  return std::nullopt;
}

void HostedMachine::Submit(std::unique_ptr<LaneWork> work) {
  {
    absl::MutexLock lock(&queue_mutex_);
    queue_.push_back(std::move(work));
    if (has_turn_) return;
    has_turn_ = true;
  }
  ScheduleTurn();
}

void HostedMachine::EndTurn() {
  {
    absl::MutexLock lock(&queue_mutex_);
    if (queue_.empty()) {
      has_turn_ = false;
      return;
    }
  }
  ScheduleTurn();
}

void HostedMachine::ScheduleTurn() {
  pool_.Post([self = shared_from_this()] { self->RunTurn(); });
}

void HostedMachine::RunTurn() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  LaneWork* work = nullptr;
  {
    absl::MutexLock lock(&queue_mutex_);
    work = queue_.front().get();
  }
  bool done = false;
  {
    lock_.Lock();
    MachineLane lane(shared_from_this(), /*own_turn=*/false);
    done = work->Run(lane);
  }
  if (!done) {
    ScheduleTurn();  // Behind the other machines' work.
    return;
  }
  std::unique_ptr<LaneWork> finished;
  {
    absl::MutexLock lock(&queue_mutex_);
    finished = std::move(queue_.front());
    queue_.pop_front();
  }
  EndTurn();  // Before the work answers: a client that goes on at once finds the lane free.
}

void HostedMachine::Quarantine(const char* what) {
  state_.store(State::kQuarantined, std::memory_order_release);
  log_.Error("machine_quarantined", {{"machine", id_}, {"broken", what}});
}

}  // namespace mmlab

#ifndef MMLAB_SERVER_HOST_HOSTED_MACHINE_H_
#define MMLAB_SERVER_HOST_HOSTED_MACHINE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/arch/layout.h"
#include "server/host/request_ids.h"
#include "server/host/worker_pool.h"
#include "server/machine/machine.h"

namespace mmlab {

namespace v1 {
class MachineSpec;
}

class EventHub;
class EventLog;
class HostedMachine;

inline constexpr size_t kOperationKinds = std::variant_size_v<Operation>;

// A machine held for reading. Others may read at the same time; no operation runs meanwhile, so hold it for microseconds.
class MachineReader {
 public:
  ~MachineReader();
  MachineReader(MachineReader&& other) noexcept : hosted_(std::move(other.hosted_)) {}
  MachineReader& operator=(MachineReader&&) = delete;

  const Machine& machine() const;
  const v1::MachineSpec& spec() const;  // What it was booted from, preset filled in.
  const HostedMachine& hosted() const { return *hosted_; }

 private:
  friend class HostedMachine;
  explicit MachineReader(std::shared_ptr<const HostedMachine> hosted) : hosted_(std::move(hosted)) {}

  std::shared_ptr<const HostedMachine> hosted_;  // Null after a move: nothing is held.
};

// A machine held for operations: one holder, no readers.
class MachineLane {
 public:
  ~MachineLane();
  MachineLane(MachineLane&& other) noexcept
      : hosted_(std::move(other.hosted_)), slice_end_nanos_(other.slice_end_nanos_), own_turn_(other.own_turn_) {}
  MachineLane& operator=(MachineLane&&) = delete;

  const Machine& machine() const;
  const v1::MachineSpec& spec() const;
  HostedMachine& hosted() const { return *hosted_; }

  // Whether operations may be applied: NOT_FOUND after deletion, FAILED_PRECONDITION (MACHINE_QUARANTINED) after a broken invariant.
  absl::Status CheckUsable() const;
  // Machine::Apply. A broken invariant quarantines the machine and is INTERNAL.
  absl::Status Apply(const Operation& operation, Explanation* explanation, Outcome& outcome);
  // The answers to requests with an id.
  RequestIds& request_ids();
  // Another boot: the old state is gone, a quarantine with it.
  void Replace(std::unique_ptr<Machine> machine, std::shared_ptr<const v1::MachineSpec> spec);

  // Whether work with more than one step should return for a moment, so that readers and other machines get their turn.
  bool SliceIsOver() const;

 private:
  friend class HostedMachine;
  MachineLane(std::shared_ptr<HostedMachine> hosted, bool own_turn);

  std::shared_ptr<HostedMachine> hosted_;  // Null after a move.
  int64_t slice_end_nanos_;
  bool own_turn_;  // The turn ends with this object; otherwise whoever made it ends it.
};

// Work that waits in a machine's lane until it is its turn.
class LaneWork {
 public:
  virtual ~LaneWork() = default;
  // Does the next part. False: there is more; no other work of this machine comes in between, but readers and other machines may.
  // Must not throw.
  virtual bool Run(MachineLane& lane) = 0;
};

// One machine of the host and its lane. "One machine, one lane": operations run one after another in the order of their arrival; reading
// shares. No thread waits for a lane: work that cannot run at once is queued and carried by the worker pool.
//
// Two things guard a machine. The *turn* (has_turn_) belongs to one piece of work from its first step to its last. The *lock* is held while
// the state is touched; between the steps of long work it is free, so that readers (metrics, /proc) never wait for a whole batch.
class HostedMachine : public std::enable_shared_from_this<HostedMachine> {
 public:
  enum class State : uint8_t { kRunning = 1, kQuarantined = 2 };  // Numbers of v1::Machine::State.

  HostedMachine(std::string id, std::map<std::string, std::string> labels, absl::Time create_time, std::unique_ptr<Machine> machine,
                std::shared_ptr<const v1::MachineSpec> spec, WorkerPool& pool, EventLog& log);
  ~HostedMachine();

  const std::string& id() const { return id_; }
  const std::map<std::string, std::string>& labels() const { return labels_; }
  absl::Time create_time() const { return create_time_; }
  State state() const { return state_.load(std::memory_order_acquire); }
  LayoutKind layout() const { return layout_.load(std::memory_order_relaxed); }
  int cpus() const { return cpus_.load(std::memory_order_relaxed); }
  bool deleted() const { return deleted_.load(std::memory_order_acquire); }

  // Waits for the step that runs now.
  MachineReader Read() const;
  // Nothing while a step runs.
  std::optional<MachineReader> TryRead() const;

  // The lane at once, if nobody has it or waits for it.
  std::optional<MachineLane> TryEnter();
  // Queues work behind what waits already; the worker pool runs it.
  void Submit(std::unique_ptr<LaneWork> work);

  // Where those who watch the machine find its events. Made when first asked for.
  std::shared_ptr<EventHub> event_hub();

  // Operations applied so far and those that ended in an error or a signal of the simulated kernel, by the index of Operation's
  // alternatives. Of all boots.
  uint64_t applied(size_t kind) const { return applied_[kind].load(std::memory_order_relaxed); }
  uint64_t failed(size_t kind) const { return failed_[kind].load(std::memory_order_relaxed); }

 private:
  friend class Host;
  friend class MachineLane;
  friend class MachineReader;

  void MarkDeleted();
  void Quarantine(const char* what);
  void EndTurn();
  void ScheduleTurn();
  void RunTurn();  // On a worker thread, with the turn.

  const std::string id_;
  const std::map<std::string, std::string> labels_;
  const absl::Time create_time_;
  WorkerPool& pool_;
  EventLog& log_;
  std::atomic<State> state_{State::kRunning};
  std::atomic<LayoutKind> layout_;
  std::atomic<int> cpus_;
  std::atomic<bool> deleted_{false};

  mutable absl::Mutex lock_;
  std::unique_ptr<Machine> machine_ ABSL_GUARDED_BY(lock_);
  std::shared_ptr<const v1::MachineSpec> spec_ ABSL_GUARDED_BY(lock_);
  RequestIds request_ids_ ABSL_GUARDED_BY(lock_);
  // Written under the lock, read by anybody.
  std::array<std::atomic<uint64_t>, kOperationKinds> applied_{};
  std::array<std::atomic<uint64_t>, kOperationKinds> failed_{};

  absl::Mutex hub_mutex_;
  std::shared_ptr<EventHub> hub_ ABSL_GUARDED_BY(hub_mutex_);
  std::atomic<EventHub*> hub_now_{nullptr};  // For the lane: null until somebody watched.

  absl::Mutex queue_mutex_;
  bool has_turn_ ABSL_GUARDED_BY(queue_mutex_) = false;  // Somebody is at work, or the pool is about to be.
  std::deque<std::unique_ptr<LaneWork>> queue_ ABSL_GUARDED_BY(queue_mutex_);
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_HOSTED_MACHINE_H_

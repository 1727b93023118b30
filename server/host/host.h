#ifndef MMLAB_SERVER_HOST_HOST_H_
#define MMLAB_SERVER_HOST_HOST_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "server/host/hosted_machine.h"
#include "server/host/request_ids.h"
#include "server/host/worker_pool.h"

namespace mmlab {

namespace v1 {
class MachineSpec;
}

class EventLog;
class Presets;

struct HostOptions {
  int max_machines = 100000;
  int worker_threads = 0;            // 0 = two a core, at least four.
  EventLog* log = nullptr;           // Null: silent. Outlives the host.
  const Presets* presets = nullptr;  // Null: the ones built in. Outlives the host.
};

// What the host counted since it was made, for the server's own metrics.
struct HostTotals {
  std::array<uint64_t, kOperationKinds> operations{};        // Applied, by the index of Operation's alternatives.
  std::array<uint64_t, kOperationKinds> operation_errors{};  // Of these, refused or signalled by the simulated kernel.
  std::map<LayoutKind, uint64_t> machines_created;           // Every layout is there.
  uint64_t machines_deleted = 0;                             // By request.
  uint64_t machine_limit_rejections = 0;
};

// What WatchService did, for the server's own metrics.
struct WatchTotals {
  std::atomic<int64_t> streams{0};  // Open now.
  std::atomic<uint64_t> sent{0};
  std::atomic<uint64_t> dropped{0};
};

// The simulated machines of this process. Thread-safe. No lock of the host is held while a machine works.
class Host {
 public:
  explicit Host(const HostOptions& options = {});
  // REQUIRES: nobody uses the host or a lane of its machines any more.
  ~Host();

  // What a new machine is described by.
  struct Description {
    std::string machine_id;
    const v1::MachineSpec* spec = nullptr;  // A preset's name in it is enough.
    std::map<std::string, std::string> labels;
  };

  // Boots a machine and enters it. INVALID_ARGUMENT names the field of CreateMachineRequest; ALREADY_EXISTS; NOT_FOUND no such preset;
  // UNIMPLEMENTED; RESOURCE_EXHAUSTED too many machines.
  absl::StatusOr<std::shared_ptr<HostedMachine>> Create(const Description& description);
  // The same without entering it: what Create would make now.
  absl::StatusOr<std::shared_ptr<HostedMachine>> Rehearse(const Description& description);
  // NOT_FOUND with ResourceInfo.
  absl::StatusOr<std::shared_ptr<HostedMachine>> Find(absl::string_view machine_id) const;
  // Takes the machine out. Work under way ends at its next step; whoever holds the machine may read on.
  absl::Status Delete(absl::string_view machine_id);
  // At most `limit` machines by id, those behind `after`.
  std::vector<std::shared_ptr<HostedMachine>> List(absl::string_view after, size_t limit) const;
  std::vector<std::shared_ptr<HostedMachine>> All() const;
  size_t machine_count() const;

  // A description with its preset filled in, and the machine booted from it. The same errors as Create, fields as in MachineSpec.
  struct Booted {
    std::unique_ptr<Machine> machine;
    std::shared_ptr<const v1::MachineSpec> spec;
  };
  absl::StatusOr<Booted> Boot(absl::string_view machine_id, const v1::MachineSpec& spec) const;

  // Runs `work` unless a call with this id has been answered: then that answer comes again. Calls with one id wait for each other. Only
  // answers with an OK status are kept. Blocks: for worker threads.
  RequestIds::Answer Once(absl::string_view request_id, uint64_t fingerprint, absl::FunctionRef<RequestIds::Answer()> work);

  const Presets& presets() const { return presets_; }
  WorkerPool& pool() { return *pool_; }
  const WorkerPool& pool() const { return *pool_; }
  WatchTotals& watch_totals() { return watch_totals_; }
  const WatchTotals& watch_totals() const { return watch_totals_; }
  HostTotals Totals() const;

 private:
  absl::StatusOr<std::shared_ptr<HostedMachine>> Make(const Description& description);
  bool OnceIsFree(absl::string_view request_id) const ABSL_SHARED_LOCKS_REQUIRED(once_mutex_) {
    return !once_running_.contains(request_id);
  }

  const int max_machines_;
  const Presets& presets_;
  EventLog& log_;
  WatchTotals watch_totals_;
  std::unique_ptr<WorkerPool> pool_;

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<HostedMachine>> by_id_ ABSL_GUARDED_BY(mutex_);
  absl::btree_map<std::string, std::shared_ptr<HostedMachine>> in_order_ ABSL_GUARDED_BY(mutex_);  // The same machines.
  HostTotals retired_ ABSL_GUARDED_BY(mutex_);  // Operations of machines that are gone, and the counts of machines.

  absl::Mutex once_mutex_;
  RequestIds request_ids_ ABSL_GUARDED_BY(once_mutex_);
  absl::flat_hash_set<std::string> once_running_ ABSL_GUARDED_BY(once_mutex_);
};

// The operations' names in the order of Operation's alternatives: "create_process", "exec", ...
const std::array<absl::string_view, kOperationKinds>& OperationNames();

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_HOST_H_

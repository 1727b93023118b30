#ifndef MMLAB_SERVER_HOST_EVENT_HUB_H_
#define MMLAB_SERVER_HOST_EVENT_HUB_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/base/event.h"
#include "server/host/worker_pool.h"

namespace mmlab {

class Machine;

// An event as it is kept. Text values lie in `text`, one behind the other; their numbers say where they end.
struct EventRecord {
  uint64_t sequence = 0;
  int64_t nanoseconds = 0;
  int32_t pid = 0;
  int32_t cpu = 0;
  EventKind kind{};
  absl::string_view zone;  // Empty: none. Of static life.
  std::string comm;
  std::array<uint64_t, kMaxEventFields> numbers{};
  std::string text;

  // REQUIRES: this record stays where it is while the values are used.
  std::vector<EventValue> Values() const;
};

struct EventFilter {
  EventKinds kinds;
  std::vector<int32_t> pids;       // Empty: all.
  std::vector<std::string> zones;  // Empty: all.

  bool Accepts(const EventRecord& record) const;
};

// Told, by a worker thread, that there may be something to read.
class EventWatcher {
 public:
  virtual ~EventWatcher() = default;
  virtual void EventsArrived() = 0;
};

// The events of one machine, between its lane and those who watch. Thread-safe; what the lane calls is marked.
//
// The lane only appends, whoever and however many watch: each kind has a buffer of its own, the last kKept events, so that many events of
// one kind take no place from the few of another. Readers have cursors and are woken by the worker pool.
class EventHub final : public EventSink, public std::enable_shared_from_this<EventHub> {
 public:
  static constexpr size_t kKept = 4096;
  static constexpr size_t kMaxWatchers = 64;

  // Where a reader stands in each kind's buffer: how many events of it are behind him.
  struct Cursor {
    std::array<uint64_t, kEventKinds> next{};
    uint64_t started_after = 0;  // The machine's last event when the reader came.
  };
  struct Batch {
    std::vector<EventRecord> records;
    uint64_t lost = 0;
    bool more = false;
  };

  explicit EventHub(WorkerPool& pool) : pool_(pool) {}

  // From now on, or from behind a sequence number (not 0). OUT_OF_RANGE: not recorded or not kept any more; RESOURCE_EXHAUSTED; NOT_FOUND:
  // the machine is deleted.
  absl::StatusOr<Cursor> Subscribe(std::shared_ptr<EventWatcher> watcher, const EventFilter& filter, uint64_t resume_after);
  void Unsubscribe(const EventWatcher* watcher);
  // What the filter accepts behind the cursor, in order, and moves the cursor.
  Batch Read(const EventFilter& filter, size_t most, Cursor& cursor);
  // The machine is gone: readers are woken to find that out.
  void Close();
  bool closed() const { return closed_.load(std::memory_order_acquire); }

  // --- The lane. ---
  bool active() const { return active_.load(std::memory_order_relaxed); }
  // Before an operation.
  void Enter(const Machine& machine);
  // After one: readers may have what it told.
  void Publish();
  // Another machine boots under this name.
  void MachineReplaced() { zones_of_ = nullptr; }

 private:
  struct Ring {
    std::deque<EventRecord> kept;
    uint64_t dropped = 0;           // Before the first one kept.
    uint64_t dropped_sequence = 0;  // Of the last one dropped, or of the last event before recording began.
  };
  struct ZoneRange {
    uint64_t start;
    uint64_t end;
    absl::string_view name;
  };

  void Record(EventKind kind, absl::Span<const EventValue> values) override;
  absl::string_view ZoneOf(EventKind kind, absl::Span<const EventValue> values) const;
  void Flush();
  void UpdateWantedLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake();

  WorkerPool& pool_;
  std::atomic<bool> active_{false};
  std::atomic<bool> closed_{false};
  std::atomic<bool> waking_{false};

  // The lane's own.
  const Machine* zones_of_ = nullptr;
  std::vector<ZoneRange> zones_;
  std::vector<EventRecord> pending_;
  uint64_t last_sequence_ = 0;

  absl::Mutex mutex_;
  std::array<Ring, kEventKinds> rings_ ABSL_GUARDED_BY(mutex_);
  EventKinds recorded_ ABSL_GUARDED_BY(mutex_);  // What the lane is to record: the union of the filters.
  uint64_t published_ ABSL_GUARDED_BY(mutex_) = 0;
  struct Watching {
    std::shared_ptr<EventWatcher> watcher;
    EventKinds kinds;
  };
  std::vector<Watching> watchers_ ABSL_GUARDED_BY(mutex_);
  int64_t idle_since_nanos_ ABSL_GUARDED_BY(mutex_) = 0;  // Wall clock; when the last watcher went.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_EVENT_HUB_H_

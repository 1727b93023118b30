#include "server/host/event_hub.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/host/errors.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr size_t kFlushAt = 256;
constexpr size_t kScanAtMost = 4096;  // Events that one Read looks at: the lane waits no longer than that takes.
constexpr int64_t kKeepNanos = 30'000'000'000;

// Which field says the frame or the zone that an event is about; -1: none.
int ZoneField(const EventFormat& format) {
  for (const absl::string_view name : {"zone", "pfn", "start_pfn", "migrate_pfn"}) {
    for (size_t i = 0; i < format.fields.size(); ++i) {
      if (format.fields[i].name == name) return static_cast<int>(i);
    }
  }
  return -1;
}

}  // namespace

std::vector<EventValue> EventRecord::Values() const {
  const EventFormat& format = FormatOf(kind);
  std::vector<EventValue> values;
  size_t begin = 0;
  for (size_t i = 0; i < format.fields.size(); ++i) {
    if (!format.fields[i].is_text()) {
      values.emplace_back(numbers[i]);
      continue;
    }
    values.emplace_back(absl::string_view(text).substr(begin, numbers[i] - begin));
    begin = numbers[i];
  }
  return values;
}

bool EventFilter::Accepts(const EventRecord& record) const {
  if (!pids.empty() && std::find(pids.begin(), pids.end(), record.pid) == pids.end()) return false;
  return zones.empty() || std::find(zones.begin(), zones.end(), std::string(record.zone)) != zones.end();
}

// --- The lane. ---

void EventHub::Enter(const Machine& machine) {
  {
    absl::MutexLock lock(&mutex_);
    SetWanted(recorded_);
  }
  if (zones_of_ == &machine) return;
  zones_of_ = &machine;
  zones_.clear();
  for (const Zone& zone : machine.memory().zones()) {
    if (zone.populated()) zones_.push_back(ZoneRange{zone.start_pfn, zone.end_pfn(), zone.name()});
  }
}

absl::string_view EventHub::ZoneOf(EventKind kind, absl::Span<const EventValue> values) const {
  static const auto* const fields = [] {
    auto* made = new std::array<int, kEventKinds>;
    for (size_t i = 0; i < kEventKinds; ++i) (*made)[i] = ZoneField(FormatOf(static_cast<EventKind>(i)));
    return made;
  }();
  const int field = (*fields)[static_cast<size_t>(kind)];
  if (field < 0) return "";
  const EventValue& value = values[static_cast<size_t>(field)];
  for (const ZoneRange& zone : zones_) {
    if (value.text().empty() ? value.number() >= zone.start && value.number() < zone.end : value.text() == zone.name) return zone.name;
  }
  return "";
}

void EventHub::Record(EventKind kind, absl::Span<const EventValue> values) {
  EventRecord& record = pending_.emplace_back();
  record.sequence = ++last_sequence_;
  record.nanoseconds = actor().nanoseconds;
  record.pid = actor().pid;
  record.cpu = actor().cpu;
  record.comm = actor().comm;
  record.kind = kind;
  record.zone = ZoneOf(kind, values);
  const EventFormat& format = FormatOf(kind);
  for (size_t i = 0; i < values.size(); ++i) {
    if (format.fields[i].is_text()) {
      absl::StrAppend(&record.text, values[i].text());
      record.numbers[i] = record.text.size();
    } else {
      record.numbers[i] = values[i].number();
    }
  }
  if (pending_.size() >= kFlushAt) Flush();
}

void EventHub::Publish() {
  if (!pending_.empty()) Flush();
  absl::MutexLock lock(&mutex_);
  if (!watchers_.empty() || absl::GetCurrentTimeNanos() - idle_since_nanos_ < kKeepNanos) return;
  active_.store(false, std::memory_order_relaxed);
  recorded_.reset();
  for (Ring& ring : rings_) ring.kept.clear();
}

void EventHub::Flush() {
  {
    absl::MutexLock lock(&mutex_);
    for (EventRecord& record : pending_) {
      Ring& ring = rings_[static_cast<size_t>(record.kind)];
      if (ring.kept.size() == kKept) {
        ring.dropped_sequence = ring.kept.front().sequence;
        ring.kept.pop_front();
        ++ring.dropped;
      }
      ring.kept.push_back(std::move(record));
    }
    published_ = last_sequence_;
  }
  pending_.clear();
  Wake();
}

// --- Readers. ---

void EventHub::UpdateWantedLocked() {
  EventKinds wanted;
  for (const Watching& watching : watchers_) wanted |= watching.kinds;
  // What was recorded stays so while nobody watches: somebody may come back.
  if (watchers_.empty()) return;
  for (size_t i = 0; i < kEventKinds; ++i) {
    Ring& ring = rings_[i];
    if (wanted[i] == recorded_[i]) continue;
    ring.dropped += ring.kept.size();
    ring.kept.clear();
    ring.dropped_sequence = published_;  // Up to here nobody knows.
  }
  recorded_ = wanted;
}

absl::StatusOr<EventHub::Cursor> EventHub::Subscribe(std::shared_ptr<EventWatcher> watcher, const EventFilter& filter,
                                                     uint64_t resume_after) {
  absl::MutexLock lock(&mutex_);
  if (watchers_.size() >= kMaxWatchers) {
    return LimitReached("TOO_MANY_WATCHERS", "machine", absl::StrCat("a machine has at most ", kMaxWatchers, " watchers"));
  }
  if (resume_after > published_) {
    return WithReason(absl::OutOfRangeError("resume_after: no event has that number yet"), "EVENTS_GONE");
  }
  Cursor cursor;
  cursor.started_after = published_;
  for (size_t i = 0; i < kEventKinds; ++i) {
    if (!filter.kinds[i]) continue;
    const Ring& ring = rings_[i];
    cursor.next[i] = ring.dropped + ring.kept.size();
    if (resume_after == 0 || resume_after == published_) continue;
    if (!recorded_[i] || ring.dropped_sequence > resume_after) {
      return WithReason(absl::OutOfRangeError("resume_after: the events behind it are not kept any more"), "EVENTS_GONE");
    }
    const auto first = std::partition_point(ring.kept.begin(), ring.kept.end(),
                                            [&](const EventRecord& record) { return record.sequence <= resume_after; });
    cursor.next[i] = ring.dropped + static_cast<uint64_t>(first - ring.kept.begin());
  }
  watchers_.push_back(Watching{std::move(watcher), filter.kinds});
  UpdateWantedLocked();
  active_.store(true, std::memory_order_relaxed);
  return cursor;
}

void EventHub::Unsubscribe(const EventWatcher* watcher) {
  absl::MutexLock lock(&mutex_);
  const auto found = std::find_if(watchers_.begin(), watchers_.end(), [&](const Watching& w) { return w.watcher.get() == watcher; });
  if (found == watchers_.end()) return;
  watchers_.erase(found);
  if (watchers_.empty()) idle_since_nanos_ = absl::GetCurrentTimeNanos();
  UpdateWantedLocked();
}

EventHub::Batch EventHub::Read(const EventFilter& filter, size_t most, Cursor& cursor) {
  Batch batch;
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < kEventKinds; ++i) {
    if (!filter.kinds[i] || cursor.next[i] >= rings_[i].dropped) continue;
    batch.lost += rings_[i].dropped - cursor.next[i];
    cursor.next[i] = rings_[i].dropped;
  }
  for (size_t scanned = 0;; ++scanned) {
    const EventRecord* first = nullptr;
    for (size_t i = 0; i < kEventKinds; ++i) {
      const uint64_t at = cursor.next[i] - rings_[i].dropped;
      if (!filter.kinds[i] || at >= rings_[i].kept.size()) continue;
      const EventRecord& head = rings_[i].kept[at];
      if (first == nullptr || head.sequence < first->sequence) first = &head;
    }
    if (first == nullptr) return batch;
    if (batch.records.size() == most || scanned == kScanAtMost) {
      batch.more = true;
      return batch;
    }
    ++cursor.next[static_cast<size_t>(first->kind)];
    if (filter.Accepts(*first)) batch.records.push_back(*first);
  }
}

void EventHub::Close() {
  closed_.store(true, std::memory_order_release);
  Wake();
}

void EventHub::Wake() {
  if (waking_.exchange(true)) return;
  pool_.Post([self = shared_from_this()] {
    self->waking_.store(false);
    std::vector<std::shared_ptr<EventWatcher>> watchers;
    {
      absl::MutexLock lock(&self->mutex_);
      for (const Watching& watching : self->watchers_) watchers.push_back(watching.watcher);
    }
    for (const auto& watcher : watchers) watcher->EventsArrived();
  });
}

}  // namespace mmlab

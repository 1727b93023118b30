#ifndef MMLAB_SERVER_BASE_EVENT_H_
#define MMLAB_SERVER_BASE_EVENT_H_

#include <bitset>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace mmlab {

// The tracepoints of event_list.h.
enum class EventKind : uint8_t {
#define MMLAB_EVENT(kind, group, name, print) kind,
#include "server/base/event_list.h"
#undef MMLAB_EVENT
};
inline constexpr size_t kEventKinds = 0
#define MMLAB_EVENT(kind, group, name, print) +1
#include "server/base/event_list.h"
#undef MMLAB_EVENT
    ;
using EventKinds = std::bitset<kEventKinds>;

// One value of an event. Text must live only as long as the call of Emit.
class EventValue {
 public:
  template <std::integral Number>
  constexpr EventValue(Number number) : number_(static_cast<uint64_t>(number)) {}  // NOLINT(google-explicit-constructor)
  constexpr EventValue(absl::string_view text) : text_(text) {}                    // NOLINT(google-explicit-constructor)
  constexpr EventValue(const char* text) : EventValue(absl::string_view(text)) {}  // NOLINT(google-explicit-constructor)
  EventValue(const std::string& text) : EventValue(absl::string_view(text)) {}     // NOLINT(google-explicit-constructor)

  uint64_t number() const { return number_; }  // A signed number's bits.
  absl::string_view text() const { return text_; }

 private:
  uint64_t number_ = 0;
  absl::string_view text_;
};

// How one field of an event is printed; event_list.h.
enum class EventNotation : uint8_t { kNumber, kHex, kPointer, kText, kPaddedText };
struct EventField {
  absl::string_view name;
  EventNotation notation;
  bool is_text() const { return notation >= EventNotation::kText; }
};

// What is known of a kind of event.
struct EventFormat {
  absl::string_view group;  // "kmem"
  absl::string_view name;   // "mm_page_alloc"
  std::string full_name;    // "kmem:mm_page_alloc"
  std::vector<EventField> fields;
  std::vector<absl::string_view> between;  // What stands before the first field, between two, and behind the last.

  // As trace_pipe prints them, without the name of the event. REQUIRES: a value for each field.
  std::string Print(absl::Span<const EventValue> values) const;
};
inline constexpr size_t kMaxEventFields = 13;
const EventFormat& FormatOf(EventKind kind);

// Whose doing an event is: the task that runs, where and when. pid 0 is no task ("<idle>").
struct EventActor {
  int32_t pid = 0;
  int32_t cpu = 0;
  int64_t nanoseconds = 0;  // Unix time of the machine's clock.
  std::string comm = "<idle>";
};

// Where the parts of a machine tell what happens. They reach it through their Tracer, so that nobody watching costs one test of a pointer:
//   if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmPageFree, {pfn, order});
// Telling changes nothing: the same operations give the same state whether anybody watches or not.
class EventSink {
 public:
  virtual ~EventSink() = default;

  // Whether Emit would do anything; for values that are not at hand.
  bool wants(EventKind kind) const { return wanted_[static_cast<size_t>(kind)]; }
  // REQUIRES: as many values as the kind has fields, in their order.
  void Emit(EventKind kind, std::initializer_list<EventValue> values) {
    if (wants(kind)) Record(kind, absl::MakeConstSpan(values.begin(), values.size()));
  }

  // Events from now on are this actor's, until the next one is set. Machine sets the task of each operation; a kernel thread that works
  // for a while says so and puts back what was there.
  void SetActor(EventActor actor) { actor_ = std::move(actor); }
  const EventActor& actor() const { return actor_; }

 protected:
  virtual void Record(EventKind kind, absl::Span<const EventValue> values) = 0;
  void SetWanted(const EventKinds& kinds) { wanted_ = kinds; }

 private:
  EventKinds wanted_;
  EventActor actor_;
};

// Says for as long as it lives that a kernel thread acts: its events are its own, not those of the task that was at work.
class ActingAs {
 public:
  // `sink` may be null.
  ActingAs(EventSink* sink, int32_t pid, absl::string_view comm) : sink_(sink) {
    if (sink_ == nullptr) return;
    before_ = sink_->actor();
    sink_->SetActor(EventActor{pid, before_.cpu, before_.nanoseconds, std::string(comm)});
  }
  ~ActingAs() {
    if (sink_ != nullptr) sink_->SetActor(std::move(before_));
  }
  ActingAs(const ActingAs&) = delete;
  ActingAs& operator=(const ActingAs&) = delete;

 private:
  EventSink* sink_;
  EventActor before_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_BASE_EVENT_H_

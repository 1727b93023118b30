#ifndef MMLAB_SERVER_HOST_EVENT_LOG_H_
#define MMLAB_SERVER_HOST_EVENT_LOG_H_

#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace mmlab {

// The server's log: one line an event, for people (text) or machines (json). Thread-safe. Never given secrets or request contents.
class EventLog {
 public:
  enum class Format : uint8_t { kText, kJson };
  using Fields = std::initializer_list<std::pair<absl::string_view, absl::string_view>>;

  // Silent when `out` is null. `out` outlives the log.
  EventLog(std::FILE* out, Format format) : out_(out), format_(format) {}

  // `event` is snake_case: "machine_created".
  void Info(absl::string_view event, Fields fields = {}) { Write("info", event, fields); }
  void Warning(absl::string_view event, Fields fields = {}) { Write("warning", event, fields); }
  void Error(absl::string_view event, Fields fields = {}) { Write("error", event, fields); }

  // One line with its newline, as it is written.
  static std::string Line(Format format, absl::string_view time, absl::string_view level, absl::string_view event, Fields fields);

 private:
  void Write(absl::string_view level, absl::string_view event, Fields fields);

  std::FILE* const out_;
  const Format format_;
  absl::Mutex mutex_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_EVENT_LOG_H_

#include "server/host/event_log.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace mmlab {
namespace {

std::string Quoted(absl::string_view text) {  // A JSON string; good for the text format too.
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(&quoted, "\\u%04x", c);
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

bool NeedsQuotes(absl::string_view text) {
  for (const char c : text) {
    if (!absl::ascii_isgraph(c) || c == '"' || c == '=' || c == '\\') return true;
  }
  return text.empty();
}

}  // namespace

std::string EventLog::Line(Format format, absl::string_view time, absl::string_view level, absl::string_view event, Fields fields) {
  if (format == Format::kJson) {
    std::string line = absl::StrCat("{\"time\":", Quoted(time), ",\"level\":", Quoted(level), ",\"event\":", Quoted(event));
    for (const auto& [key, value] : fields) absl::StrAppend(&line, ",", Quoted(key), ":", Quoted(value));
    return line + "}\n";
  }
  std::string line = absl::StrCat(time, " ", level, " ", event);
  for (const auto& [key, value] : fields) absl::StrAppend(&line, " ", key, "=", NeedsQuotes(value) ? Quoted(value) : std::string(value));
  return line + "\n";
}

void EventLog::Write(absl::string_view level, absl::string_view event, Fields fields) {
  if (out_ == nullptr) return;
  const std::string time = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  const std::string line = Line(format_, time, level, event, fields);
  absl::MutexLock lock(&mutex_);
  std::fwrite(line.data(), 1, line.size(), out_);
  std::fflush(out_);
}

}  // namespace mmlab

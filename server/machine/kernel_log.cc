#include "server/machine/kernel_log.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace mmlab {
namespace {

constexpr int64_t kMicrosecond = 1000;
constexpr size_t kMostPrinted = 1024;  // CONSOLE_LOG_MAX
constexpr size_t kPrefix = 18;         // "<6>[    1.500000] "

struct Limit {
  const char* function;  // That prints them.
  int64_t interval;      // Nanoseconds.
  uint32_t burst;
};
constexpr int64_t kSecond = 1'000'000'000;
constexpr Limit kLimits[kLimitedMessages] = {
    {"oom_kill_process", 5 * kSecond, 10},
    {"warn_alloc", 10 * kSecond, 1},
    {"__vm_enough_memory", 5 * kSecond, 10},
    {"alloc_vmap_area", 5 * kSecond, 10},
};

std::string Stamp(int64_t microseconds) { return absl::StrFormat("[%5d.%06d] ", microseconds / 1'000'000, microseconds % 1'000'000); }

}  // namespace

void KernelLog::Log(LogLevel level, const std::string& text) {
  size_t printed = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    // Of one message no more is printed than fits the buffer in which each line gets its prefix.
    printed += kPrefix + line.size() + 1;
    if (printed > kMostPrinted) break;
    lines_.push_back({level, (now_ - boot_) / kMicrosecond, std::string(line)});
    bytes_ += line.size() + sizeof(Line);
  }
  while (bytes_ > kMostBytes) {
    bytes_ -= lines_.front().text.size() + sizeof(Line);
    lines_.pop_front();
    ++dropped_;
  }
}

bool KernelLog::Allows(LimitedMessage message) {
  const Limit& limit = kLimits[static_cast<size_t>(message)];
  Limited& state = limited_[static_cast<size_t>(message)];
  if (state.asked == 0 || now_ - state.since > limit.interval) {
    if (state.asked > limit.burst) {
      Log(LogLevel::kWarning, absl::StrCat(limit.function, ": ", state.asked - limit.burst, " callbacks suppressed"));
    }
    state = {now_, 0};
  }
  return ++state.asked <= limit.burst;
}

std::string KernelLog::RawText() const {
  std::string out;
  for (const Line& line : lines_) absl::StrAppend(&out, "<", static_cast<int>(line.level), ">", Stamp(line.microseconds), line.text, "\n");
  return out;
}

std::string KernelLog::Text() const {
  std::string out;
  for (const Line& line : lines_) absl::StrAppend(&out, Stamp(line.microseconds), line.text, "\n");
  return out;
}

void KernelLog::AddToHash(StateHasher& hasher) const {
  hasher.Add(dropped_);
  for (const Limited& limited : limited_) {
    hasher.Add(static_cast<uint64_t>(limited.since));
    hasher.Add(limited.asked);
  }
  for (const Line& line : lines_) {
    hasher.Add(static_cast<uint64_t>(line.level));
    hasher.Add(static_cast<uint64_t>(line.microseconds));
    hasher.AddBytes(line.text.data(), line.text.size());
  }
}

Bytes KernelLog::HostMemory() const { return Bytes(sizeof(KernelLog) + bytes_); }

}  // namespace mmlab

#ifndef MMLAB_SERVER_MACHINE_KERNEL_LOG_H_
#define MMLAB_SERVER_MACHINE_KERNEL_LOG_H_

#include <array>
#include <cstdint>
#include <deque>
#include <string>

#include "server/base/address.h"
#include "server/base/hash.h"
#include "server/base/kernel_logger.h"

namespace mmlab {

// What a machine's kernel said: a ring like the kernel's own, in which the oldest lines make room for new ones. Linux:
// kernel/printk/printk.c.
class KernelLog final : public KernelLogger {
 public:
  struct Line {
    LogLevel level = LogLevel::kInfo;
    int64_t microseconds = 0;  // Since boot.
    std::string text;
  };

  // `now_nanoseconds` is the machine's clock, `boot_nanoseconds` what it showed at boot.
  KernelLog(const int64_t& now_nanoseconds, int64_t boot_nanoseconds) : now_(now_nanoseconds), boot_(boot_nanoseconds) {}

  void Log(LogLevel level, const std::string& text) override;
  bool Allows(LimitedMessage message) override;

  const std::deque<Line>& lines() const { return lines_; }
  uint64_t dropped() const { return dropped_; }  // Lines that are not in the ring any more.
  // The lines as `dmesg --raw` prints them: "<4>[    1.500000] text".
  std::string RawText() const;
  // As `dmesg` prints them: without levels.
  std::string Text() const;

  void AddToHash(StateHasher& hasher) const;
  Bytes HostMemory() const;

 private:
  static constexpr uint64_t kMostBytes = 256 << 10;  // CONFIG_LOG_BUF_SHIFT 18 on x86-32, 17 on ARM64.

  const int64_t& now_;
  const int64_t boot_;
  // struct ratelimit_state
  struct Limited {
    int64_t since = 0;  // When the present interval began.
    uint32_t asked = 0;
  };

  std::deque<Line> lines_;
  std::array<Limited, kLimitedMessages> limited_{};
  uint64_t bytes_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_KERNEL_LOG_H_

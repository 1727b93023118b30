#ifndef MMLAB_SERVER_BASE_KERNEL_LOGGER_H_
#define MMLAB_SERVER_BASE_KERNEL_LOGGER_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace mmlab {

// Levels of kernel messages (include/linux/kern_levels.h), as the number in "<4>[...".
enum class LogLevel : uint8_t { kEmergency = 0, kAlert = 1, kCritical = 2, kError = 3, kWarning = 4, kNotice = 5, kInfo = 6, kDebug = 7 };

// Messages of which only so many are printed in a while, each by a limit of its own (___ratelimit()).
enum class LimitedMessage : uint8_t {
  kOomKillProcess,  // The report of an OOM kill.
  kWarnAlloc,       // The report of a failed allocation.
  kVmEnoughMemory,  // A commit charge that is refused.
  kAllocVmapArea,   // No addresses for vmalloc and its like.
};
inline constexpr size_t kLimitedMessages = 4;

// printk() of a simulated kernel: where rooms put what Linux would put into its log. Done by machine, which knows the time.
class KernelLogger {
 public:
  virtual ~KernelLogger() = default;
  // One message; a line feed in it starts another line of the same time and level.
  virtual void Log(LogLevel level, const std::string& text) = 0;
  // Whether such a message may be printed now; asking counts as printing it.
  [[nodiscard]] virtual bool Allows(LimitedMessage message) = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_BASE_KERNEL_LOGGER_H_

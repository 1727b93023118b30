#ifndef MMLAB_SERVER_PROCESS_REPLACEMENT_POLICY_H_
#define MMLAB_SERVER_PROCESS_REPLACEMENT_POLICY_H_

#include <cstdint>

namespace mmlab {

// The policies of operating-systems textbooks; documented at v1::ReplacementPolicy, same numbers.
enum class ReplacementPolicy : uint8_t { kLinux = 1, kFifo = 2, kLru = 3, kClock = 4, kOptimal = 5 };

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_REPLACEMENT_POLICY_H_

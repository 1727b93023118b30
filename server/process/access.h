#ifndef MMLAB_SERVER_PROCESS_ACCESS_H_
#define MMLAB_SERVER_PROCESS_ACCESS_H_

#include <cstdint>
#include <string>

#include "server/base/address.h"

namespace mmlab {

// How a process's instructions touch memory; documented at v1::AccessKind, same numbers.
enum class AccessKind : uint8_t {
  kLoad = 1,
  kStore = 2,
  kTouchRead = 3,
  kTouchWrite = 4,
  kHash = 5,
  kExecute = 6,
  kReadBytes = 7,
  kWriteBytes = 8,
};

struct AccessRequest {
  AccessKind kind = AccessKind::kLoad;
  uint64_t address = 0;
  uint64_t length = 0;  // Bytes. kLoad, kStore: 1, 2, 4 or 8.
  uint64_t stride = 0;  // kTouchRead, kTouchWrite: bytes; 0 = one page.
  uint64_t value = 0;   // kStore: little-endian; kTouchWrite: the byte.
  std::string data{};   // kWriteBytes.
};

struct AccessResult {
  uint64_t value = 0;      // kLoad.
  uint64_t done = 0;       // Accesses (kHash, kReadBytes, kWriteBytes: bytes) that succeeded.
  uint64_t failed_at = 0;  // Address of the access that failed, when a signal was sent.
  uint64_t fnv1a64 = 0;    // kHash.
  uint64_t minor_faults = 0;
  uint64_t major_faults = 0;
};

// Linux's numbers (include/uapi/asm-generic/signal.h, siginfo.h).
enum class SignalNumber : uint8_t { kSigIll = 4, kSigBus = 7, kSigKill = 9, kSigSegv = 11 };

struct Signal {
  SignalNumber number = SignalNumber::kSigSegv;
  int32_t code = 0;  // si_code: SEGV_MAPERR 1, SEGV_ACCERR 2; BUS_ADRERR 2.
  uint64_t address = 0;
  int32_t x86_trap = 0;        // x86-32: 14 for a page fault.
  int32_t x86_error_code = 0;  // x86-32: bit 0 protection, 1 write, 2 user, 4 instruction fetch.
};
inline constexpr int32_t kSegvMaperr = 1;
inline constexpr int32_t kSegvAccerr = 2;
inline constexpr int32_t kBusAdrerr = 2;

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_ACCESS_H_

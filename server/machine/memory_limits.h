#ifndef MMLAB_SERVER_MACHINE_MEMORY_LIMITS_H_
#define MMLAB_SERVER_MACHINE_MEMORY_LIMITS_H_

#include "server/files/dirty_limits.h"

namespace mmlab {

class BuddyMemory;
class Sysctls;

// How much of memory may hold what has yet to be written, as sysctls and free pages have it now.
class MemoryLimits final : public DirtyLimiter {
 public:
  // Both outlive this.
  MemoryLimits(const BuddyMemory& memory, const Sysctls& sysctls, bool x86) : memory_(memory), sysctls_(sysctls), x86_(x86) {}
  DirtyLimits Limits() const override;

 private:
  const BuddyMemory& memory_;
  const Sysctls& sysctls_;
  bool x86_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_MEMORY_LIMITS_H_

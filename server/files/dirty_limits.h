#ifndef MMLAB_SERVER_FILES_DIRTY_LIMITS_H_
#define MMLAB_SERVER_FILES_DIRTY_LIMITS_H_

#include <cstdint>

namespace mmlab {

// How many pages may be dirty. Linux: domain_dirty_limits(), mm/page-writeback.c.
struct DirtyLimits {
  uint64_t background = 0;  // Above it writeback starts in the background.
  uint64_t threshold = 0;   // Above it writers are held back.
};

// Who knows them, from sysctls and the state of memory. Done and wired by machine.
class DirtyLimiter {
 public:
  virtual ~DirtyLimiter() = default;
  virtual DirtyLimits Limits() const = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_DIRTY_LIMITS_H_

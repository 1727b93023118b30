#ifndef MMLAB_SERVER_PHYSICAL_MEMORY_PRESSURE_H_
#define MMLAB_SERVER_PHYSICAL_MEMORY_PRESSURE_H_

#include <cstdint>

#include "server/physical/gfp.h"

namespace mmlab {

// What the page allocator does when a request finds too little memory, in the order of __alloc_pages_slowpath(). Done by reclaim, wired by
// machine. None of it may keep a frame of its own; while one of these calls runs, requests made from inside it are served without another.
class MemoryPressure {
 public:
  virtual ~MemoryPressure() = default;

  // wakeup_kswapd() for each zone from `highest_zone` down: no zone is above its low watermark any more. Whether it ran.
  virtual bool WakeKswapd(Gfp gfp, int order, int highest_zone) = 0;
  // try_to_free_pages(): how many pages were freed for a request that may use zones up to `highest_zone`.
  virtual uint64_t DirectReclaim(Gfp gfp, int order, int highest_zone) = 0;
  // Whether anonymous pages can be reclaimed: there is swap space.
  virtual bool CanReclaimAnonymous() const { return false; }
  // out_of_memory(), the last resort: true when something was killed and its memory is back, so that trying again makes sense.
  virtual bool OutOfMemory(Gfp gfp, int order, int highest_zone) = 0;
  // warn_alloc(): the request is refused.
  virtual void AllocationFailed(Gfp /*gfp*/, int /*order*/) {}
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_MEMORY_PRESSURE_H_

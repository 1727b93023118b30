#ifndef MMLAB_SERVER_CGROUP_CGROUP_PRESSURE_H_
#define MMLAB_SERVER_CGROUP_CGROUP_PRESSURE_H_

#include <cstdint>

#include "server/physical/gfp.h"

namespace mmlab {

// What a memory cgroup does when it may not have more. Done by reclaim, wired by machine.
class CgroupPressure {
 public:
  virtual ~CgroupPressure() = default;
  // try_to_free_mem_cgroup_pages(): how many of the pages charged to this cgroup and those below it were freed.
  virtual uint64_t ReclaimCgroup(uint16_t memcg, uint64_t pages) = 0;
  // mem_cgroup_out_of_memory(): true when somebody was killed, or when it is the acting process that dies.
  virtual bool CgroupOutOfMemory(uint16_t memcg, Gfp gfp, int order) = 0;
  // task_is_dying()
  virtual bool ActingProcessDies() const = 0;
  // lru_add_drain_all()
  virtual void DrainLru() = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_CGROUP_CGROUP_PRESSURE_H_

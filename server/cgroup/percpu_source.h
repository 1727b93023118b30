#ifndef MMLAB_SERVER_CGROUP_PERCPU_SOURCE_H_
#define MMLAB_SERVER_CGROUP_PERCPU_SOURCE_H_

#include <cstdint>
#include <optional>

namespace mmlab {

// Memory of which each CPU has its own, for the counters of memory cgroups (alloc_percpu_gfp()). Done by machine.
class PercpuSource {
 public:
  struct Place {
    uint64_t address = 0;
    bool accounted = false;  // Its chunk knows whom to charge; the first one, of boot, does not.
  };
  virtual ~PercpuSource() = default;
  // `bytes` for each CPU. Nothing: no memory, or the machine's chunks are not known.
  virtual std::optional<Place> TakePercpu(uint32_t bytes, uint32_t align) = 0;
  virtual void GivePercpu(uint64_t address) = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_CGROUP_PERCPU_SOURCE_H_

#ifndef MMLAB_SERVER_PHYSICAL_SHRINKER_H_
#define MMLAB_SERVER_PHYSICAL_SHRINKER_H_

#include <cstdint>

namespace mmlab {

// A cache that can give memory back when it runs short. Linux: struct shrinker, include/linux/shrinker.h.
class Shrinker {
 public:
  virtual ~Shrinker() = default;
  // How many objects could go.
  virtual uint64_t CountObjects() const = 0;
  // Tries to free that many of them; how many it looked at.
  virtual uint64_t ScanObjects(uint64_t objects) = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_SHRINKER_H_

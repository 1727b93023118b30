#ifndef MMLAB_SERVER_BASE_RANDOM_H_
#define MMLAB_SERVER_BASE_RANDOM_H_

#include <cstdint>

namespace mmlab {

// The machine's only source of chance: a seed that is part of its state (splitmix64). Same seed, same sequence, on every host.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // 0 .. bound - 1. REQUIRES: bound > 0.
  uint64_t Below(uint64_t bound) { return Next() % bound; }
  uint64_t state() const { return state_; }

 private:
  uint64_t state_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_BASE_RANDOM_H_

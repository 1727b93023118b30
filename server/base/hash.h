#ifndef MMLAB_SERVER_BASE_HASH_H_
#define MMLAB_SERVER_BASE_HASH_H_

#include <cstddef>
#include <cstdint>

namespace mmlab {

// Folds a machine's state into 64 bits, the same on every host and build (absl::Hash is salted per process, so it can't).
// Not cryptographic: it finds differences, it does not resist anybody.
class StateHasher {
 public:
  void Add(uint64_t value) {
    state_ = (state_ ^ value) * 0x9e3779b97f4a7c15;
    state_ ^= state_ >> 32;
  }
  void AddBytes(const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    uint64_t word = 0;
    for (size_t i = 0; i < size; ++i) {
      word |= uint64_t{bytes[i]} << (8 * (i % 8));
      if (i % 8 == 7) {
        Add(word);
        word = 0;
      }
    }
    Add(word);
    Add(size);
  }
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0x6d6d6c6162;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_BASE_HASH_H_

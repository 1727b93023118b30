#ifndef MMLAB_SERVER_FILES_SWAP_ENTRY_H_
#define MMLAB_SERVER_FILES_SWAP_ENTRY_H_

#include <cstdint>

namespace mmlab {

// A slot of a swap area. Linux: swp_entry_t.
struct SwapEntry {
  uint32_t area = 0;    // swp_type()
  uint32_t offset = 0;  // swp_offset(), pages; slot 0 is the header of the area and never given out.
  friend bool operator==(SwapEntry, SwapEntry) = default;
  // All of it in one word.
  uint64_t raw() const { return uint64_t{area} << 32 | offset; }
  static SwapEntry FromRaw(uint64_t raw) { return {static_cast<uint32_t>(raw >> 32), static_cast<uint32_t>(raw)}; }
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_SWAP_ENTRY_H_

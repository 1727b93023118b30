#ifndef MMLAB_SERVER_MACHINE_EARLY_MEMORY_H_
#define MMLAB_SERVER_MACHINE_EARLY_MEMORY_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "server/base/address.h"

namespace mmlab {

// Memory before the page allocator exists: free ranges, from the top of which is taken. Linux: mm/memblock.c, allocating top-down.
//
// Always true: free ranges ascend, do not overlap or touch each other.
class EarlyMemory {
 public:
  // REQUIRES: `free` ascends, without overlaps.
  explicit EarlyMemory(const std::vector<PhysRange>& free);

  // Takes `range` out of what is free (memblock_reserve).
  void Reserve(PhysRange range);
  // Takes the highest place below `limit`. Nothing: no range is large enough.
  std::optional<PhysRange> Take(uint64_t bytes, uint64_t align, uint64_t limit = ~uint64_t{0});
  // Gives back (memblock_phys_free). REQUIRES: `range` is not free.
  void Release(PhysRange range);

 private:
  std::vector<PhysRange> free_;
};

// Bytes of a boot-time hash table. `scale`: one bucket for each 2^scale bytes of kernel memory. `wide`: a 64-bit kernel, whose tables grow
// more slowly from 64 GiB on. Linux: alloc_large_system_hash(), mm/page_alloc.c.
uint64_t HashTableBytes(uint64_t kernel_pages, int scale, uint64_t bucket_bytes, bool wide);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_EARLY_MEMORY_H_

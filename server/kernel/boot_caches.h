#ifndef MMLAB_SERVER_KERNEL_BOOT_CACHES_H_
#define MMLAB_SERVER_KERNEL_BOOT_CACHES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/arch/layout.h"
#include "server/kernel/slab_rules.h"

namespace mmlab {

// A cache that the kernel and its drivers make for themselves while they start, beside those of kmalloc. Data, recorded on Debian's 6.1
// kernels: how large a structure is follows from how the kernel was built. How its objects lie in slabs does not stand here: SlubGeometry.
struct BootCache {
  const char* name;
  uint32_t object_size;   // Of the cache that came first; within a word or two where larger ones were merged into it.
  uint32_t largest_size;  // Of the largest cache that was merged into it, or its own.
  uint32_t align;
  SlabFlags flags;
  bool constructor;
  uint32_t usersize;
  int refcount;  // 1 and those merged into it.
};

// The flags of a cache that a kernel of this layout has after boot, those of kmalloc too. Nothing: it has none of that name.
std::optional<SlabFlags> FlagsOfBootCache(const SlabPlatform& platform, LayoutKind layout, absl::string_view name);

// Oldest first, as merging looks at them.
std::vector<BootCache> BootCachesOf(LayoutKind layout);

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_BOOT_CACHES_H_

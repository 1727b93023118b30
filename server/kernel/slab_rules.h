#ifndef MMLAB_SERVER_KERNEL_SLAB_RULES_H_
#define MMLAB_SERVER_KERNEL_SLAB_RULES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/arch/layout.h"
#include "server/base/address.h"
#include "server/physical/gfp.h"

namespace mmlab {

// Flags of a cache of objects, the kernel's slab_flags_t with the kernel's values (include/linux/slab.h), because people ask for caches by
// them.
using SlabFlags = uint32_t;
inline constexpr SlabFlags kSlabConsistencyChecks = 0x100;
inline constexpr SlabFlags kSlabRedZone = 0x400;           // Guard words around each object.
inline constexpr SlabFlags kSlabPoison = 0x800;            // Free objects are filled with a pattern.
inline constexpr SlabFlags kSlabKmalloc = 0x1000;          // One of kmalloc's own.
inline constexpr SlabFlags kSlabHwcacheAlign = 0x2000;     // Objects start on cache lines.
inline constexpr SlabFlags kSlabCacheDma = 0x4000;         // Pages from ZONE_DMA.
inline constexpr SlabFlags kSlabCacheDma32 = 0x8000;       // Pages from ZONE_DMA32.
inline constexpr SlabFlags kSlabStoreUser = 0x10000;       // Who allocated and freed each object is kept beside it.
inline constexpr SlabFlags kSlabReclaimAccount = 0x20000;  // Counts as SReclaimable.
inline constexpr SlabFlags kSlabPanic = 0x40000;
inline constexpr SlabFlags kSlabTypesafeByRcu = 0x80000;
inline constexpr SlabFlags kSlabMemSpread = 0x100000;
inline constexpr SlabFlags kSlabTrace = 0x200000;
inline constexpr SlabFlags kSlabNoLeakTrace = 0x800000;
inline constexpr SlabFlags kSlabAccount = 0x4000000;  // Charged to the memory cgroup.
inline constexpr SlabFlags kSlabNoUserFlags = 0x10000000;
inline constexpr SlabFlags kSlabCmpxchgDouble = 0x40000000;  // Set by SLUB itself: no lock to take an object.
inline constexpr SlabFlags kSlabObjectPoison = 0x80000000;   // Set by SLUB itself: the object, not only the padding, is poisoned.
inline constexpr SlabFlags kSlabDebugFlags = kSlabConsistencyChecks | kSlabRedZone | kSlabPoison | kSlabStoreUser | kSlabTrace;
// What kmem_cache_create() takes (SLAB_FLAGS_PERMITTED).
inline constexpr SlabFlags kSlabPermitted = kSlabDebugFlags | kSlabHwcacheAlign | kSlabCacheDma | kSlabCacheDma32 | kSlabReclaimAccount |
                                            kSlabPanic | kSlabTypesafeByRcu | kSlabNoLeakTrace | kSlabAccount | kSlabNoUserFlags |
                                            kSlabMemSpread;
// A cache with one of the first shares with nobody; caches that differ in one of the second do not share with each other.
inline constexpr SlabFlags kSlabNeverMerge =
    kSlabRedZone | kSlabPoison | kSlabStoreUser | kSlabTrace | kSlabTypesafeByRcu | kSlabNoLeakTrace;
inline constexpr SlabFlags kSlabMergeSame = kSlabReclaimAccount | kSlabCacheDma | kSlabCacheDma32 | kSlabAccount;

// The three allocators that a 6.1 kernel can be built with: CONFIG_SLUB, CONFIG_SLAB, CONFIG_SLOB.
enum class SlabAllocatorKind : uint8_t { kSlub = 1, kSlab = 2, kSlob = 3 };

// What the kernel's command line says of its slabs. Linux: setup_slub_debug(), setup_slub_min_order() and its neighbours, mm/slub.c;
// setup_slab_nomerge(), mm/slab_common.c.
struct SlabBootOptions {
  // slub_debug=FLAGS,NAMES;...: debugging of the caches that a block names, a name ending in '*' standing for all that begin so.
  struct Debug {
    SlabFlags flags = 0;
    std::vector<std::string> names;
  };
  SlabFlags debug_flags = 0;  // Of caches that no block names.
  std::vector<Debug> debug_blocks;
  bool no_higher_order_debug = false;  // slub_debug=O: no debugging where it would need slabs of a higher order.
  bool no_merge = false;               // slab_nomerge
  int min_order = 0;                   // slub_min_order=
  int max_order = 3;                   // slub_max_order=
  uint32_t min_objects = 0;            // slub_min_objects=; 0: by the number of CPUs.
};
// The options among the words of a command line.
SlabBootOptions ParseSlabBootOptions(absl::string_view command_line);

// What a kernel's build and machine decide about its slabs.
struct SlabPlatform {
  SlabAllocatorKind allocator = SlabAllocatorKind::kSlub;
  uint32_t word = 8;           // sizeof(void *)
  uint32_t cache_line = 64;    // cache_line_size()
  uint32_t kmalloc_align = 8;  // ARCH_KMALLOC_MINALIGN
  uint32_t kmalloc_min = 8;    // KMALLOC_MIN_SIZE: the smallest kmalloc class.
  uint32_t track_bytes = 32;   // sizeof(struct track), twice with each object under kSlabStoreUser.
  uint32_t physical_word = 8;  // sizeof(phys_addr_t)
  PageSize page_size{12};
  int cpus = 1;  // CPUs that the machine may have; SLUB wants more objects in a slab where there are more.
  SlabBootOptions options;
};
SlabPlatform SlabPlatformOf(const Layout& layout, int cpus, SlabAllocatorKind allocator = SlabAllocatorKind::kSlub);
// kmem_cache_flags(): the flags of a new cache of that name, with the debugging that the command line asks for.
SlabFlags WithDebugFlags(const SlabPlatform& platform, absl::string_view name, SlabFlags flags);
// CACHE_CREATE_MASK: what the allocator keeps of the flags that it takes.
SlabFlags SlabCreateMaskOf(SlabAllocatorKind allocator);

// What a line of /proc/slabinfo says of a cache's slabs.
struct SlabinfoCounts {
  std::string name;
  uint32_t active_objects = 0;
  uint32_t total_objects = 0;
  uint32_t slabs = 0;
  uint32_t pages_per_slab = 0;
};
// Nothing: not a line of it that has slabs, or one whose numbers cannot be.
std::optional<SlabinfoCounts> ParseSlabinfoLine(absl::string_view line);

// What the caller of kmem_cache_create() asks for.
struct SlabCacheRequest {
  std::string name;
  uint32_t object_size = 0;
  uint32_t align = 0;
  SlabFlags flags = 0;
  bool constructor = false;
  uint32_t usersize = 0;  // Bytes of an object that may be copied to user space.
};

// Where SLAB keeps the list of a slab's free objects: in one of them, in a kmalloc() of its own, or at the end of the slab.
enum class SlabFreelist : uint8_t { kInObject, kOffSlab, kOnSlab };

// What follows from it: how objects lie in a slab and how many slabs are kept. Linux: calculate_sizes(), set_cpu_partial(), mm/slub.c;
// __kmem_cache_create(), enable_cpucache(), mm/slab.c; __kmem_cache_create(), mm/slob.c.
struct SlabGeometry {
  uint32_t object_size = 0;  // As asked for.
  uint32_t size = 0;         // From one object to the next.
  uint32_t align = 0;
  uint32_t inuse = 0;            // Up to where the user's bytes and the first guard go.
  uint32_t free_ptr_offset = 0;  // Where a free object holds the address of the next one.
  uint32_t red_left_pad = 0;     // Bytes of guard before each object.
  SlabFlags flags = 0;           // With what the allocator adds.
  int order = 0;                 // Pages of a slab.
  uint32_t objects = 0;          // In a slab of that order.
  int min_order = 0;             // Taken when no pages of `order` are to be had.
  uint32_t min_objects = 0;
  uint32_t min_partial = 0;        // As many slabs without objects stay on the node's list.
  uint32_t cpu_partial = 0;        // Free objects that a CPU may keep on its partial list,
  uint32_t cpu_partial_slabs = 0;  // and the slabs which stand for them.
  Gfp alloc_gfp = 0;               // What is added to each request for pages.
  // SLAB alone.
  SlabFreelist freelist = SlabFreelist::kInObject;
  uint32_t colours = 0;       // The first object of a slab starts at one of so many places (0 is as good as 1),
  uint32_t colour_bytes = 0;  // each so many bytes behind the one before.
  uint32_t limit = 0;         // Free objects that the array of a CPU may hold,
  uint32_t batchcount = 0;    // and how many come and go at once.
  uint32_t shared = 0;        // The shared array holds so many batches.

  bool debug() const { return (flags & kSlabDebugFlags) != 0; }
};

// calculate_alignment() of mm/slab_common.c.
uint32_t SlabAlignment(const SlabPlatform& platform, SlabFlags flags, uint32_t align, uint32_t size);

// The geometry that the allocator chooses, or size 0: no slab can hold such an object. `align` is the final one (SlabAlignment).
SlabGeometry GeometryOf(const SlabPlatform& platform, uint32_t object_size, uint32_t align, SlabFlags flags, bool constructor);
// The same of one allocator.
SlabGeometry SlubGeometry(const SlabPlatform& platform, uint32_t object_size, uint32_t align, SlabFlags flags, bool constructor);
SlabGeometry ClassicSlabGeometry(const SlabPlatform& platform, uint32_t object_size, uint32_t align, SlabFlags flags, bool constructor);
SlabGeometry SlobGeometry(const SlabPlatform& platform, uint32_t object_size, uint32_t align, SlabFlags flags);

// Whether slabs could look like this at all, for geometry that comes from somewhere else.
bool IsSlabGeometry(const SlabPlatform& platform, const SlabGeometry& geometry);

// The kinds of kmalloc caches, in the order in which the kernel makes them.
enum class KmallocType : uint8_t { kNormal = 0, kCgroup = 1, kReclaim = 2, kDma = 3 };
inline constexpr int kKmallocTypes = 4;
KmallocType KmallocTypeOf(Gfp gfp);

// Which class serves so many bytes: 1 = 96, 2 = 192, n = 2^n. REQUIRES: 1 <= bytes <= KmallocMaxCacheSize().
int KmallocIndex(const SlabPlatform& platform, uint64_t bytes);
uint32_t KmallocClassSize(int index);
std::string KmallocName(KmallocType type, int index);        // "kmalloc-rcl-2k"
uint64_t KmallocMaxCacheSize(const SlabPlatform& platform);  // Larger requests go to the page allocator.

inline constexpr uint32_t kSlobUnit = 2;  // Bytes: sizes and places of SLOB's blocks are multiples of it.

// get_order(): the smallest block that holds so many bytes. REQUIRES: bytes > 0.
int OrderHolding(PageSize page_size, uint64_t bytes);

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_SLAB_RULES_H_

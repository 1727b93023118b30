// The arithmetic of SLAB and SLOB. Linux: calculate_slab_order(), __kmem_cache_create(), enable_cpucache(), mm/slab.c; mm/slob.c.

#include <algorithm>

#include "server/kernel/slab_rules.h"

namespace mmlab {
namespace {

constexpr uint32_t kMaxSlabObjects = 255;  // SLAB_OBJ_MAX_NUM: the free list holds indexes of one byte.
constexpr uint32_t kMinSlabObject = 16;    // SLAB_OBJ_MIN_SIZE
constexpr int kSlabMaxOrder = 1;           // slab_max_order where there are more than 32 MiB of RAM, as in every machine.

uint32_t AlignUp(uint32_t value, uint32_t align) { return (value + align - 1) / align * align; }

// How many objects a slab of SLAB holds in which order, and what is left over.
struct Placement {
  int order = 0;
  uint32_t objects = 0;  // 0: no order will do.
  uint32_t left_over = 0;
};

// A list that is kept off the slab must take less than half of what one object takes.
bool OffSlabPays(const SlabPlatform& platform, uint32_t objects, uint32_t object_size) {
  return KmallocClassSize(KmallocIndex(platform, objects)) <= object_size / 2;
}

// calculate_slab_order(): the smallest order that leaves at most an eighth of the slab over; orders above slab_max_order, and beyond the
// first one for reclaimable objects, only when a smaller one holds no object.
Placement ChooseOrder(const SlabPlatform& platform, const SlabGeometry& g, SlabFreelist freelist) {
  Placement found;
  const uint32_t each = g.size + (freelist == SlabFreelist::kOnSlab ? 1 : 0);
  for (int order = 0; order <= kMaxOrder; ++order) {
    const auto slab = static_cast<uint32_t>(platform.page_size.bytes().raw() << order);
    const uint32_t objects = slab / each;
    if (objects == 0) continue;
    if (objects > kMaxSlabObjects) break;
    if (freelist == SlabFreelist::kOffSlab && !OffSlabPays(platform, objects, g.object_size)) continue;
    found = {order, objects, slab % each};
    if ((g.flags & kSlabReclaimAccount) != 0 || order >= kSlabMaxOrder || found.left_over * 8 <= slab) break;
  }
  return found;
}

// Whether the list may be kept where `freelist` says, with so many objects.
bool MayKeep(const SlabGeometry& g, const Placement& placement, SlabFreelist freelist, bool constructor) {
  if (placement.objects == 0) return false;
  switch (freelist) {
    case SlabFreelist::kInObject:  // A free object must not lose what its constructor wrote.
      return !constructor && (g.flags & kSlabTypesafeByRcu) == 0 && placement.objects <= g.object_size;
    case SlabFreelist::kOffSlab:  // Where it fits behind the objects it belongs there.
      return (g.flags & kSlabNoLeakTrace) == 0 && placement.left_over < placement.objects;
    case SlabFreelist::kOnSlab:
      break;
  }
  return true;
}

uint32_t ArrayLimit(const SlabPlatform& platform, uint32_t size) {
  if (size > 131072) return 1;
  if (size > platform.page_size.bytes().raw()) return 8;
  if (size > 1024) return 24;
  return size > 256 ? 54 : 120;
}

}  // namespace

SlabGeometry ClassicSlabGeometry(const SlabPlatform& platform, uint32_t object_size, uint32_t align, SlabFlags flags, bool constructor) {
  SlabGeometry g;
  g.object_size = object_size;
  g.align = std::max(align, platform.word);
  g.flags = flags;
  g.size = AlignUp(AlignUp(object_size, platform.word), g.align);
  if (g.size < kMinSlabObject) g.size = AlignUp(kMinSlabObject, g.align);
  g.inuse = g.size;
  g.colour_bytes = std::max(platform.cache_line, g.align);
  Placement placement;
  for (const SlabFreelist freelist : {SlabFreelist::kInObject, SlabFreelist::kOffSlab, SlabFreelist::kOnSlab}) {
    placement = ChooseOrder(platform, g, freelist);
    g.freelist = freelist;
    if (MayKeep(g, placement, freelist, constructor)) break;
  }
  if (placement.objects == 0) return SlabGeometry();
  g.colours = placement.left_over / g.colour_bytes;
  g.order = g.min_order = placement.order;
  g.objects = g.min_objects = placement.objects;
  g.alloc_gfp = kGfpComp;
  if ((flags & kSlabCacheDma) != 0) g.alloc_gfp |= kGfpZoneDma;
  if ((flags & kSlabCacheDma32) != 0) g.alloc_gfp |= kGfpZoneDma32;
  if ((flags & kSlabReclaimAccount) != 0) g.alloc_gfp |= kGfpReclaimable;
  g.limit = ArrayLimit(platform, g.size);
  g.batchcount = (g.limit + 1) / 2;
  g.shared = g.size <= platform.page_size.bytes().raw() && platform.cpus > 1 ? 8 : 0;
  return g;
}

SlabGeometry SlobGeometry(const SlabPlatform& platform, uint32_t object_size, uint32_t align, SlabFlags flags) {
  const uint32_t rcu_footer = platform.word == 8 ? 24 : 12;  // sizeof(struct slob_rcu)
  SlabGeometry g;
  g.object_size = object_size;
  g.align = align;
  g.flags = flags;
  g.size = AlignUp(object_size + ((flags & kSlabTypesafeByRcu) != 0 ? rcu_footer : 0), kSlobUnit);
  g.inuse = g.size;
  const uint64_t page = platform.page_size.bytes().raw();
  if (g.size < page && align > page) return SlabGeometry();  // No page has such an address in it.
  g.order = g.min_order = g.size < page ? 0 : OrderHolding(platform.page_size, g.size);
  return g.order <= kMaxOrder ? g : SlabGeometry();
}

}  // namespace mmlab

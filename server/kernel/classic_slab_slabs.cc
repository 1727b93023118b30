// Slabs and their pages. Linux: cache_grow_begin(), shuffle_freelist(), slab_get_obj(), slab_put_obj(), slab_destroy(), mm/slab.c.

#include <algorithm>
#include <utility>

#include "server/base/check.h"
#include "server/kernel/classic_slab.h"
#include "server/kernel/slot_table.h"

namespace mmlab {

// A slab of the next colour, on the list of free ones. kNoSlab: no memory.
uint32_t ClassicSlab::NewSlab(Cache& cache, Gfp gfp) {
  const SlabGeometry& g = cache.geometry;
  const Gfp wanted = (gfp & ~(kGfpZero | kGfpNoFail)) | g.alloc_gfp;
  const std::optional<Pfn> pfn = TakePages(wanted, g.order);
  if (!pfn) return kNoSlab;
  if (++cache.colour_next >= g.colours) cache.colour_next = 0;
  VirtAddr management;
  if (g.freelist == SlabFreelist::kOffSlab) {
    const std::optional<VirtAddr> list = Kmalloc(g.objects, gfp & ~(kGfpZero | kGfpAccount));
    if (!list) {
      memory_.FreePages(*pfn, PageOrder(g.order));
      return kNoSlab;
    }
    management = *list;
  }
  const uint32_t at = TakeSlot(slabs_, free_slots_);
  MMLAB_CHECK(at + 1 < kBootSlabMapping);  // Frame::mapping holds it.
  Slab& slab = slabs_[at];
  slab.pfn = static_cast<uint32_t>(pfn->raw());
  slab.cache = cache.id;
  slab.colour = g.colours == 0 ? 0 : cache.colour_next * g.colour_bytes;
  slab.management = management;
  slab.free = std::make_unique<uint8_t[]>(g.objects);
  slab.held = std::make_unique<Held[]>(g.objects);
  FillFreelist(cache, slab);
  Frame& frame = memory_.frame(*pfn);
  frame.state = FrameState::kSlab;
  frame.mapping = at + 1;
  CountPages(g.flags, g.order, 1);
  ++cache.slabs;
  Link(cache, at, kFreeList, true);
  return at;
}

// The cache's own order from a random place on. Where one of the free objects holds the list, that one goes out last.
void ClassicSlab::FillFreelist(Cache& cache, Slab& slab) {
  const uint32_t count = cache.geometry.objects;
  if (count < 2) return;
  if (cache.random_order == nullptr) {
    cache.random_order = RandomOrder<uint8_t>(count, random_);
  }
  const auto position = static_cast<ptrdiff_t>(random_.Below(count));
  std::rotate_copy(&cache.random_order[0], &cache.random_order[position], &cache.random_order[0] + count, &slab.free[0]);
  if (cache.geometry.freelist == SlabFreelist::kInObject) std::rotate(&slab.free[0], &slab.free[1], &slab.free[0] + count);
}

// REQUIRES: on no list, no object is out.
void ClassicSlab::DestroySlab(Cache& cache, uint32_t at) {
  Slab slab = std::exchange(slabs_[at], Slab());
  free_slots_.push_back(at);
  --cache.slabs;
  CountPages(cache.geometry.flags, cache.geometry.order, -1);
  memory_.FreePages(Pfn(slab.pfn), PageOrder(cache.geometry.order));
  if (slab.management.raw() != 0) Kfree(slab.management);
}

// alloc_block(), fixup_slab_list(): as many of a slab's free objects as it has or `count` says go to an array. Returns how many are left to
// take, below 0 when that was enough.
int ClassicSlab::TakeObjects(Cache& cache, ObjectArray& array, uint32_t at, int count) {
  Slab& slab = slabs_[at];
  Unlink(cache, at);
  while (slab.active < cache.geometry.objects && count-- > 0) {
    const uint8_t index = slab.free[slab.active++];
    slab.held[index] = Held::kInArray;
    array.objects.push_back({at, index});
  }
  Link(cache, at, slab.active == cache.geometry.objects ? kFullList : kPartialList, false);
  return count;
}

// An object comes back to its slab, which moves to the end of the partial ones: as much time as there is for its others to be freed.
void ClassicSlab::PutObject(Cache& cache, SlabObject object) {
  Slab& slab = slabs_[object.slab];
  Unlink(cache, object.slab);
  slab.held[object.index] = Held::kInSlab;
  slab.free[--slab.active] = static_cast<uint8_t>(object.index);
  if (slab.active == 0) {
    Link(cache, object.slab, kFreeList, false);
  } else {
    Link(cache, object.slab, kPartialList, true);
  }
}

void ClassicSlab::Link(Cache& cache, uint32_t at, List list, bool to_tail) {
  Slab& slab = slabs_[at];
  SlabList& to = cache.lists[list];
  slab.list = list;
  slab.next = to_tail ? kNoSlab : to.head;
  slab.prev = to_tail ? to.tail : kNoSlab;
  (slab.next == kNoSlab ? to.tail : slabs_[slab.next].prev) = at;
  (slab.prev == kNoSlab ? to.head : slabs_[slab.prev].next) = at;
  ++to.count;
}

void ClassicSlab::Unlink(Cache& cache, uint32_t at) {
  Slab& slab = slabs_[at];
  SlabList& from = cache.lists[slab.list];
  (slab.next == kNoSlab ? from.tail : slabs_[slab.next].prev) = slab.prev;
  (slab.prev == kNoSlab ? from.head : slabs_[slab.prev].next) = slab.next;
  slab.next = slab.prev = kNoSlab;
  --from.count;
}

void ClassicSlab::Explain(const char* text, const Cache& cache, const Slab& slab) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  why->Add(StepKind::kSlabObject, text)
      .Text("cache", cache.name)
      .Frame("slab", Pfn(slab.pfn))
      .Number("objects", cache.geometry.objects)
      .Number("inuse", slab.active)
      .Number("node_partial", cache.lists[kPartialList].count)
      .Number("slabs", static_cast<int64_t>(cache.slabs));
}

}  // namespace mmlab

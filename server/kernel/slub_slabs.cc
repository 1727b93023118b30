// Slabs and their pages. Linux: allocate_slab(), shuffle_freelist(), free_slab(), mm/slub.c.

#include "server/base/check.h"
#include "server/kernel/slot_table.h"
#include "server/kernel/slub.h"

namespace mmlab {

// Tries the order that wastes least, then the smallest that holds an object. kNoSlab: no memory.
uint32_t Slub::NewSlab(Cache& cache, Gfp gfp) {
  const SlabGeometry& g = cache.geometry;
  const Gfp wanted = (gfp & ~kGfpZero) | g.alloc_gfp;
  Gfp first = (wanted | kGfpNoWarn | kGfpNoRetry) & ~kGfpNoFail;
  if ((first & kGfpDirectReclaim) != 0 && g.order > g.min_order) first = (first | kGfpNoMemalloc) & ~kGfpReclaim;
  int order = g.order;
  uint32_t objects = g.objects;
  std::optional<Pfn> pfn = TakePages(first, order);
  if (!pfn) {
    order = g.min_order;
    objects = g.min_objects;
    pfn = TakePages(wanted, order);
    if (!pfn) return kNoSlab;
  }
  const uint32_t at = TakeSlot(slabs_, free_slots_);
  MMLAB_CHECK(at + 1 < kBootSlabMapping);  // Frame::mapping holds it.
  Slab& slab = slabs_[at];
  slab.pfn = static_cast<uint32_t>(pfn->raw());
  slab.cache = cache.id;
  slab.order = static_cast<uint8_t>(order);
  slab.objects = static_cast<uint16_t>(objects);
  slab.inuse = 0;
  slab.frozen = false;
  slab.links = std::make_unique<uint16_t[]>(objects);
  FillFreelist(cache, slab);
  Frame& frame = memory_.frame(*pfn);
  frame.state = FrameState::kSlab;
  frame.mapping = at + 1;
  CountPages(g.flags, order, 1);
  ++cache.slabs;
  cache.total_objects += objects;
  return at;
}

void Slub::FillFreelist(Cache& cache, Slab& slab) {
  const uint32_t count = cache.geometry.objects;
  if (count >= 2 && cache.random_order == nullptr) {
    cache.random_order = RandomOrder<uint16_t>(count, random_);
  }
  if (slab.objects < 2) {
    slab.freelist = 0;
    slab.links[0] = kEnd;
    return;
  }
  // The cache's order, from a random place on; a slab of the smaller order leaves out the objects that it has not.
  uint32_t position = static_cast<uint32_t>(random_.Below(count));
  uint16_t* last = &slab.freelist;
  for (uint32_t i = 0; i < count; ++i) {
    const uint16_t index = cache.random_order[position];
    position = position + 1 == count ? 0 : position + 1;
    if (index >= slab.objects) continue;
    *last = index;
    last = &slab.links[index];
  }
  *last = kEnd;
}

void Slub::DiscardSlab(Cache& cache, uint32_t at) {
  Slab& slab = slabs_[at];
  --cache.slabs;
  cache.total_objects -= slab.objects;
  CountPages(cache.geometry.flags, slab.order, -1);
  memory_.FreePages(Pfn(slab.pfn), PageOrder(slab.order));
  slab = Slab();
  free_slots_.push_back(at);
}

void Slub::AddPartial(Cache& cache, uint32_t at, bool to_tail) {
  Slab& slab = slabs_[at];
  slab.place = SlabPlace::kNodePartial;
  slab.next = to_tail ? kNoSlab : cache.partial_head;
  slab.prev = to_tail ? cache.partial_tail : kNoSlab;
  (slab.next == kNoSlab ? cache.partial_tail : slabs_[slab.next].prev) = at;
  (slab.prev == kNoSlab ? cache.partial_head : slabs_[slab.prev].next) = at;
  ++cache.nr_partial;
}

void Slub::RemovePartial(Cache& cache, uint32_t at) {
  Slab& slab = slabs_[at];
  (slab.next == kNoSlab ? cache.partial_tail : slabs_[slab.next].prev) = slab.prev;
  (slab.prev == kNoSlab ? cache.partial_head : slabs_[slab.prev].next) = slab.next;
  slab.next = kNoSlab;
  slab.prev = kNoSlab;
  slab.place = SlabPlace::kNowhere;
  --cache.nr_partial;
}

uint32_t Slub::CountFree(const Slab& slab, uint16_t head) const {
  uint32_t count = 0;
  for (; head != kEnd; head = slab.links[head]) ++count;
  return count;
}

void Slub::Explain(const char* text, const Cache& cache, const Slab& slab) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  why->Add(StepKind::kSlabObject, text)
      .Text("cache", cache.name)
      .Frame("slab", Pfn(slab.pfn))
      .Number("objects", slab.objects)
      .Number("inuse", slab.inuse)
      .Number("node_partial", cache.nr_partial)
      .Number("slabs", static_cast<int64_t>(cache.slabs));
}

}  // namespace mmlab

#include "server/kernel/slub.h"

#include <utility>

#include "server/base/check.h"

namespace mmlab {
Slub::Slub(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer, uint64_t seed)
    : SlabAllocator(platform, linear_base, memory, tracer), random_(seed) {
  MakeFirstCaches();
}

void Slub::ForgetCaches() {
  MMLAB_CHECK(slabs_.empty());
  caches_.clear();
  ForgetKmallocCaches();
}

void Slub::MakeNext(SlabCacheId id, uint32_t offset_in_page) {
  Cache& cache = CacheOf(id);
  CpuSlab& cpu = cache.cpus[static_cast<size_t>(memory_.current_cpu())];
  if (cpu.slab == kNoSlab) return;
  Slab& slab = slabs_[cpu.slab];
  for (uint16_t* link = &cpu.freelist; *link != kEnd; link = &slab.links[*link]) {
    const uint16_t index = *link;
    if (platform_.page_size.OffsetIn(AddressOf({cpu.slab, index})) != offset_in_page) continue;
    *link = slab.links[index];
    slab.links[index] = cpu.freelist;
    cpu.freelist = index;
    return;
  }
}

SlabCacheId Slub::AdoptCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount) {
  const SlabCacheId id = AddCache(request, geometry, refcount, true);
  NoteKmallocCache(request.name, id);
  return id;
}

SlabCacheId Slub::AddCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount, bool permanent) {
  auto cache = std::make_unique<Cache>();
  SetInfo(*cache, request, geometry, refcount, permanent);
  cache->cpus.resize(static_cast<size_t>(memory_.cpus()));
  caches_.push_back(std::move(cache));
  return static_cast<SlabCacheId>(caches_.size() - 1);
}

bool Slub::RemoveCache(SlabCacheId id) {
  Cache& cache = CacheOf(id);
  FlushCpus(cache);
  for (uint32_t slab = cache.partial_head; slab != kNoSlab;) {
    const uint32_t next = slabs_[slab].next;
    if (slabs_[slab].inuse == 0) {
      RemovePartial(cache, slab);
      DiscardSlab(cache, slab);
    }
    slab = next;
  }
  if (cache.slabs != 0) return false;
  caches_[static_cast<uint32_t>(id)].reset();
  return true;
}

bool Slub::Shrink(SlabCacheId id) {
  constexpr uint32_t kPromoted = 32;  // SHRINK_PROMOTE_MAX
  Cache& cache = CacheOf(id);
  FlushCpus(cache);
  std::vector<uint32_t> empty;
  std::array<std::vector<uint32_t>, kPromoted> by_free;
  for (uint32_t at = cache.partial_head; at != kNoSlab; at = slabs_[at].next) {
    const uint32_t free = slabs_[at].objects - slabs_[at].inuse;
    if (free == slabs_[at].objects) {
      empty.push_back(at);
    } else if (free <= kPromoted) {
      by_free[free - 1].push_back(at);
    }
  }
  // The fullest come to the head, each group with the last one seen first; pushing them one by one starts from the far end.
  for (uint32_t free = kPromoted; free > 0; --free) {
    for (const uint32_t slab : by_free[free - 1]) {
      RemovePartial(cache, slab);
      AddPartial(cache, slab, false);
    }
  }
  for (const uint32_t slab : empty) RemovePartial(cache, slab);
  for (auto slab = empty.rbegin(); slab != empty.rend(); ++slab) DiscardSlab(cache, *slab);
  return cache.slabs != 0;
}

SysResult<uint64_t> Slub::Ksize(VirtAddr address) const {
  if (address.raw() <= kZeroSizePtr) return uint64_t{0};
  const SlabObjectView view = Locate(address);
  if (view.fault != SlabFault::kNone) return Errno::kEFAULT;
  if (!view.object.has_value()) return platform_.page_size.bytes().raw() << view.slab.order;
  const SlabGeometry& g = CacheOf(*view.cache).geometry;
  if ((g.flags & (kSlabRedZone | kSlabPoison)) != 0) return uint64_t{g.object_size};
  if ((g.flags & (kSlabTypesafeByRcu | kSlabStoreUser)) != 0) return uint64_t{g.inuse};
  return uint64_t{g.size};
}

}  // namespace mmlab

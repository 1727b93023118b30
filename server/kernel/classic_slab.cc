// Arrays of free objects: of each CPU, and the shared one. Linux: cache_alloc_refill(), cache_flusharray(), free_block(), cache_reap(),
// mm/slab.c.

#include "server/kernel/classic_slab.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "server/base/check.h"

namespace mmlab {
namespace {

constexpr uint64_t kMaxPercpuBytes = 32 << 10;  // PCPU_MIN_UNIT_SIZE
constexpr uint64_t kMaxKmallocBytes = 4 << 20;  // KMALLOC_MAX_SIZE

}  // namespace

ClassicSlab::ClassicSlab(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer, uint64_t seed)
    : SlabAllocator(platform, linear_base, memory, tracer), random_(seed) {
  MakeFirstCaches();
}

SlabCacheId ClassicSlab::AddCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount, bool permanent) {
  auto cache = std::make_unique<Cache>();
  SetInfo(*cache, request, geometry, refcount, permanent);
  cache->cpus.resize(static_cast<size_t>(memory_.cpus()));
  cache->free_limit = (1 + static_cast<uint64_t>(memory_.cpus())) * geometry.batchcount + geometry.objects;
  caches_.push_back(std::move(cache));
  return static_cast<SlabCacheId>(caches_.size() - 1);
}

bool ClassicSlab::RemoveCache(SlabCacheId id) {
  if (Shrink(id)) return false;
  caches_[static_cast<uint32_t>(id)].reset();
  return true;
}

bool ClassicSlab::Shrink(SlabCacheId id) {
  Cache& cache = CacheOf(id);
  DrainAll(cache);
  DrainFree(cache, std::numeric_limits<uint32_t>::max());
  return cache.slabs != 0;
}

std::optional<SlabObject> ClassicSlab::AllocObject(SlabCacheId id, Gfp gfp) {
  Cache& cache = CacheOf(id);
  ObjectArray& array = ArrayOf(cache);
  if (array.objects.empty() && !Refill(cache, gfp)) return std::nullopt;
  array.touched = true;
  const SlabObject object = array.objects.back();
  array.objects.pop_back();
  slabs_[object.slab].held[object.index] = Held::kHeld;
  ++cache.allocated;
  if (tracer_.explanation() != nullptr) Explain("the free object that came last into this CPU's array", cache, slabs_[object.slab]);
  return object;
}

// Gives the CPU's array a batch of objects. A CPU that did not use the cache for a while gets a small one.
bool ClassicSlab::Refill(Cache& cache, Gfp gfp) {
  constexpr int kBatchRefillLimit = 16;
  ObjectArray& array = ArrayOf(cache);
  int batch = static_cast<int>(cache.geometry.batchcount);
  if (!array.touched) batch = std::min(batch, kBatchRefillLimit);
  if (Transfer(cache, array, static_cast<uint32_t>(batch)) > 0) {
    cache.shared.touched = true;
    return true;
  }
  const bool look = cache.free_objects > 0;
  while (look && batch > 0) {
    uint32_t at = cache.lists[kPartialList].head;
    if (at == kNoSlab) {
      cache.free_touched = true;
      at = cache.lists[kFreeList].head;
    }
    if (at == kNoSlab) break;
    Explain("the CPU's array is empty: a batch from a slab with free objects", cache, slabs_[at]);
    const size_t before = array.objects.size();
    batch = TakeObjects(cache, array, at, batch);
    cache.free_objects -= array.objects.size() - before;
  }
  if (!array.objects.empty()) return true;
  const uint32_t fresh = NewSlab(cache, gfp);
  if (fresh == kNoSlab) return false;
  Explain("no slab has a free object: a new one", cache, slabs_[fresh]);
  cache.free_objects += cache.geometry.objects;
  TakeObjects(cache, array, fresh, batch);
  cache.free_objects -= array.objects.size();
  return true;
}

// transfer_objects() from the shared array.
uint32_t ClassicSlab::Transfer(Cache& cache, ObjectArray& to, uint32_t most) {
  std::vector<SlabObject>& from = cache.shared.objects;
  const size_t room = cache.geometry.limit - to.objects.size();
  const size_t count = std::min({from.size(), size_t{most}, room});
  if (count == 0) return 0;
  to.objects.insert(to.objects.end(), from.end() - static_cast<ptrdiff_t>(count), from.end());
  from.resize(from.size() - count);
  return static_cast<uint32_t>(count);
}

void ClassicSlab::FreeObject(SlabCacheId id, SlabObject object) {
  Cache& cache = CacheOf(id);
  MMLAB_CHECK(object.slab < slabs_.size() && slabs_[object.slab].free != nullptr && slabs_[object.slab].cache == cache.id);
  MMLAB_CHECK(object.index < cache.geometry.objects && slabs_[object.slab].held[object.index] == Held::kHeld);
  slabs_[object.slab].held[object.index] = Held::kInArray;
  --cache.allocated;
  ObjectArray& array = ArrayOf(cache);
  if (array.objects.size() >= cache.geometry.limit) Flush(cache, array);
  array.objects.push_back(object);
  if (tracer_.explanation() != nullptr) Explain("freed into this CPU's array", cache, slabs_[object.slab]);
}

// cache_flusharray(): the batch that is longest in the array goes to the shared one if that has room, else back to the slabs.
void ClassicSlab::Flush(Cache& cache, ObjectArray& array) {
  const size_t batch = cache.geometry.batchcount;
  const size_t shared_limit = size_t{cache.geometry.shared} * cache.geometry.batchcount;
  std::vector<SlabObject>& shared = cache.shared.objects;
  if (const size_t room = shared_limit - shared.size(); room > 0) {
    const auto last = array.objects.begin() + static_cast<ptrdiff_t>(std::min(batch, room));
    shared.insert(shared.end(), array.objects.begin(), last);
    array.objects.erase(array.objects.begin(), last);
    return;
  }
  FreeBlock(cache, array, batch);
}

// free_block(): the first `count` objects of an array go back to their slabs. A slab without objects may go to the page allocator.
void ClassicSlab::FreeBlock(Cache& cache, ObjectArray& array, size_t count) {
  for (size_t i = 0; i < count; ++i) PutObject(cache, array.objects[i]);
  array.objects.erase(array.objects.begin(), array.objects.begin() + static_cast<ptrdiff_t>(count));
  cache.free_objects += count;
  std::vector<uint32_t> gone;
  while (cache.free_objects > cache.free_limit && cache.lists[kFreeList].tail != kNoSlab) {
    const uint32_t at = cache.lists[kFreeList].tail;
    cache.free_objects -= cache.geometry.objects;
    Unlink(cache, at);
    Explain("more free objects than are kept: a free slab's pages are freed", cache, slabs_[at]);
    gone.push_back(at);
  }
  for (const uint32_t at : gone) DestroySlab(cache, at);
}

void ClassicSlab::DrainAll(Cache& cache) {
  for (ObjectArray& array : cache.cpus) FreeBlock(cache, array, array.objects.size());
  FreeBlock(cache, cache.shared, cache.shared.objects.size());
}

// New arrays take the place of the old ones, whose objects go back to their slabs.
Errno ClassicSlab::Tune(SlabCacheId id, uint32_t limit, uint32_t batchcount, uint32_t shared) {
  const uint64_t header = 4 * sizeof(uint32_t);  // struct array_cache
  const uint64_t array = header + uint64_t{limit} * platform_.word;
  const uint64_t shared_array = header + uint64_t{shared} * batchcount * platform_.word;
  if (array > kMaxPercpuBytes || shared_array > kMaxKmallocBytes) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kSlabCacheChoice, "an array of that size is more than alloc_percpu() or kmalloc() gives")
          .Size("array", Bytes(array))
          .Size("shared_array", Bytes(shared_array))
          .Error(Errno::kENOMEM);
    }
    return Errno::kENOMEM;
  }
  Cache& cache = CacheOf(id);
  cache.geometry.limit = limit;
  cache.geometry.batchcount = batchcount;
  cache.geometry.shared = shared;
  cache.free_limit = (1 + static_cast<uint64_t>(memory_.cpus())) * batchcount + cache.geometry.objects;
  DrainAll(cache);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kSlabCacheChoice, "the arrays were replaced; what was in the old ones is back in its slabs")
        .Text("cache", cache.name)
        .Number("limit", limit)
        .Number("batchcount", batchcount)
        .Number("shared", shared)
        .Number("free_limit", static_cast<int64_t>(cache.free_limit));
  }
  return Errno::kOk;
}

uint32_t ClassicSlab::DrainFree(Cache& cache, uint32_t most) {
  uint32_t freed = 0;
  for (; freed < most && cache.lists[kFreeList].tail != kNoSlab; ++freed) {
    const uint32_t at = cache.lists[kFreeList].tail;
    cache.free_objects -= cache.geometry.objects;
    Unlink(cache, at);
    DestroySlab(cache, at);
  }
  return freed;
}

// drain_array(): true when anything changed.
bool ClassicSlab::ReapArray(Cache& cache, ObjectArray& array, uint32_t limit) {
  if (array.objects.empty()) return false;
  if (std::exchange(array.touched, false)) return true;
  size_t count = (limit + 4) / 5;
  if (count > array.objects.size()) count = (array.objects.size() + 1) / 2;
  FreeBlock(cache, array, count);
  return true;
}

bool ClassicSlab::Reap() {
  const bool node = ++reaps_ % 2 == 0;  // REAPTIMEOUT_NODE is twice REAPTIMEOUT_AC.
  bool changed = false;
  for (const auto& owned : caches_) {
    if (owned == nullptr) continue;
    Cache& cache = *owned;
    for (ObjectArray& array : cache.cpus) changed |= ReapArray(cache, array, cache.geometry.limit);
    if (!node) continue;
    changed |= ReapArray(cache, cache.shared, cache.geometry.shared * cache.geometry.batchcount);
    const uint32_t fifth = 5 * cache.geometry.objects;
    if (std::exchange(cache.free_touched, false)) {
      changed = true;
    } else {
      changed |= DrainFree(cache, static_cast<uint32_t>((cache.free_limit + fifth - 1) / fifth)) > 0;
    }
  }
  return changed || !node;
}

}  // namespace mmlab

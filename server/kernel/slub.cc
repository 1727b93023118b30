#include "server/kernel/slub.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "server/base/check.h"
#include "server/kernel/boot_caches.h"

namespace mmlab {
namespace {

constexpr uint32_t kMaxObjectSize = 1u << 22;  // Nothing larger fits a block of the page allocator.

}  // namespace

Slub::Slub(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer, uint64_t seed)
    : platform_(platform), linear_base_(linear_base), memory_(memory), tracer_(tracer), random_(seed) {
  MakeBootCaches();
}

// kmem_cache_init(), create_kmalloc_caches(). The ordinary kmalloc caches never merge, so that what is charged to a cgroup stays apart.
void Slub::MakeBootCaches() {
  for (auto& by_index : kmalloc_caches_) by_index.fill(-1);
  const auto make = [&](const std::string& name, uint32_t size, SlabFlags flags, uint32_t usersize, int refcount) {
    uint32_t align = platform_.kmalloc_align;
    if (std::has_single_bit(size)) align = std::max(align, size);
    align = SlabAlignment(platform_, flags, align, size);
    return AddCache({name, size, align, flags, false, usersize}, SlubGeometry(platform_, size, align, flags, false), refcount, true);
  };
  const bool small = platform_.word == 4;
  make("kmem_cache", small ? 140 : 224, kSlabHwcacheAlign, 0, -1);
  make("kmem_cache_node", small ? 32 : 64, kSlabHwcacheAlign, 0, -1);
  const int lowest = std::bit_width(platform_.kmalloc_align) - 1;
  const int highest = std::bit_width(KmallocMaxCacheSize(platform_)) - 1;
  for (int type = 0; type < kKmallocTypes; ++type) {
    constexpr SlabFlags kFlags[kKmallocTypes] = {0, kSlabAccount, kSlabReclaimAccount, kSlabCacheDma};
    const auto add = [&](int index) {
      const SlabCacheId id = make(KmallocName(static_cast<KmallocType>(type), index), KmallocClassSize(index), kFlags[type] | kSlabKmalloc,
                                  KmallocClassSize(index), type == 0 ? -1 : 1);
      kmalloc_caches_[static_cast<size_t>(type)][static_cast<size_t>(index)] = static_cast<int32_t>(id);
    };
    for (int index = lowest; index <= highest; ++index) {
      add(index);
      if (index == 6 && platform_.kmalloc_align <= 32) add(1);
      if (index == 7 && platform_.kmalloc_align <= 64) add(2);
    }
  }
}

void Slub::AddBootCaches(LayoutKind layout) {
  for (const BootCache& cache : BootCachesOf(layout)) {
    SlabGeometry geometry = SlubGeometry(platform_, cache.object_size, cache.align, cache.flags, cache.constructor);
    GrowMerged(cache.largest_size, geometry);
    AddCache({cache.name, cache.object_size, cache.align, cache.flags, cache.constructor, cache.usersize}, geometry, cache.refcount, true);
  }
}

void Slub::ForgetCaches() {
  MMLAB_CHECK(slabs_.empty());
  caches_.clear();
  for (auto& by_index : kmalloc_caches_) by_index.fill(-1);
}

SlabCacheId Slub::AdoptCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount) {
  const SlabCacheId id = AddCache(request, geometry, refcount, true);
  for (int type = 0; type < kKmallocTypes; ++type) {
    for (int index = 1; index < 16; ++index) {
      if (request.name == KmallocName(static_cast<KmallocType>(type), index)) {
        kmalloc_caches_[static_cast<size_t>(type)][static_cast<size_t>(index)] = static_cast<int32_t>(id);
      }
    }
  }
  return id;
}

SlabCacheId Slub::AddCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount, bool permanent) {
  auto cache = std::make_unique<Cache>();
  cache->id = static_cast<uint32_t>(caches_.size());
  cache->name = request.name;
  cache->geometry = geometry;
  cache->refcount = refcount;
  cache->permanent = permanent;
  cache->usersize = request.usersize;
  cache->constructor = request.constructor;
  cache->cpus.resize(static_cast<size_t>(memory_.cpus()));
  caches_.push_back(std::move(cache));
  return static_cast<SlabCacheId>(caches_.size() - 1);
}

// find_mergeable(): the oldest cache whose objects are as large and aligned as needed, and hardly larger.
Slub::Cache* Slub::FindMergeable(const SlabCacheRequest& request, SlabCacheId* id) {
  if (request.constructor || request.usersize != 0 || (request.flags & kSlabNeverMerge) != 0) return nullptr;
  const uint32_t word = platform_.word;
  uint32_t size = (request.object_size + word - 1) / word * word;
  const uint32_t align = SlabAlignment(platform_, request.flags, request.align, size);
  size = (size + align - 1) / align * align;
  for (size_t i = 0; i < caches_.size(); ++i) {
    Cache* cache = caches_[i].get();
    if (cache == nullptr || cache->constructor || cache->usersize != 0 || cache->refcount < 0) continue;
    const SlabGeometry& g = cache->geometry;
    if ((g.flags & kSlabNeverMerge) != 0 || (g.flags & kSlabMergeSame) != (request.flags & kSlabMergeSame)) continue;
    if (size > g.size || g.size % align != 0 || g.size - size >= word) continue;
    *id = static_cast<SlabCacheId>(i);
    return cache;
  }
  return nullptr;
}

// __kmem_cache_alias(): the objects of one more cache.
void Slub::GrowMerged(uint32_t object_size, SlabGeometry& geometry) const {
  geometry.object_size = std::max(geometry.object_size, object_size);
  geometry.inuse = std::max(geometry.inuse, (object_size + platform_.word - 1) / platform_.word * platform_.word);
}

SysResult<SlabCacheId> Slub::CreateCache(const SlabCacheRequest& asked) {
  SlabCacheRequest request = asked;
  if ((request.flags & ~kSlabPermitted) != 0) return Errno::kEINVAL;
  request.flags &= kSlabCreateMask;
  if (request.object_size == 0 || request.object_size > kMaxObjectSize) return Errno::kEINVAL;
  if (request.align > kMaxObjectSize || (request.align != 0 && !std::has_single_bit(request.align))) return Errno::kEINVAL;
  if (request.usersize > request.object_size) request.usersize = 0;
  if (caches_.size() >= kMaxCaches) return Errno::kENOMEM;
  SlabCacheId id{};
  if (Cache* cache = FindMergeable(request, &id)) {
    ++cache->refcount;
    cache->aliases.push_back(request.name);
    GrowMerged(request.object_size, cache->geometry);
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kSlabCacheChoice, "an older cache serves such objects as well: merged")
          .Text("cache", cache->name)
          .Size("size", Bytes(cache->geometry.size));
    }
    return id;
  }
  const uint32_t align = SlabAlignment(platform_, request.flags, request.align, request.object_size);
  const SlabGeometry geometry = SlubGeometry(platform_, request.object_size, align, request.flags, request.constructor);
  if (geometry.size == 0) return Errno::kEINVAL;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kSlabCacheChoice, "no other cache serves such objects: a new one")
        .Size("size", Bytes(geometry.size))
        .Number("order", geometry.order)
        .Number("objects_per_slab", geometry.objects);
  }
  return AddCache(request, geometry, 1, false);
}

Errno Slub::DestroyCache(SlabCacheId id, absl::string_view name) {
  Cache& cache = CacheOf(id);
  if (cache.permanent && cache.refcount <= 1) return Errno::kEBUSY;
  if (cache.refcount > 1) {
    --cache.refcount;
    const auto alias = std::find(cache.aliases.begin(), cache.aliases.end(), name);
    if (alias != cache.aliases.end()) cache.aliases.erase(alias);
    return Errno::kOk;
  }
  FlushCpus(cache);
  for (uint32_t slab = cache.partial_head; slab != kNoSlab;) {
    const uint32_t next = slabs_[slab].next;
    if (slabs_[slab].inuse == 0) {
      RemovePartial(cache, slab);
      DiscardSlab(cache, slab);
    }
    slab = next;
  }
  if (cache.slabs != 0) return Errno::kEBUSY;
  caches_[static_cast<uint32_t>(id)].reset();
  return Errno::kOk;
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

std::optional<SlabCacheId> Slub::KmallocCache(uint64_t bytes, Gfp gfp) const {
  if (bytes == 0 || bytes > KmallocMaxCacheSize(platform_)) return std::nullopt;
  const int32_t id = kmalloc_caches_[static_cast<size_t>(KmallocTypeOf(gfp))][static_cast<size_t>(KmallocIndex(platform_, bytes))];
  if (id < 0) return std::nullopt;
  return static_cast<SlabCacheId>(id);
}

std::optional<VirtAddr> Slub::Kmalloc(uint64_t bytes, Gfp gfp) {
  if (bytes == 0) return VirtAddr(kZeroSizePtr);
  if (const std::optional<SlabCacheId> cache = KmallocCache(bytes, gfp)) {
    const std::optional<SlabObject> object = AllocObject(*cache, gfp);
    if (!object) return std::nullopt;
    return AddressOf(*object);
  }
  const int order = bytes > kMaxObjectSize ? kMaxOrder + 1 : OrderHolding(platform_.page_size, bytes);
  if (order > kMaxOrder) return std::nullopt;
  const std::optional<Pfn> pfn = memory_.AllocPages(gfp | kGfpComp, PageOrder(order));
  if (!pfn) return std::nullopt;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kSlabCacheChoice, "larger than the largest class: whole pages of the page allocator")
        .Size("bytes", Bytes(bytes))
        .Number("order", order);
  }
  memory_.frame(*pfn).state = FrameState::kSlab;  // mapping stays 0: no slab of a cache.
  CountPages(0, order, 1);
  large_pages_ += uint64_t{1} << order;
  return VirtAddr(linear_base_ + (pfn->raw() << platform_.page_size.shift()));
}

SlabFault Slub::Kfree(VirtAddr address) {
  if (address.raw() <= kZeroSizePtr) return SlabFault::kNone;  // NULL and ZERO_SIZE_PTR.
  const SlabObjectView view = Locate(address);
  if (view.fault != SlabFault::kNone) return view.fault;
  if (view.object.slab == kNoSlab) {
    const int order = view.slab.order;
    CountPages(0, order, -1);
    large_pages_ -= uint64_t{1} << order;
    memory_.FreePages(view.slab.pfn, PageOrder(order));
    return SlabFault::kNone;
  }
  FreeObject(view.cache, view.object);
  return SlabFault::kNone;
}

SysResult<uint64_t> Slub::Ksize(VirtAddr address) const {
  if (address.raw() <= kZeroSizePtr) return uint64_t{0};
  const SlabObjectView view = Locate(address);
  if (view.fault != SlabFault::kNone) return Errno::kEFAULT;
  if (view.object.slab == kNoSlab) return platform_.page_size.bytes().raw() << view.slab.order;
  const SlabGeometry& g = CacheOf(view.cache).geometry;
  if ((g.flags & (kSlabRedZone | kSlabPoison)) != 0) return uint64_t{g.object_size};
  if ((g.flags & (kSlabTypesafeByRcu | kSlabStoreUser)) != 0) return uint64_t{g.inuse};
  return uint64_t{g.size};
}

SysResult<VirtAddr> Slub::Krealloc(VirtAddr address, uint64_t bytes, Gfp gfp) {
  if (bytes == 0) {
    if (Kfree(address) != SlabFault::kNone) return Errno::kEFAULT;
    return VirtAddr(kZeroSizePtr);
  }
  MMLAB_TRY_ASSIGN(const uint64_t usable, Ksize(address));
  if (usable >= bytes) return address;
  const std::optional<VirtAddr> moved = Kmalloc(bytes, gfp);
  if (!moved) return Errno::kENOMEM;
  Kfree(address);
  return *moved;
}

}  // namespace mmlab

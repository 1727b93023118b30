#include "server/kernel/slab_allocator.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "server/base/check.h"
#include "server/kernel/boot_caches.h"
#include "server/kernel/classic_slab.h"
#include "server/kernel/slob.h"
#include "server/kernel/slub.h"

namespace mmlab {
namespace {

constexpr uint32_t kMaxObjectSize = 1u << 22;  // Nothing larger fits a block of the page allocator.

constexpr size_t kMaxSlabinfoWrite = 128;  // MAX_SLABINFO_WRITE

}  // namespace

std::unique_ptr<SlabAllocator> SlabAllocator::Make(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer,
                                                   uint64_t seed) {
  switch (platform.allocator) {
    case SlabAllocatorKind::kSlub:
      return std::make_unique<Slub>(platform, linear_base, memory, tracer, seed);
    case SlabAllocatorKind::kSlab:
      return std::make_unique<ClassicSlab>(platform, linear_base, memory, tracer, seed);
    case SlabAllocatorKind::kSlob:
      break;
  }
  return std::make_unique<Slob>(platform, linear_base, memory, tracer);
}

SlabAllocator::SlabAllocator(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer)
    : platform_(platform), linear_base_(linear_base), memory_(memory), tracer_(tracer) {
  ForgetKmallocCaches();
}

void SlabAllocator::ForgetKmallocCaches() {
  for (auto& by_index : kmalloc_caches_) by_index.fill(-1);
}

// kmem_cache_init(), create_kmalloc_caches(). The ordinary kmalloc caches never merge, so that what is charged to a cgroup stays apart.
void SlabAllocator::MakeFirstCaches() {
  const bool slab = kind() == SlabAllocatorKind::kSlab;
  const bool small = platform_.word == 4;
  const SlabFlags arch_flags = slab ? kSlabHwcacheAlign : 0;  // ARCH_KMALLOC_FLAGS
  const auto make = [&](const std::string& name, uint32_t size, SlabFlags flags, uint32_t usersize, int refcount) {
    uint32_t align = platform_.kmalloc_align;
    if (std::has_single_bit(size)) align = std::max(align, size);
    align = SlabAlignment(platform_, flags, align, size);
    flags = WithDebugFlags(platform_, name, flags);
    return AddCache({name, size, align, flags, false, usersize}, GeometryOf(platform_, size, align, flags, false), refcount, true);
  };
  const auto make_kmalloc = [&](KmallocType type, int index) {
    constexpr SlabFlags kFlags[kKmallocTypes] = {0, kSlabAccount, kSlabReclaimAccount, kSlabCacheDma};
    int32_t& id = kmalloc_caches_[static_cast<size_t>(type)][static_cast<size_t>(index)];
    if (id >= 0) return;
    const uint32_t size = KmallocClassSize(index);
    id = static_cast<int32_t>(make(KmallocName(type, index), size, kFlags[static_cast<size_t>(type)] | arch_flags | kSlabKmalloc, size,
                                   type == KmallocType::kNormal ? -1 : 1));
  };
  if (slab) {
    make("kmem_cache", small ? 100 : 136, kSlabHwcacheAlign, 0, -1);
    make_kmalloc(KmallocType::kNormal, small ? 6 : 7);  // Where struct kmem_cache_node comes from.
  } else {
    make("kmem_cache", small ? 140 : 224, kSlabHwcacheAlign, 0, -1);
    make("kmem_cache_node", small ? 32 : 64, kSlabHwcacheAlign, 0, -1);
  }
  const int lowest = std::bit_width(platform_.kmalloc_min) - 1;
  const int highest = std::bit_width(KmallocMaxCacheSize(platform_)) - 1;
  for (int type = 0; type < kKmallocTypes; ++type) {
    for (int index = lowest; index <= highest; ++index) {
      make_kmalloc(static_cast<KmallocType>(type), index);
      if (index == 6 && platform_.kmalloc_min <= 32) make_kmalloc(static_cast<KmallocType>(type), 1);
      if (index == 7 && platform_.kmalloc_min <= 64) make_kmalloc(static_cast<KmallocType>(type), 2);
    }
  }
}

void SlabAllocator::AddBootCaches(LayoutKind layout) {
  for (const BootCache& cache : BootCachesOf(layout)) {
    const SlabFlags flags = WithDebugFlags(platform_, cache.name, cache.flags & SlabCreateMaskOf(kind()));
    SlabGeometry geometry = GeometryOf(platform_, cache.object_size, cache.align, flags, cache.constructor);
    const bool merged = kind() != SlabAllocatorKind::kSlob;
    if (merged) GrowMerged(cache.largest_size, geometry);
    AddCache({cache.name, cache.object_size, cache.align, flags, cache.constructor, cache.usersize}, geometry, merged ? cache.refcount : 1,
             true);
  }
}

void SlabAllocator::AddBootSlabs(absl::Span<const SlabinfoCounts> counts) {
  for (const SlabinfoCounts& one : counts) {
    const std::optional<SlabCacheId> id = Find(one.name);
    if (!id.has_value()) continue;
    CacheInfo& info = *InfoOf(static_cast<size_t>(*id));
    info.boot_slabs = one.slabs;
    info.boot_total_objects = one.total_objects;
    info.boot_active_objects = one.active_objects;
  }
}

bool SlabAllocator::InBootSlab(VirtAddr address) const {
  const Pfn pfn((address.raw() - linear_base_) >> platform_.page_size.shift());
  if (pfn >= memory_.end_pfn()) return false;
  const Frame frame = memory_.PeekFrame(pfn);
  return frame.state == FrameState::kSlab && frame.mapping == kBootSlabMapping;
}

void SlabAllocator::NoteKmallocCache(const std::string& name, SlabCacheId id) {
  for (int type = 0; type < kKmallocTypes; ++type) {
    for (int index = 1; index < 16; ++index) {
      if (name == KmallocName(static_cast<KmallocType>(type), index)) {
        kmalloc_caches_[static_cast<size_t>(type)][static_cast<size_t>(index)] = static_cast<int32_t>(id);
      }
    }
  }
}

void SlabAllocator::SetInfo(CacheInfo& info, const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount,
                            bool permanent) const {
  info.id = static_cast<uint32_t>(cache_slots());
  info.name = request.name;
  info.geometry = geometry;
  info.refcount = refcount;
  info.permanent = permanent;
  info.usersize = request.usersize;
  info.constructor = request.constructor;
}

SlabCacheView SlabAllocator::ViewOf(const CacheInfo& info) {
  SlabCacheView view;
  view.id = static_cast<SlabCacheId>(info.id);
  view.name = info.name;
  view.aliases = info.aliases;
  view.geometry = info.geometry;
  view.refcount = info.refcount;
  view.usersize = info.usersize;
  view.constructor = info.constructor;
  view.permanent = info.permanent;
  view.boot_slabs = info.boot_slabs;
  view.boot_total_objects = info.boot_total_objects;
  view.boot_active_objects = info.boot_active_objects;
  return view;
}

// find_mergeable(): the oldest cache whose objects are as large and aligned as needed, and hardly larger. SLOB has no use for it.
SlabAllocator::CacheInfo* SlabAllocator::FindMergeable(const SlabCacheRequest& request) {
  if (kind() == SlabAllocatorKind::kSlob || platform_.options.no_merge) return nullptr;
  if (request.constructor || request.usersize != 0 || (request.flags & kSlabNeverMerge) != 0) return nullptr;
  const uint32_t word = platform_.word;
  uint32_t size = (request.object_size + word - 1) / word * word;
  const uint32_t align = SlabAlignment(platform_, request.flags, request.align, size);
  size = (size + align - 1) / align * align;
  for (size_t i = 0; i < cache_slots(); ++i) {
    CacheInfo* cache = InfoOf(i);
    if (cache == nullptr || cache->constructor || cache->usersize != 0 || cache->refcount < 0) continue;
    const SlabGeometry& g = cache->geometry;
    if ((g.flags & kSlabNeverMerge) != 0 || (g.flags & kSlabMergeSame) != (request.flags & kSlabMergeSame)) continue;
    if (size > g.size || g.size % align != 0 || g.size - size >= word) continue;
    if (kind() == SlabAllocatorKind::kSlab && g.align % align != 0) continue;  // A slab's first object is aligned no better than this.
    return cache;
  }
  return nullptr;
}

// __kmem_cache_alias(): the objects of one more cache.
void SlabAllocator::GrowMerged(uint32_t object_size, SlabGeometry& geometry) const {
  geometry.object_size = std::max(geometry.object_size, object_size);
  geometry.inuse = std::max(geometry.inuse, (object_size + platform_.word - 1) / platform_.word * platform_.word);
}

SysResult<SlabCacheId> SlabAllocator::CreateCache(const SlabCacheRequest& asked) {
  SlabCacheRequest request = asked;
  if ((request.flags & ~kSlabPermitted) != 0) return Errno::kEINVAL;
  request.flags = WithDebugFlags(platform_, request.name, request.flags & SlabCreateMaskOf(kind()));
  if (request.object_size == 0 || request.object_size > kMaxObjectSize) return Errno::kEINVAL;
  if (request.align > kMaxObjectSize || (request.align != 0 && !std::has_single_bit(request.align))) return Errno::kEINVAL;
  if (request.usersize > request.object_size) request.usersize = 0;
  if (cache_slots() >= kMaxCaches) return Errno::kENOMEM;
  if (CacheInfo* cache = FindMergeable(request)) {
    ++cache->refcount;
    cache->aliases.push_back(request.name);
    GrowMerged(request.object_size, cache->geometry);
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kSlabCacheChoice, "an older cache serves such objects as well: merged")
          .Text("cache", cache->name)
          .Size("size", Bytes(cache->geometry.size));
    }
    return static_cast<SlabCacheId>(cache->id);
  }
  const uint32_t align = SlabAlignment(platform_, request.flags, request.align, request.object_size);
  const SlabGeometry geometry = GeometryOf(platform_, request.object_size, align, request.flags, request.constructor);
  if (geometry.size == 0) return Errno::kEINVAL;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kSlabCacheChoice, "no other cache serves such objects: a new one")
        .Size("size", Bytes(geometry.size))
        .Number("order", geometry.order)
        .Number("objects_per_slab", geometry.objects);
  }
  ++made_caches_;
  return AddCache(request, geometry, 1, false);
}

Errno SlabAllocator::DestroyCache(SlabCacheId id, absl::string_view name) {
  CacheInfo& cache = *InfoOf(static_cast<size_t>(id));
  if (cache.permanent && cache.refcount <= 1) return Errno::kEBUSY;
  if (cache.refcount > 1) {
    --cache.refcount;
    const auto alias = std::find(cache.aliases.begin(), cache.aliases.end(), name);
    if (alias != cache.aliases.end()) cache.aliases.erase(alias);
    return Errno::kOk;
  }
  const bool permanent = cache.permanent;
  if (!RemoveCache(id)) return Errno::kEBUSY;
  if (!permanent) --made_caches_;
  return Errno::kOk;
}

std::string SlabAllocator::RemainingReport(SlabCacheId id) const {
  return "kmem_cache_destroy " + InfoOf(static_cast<size_t>(id))->name + ": Slab cache still has objects\n";
}

bool SlabAllocator::AllocBulk(SlabCacheId id, Gfp gfp, absl::Span<SlabObject> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const std::optional<SlabObject> object = AllocObject(id, gfp);
    if (!object) {
      FreeBulk(id, out.first(i));
      return false;
    }
    out[i] = *object;
  }
  return true;
}

void SlabAllocator::FreeBulk(SlabCacheId id, absl::Span<const SlabObject> objects) {
  for (const SlabObject object : objects) FreeObject(id, object);
}

std::optional<SlabCacheId> SlabAllocator::KmallocCache(uint64_t bytes, Gfp gfp) const {
  if (bytes == 0 || bytes > KmallocMaxCacheSize(platform_)) return std::nullopt;
  const int32_t id = kmalloc_caches_[static_cast<size_t>(KmallocTypeOf(gfp))][static_cast<size_t>(KmallocIndex(platform_, bytes))];
  if (id < 0) return std::nullopt;
  return static_cast<SlabCacheId>(id);
}

std::optional<VirtAddr> SlabAllocator::Kmalloc(uint64_t bytes, Gfp gfp) {
  if (bytes == 0) return VirtAddr(kZeroSizePtr);
  const std::optional<SlabCacheId> cache = KmallocCache(bytes, gfp);
  if (!cache) return KmallocLarge(bytes, gfp);
  const std::optional<SlabObject> object = AllocObject(*cache, gfp);
  if (!object) return std::nullopt;
  return AddressOf(*object);
}

std::optional<VirtAddr> SlabAllocator::KmallocLarge(uint64_t bytes, Gfp gfp) {
  const int order = bytes > kMaxObjectSize ? kMaxOrder + 1 : OrderHolding(platform_.page_size, bytes);
  if (order > kMaxOrder) return std::nullopt;
  const std::optional<Pfn> pfn = TakePages(gfp | kGfpComp, order);
  if (!pfn) return std::nullopt;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kSlabCacheChoice, "larger than the largest class: whole pages of the page allocator")
        .Size("bytes", Bytes(bytes))
        .Number("order", order);
  }
  memory_.frame(*pfn).state = FrameState::kSlab;  // mapping stays 0: no slab of a cache.
  CountPages(0, order, 1);
  large_pages_ += uint64_t{1} << order;
  ++large_count_;
  return AddressOfPage(*pfn);
}

SlabFault SlabAllocator::Kfree(VirtAddr address) {
  if (address.raw() <= kZeroSizePtr) return SlabFault::kNone;  // NULL and ZERO_SIZE_PTR.
  const SlabObjectView view = Locate(address);
  if (view.fault != SlabFault::kNone) return view.fault;
  if (view.object.has_value()) {
    FreeObject(*view.cache, *view.object);
  } else {
    FreeLarge(view);
  }
  return SlabFault::kNone;
}

// GFP_SLAB_BUG_MASK: whoever asks for high memory here gets a warning and other memory, because an object has one address for all.
std::optional<Pfn> SlabAllocator::TakePages(Gfp gfp, int order) {
  if (Explanation* why = tracer_.explanation()) {
    for (const Zone& zone : memory_.zones()) {
      if (zone.type != ZoneType::kHighMem || !zone.populated()) continue;
      why->Add(StepKind::kSlabObject,
               "an object needs an address that always holds: ZONE_HIGHMEM, outside of the linear map, can't give one")
          .Pages("highmem_free", static_cast<int64_t>(zone.free_pages()));
    }
  }
  return memory_.AllocPages(gfp & ~(kGfpZoneHighmem | kGfpMovable), PageOrder(order));
}

void SlabAllocator::FreeLarge(const SlabObjectView& view) {
  const int order = view.slab.order;
  CountPages(0, order, -1);
  large_pages_ -= uint64_t{1} << order;
  --large_count_;
  memory_.FreePages(view.slab.pfn, PageOrder(order));
}

SysResult<VirtAddr> SlabAllocator::Krealloc(VirtAddr address, uint64_t bytes, Gfp gfp) {
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

std::optional<Pfn> SlabAllocator::SlabPageAt(VirtAddr address) const {
  const Pfn pfn((address.raw() - linear_base_) >> platform_.page_size.shift());
  if (pfn >= memory_.end_pfn()) return std::nullopt;
  const Pfn head = memory_.HeadOf(pfn);
  const Frame frame = memory_.PeekFrame(head);
  if (frame.state != FrameState::kSlab || frame.mapping == kBootSlabMapping) return std::nullopt;
  return head;
}

SlabObjectView SlabAllocator::LocateLarge(VirtAddr address, Pfn head, bool of_cache) const {
  SlabObjectView view;
  view.slab.pfn = head;
  view.slab.order = memory_.PeekFrame(head).order;
  view.start = AddressOfPage(head);
  view.fault = of_cache ? SlabFault::kNotSlab : view.start == address ? SlabFault::kNone : SlabFault::kNoObject;
  return view;
}

SlabUsage SlabAllocator::Usage() const {
  SlabUsage usage;
  for (const SlabCacheId id : Caches()) {
    const SlabCacheView cache = View(id);
    usage.objects += cache.allocated;
    usage.object_bytes += cache.allocated * cache.geometry.size;
  }
  AddLarge(usage);
  return usage;
}

void SlabAllocator::AddLarge(SlabUsage& usage) const {
  usage.objects += large_count_;
  usage.object_bytes += large_pages_ << platform_.page_size.shift();
  usage.pages = CountedPages();
}

void SlabAllocator::CountPages(SlabFlags flags, int order, int sign) {
  const bool reclaimable = (flags & kSlabReclaimAccount) != 0;
  memory_.vm_stat().Add(reclaimable ? NodeStat::kNrSlabReclaimable : NodeStat::kNrSlabUnreclaimable, sign * (int64_t{1} << order));
}

uint64_t SlabAllocator::CountedPages() const {
  const VmStat& stat = memory_.vm_stat();
  return static_cast<uint64_t>(stat.Get(NodeStat::kNrSlabReclaimable) + stat.Get(NodeStat::kNrSlabUnreclaimable)) -
         memory_.boot_slab_pages();
}

std::optional<SlabCacheId> SlabAllocator::Find(absl::string_view name) const {
  for (size_t i = 0; i < cache_slots(); ++i) {
    const CacheInfo* cache = InfoOf(i);
    if (cache == nullptr) continue;
    if (cache->name == name || std::find(cache->aliases.begin(), cache->aliases.end(), name) != cache->aliases.end()) {
      return static_cast<SlabCacheId>(i);
    }
  }
  return std::nullopt;
}

Errno SlabAllocator::WriteSlabinfo(absl::string_view line) {
  if (kind() == SlabAllocatorKind::kSlub) return Errno::kEIO;
  const size_t space = line.find(' ');
  if (line.size() > kMaxSlabinfoWrite || space == absl::string_view::npos) return Errno::kEINVAL;
  const std::vector<absl::string_view> words = absl::StrSplit(line.substr(space), absl::ByAnyChar(" \t\n"), absl::SkipEmpty());
  std::array<int32_t, 3> numbers{};
  if (words.size() < numbers.size()) return Errno::kEINVAL;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (!absl::SimpleAtoi(words[i], &numbers[i])) return Errno::kEINVAL;
  }
  const auto [limit, batchcount, shared] = numbers;
  const std::optional<SlabCacheId> id = Find(line.substr(0, space));
  if (!id || InfoOf(static_cast<size_t>(*id))->name != line.substr(0, space)) return Errno::kEINVAL;
  if (limit < 1 || batchcount < 1 || batchcount > limit || shared < 0) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kSystemCallCheck, "the batch is to be at least 1 and at most the limit, shared not negative: ignored");
    }
    return Errno::kOk;
  }
  return Tune(*id, static_cast<uint32_t>(limit), static_cast<uint32_t>(batchcount), static_cast<uint32_t>(shared));
}

std::vector<SlabCacheId> SlabAllocator::Caches() const {
  std::vector<SlabCacheId> ids;
  for (size_t i = 0; i < cache_slots(); ++i) {
    if (InfoOf(i) != nullptr) ids.push_back(static_cast<SlabCacheId>(i));
  }
  return ids;
}

}  // namespace mmlab

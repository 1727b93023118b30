// Reading: where objects and slabs are, and the proof that they are in one place each.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/kernel/classic_slab.h"
#include "server/kernel/slab_report.h"

namespace mmlab {

VirtAddr ClassicSlab::AddressOf(SlabObject object) const {
  const Slab& slab = slabs_[object.slab];
  return AddressOfPage(Pfn(slab.pfn)) + Bytes(slab.colour + uint64_t{object.index} * caches_[slab.cache]->geometry.size);
}

SlabObjectView ClassicSlab::Locate(VirtAddr address, std::optional<SlabCacheId> cache) const {
  const std::optional<Pfn> head = SlabPageAt(address);
  if (!head.has_value()) return {};
  const uint64_t mapping = memory_.PeekFrame(*head).mapping;
  if (mapping == 0) return LocateLarge(address, *head, cache.has_value());
  SlabObjectView view;
  const Slab& slab = slabs_[mapping - 1];
  const SlabGeometry& g = caches_[slab.cache]->geometry;
  view.cache = static_cast<SlabCacheId>(slab.cache);
  view.slab = ViewOf(slab);
  const uint64_t offset = (address - AddressOfPage(*head)).raw();
  const uint64_t index = offset < slab.colour ? 0 : (offset - slab.colour) / g.size;
  view.object = SlabObject{static_cast<uint32_t>(mapping - 1), static_cast<uint32_t>(std::min<uint64_t>(index, g.objects - 1u))};
  view.start = AddressOf(*view.object);
  if (cache.has_value() && *cache != *view.cache) {
    view.fault = SlabFault::kWrongCache;
  } else if (view.start != address) {
    view.fault = SlabFault::kNoObject;
  } else {
    view.fault = slab.held[view.object->index] == Held::kHeld ? SlabFault::kNone : SlabFault::kAlreadyFree;
  }
  return view;
}

SysResult<uint64_t> ClassicSlab::Ksize(VirtAddr address) const {
  if (address.raw() <= kZeroSizePtr) return uint64_t{0};
  const SlabObjectView view = Locate(address);
  if (view.fault != SlabFault::kNone) return Errno::kEFAULT;
  if (!view.object.has_value()) return platform_.page_size.bytes().raw() << view.slab.order;
  return uint64_t{CacheOf(*view.cache).geometry.object_size};
}

std::string ClassicSlab::FaultReport(VirtAddr address, const SlabObjectView& view) const {
  const int digits = static_cast<int>(2 * platform_.word);
  if (!view.cache.has_value()) {
    return absl::StrFormat("object pointer: 0x%0*x\nWARNING: free_large_kmalloc: not a slab object\n", digits, address.raw());
  }
  const std::string& name = CacheOf(*view.cache).name;
  switch (view.fault) {
    case SlabFault::kWrongCache:
      return absl::StrFormat("cache_from_obj: Wrong slab cache. The object is from %s\n", name);
    case SlabFault::kAlreadyFree:
      return absl::StrFormat("slab: double free detected in cache '%s', objp %0*x\n", name, digits, address.raw());
    default:
      return absl::StrFormat("BUG: objp %0*x is no start of an object of cache '%s'\n", digits, address.raw(), name);
  }
}

// check_poison_obj() and, for what is held, verify_redzone_free(), mm/slab.c.
std::string ClassicSlab::OverwriteReport(VirtAddr address, absl::string_view bytes, const SlabObjectView& view) const {
  constexpr size_t kLine = 16;
  constexpr int kMostLines = 5;
  const Slab& slab = slabs_[view.object->slab];
  const Cache& cache = *caches_[slab.cache];
  const int digits = static_cast<int>(2 * platform_.word);
  if (slab.held[view.object->index] == Held::kHeld) {
    return absl::StrFormat("slab error in verify_redzone_free(): cache `%s': memory outside object was overwritten\n%0*x: redzone\n",
                           cache.name, digits, view.start.raw());
  }
  std::string found(cache.geometry.object_size, static_cast<char>(kPoisonFree));
  found.back() = static_cast<char>(kPoisonEnd);
  const std::string expected = found;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint64_t at = address.raw() + i - view.start.raw();
    if (at < found.size()) found[at] = bytes[i];
  }
  if (found == expected) return "";
  std::string text = absl::StrFormat("Slab corruption (Not tainted): %s start=%0*x, len=%u\n", cache.name, digits, view.start.raw(),
                                     cache.geometry.object_size);
  int lines = 0;
  for (size_t at = 0; at < found.size() && lines < kMostLines; at += kLine) {
    if (found.compare(at, kLine, expected, at, kLine) == 0) continue;
    absl::StrAppendFormat(&text, "%03x: %s\n", static_cast<uint32_t>(at), HexLine(absl::string_view(found).substr(at, kLine)));
    ++lines;
  }
  return text;
}

SlabPageView ClassicSlab::ViewOf(const Slab& slab) const {
  constexpr SlabPlace kPlaces[kLists] = {SlabPlace::kFull, SlabPlace::kNodePartial, SlabPlace::kFree};
  const SlabGeometry& g = caches_[slab.cache]->geometry;
  SlabPageView view;
  view.pfn = Pfn(slab.pfn);
  view.order = g.order;
  view.place = kPlaces[slab.list];
  view.objects = g.objects;
  view.inuse = slab.active;
  view.allocated = static_cast<uint32_t>(std::count(&slab.held[0], &slab.held[0] + g.objects, Held::kHeld));
  return view;
}

std::vector<bool> ClassicSlab::AllocatedIn(SlabObject object) const {
  const Slab& slab = slabs_[object.slab];
  std::vector<bool> allocated(caches_[slab.cache]->geometry.objects);
  for (size_t i = 0; i < allocated.size(); ++i) allocated[i] = slab.held[i] == Held::kHeld;
  return allocated;
}

// get_slabinfo()
SlabCacheView ClassicSlab::View(SlabCacheId id) const {
  const Cache& cache = CacheOf(id);
  SlabCacheView view = SlabAllocator::ViewOf(cache);
  view.slabs = cache.slabs;
  view.active_slabs = cache.slabs - cache.lists[kFreeList].count;
  view.total_objects = cache.slabs * cache.geometry.objects;
  view.active_objects = view.total_objects - cache.free_objects;
  view.allocated = cache.allocated;
  view.node_partial = cache.lists[kPartialList].count;
  for (const ObjectArray& array : cache.cpus) view.array_objects += array.objects.size();
  view.shared_objects = cache.shared.objects.size();
  return view;
}

std::vector<SlabPageView> ClassicSlab::Slabs(SlabCacheId id) const {
  std::vector<SlabPageView> views;
  for (const Slab& slab : slabs_) {
    if (slab.free != nullptr && slab.cache == static_cast<uint32_t>(id)) views.push_back(ViewOf(slab));
  }
  return views;
}

uint64_t ClassicSlab::HostMemory() const {
  uint64_t bytes = sizeof(*this) + caches_.capacity() * sizeof(caches_[0]) + slabs_.capacity() * sizeof(Slab) + free_slots_.capacity() * 4;
  for (const auto& cache : caches_) {
    if (cache == nullptr) continue;
    bytes += sizeof(Cache) + cache->cpus.capacity() * sizeof(ObjectArray) + cache->shared.objects.capacity() * sizeof(SlabObject);
    for (const ObjectArray& array : cache->cpus) bytes += array.objects.capacity() * sizeof(SlabObject);
    if (cache->random_order != nullptr) bytes += cache->geometry.objects;
    bytes += 2 * cache->slabs * cache->geometry.objects;
  }
  return bytes;
}

void ClassicSlab::AddToHash(StateHasher& hasher) const {
  hasher.Add(random_.state());
  hasher.Add(large_pages_);
  hasher.Add(reaps_);
  const auto add_array = [&](const ObjectArray& array) {
    hasher.Add(array.objects.size() << 1 | (array.touched ? 1 : 0));
    for (const SlabObject object : array.objects) hasher.Add(uint64_t{object.slab} << 32 | object.index);
  };
  for (const auto& cache : caches_) {
    hasher.Add(cache == nullptr ? 0 : 1);
    if (cache == nullptr) continue;
    hasher.AddBytes(cache->name.data(), cache->name.size());
    for (const std::string& alias : cache->aliases) hasher.AddBytes(alias.data(), alias.size());
    for (const uint64_t value :
         {uint64_t{cache->geometry.size}, uint64_t{cache->geometry.object_size}, uint64_t{cache->geometry.flags},
          uint64_t{cache->geometry.limit}, uint64_t{cache->geometry.batchcount}, uint64_t{cache->geometry.shared},
          static_cast<uint64_t>(cache->refcount), uint64_t{cache->colour_next}, cache->free_objects, uint64_t{cache->free_touched}}) {
      hasher.Add(value);
    }
    for (const SlabList& list : cache->lists) hasher.Add(list.head);
    for (const ObjectArray& array : cache->cpus) add_array(array);
    add_array(cache->shared);
  }
  for (const Slab& slab : slabs_) {
    hasher.Add(uint64_t{slab.pfn} << 32 | slab.next);
    if (slab.free == nullptr) continue;
    const uint32_t objects = caches_[slab.cache]->geometry.objects;
    hasher.Add(uint64_t{slab.colour} << 32 | slab.active);
    hasher.AddBytes(reinterpret_cast<const char*>(&slab.free[0]), objects);
    hasher.AddBytes(reinterpret_cast<const char*>(&slab.held[0]), objects);
  }
  for (const uint32_t slot : free_slots_) hasher.Add(slot);
}

void ClassicSlab::CheckInvariants(std::vector<std::string>* problems) const {
  const auto complain = [&](auto&&... parts) { problems->push_back(absl::StrCat("slab: ", parts...)); };
  uint64_t pages = large_pages_;
  std::vector<int> listed(slabs_.size());
  for (const auto& cache : caches_) {
    if (cache == nullptr) continue;
    const SlabGeometry& g = cache->geometry;
    uint64_t slabs = 0, held = 0, in_slabs = 0, in_arrays = cache->shared.objects.size();
    for (const ObjectArray& array : cache->cpus) {
      in_arrays += array.objects.size();
      if (array.objects.size() > g.limit) complain(cache->name, ": an array holds ", array.objects.size(), " objects, at most ", g.limit);
      for (const SlabObject object : array.objects) {
        if (slabs_[object.slab].held[object.index] != Held::kInArray) complain(cache->name, ": an object of an array is somewhere else");
      }
    }
    uint64_t marked_in_array = 0;
    for (int list = 0; list < kLists; ++list) {
      uint32_t count = 0;
      for (uint32_t at = cache->lists[static_cast<size_t>(list)].head; at != kNoSlab; at = slabs_[at].next, ++count) {
        const Slab& slab = slabs_[at];
        if (++listed[at] > 1) complain("slab ", at, " is on two lists");
        const List right = slab.active == g.objects ? kFullList : slab.active == 0 ? kFreeList : kPartialList;
        if (slab.cache != cache->id || slab.list != list || right != list) complain("slab ", at, " is on a list where it does not belong");
        std::vector<bool> seen(g.objects);
        for (uint32_t rank = slab.active; rank < g.objects; ++rank) {
          if (slab.held[slab.free[rank]] != Held::kInSlab || seen[slab.free[rank]]) complain("slab ", at, ": free list");
          seen[slab.free[rank]] = true;
        }
        const SlabPageView view = ViewOf(slab);
        held += view.allocated;
        marked_in_array += slab.active - view.allocated;
        in_slabs += g.objects - slab.active;
        const Frame frame = memory_.PeekFrame(view.pfn);
        if (frame.state != FrameState::kSlab || frame.mapping != at + 1 || frame.order != g.order)
          complain("slab ", at, ": its pages are not its own");
        if (slab.colour + uint64_t{g.objects} * g.size > platform_.page_size.bytes().raw() << g.order)
          complain("slab ", at, ": its objects leave it");
      }
      if (count != cache->lists[static_cast<size_t>(list)].count) complain(cache->name, ": count of a list");
      slabs += count;
    }
    if (slabs != cache->slabs || held != cache->allocated || in_slabs != cache->free_objects || in_arrays != marked_in_array) {
      complain(cache->name, ": counts ", cache->slabs, " slabs, ", cache->allocated, " held, ", cache->free_objects, " free, ", in_arrays,
               " in arrays; there are ", slabs, ", ", held, ", ", in_slabs, ", ", marked_in_array);
    }
    pages += slabs << g.order;
  }
  for (size_t at = 0; at < slabs_.size(); ++at) {
    if ((slabs_[at].free != nullptr) != (listed[at] == 1)) complain("slab ", at, " is on no list");
  }
  if (CountedPages() != pages) complain("nr_slab_* say ", CountedPages(), " pages, there are ", pages);
}

}  // namespace mmlab

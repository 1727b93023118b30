// Reading: where objects and slabs are, and the proof that they are in one place each.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/kernel/slub.h"

namespace mmlab {

VirtAddr Slub::AddressOf(SlabObject object) const {
  const Slab& slab = slabs_[object.slab];
  const SlabGeometry& g = caches_[slab.cache]->geometry;
  return VirtAddr(linear_base_ + (uint64_t{slab.pfn} << platform_.page_size.shift()) + g.red_left_pad + uint64_t{object.index} * g.size);
}

SlabObjectView Slub::Locate(VirtAddr address, std::optional<SlabCacheId> cache) const {
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
  const auto index = static_cast<uint32_t>(std::min<uint64_t>(offset / g.size, slab.objects - 1u));
  view.object = SlabObject{static_cast<uint32_t>(mapping - 1), index};
  view.start = AddressOf(*view.object);
  if (cache.has_value() && *cache != *view.cache) {
    view.fault = SlabFault::kWrongCache;
  } else if (view.start != address) {
    view.fault = SlabFault::kNoObject;
  } else {
    view.fault = slab.links[index] == kAllocated ? SlabFault::kNone : SlabFault::kAlreadyFree;
  }
  return view;
}

SlabPageView Slub::ViewOf(const Slab& slab) const {
  SlabPageView view;
  view.pfn = Pfn(slab.pfn);
  view.order = slab.order;
  view.place = slab.place;
  view.cpu = slab.place == SlabPlace::kCpu || slab.place == SlabPlace::kCpuPartial ? slab.cpu : -1;
  view.objects = slab.objects;
  view.inuse = slab.inuse;
  view.allocated = static_cast<uint32_t>(std::count(&slab.links[0], &slab.links[0] + slab.objects, kAllocated));
  return view;
}

SlabPageView Slub::SlabOf(SlabObject object) const { return ViewOf(slabs_[object.slab]); }

std::vector<SlabPageView> Slub::CpuPartial(SlabCacheId id) const {
  std::vector<SlabPageView> views;
  const CpuSlab& cpu = CacheOf(id).cpus[static_cast<size_t>(memory_.current_cpu())];
  for (uint32_t at = cpu.partial; at != kNoSlab; at = slabs_[at].next) views.push_back(ViewOf(slabs_[at]));
  return views;
}

std::vector<SlabPageView> Slub::NodePartial(SlabCacheId id) const {
  std::vector<SlabPageView> views;
  for (uint32_t at = CacheOf(id).partial_head; at != kNoSlab; at = slabs_[at].next) views.push_back(ViewOf(slabs_[at]));
  return views;
}

std::vector<bool> Slub::AllocatedIn(SlabObject object) const {
  const Slab& slab = slabs_[object.slab];
  std::vector<bool> allocated(slab.objects);
  for (uint32_t i = 0; i < slab.objects; ++i) allocated[i] = slab.links[i] == kAllocated;
  return allocated;
}

Slub::CpuView Slub::Cpu(SlabCacheId id) const {
  const CpuSlab& cpu = CacheOf(id).cpus[static_cast<size_t>(memory_.current_cpu())];
  CpuView view;
  if (cpu.slab != kNoSlab) {
    view.slab = Pfn(slabs_[cpu.slab].pfn);
    view.free_on_cpu = CountFree(slabs_[cpu.slab], cpu.freelist);
    view.free_on_slab = CountFree(slabs_[cpu.slab], slabs_[cpu.slab].freelist);
  }
  if (cpu.partial != kNoSlab) view.partial_slabs = slabs_[cpu.partial].slabs_behind;
  return view;
}

SlabCacheView Slub::View(SlabCacheId id) const {
  const Cache& cache = CacheOf(id);
  SlabCacheView view = SlabAllocator::ViewOf(cache);
  view.slabs = view.active_slabs = cache.slabs;
  view.total_objects = view.active_objects = cache.total_objects;
  view.allocated = cache.allocated;
  view.node_partial = cache.nr_partial;
  for (uint32_t at = cache.partial_head; at != kNoSlab; at = slabs_[at].next) view.active_objects -= slabs_[at].objects - slabs_[at].inuse;
  for (const CpuSlab& cpu : cache.cpus) view.cpu_partial_slabs += cpu.partial == kNoSlab ? 0 : slabs_[cpu.partial].slabs_behind;
  return view;
}

std::vector<SlabPageView> Slub::Slabs(SlabCacheId id) const {
  std::vector<SlabPageView> views;
  for (const Slab& slab : slabs_) {
    if (slab.place != SlabPlace::kNowhere && slab.cache == static_cast<uint32_t>(id)) views.push_back(ViewOf(slab));
  }
  return views;
}

uint64_t Slub::HostMemory() const {
  uint64_t bytes = sizeof(*this) + caches_.capacity() * sizeof(caches_[0]) + slabs_.capacity() * sizeof(Slab) + free_slots_.capacity() * 4;
  for (const auto& cache : caches_) {
    if (cache == nullptr) continue;
    bytes += sizeof(Cache) + cache->cpus.capacity() * sizeof(CpuSlab) +
             (cache->random_order != nullptr ? uint64_t{2} * cache->geometry.objects : 0);
  }
  for (const Slab& slab : slabs_) bytes += uint64_t{2} * slab.objects;
  return bytes;
}

void Slub::AddToHash(StateHasher& hasher) const {
  hasher.Add(random_.state());
  hasher.Add(large_pages_);
  for (const auto& cache : caches_) {
    hasher.Add(cache == nullptr ? 0 : 1);
    if (cache == nullptr) continue;
    hasher.AddBytes(cache->name.data(), cache->name.size());
    for (const std::string& alias : cache->aliases) hasher.AddBytes(alias.data(), alias.size());
    for (const uint64_t value : {uint64_t{cache->geometry.size}, uint64_t{cache->geometry.object_size}, uint64_t{cache->geometry.flags},
                                 static_cast<uint64_t>(cache->refcount), uint64_t{cache->partial_head}, uint64_t{cache->nr_partial}}) {
      hasher.Add(value);
    }
    for (const CpuSlab& cpu : cache->cpus) {
      hasher.Add(cpu.slab);
      hasher.Add(cpu.partial);
      hasher.Add(cpu.freelist);
    }
  }
  for (const Slab& slab : slabs_) {
    hasher.Add(uint64_t{slab.pfn} << 16 | slab.freelist);
    hasher.Add(uint64_t{slab.next} << 32 | slab.cache);
    if (slab.links != nullptr) hasher.AddBytes(&slab.links[0], size_t{2} * slab.objects);
  }
  for (const uint32_t slot : free_slots_) hasher.Add(slot);
}

void Slub::CheckInvariants(std::vector<std::string>* problems) const {
  const auto complain = [&](auto&&... parts) { problems->push_back(absl::StrCat("slub: ", parts...)); };
  uint64_t pages = large_pages_;
  std::vector<uint64_t> slabs_of(caches_.size()), allocated_of(caches_.size()), objects_of(caches_.size());
  std::vector<SlabPlace> expected(slabs_.size(), SlabPlace::kNowhere);
  std::vector<uint16_t> cpu_list(slabs_.size(), kEnd);
  const auto stands = [&](uint32_t at, SlabPlace place, size_t cache) {
    if (expected[at] != SlabPlace::kNowhere) complain("slab ", at, " is on two lists");
    if (slabs_[at].cache != cache) complain("slab ", at, " is on a list of another cache");
    expected[at] = place;
  };
  for (size_t i = 0; i < caches_.size(); ++i) {
    const Cache* cache = caches_[i].get();
    if (cache == nullptr) continue;
    uint32_t partial = 0;
    for (uint32_t at = cache->partial_head; at != kNoSlab; at = slabs_[at].next, ++partial) stands(at, SlabPlace::kNodePartial, i);
    if (partial != cache->nr_partial) complain(cache->name, ": nr_partial ", cache->nr_partial, ", on the list ", partial);
    for (const CpuSlab& cpu : cache->cpus) {
      if (cpu.slab != kNoSlab) {
        stands(cpu.slab, SlabPlace::kCpu, i);
        cpu_list[cpu.slab] = cpu.freelist;
      }
      uint16_t behind = cpu.partial == kNoSlab ? 0 : slabs_[cpu.partial].slabs_behind;
      for (uint32_t at = cpu.partial; at != kNoSlab; at = slabs_[at].next) {
        stands(at, SlabPlace::kCpuPartial, i);
        if (slabs_[at].slabs_behind != behind--) complain(cache->name, ": count on a CPU's partial list");
      }
    }
  }
  for (size_t at = 0; at < slabs_.size(); ++at) {
    const Slab& slab = slabs_[at];
    if (slab.links == nullptr) continue;
    const bool full = expected[at] == SlabPlace::kNowhere;
    if (slab.place != (full ? SlabPlace::kFull : expected[at])) complain("slab ", at, " is not where it says");
    if (slab.frozen != (slab.place == SlabPlace::kCpu || slab.place == SlabPlace::kCpuPartial)) complain("slab ", at, ": frozen is wrong");
    const uint32_t own = CountFree(slab, slab.freelist);
    const uint32_t on_cpu = CountFree(slab, cpu_list[at]);
    const uint32_t allocated = ViewOf(slab).allocated;
    if (full && own != 0) complain("slab ", at, " is on no list but has free objects");
    if (own + slab.inuse != slab.objects) complain("slab ", at, ": inuse ", slab.inuse, ", free ", own, " of ", slab.objects);
    if (own + on_cpu + allocated != slab.objects) complain("slab ", at, ": objects are lost");
    const Frame frame = memory_.PeekFrame(Pfn(slab.pfn));
    if (frame.state != FrameState::kSlab || frame.mapping != at + 1 || frame.order != slab.order)
      complain("slab ", at, ": its pages are not its own");
    ++slabs_of[slab.cache];
    allocated_of[slab.cache] += allocated;
    objects_of[slab.cache] += slab.objects;
    pages += uint64_t{1} << slab.order;
  }
  for (size_t i = 0; i < caches_.size(); ++i) {
    const Cache* cache = caches_[i].get();
    if (cache == nullptr) continue;
    if (cache->slabs != slabs_of[i] || cache->allocated != allocated_of[i] || cache->total_objects != objects_of[i]) {
      complain(cache->name, ": counts ", cache->slabs, " slabs, ", cache->allocated, " of ", cache->total_objects, " objects; there are ",
               slabs_of[i], ", ", allocated_of[i], ", ", objects_of[i]);
    }
  }
  if (CountedPages() != pages) complain("nr_slab_* say ", CountedPages(), " pages, there are ", pages);
}

}  // namespace mmlab

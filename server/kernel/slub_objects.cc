// The way of an object: from a slab to its user and back. Linux: ___slab_alloc(), __slab_free() and what they call, mm/slub.c.

#include <bit>
#include <utility>

#include "server/base/check.h"
#include "server/kernel/slub.h"

namespace mmlab {
namespace {

// GCC 12 puts the parts of a std::optional together in memory, in widths that stall whoever reads them back; not so in this shape, alone.
[[gnu::noinline]] std::optional<SlabObject> Given(uint32_t slab, uint16_t index) {
  std::optional<SlabObject> given;
  static_assert(std::endian::native == std::endian::little);
  given.emplace(std::bit_cast<SlabObject>(uint64_t{index} << 32 | slab));
  return given;
}

}  // namespace

std::optional<SlabObject> Slub::AllocObject(SlabCacheId id, Gfp gfp) {
  Cache& cache = CacheOf(id);
  CpuSlab& cpu = cache.cpus[static_cast<size_t>(memory_.current_cpu())];
  if (cpu.freelist == kEnd || tracer_.explanation() != nullptr) [[unlikely]]
    return AllocSlow(cache, cpu, gfp);
  ++cache.allocated;
  const uint16_t index = TakeFromCpu(cpu);
  return Given(cpu.slab, index);
}

std::optional<SlabObject> Slub::AllocSlow(Cache& cache, CpuSlab& cpu, Gfp gfp) {
  if (cache.geometry.debug()) return AllocChecked(cache, gfp);
  if (cpu.freelist == kEnd && !RefillCpu(cache, cpu, gfp)) return std::nullopt;
  Explain("an object of the slab that belongs to this CPU", cache, slabs_[cpu.slab]);
  ++cache.allocated;
  const uint16_t index = TakeFromCpu(cpu);
  return SlabObject{cpu.slab, index};
}

// Gives the CPU a slab with free objects: what others freed into its slab, then its partial list, then the node's, then new pages.
bool Slub::RefillCpu(Cache& cache, CpuSlab& cpu, Gfp gfp) {
  while (true) {
    if (cpu.slab == kNoSlab) {
      if (cpu.partial == kNoSlab) break;
      cpu.slab = cpu.partial;
      cpu.partial = slabs_[cpu.slab].next;
      slabs_[cpu.slab].next = kNoSlab;
      slabs_[cpu.slab].place = SlabPlace::kCpu;
      Explain("the CPU's slab is used up: the first of the CPU's partial list", cache, slabs_[cpu.slab]);
    }
    Slab& slab = slabs_[cpu.slab];
    cpu.freelist = std::exchange(slab.freelist, kEnd);
    slab.inuse = slab.objects;
    if (cpu.freelist != kEnd) return true;
    slab.frozen = false;
    slab.place = SlabPlace::kFull;
    cpu.slab = kNoSlab;
  }
  if (TakeNodePartial(cache, cpu)) return true;
  const uint32_t fresh = NewSlab(cache, gfp);
  if (fresh == kNoSlab) return false;
  Slab& slab = slabs_[fresh];
  slab.inuse = slab.objects;
  slab.frozen = true;
  slab.place = SlabPlace::kCpu;
  slab.cpu = static_cast<uint8_t>(memory_.current_cpu());
  cpu.slab = fresh;
  cpu.freelist = std::exchange(slab.freelist, kEnd);
  Explain("no slab has a free object: a new one", cache, slab);
  return true;
}

// get_partial_node(): the first slab of the node's list becomes the CPU's, and some more go to its partial list.
bool Slub::TakeNodePartial(Cache& cache, CpuSlab& cpu) {
  uint32_t moved = 0;
  while (cache.partial_head != kNoSlab) {
    const uint32_t at = cache.partial_head;
    Slab& slab = slabs_[at];
    RemovePartial(cache, at);
    slab.frozen = true;
    slab.cpu = static_cast<uint8_t>(memory_.current_cpu());
    if (cpu.slab == kNoSlab) {
      slab.place = SlabPlace::kCpu;
      slab.inuse = slab.objects;
      cpu.slab = at;
      cpu.freelist = std::exchange(slab.freelist, kEnd);
      Explain("the CPU has no slab with free objects: the first of the node's partial list", cache, slab);
    } else {
      PutCpuPartial(cache, at, false);
      ++moved;
    }
    if (moved > cache.geometry.cpu_partial_slabs / 2) break;
  }
  return cpu.slab != kNoSlab;
}

// A cache with debug flags: no CPU keeps a slab, each object comes from the node's list and passes the checks.
std::optional<SlabObject> Slub::AllocChecked(Cache& cache, Gfp gfp) {
  uint32_t at = cache.partial_head;
  if (at == kNoSlab) {
    at = NewSlab(cache, gfp);
    if (at == kNoSlab) return std::nullopt;
    AddPartial(cache, at, false);
    Explain("no slab has a free object: a new one", cache, slabs_[at]);
  } else {
    Explain("checked caches have no slabs of CPUs: the first of the node's partial list", cache, slabs_[at]);
  }
  Slab& slab = slabs_[at];
  const uint16_t index = slab.freelist;
  slab.freelist = std::exchange(slab.links[index], kAllocated);
  ++slab.inuse;
  if (slab.inuse == slab.objects) {
    RemovePartial(cache, at);
    slab.place = SlabPlace::kFull;
  }
  ++cache.allocated;
  return SlabObject{at, index};
}

void Slub::FreeSlow(Cache& cache, SlabObject object) {
  const auto index = static_cast<uint16_t>(object.index);
  MMLAB_CHECK(object.slab < slabs_.size() && index < slabs_[object.slab].objects && slabs_[object.slab].links[index] == kAllocated &&
              slabs_[object.slab].cache == cache.id);
  FreeRun(cache, object.slab, index, index, 1);
}

// Objects of one slab, linked from head to tail, each still marked as allocated but for its link.
void Slub::FreeRun(Cache& cache, uint32_t slab, uint16_t head, uint16_t tail, uint16_t count) {
  cache.allocated -= count;
  CpuSlab& cpu = cache.cpus[static_cast<size_t>(memory_.current_cpu())];
  if (slab == cpu.slab) [[likely]] {
    slabs_[slab].links[tail] = cpu.freelist;
    cpu.freelist = head;
    if (tracer_.explanation() != nullptr) Explain("freed to the slab that belongs to this CPU", cache, slabs_[slab]);
    return;
  }
  if (cache.geometry.debug()) {
    FreeChecked(cache, slab, head, tail, count);
  } else {
    FreeToOtherSlab(cache, slab, head, tail, count);
  }
}

void Slub::FreeToOtherSlab(Cache& cache, uint32_t at, uint16_t head, uint16_t tail, uint16_t count) {
  Slab& slab = slabs_[at];
  const bool was_full = slab.freelist == kEnd;
  slab.links[tail] = slab.freelist;
  slab.freelist = head;
  slab.inuse = static_cast<uint16_t>(slab.inuse - count);
  if (slab.frozen) {
    Explain("freed to a slab that belongs to a CPU", cache, slab);
    return;
  }
  if (was_full) {
    Explain("the slab was full and on no list: it goes to this CPU's partial list", cache, slab);
    slab.frozen = true;
    PutCpuPartial(cache, at, true);
    return;
  }
  if (slab.inuse == 0 && cache.nr_partial >= cache.geometry.min_partial) {
    Explain("the slab is empty and the node has enough partial slabs: its pages are freed", cache, slab);
    RemovePartial(cache, at);
    DiscardSlab(cache, at);
    return;
  }
  Explain("freed to a slab on the node's partial list, which stays there", cache, slab);
}

// free_to_partial_list()
void Slub::FreeChecked(Cache& cache, uint32_t at, uint16_t head, uint16_t tail, uint16_t count) {
  Slab& slab = slabs_[at];
  const bool was_full = slab.freelist == kEnd;
  slab.links[tail] = slab.freelist;
  slab.freelist = head;
  slab.inuse = static_cast<uint16_t>(slab.inuse - count);
  const bool discard = slab.inuse == 0 && cache.nr_partial >= cache.geometry.min_partial;
  if (was_full && !discard) AddPartial(cache, at, true);
  if (!was_full && discard) RemovePartial(cache, at);
  Explain(discard ? "the slab is empty and the node has enough partial slabs: its pages are freed" : "freed to the node's partial list",
          cache, slab);
  if (discard) DiscardSlab(cache, at);
}

// With `drain`, a list that is full goes to the node as a whole first.
void Slub::PutCpuPartial(Cache& cache, uint32_t at, bool drain) {
  CpuSlab& cpu = cache.cpus[static_cast<size_t>(memory_.current_cpu())];
  uint32_t unfreeze = kNoSlab;
  if (drain && cpu.partial != kNoSlab && slabs_[cpu.partial].slabs_behind >= cache.geometry.cpu_partial_slabs) {
    unfreeze = std::exchange(cpu.partial, kNoSlab);
  }
  Slab& slab = slabs_[at];
  slab.slabs_behind = static_cast<uint16_t>(cpu.partial == kNoSlab ? 1 : slabs_[cpu.partial].slabs_behind + 1);
  slab.next = cpu.partial;
  slab.place = SlabPlace::kCpuPartial;
  slab.cpu = static_cast<uint8_t>(memory_.current_cpu());
  cpu.partial = at;
  if (unfreeze != kNoSlab) {
    Explain("the CPU's partial list was full: what was on it goes to the node's", cache, slabs_[unfreeze]);
    UnfreezePartials(cache, unfreeze);
  }
}

// A CPU's partial list, from `first` on, goes to the node: with objects to the tail of its list; without, only as many as it keeps.
void Slub::UnfreezePartials(Cache& cache, uint32_t first) {
  uint32_t discard = kNoSlab;
  while (first != kNoSlab) {
    const uint32_t at = first;
    Slab& slab = slabs_[at];
    first = slab.next;
    slab.frozen = false;
    if (slab.inuse == 0 && cache.nr_partial >= cache.geometry.min_partial) {
      slab.next = discard;
      discard = at;
    } else {
      AddPartial(cache, at, true);
    }
  }
  while (discard != kNoSlab) {
    const uint32_t at = discard;
    discard = slabs_[at].next;
    DiscardSlab(cache, at);
  }
}

// A CPU lets go of its slab: the objects of the CPU's list come before those of the slab's own.
void Slub::Deactivate(Cache& cache, uint32_t at, uint16_t freelist) {
  Slab& slab = slabs_[at];
  const bool to_tail = slab.freelist != kEnd;
  if (freelist != kEnd) {
    uint16_t count = 1;
    uint16_t last = freelist;
    for (; slab.links[last] != kEnd; last = slab.links[last]) ++count;
    slab.links[last] = slab.freelist;
    slab.freelist = freelist;
    slab.inuse = static_cast<uint16_t>(slab.inuse - count);
  }
  slab.frozen = false;
  if (slab.inuse == 0 && cache.nr_partial >= cache.geometry.min_partial) {
    DiscardSlab(cache, at);
  } else if (slab.freelist != kEnd) {
    AddPartial(cache, at, to_tail);
  } else {
    slab.place = SlabPlace::kFull;
  }
}

void Slub::FlushCpus(Cache& cache) {
  for (CpuSlab& cpu : cache.cpus) {
    if (cpu.slab != kNoSlab) {
      const uint32_t slab = std::exchange(cpu.slab, kNoSlab);
      Deactivate(cache, slab, std::exchange(cpu.freelist, kEnd));
    }
    UnfreezePartials(cache, std::exchange(cpu.partial, kNoSlab));
  }
}

// build_detached_freelist(): takes the last object and, looking past at most two of other slabs in a row, those of the same slab before it.
void Slub::FreeBulk(SlabCacheId id, absl::Span<const SlabObject> objects) {
  Cache& cache = CacheOf(id);
  std::vector<SlabObject> left(objects.begin(), objects.end());
  size_t size = left.size();
  while (size > 0) {
    const SlabObject tail = left[--size];
    uint16_t* links = slabs_[tail.slab].links.get();
    MMLAB_CHECK(slabs_[tail.slab].cache == static_cast<uint32_t>(id) && links[tail.index] == kAllocated);
    auto head = static_cast<uint16_t>(tail.index);
    uint16_t count = 1;
    links[head] = kEnd;
    size_t same = size;
    int lookahead = 3;
    for (size_t at = size; at > 0;) {
      const SlabObject object = left[--at];
      if (object.slab == tail.slab) {
        MMLAB_CHECK(links[object.index] == kAllocated);
        links[object.index] = head;
        head = static_cast<uint16_t>(object.index);
        ++count;
        --same;
        if (at != same) std::swap(left[at], left[same]);
      } else if (--lookahead == 0) {
        break;
      }
    }
    size = same;
    FreeRun(cache, tail.slab, head, static_cast<uint16_t>(tail.index), count);
  }
}

}  // namespace mmlab

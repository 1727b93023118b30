// Reading: where blocks and pages are, and the proof that they fit together.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/kernel/slob.h"

namespace mmlab {

// What the holder has; for kmalloc() that is behind the header.
VirtAddr Slob::StartOf(const Page& page, const Block& block) const {
  return AddressOfPage(Pfn(page.pfn)) + Bytes(uint64_t{block.start} * kSlobUnit + (block.owner == kKmalloc ? Header() : 0));
}

VirtAddr Slob::AddressOf(SlabObject object) const {
  const Page& page = pages_[object.slab];
  return StartOf(page, page.blocks[BlockAt(page, object.index)]);
}

SlabObjectView Slob::Locate(VirtAddr address, std::optional<SlabCacheId> cache) const {
  const std::optional<Pfn> head = SlabPageAt(address);
  if (!head.has_value()) return {};
  const uint64_t mapping = memory_.PeekFrame(*head).mapping;
  if (mapping == 0) return LocateLarge(address, *head, cache.has_value());
  SlabObjectView view;
  const Page& page = pages_[mapping - 1];
  const auto unit = static_cast<uint32_t>((address - AddressOfPage(*head)).raw() / kSlobUnit);
  const Block& block = page.blocks[page.whole ? 0 : BlockAt(page, unit)];
  view.object = SlabObject{static_cast<uint32_t>(mapping - 1), block.start};
  if (block.owner >= 0 && Has(static_cast<SlabCacheId>(block.owner))) view.cache = static_cast<SlabCacheId>(block.owner);
  view.slab = ViewOf(page);
  view.start = StartOf(page, block);
  if (block.owner == kFreeBlock) {
    view.fault = SlabFault::kAlreadyFree;
  } else if (cache.has_value() && view.cache != cache) {
    view.fault = SlabFault::kWrongCache;
  } else {
    view.fault = view.start == address ? SlabFault::kNone : SlabFault::kNoObject;
  }
  return view;
}

// __ksize() of kmalloc()'s blocks; of a cache's objects, for which the kernel has no answer, their size.
SysResult<uint64_t> Slob::Ksize(VirtAddr address) const {
  if (address.raw() <= kZeroSizePtr) return uint64_t{0};
  const SlabObjectView view = Locate(address);
  if (view.fault != SlabFault::kNone) return Errno::kEFAULT;
  if (!view.object.has_value()) return platform_.page_size.bytes().raw() << view.slab.order;
  const Page& page = pages_[view.object->slab];
  const Block& block = page.blocks[page.whole ? 0 : BlockAt(page, view.object->index)];
  return uint64_t{(block.bytes + kSlobUnit - 1) / kSlobUnit} * kSlobUnit;
}

std::string Slob::FaultReport(VirtAddr address, const SlabObjectView& view) const {
  const char* what = "is not in a page of the allocator";
  if (view.fault == SlabFault::kAlreadyFree) what = "is in a free block";
  if (view.fault == SlabFault::kNoObject) what = "is inside a block";
  if (view.fault == SlabFault::kWrongCache) what = "is a block of somebody else";
  return absl::StrFormat("SLOB checks nothing: the kernel would have damaged its lists\n0x%0*x %s\n", static_cast<int>(2 * platform_.word),
                         address.raw(), what);
}

std::string Slob::OverwriteReport(VirtAddr address, absl::string_view bytes, const SlabObjectView&) const {
  return absl::StrFormat("SLOB checks nothing: %u bytes at 0x%0*x would have damaged what somebody else has, or its lists\n",
                         static_cast<uint32_t>(bytes.size()), static_cast<int>(2 * platform_.word), address.raw());
}

SlabPageView Slob::ViewOf(const Page& page) const {
  constexpr SlabPlace kPlaces[kLists] = {SlabPlace::kSmall, SlabPlace::kMedium, SlabPlace::kLarge};
  SlabPageView view;
  view.pfn = Pfn(page.pfn);
  view.order = page.order;
  view.place = page.list == kNoList ? SlabPlace::kFull : kPlaces[page.list];
  view.objects = static_cast<uint32_t>(page.blocks.size());
  view.allocated = static_cast<uint32_t>(
      std::count_if(page.blocks.begin(), page.blocks.end(), [](const Block& block) { return block.owner != kFreeBlock; }));
  view.inuse = view.allocated;
  return view;
}

std::vector<bool> Slob::AllocatedIn(SlabObject object) const {
  std::vector<bool> allocated;
  for (const Block& block : pages_[object.slab].blocks) allocated.push_back(block.owner != kFreeBlock);
  return allocated;
}

SlabCacheView Slob::View(SlabCacheId id) const {
  const Cache& cache = CacheOf(id);
  SlabCacheView view = SlabAllocator::ViewOf(cache);
  view.total_objects = view.active_objects = view.allocated = cache.allocated;
  return view;
}

std::vector<SlabPageView> Slob::Slabs(SlabCacheId id) const {
  const auto owner = static_cast<int32_t>(id);
  std::vector<SlabPageView> views;
  for (const Page& page : pages_) {
    if (std::any_of(page.blocks.begin(), page.blocks.end(), [&](const Block& block) { return block.owner == owner; })) {
      views.push_back(ViewOf(page));
    }
  }
  return views;
}

SlabUsage Slob::Usage() const {
  SlabUsage usage;
  usage.objects = used_blocks_ + whole_objects_;
  usage.object_bytes = used_units_ * kSlobUnit + (whole_pages_ << platform_.page_size.shift());
  AddLarge(usage);
  return usage;
}

uint64_t Slob::HostMemory() const {
  uint64_t bytes = sizeof(*this) + caches_.capacity() * sizeof(caches_[0]) + pages_.capacity() * sizeof(Page) + free_slots_.capacity() * 4;
  for (const auto& cache : caches_) bytes += cache == nullptr ? 0 : sizeof(Cache);
  for (const Page& page : pages_) bytes += page.blocks.capacity() * sizeof(Block);
  return bytes;
}

void Slob::AddToHash(StateHasher& hasher) const {
  hasher.Add(large_pages_);
  for (const auto& cache : caches_) {
    hasher.Add(cache == nullptr ? 0 : 1);
    if (cache == nullptr) continue;
    hasher.AddBytes(cache->name.data(), cache->name.size());
    hasher.Add(uint64_t{cache->geometry.size} << 32 | cache->geometry.align);
    hasher.Add(cache->allocated);
  }
  for (const Page& page : pages_) {
    hasher.Add(uint64_t{page.pfn} << 32 | page.next);
    for (const Block& block : page.blocks) {
      hasher.Add(uint64_t{block.start} << 32 | block.units);
      hasher.Add(static_cast<uint64_t>(static_cast<int64_t>(block.owner)) << 32 | block.bytes);
    }
  }
  for (const PageList& list : lists_) hasher.Add(list.head);
  for (const uint32_t slot : free_slots_) hasher.Add(slot);
}

void Slob::CheckInvariants(std::vector<std::string>* problems) const {
  const auto complain = [&](auto&&... parts) { problems->push_back(absl::StrCat("slob: ", parts...)); };
  std::vector<int> listed(pages_.size());
  for (int list = 0; list < kLists; ++list) {
    uint32_t before = kNoPage;
    for (uint32_t at = lists_[static_cast<size_t>(list)].head; at != kNoPage; at = pages_[at].next) {
      if (++listed[at] > 1 || pages_[at].list != list || pages_[at].prev != before) {
        complain("page ", at, " is on a list where it does not belong");
        return;
      }
      before = at;
    }
    if (lists_[static_cast<size_t>(list)].tail != before) complain("the end of list ", list);
  }
  uint64_t pages = large_pages_, used = 0, blocks = 0, whole = 0;
  std::vector<uint64_t> allocated(caches_.size());
  for (size_t at = 0; at < pages_.size(); ++at) {
    const Page& page = pages_[at];
    if (!page.exists) continue;
    pages += uint64_t{1} << page.order;
    const Frame frame = memory_.PeekFrame(Pfn(page.pfn));
    if (frame.state != FrameState::kSlab || frame.mapping != at + 1 || frame.order != page.order) complain("page ", at, " is not its own");
    uint32_t end = 0, free_units = 0;
    bool was_free = false;
    for (const Block& block : page.blocks) {
      const bool is_free = block.owner == kFreeBlock;
      if (block.start != end || (block.units == 0) != page.whole || (is_free && was_free)) complain("page ", at, ": blocks");
      was_free = is_free;
      end += block.units;
      free_units += is_free ? block.units : 0;
      if (block.owner >= 0) ++allocated[static_cast<size_t>(block.owner)];
      blocks += is_free || page.whole ? 0 : 1;
      used += is_free ? 0 : block.units;
    }
    if (page.whole) {
      ++whole;
      if (page.blocks.size() != 1 || listed[at] != 0) complain("page ", at, ": one object of whole pages");
      continue;
    }
    if (end != PageUnits() || free_units != page.free_units)
      complain("page ", at, ": free units ", page.free_units, ", counted ", free_units);
    if ((listed[at] == 1) != (free_units > 0) || free_units == PageUnits()) complain("page ", at, ": room, and no list");
  }
  for (size_t i = 0; i < caches_.size(); ++i) {
    if (caches_[i] != nullptr && caches_[i]->allocated != allocated[i]) complain(caches_[i]->name, ": objects");
  }
  if (used != used_units_ || blocks != used_blocks_ || whole != whole_objects_) complain("totals of blocks");
  if (CountedPages() != pages) complain("nr_slab_* say ", CountedPages(), " pages, there are ", pages);
}

}  // namespace mmlab

// Linux: mm/slob.c.

#include "server/kernel/slob.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "server/base/check.h"
#include "server/kernel/slot_table.h"

namespace mmlab {

SlabCacheId Slob::AddCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount, bool permanent) {
  auto cache = std::make_unique<Cache>();
  SetInfo(*cache, request, geometry, refcount, permanent);
  caches_.push_back(std::move(cache));
  return static_cast<SlabCacheId>(caches_.size() - 1);
}

// There is no way to know whether somebody still holds objects: they are lost.
bool Slob::RemoveCache(SlabCacheId id) {
  caches_[static_cast<uint32_t>(id)].reset();
  return true;
}

std::optional<SlabObject> Slob::AllocObject(SlabCacheId id, Gfp gfp) {
  Cache& cache = CacheOf(id);
  const SlabGeometry& g = cache.geometry;
  const auto owner = static_cast<int32_t>(cache.id);
  std::optional<SlabObject> object;
  if (g.size < platform_.page_size.bytes().raw()) {
    object = Alloc({g.size, g.align, 0}, gfp, owner, g.size);
  } else if (const uint32_t at = NewPage(g.order, gfp); at != kNoPage) {
    Page& page = pages_[at];
    page.whole = true;
    page.blocks.push_back({0, 0, owner, g.size});
    whole_pages_ += uint64_t{1} << g.order;
    ++whole_objects_;
    object = SlabObject{at, 0};
  }
  if (object.has_value()) ++cache.allocated;
  return object;
}

void Slob::FreeObject(SlabCacheId id, SlabObject object) {
  Cache& cache = CacheOf(id);
  MMLAB_CHECK(object.slab < pages_.size() && pages_[object.slab].exists);
  --cache.allocated;
  Page& page = pages_[object.slab];
  if (!page.whole) return Free(object, cache.geometry.size);
  whole_pages_ -= uint64_t{1} << page.order;
  --whole_objects_;
  GivePage(object.slab);
}

// __do_kmalloc_node(): a power of two is aligned to itself, with the header before it.
std::optional<VirtAddr> Slob::Kmalloc(uint64_t bytes, Gfp gfp) {
  if (bytes == 0) return VirtAddr(kZeroSizePtr);
  if (bytes >= platform_.page_size.bytes().raw() - Header()) return KmallocLarge(bytes, gfp);
  const auto size = static_cast<uint32_t>(bytes);
  const uint32_t align = std::has_single_bit(size) ? std::max(Header(), size) : Header();
  const std::optional<SlabObject> block = Alloc({size + Header(), align, Header()}, gfp, kKmalloc, size);
  if (!block) return std::nullopt;
  return AddressOf(*block);
}

SlabFault Slob::Kfree(VirtAddr address) {
  if (address.raw() <= kZeroSizePtr) return SlabFault::kNone;
  const SlabObjectView view = Locate(address);
  if (view.fault != SlabFault::kNone) return view.fault;
  if (!view.object.has_value()) {
    FreeLarge(view);
    return SlabFault::kNone;
  }
  const Page& page = pages_[view.object->slab];
  const Block& block = page.blocks[page.whole ? 0 : BlockAt(page, view.object->index)];
  // kfree() would take what stands before an object of a cache for its size.
  if (block.owner != kKmalloc) return SlabFault::kWrongCache;
  Free(*view.object, block.bytes + Header());
  return SlabFault::kNone;
}

// slob_alloc(): the first page of the list with enough free units and a hole that fits; else a new page.
std::optional<SlabObject> Slob::Alloc(const Wish& wish, Gfp gfp, int32_t owner, uint32_t bytes) {
  const int list = ListFor(wish.bytes);
  const uint32_t units = (wish.bytes + kSlobUnit - 1) / kSlobUnit;
  for (uint32_t at = lists_[static_cast<size_t>(list)].head; at != kNoPage; at = pages_[at].next) {
    if (pages_[at].free_units < units) continue;
    const std::optional<uint16_t> start = TakeFrom(at, wish, owner, bytes);
    if (!start) continue;
    Explain("the first page of its list with a hole that fits; the next search starts here", pages_[at]);
    if (pages_[at].list != kNoList) RotateToFront(at);
    return SlabObject{at, *start};
  }
  const uint32_t fresh = NewPage(0, gfp);
  if (fresh == kNoPage) return std::nullopt;
  Page& page = pages_[fresh];
  page.free_units = static_cast<uint16_t>(PageUnits());
  page.blocks.push_back({0, page.free_units, kFreeBlock, 0});
  Link(fresh, list);
  const std::optional<uint16_t> start = TakeFrom(fresh, wish, owner, bytes);
  MMLAB_CHECK(start.has_value());
  Explain("no page of its list has a hole that fits: a new one", page);
  return SlabObject{fresh, *start};
}

// slob_page_alloc(): cuts the block out of the first hole that holds it where it is aligned.
std::optional<uint16_t> Slob::TakeFrom(uint32_t at, const Wish& wish, int32_t owner, uint32_t bytes) {
  Page& page = pages_[at];
  const uint32_t units = (wish.bytes + kSlobUnit - 1) / kSlobUnit;
  const uint64_t base = AddressOfPage(Pfn(page.pfn)).raw();
  for (size_t i = 0; i < page.blocks.size(); ++i) {
    const Block hole = page.blocks[i];
    if (hole.owner != kFreeBlock) continue;
    const uint64_t address = base + uint64_t{hole.start} * kSlobUnit + wish.align_offset;
    const uint64_t skip = ((address + wish.align - 1) / wish.align * wish.align - address) / kSlobUnit;
    if (skip + units > hole.units) continue;
    const Block taken{static_cast<uint16_t>(hole.start + skip), static_cast<uint16_t>(units), owner, bytes};
    const auto behind = static_cast<uint16_t>(hole.units - skip - units);
    page.blocks[i] = taken;
    if (behind > 0) {
      page.blocks.insert(page.blocks.begin() + static_cast<ptrdiff_t>(i) + 1,
                         {static_cast<uint16_t>(taken.start + units), behind, kFreeBlock, 0});
    }
    if (skip > 0)
      page.blocks.insert(page.blocks.begin() + static_cast<ptrdiff_t>(i), {hole.start, static_cast<uint16_t>(skip), kFreeBlock, 0});
    page.free_units = static_cast<uint16_t>(page.free_units - units);
    if (page.free_units == 0) Unlink(at);
    used_units_ += units;
    ++used_blocks_;
    return taken.start;
  }
  return std::nullopt;
}

// slob_free(): `bytes` decide on which list a page goes that had no room before.
void Slob::Free(SlabObject object, uint32_t bytes) {
  const uint32_t at = object.slab;
  Page& page = pages_[at];
  size_t i = BlockAt(page, object.index);
  Block& block = page.blocks[i];
  MMLAB_CHECK(block.owner != kFreeBlock && block.start == object.index);
  used_units_ -= block.units;
  --used_blocks_;
  page.free_units = static_cast<uint16_t>(page.free_units + block.units);
  if (page.free_units == PageUnits()) {
    Explain("nothing is left in the page: it is freed", page);
    if (page.list != kNoList) Unlink(at);
    return GivePage(at);
  }
  block.owner = kFreeBlock;
  block.bytes = 0;
  const auto join_next = [&](size_t first) {
    page.blocks[first].units = static_cast<uint16_t>(page.blocks[first].units + page.blocks[first + 1].units);
    page.blocks.erase(page.blocks.begin() + static_cast<ptrdiff_t>(first) + 1);
  };
  if (i + 1 < page.blocks.size() && page.blocks[i + 1].owner == kFreeBlock) join_next(i);
  if (i > 0 && page.blocks[i - 1].owner == kFreeBlock) join_next(--i);
  if (page.list == kNoList) Link(at, ListFor(bytes));
  Explain("freed; free neighbours in the page are joined", page);
}

uint32_t Slob::NewPage(int order, Gfp gfp) {
  // Pages of caches need not be compound in the kernel; here the tails lead to the object.
  const std::optional<Pfn> pfn = TakePages((gfp & ~kGfpZero) | (order > 0 ? kGfpComp : 0), order);
  if (!pfn) return kNoPage;
  const uint32_t at = TakeSlot(pages_, free_slots_);
  MMLAB_CHECK(at + 1 < kBootSlabMapping);  // Frame::mapping holds it.
  Page& page = pages_[at];
  page.pfn = static_cast<uint32_t>(pfn->raw());
  page.order = static_cast<uint8_t>(order);
  page.exists = true;
  Frame& frame = memory_.frame(*pfn);
  frame.state = FrameState::kSlab;
  frame.mapping = at + 1;
  CountPages(0, order, 1);
  return at;
}

void Slob::GivePage(uint32_t at) {
  const Page page = std::exchange(pages_[at], Page());
  free_slots_.push_back(at);
  CountPages(0, page.order, -1);
  memory_.FreePages(Pfn(page.pfn), PageOrder(page.order));
}

void Slob::Link(uint32_t at, int list) {
  Page& page = pages_[at];
  PageList& to = lists_[static_cast<size_t>(list)];
  page.list = static_cast<int8_t>(list);
  page.next = to.head;
  page.prev = kNoPage;
  (to.head == kNoPage ? to.tail : pages_[to.head].prev) = at;
  to.head = at;
}

void Slob::Unlink(uint32_t at) {
  Page& page = pages_[at];
  PageList& from = lists_[static_cast<size_t>(page.list)];
  (page.next == kNoPage ? from.tail : pages_[page.next].prev) = page.prev;
  (page.prev == kNoPage ? from.head : pages_[page.prev].next) = page.next;
  page.next = page.prev = kNoPage;
  page.list = kNoList;
}

// list_rotate_to_front(): the list, taken as a ring, starts at this page.
void Slob::RotateToFront(uint32_t at) {
  PageList& list = lists_[static_cast<size_t>(pages_[at].list)];
  if (list.head == at) return;
  pages_[list.tail].next = list.head;
  pages_[list.head].prev = list.tail;
  list.head = at;
  list.tail = pages_[at].prev;
  pages_[list.tail].next = kNoPage;
  pages_[at].prev = kNoPage;
}

size_t Slob::BlockAt(const Page& page, uint32_t unit) const {
  const auto after = std::upper_bound(page.blocks.begin(), page.blocks.end(), unit, [](uint32_t u, const Block& b) { return u < b.start; });
  return static_cast<size_t>(after - page.blocks.begin()) - 1;
}

void Slob::Explain(const char* text, const Page& page) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  why->Add(StepKind::kSlabObject, text)
      .Frame("slab", Pfn(page.pfn))
      .Number("objects", static_cast<int64_t>(page.blocks.size()))
      .Size("free", Bytes(uint64_t{page.free_units} * kSlobUnit))
      .Number("slabs", static_cast<int64_t>(pages_.size() - free_slots_.size()));
}

}  // namespace mmlab

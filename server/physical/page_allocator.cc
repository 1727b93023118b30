// From a request to a frame and back: flags, zone list, per-CPU lists. The rules are those of __alloc_pages(), get_page_from_freelist(),
// __alloc_pages_slowpath(), rmqueue(), free_unref_page().

#include "server/physical/page_allocator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/event.h"
#include "server/physical/memory_pressure.h"

namespace mmlab {
namespace {

constexpr uint32_t Raw(Pfn pfn) { return static_cast<uint32_t>(pfn.raw()); }

// GCC 12 writes the parts of a std::optional to memory and reads them back in other widths, which stalls for longer than all the rest of a
// quick allocation takes; not so in this shape, alone.
[[gnu::noinline]] std::optional<Pfn> Given(uint32_t pfn) {
  std::optional<Pfn> given;
  given.emplace(pfn);
  return given;
}

}  // namespace

// --- Per-CPU lists, the quick half. ---

inline void BuddyMemory::PcpPushHead(PcpList& list, uint32_t pfn, Frame& frame) {
  const uint32_t old = list.head;
  frame.next = old;
  list.head = pfn;
  uint32_t& back = old == kNoFrame ? list.tail : lists_.table().At(old).prev;
  back = pfn;
}

inline uint32_t BuddyMemory::PcpPopHead(PcpList& list) {
  const uint32_t pfn = list.head;
  list.head = lists_.table().At(pfn).next;
  return pfn;
}

inline uint32_t BuddyMemory::TakeFromPcp(Zone& zone, PerCpuPages& pcp, int order, int type, uint32_t flags) {
  PcpList& list = pcp.lists[PcpIndex(type, order)];
  if (list.empty() && !RefillPcp(zone, pcp, list, order, type, flags)) return kNoFrame;
  const uint32_t pfn = PcpPopHead(list);
  pcp.count -= 1u << order;
  return pfn;
}

// rmqueue().
inline uint32_t BuddyMemory::TakeFromZone(Zone& zone, int order, uint32_t flags, int type) {
  uint32_t pfn = kNoFrame;
  // A movable list may hold CMA pages, which not everybody may have; kernels without CMA have kAllocCma set for all movable requests.
  if (PcpAllowed(order, lists_.pageblock_order()) && ((flags & kAllocCma) != 0 || type != kMigrateMovable)) {
    PerCpuPages& pcp = zone.pcp[cpu_];
    pcp.free_factor >>= 1;
    pfn = TakeFromPcp(zone, pcp, order, type, flags);
    if (pfn != kNoFrame) {
      CountAlloc(zone, uint64_t{1} << order);
      if (Explanation* why = tracer_.explanation()) {
        why->Add(StepKind::kFrameSource, "took the head of a per-CPU list")
            .Text("zone", zone.name())
            .Number("cpu", static_cast<int64_t>(cpu_))
            .Number("order", order)
            .Text("migrate_type", MigrateTypeName(type))
            .Pages("left_on_cpu", static_cast<int64_t>(pcp.count))
            .Frame("pfn", Pfn(pfn));
      }
    }
  }
  if (pfn == kNoFrame) pfn = TakeFromBuddy(zone, order, flags, type);
  if ((zone.flags & kZoneBoostedWatermark) != 0) [[unlikely]] {
    zone.flags &= ~uint32_t{kZoneBoostedWatermark};
    boosted_zone_ = zone.index;
    RecomputeQuick();
  }
  return pfn;
}

// --- Requests. ---

inline BuddyMemory::AllocContext BuddyMemory::ContextOf(Gfp gfp) const {
  static_assert(kGfpZoneDma == 1 && kGfpZoneHighmem == 2 && kGfpZoneDma32 == 4 && kGfpMovable == 8);
  AllocContext context;
  context.highest_zone = highest_zone_[gfp & 15];
  context.preferred_zone = first_zone_[context.highest_zone];
  context.migrate_type = TypeOf(gfp);
  return context;
}

inline uint32_t BuddyMemory::FirstFlags(Gfp gfp, const AllocContext& context) const {
  uint32_t flags = kAllocWmarkLow;
  if (context.migrate_type == kMigrateMovable) flags |= kAllocCma;
  if ((gfp & kGfpKswapdReclaim) != 0) flags |= kAllocKswapd;
  // Only kernels with a DMA32 zone spread over zones before they fragment one.
  if (zone_set_ == ZoneSet::kArm64 && context.preferred_zone == normal_zone_) flags |= kAllocNoFragment;
  return flags;
}

inline uint32_t BuddyMemory::GetPageFromFreelist(Gfp gfp, int order, uint32_t flags, const AllocContext& context) {
  while (true) {
    for (int index = context.preferred_zone; index != kNoZone; index = index == 0 ? kNoZone : first_zone_[index - 1]) {
      Zone& zone = lists_.zones()[index];
      const uint64_t mark = WatermarkOf(zone, flags);
      const bool ok = WatermarkFast(zone, order, mark, context.highest_zone, flags, gfp);
      if (tracer_.explanation() != nullptr) [[unlikely]]
        ExplainZone(zone, order, mark, context.highest_zone, flags, ok);
      if (!ok && (flags & kAllocNoWatermarks) == 0) continue;
      const uint32_t pfn = TakeFromZone(zone, order, flags, context.migrate_type);
      if (pfn == kNoFrame) continue;
      if ((flags & kAllocHighatomic) != 0) [[unlikely]] {
        lists_.table().At(pfn).state = FrameState::kKernel;
        ReserveHighatomic(zone, pfn);
      }
      return pfn;
    }
    if ((flags & kAllocNoFragment) == 0) return kNoFrame;
    flags &= ~uint32_t{kAllocNoFragment};
  }
}

uint32_t BuddyMemory::LookAgain(Gfp gfp, int order, uint32_t flags, const AllocContext& context) {
  return GetPageFromFreelist(gfp, order, flags, context);
}

inline void BuddyMemory::PrepareNewPage(uint32_t pfn, int order, Gfp gfp) {
  Frame& head = lists_.table().At(pfn);
  head.next = head.prev = kNoFrame;
  head.Become(FrameState::kKernel);
  head.order = static_cast<uint8_t>(order);
  head.refcount = 1;
  head.mapcount = 0;
  if (order == 0 || (gfp & kGfpComp) == 0) return;
  head.flags = kPgHead;
  for (uint32_t i = 1; i < (1u << order); ++i) lists_.table().At(pfn + i).flags = kPgTail;
}

// The ordinary case of AllocPages, in one piece: a block as CPUs keep them, the first zone above its low watermark, a block on this CPU's
// list. kNoFrame: not the ordinary case, and nothing has changed.
[[gnu::always_inline]] inline uint32_t BuddyMemory::AllocQuick(Gfp gfp, int order) {
  const QuickRequest& quick = quick_[gfp & kQuickMask];
  const uint32_t pages = 1u << order;
  Zone& zone = *quick.zone;
  const int64_t floor = quick.floor + std::max<int64_t>(*quick.withheld, 0) + (pages - 1);
  if (zone.stats[static_cast<size_t>(ZoneStat::kNrFreePages)] <= floor) [[unlikely]]
    return kNoFrame;
  // That a free block is large enough is plain as long as one of the largest order is there. (No branch on the order: nobody can predict
  // it.)
  if ((static_cast<int>(order != 0) & static_cast<int>(zone.free_area[kMaxOrder].lists[kMigrateMovable].empty())) != 0) [[unlikely]]
    return kNoFrame;
  PcpList& list = quick.lists[static_cast<size_t>(order) * kMigratePcpTypes];
  const uint32_t pfn = list.head;
  if (pfn == kNoFrame) [[unlikely]]
    return kNoFrame;
  quick.pcp->free_factor >>= 1;
  quick.pcp->count -= pages;
  *quick.allocated += pages;
  CountNode(zone, 1);
  Frame& frame = lists_.table().At(pfn);
  list.head = frame.next;
  frame.next = frame.prev = kNoFrame;
  frame.Become(FrameState::kKernel);
  frame.refcount = 1;
  frame.mapcount = 0;
  return pfn;
}

std::optional<Pfn> BuddyMemory::AllocPages(Gfp gfp, PageOrder page_order) {
  const int order = page_order.raw();
  if (order > kCostlyOrder || tracer_.observed() || (gfp & (kGfpComp | kGfpAccount)) != 0) [[unlikely]]
    return AllocSpecial(gfp, page_order);
  const uint32_t pfn = AllocQuick(gfp, order);
  if (pfn == kNoFrame) [[unlikely]]
    return AllocBlock(gfp, page_order);
  return Given(pfn);
}

// Of many pages, compound, charged, or watched by somebody. On its own, so that the ordinary case need not save registers over a call.
[[gnu::noinline]] std::optional<Pfn> BuddyMemory::AllocSpecial(Gfp gfp, PageOrder page_order) {
  const int order = page_order.raw();
  std::optional<Pfn> pfn;
  if (order <= kCostlyOrder && !tracer_.observed() && (order == 0 || (gfp & kGfpComp) == 0)) {
    if (const uint32_t quick = AllocQuick(gfp, order); quick != kNoFrame) pfn = Pfn(quick);
  }
  if (!pfn.has_value()) pfn = AllocBlock(gfp, page_order);
  // What the kernel needs on behalf of a process is charged to that process's memory cgroup.
  if (!pfn.has_value() || charger() == nullptr || (gfp & kGfpAccount) == 0) return pfn;
  if (charger()->ChargeKernelPages(*pfn, order, gfp)) return pfn;
  FreePages(*pfn, page_order);
  return std::nullopt;
}

std::optional<Pfn> BuddyMemory::AllocBlock(Gfp gfp, PageOrder page_order) {
  const int order = page_order.raw();
  if (order > kMaxOrder) return std::nullopt;
  const AllocContext context = ContextOf(gfp);
  const uint32_t flags = FirstFlags(gfp, context);
  if (tracer_.explanation() != nullptr) [[unlikely]]
    ExplainRequest(gfp, order, flags, context);
  uint32_t pfn = GetPageFromFreelist(gfp, order, flags, context);
  if (pfn == kNoFrame) [[unlikely]] {
    pfn = AllocSlowpath(gfp, order, context);
    if (pfn == kNoFrame) {
      EmitAlloc(kNoFrame, order, gfp, context.migrate_type);
      if (Explanation* why = tracer_.explanation()) {
        why->Add(StepKind::kAllocationFailure, "no zone could give the pages").Number("order", order).Pages("free", free_pages());
      }
      if (pressure_ != nullptr) pressure_->AllocationFailed(gfp, order);
      WakeForBoost();
      return std::nullopt;
    }
  }
  PrepareNewPage(pfn, order, gfp);
  EmitAlloc(pfn, order, gfp, context.migrate_type);
  WakeForBoost();
  return Pfn(pfn);
}

// The event mm_page_alloc; without a page it says frame 0, as the kernel does.
void BuddyMemory::EmitAlloc(uint32_t pfn, int order, Gfp gfp, int type) const {
  EventSink* events = tracer_.events();
  if (events == nullptr || !events->wants(EventKind::kMmPageAlloc)) return;
  events->Emit(EventKind::kMmPageAlloc, {pfn == kNoFrame ? 0 : pfn, order, type, GfpText(gfp)});
}

// --- Release. ---

inline void BuddyMemory::ClearForFree(Frame& frame, uint32_t pfn, int order) {
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmPageFree, {pfn, order});
  const bool compound = (frame.flags & kPgHead) != 0;
  frame.flags = 0;
  frame.memcg = 0;
  frame.refcount = 0;
  frame.mapcount = 0;
  frame.index = 0;
  frame.mapping = 0;
  if (order == 0) [[likely]] {
    contents_.Clear(Pfn(pfn));
    return;
  }
  contents_.ClearRange(pfn, 1u << order);
  if (compound) ClearTails(pfn, order, frame.zone);
}

// Tails of blocks that are not compound were never written to.
void BuddyMemory::ClearTails(uint32_t pfn, int order, uint8_t zone) {
  for (uint32_t i = 1; i < (1u << order); ++i) {
    Frame& tail = lists_.table().At(pfn + i);
    tail = Frame();
    tail.state = FrameState::kFree;
    tail.order = kTailOrder;
    tail.zone = zone;
  }
}

inline void BuddyMemory::FreeToPcp(Zone& zone, uint32_t pfn, Frame& frame, int order, int type) {
  PerCpuPages& pcp = zone.pcp[cpu_];
  vm_stat_.Count(VmEvent::kPgfree, uint64_t{1} << order);
  // Other types come back to the movable list, and to their own free lists from there.
  const int index = PcpIndex(type < kMigratePcpTypes ? type : kMigrateMovable, order);
  frame.state = FrameState::kPcp;
  frame.migrate_type = static_cast<uint8_t>(type);
  PcpPushHead(pcp.lists[index], pfn, frame);
  pcp.count += 1u << order;
  const bool free_high = pcp.free_factor != 0 && order != 0 && order <= kCostlyOrder;
  const uint32_t high = free_high ? 0 : pcp.limit;
  if (tracer_.explanation() != nullptr) [[unlikely]] {
    tracer_.explanation()
        ->Add(StepKind::kFrameRelease, "went to the head of a per-CPU list")
        .Frame("pfn", Pfn(pfn))
        .Number("order", order)
        .Number("cpu", static_cast<int64_t>(cpu_))
        .Text("zone", zone.name())
        .Text("migrate_type", MigrateTypeName(type))
        .Pages("on_cpu", static_cast<int64_t>(pcp.count))
        .Pages("high", static_cast<int64_t>(high));
  }
  if (pcp.count >= high) [[unlikely]]
    PcpOverflow(zone, pcp, index, free_high, high);
}

// The ordinary case of FreePages, in one piece: a block of an ordinary page block, on no LRU list, charged to nobody, and room on this
// CPU's list. False: not the ordinary case, and nothing has changed.
[[gnu::always_inline]] inline bool BuddyMemory::FreeQuick(uint32_t pfn, int order) {
  FrameBlock* block = lists_.table().BlockOf(pfn);
  if (block == nullptr) [[unlikely]]
    return false;
  const uint32_t offset = pfn & (FrameBlock::kFrames - 1);
  Frame& frame = block->frames[offset];
  // Most blocks go where the last one went. A processor that guesses so need not wait for the frame, which is often cold, nor for the page
  // block, to know which list the next request takes from.
  if (const FrameBlock::Pageblock of = block->PageblockAt(offset, lists_.pageblock_order()); of != free_to_.of) [[unlikely]] {
    if (of.type >= kMigratePcpTypes) return false;
    free_to_ = {of, pcp_now_[of.zone], &pcp_now_[of.zone]->lists[of.type]};
  }
  if (frame.state <= FrameState::kPcp || frame.order != order || (frame.flags & (kPgLru | kPgHead)) != 0 || frame.memcg != 0 ||
      frame.zone != free_to_.of.zone) [[unlikely]] {
    return false;
  }
  PerCpuPages& pcp = *free_to_.pcp;
  const uint32_t pages = 1u << order;
  const uint32_t count = pcp.count + pages;
  if (count >= pcp.limit) [[unlikely]]
    return false;
  // After many blocks were given back, a larger one sends all that the CPU has to the free lists.
  if ((static_cast<int>(order != 0) & static_cast<int>(pcp.free_factor != 0)) != 0) [[unlikely]]
    return false;
  frame.Become(FrameState::kPcp);
  frame.zone = free_to_.of.zone;
  frame.migrate_type = free_to_.of.type;
  frame.refcount = 0;
  frame.mapcount = 0;
  frame.index = 0;
  frame.mapping = 0;
  vm_stat_.Count(VmEvent::kPgfree, pages);
  pcp.count = count;
  PcpPushHead(free_to_.lists[static_cast<size_t>(order) * kMigratePcpTypes], pfn, frame);
  return true;
}

void BuddyMemory::FreePages(Pfn head, PageOrder page_order) {
  const uint32_t pfn = Raw(head);
  const int order = page_order.raw();
  MMLAB_CHECK(pfn < lists_.table().end_pfn());
  if (order <= kCostlyOrder && !tracer_.observed()) [[likely]] {
    if (contents_.NoneNear(head)) {
      if (FreeQuick(pfn, order)) [[likely]]
        return;
    } else {
      FreeWritten(head, page_order);
      return;
    }
  }
  FreeBlockOf(head, page_order);
}

// The same for blocks that may hold bytes. On its own, so that the others need not save registers over a call.
[[gnu::noinline]] void BuddyMemory::FreeWritten(Pfn head, PageOrder page_order) {
  contents_.ClearRange(Raw(head), 1u << page_order.raw());
  if (!FreeQuick(Raw(head), page_order.raw())) FreeBlockOf(head, page_order);
}

[[gnu::noinline]] void BuddyMemory::FreeBlockOf(Pfn head, PageOrder page_order) {
  const uint32_t pfn = Raw(head);
  const int order = page_order.raw();
  Frame& frame = lists_.frame(pfn);
  MMLAB_CHECK(frame.state > FrameState::kPcp && frame.order == order);
  const bool listed = (frame.flags & kPgLru) != 0;
  const bool charged = frame.memcg != 0;
  if (listed) lru_.Remove(head);
  if (charged && charger() != nullptr) charger()->Uncharge(head, order);
  // Nothing else may have kept it from the quick path.
  if ((listed || charged) && order <= kCostlyOrder && !tracer_.observed()) {
    frame.memcg = 0;
    contents_.ClearRange(pfn, 1u << order);
    if (FreeQuick(pfn, order)) return;
  }
  ClearForFree(frame, pfn, order);
  Zone& zone = lists_.zones()[frame.zone];
  const int type = lists_.PageblockType(pfn);
  if (PcpAllowed(order, lists_.pageblock_order()) && type != kMigrateIsolate) [[likely]] {
    FreeToPcp(zone, pfn, frame, order, type);
    return;
  }
  FreeBlock(zone, pfn, order, type, false);
  vm_stat_.Count(VmEvent::kPgfree, uint64_t{1} << order);
}

void BuddyMemory::FreePageList(absl::Span<const Pfn> pages) {
  // All types are looked up before the first page is freed; freeing order-0 pages changes none, so one pass does.
  for (const Pfn pfn : pages) {
    if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmPageFreeBatched, {pfn.raw()});
    FreePages(pfn, PageOrder(0));
  }
}

// --- Variants. ---

std::optional<Pfn> BuddyMemory::AllocPagesExact(Bytes bytes, Gfp gfp) {
  const uint64_t wanted = page_size_.PagesHolding(bytes).raw();
  int order = 0;
  while (order <= kMaxOrder && (uint64_t{1} << order) < wanted) ++order;
  if (wanted == 0 || order > kMaxOrder) return std::nullopt;
  const std::optional<Pfn> head = AllocPages(gfp & ~(kGfpComp | kGfpZoneHighmem), PageOrder(order));
  if (!head) return std::nullopt;
  SplitPage(*head, PageOrder(order));
  // The tail skips the per-CPU lists and goes to list tails, so that it merges again soon.
  for (uint32_t pfn = Raw(*head) + static_cast<uint32_t>(wanted); pfn < Raw(*head) + (1u << order); ++pfn) {
    Frame& frame = lists_.table().At(pfn);
    if (frame.memcg != 0) charger()->Uncharge(Pfn(pfn), 0);
    ClearForFree(frame, pfn, 0);
    FreeBlock(lists_.zones()[frame.zone], pfn, 0, lists_.PageblockType(pfn), true);
    vm_stat_.Count(VmEvent::kPgfree);
  }
  return head;
}

void BuddyMemory::FreePagesExact(Pfn first, Bytes bytes) {
  const Pfn end = first + page_size_.PagesHolding(bytes);
  for (Pfn pfn = first; pfn < end; ++pfn) FreePages(pfn, PageOrder(0));
}

void BuddyMemory::SplitPage(Pfn head, PageOrder page_order) {
  const uint32_t pfn = Raw(head);
  Frame& first = lists_.frame(pfn);
  MMLAB_CHECK(first.state > FrameState::kPcp && first.order == page_order.raw() && (first.flags & kPgHead) == 0);
  first.order = 0;
  for (uint32_t i = 1; i < page_order.pages().raw(); ++i) {
    Frame& frame = lists_.table().At(pfn + i);
    frame.state = first.state;
    frame.order = 0;
    frame.refcount = 1;
    frame.migrate_type = first.migrate_type;
    frame.memcg = first.memcg;  // split_page_memcg()
    frame.flags |= first.flags & kPgKernelCharge;
  }
}

size_t BuddyMemory::AllocPagesBulk(Gfp gfp, absl::Span<Pfn> out) {
  const auto one = [&]() -> size_t {
    const std::optional<Pfn> pfn = AllocPages(gfp, PageOrder(0));
    if (pfn) out[0] = *pfn;
    return pfn ? 1 : 0;
  };
  if (out.empty()) return 0;
  if (out.size() == 1 || (gfp & kGfpAccount) != 0) return one();

  const AllocContext context = ContextOf(gfp);
  uint32_t flags = kAllocWmarkLow;
  if (context.migrate_type == kMigrateMovable) flags |= kAllocCma;
  for (int index = context.preferred_zone; index != kNoZone; index = index == 0 ? kNoZone : first_zone_[index - 1]) {
    Zone& zone = lists_.zones()[index];
    const uint64_t mark = WatermarkOf(zone, flags) + out.size();
    const bool ok = WatermarkFast(zone, 0, mark, context.preferred_zone, flags, gfp);
    ExplainZone(zone, 0, mark, context.preferred_zone, flags, ok);
    if (!ok) continue;
    size_t got = 0;
    for (; got < out.size(); ++got) {
      const uint32_t pfn = TakeFromPcp(zone, zone.pcp[cpu_], 0, context.migrate_type, flags);
      if (pfn == kNoFrame) break;
      PrepareNewPage(pfn, 0, gfp);
      out[got] = Pfn(pfn);
    }
    CountAlloc(zone, got, got);
    return got == 0 ? one() : got;
  }
  return one();
}

}  // namespace mmlab

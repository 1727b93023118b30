// The free lists of one zone: splitting, merging, and their counters. The rules are those of __free_one_page(), expand(), __rmqueue().

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "server/base/event.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

// __mod_zone_page_state(): a CPU keeps small changes to itself.
void BuddyMemory::AddCpuStat(Zone& zone, ZoneStat item, int32_t PerCpuPages::*diff, int64_t delta) {
  int32_t& mine = zone.pcp[cpu_].*diff;
  const int64_t sum = mine + delta;
  if (std::abs(sum) > zone.stat_threshold) {
    zone.stats[static_cast<size_t>(item)] += sum;
    mine = 0;
  } else {
    mine = static_cast<int32_t>(sum);
  }
}

// __mod_zone_freepage_state().
void BuddyMemory::AddFree(Zone& zone, int64_t pages, int type) {
  AddCpuStat(zone, ZoneStat::kNrFreePages, &PerCpuPages::free_diff, pages);
  if (type == kMigrateCma) AddCpuStat(zone, ZoneStat::kNrFreeCma, &PerCpuPages::cma_diff, pages);
}

// Whether the block that this one would merge into has a free buddy: then this one goes to the tail, so that it lives to merge.
bool BuddyMemory::BuddyMergeLikely(uint32_t pfn, uint32_t buddy, int order) const {
  if (order >= kMaxOrder - 1) return false;
  const uint32_t higher_buddy = (buddy & pfn) ^ (1u << (order + 1));
  return lists_.IsFreeBlock(higher_buddy, order + 1) && lists_.table().At(higher_buddy).zone == lists_.table().At(buddy & pfn).zone;
}

bool BuddyMemory::CaptureBlock(Zone& zone, uint32_t pfn, int order, int type) {
  if (zone.index != capture_->zone || order != capture_->order || capture_->pfn != kNoFrame) return false;
  if (type == kMigrateCma || type == kMigrateIsolate) return false;
  // A smaller block would bring pages of another kind into a movable page block.
  if (order < lists_.pageblock_order() && type == kMigrateMovable) return false;
  AddFree(zone, -(int64_t{1} << order), type);
  Frame& frame = lists_.table().At(pfn);
  frame.state = FrameState::kKernel;
  frame.order = static_cast<uint8_t>(order);
  frame.migrate_type = static_cast<uint8_t>(type);
  capture_->pfn = pfn;
  return true;
}

bool BuddyMemory::IsolateFreeBlock(Zone& zone, uint32_t pfn, int order) {
  (void)lists_.frame(pfn);
  const uint32_t end = pfn + (1u << order);
  const int type = lists_.PageblockType(pfn);
  if (type != kMigrateIsolate) {
    const uint64_t mark = zone.wmark_min + (uint64_t{1} << order);
    if (!WatermarkOk(zone, 0, mark, 0, kAllocCma, static_cast<int64_t>(zone.free_pages()))) return false;
    AddFree(zone, -(int64_t{1} << order), type);
  }
  lists_.Remove(zone, pfn);
  if (order >= lists_.pageblock_order() - 1) {
    for (uint32_t at = pfn; at < end; at += lists_.pageblock_pages()) {
      if (lists_.PageblockType(at) < kMigratePcpTypes) lists_.SetPageblockType(at, kMigrateMovable);
    }
  }
  for (uint32_t at = pfn; at < end; ++at) {
    Frame& frame = lists_.table().At(at);
    frame.state = FrameState::kKernel;
    frame.order = 0;
    frame.refcount = 1;
    frame.next = frame.prev = kNoFrame;
  }
  return true;
}

void BuddyMemory::FreeBlock(Zone& zone, uint32_t pfn, int order, int type, bool to_tail) {
  const FrameTable& table = lists_.table();
  const uint32_t freed = pfn;
  const int freed_order = order;
  if (type != kMigrateIsolate) AddFree(zone, int64_t{1} << order, type);
  uint32_t buddy = 0;
  for (; order < kMaxOrder; ++order) {
    if (capture_ != nullptr && CaptureBlock(zone, pfn, order, type)) [[unlikely]]
      return;
    buddy = pfn ^ (1u << order);
    if (!lists_.IsFreeBlock(buddy, order) || table.At(buddy).zone != zone.index) break;
    if (order >= lists_.pageblock_order()) {
      // Blocks of kinds that have no fallbacks never merge with others, or their accounts would mix.
      const int buddy_type = lists_.PageblockType(buddy);
      if (type != buddy_type && (type >= kMigratePcpTypes || buddy_type >= kMigratePcpTypes)) break;
    }
    lists_.Remove(zone, buddy);
    Frame& upper = table.At(pfn | buddy);
    upper.order = kTailOrder;
    upper.state = FrameState::kFree;
    pfn &= buddy;
  }
  const bool tail = to_tail || BuddyMergeLikely(pfn, buddy, order);
  if (tail) {
    lists_.PushTail(zone, pfn, order, type);
  } else {
    lists_.PushHead(zone, pfn, order, type);
  }
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFrameRelease, order > freed_order ? "merged with its free buddies" : "no free buddy to merge with")
        .Frame("pfn", Pfn(freed))
        .Number("order", freed_order)
        .Frame("merged_pfn", Pfn(pfn))
        .Number("merged_order", order)
        .Text("zone", zone.name())
        .Text("migrate_type", MigrateTypeName(type))
        .Text("list_end", tail ? "tail" : "head");
  }
}

// __rmqueue_smallest(): the head of the first list, from this order up, that has a block; upper halves go back to list heads.
uint32_t BuddyMemory::RemoveSmallest(Zone& zone, int order, int type) {
  for (int from = order; from <= kMaxOrder; ++from) {
    const FrameList& list = zone.free_area[from].lists[type];
    if (list.empty()) continue;
    const uint32_t pfn = lists_.First(list);
    lists_.Remove(zone, pfn);
    for (int half = from; half-- > order;) lists_.PushHead(zone, pfn + (1u << half), half, type);
    Frame& frame = lists_.table().At(pfn);
    frame.order = static_cast<uint8_t>(order);
    frame.migrate_type = static_cast<uint8_t>(type);
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kFrameSource, from == order ? "took the head of a free list" : "split a larger free block")
          .Text("zone", zone.name())
          .Text("migrate_type", MigrateTypeName(type))
          .Number("order", order)
          .Number("from_order", from)
          .Frame("pfn", Pfn(pfn));
    }
    if (EventSink* events = tracer_.events()) {
      const bool percpu_refill = PcpAllowed(order, lists_.pageblock_order()) && type < kMigratePcpTypes;
      events->Emit(EventKind::kMmPageAllocZoneLocked, {pfn, order, type, percpu_refill});
    }
    return pfn;
  }
  return kNoFrame;
}

// __rmqueue(): own type first, CMA for movable requests, then other types.
uint32_t BuddyMemory::RemoveBlock(Zone& zone, int order, int type, uint32_t flags) {
  if ((flags & kAllocCma) != 0 && zone.stat(ZoneStat::kNrFreeCma) > zone.stat(ZoneStat::kNrFreePages) / 2) {
    if (const uint32_t pfn = RemoveSmallest(zone, order, kMigrateCma); pfn != kNoFrame) return pfn;
  }
  while (true) {
    if (const uint32_t pfn = RemoveSmallest(zone, order, type); pfn != kNoFrame) return pfn;
    if ((flags & kAllocCma) != 0) {
      if (const uint32_t pfn = RemoveSmallest(zone, order, kMigrateCma); pfn != kNoFrame) return pfn;
    }
    if (!StealFallback(zone, order, type, flags)) return kNoFrame;
  }
}

// rmqueue_buddy().
uint32_t BuddyMemory::TakeFromBuddy(Zone& zone, int order, uint32_t flags, int type) {
  uint32_t pfn = kNoFrame;
  if ((flags & kAllocHighatomic) != 0) pfn = RemoveSmallest(zone, order, kMigrateHighatomic);
  if (pfn == kNoFrame) pfn = RemoveBlock(zone, order, type, flags);
  if (pfn == kNoFrame && (flags & kAllocNonBlock) != 0) pfn = RemoveSmallest(zone, order, kMigrateHighatomic);
  if (pfn == kNoFrame) return kNoFrame;
  AddFree(zone, -(int64_t{1} << order), lists_.table().At(pfn).migrate_type);
  CountAlloc(zone, uint64_t{1} << order);
  return pfn;
}

}  // namespace mmlab

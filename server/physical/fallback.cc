// Taking over pages of other migrate types, and the reserve for high-order atomic requests. The rules are those of __rmqueue_fallback(),
// steal_suitable_fallback(), reserve_highatomic_pageblock().

#include <algorithm>

#include "server/base/event.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

// In which order a type takes from others.
constexpr uint8_t kFallbacks[kMigratePcpTypes][2] = {
    {kMigrateReclaimable, kMigrateMovable},    // Unmovable
    {kMigrateReclaimable, kMigrateUnmovable},  // Movable
    {kMigrateUnmovable, kMigrateMovable},      // Reclaimable
};

}  // namespace

// The type whose list of this order has a block to take, or -1. *can_steal: whether the whole page block may be taken over.
int BuddyMemory::FindFallback(const FreeArea& area, int order, int type, bool* can_steal) const {
  *can_steal = false;
  if (area.nr_free == 0) return -1;
  for (const uint8_t fallback : kFallbacks[type]) {
    if (area.lists[fallback].empty()) continue;
    *can_steal = order >= lists_.pageblock_order() / 2 || type != kMigrateMovable;
    return fallback;
  }
  return -1;
}

bool BuddyMemory::BoostWatermark(Zone& zone) {
  if (watermark_boost_factor_ == 0) return false;
  const uint64_t block = lists_.pageblock_pages();
  if (block * 4 > zone.managed) return false;
  const uint64_t high = zone.wmark_high;
  uint64_t most = high / 10000 * watermark_boost_factor_ + high % 10000 * watermark_boost_factor_ / 10000;
  if (most == 0) return false;
  most = std::max(block, most);
  zone.watermark_boost = std::min(zone.watermark_boost + block, most);
  RecomputeQuick();
  return true;
}

// move_freepages_block(): the free blocks of the page block that holds pfn go to the tails of another type's lists. Returns the pages
// moved; *movable counts allocated pages that look movable.
uint32_t BuddyMemory::MovePageblock(Zone& zone, uint32_t pfn, int type, uint32_t* movable) {
  *movable = 0;
  const uint32_t pages = lists_.pageblock_pages();
  uint32_t start = pfn & ~(pages - 1);
  const uint32_t end = start + pages;
  if (!zone.Spans(start)) start = pfn;
  if (!zone.Spans(end - 1)) return 0;
  uint32_t moved = 0;
  for (uint32_t at = start; at < end;) {
    const Frame& frame = lists_.frame(at);
    if (frame.state != FrameState::kFree || frame.order == kTailOrder) {
      if ((frame.flags & kPgLru) != 0) ++*movable;
      ++at;
      continue;
    }
    const uint32_t size = 1u << frame.order;
    lists_.MoveToTail(zone, at, type);
    at += size;
    moved += size;
  }
  return moved;
}

void BuddyMemory::StealSuitable(Zone& zone, uint32_t pfn, int order, uint32_t flags, int type, bool whole_block) {
  const int old_type = lists_.PageblockType(pfn);
  const int pageblock_order = lists_.pageblock_order();
  if (old_type == kMigrateHighatomic) {
    lists_.MoveToTail(zone, pfn, type);
    return;
  }
  if (order >= pageblock_order) {
    for (uint32_t i = 0; i < (1u << order); i += lists_.pageblock_pages()) lists_.SetPageblockType(pfn + i, type);
    lists_.MoveToTail(zone, pfn, type);
    return;
  }
  if (BoostWatermark(zone) && (flags & kAllocKswapd) != 0) {
    zone.flags |= kZoneBoostedWatermark;
    RecomputeQuick();
  }
  uint32_t movable = 0;
  const uint32_t free = whole_block ? MovePageblock(zone, pfn, type, &movable) : 0;
  if (free == 0) {
    lists_.MoveToTail(zone, pfn, type);
    return;
  }
  // Pages in use that suit the new type. Of pages that do not move, nobody knows which type they were, unless the block was movable.
  uint32_t alike = 0;
  if (type == kMigrateMovable) {
    alike = movable;
  } else if (old_type == kMigrateMovable) {
    alike = lists_.pageblock_pages() - (free + movable);
  }
  if (free + alike >= 1u << (pageblock_order - 1)) lists_.SetPageblockType(pfn, type);
}

// Moves a block of another type to the lists of this one, so that the next look there finds it.
bool BuddyMemory::StealFallback(Zone& zone, int order, int type, uint32_t flags) {
  const int least = order < lists_.pageblock_order() && (flags & kAllocNoFragment) != 0 ? lists_.pageblock_order() : order;
  bool can_steal = false;
  int fallback = -1;
  int from = kMaxOrder;
  // The largest, because its page block has most that is free.
  for (; from >= least; --from) {
    fallback = FindFallback(zone.free_area[from], from, type, &can_steal);
    if (fallback >= 0) break;
  }
  if (fallback < 0) return false;
  // A movable request that cannot have the whole block takes the smallest instead.
  if (!can_steal && type == kMigrateMovable && from > order) {
    for (from = order;; ++from) {
      fallback = FindFallback(zone.free_area[from], from, type, &can_steal);
      if (fallback >= 0) break;
    }
  }
  const uint32_t pfn = lists_.First(zone.free_area[from].lists[fallback]);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFrameSource, "own free lists empty: stole from another migrate type")
        .Text("zone", zone.name())
        .Text("wanted", MigrateTypeName(type))
        .Text("stolen_from", MigrateTypeName(fallback))
        .Number("from_order", from)
        .Frame("pfn", Pfn(pfn))
        .Truth("whole_block", can_steal);
  }
  StealSuitable(zone, pfn, from, flags, type, can_steal);
  if (EventSink* events = tracer_.events()) {
    const int pageblock_order = lists_.pageblock_order();
    events->Emit(EventKind::kMmPageAllocExtfrag,
                 {pfn, order, from, pageblock_order, type, fallback, from < pageblock_order, lists_.PageblockType(pfn) == type});
  }
  return true;
}

void BuddyMemory::ReserveHighatomic(Zone& zone, uint32_t pfn) {
  const uint64_t most = zone.managed / 100 + lists_.pageblock_pages();
  if (zone.nr_reserved_highatomic >= most) return;
  if (lists_.PageblockType(pfn) >= kMigratePcpTypes) return;
  zone.nr_reserved_highatomic += lists_.pageblock_pages();
  RecomputeQuick();
  lists_.SetPageblockType(pfn, kMigrateHighatomic);
  uint32_t movable = 0;
  MovePageblock(zone, pfn, kMigrateHighatomic, &movable);
}

// Gives one page block of the reserve back. Without force the last one of a zone stays.
bool BuddyMemory::UnreserveHighatomic(const AllocContext& context, bool force) {
  for (int index = first_zone_[context.highest_zone]; index != kNoZone; index = index == 0 ? kNoZone : first_zone_[index - 1]) {
    Zone& zone = lists_.zones()[index];
    if (!force && zone.nr_reserved_highatomic <= lists_.pageblock_pages()) continue;
    for (int order = 0; order <= kMaxOrder; ++order) {
      const FrameList& list = zone.free_area[order].lists[kMigrateHighatomic];
      if (list.empty()) continue;
      const uint32_t pfn = lists_.First(list);
      if (lists_.PageblockType(pfn) == kMigrateHighatomic) {
        zone.nr_reserved_highatomic -= std::min(lists_.pageblock_pages(), zone.nr_reserved_highatomic);
        RecomputeQuick();
      }
      lists_.SetPageblockType(pfn, context.migrate_type);
      uint32_t movable = 0;
      if (MovePageblock(zone, pfn, context.migrate_type, &movable) != 0) return true;
    }
  }
  return false;
}

}  // namespace mmlab

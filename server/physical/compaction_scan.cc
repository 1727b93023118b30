// The two scanners: which pages are taken to be moved, and which free ones they move to. The rules are those of
// isolate_migratepages(), isolate_freepages() and what they call.

#include <algorithm>

#include "server/base/event.h"
#include "server/physical/compact_control.h"
#include "server/physical/page_owner.h"

namespace mmlab {
namespace {

bool IsFreeHead(const Frame& frame) { return frame.state == FrameState::kFree && frame.order != kTailOrder; }
// compound_order(): a tail does not know. Of gigantic pages each frame is looked at, as in Linux.
int CompoundOrder(const Frame& frame) { return (frame.flags & kPgHead) != 0 && frame.order <= kMaxOrder ? frame.order : 0; }
bool IsMovableType(int type) { return type == kMigrateMovable || type == kMigrateCma; }

// freelist_scan_limit()
uint32_t FreeListScanLimit(uint32_t fails) { return (kCompactCluster >> std::min(31u, fails)) + 1; }

}  // namespace

// pageblock_pfn_to_page(): both ends lie in the zone.
bool Compaction::WholeBlockIn(const Zone& zone, uint32_t start, uint32_t end) const {
  if (!zone.Spans(start) || !zone.Spans(end - 1)) return false;
  return memory_.lists_.Peek(start).zone == zone.index && memory_.lists_.Peek(end - 1).zone == zone.index;
}

bool Compaction::InsideUntouchedRun(uint32_t pfn) const {
  const FreeLists& lists = memory_.lists_;
  if (lists.table().BlockOf(pfn) != nullptr || (pfn & (FrameBlock::kFrames - 1)) == 0) return false;
  const Frame first = lists.Peek(pfn & ~(FrameBlock::kFrames - 1));
  return first.state == FrameState::kFree && first.order == kMaxOrder;
}

// --- The migrate scanner. ---

bool Compaction::SuitableSource(const Control& cc, uint32_t pfn) const {
  const Frame frame = memory_.lists_.Peek(pfn);
  // pageblock_skip_persistent(): a compound page that fills the page block; one that began before it does too.
  if ((frame.flags & kPgTail) != 0) return false;
  if ((frame.flags & kPgHead) != 0 && frame.order >= memory_.lists_.pageblock_order()) return false;
  if (!cc.optimistic()) return true;
  const int type = memory_.lists_.PageblockType(pfn);
  return cc.migrate_type == kMigrateMovable ? IsMovableType(type) : type == cc.migrate_type;
}

// fast_find_migrateblock(): for larger orders a page block that has free pages already is a good start.
uint32_t Compaction::FastFindSource(Control& cc) {
  const Zone& zone = *cc.zone;
  if (cc.ignore_skip_hint) return cc.migrate_pfn;
  if (cc.migrate_pfn != zone.start_pfn && !AtBlockStart(cc.migrate_pfn)) return cc.migrate_pfn;
  if (cc.order <= kCostlyOrder) return cc.migrate_pfn;
  if (cc.direct && cc.migrate_type != kMigrateMovable) return cc.migrate_pfn;
  uint32_t distance = (cc.free_pfn - cc.migrate_pfn) >> 1;
  if (cc.migrate_pfn != zone.start_pfn) distance >>= 2;
  const uint32_t below = BlockStart(cc.migrate_pfn + distance);
  const uint32_t limit = FreeListScanLimit(cc.fast_search_fail);
  FreeLists& lists = memory_.lists_;
  uint32_t scanned = 0;
  uint32_t found = kNoFrame;
  for (int order = cc.order - 1; order >= kCostlyOrder && found == kNoFrame && scanned < limit; --order) {
    FrameList& list = cc.zone->free_area[order].lists[kMigrateMovable];
    for (uint32_t at = list.head; at != kNoFrame; at = lists.NextOnList(at)) {
      if (scanned++ >= limit) {
        lists.RotateToTail(list, at);
        break;
      }
      if (at >= below || Skipped(zone, at)) continue;
      lists.RotateToTail(list, at);
      if (cc.fast_start != kNoFrame) cc.fast_start = cc.fast_start == 0 ? at : std::min(cc.fast_start, at);
      found = std::max(BlockStart(at), zone.start_pfn);
      cc.fast_search_fail = 0;
      SetSkipped(zone, at, true);
      break;
    }
  }
  cc.migrate_scanned += scanned;
  if (found != kNoFrame) return found;
  ++cc.fast_search_fail;
  if (cc.fast_start != 0 && cc.fast_start != kNoFrame) {
    cc.migrate_pfn = cc.fast_start;
    cc.fast_start = kNoFrame;
  }
  return cc.migrate_pfn;
}

Compaction::Isolated Compaction::IsolateMigratePages(Control& cc) {
  const Zone& zone = *cc.zone;
  uint32_t low = FastFindSource(cc);
  uint32_t start = std::max(BlockStart(low), zone.start_pfn);
  bool found_fast = low != cc.migrate_pfn && cc.fast_search_fail == 0;
  for (uint32_t end = BlockEnd(low); end <= cc.free_pfn; end += BlockPages()) {
    const bool whole = WholeBlockIn(zone, start, end);
    const bool skipped = whole && AtBlockStart(low) && !found_fast && !cc.ignore_skip_hint && Skipped(zone, start);
    if (whole && !skipped) {
      if (SuitableSource(cc, start)) {
        IsolateMigrateBlock(cc, low, end);
        break;
      }
      NoteMigrateDone(cc, end);
    }
    found_fast = false;
    cc.migrate_pfn = low = start = end;
  }
  return migrate_pages_.empty() ? Isolated::kNone : Isolated::kSome;
}

// What isolate_migratepages_block() makes of one page that is neither free nor part of a compound page.
Compaction::Look Compaction::LookAt(const Control& cc, const Frame& frame) const {
  if ((frame.flags & kPgLru) == 0) return (frame.flags & kPgMovable) != 0 ? Look::kTakeMovable : Look::kFail;
  const bool anonymous = frame.state == FrameState::kAnon && (frame.flags & kPgSwapCache) == 0;
  // Somebody holds it besides those who map it.
  if (anonymous && frame.refcount > frame.mapcount) return Look::kFail;
  if ((cc.gfp & kGfpFs) == 0 && !anonymous) return Look::kFail;
  if (!settings_.unevictable_allowed && (frame.flags & kPgUnevictable) != 0) return Look::kFail;
  if (cc.mode != Mode::kSync && (frame.flags & kPgWriteback) != 0) return Look::kFail;
  return Look::kTake;
}

void Compaction::IsolateMigrateBlock(Control& cc, uint32_t low, uint32_t end) {
  const FreeLists& lists = memory_.lists_;
  const Zone& zone = *cc.zone;
  const uint32_t first = low;
  const uint32_t step = cc.order > 0 ? 1u << cc.order : 1;
  uint32_t next_skip = cc.optimistic() ? (low & ~(step - 1)) + step : kNoFrame;
  uint64_t scanned = 0;
  uint32_t isolated = 0;
  bool looked_at_hint = false;
  bool skip_updated = false;
  uint32_t hint_pfn = kNoFrame;
  for (; low < end; ++low) {
    if (cc.optimistic() && low >= next_skip) {
      if (isolated > 0) break;
      next_skip = (low & ~(step - 1)) + step;
    }
    if (!looked_at_hint && AtBlockStart(low)) {
      if (!cc.ignore_skip_hint && Skipped(zone, low)) {
        ++scanned;
        low = end;
        break;
      }
      looked_at_hint = true;
      hint_pfn = low;
    }
    if (InsideUntouchedRun(low)) {
      scanned += end - low;
      low = end;
      break;
    }
    ++scanned;
    const Frame frame = lists.Peek(low);
    if (IsFreeHead(frame)) {
      low += (1u << frame.order) - 1;
      continue;
    }
    Look look = Look::kFail;
    if (IsCompound(frame)) {
      low += (1u << CompoundOrder(frame)) - 1;
    } else {
      look = LookAt(cc, frame);
    }
    if (look == Look::kTake && !skip_updated) {
      skip_updated = true;
      // Another run has taken the block meanwhile.
      if (TestAndSetSkip(cc, low)) break;
    }
    if (look == Look::kTake || look == Look::kTakeMovable) {
      if (look == Look::kTake) memory_.lru_.Remove(Pfn(low));
      ++memory_.lists_.frame(low).refcount;
      migrate_pages_.push_back(low);
      ++isolated;
      if (migrate_pages_.size() >= kCompactCluster && !cc.rescan) {
        ++low;
        break;
      }
      continue;
    }
    if (!cc.optimistic()) continue;
    // A page that stays spoils the block of the order that is wanted; what was taken of it goes back.
    if (isolated > 0) {
      PutBack(cc);
      isolated = 0;
    }
    if (low < next_skip) {
      low = next_skip - 1;
      next_skip += step;
    }
  }
  low = std::min(low, end);
  if (low == end && (isolated == 0 || cc.rescan)) {
    if (hint_pfn != kNoFrame && !skip_updated) SetSkipped(zone, hint_pfn, true);
    NoteMigrateDone(cc, low);
  }
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmCompactionIsolateMigratepages, {first, low, scanned, isolated});
  if (Explanation* why = tracer_.explanation(); why != nullptr && isolated > 0) {
    why->Add(StepKind::kPagesIsolated, "the migrate scanner took pages off their lists")
        .Text("zone", zone.name())
        .Frame("start_pfn", Pfn(first))
        .Frame("end_pfn", Pfn(low))
        .Number("scanned", static_cast<int64_t>(scanned))
        .Pages("isolated", int64_t{isolated});
  }
  cc.migrate_scanned += scanned;
  memory_.vm_stat_.Count(VmEvent::kCompactIsolated, isolated);
  cc.migrate_pfn = low;
}

// --- The free scanner. ---

bool Compaction::SuitableTarget(const Control& cc, uint32_t pfn) const {
  const Frame frame = memory_.lists_.Peek(pfn);
  if (IsFreeHead(frame) && frame.order >= memory_.lists_.pageblock_order()) return false;
  return cc.ignore_block_suitable || IsMovableType(memory_.lists_.PageblockType(pfn));
}

// Takes a free block as single pages. False: the zone has too little free memory for that.
bool Compaction::TakeFree(Control& cc, uint32_t pfn, int order) {
  if (!memory_.IsolateFreeBlock(*cc.zone, pfn, order)) return false;
  for (uint32_t i = 0; i < (1u << order); ++i) free_pages_.push_back(pfn + i);
  return true;
}

// isolate_freepages_block(): how many pages. *start goes on to where it stopped.
uint32_t Compaction::IsolateFreeBlock(Control& cc, uint32_t* start, uint32_t end, uint32_t stride) {
  const uint32_t first = *start;
  uint64_t scanned = 0;
  uint32_t isolated = 0;
  uint32_t at = first;
  for (; at < end; at += stride) {
    if (InsideUntouchedRun(at)) {
      scanned += (end - at + stride - 1) / stride;
      at = end;
      break;
    }
    ++scanned;
    const Frame frame = memory_.lists_.Peek(at);
    if (IsCompound(frame)) {
      at += (1u << CompoundOrder(frame)) - 1;
      continue;
    }
    if (!IsFreeHead(frame)) continue;
    (void)memory_.lists_.frame(at);
    const uint32_t pages = 1u << frame.order;
    if (!TakeFree(cc, at, frame.order)) break;
    scanned += pages - 1;
    isolated += pages;
    if (cc.wanted <= free_pages_.size()) {
      at += pages;
      break;
    }
    at += pages - 1;
  }
  at = std::min(at, end);
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmCompactionIsolateFreepages, {first, at, scanned, isolated});
  if (Explanation* why = tracer_.explanation(); why != nullptr && isolated > 0) {
    why->Add(StepKind::kFreePagesIsolated, "the free scanner took free pages to move to")
        .Text("zone", cc.zone->name())
        .Frame("start_pfn", Pfn(first))
        .Frame("end_pfn", Pfn(at))
        .Number("scanned", static_cast<int64_t>(scanned))
        .Pages("isolated", int64_t{isolated});
  }
  *start = at;
  cc.free_scanned += scanned;
  memory_.vm_stat_.Count(VmEvent::kCompactIsolated, isolated);
  return isolated;
}

// fast_isolate_freepages(): a short look at the ends of the free lists for a block high up in the zone. It does nothing when everything is
// compacted.
void Compaction::FastIsolateFree(Control& cc) {
  if (cc.order <= 0) return;
  Zone& zone = *cc.zone;
  ZoneState& state = StateOf(zone);
  FreeLists& lists = memory_.lists_;
  uint32_t limit = std::max(1u, FreeListScanLimit(cc.fast_search_fail) >> 1);
  const bool scan_start = cc.free_pfn >= state.init_free;
  if (scan_start) limit = BlockPages() >> 1;
  const uint32_t distance = cc.free_pfn - cc.migrate_pfn;
  const uint32_t wished = BlockStart(cc.free_pfn - (distance >> 2));
  const uint32_t lowest = std::min(wished, BlockStart(cc.free_pfn - (distance >> 1)));
  uint32_t highest = 0;
  uint64_t scanned = 0;
  uint32_t taken = kNoFrame;
  cc.search_order = std::min(cc.order - 1, cc.search_order);
  for (int order = cc.search_order; taken == kNoFrame && order >= 0;) {
    FreeArea& area = zone.free_area[order];
    FrameList& list = area.lists[kMigrateMovable];
    uint32_t order_scanned = 0;
    uint32_t candidate = kNoFrame;
    uint32_t at = list.tail;
    for (; at != kNoFrame; at = lists.PreviousOnList(at)) {
      ++order_scanned;
      if (at >= highest) highest = std::max(BlockStart(at), zone.start_pfn);
      if (at >= wished) {
        cc.fast_search_fail = 0;
        cc.search_order = order;
        candidate = taken = at;
        break;
      }
      if (at >= lowest && (candidate == kNoFrame || at > candidate)) {
        candidate = at;
        limit >>= 1;
      }
      if (order_scanned >= limit) break;
    }
    scanned += order_scanned;
    taken = candidate;
    // The next search starts behind what was looked at.
    if (taken != kNoFrame || at != kNoFrame) lists.RotateToHead(list, taken != kNoFrame ? taken : at);
    if (taken != kNoFrame) {
      if (TakeFree(cc, taken, order)) {
        scanned += (1u << order) - 1;
        memory_.vm_stat_.Count(VmEvent::kCompactIsolated, uint64_t{1} << order);
      } else {
        order = cc.search_order + 1;
        taken = kNoFrame;
      }
    }
    if (area.nr_free != 0 && order_scanned >= limit) limit = std::max(1u, limit >> 1);
    // Orders are tried in turn; the round ends where it began.
    if (--order < 0) order = cc.order - 1;
    if (order == cc.search_order) {
      if (--cc.search_order < 0) cc.search_order = cc.order - 1;
      break;
    }
  }
  uint32_t around = taken;
  if (taken == kNoFrame) {
    ++cc.fast_search_fail;
    if (scan_start && highest >= lowest) {
      cc.free_pfn = around = highest;
    } else if (scan_start && cc.direct) {
      cc.free_pfn = lowest;
      if (WholeBlockIn(zone, lowest, std::min(BlockEnd(lowest), zone.end_pfn()))) around = lowest;
    }
  }
  if (highest != 0 && highest >= state.cached_free) state.cached_free = highest >= BlockPages() ? highest - BlockPages() : 0;
  cc.free_scanned += scanned;
  // fast_isolate_around()
  if (around == kNoFrame || free_pages_.size() >= cc.wanted || cc.optimistic()) return;
  uint32_t start = std::max(BlockStart(around), zone.start_pfn);
  const uint32_t end = std::min(BlockEnd(around), zone.end_pfn());
  if (!WholeBlockIn(zone, start, end)) return;
  const uint32_t block = start;
  IsolateFreeBlock(cc, &start, end, 1);
  if (free_pages_.size() < cc.wanted) SetSkipped(zone, block, true);
}

void Compaction::IsolateFreePages(Control& cc) {
  FastIsolateFree(cc);
  if (!free_pages_.empty()) return;
  const Zone& zone = *cc.zone;
  const int64_t low = BlockEnd(cc.migrate_pfn);
  uint32_t from = cc.free_pfn;
  int64_t block = BlockStart(from);
  uint32_t end = std::min(static_cast<uint32_t>(block) + BlockPages(), zone.end_pfn());
  uint32_t stride = cc.mode == Mode::kAsync ? kCompactCluster : 1;
  while (block >= low) {
    const auto start = static_cast<uint32_t>(block);
    const bool suitable = WholeBlockIn(zone, start, end) && SuitableTarget(cc, start) && (cc.ignore_skip_hint || !Skipped(zone, start));
    if (suitable) {
      const uint32_t isolated = IsolateFreeBlock(cc, &from, end, stride);
      if (from == end) NoteFreeDone(cc, start);
      if (free_pages_.size() >= cc.wanted) {
        if (from >= end) from = start - std::min(start, BlockPages());
        break;
      }
      if (from < end) break;
      stride = isolated > 0 ? 1 : std::min(kCompactCluster, stride << 1);
    }
    end = start;
    block -= BlockPages();
    from = static_cast<uint32_t>(std::max<int64_t>(block, 0));
  }
  cc.free_pfn = from;
}

uint32_t Compaction::TakeTarget(Control& cc) {
  if (free_pages_.empty()) IsolateFreePages(cc);
  if (free_pages_.empty()) return kNoFrame;
  const uint32_t pfn = free_pages_.back();
  free_pages_.pop_back();
  return pfn;
}

}  // namespace mmlab

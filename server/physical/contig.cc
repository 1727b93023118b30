// Ranges of more frames than the largest block has: found, emptied, taken and given back. The rules are those of alloc_contig_pages(),
// alloc_contig_range(), start_isolate_page_range(), free_contig_range().

#include <algorithm>

#include "server/physical/compaction.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

void Explain(const Tracer& tracer, const char* text, const Zone& zone, uint32_t start, uint32_t end, std::optional<uint32_t> because) {
  Explanation* why = tracer.explanation();
  if (why == nullptr) return;
  ExplanationStep& step = why->Add(StepKind::kContigRange, text);
  step.Text("zone", zone.name()).Frame("start_pfn", Pfn(start)).Frame("end_pfn", Pfn(end));
  if (because.has_value()) step.Frame("pfn", Pfn(*because));
}

}  // namespace

// Whether a free block of the largest order starts there which nobody has touched: it need not be looked at frame by frame.
bool BuddyMemory::UntouchedFree(const Zone& zone, uint32_t pfn) const {
  if (lists_.table().BlockOf(pfn) != nullptr || (pfn & (FrameBlock::kFrames - 1)) != 0) return false;
  const Frame frame = lists_.Peek(pfn);
  return frame.state == FrameState::kFree && frame.order == kMaxOrder && frame.zone == zone.index;
}

// pfn_range_valid_contig(): what boot took and pages of pools are no part of it.
bool BuddyMemory::RangeValid(const Zone& zone, uint32_t start, uint32_t end) const {
  for (uint32_t pfn = start; pfn < end;) {
    if (UntouchedFree(zone, pfn)) {
      pfn += FrameBlock::kFrames;
      continue;
    }
    const Frame frame = lists_.Peek(pfn++);
    if (frame.zone == zone.index && frame.state != FrameState::kReserved && frame.state != FrameState::kHugetlb) continue;
    Explain(tracer_, frame.state == FrameState::kHugetlb ? "the range holds pages of a pool" : "the range holds memory that boot took",
            zone, start, end, pfn - 1);
    return false;
  }
  return true;
}

// has_unmovable_pages() of each page block: the first page that has to stay where it is.
std::optional<uint32_t> BuddyMemory::FindUnmovable(const Zone& zone, uint32_t start, uint32_t end) const {
  for (uint32_t pfn = start; pfn < end; ++pfn) {
    if ((pfn & (lists_.pageblock_pages() - 1)) == 0 && lists_.PageblockType(pfn) == kMigrateCma) return pfn;
    if (UntouchedFree(zone, pfn)) {
      pfn += FrameBlock::kFrames - 1;
      continue;
    }
    const Frame frame = lists_.Peek(pfn);
    if (zone.type == ZoneType::kMovable) continue;
    if (IsCompound(frame)) {
      const Pfn head = HeadOf(Pfn(pfn));
      const Frame first = PeekFrame(head);
      if ((first.flags & kPgLru) == 0) return pfn;
      pfn = static_cast<uint32_t>(head.raw()) + CompoundPages(first) - 1;
    } else if (frame.refcount > 0 && (frame.flags & (kPgLru | kPgMovable)) == 0) {
      return pfn;
    }
  }
  return std::nullopt;
}

// set_migratetype_isolate() of each page block: what is free there is not to be had any more, and no part of free memory.
void BuddyMemory::IsolateRange(Zone& zone, uint32_t start, uint32_t end) {
  for (uint32_t block = start; block < end; block += lists_.pageblock_pages()) {
    const int type = lists_.PageblockType(block);
    lists_.SetPageblockType(block, kMigrateIsolate);
    uint32_t movable = 0;
    AddFree(zone, -int64_t{MovePageblock(zone, block, kMigrateIsolate, &movable)}, type);
  }
  isolating_ = true;
  DrainAllPages();
}

// unset_migratetype_isolate() of each page block. Blocks that could not merge while only one of them was isolated do it now.
void BuddyMemory::UndoIsolation(Zone& zone, uint32_t start, uint32_t end) {
  const int order = lists_.pageblock_order();
  for (uint32_t block = start; block < end; block += lists_.pageblock_pages()) {
    const uint32_t buddy = block ^ lists_.pageblock_pages();
    lists_.SetPageblockType(block, kMigrateMovable);
    if (order < kMaxOrder && lists_.IsFreeBlock(block, order) && lists_.IsFreeBlock(buddy, order) &&
        lists_.PageblockType(buddy) != kMigrateIsolate) {
      lists_.Remove(zone, block);
      lists_.frame(block).state = FrameState::kKernel;
      FreeBlock(zone, block, order, kMigrateMovable, true);
      continue;
    }
    uint32_t movable = 0;
    AddFree(zone, MovePageblock(zone, block, kMigrateMovable, &movable), kMigrateMovable);
  }
  isolating_ = false;
}

// test_pages_isolated() and isolate_freepages_range(): false when something in the range is not free; then nothing has changed.
bool BuddyMemory::TakeIsolated(Zone& zone, uint32_t start, uint32_t end) {
  for (uint32_t pfn = start; pfn < end;) {
    const Frame& frame = lists_.frame(pfn);
    if (frame.state != FrameState::kFree || frame.order > kMaxOrder) {
      Explain(tracer_, "something in the range could not be moved", zone, start, end, pfn);
      return false;
    }
    pfn += 1u << frame.order;
  }
  for (uint32_t pfn = start; pfn < end;) {
    const uint32_t pages = 1u << lists_.frame(pfn).order;
    lists_.Remove(zone, pfn);
    pfn += pages;
  }
  for (uint32_t block = start; block < end; block += lists_.pageblock_pages()) lists_.SetPageblockType(block, kMigrateMovable);
  isolating_ = false;
  return true;
}

// alloc_contig_range()
bool BuddyMemory::TryContig(Zone& zone, uint32_t start, uint32_t end) {
  if (!RangeValid(zone, start, end)) return false;
  if (const std::optional<uint32_t> unmovable = FindUnmovable(zone, start, end); unmovable.has_value()) {
    Explain(tracer_, "the range holds a page that can't be moved", zone, start, end, unmovable);
    return false;
  }
  IsolateRange(zone, start, end);
  const bool empty = compaction_ == nullptr || compaction_->Evacuate(start, end);
  if (empty && TakeIsolated(zone, start, end)) {
    Explain(tracer_, "everything in the range was free or moved away: it becomes one page", zone, start, end, std::nullopt);
    return true;
  }
  UndoIsolation(zone, start, end);
  return false;
}

// prep_compound_gigantic_page(). Each part as large as the largest block has a first frame that looks like the head of such a block, and
// says that it is a tail.
void BuddyMemory::MakeCompound(uint32_t pfn, int order, FrameState state) {
  for (uint32_t i = 0; i < (1u << order); ++i) {
    const bool part = (i & (FrameBlock::kFrames - 1)) == 0;
    Frame& frame = lists_.frame(pfn + i);
    const uint8_t zone = frame.zone;
    frame = Frame();
    frame.zone = zone;
    frame.flags = i == 0 ? kPgHead : kPgTail;
    frame.state = part ? state : FrameState::kFree;
    frame.order = part ? static_cast<uint8_t>(i == 0 ? order : kMaxOrder) : kTailOrder;
  }
  lists_.frame(pfn).refcount = 1;
}

std::optional<Pfn> BuddyMemory::AllocContig(Gfp gfp, PageOrder order, FrameState state) {
  MMLAB_CHECK(order.raw() > kMaxOrder && order.raw() < 32);
  const uint64_t pages = order.pages().raw();
  for (int index = first_zone_[highest_zone_[gfp & 15]]; index != kNoZone; index = index == 0 ? kNoZone : first_zone_[index - 1]) {
    Zone& zone = lists_.zones()[index];
    for (uint64_t pfn = (zone.start_pfn + pages - 1) & ~(pages - 1); pfn + pages <= zone.end_pfn(); pfn += pages) {
      const auto start = static_cast<uint32_t>(pfn);
      if (!TryContig(zone, start, static_cast<uint32_t>(pfn + pages))) continue;
      MakeCompound(start, order.raw(), state);
      return Pfn(pfn);
    }
  }
  return std::nullopt;
}

void BuddyMemory::FreeContig(Pfn head, PageOrder order) {
  const auto start = static_cast<uint32_t>(head.raw());
  MMLAB_CHECK(lists_.frame(start).order == order.raw() && (lists_.frame(start).flags & kPgHead) != 0);
  for (uint32_t pfn = start; pfn < start + (1u << order.raw()); ++pfn) {
    Frame& frame = lists_.frame(pfn);
    frame.Become(FrameState::kKernel);
    frame.order = 0;
    frame.refcount = 1;
  }
  for (uint32_t pfn = start; pfn < start + (1u << order.raw()); ++pfn) FreePages(Pfn(pfn), PageOrder(0));
}

void BuddyMemory::AdoptReserved(Pfn head, PageOrder order, FrameState state) {
  const auto pages = static_cast<uint32_t>(order.pages().raw());
  MakeCompound(static_cast<uint32_t>(head.raw()), order.raw(), state);
  lists_.zones()[lists_.frame(static_cast<uint32_t>(head.raw())).zone].managed += pages;
}

}  // namespace mmlab

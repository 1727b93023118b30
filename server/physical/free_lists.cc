#include "server/physical/free_lists.h"

#include <algorithm>

namespace mmlab {

FreeLists::UntouchedMap::iterator FreeLists::Holding(uint32_t pfn) {
  auto it = untouched_.upper_bound(pfn);
  if (it == untouched_.begin()) return untouched_.end();
  --it;
  const uint64_t end = it->first + (uint64_t{it->second.blocks} << it->second.order);
  return pfn < end ? it : untouched_.end();
}

uint32_t& FreeLists::NextOf(uint32_t name) {
  if (Frame* frame = table_.Find(name)) return frame->next;
  return Holding(name)->second.next;
}

uint32_t& FreeLists::PrevOf(uint32_t name) {
  if (Frame* frame = table_.Find(name)) return frame->prev;
  return Holding(name)->second.prev;
}

void FreeLists::Link(FrameList& list, uint32_t name, uint32_t prev, uint32_t next) {
  if (prev == kNoFrame) {
    list.head = name;
  } else {
    NextOf(prev) = name;
  }
  if (next == kNoFrame) {
    list.tail = name;
  } else {
    PrevOf(next) = name;
  }
}

void FreeLists::Unlink(FrameList& list, uint32_t prev, uint32_t next) {
  if (prev == kNoFrame) {
    list.head = next;
  } else {
    NextOf(prev) = next;
  }
  if (next == kNoFrame) {
    list.tail = prev;
  } else {
    PrevOf(next) = prev;
  }
}

void FreeLists::Push(Zone& zone, uint32_t pfn, int order, int type, bool tail) {
  Frame& frame = table_.At(pfn);
  FreeArea& area = zone.free_area[order];
  FrameList& list = area.lists[type];
  frame.state = FrameState::kFree;
  frame.order = static_cast<uint8_t>(order);
  frame.migrate_type = static_cast<uint8_t>(type);
  frame.prev = tail ? list.tail : kNoFrame;
  frame.next = tail ? kNoFrame : list.head;
  Link(list, pfn, frame.prev, frame.next);
  ++list.count;
  ++area.nr_free;
}

void FreeLists::Remove(Zone& zone, uint32_t pfn) {
  Frame& frame = table_.At(pfn);
  FreeArea& area = zone.free_area[frame.order];
  FrameList& list = area.lists[frame.migrate_type];
  Unlink(list, frame.prev, frame.next);
  --list.count;
  --area.nr_free;
  frame.next = frame.prev = kNoFrame;
}

void FreeLists::MoveToTail(Zone& zone, uint32_t pfn, int type) {
  const int order = table_.At(pfn).order;
  Remove(zone, pfn);
  Push(zone, pfn, order, type, true);
}

void FreeLists::RotateToHead(FrameList& list, uint32_t pfn) {
  if (list.head == pfn) return;
  const uint32_t before = PrevOf(pfn);
  NextOf(list.tail) = list.head;
  PrevOf(list.head) = list.tail;
  NextOf(before) = kNoFrame;
  PrevOf(pfn) = kNoFrame;
  list.head = pfn;
  list.tail = before;
}

void FreeLists::RotateToTail(FrameList& list, uint32_t pfn) {
  if (list.tail != pfn) RotateToHead(list, NextOf(pfn));
}

void FreeLists::ForEach(const Zone& zone, int order, int type, absl::FunctionRef<void(uint32_t pfn)> visit) const {
  uint32_t at = zone.free_area[order].lists[type].head;
  while (at != kNoFrame) {
    if (const Frame* frame = table_.Find(at)) {
      visit(at);
      at = frame->next;
      continue;
    }
    const auto entry = Holding(at);
    const Untouched& run = entry->second;
    for (uint32_t i = 0; i < run.blocks; ++i) {
      const uint32_t place = run.descending ? run.blocks - 1 - i : i;
      visit(entry->first + (place << run.order));
    }
    at = run.next;
  }
}

int FreeLists::ZoneOf(uint32_t pfn) const {
  int last = 0;
  for (const Zone& zone : zones_) {
    if (zone.spanned == 0) continue;
    if (pfn < zone.end_pfn()) return zone.index;
    last = zone.index;
  }
  return last;
}

bool FreeLists::IsBootSlab(uint32_t pfn) const {
  return std::any_of(boot_slabs_.begin(), boot_slabs_.end(), [&](const auto& range) { return range.first <= pfn && pfn < range.second; });
}

static Frame BootSlabFrame() {
  Frame frame;
  frame.state = FrameState::kSlab;
  frame.refcount = 1;
  frame.mapping = kBootSlabMapping;
  return frame;
}

void FreeLists::FillBootSlabs(FrameBlock& block, uint32_t base) const {
  for (const auto& [first, end] : boot_slabs_) {
    for (uint32_t pfn = std::max(first, base); pfn < std::min(end, base + FrameBlock::kFrames); ++pfn) {
      Frame& frame = block.frames[pfn - base];
      const uint8_t zone = frame.zone;
      frame = BootSlabFrame();
      frame.zone = zone;
    }
  }
}

int FreeLists::BootPageblockType(uint32_t pfn) const {
  const uint32_t first = pfn & ~(pageblock_pages() - 1);
  if (first < zones_[ZoneOf(pfn)].start_pfn || IsBootSlab(first)) return kMigrateUnmovable;
  const auto after = std::upper_bound(ram_.begin(), ram_.end(), first, [](uint32_t at, const auto& range) { return at < range.first; });
  return after != ram_.begin() && first < std::prev(after)->second ? kMigrateMovable : kMigrateUnmovable;
}

int FreeLists::UntouchedPageblockType(uint32_t pfn) const {
  const auto entry = Holding(pfn);
  return entry != untouched_.end() && entry->second.type == kMigrateCma ? kMigrateCma : BootPageblockType(pfn);
}

void FreeLists::SetBootTypes(FrameBlock& block, uint32_t base) const {
  for (uint32_t offset = 0; offset < FrameBlock::kFrames; offset += pageblock_pages()) {
    block.PageblockAt(offset, pageblock_order_).type = static_cast<uint8_t>(BootPageblockType(base + offset));
    if (block.zone_split <= offset || block.zone_split >= offset + pageblock_pages()) continue;
    block.PageblockAt(block.zone_split, pageblock_order_).type = static_cast<uint8_t>(BootPageblockType(base + block.zone_split));
  }
}

void FreeLists::SetPageblockType(uint32_t pfn, int type) {
  (void)frame(pfn);
  table_.BlockOf(pfn)->PageblockAt(pfn & (FrameBlock::kFrames - 1), pageblock_order_).type = static_cast<uint8_t>(type);
}

void FreeLists::AddUntouched(Zone& zone, uint32_t pfn, int order, int type, uint32_t blocks, bool descending) {
  FreeArea& area = zone.free_area[order];
  FrameList& list = area.lists[type];
  Untouched entry;
  entry.prev = descending ? kNoFrame : list.tail;
  entry.next = descending ? list.head : kNoFrame;
  entry.blocks = blocks;
  entry.zone = static_cast<uint8_t>(zone.index);
  entry.order = static_cast<uint8_t>(order);
  entry.type = static_cast<uint8_t>(type);
  entry.descending = descending;
  if (FrameBlock* block = table_.BlockOf(pfn)) {
    MMLAB_CHECK(blocks == 1);
    FillFree(*block, pfn, entry, entry.prev, entry.next);
    Link(list, pfn, entry.prev, entry.next);
  } else {
    untouched_.emplace(pfn, entry);
    Link(list, NameOf(pfn, entry), entry.prev, entry.next);
  }
  list.count += blocks;
  area.nr_free += blocks;
}

// Writes into the metadata what an entry of one block (or one block of a run) stood for.
void FreeLists::FillFree(FrameBlock& block, uint32_t pfn, const Untouched& entry, uint32_t prev, uint32_t next) {
  const uint32_t first = pfn & (FrameBlock::kFrames - 1);
  const uint32_t count = 1u << entry.order;
  for (uint32_t i = 0; i < count; ++i) {
    Frame& frame = block.frames[first + i];
    frame.state = FrameState::kFree;
    frame.order = i == 0 ? entry.order : kTailOrder;
    frame.migrate_type = entry.type;
    frame.zone = entry.zone;
  }
  block.frames[first].prev = prev;
  block.frames[first].next = next;
  if (entry.type != kMigrateCma) return;
  for (uint32_t i = 0; i < count; i += pageblock_pages()) block.PageblockAt(first + i, pageblock_order_).type = kMigrateCma;
}

// Takes the block at `base` out of a run and puts it, with metadata, between what is left of the run on both sides.
void FreeLists::SplitRun(FrameBlock& block, uint32_t base, UntouchedMap::iterator run) {
  const Untouched old = run->second;
  const uint32_t lowest = run->first;
  const uint32_t end = lowest + old.blocks * FrameBlock::kFrames;
  const uint32_t beyond = base + FrameBlock::kFrames;
  FrameList& list = zones_[old.zone].free_area[old.order].lists[old.type];
  untouched_.erase(run);

  Untouched low = old;
  low.blocks = (base - lowest) / FrameBlock::kFrames;
  Untouched high = old;
  high.blocks = (end - beyond) / FrameBlock::kFrames;
  // In list order: what is before the block, the block, what is after it.
  const bool has_before = old.descending ? high.blocks > 0 : low.blocks > 0;
  const bool has_after = old.descending ? low.blocks > 0 : high.blocks > 0;
  const uint32_t before_name = old.descending ? NameOf(beyond, high) : NameOf(lowest, low);
  const uint32_t after_name = old.descending ? NameOf(lowest, low) : NameOf(beyond, high);

  const uint32_t prev = has_before ? before_name : old.prev;
  const uint32_t next = has_after ? after_name : old.next;
  Untouched& before = old.descending ? high : low;
  Untouched& after = old.descending ? low : high;
  before.next = base;
  after.prev = base;
  if (low.blocks > 0) untouched_.emplace(lowest, low);
  if (high.blocks > 0) untouched_.emplace(beyond, high);
  FillFree(block, base, old, prev, next);
  if (has_before) {
    Link(list, before_name, old.prev, base);
  } else {
    Link(list, base, old.prev, next);
  }
  if (has_after) {
    Link(list, after_name, base, old.next);
  } else {
    Link(list, base, prev, old.next);
  }
}

Frame& FreeLists::Materialise(uint32_t pfn) {
  const uint32_t base = pfn & ~(FrameBlock::kFrames - 1);
  FrameBlock& block = table_.Make(pfn);
  const int first_zone = ZoneOf(base);
  const bool one_zone = first_zone == ZoneOf(base + FrameBlock::kFrames - 1);
  for (uint32_t i = 0; i < FrameBlock::kFrames; ++i) {
    const int zone = one_zone ? first_zone : ZoneOf(base + i);
    block.frames[i].zone = static_cast<uint8_t>(zone);
    if (zone != first_zone && block.zone_split == FrameBlock::kFrames) block.zone_split = static_cast<uint16_t>(i);
  }
  for (const size_t half : {size_t{0}, size_t{2}}) {
    const size_t last = half == 0 ? size_t{block.zone_split} - 1 : FrameBlock::kFrames - 1;
    for (size_t i = 0; i < 2; ++i) block.pageblocks[half + i].zone = block.frames[last].zone;
  }
  SetBootTypes(block, base);
  FillBootSlabs(block, base);
  auto entry = Holding(base);
  if (entry != untouched_.end() && entry->second.order == kMaxOrder) {
    SplitRun(block, base, entry);
    return table_.At(pfn);
  }
  for (entry = untouched_.lower_bound(base); entry != untouched_.end() && entry->first < base + FrameBlock::kFrames;) {
    FillFree(block, entry->first, entry->second, entry->second.prev, entry->second.next);
    entry = untouched_.erase(entry);
  }
  return table_.At(pfn);
}

Frame FreeLists::Peek(uint32_t pfn) const {
  if (const Frame* frame = table_.Find(pfn)) return *frame;
  Frame frame;
  if (IsBootSlab(pfn)) frame = BootSlabFrame();
  frame.zone = static_cast<uint8_t>(ZoneOf(pfn));
  const auto entry = Holding(pfn);
  if (entry == untouched_.end()) return frame;
  frame.state = FrameState::kFree;
  frame.migrate_type = entry->second.type;
  frame.order = ((pfn - entry->first) & ((1u << entry->second.order) - 1)) == 0 ? entry->second.order : kTailOrder;
  return frame;
}

void FreeLists::ForEachTouched(absl::FunctionRef<void(uint32_t pfn, const FrameBlock& block)> visit) const {
  for (uint32_t slot = 0; slot < table_.block_slots(); ++slot) {
    const uint32_t pfn = slot << FrameBlock::kShift;
    if (const FrameBlock* block = table_.BlockOf(pfn)) visit(pfn, *block);
  }
}

uint64_t FreeLists::HostMemory() const { return table_.HostMemory() + untouched_.size() * (sizeof(Untouched) + sizeof(uint32_t)) * 4 / 3; }

}  // namespace mmlab

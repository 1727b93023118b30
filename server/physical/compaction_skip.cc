// Which page blocks are not looked at again, and where the scanners go on. The rules are those of the pageblock skip bits of
// mm/compaction.c.

#include <algorithm>

#include "server/physical/compact_control.h"

namespace mmlab {

uint32_t Compaction::BlockPages() const { return memory_.lists_.pageblock_pages(); }

bool Compaction::Skipped(const Zone& zone, uint32_t pfn) const {
  const std::vector<uint64_t>& skip = StateOf(zone).skip;
  const uint32_t block = pfn >> memory_.lists_.pageblock_order();
  return !skip.empty() && (skip[block / 64] >> (block % 64) & 1) != 0;
}

void Compaction::SetSkipped(const Zone& zone, uint32_t pfn, bool skipped) {
  std::vector<uint64_t>& skip = StateOf(zone).skip;
  const uint32_t block = pfn >> memory_.lists_.pageblock_order();
  if (skip.empty()) {
    if (!skipped) return;
    skip.resize((zone.end_pfn() >> memory_.lists_.pageblock_order()) / 64 + 1);
  }
  const uint64_t bit = uint64_t{1} << (block % 64);
  skip[block / 64] = skipped ? skip[block / 64] | bit : skip[block / 64] & ~bit;
}

// test_and_set_skip(): whether somebody marked it before; only the first page of a block tells.
bool Compaction::TestAndSetSkip(const Control& cc, uint32_t pfn) {
  if (cc.ignore_skip_hint || !AtBlockStart(pfn)) return false;
  const bool skipped = Skipped(*cc.zone, pfn);
  SetSkipped(*cc.zone, pfn, true);
  return skipped;
}

// update_cached_migrate()
void Compaction::NoteMigrateDone(Control& cc, uint32_t pfn) {
  const uint32_t next = BlockEnd(pfn);
  ZoneState& state = StateOf(*cc.zone);
  state.cached_migrate[0] = std::max(state.cached_migrate[0], next);
  if (cc.mode != Mode::kAsync) state.cached_migrate[1] = std::max(state.cached_migrate[1], next);
}

// update_pageblock_skip()
void Compaction::NoteFreeDone(Control& cc, uint32_t block) {
  SetSkipped(*cc.zone, block, true);
  ZoneState& state = StateOf(*cc.zone);
  state.cached_free = std::min(state.cached_free, block);
}

void Compaction::ResetPositions(const Zone& zone) {
  ZoneState& state = StateOf(zone);
  state.cached_migrate = {zone.start_pfn, zone.start_pfn};
  state.cached_free = BlockStart(zone.end_pfn() - 1);
}

// __reset_isolation_pfn(): whether the block may be a source, or a target, again: a sample of its pages shows one of that kind.
bool Compaction::ResetBlock(const Zone& zone, uint32_t pfn, bool source, bool target) {
  const FreeLists& lists = memory_.lists_;
  const Frame first = lists.Peek(pfn);
  if (first.zone != zone.index) return false;
  if ((first.flags & kPgHead) != 0 && first.order >= lists.pageblock_order()) return false;
  if (source && target && !Skipped(zone, pfn)) return true;
  if (!source && target && lists.PageblockType(pfn) != kMigrateMovable) return false;
  const uint32_t start = std::max(BlockStart(pfn), zone.start_pfn);
  const uint32_t last = std::min(BlockEnd(pfn), zone.end_pfn()) - 1;
  constexpr uint32_t kStep = 1u << kCostlyOrder;
  for (uint32_t at = start; at <= last; at += kStep) {
    const Frame frame = lists.Peek(at);
    const bool lru = (frame.flags & kPgLru) != 0;
    const bool free = frame.state == FrameState::kFree && frame.order != kTailOrder;
    if ((source && lru) || (target && free)) {
      SetSkipped(zone, start, false);
      return true;
    }
    if (InsideUntouchedRun(at)) return false;
  }
  return false;
}

// __reset_isolation_suitable(): from both ends of the zone towards its middle.
void Compaction::ResetZoneSkipped(const Zone& zone) {
  ZoneState& state = StateOf(zone);
  if (!state.blockskip_flush) return;
  state.blockskip_flush = false;
  int64_t up = zone.start_pfn;
  int64_t down = int64_t{zone.end_pfn()} - 1;
  int64_t source = down;
  int64_t target = up;
  bool source_set = false;
  bool target_set = false;
  for (; up < down; up += BlockPages(), down -= BlockPages()) {
    if (ResetBlock(zone, static_cast<uint32_t>(up), true, source_set) && up < source) {
      source_set = true;
      source = up;
      state.init_migrate = static_cast<uint32_t>(up);
      state.cached_migrate = {state.init_migrate, state.init_migrate};
    }
    if (ResetBlock(zone, static_cast<uint32_t>(down), target_set, true) && down > target) {
      target_set = true;
      target = down;
      state.init_free = state.cached_free = static_cast<uint32_t>(down);
    }
  }
  if (source < target) return;
  // Nothing to be done in between: the scanners stand together.
  state.cached_migrate = {static_cast<uint32_t>(up), static_cast<uint32_t>(up)};
  state.cached_free = static_cast<uint32_t>(std::max<int64_t>(down, 0));
}

void Compaction::ResetSkipped() {
  for (const Zone& zone : memory_.zones()) {
    if (zone.populated()) ResetZoneSkipped(zone);
  }
}

}  // namespace mmlab

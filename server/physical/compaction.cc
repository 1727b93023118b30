#include "server/physical/compaction.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/event.h"
#include "server/physical/compact_control.h"
#include "server/physical/fragmentation.h"
#include "server/physical/page_owner.h"

// When a zone is compacted and for how long: requests, compact_memory, kcompactd, and the rules that put it off.

namespace mmlab {
namespace {

constexpr uint32_t kMaxDeferShift = 6;          // COMPACT_MAX_DEFER_SHIFT
constexpr int64_t kLookInterval = 500'000'000;  // HPAGE_FRAG_CHECK_INTERVAL_MSEC, ns.

std::array<uint64_t, kOrders> FreeBlocks(const Zone& zone) {
  std::array<uint64_t, kOrders> blocks{};
  for (size_t order = 0; order < blocks.size(); ++order) blocks[order] = zone.free_area[order].nr_free;
  return blocks;
}

}  // namespace

absl::string_view CompactResultName(CompactResult result) {
  constexpr absl::string_view kNames[] = {"not_suitable_zone", "skipped",         "deferred",  "no_suitable_page", "continue",
                                          "complete",          "partial_skipped", "contended", "success"};
  return kNames[static_cast<size_t>(result)];
}

Compaction::Compaction(BuddyMemory& memory, PageOwner& users, PageOwner& holders, Tracer& tracer, int64_t now_nanoseconds)
    : memory_(memory), users_(users), holders_(holders), tracer_(tracer), next_look_(now_nanoseconds + kLookInterval) {}

// --- Putting it off. ---

void Compaction::Defer(const Zone& zone, int order) {
  ZoneState& state = StateOf(zone);
  state.considered = 0;
  state.defer_shift = std::min(state.defer_shift + 1, kMaxDeferShift);
  state.order_failed = std::min(state.order_failed, order);
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmCompactionDeferCompaction,
                 {0, zone.name(), order, state.order_failed, state.considered, 1u << state.defer_shift});
  }
}

bool Compaction::Deferred(const Zone& zone, int order) {
  ZoneState& state = StateOf(zone);
  const uint32_t limit = 1u << state.defer_shift;
  if (order < state.order_failed) return false;
  if (++state.considered >= limit) {
    state.considered = limit;
    return false;
  }
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmCompactionDeferred, {0, zone.name(), order, state.order_failed, state.considered, limit});
  }
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kCompactionDeferred, absl::StrCat("zone ", zone.name(), " is not compacted: that failed lately"))
        .Text("zone", zone.name())
        .Number("order", order)
        .Number("order_failed", state.order_failed)
        .Number("considered", state.considered)
        .Number("limit", limit);
  }
  return true;
}

void Compaction::DeferReset(const Zone& zone, int order, bool succeeded) {
  ZoneState& state = StateOf(zone);
  if (succeeded) state.considered = state.defer_shift = 0;
  state.order_failed = std::max(state.order_failed, order + 1);
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmCompactionDeferReset,
                 {0, zone.name(), order, state.order_failed, state.considered, 1u << state.defer_shift});
  }
}

// compaction_restarting(): this is the first attempt after the longest time of putting it off.
bool Compaction::Restarting(const Zone& zone, int order) const {
  const ZoneState& state = StateOf(zone);
  return order >= state.order_failed && state.defer_shift == kMaxDeferShift && state.considered >= 1u << state.defer_shift;
}

void Compaction::NoteSuccess(int zone, int order) {
  StateOf(memory_.zones()[static_cast<size_t>(zone)]).blockskip_flush = false;
  DeferReset(memory_.zones()[static_cast<size_t>(zone)], order, true);
}

// --- Whether it can help. ---

// __compaction_suitable(). *mark: what is needed in single pages.
CompactResult Compaction::Suitable(const Zone& zone, int order, uint32_t alloc_flags, int highest_zone, int64_t free_pages,
                                   uint64_t* mark) const {
  if (order < 0) return CompactResult::kContinue;
  const uint64_t wanted = memory_.WatermarkOf(zone, alloc_flags);
  *mark = wanted;
  if (memory_.WatermarkOk(zone, order, wanted, highest_zone, alloc_flags, static_cast<int64_t>(zone.free_pages()))) {
    return CompactResult::kSuccess;
  }
  *mark = (order > kCostlyOrder ? zone.wmark_low : zone.wmark_min) + zone.watermark_boost + CompactGap(order);
  return memory_.WatermarkOk(zone, 0, *mark, highest_zone, BuddyMemory::kAllocCma, free_pages) ? CompactResult::kContinue
                                                                                               : CompactResult::kSkipped;
}

// compaction_suitable()
CompactResult Compaction::CheckSuitable(const Zone& zone, int order, uint32_t alloc_flags, int highest_zone) const {
  uint64_t mark = 0;
  CompactResult result = Suitable(zone, order, alloc_flags, highest_zone, static_cast<int64_t>(zone.free_pages()), &mark);
  int64_t index = -1000;
  if (result == CompactResult::kContinue && order > kCostlyOrder) {
    // Low: memory is short rather than in pieces, and compacting it would be in vain.
    index = FragmentationIndex(FreeBlocks(zone), order);
    if (index >= 0 && index <= settings_.extfrag_threshold) result = CompactResult::kNotSuitableZone;
  }
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmCompactionSuitable, {0, zone.name(), order, CompactResultName(result)});
  }
  if (Explanation* why = tracer_.explanation(); why != nullptr && order >= 0) {
    const char* text = result == CompactResult::kContinue  ? "compacting the zone can help"
                       : result == CompactResult::kSuccess ? "the zone has a block that is large enough already"
                       : result == CompactResult::kSkipped ? "the zone has too few free pages to be compacted"
                                                           : "the zone is short of memory rather than fragmented";
    ExplanationStep& step = why->Add(StepKind::kCompactionSuitable, text);
    step.Text("zone", zone.name()).Number("order", order).Pages("free", PageCount(zone.free_pages())).Pages("needed", PageCount(mark));
    if (order > kCostlyOrder) step.Number("fragmentation_index", index).Number("threshold", settings_.extfrag_threshold);
  }
  return result == CompactResult::kNotSuitableZone ? CompactResult::kSkipped : result;
}

bool Compaction::SuitableAfterReclaim(const CompactRequest& request, const std::array<uint64_t, kZones>& reclaimable) const {
  for (int index = request.preferred_zone; index >= 0; --index) {
    const Zone& zone = memory_.zones()[static_cast<size_t>(index)];
    if (!zone.populated()) continue;
    const uint64_t available = reclaimable[static_cast<size_t>(index)] / static_cast<uint64_t>(request.order) + zone.free_pages_exact();
    uint64_t mark = 0;
    if (Suitable(zone, request.order, request.alloc_flags, request.highest_zone, static_cast<int64_t>(available), &mark) ==
        CompactResult::kContinue) {
      return true;
    }
  }
  return false;
}

// --- One zone. ---

// __compact_finished()
CompactResult Compaction::RuleFinished(Control& cc) {
  const int shift = memory_.lists_.pageblock_order();
  if (cc.free_pfn >> shift <= cc.migrate_pfn >> shift) {
    ResetPositions(*cc.zone);
    if (cc.direct) StateOf(*cc.zone).blockskip_flush = true;
    return cc.whole_zone ? CompactResult::kComplete : CompactResult::kPartialSkipped;
  }
  if (cc.proactive) return ZoneScore(*cc.zone) > ScoreMark(true) ? CompactResult::kContinue : CompactResult::kSuccess;
  // A page block that was begun is finished, so that it is as empty as can be.
  if (cc.all() || !AtBlockStart(cc.migrate_pfn)) return CompactResult::kContinue;
  for (int order = cc.order; order <= kMaxOrder; ++order) {
    const FreeArea& area = cc.zone->free_area[order];
    if (!area.lists[cc.migrate_type].empty()) return CompactResult::kSuccess;
    if (cc.migrate_type == kMigrateMovable && !area.lists[kMigrateCma].empty()) return CompactResult::kSuccess;
    bool can_steal = false;
    if (memory_.FindFallback(area, order, cc.migrate_type, &can_steal) >= 0 && can_steal) return CompactResult::kSuccess;
  }
  return CompactResult::kNoSuitablePage;
}

CompactResult Compaction::Finished(Control& cc) {
  const CompactResult result = RuleFinished(cc);
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmCompactionFinished, {0, cc.zone->name(), cc.order, CompactResultName(result)});
  }
  return result == CompactResult::kNoSuitablePage ? CompactResult::kContinue : result;
}

void Compaction::PlaceScanners(Control& cc) {
  const Zone& zone = *cc.zone;
  ZoneState& state = StateOf(zone);
  const uint32_t last_block = BlockStart(zone.end_pfn() - 1);
  if (cc.whole_zone) {
    cc.migrate_pfn = zone.start_pfn;
    cc.free_pfn = last_block;
    return;
  }
  cc.migrate_pfn = state.cached_migrate[cc.mode != Mode::kAsync ? 1 : 0];
  cc.free_pfn = state.cached_free;
  if (!zone.Spans(cc.free_pfn)) cc.free_pfn = state.cached_free = last_block;
  if (!zone.Spans(cc.migrate_pfn)) {
    cc.migrate_pfn = zone.start_pfn;
    state.cached_migrate = {zone.start_pfn, zone.start_pfn};
  }
  if (cc.migrate_pfn <= state.init_migrate) cc.whole_zone = true;
}

// The loop of compact_zone().
CompactResult Compaction::Run(Control& cc) {
  ZoneState& state = StateOf(*cc.zone);
  // As long as nothing was found to be moved, it does not matter in which mode that was.
  bool same_place = cc.mode == Mode::kAsync && state.cached_migrate[0] == state.cached_migrate[1];
  uint32_t last_migrated = 0;
  while (true) {
    const CompactResult result = Finished(cc);
    if (result != CompactResult::kContinue) return result;
    const uint32_t began = cc.migrate_pfn;
    cc.rescan = BlockStart(last_migrated) == BlockStart(began);
    const Isolated isolated = IsolateMigratePages(cc);
    if (isolated == Isolated::kNone) {
      if (same_place) state.cached_migrate[1] = state.cached_migrate[0];
    } else {
      same_place = false;
      last_migrated = began;
      uint64_t moved = 0;
      bool no_target = false;
      if (!MigratePages(cc, &moved, &no_target)) {
        PutBack(cc);
        const int shift = memory_.lists_.pageblock_order();
        if (no_target && cc.free_pfn >> shift > cc.migrate_pfn >> shift) return CompactResult::kContended;
        if (cc.optimistic()) {
          const uint32_t step = 1u << cc.order;
          cc.migrate_pfn = ((cc.migrate_pfn - 1) & ~(step - 1)) + step;
          last_migrated = 0;
        }
      }
    }
    // What was freed merges once the scanner has left the block of the order that is wanted.
    if (cc.order > 0 && last_migrated != 0 && last_migrated < (cc.migrate_pfn & ~((1u << cc.order) - 1))) {
      users_.DrainLru();
      memory_.DrainZone(*cc.zone, cc.zone->pcp[memory_.cpu_]);
      last_migrated = 0;
    }
    if (memory_.capture_ != nullptr && memory_.capture_->pfn != kNoFrame) return CompactResult::kSuccess;
  }
}

void Compaction::ReleaseFreePages(Control& cc) {
  if (free_pages_.empty()) return;
  uint32_t highest = 0;
  while (!free_pages_.empty()) {
    const uint32_t pfn = free_pages_.back();
    free_pages_.pop_back();
    highest = std::max(highest, pfn);
    memory_.FreePages(Pfn(pfn), PageOrder(0));
  }
  ZoneState& state = StateOf(*cc.zone);
  state.cached_free = std::max(state.cached_free, BlockStart(highest));
}

CompactResult Compaction::CompactZone(Control& cc) {
  const Zone& zone = *cc.zone;
  const CompactResult suitable = CheckSuitable(zone, cc.order, cc.alloc_flags, cc.highest_zone);
  if (suitable != CompactResult::kContinue) return suitable;
  if (Restarting(zone, cc.order)) ResetZoneSkipped(zone);
  PlaceScanners(cc);
  const absl::string_view mode = cc.mode == Mode::kAsync ? "async" : "sync";
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmCompactionBegin, {zone.start_pfn, cc.migrate_pfn, cc.free_pfn, zone.end_pfn(), mode});
  }
  users_.DrainLru();
  const CompactResult result = Run(cc);
  ReleaseFreePages(cc);
  memory_.vm_stat_.Count(VmEvent::kCompactMigrateScanned, cc.migrate_scanned);
  memory_.vm_stat_.Count(VmEvent::kCompactFreeScanned, cc.free_scanned);
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmCompactionEnd,
                 {zone.start_pfn, cc.migrate_pfn, cc.free_pfn, zone.end_pfn(), mode, CompactResultName(result)});
  }
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kCompactionFinished, absl::StrCat("compaction of zone ", zone.name(), " ended"))
        .Text("zone", zone.name())
        .Number("order", cc.order)
        .Pages("moved", PageCount(cc.moved))
        .Number("migrate_scanned", static_cast<int64_t>(cc.migrate_scanned))
        .Number("free_scanned", static_cast<int64_t>(cc.free_scanned))
        .Text("result", CompactResultName(result));
  }
  return result;
}

// --- Requests. ---

CompactResult Compaction::CompactOneZone(Zone& zone, const CompactRequest& request, CompactPriority priority, uint32_t* captured) {
  Control cc;
  cc.zone = &zone;
  cc.order = cc.search_order = request.order;
  cc.gfp = request.gfp;
  cc.migrate_type = BuddyMemory::TypeOf(request.gfp);
  cc.alloc_flags = request.alloc_flags;
  cc.highest_zone = request.highest_zone;
  cc.mode = priority == CompactPriority::kAsync ? Mode::kAsync : Mode::kSyncLight;
  cc.direct = true;
  cc.whole_zone = cc.ignore_skip_hint = cc.ignore_block_suitable = priority == CompactPriority::kSyncFull;
  BuddyMemory::Capture capture{zone.index, request.order};
  memory_.capture_ = &capture;
  CompactResult result = CompactZone(cc);
  memory_.capture_ = nullptr;
  *captured = capture.pfn;
  if (*captured != kNoFrame) result = CompactResult::kSuccess;
  return result;
}

CompactResult Compaction::TryToCompact(const CompactRequest& request, CompactPriority priority, uint32_t* captured) {
  CompactResult best = CompactResult::kSkipped;
  *captured = kNoFrame;
  if ((request.gfp & kGfpIo) == 0) return best;
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmCompactionTryToCompactPages, {request.order, GfpText(request.gfp), static_cast<int>(priority)});
  }
  for (int index = request.preferred_zone; index >= 0; --index) {
    Zone& zone = memory_.lists_.zones()[static_cast<size_t>(index)];
    if (!zone.populated()) continue;
    if (priority > CompactPriority::kSyncFull && Deferred(zone, request.order)) {
      best = std::max(best, CompactResult::kDeferred);
      continue;
    }
    const CompactResult result = CompactOneZone(zone, request, priority, captured);
    best = std::max(best, result);
    if (result == CompactResult::kSuccess) {
      DeferReset(zone, request.order, false);
      break;
    }
    const bool in_vain = result == CompactResult::kComplete || result == CompactResult::kPartialSkipped;
    if (priority != CompactPriority::kAsync && in_vain) Defer(zone, request.order);
  }
  return best;
}

uint64_t Compaction::CompactAll() {
  users_.DrainLru();
  uint64_t moved = 0;
  for (Zone& zone : memory_.lists_.zones()) {
    if (!zone.populated()) continue;
    Control cc;
    cc.zone = &zone;
    cc.mode = Mode::kSync;
    cc.whole_zone = cc.ignore_skip_hint = true;
    CompactZone(cc);
    moved += cc.moved;
  }
  return moved;
}

// --- kcompactd. ---

void Compaction::WakeKcompactd(int order, int highest_zone) {
  if (order == 0) return;
  kcompactd_order_ = std::max(kcompactd_order_, order);
  kcompactd_zone_ = std::min(kcompactd_zone_, highest_zone);
  if (kcompactd_woken_) return;
  for (int index = 0; index <= kcompactd_zone_; ++index) {
    const Zone& zone = memory_.lists_.zones()[static_cast<size_t>(index)];
    if (zone.populated() && CheckSuitable(zone, kcompactd_order_, 0, kcompactd_zone_) == CompactResult::kContinue) kcompactd_woken_ = true;
  }
  if (!kcompactd_woken_) return;
  const Zone& highest = memory_.lists_.zones()[static_cast<size_t>(highest_zone)];
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmCompactionWakeupKcompactd, {0, order, highest.name()});
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kKcompactdWake, "memory is free, but in pieces: kcompactd is woken")
        .Number("order", order)
        .Text("highest_zone", highest.name());
  }
}

// kcompactd_do_work()
void Compaction::RunKcompactd() {
  if (!kcompactd_woken_) return;
  kcompactd_woken_ = false;
  const int order = kcompactd_order_;
  const int highest_zone = kcompactd_zone_;
  kcompactd_order_ = 0;
  kcompactd_zone_ = kZones - 1;
  CompactForKcompactd(order, highest_zone);
}

void Compaction::CompactForKcompactd(int order, int highest_zone) {
  VmStat& stat = memory_.vm_stat_;
  stat.Count(VmEvent::kCompactDaemonWake);
  if (EventSink* events = tracer_.events()) {
    const Zone& highest = memory_.lists_.zones()[static_cast<size_t>(highest_zone)];
    events->Emit(EventKind::kMmCompactionKcompactdWake, {0, order, highest.name()});
  }
  for (int index = 0; index <= highest_zone; ++index) {
    Zone& zone = memory_.lists_.zones()[static_cast<size_t>(index)];
    if (!zone.populated() || Deferred(zone, order)) continue;
    if (CheckSuitable(zone, order, 0, index) != CompactResult::kContinue) continue;
    Control cc;
    cc.zone = &zone;
    cc.order = cc.search_order = order;
    cc.highest_zone = highest_zone;
    const CompactResult result = CompactZone(cc);
    if (result == CompactResult::kSuccess) {
      DeferReset(zone, order, false);
    } else if (result == CompactResult::kPartialSkipped || result == CompactResult::kComplete) {
      for (PerCpuPages& pcp : zone.pcp) memory_.DrainZone(zone, pcp);
      Defer(zone, order);
    }
    stat.Count(VmEvent::kCompactDaemonMigrateScanned, cc.migrate_scanned);
    stat.Count(VmEvent::kCompactDaemonFreeScanned, cc.free_scanned);
  }
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmCompactionKcompactdSleep, {0});
}

uint32_t Compaction::ZoneScore(const Zone& zone) const {
  return static_cast<uint32_t>(UnusablePercent(FreeBlocks(zone), memory_.lists_.pageblock_order()));
}

// fragmentation_score_node(): small zones hardly count.
uint32_t Compaction::NodeScore() const {
  uint64_t present = 0;
  for (const Zone& zone : memory_.zones()) present += zone.present;
  uint64_t score = 0;
  for (const Zone& zone : memory_.zones()) score += uint64_t{zone.present} * ZoneScore(zone) / (present + 1);
  return static_cast<uint32_t>(score);
}

// fragmentation_score_wmark()
uint32_t Compaction::ScoreMark(bool low) const {
  const uint32_t mark = std::max(100u - static_cast<uint32_t>(settings_.proactiveness), 5u);
  return low ? mark : std::min(mark + 10, 100u);
}

// proactive_compact_node()
bool Compaction::CompactProactively() {
  const uint32_t before = NodeScore();
  for (Zone& zone : memory_.lists_.zones()) {
    if (!zone.populated()) continue;
    Control cc;
    cc.zone = &zone;
    cc.whole_zone = cc.ignore_skip_hint = cc.proactive = true;
    CompactZone(cc);
  }
  return NodeScore() < before;
}

void Compaction::AdvanceTo(int64_t now) {
  while (next_look_ <= now) {
    int64_t interval = kLookInterval;
    bool again = false;
    if (settings_.proactiveness > 0 && NodeScore() > ScoreMark(false)) {
      again = CompactProactively();
      if (!again) interval <<= kMaxDeferShift;
    }
    // The clock stops in the year 2262.
    const int64_t looks = again ? 1 : (now - next_look_) / interval + 1;
    if (__builtin_add_overflow(next_look_, looks * interval, &next_look_)) next_look_ = INT64_MAX;
    if (next_look_ == INT64_MAX) return;
  }
}

void Compaction::TriggerProactive(int64_t now) {
  if (settings_.proactiveness == 0) return;
  next_look_ = now;
  AdvanceTo(now);
}

// --- Proof and size. ---

void Compaction::CheckInvariants(std::vector<std::string>* problems) const {
  if (!migrate_pages_.empty() || !free_pages_.empty()) problems->push_back("compaction: pages are isolated between two calls");
  for (const Zone& zone : memory_.zones()) {
    const ZoneState& state = StateOf(zone);
    if (state.defer_shift > kMaxDeferShift || state.considered > 1u << state.defer_shift) {
      problems->push_back(absl::StrCat("compaction: zone ", zone.name(), " is put off for too long"));
    }
    if (state.cached_migrate[1] > state.cached_migrate[0]) {
      problems->push_back(absl::StrCat("compaction: zone ", zone.name(), ": the synchronous scanner is ahead"));
    }
  }
}

void Compaction::AddToHash(StateHasher& hasher) const {
  for (const ZoneState& state : zones_) {
    hasher.Add(uint64_t{state.cached_migrate[0]} << 32 | state.cached_migrate[1]);
    hasher.Add(uint64_t{state.cached_free} << 32 | state.init_free);
    hasher.Add(uint64_t{state.init_migrate} << 32 | state.considered);
    hasher.Add(uint64_t{state.defer_shift} << 32 | static_cast<uint32_t>(state.order_failed) << 1 | (state.blockskip_flush ? 1 : 0));
    for (size_t i = 0; i < state.skip.size(); ++i) {
      if (state.skip[i] == 0) continue;
      hasher.Add(i);
      hasher.Add(state.skip[i]);
    }
  }
  hasher.Add(uint64_t{static_cast<uint32_t>(kcompactd_order_)} << 32 | static_cast<uint32_t>(kcompactd_zone_) << 1 |
             (kcompactd_woken_ ? 1 : 0));
  hasher.Add(static_cast<uint64_t>(next_look_));
}

uint64_t Compaction::HostMemory() const {
  uint64_t bytes = sizeof(*this) + (migrate_pages_.capacity() + free_pages_.capacity()) * sizeof(uint32_t);
  for (const ZoneState& state : zones_) bytes += state.skip.capacity() * sizeof(uint64_t);
  return bytes;
}

}  // namespace mmlab

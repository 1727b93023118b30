// What is tried for a request that no zone can serve at once. The rules are those of __alloc_pages_slowpath() and what it calls.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/event.h"
#include "server/physical/compaction.h"
#include "server/physical/memory_pressure.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr int kMaxReclaimRetries = 16;  // MAX_RECLAIM_RETRIES
constexpr int kMaxCompactRetries = 16;  // MAX_COMPACT_RETRIES

absl::string_view PriorityName(CompactPriority priority) {
  constexpr absl::string_view kNames[] = {"COMPACT_PRIO_SYNC_FULL", "COMPACT_PRIO_SYNC_LIGHT", "COMPACT_PRIO_ASYNC"};
  return kNames[static_cast<size_t>(priority)];
}

// compact_result_to_feedback()
absl::string_view Feedback(CompactResult result) {
  if (result == CompactResult::kComplete) return "failed";
  const bool withdrawn =
      result == CompactResult::kDeferred || result == CompactResult::kContended || result == CompactResult::kPartialSkipped;
  return withdrawn ? "withdrawn" : "progress";
}

}  // namespace

// One request on its way through the slow path.
struct BuddyMemory::SlowRequest {
  Gfp gfp;
  int order;
  AllocContext context;
  uint32_t flags;
  uint64_t reclaimed = 0;  // did_some_progress
  int no_progress_loops = 0;
  int compaction_retries = 0;
  CompactPriority priority = CompactPriority::kSyncLight;  // DEF_COMPACT_PRIORITY
  CompactResult compacted = CompactResult::kSkipped;

  bool costly() const { return order > kCostlyOrder; }
  bool may_reclaim() const { return (gfp & kGfpDirectReclaim) != 0; }
  bool may_compact() const { return (gfp & kGfpIo) != 0; }  // gfp_compaction_allowed()
  CompactRequest ForCompaction() const { return {gfp, order, flags, context.highest_zone, context.preferred_zone}; }
};

// gfp_to_alloc_flags().
uint32_t BuddyMemory::SlowFlags(Gfp gfp, int order, const AllocContext& context) const {
  uint32_t flags = kAllocWmarkMin;
  if ((gfp & kGfpHigh) != 0) flags |= kAllocMinReserve;
  if ((gfp & kGfpKswapdReclaim) != 0) flags |= kAllocKswapd;
  if ((gfp & (kGfpDirectReclaim | kGfpNoMemalloc)) == 0) {
    flags |= kAllocNonBlock;
    if (order > 0 && (flags & kAllocMinReserve) != 0) flags |= kAllocHighatomic;
  }
  if (context.migrate_type == kMigrateMovable) flags |= kAllocCma;
  return flags;
}

uint32_t BuddyMemory::FromFreelist(const SlowRequest& request) {
  return LookAgain(request.gfp, request.order, request.flags, request.context);
}

void BuddyMemory::ExplainRequest(Gfp gfp, int order, uint32_t flags, const AllocContext& context) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  std::vector<absl::string_view> may;
  if ((flags & kAllocNoWatermarks) != 0) may.push_back("all of it");
  if ((flags & kAllocMinReserve) != 0) may.push_back("half (__GFP_HIGH)");
  if ((flags & kAllocMinReserve) != 0 && (flags & kAllocNonBlock) != 0) may.push_back("a quarter of the rest (cannot wait)");
  if ((flags & kAllocHighatomic) != 0) may.push_back("the high-order atomic reserve");
  std::vector<std::string> left_out;
  for (const Zone& zone : lists_.zones()) {
    if (zone.index <= context.highest_zone || zone.managed == 0) continue;
    const char* reason = zone.highmem && (gfp & kGfpZoneHighmem) == 0
                             ? "without __GFP_HIGHMEM: the kernel has no address for its pages until it maps them with kmap()"
                         : zone.type == ZoneType::kMovable ? "without __GFP_MOVABLE: what is there must be able to move"
                                                           : "the caller asks for lower addresses";
    left_out.push_back(absl::StrCat(zone.name(), " (", reason, ")"));
  }
  const bool low = (flags & kAllocWmarkMask) == kAllocWmarkLow;
  why->Add(StepKind::kRequestZones, low ? "the zones that the request may use, highest first, each against its low watermark"
                                        : "once more, each zone against its min watermark")
      .Text("gfp", GfpText(gfp))
      .Number("order", order)
      .Text("highest_zone", lists_.zones()[static_cast<size_t>(context.highest_zone)].name())
      .Text("preferred_zone",
            context.preferred_zone == kNoZone ? "none" : lists_.zones()[static_cast<size_t>(context.preferred_zone)].name())
      .Text("zones_left_out", left_out.empty() ? "none" : absl::StrJoin(left_out, ", "))
      .Text("migrate_type", MigrateTypeName(context.migrate_type))
      .Truth("cma", (flags & kAllocCma) != 0)
      .Text("may_ignore_of_watermark", may.empty() ? "nothing" : absl::StrJoin(may, ", "));
}

uint32_t BuddyMemory::AllocSlowpath(Gfp gfp, int order, const AllocContext& context) {
  SlowRequest request{gfp, order, context, SlowFlags(gfp, order, context)};
  // Whoever frees memory gets what it needs for that from the reserves, and without asking for more to be freed.
  const bool freeing = std::exchange(freeing_, true);
  const auto done = [&](uint32_t pfn) {
    freeing_ = freeing;
    return pfn;
  };
  if (!freeing) WakeDaemons(request);
  ExplainRequest(gfp, order, request.flags, context);
  uint32_t pfn = FromFreelist(request);
  if (pfn != kNoFrame) return done(pfn);
  const bool ignores_watermarks = (gfp & (kGfpMemalloc | kGfpNoMemalloc)) == kGfpMemalloc || (freeing && (gfp & kGfpNoMemalloc) == 0);
  // There are pages enough, most likely, so that nothing need be reclaimed; and what stays where it is should not spoil more page blocks.
  const bool compact_first = order > 0 && (request.costly() || context.migrate_type != kMigrateMovable);
  if (compact_first && request.may_reclaim() && request.may_compact() && !ignores_watermarks && !freeing) {
    const CompactPriority later = std::exchange(request.priority, CompactPriority::kAsync);
    pfn = AfterCompaction(request);
    if (pfn != kNoFrame) return done(pfn);
    if (!request.costly() || (gfp & kGfpNoRetry) == 0) {
      request.priority = later;
    } else if (compaction_ != nullptr && (request.compacted == CompactResult::kSkipped || request.compacted == CompactResult::kDeferred)) {
      return done(kNoFrame);
    }
  }
  if (ignores_watermarks) {
    request.flags = kAllocNoWatermarks | (request.flags & (kAllocKswapd | kAllocCma));
    ExplainRequest(gfp, order, request.flags, context);
  }
  pfn = FromFreelist(request);
  if (pfn != kNoFrame || !request.may_reclaim() || freeing) return done(pfn);
  pfn = pressure_ != nullptr ? RetryUntilGone(request) : AllocByDraining(request);
  if (pfn == kNoFrame && (gfp & kGfpNoFail) != 0) {
    request.flags |= kAllocMinReserve;
    pfn = FromFreelist(request);
  }
  return done(pfn);
}

// Nobody frees memory: what the CPUs hold and the high-order reserve come back, as when reclaim finds nothing.
uint32_t BuddyMemory::AllocByDraining(const SlowRequest& request) {
  DrainAllPages();
  uint32_t pfn = FromFreelist(request);
  if (pfn == kNoFrame && UnreserveHighatomic(request.context, true)) pfn = FromFreelist(request);
  return pfn;
}

// Reclaim and compaction in turn, as long as there is hope; then somebody has to die.
uint32_t BuddyMemory::RetryUntilGone(SlowRequest& request) {
  while (true) {
    uint32_t pfn = AfterReclaim(request);
    if (pfn == kNoFrame) pfn = AfterCompaction(request);
    if (pfn != kNoFrame || (request.gfp & kGfpNoRetry) != 0) return pfn;
    if (request.costly() && (!request.may_compact() || (request.gfp & kGfpRetryMayFail) == 0)) return kNoFrame;
    bool again = ReclaimAgain(request);
    if (!again && request.reclaimed > 0 && request.may_compact()) again = CompactAgain(request);
    if (!again) {
      // What the CPUs hold is no use to anybody while a process is killed for want of it.
      pfn = AllocByDraining(request);
      if (pfn == kNoFrame) pfn = AfterKilling(request);
      return pfn;
    }
    WakeDaemons(request);
    pfn = FromFreelist(request);
    if (pfn != kNoFrame) return pfn;
  }
}

// Wakes kswapd, and kcompactd for what it leaves to be done. False: there is nothing for it to do.
bool BuddyMemory::RunKswapd(Gfp gfp, int order, int highest_zone) {
  bool boosted = false;
  for (int zone = 0; zone <= highest_zone; ++zone) boosted = boosted || lists_.zones()[static_cast<size_t>(zone)].watermark_boost != 0;
  if (!pressure_->WakeKswapd(gfp, order, highest_zone)) return false;
  if (compaction_ == nullptr) return true;
  if (boosted) compaction_->WakeKcompactd(lists_.pageblock_order(), highest_zone);
  compaction_->ResetSkipped();
  compaction_->WakeKcompactd(order, highest_zone);
  return true;
}

// wake_all_kswapds()
void BuddyMemory::WakeDaemons(const SlowRequest& request) {
  if (pressure_ == nullptr || (request.flags & kAllocKswapd) == 0) return;
  const int highest = request.context.highest_zone;
  if (RunKswapd(request.gfp, request.order, highest) || request.may_reclaim() || compaction_ == nullptr) return;
  compaction_->WakeKcompactd(request.order, highest);
}

// What rmqueue() does when a page block was stolen for the request.
void BuddyMemory::WakeForBoost() {
  if (boosted_zone_ == kNoZone) [[likely]]
    return;
  const int zone = std::exchange(boosted_zone_, kNoZone);
  if (pressure_ == nullptr || std::exchange(freeing_, true)) return;
  RunKswapd(0, 0, zone);
  freeing_ = false;
}

// __alloc_pages_direct_reclaim()
uint32_t BuddyMemory::AfterReclaim(SlowRequest& request) {
  request.reclaimed = pressure_->DirectReclaim(request.gfp, request.order, request.context.highest_zone);
  if (request.reclaimed == 0) return kNoFrame;
  const uint32_t pfn = FromFreelist(request);
  if (pfn != kNoFrame) return pfn;
  // What was freed may be on the CPUs' lists, or kept for others.
  UnreserveHighatomic(request.context, false);
  DrainAllPages();
  return FromFreelist(request);
}

// __alloc_pages_direct_compact()
uint32_t BuddyMemory::AfterCompaction(SlowRequest& request) {
  if (request.order == 0 || compaction_ == nullptr) return kNoFrame;
  uint32_t pfn = kNoFrame;
  request.compacted = compaction_->TryToCompact(request.ForCompaction(), request.priority, &pfn);
  if (request.compacted == CompactResult::kSkipped) return kNoFrame;
  vm_stat_.Count(VmEvent::kCompactStall);
  if (pfn == kNoFrame) pfn = FromFreelist(request);
  if (pfn == kNoFrame) {
    vm_stat_.Count(VmEvent::kCompactFail);
    return kNoFrame;
  }
  compaction_->NoteSuccess(lists_.table().At(pfn).zone, request.order);
  vm_stat_.Count(VmEvent::kCompactSuccess);
  return pfn;
}

// zone_reclaimable_pages()
uint64_t BuddyMemory::ReclaimablePages(const Zone& zone) const {
  uint64_t pages = zone.stat(ZoneStat::kNrZoneInactiveFile) + zone.stat(ZoneStat::kNrZoneActiveFile);
  if (pressure_->CanReclaimAnonymous()) pages += zone.stat(ZoneStat::kNrZoneInactiveAnon) + zone.stat(ZoneStat::kNrZoneActiveAnon);
  return pages;
}

// should_reclaim_retry(): would the request be served if all that can be reclaimed were?
bool BuddyMemory::ReclaimAgain(SlowRequest& request) {
  // What is freed for costly orders need not lie together, so progress alone does not count there.
  request.no_progress_loops = request.reclaimed > 0 && !request.costly() ? 0 : request.no_progress_loops + 1;
  bool again = false;
  for (int index = request.context.preferred_zone; index >= 0 && !again && request.no_progress_loops <= kMaxReclaimRetries; --index) {
    const Zone& zone = lists_.zones()[static_cast<size_t>(index)];
    if (!zone.populated()) continue;
    const uint64_t reclaimable = ReclaimablePages(zone);
    const uint64_t available = reclaimable + zone.free_pages_exact();
    const uint64_t mark = zone.wmark_min + zone.watermark_boost;
    again = WatermarkOk(zone, request.order, mark, request.context.highest_zone, request.flags, static_cast<int64_t>(available));
    if (EventSink* events = tracer_.events()) {
      events->Emit(EventKind::kReclaimRetryZone,
                   {0, zone.name(), request.order, reclaimable, available, mark, request.no_progress_loops, again});
    }
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kAllocationRetry, absl::StrCat("if all that can be reclaimed of zone ", zone.name(),
                                                        " were free, the request would", again ? "" : " still not", " be served"))
          .Number("order", request.order)
          .Pages("reclaimable", PageCount(reclaimable))
          .Pages("available", PageCount(available))
          .Pages("watermark", PageCount(mark))
          .Number("no_progress_loops", request.no_progress_loops)
          .Truth("again", again);
    }
  }
  return again || UnreserveHighatomic(request.context, true);
}

// should_compact_retry(): another attempt, perhaps a harder one.
bool BuddyMemory::CompactAgain(SlowRequest& request) {
  if (request.order == 0 || compaction_ == nullptr) return false;
  const CompactResult result = request.compacted;
  if (result == CompactResult::kSuccess) ++request.compaction_retries;
  const int most = request.costly() ? kMaxCompactRetries / 4 : kMaxCompactRetries;
  const int retries = request.compaction_retries;
  const CompactPriority priority = request.priority;
  bool again = false;
  if (result == CompactResult::kSkipped) {
    std::array<uint64_t, kZones> reclaimable{};
    for (const Zone& zone : zones()) reclaimable[static_cast<size_t>(zone.index)] = ReclaimablePages(zone);
    again = compaction_->SuitableAfterReclaim(request.ForCompaction(), reclaimable);
  } else if (Feedback(result) == "progress" && request.compaction_retries <= most) {
    again = true;
  } else if (priority > (request.costly() ? CompactPriority::kSyncLight : CompactPriority::kSyncFull)) {
    request.priority = static_cast<CompactPriority>(static_cast<int>(priority) - 1);
    request.compaction_retries = 0;
    again = true;
  }
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kCompactRetry, {request.order, PriorityName(priority), Feedback(result), retries, most, again});
  }
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kAllocationRetry, again ? "compaction is worth another attempt" : "compaction is given up")
        .Number("order", request.order)
        .Text("priority", PriorityName(priority))
        .Text("compaction_result", CompactResultName(result))
        .Number("retries", retries)
        .Number("max_retries", most)
        .Truth("again", again);
  }
  return again;
}

// __alloc_pages_may_oom(): the last resort of requests that killing somebody can help.
uint32_t BuddyMemory::AfterKilling(SlowRequest& request) {
  constexpr Gfp kGivesUp = kGfpNoRetry | kGfpRetryMayFail;
  if (request.costly()) return kNoFrame;
  if ((request.gfp & kGfpFs) == 0 || (request.gfp & kGivesUp) != 0 || request.context.highest_zone < normal_zone_) return kNoFrame;
  uint32_t pfn = kNoFrame;
  while (pfn == kNoFrame) {
    if (!pressure_->OutOfMemory(request.gfp, request.order, request.context.highest_zone)) break;
    DrainAllPages();
    pfn = FromFreelist(request);
    if (pfn == kNoFrame) pfn = AfterCompaction(request);
  }
  return pfn;
}

bool BuddyMemory::AboveHighWatermark(int zone_index, int highest_zone, int order) const {
  const Zone& zone = zones()[static_cast<size_t>(zone_index)];
  return zone.managed == 0 ||
         WatermarkOk(zone, order, zone.wmark_high + zone.watermark_boost, highest_zone, 0, static_cast<int64_t>(zone.free_pages()));
}

bool BuddyMemory::AboveLowWatermark(int zone_index, int highest_zone) const {
  const Zone& zone = zones()[static_cast<size_t>(zone_index)];
  return zone.managed == 0 ||
         WatermarkOk(zone, 0, zone.wmark_low + zone.watermark_boost, highest_zone, 0, static_cast<int64_t>(zone.free_pages()));
}

void BuddyMemory::SetReclaimActive(int zone, bool active) {
  uint32_t& flags = lists_.zones()[static_cast<size_t>(zone)].flags;
  flags = active ? flags | kZoneReclaimActive : flags & ~uint32_t{kZoneReclaimActive};
  RecomputeQuick();
}

}  // namespace mmlab

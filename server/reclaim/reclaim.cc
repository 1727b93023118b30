#include "server/reclaim/reclaim.h"

#include <algorithm>

#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/cgroup/cgroups.h"
#include "server/files/files.h"
#include "server/physical/page_allocator.h"
#include "server/physical/reverse_map.h"
#include "server/physical/shrinker.h"
#include "server/reclaim/oom_killer.h"
#include "server/reclaim/scan_control.h"

// When memory is freed and for how long: kswapd, direct reclaim, the killer.

namespace mmlab {
namespace {

constexpr int32_t kKswapdPid = 0;             // No task of the machine's.
constexpr int64_t kLightSleep = 100'000'000;  // Of kswapd, before it sleeps until it is woken; nanoseconds.

}  // namespace

Reclaim::Reclaim(BuddyMemory& memory, Cgroups& cgroups, Files& files, ReverseMap& reverse_map, PageTableWalker& walker, OomKiller& killer,
                 Tracer& tracer)
    : memory_(memory), cgroups_(cgroups), files_(files), reverse_map_(reverse_map), walker_(walker), killer_(killer), tracer_(tracer) {}

bool Reclaim::Balanced(int highest_zone, int order) const {
  // pgdat_balanced(): one zone above its high watermark is enough.
  for (int zone = 0; zone <= highest_zone; ++zone) {
    if (memory_.zones()[static_cast<size_t>(zone)].managed > 0 && memory_.AboveHighWatermark(zone, highest_zone, order)) return true;
  }
  return false;
}

bool Reclaim::hopeless() const { return kswapd_failures_ >= kMaxReclaimRetries; }

bool Reclaim::WakeKswapd(Gfp gfp, int order, int highest_zone) {
  (void)gfp;
  const bool boosted = Boost(highest_zone) > 0;
  if (hopeless() || (Balanced(highest_zone, order) && !boosted)) return false;
  // It is awake already, and goes on when what it wrote is on the disk.
  if (kswapd_waits_) return true;
  if (Explanation* why = tracer_.explanation()) {
    ExplanationStep& step = why->Add(
        StepKind::kKswapdWake, boosted ? "page blocks were stolen and watermarks boosted, so that larger blocks stay free: kswapd is woken"
                                       : "no zone that the request may use is above its low watermark: kswapd is woken");
    step.Number("order", order).Number("highest_zone", highest_zone);
    for (int zone = 0; zone <= highest_zone; ++zone) {
      const Zone& of = memory_.zones()[static_cast<size_t>(zone)];
      if (of.managed == 0) continue;
      step.Text("zone", of.name()).Pages("free", PageCount(of.free_pages())).Pages("low", PageCount(of.wmark_low));
      step.Pages("high", PageCount(of.wmark_high)).Pages("boost", PageCount(of.watermark_boost));
    }
  }
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmVmscanWakeupKswapd, {0, order, GfpText(gfp)});
  kswapd_zone_ = highest_zone;
  kswapd_order_ = order;
  if (now_ != nullptr && *now_ < kswapd_dozes_until_) memory_.vm_stat().Count(VmEvent::kKswapdLowWmarkHitQuickly);
  memory_.vm_stat().Count(VmEvent::kPageoutrun);
  const ActingAs kswapd(tracer_.events(), kKswapdPid, "kswapd0");
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmVmscanKswapdWake, {0, order});
  BalanceNode(highest_zone, order, true);
  return true;
}

void Reclaim::ContinueKswapd() {
  kswapd_waits_ = false;
  const ActingAs kswapd(tracer_.events(), kKswapdPid, "kswapd0");
  if (!Balanced(kswapd_zone_, kswapd_order_)) BalanceNode(kswapd_zone_, kswapd_order_, false);
}

// kswapd_try_to_sleep(): first it sleeps lightly, to see whether the node stays balanced; one that is not keeps it awake.
void Reclaim::TryToSleep(bool balanced) {
  kswapd_dozes_until_ = 0;
  if (hopeless() || now_ == nullptr) return;
  if (balanced) {
    kswapd_dozes_until_ = *now_ + kLightSleep;
  } else {
    memory_.vm_stat().Count(VmEvent::kKswapdHighWmarkHitQuickly);
  }
}

void Reclaim::AdvanceTime() {
  if (kswapd_dozes_until_ == 0 || *now_ < kswapd_dozes_until_) return;
  kswapd_dozes_until_ = 0;
  if (hopeless() || Balanced(kswapd_zone_, kswapd_order_)) return;
  memory_.vm_stat().Count(VmEvent::kKswapdHighWmarkHitQuickly);
  memory_.vm_stat().Count(VmEvent::kPageoutrun);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kKswapdWake, "a tenth of a second later no zone is above its high watermark any more: kswapd goes on")
        .Number("order", kswapd_order_)
        .Number("highest_zone", kswapd_zone_);
  }
  const ActingAs kswapd(tracer_.events(), kKswapdPid, "kswapd0");
  BalanceNode(kswapd_zone_, kswapd_order_, false);
}

// pgdat_watermark_boosted(): the pages that watermarks are boosted by.
uint64_t Reclaim::Boost(int highest_zone) const {
  uint64_t pages = 0;
  for (int zone = 0; zone <= highest_zone; ++zone) pages += memory_.zones()[static_cast<size_t>(zone)].watermark_boost;
  return pages;
}

// balance_pgdat(). While watermarks are boosted and a zone is above them all the same, as many clean pages of files go as the boost has.
void Reclaim::BalanceNode(int highest_zone, int order, bool until_written) {
  files_.DrainLru();
  for (int zone = 0; zone <= highest_zone; ++zone) memory_.SetReclaimActive(zone, true);
  ScanControl sc;
  sc.kswapd = true;
  sc.highest_zone = highest_zone;
  sc.order = order;
  bool balanced = false;
  uint64_t boost = Boost(highest_zone);
  while (sc.priority >= 1) {
    balanced = Balanced(highest_zone, order);
    if (!balanced && boost > 0) {
      boost = 0;
      sc.priority = kDefaultPriority;
    }
    if (balanced && boost == 0) break;
    sc.may_write = sc.may_swap = boost == 0;
    const bool deep_enough = boost > 0 && sc.priority == kDefaultPriority - 2;
    const uint64_t freed_before = sc.freed;
    sc.scanned = 0;
    sc.target = 0;
    for (int zone = 0; zone <= highest_zone; ++zone) {
      const Zone& of = memory_.zones()[static_cast<size_t>(zone)];
      if (of.managed > 0) sc.target += std::max<uint64_t>(of.wmark_high + of.watermark_boost, kSwapClusterMax);
    }
    const int64_t written = memory_.vm_stat().Get(NodeStat::kNrVmscanWrite);
    AgeNode(sc);
    ShrinkNode(sc);
    // Enough for compaction to make the block of (compact_gap()).
    if (sc.freed >= uint64_t{2} << order) order = sc.order = 0;
    const uint64_t freed = sc.freed - freed_before;
    boost -= std::min(boost, freed);
    if (boost > 0 && freed == 0) break;
    if ((sc.scanned < sc.target && !deep_enough) || freed == 0) --sc.priority;
    kswapd_waits_ = until_written && memory_.vm_stat().Get(NodeStat::kNrVmscanWrite) > written;
    if (kswapd_waits_) break;
  }
  WaitForDisk();
  if (!kswapd_waits_) kswapd_failures_ = sc.freed == 0 && !balanced ? kswapd_failures_ + 1 : 0;
  for (int zone = 0; zone <= highest_zone; ++zone) {
    memory_.SetReclaimActive(zone, false);
    memory_.DropWatermarkBoost(zone);
  }
  memory_.lru().root().refaults = memory_.lru().root().activations;
  node_dirty_ = false;
  if (!kswapd_waits_) TryToSleep(Balanced(highest_zone, order));
  if (EventSink* events = tracer_.events(); events != nullptr && !kswapd_waits_) events->Emit(EventKind::kMmVmscanKswapdSleep, {0});
  if (Explanation* why = tracer_.explanation()) {
    const char* reason = kswapd_waits_                   ? "kswapd waits until what it wrote is on the disk"
                         : Balanced(highest_zone, order) ? "a zone is above its high watermark: kswapd sleeps again"
                                                         : "kswapd found nothing more to free and gives up";
    why->Add(StepKind::kKswapdSleep, reason)
        .Pages("freed", PageCount(sc.freed))
        .Number("priority", sc.priority)
        .Number("failures", kswapd_failures_);
  }
}

bool Reclaim::MayReclaimDirectly() const {
  if (hopeless()) return true;
  uint64_t reserve = 0, free = 0;
  for (const Zone& zone : memory_.zones()) {
    if (zone.managed == 0 || zone.type > ZoneType::kNormal || memory_.ReclaimablePages(zone) == 0) continue;
    reserve += zone.wmark_min + zone.watermark_boost;
    free += zone.free_pages();
  }
  return reserve == 0 || free > reserve / 2;
}

uint64_t Reclaim::DirectReclaim(Gfp gfp, int order, int highest_zone) {
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmVmscanDirectReclaimBegin, {order, GfpText(gfp)});
  if (!MayReclaimDirectly()) memory_.vm_stat().Count(VmEvent::kPgscanDirectThrottle);
  files_.DrainLru();
  ScanControl sc;
  sc.highest_zone = highest_zone;
  sc.order = order;
  sc.target = kSwapClusterMax;
  constexpr auto kFirst = static_cast<int>(VmEvent::kAllocstallDma);
  const Zone& zone = memory_.zones()[static_cast<size_t>(highest_zone)];
  memory_.vm_stat().Count(static_cast<VmEvent>(kFirst + static_cast<int>(zone.type)));
  const uint64_t freed = TryToFree(sc);
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmVmscanDirectReclaimEnd, {freed});
  cgroups_.Stall(StallKind::kMemory, static_cast<int64_t>(freed) * Cgroups::kReclaimNanosecondsPerPage);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kDirectReclaim, "no zone is above its min watermark: the request waits and frees pages itself")
        .Number("order", order)
        .Pages("freed", PageCount(freed))
        .Pages("scanned", PageCount(sc.scanned_in_all))
        .Number("priority", sc.priority);
  }
  if (kswapd_waits_) ContinueKswapd();
  return freed;
}

uint64_t Reclaim::TryToFree(ScanControl& sc) {
  const uint64_t freed = TryByPriorities(sc);
  WaitForDisk();
  return freed;
}

// do_try_to_free_pages()
uint64_t Reclaim::TryByPriorities(ScanControl& sc) {
  while (true) {
    for (sc.priority = kDefaultPriority; sc.priority >= 0; --sc.priority) {
      sc.scanned = 0;
      ShrinkNode(sc);
      if (sc.freed >= sc.target) break;
    }
    Lruvec& target = memory_.lru().of(sc.target_memcg);
    target.refaults = target.activations;
    if (!sc.for_cgroup && sc.freed > 0) kswapd_failures_ = 0;
    // What the ratio of the lists kept on the active ones, and what memory.low protects, is taken before anybody is killed.
    if (sc.freed > 0 || (!sc.skipped_deactivate && !sc.low_skipped)) return sc.freed;
    if (sc.skipped_deactivate) {
      sc.force_deactivate = true;
      sc.skipped_deactivate = false;
      continue;
    }
    sc.force_deactivate = false;
    sc.low_reclaim = true;
    sc.low_skipped = false;
  }
}

uint64_t Reclaim::ReclaimCgroup(uint16_t memcg, uint64_t pages) {
  // try_to_free_mem_cgroup_pages() asks like user memory does, whoever is charged.
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmVmscanMemcgReclaimBegin, {0, GfpText(kGfpHighuserMovable)});
  }
  files_.DrainLru();
  ScanControl sc;
  sc.for_cgroup = true;
  sc.target_memcg = memcg;
  sc.highest_zone = static_cast<int>(memory_.zones().size()) - 1;
  sc.target = std::max(pages, kSwapClusterMax);
  const uint64_t freed = TryToFree(sc);
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmVmscanMemcgReclaimEnd, {freed});
  if (Explanation* why = tracer_.explanation()) {
    ExplanationStep& step = why->Add(StepKind::kCgroupReclaim, "pages of the cgroup and of those below it are freed");
    step.Text("cgroup", memcg == 0 ? "/" : cgroups_.memcg(memcg).path).Pages("wanted", PageCount(pages)).Pages("freed", PageCount(freed));
    step.Pages("scanned", PageCount(sc.scanned_in_all)).Number("priority", sc.priority).Truth("low_taken", sc.low_reclaim);
    if (memcg != 0) step.Pages("usage", PageCount(cgroups_.memcg(memcg).memory.usage));
  }
  return freed;
}

bool Reclaim::CgroupOutOfMemory(uint16_t memcg, Gfp gfp, int order) { return killer_.OutOfMemory({gfp, order, memcg, hopeless()}); }

bool Reclaim::ActingProcessDies() const { return killer_.ActingProcessDies(); }

void Reclaim::DrainLru() { files_.DrainLru(); }

void Reclaim::AllocationFailed(Gfp gfp, int order) { killer_.ReportFailure(gfp, order, hopeless()); }

bool Reclaim::OutOfMemory(Gfp gfp, int order, int /*highest_zone*/) {
  // Whoever empties a swap area is killed before anybody else, which ends it.
  return !files_.swap().emptying() && killer_.OutOfMemory({gfp, order, 0, hopeless()});
}

void Reclaim::ReclaimPages(const std::vector<Pfn>& pages) {
  ScanControl sc;
  sc.highest_zone = static_cast<int>(memory_.zones().size()) - 1;
  sc.ignore_references = true;
  isolated_.clear();
  for (const Pfn pfn : pages) {
    Frame& frame = memory_.frame(pfn);
    memory_.lru().Remove(pfn);
    frame.flags &= ~uint32_t{kPgActive};
    ++frame.refcount;
    isolated_.push_back(pfn);
  }
  ShrinkIsolated(sc);
  WaitForDisk();
}

void Reclaim::DropCaches(uint32_t bits) {
  if ((bits & 1) != 0) {
    memory_.vm_stat().Count(VmEvent::kDropPagecache);
    files_.DropClean();
  }
  if ((bits & 2) != 0) {
    memory_.vm_stat().Count(VmEvent::kDropSlab);
    for (Shrinker* shrinker : shrinkers_) {
      while (const uint64_t objects = shrinker->CountObjects()) {
        if (shrinker->ScanObjects(objects) == 0 || shrinker->CountObjects() >= objects) break;
      }
    }
  }
}

void Reclaim::AddToHash(StateHasher& hasher) const {
  hasher.Add(static_cast<uint64_t>(kswapd_failures_));
  hasher.Add((node_dirty_ ? 1 : 0) | (kswapd_waits_ ? 2 : 0));
  hasher.Add(static_cast<uint64_t>(kswapd_zone_) << 8 | static_cast<uint64_t>(kswapd_order_));
  hasher.Add(static_cast<uint64_t>(kswapd_dozes_until_));
  hasher.Add(swappiness_);
  const GenerationSettings& generations = generation_settings_;
  hasher.Add(uint64_t{generations.min_ttl_ms} << 3 | (generations.enabled ? 1 : 0) | (generations.walk_tables ? 2 : 0) |
             (generations.upper_tables ? 4 : 0));
}

}  // namespace mmlab

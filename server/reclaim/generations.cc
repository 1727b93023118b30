// MGLRU: which generation is old enough, which pages of it go, which move on. Linux: mm/vmscan.c (the aging, the eviction).
#include <algorithm>

#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/cgroup/cgroups.h"
#include "server/files/files.h"
#include "server/physical/page_allocator.h"
#include "server/reclaim/oom_killer.h"
#include "server/reclaim/reclaim.h"
#include "server/reclaim/scan_control.h"

namespace mmlab {
namespace {

constexpr int64_t kNanosecondsPerMs = 1'000'000;

// What comes back of what was evicted, of one tier of one kind, and how much it weighs (struct ctrl_pos).
struct Position {
  uint64_t refaulted = 0;
  uint64_t total = 0;
  uint64_t gain = 0;
};

// read_ctrl_pos()
Position PositionOf(const LruGenerations& generations, size_t kind, size_t tier, uint64_t gain) {
  return {generations.average_refaulted[kind][tier] + generations.refaulted[kind][tier],
          generations.average_total[kind][tier] + generations.evicted[kind][tier] + generations.kept[kind][tier], gain};
}

// positive_ctrl_err(): whether little of `value` comes back, or no larger a part than of `setpoint`.
bool NoWorse(const Position& setpoint, const Position& value, uint64_t batch) {
  return value.refaulted < batch ||
         value.refaulted * (setpoint.total + batch) * setpoint.gain <= (setpoint.refaulted + 1) * value.total * value.gain;
}

// The highest tier that is no worse than the setpoint; pages of those above are kept.
int HighestTier(const LruGenerations& generations, size_t kind, const Position& setpoint, uint64_t gain, uint64_t batch) {
  int tier = 1;
  while (tier < kTiers && NoWorse(setpoint, PositionOf(generations, kind, static_cast<size_t>(tier), gain), batch)) ++tier;
  return tier - 1;
}

}  // namespace

void Reclaim::SetGenerations(const GenerationSettings& settings) {
  generation_settings_ = settings;
  files_.DrainLru();
  memory_.lru().EnableGenerations(settings.enabled);
  reverse_map_.SetGenerations(settings.enabled);
}

// get_swappiness(): 0 as well where less than a batch could be swapped out.
uint32_t Reclaim::SwappinessOf(uint16_t memcg) const {
  if (!CanReclaimAnonymous() || cgroups_.SwapRoom(memcg, files_.swap().free_pages()) < memory_.lru().batch()) return 0;
  return swappiness_;
}

bool Reclaim::ShouldRunAging(const Lruvec& lruvec, const ScanControl& sc, bool can_swap, uint64_t* to_scan) const {
  const LruGenerations& generations = *lruvec.generations;
  const uint64_t max_seq = generations.max_seq;
  uint64_t young = 0, old = 0, total = 0;
  for (int kind = can_swap ? 0 : 1; kind < 2; ++kind) {
    for (uint64_t seq = generations.min_seq[static_cast<size_t>(kind)]; seq <= max_seq; ++seq) {
      const uint64_t pages = generations.Pages(seq, kind);
      total += pages;
      if (seq == max_seq) young += pages;
      if (seq + kMinGenerations == max_seq) old += pages;
    }
  }
  const bool online = lruvec.memcg == 0 || cgroups_.memcg(lruvec.memcg).online;
  *to_scan = online ? total >> sc.priority : total;
  // One generation more than cannot be evicted from is the aim, each with its share of the pages.
  const uint64_t oldest = generations.min_seq[can_swap ? 0 : 1];
  if (oldest + kMinGenerations > max_seq) return true;
  if (oldest + kMinGenerations < max_seq) return false;
  return young * kMinGenerations > total || old * (kMinGenerations + 2) < total;
}

// try_to_inc_max_seq(). Every table is walked; the kernel leaves out those where lately few pages were used (by a Bloom filter).
void Reclaim::Age(Lruvec& lruvec, bool can_swap) {
  const uint16_t memcg = lruvec.memcg;
  if (generation_settings_.walk_tables) {
    walker_.PromoteUsed([&](uint32_t cgroup) { return cgroups_.MemcgOf(cgroup) == memcg; }, memcg, can_swap);
  }
  const LruGenerations& generations = *lruvec.generations;
  if (Explanation* why = tracer_.explanation()) {
    const uint64_t max_seq = generations.max_seq;
    uint64_t young = 0, total = 0;
    for (int kind = 0; kind < 2; ++kind) {
      young += generations.Pages(max_seq, kind);
      for (uint64_t seq = generations.min_seq[static_cast<size_t>(kind)]; seq <= max_seq; ++seq) total += generations.Pages(seq, kind);
    }
    why->Add(StepKind::kGenerationAdded,
             "too much is young or too little is old: page tables were asked what was used, and a generation begins")
        .Text("cgroup", memcg == 0 ? "/" : cgroups_.memcg(memcg).path)
        .Number("max_seq", static_cast<int64_t>(max_seq) + 1)
        .Number("oldest_anon", static_cast<int64_t>(generations.min_seq[0]))
        .Number("oldest_file", static_cast<int64_t>(generations.min_seq[1]))
        .Pages("young", static_cast<int64_t>(young))
        .Pages("total", static_cast<int64_t>(total));
  }
  memory_.lru().AddGeneration(lruvec, can_swap);
}

// age_lruvec(). False: nothing of it may be evicted.
bool Reclaim::AgeLruvec(Lruvec& lruvec, const ScanControl& sc) {
  const bool can_swap = SwappinessOf(lruvec.memcg) > 0;
  if (lruvec.memcg != 0) {
    cgroups_.CalculateProtection(0, lruvec.memcg);
    const Memcg& memcg = cgroups_.memcg(lruvec.memcg);
    if (memcg.effective_min >= memcg.memory.usage) return false;
  }
  uint64_t to_scan = 0;
  const bool need_aging = ShouldRunAging(lruvec, sc, can_swap, &to_scan);
  if (generation_settings_.min_ttl_ms > 0) {
    const LruGenerations& generations = *lruvec.generations;
    const int64_t age = memory_.lru().now() - generations.born[LruGenerations::PlaceOf(generations.min_seq[1])];
    if (age < generation_settings_.min_ttl_ms * kNanosecondsPerMs) return false;
    if (to_scan == 0 && sc.priority != kDefaultPriority) return false;
  }
  if (need_aging) Age(lruvec, can_swap);
  return true;
}

// lru_gen_age_node()
void Reclaim::AgeGenerations(ScanControl& sc) {
  sc.last_freed = sc.freed;
  if (!sc.memcgs_need_aging) {
    sc.memcgs_need_aging = true;
    return;
  }
  bool evictable = false;
  const Cgroups::Pin pin(cgroups_);
  for (const uint16_t number : cgroups_.Subtree(0)) evictable |= AgeLruvec(memory_.lru().of(number), sc);
  if (evictable || generation_settings_.min_ttl_ms == 0 || sc.order > 0 || killer_.ActingProcessDies()) return;
  // All that is left was used within min_ttl_ms: rather one process less than all of them waiting for their pages.
  WaitForDisk();
  killer_.OutOfMemory({kGfpKernel, 0, 0, hopeless()});
}

// get_nr_to_scan()
uint64_t Reclaim::GenerationsToScan(Lruvec& lruvec, const ScanControl& sc, bool can_swap, bool* need_aging) {
  uint64_t to_scan = 0;
  *need_aging = ShouldRunAging(lruvec, sc, can_swap, &to_scan);
  if (!*need_aging) return to_scan;
  if (sc.priority != kDefaultPriority) {
    if (sc.kswapd) return 0;  // It ages the whole node itself.
    Age(lruvec, can_swap);
    return to_scan;
  }
  return lruvec.generations->min_seq[can_swap ? 0 : 1] + kMinGenerations <= lruvec.generations->max_seq ? to_scan : 0;
}

// should_abort_scan()
bool Reclaim::EnoughEvicted(const Lruvec& lruvec, uint64_t max_seq, ScanControl& sc, bool swapped) const {
  if (!sc.kswapd) {
    // Each cgroup is aged once at most, and whoever waits does not wait for more swapping than is needed.
    if (lruvec.generations->max_seq - max_seq > 1) return true;
    if (sc.freed >= sc.target && swapped) return true;
    if (sc.for_cgroup) return false;
  } else if (sc.freed - sc.last_freed < sc.target) {
    return false;
  }
  if (sc.priority > kDefaultPriority - 2) return false;
  for (int zone = 0; zone <= sc.highest_zone; ++zone) {
    const Zone& of = memory_.zones()[static_cast<size_t>(zone)];
    if (of.managed > 0 && (sc.kswapd ? of.wmark_high : of.wmark_low) > of.free_pages()) return false;
  }
  sc.freed += memory_.lru().batch();
  return true;
}

// lru_gen_shrink_lruvec()
void Reclaim::ShrinkGenerations(Lruvec& lruvec, ScanControl& sc) {
  files_.DrainLru();
  const uint64_t freed_before = sc.freed;
  const uint64_t max_seq = lruvec.generations->max_seq;
  bool need_aging = false;
  bool swapped = false;
  uint64_t scanned = 0;
  while (true) {
    const uint32_t swappiness = SwappinessOf(lruvec.memcg);
    const uint64_t to_scan = GenerationsToScan(lruvec, sc, swappiness > 0, &need_aging);
    if (to_scan == 0) return;
    const uint64_t now = EvictOldest(lruvec, sc, swappiness, &swapped);
    if (now == 0) return;
    scanned += now;
    if (scanned >= to_scan || EnoughEvicted(lruvec, max_seq, sc, swapped)) break;
  }
  if (sc.freed - freed_before >= memory_.lru().batch() && !need_aging) sc.memcgs_need_aging = false;
}

// sort_folio(). False: it may be taken.
bool Reclaim::SortPage(Lruvec& lruvec, Pfn pfn, const ScanControl& sc, size_t kind, int tier_limit) {
  LruLists& lru = memory_.lru();
  Frame& frame = memory_.frame(pfn);
  const int refs = LruRefsOf(frame);
  const int tier = LruTierOf(refs);
  if (kind == 1 && frame.state == FrameState::kAnon && (frame.flags & kPgDirty) != 0) {
    // Lazily freed, and written again since.
    lru.RemoveForReclaim(pfn);
    frame.flags |= kPgSwapBacked;
    lru.AddTail(pfn);
    return true;
  }
  if (tier > tier_limit || refs == 1 << kLruRefsWidth) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kPageSorted, "pages that are read as often as this one come back: it is kept for a generation")
          .Frame("pfn", pfn)
          .Number("tier", tier);
    }
    lruvec.generations->kept[kind][static_cast<size_t>(tier)] += CompoundPages(frame);
    memory_.CountPage(memory_.vm_stat(), frame, kind == 0 ? NodeStat::kWorkingsetActivateAnon : NodeStat::kWorkingsetActivateFile,
                      CompoundPages(frame));
    lru.MoveToNextGeneration(pfn, false, true);
    return true;
  }
  if (frame.zone > sc.highest_zone) {
    lru.MoveToNextGeneration(pfn, false, true);
    return true;
  }
  if ((frame.flags & kPgWriteback) != 0 || (kind == 1 && (frame.flags & kPgDirty) != 0)) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kPageSorted, "the page has to be written first: it goes as soon as that is done").Frame("pfn", pfn);
    }
    lru.MoveToNextGeneration(pfn, true, false);
    return true;
  }
  return false;
}

// isolate_folio()
void Reclaim::IsolateFromGeneration(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  if ((frame.flags & kPgReferenced) == 0) frame.flags &= ~uint32_t{kPgRefsMask | kPgWorkingset};
  memory_.lru().RemoveForReclaim(pfn);
  frame.flags &= ~uint32_t{kPgReclaim | kPgReferenced};
  ++frame.refcount;
  isolated_.push_back(pfn);
}

// scan_folios(): isolates up to a batch of pages of the oldest generation; how many were looked at.
uint64_t Reclaim::ScanOldest(Lruvec& lruvec, ScanControl& sc, size_t kind, int tier) {
  LruGenerations& generations = *lruvec.generations;
  if (generations.generations(static_cast<int>(kind)) == kMinGenerations) return 0;
  const uint64_t batch = memory_.lru().batch();
  const size_t place = LruGenerations::PlaceOf(generations.min_seq[kind]);
  uint64_t remaining = batch * kLruBatches;
  uint64_t scanned = 0, isolated = 0, sorted = 0;
  isolated_.clear();
  // The zone that the request wants most first, then downwards, those that it may not use last.
  for (int i = kZones; i > 0 && remaining > 0 && isolated < batch; --i) {
    FrameList& list = generations.lists[place][kind][static_cast<size_t>((sc.highest_zone + i) % kZones)];
    while (!list.empty() && remaining > 0 && isolated < batch) {
      const Pfn pfn(list.tail);
      const uint32_t pages = CompoundPages(memory_.frame(pfn));
      scanned += pages;
      if (SortPage(lruvec, pfn, sc, kind, tier)) {
        sorted += pages;
      } else {
        IsolateFromGeneration(pfn);
        isolated += pages;
      }
      --remaining;
    }
  }
  CountEvent(sc.kswapd ? VmEvent::kPgscanKswapd : VmEvent::kPgscanDirect, isolated, lruvec, sc);
  CountEvent(VmEvent::kPgrefill, sorted, lruvec, sc);
  memory_.vm_stat().Count(kind == 1 ? VmEvent::kPgscanFile : VmEvent::kPgscanAnon, isolated);
  sc.scanned += isolated;
  sc.scanned_in_all += isolated;
  return isolated > 0 || remaining == 0 ? scanned : 0;
}

// isolate_folios(): the kind whose first tier comes back less, weighed by vm.swappiness, unless one kind is a generation behind.
uint64_t Reclaim::IsolateOldest(Lruvec& lruvec, ScanControl& sc, uint32_t swappiness, size_t* kind) {
  const LruGenerations& generations = *lruvec.generations;
  const uint64_t batch = memory_.lru().batch();
  const auto first = [&](size_t of, uint64_t weight) { return PositionOf(generations, of, 0, weight); };
  const std::array<uint64_t, 2> gain = {swappiness, 200 - swappiness};
  int tier = -1;
  if (swappiness == 0) {
    *kind = 1;
  } else if (generations.min_seq[0] < generations.min_seq[1]) {
    *kind = 0;
  } else if (swappiness == 1 || swappiness == 200) {
    *kind = swappiness == 1 ? 1 : 0;
  } else {
    *kind = NoWorse(first(0, gain[0]), first(1, gain[1]), batch) ? 1 : 0;
    tier = HighestTier(generations, *kind, first(1 - *kind, gain[1 - *kind]), gain[*kind], batch);
  }
  for (int tries = swappiness == 0 ? 1 : 2; tries > 0; --tries) {
    // Any other tier has to have twice as many refaults as the first before it is kept.
    if (tier < 0) tier = HighestTier(generations, *kind, first(*kind, 1), 2, batch);
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kGenerationScan,
               *kind == 0 ? "anonymous pages of the oldest generation" : "pages of files of the oldest generation")
          .Text("cgroup", lruvec.memcg == 0 ? "/" : cgroups_.memcg(lruvec.memcg).path)
          .Number("generation", static_cast<int64_t>(generations.min_seq[*kind]))
          .Number("tier", tier)
          .Number("swappiness", swappiness)
          .Pages("anon_refaulted", static_cast<int64_t>(first(0, 1).refaulted))
          .Pages("anon_total", static_cast<int64_t>(first(0, 1).total))
          .Pages("file_refaulted", static_cast<int64_t>(first(1, 1).refaulted))
          .Pages("file_total", static_cast<int64_t>(first(1, 1).total));
    }
    if (const uint64_t scanned = ScanOldest(lruvec, sc, *kind, tier); scanned > 0) return scanned;
    *kind = 1 - *kind;
    tier = -1;
  }
  return 0;
}

// What shrink_folio_list() makes of what was isolated. What stays is young, but for pages that go when they are written; clean pages of
// which nothing is known are tried once more.
uint64_t Reclaim::ShrinkTaken(ScanControl& sc) {
  uint64_t freed = 0;
  std::vector<Pfn> again;
  for (const bool last : {false, true}) {
    for (const Pfn pfn : isolated_) {
      if (ShrinkPage(pfn, sc) == Fate::kFreed) {
        ++freed;
        MMLAB_CHECK(memory_.frame(pfn).refcount == 1);
        memory_.FreePages(pfn, PageOrder(0));
        continue;
      }
      Frame& frame = memory_.frame(pfn);
      const bool waits = (frame.flags & kPgReclaim) != 0 && (frame.flags & (kPgDirty | kPgWriteback)) != 0;
      if ((frame.flags & (kPgUnevictable | kPgMlocked)) != 0) {
        // Where it goes it has no age.
      } else if (waits) {
        if ((frame.flags & kPgWorkingset) != 0) frame.flags |= kPgReferenced;
      } else if (last || frame.mapcount > 0 || (frame.flags & (kPgActive | kPgReferenced | kPgDirty | kPgWriteback)) != 0) {
        frame.flags = (frame.flags & ~uint32_t{kPgRefsMask | kPgReferenced | kPgWorkingset}) | kPgActive;
      } else {
        again.push_back(pfn);
        continue;
      }
      PutBack(pfn);
    }
    isolated_.swap(again);
    again.clear();
  }
  isolated_.clear();
  reverse_map_.FlushUnmapped(false);
  EndWriteback();
  return freed;
}

// evict_folios()
uint64_t Reclaim::EvictOldest(Lruvec& lruvec, ScanControl& sc, uint32_t swappiness, bool* swapped) {
  size_t kind = 1;
  isolated_.clear();
  uint64_t scanned = IsolateOldest(lruvec, sc, swappiness, &kind);
  if (memory_.lru().DropEmptyGenerations(lruvec, swappiness > 0)) ++scanned;
  if (lruvec.generations->generations(swappiness == 0 ? 1 : 0) == kMinGenerations) scanned = 0;
  if (isolated_.empty()) return scanned;
  const uint64_t freed = ShrinkTaken(sc);
  sc.freed += freed;
  CountEvent(sc.kswapd ? VmEvent::kPgstealKswapd : VmEvent::kPgstealDirect, freed, lruvec, sc);
  memory_.vm_stat().Count(kind == 1 ? VmEvent::kPgstealFile : VmEvent::kPgstealAnon, freed);
  if (kind == 0) *swapped = true;
  return scanned;
}

}  // namespace mmlab

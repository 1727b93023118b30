// Which lists are gone through and how far. Linux: mm/vmscan.c (shrink_node() and below).
#include <algorithm>
#include <array>

#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/cgroup/cgroups.h"
#include "server/files/files.h"
#include "server/physical/page_allocator.h"
#include "server/physical/shrinker.h"
#include "server/reclaim/reclaim.h"
#include "server/reclaim/scan_control.h"

namespace mmlab {

const char* Reclaim::ReclaimFlags(bool file) { return file ? "RECLAIM_WB_FILE|RECLAIM_WB_ASYNC" : "RECLAIM_WB_ANON|RECLAIM_WB_ASYNC"; }

bool Reclaim::MayShrink(uint16_t number, ScanControl& sc) {
  if (number == 0) return true;
  cgroups_.CalculateProtection(sc.target_memcg, number);
  const Memcg& memcg = cgroups_.memcg(number);
  const bool below_min = memcg.effective_min >= memcg.memory.usage;
  const bool below_low = memcg.effective_low >= memcg.memory.usage;
  const bool passed_over = below_min || (below_low && !sc.low_reclaim);
  if (Explanation* why = tracer_.explanation(); why != nullptr && passed_over && memcg.memory.usage > 0) {
    why->Add(StepKind::kCgroupProtected, below_min ? "the cgroup uses no more than its memory.min protects: it is passed over"
                                                   : "the cgroup uses no more than its memory.low protects: others come first")
        .Text("cgroup", memcg.path)
        .Pages("usage", PageCount(memcg.memory.usage))
        .Pages("effective_min", PageCount(memcg.effective_min))
        .Pages("effective_low", PageCount(memcg.effective_low));
  }
  if (!below_min && below_low) {
    if (sc.low_reclaim) {
      cgroups_.CountMemcgEvent(number, MemcgEvent::kLow);
    } else {
      sc.low_skipped = true;
    }
  }
  return !passed_over;
}

void Reclaim::ShrinkNode(ScanControl& sc) {
  LruLists& lru = memory_.lru();
  sc.round_unqueued_dirty = sc.round_file_taken = sc.round_under_way = 0;
  PrepareScanCount(sc);
  const Cgroups::Pin pin(cgroups_);
  for (const uint16_t number : cgroups_.Subtree(sc.target_memcg)) {
    if (MayShrink(number, sc)) ShrinkLruvec(lru.of(number), sc);
  }
  if (!sc.for_cgroup) ShrinkShrinkers(sc);
  if (sc.kswapd && sc.round_unqueued_dirty == sc.round_file_taken) node_dirty_ = true;
  // reclaim_throttle(): as many as were met on their way to the disk can go in the next round.
  if (sc.round_under_way > 0) files_.WaitForWrites(files_.pages_under_way());
}

// shrink_slab() with do_shrink_slab()'s arithmetic for caches that are as easily made again as a page is read (DEFAULT_SEEKS).
void Reclaim::ShrinkShrinkers(ScanControl& sc) {
  for (Shrinker* shrinker : shrinkers_) {
    const uint64_t freeable = shrinker->CountObjects();
    const uint64_t scan = std::min(2 * freeable, (freeable >> sc.priority) * 4 / 2);
    if (scan == 0) continue;
    const uint64_t before = memory_.free_pages().raw();
    memory_.vm_stat().Count(VmEvent::kSlabsScanned, shrinker->ScanObjects(scan));
    const uint64_t after = memory_.free_pages().raw();
    if (after > before) sc.freed += after - before;
  }
}

void Reclaim::AgeNode(ScanControl& sc) {
  if (memory_.lru().generations_enabled()) return AgeGenerations(sc);
  LruLists& lru = memory_.lru();
  if (!files_.swap().any() || !InactiveIsLow(lru.root(), LruKind::kInactiveAnon)) return;
  const Cgroups::Pin pin(cgroups_);
  for (const uint16_t number : cgroups_.Subtree(0)) ShrinkActive(lru.of(number), LruKind::kActiveAnon, kSwapClusterMax, sc);
}

void Reclaim::ShrinkLruvec(Lruvec& lruvec, ScanControl& sc) {
  if (memory_.lru().generations_enabled()) return ShrinkGenerations(lruvec, sc);
  ScanCounts left = CountsToScan(lruvec, sc);
  ScanCounts targets = left;
  const bool all_of_it = !sc.for_cgroup && !sc.kswapd && sc.priority == kDefaultPriority;
  uint64_t freed = 0;
  while (left[0] > 0 || left[2] > 0 || left[3] > 0) {
    for (size_t i = 0; i < left.size(); ++i) {
      const uint64_t now = std::min(left[i], kSwapClusterMax);
      left[i] -= now;
      if (now > 0) freed += ShrinkList(lruvec, static_cast<LruKind>(i), now, sc);
    }
    if (freed < sc.target || all_of_it) continue;
    // Enough: the smaller kind is left alone, the other one is gone through as far as the smaller was.
    const uint64_t anon = left[0] + left[1];
    const uint64_t file = left[2] + left[3];
    if (anon == 0 || file == 0) break;
    const size_t smaller = file > anon ? 0 : 2;
    const uint64_t percentage = std::min(anon, file) * 100 / (targets[smaller] + targets[smaller + 1] + 1);
    left[smaller] = left[smaller + 1] = 0;
    for (size_t i = 2 - smaller; i < 4 - smaller; ++i) {
      const uint64_t scanned = targets[i] - left[i];
      const uint64_t wanted = targets[i] * (100 - percentage) / 100;
      left[i] = wanted - std::min(wanted, scanned);
    }
  }
  sc.freed += freed;
  if (files_.swap().any() && InactiveIsLow(lruvec, LruKind::kInactiveAnon)) ShrinkActive(lruvec, LruKind::kActiveAnon, kSwapClusterMax, sc);
}

uint64_t Reclaim::ShrinkList(Lruvec& lruvec, LruKind kind, uint64_t pages, ScanControl& sc) {
  if (!IsActive(kind)) return ShrinkInactive(lruvec, kind, pages, sc);
  if (IsFile(kind) ? sc.deactivate_file : sc.deactivate_anon) {
    ShrinkActive(lruvec, kind, pages, sc);
  } else {
    sc.skipped_deactivate = true;
  }
  return 0;
}

uint64_t Reclaim::Isolate(Lruvec& lruvec, LruKind kind, uint64_t pages, const ScanControl& sc) {
  isolated_.clear();
  const uint64_t skipped = memory_.lru().Isolate(lruvec, kind, pages, sc.highest_zone, isolated_);
  if (EventSink* events = tracer_.events()) {
    constexpr std::array<const char*, 4> kNames = {"inactive_anon", "active_anon", "inactive_file", "active_file"};
    events->Emit(EventKind::kMmVmscanLruIsolate, {0, sc.highest_zone, sc.order, pages, isolated_.size() + skipped, skipped,
                                                  isolated_.size(), kNames[static_cast<size_t>(kind)]});
  }
  return isolated_.size();
}

void Reclaim::PutBack(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  if (--frame.refcount == 0) {
    memory_.FreePages(pfn, PageOrder(0));
    return;
  }
  memory_.lru().Add(pfn);
}

// What a cgroup's limit asks for counts for the cgroup alone, not for the node.
void Reclaim::CountEvent(VmEvent item, uint64_t times, const Lruvec& lruvec, const ScanControl& sc) {
  if (sc.for_cgroup) {
    memory_.lru().CountOnly(lruvec.memcg, item, times);
  } else {
    memory_.lru().Count(lruvec.memcg, item, times);
  }
}

// Goes through the pages that were isolated; how many were freed.
uint64_t Reclaim::ShrinkIsolated(ScanControl& sc) {
  sc.pages_written = sc.unqueued_dirty = sc.activated = sc.ref_kept = sc.unmap_failed = 0;
  uint64_t freed = 0;
  for (const Pfn pfn : isolated_) {
    if (const Fate fate = ShrinkPage(pfn, sc); fate != Fate::kFreed) {
      if (fate == Fate::kActivated) ++sc.activated;
      PutBack(pfn);
      continue;
    }
    ++freed;
    MMLAB_CHECK(memory_.frame(pfn).refcount == 1);
    memory_.FreePages(pfn, PageOrder(0));
  }
  reverse_map_.FlushUnmapped(false);
  EndWriteback();
  return freed;
}

// folio_end_writeback() of what the pages before these had written: it goes next. What these had is under way from now on.
void Reclaim::EndWriteback() {
  for (const Pfn pfn : under_way_) {
    memory_.frame(pfn).flags &= ~uint32_t{kPgWriteback | kPgReclaim};
    memory_.lru().RotateReclaimable(pfn);
  }
  under_way_.clear();
  under_way_.swap(written_);
}

void Reclaim::WaitForDisk() {
  EndWriteback();
  EndWriteback();
}

uint64_t Reclaim::ShrinkInactive(Lruvec& lruvec, LruKind kind, uint64_t pages, ScanControl& sc) {
  VmStat& stat = memory_.vm_stat();
  const bool file = IsFile(kind);
  const uint64_t taken = Isolate(lruvec, kind, pages, sc);
  CountEvent(sc.kswapd ? VmEvent::kPgscanKswapd : VmEvent::kPgscanDirect, taken, lruvec, sc);
  stat.Count(file ? VmEvent::kPgscanFile : VmEvent::kPgscanAnon, taken);
  sc.scanned += taken;
  sc.scanned_in_all += taken;
  if (taken == 0) return 0;
  const uint16_t memcg = lruvec.memcg;
  const uint64_t freed = ShrinkIsolated(sc);
  CountEvent(sc.kswapd ? VmEvent::kPgstealKswapd : VmEvent::kPgstealDirect, freed, lruvec, sc);
  stat.Count(file ? VmEvent::kPgstealFile : VmEvent::kPgstealAnon, freed);
  if (sc.pages_written > 0) memory_.lru().NoteCost(memcg, file, sc.pages_written);
  // Nothing but dirty pages: whoever writes them back is late.
  if (sc.unqueued_dirty == taken) files_.WriteAll();
  sc.round_unqueued_dirty += sc.unqueued_dirty;
  if (file) sc.round_file_taken += taken;
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmVmscanLruShrinkInactive,
                 {0, taken, freed, sc.unqueued_dirty, 0, 0, 0, file ? 0 : sc.activated, file ? sc.activated : 0, sc.ref_kept,
                  sc.unmap_failed, sc.priority, ReclaimFlags(file)});
  }
  return freed;
}

void Reclaim::ShrinkActive(Lruvec& lruvec, LruKind kind, uint64_t pages, const ScanControl& sc) {
  const uint64_t taken = Isolate(lruvec, kind, pages, sc);
  CountEvent(VmEvent::kPgrefill, taken, lruvec, sc);
  uint64_t deactivated = 0;
  for (const Pfn pfn : isolated_) {
    const PageReferences used = reverse_map_.TestClearReferenced(pfn);
    Frame& frame = memory_.frame(pfn);
    // Code that runs stays; anything else has to be used again from the inactive list.
    if (!(used.referenced > 0 && used.executable && IsFile(kind))) {
      frame.flags = (frame.flags & ~uint32_t{kPgActive}) | kPgWorkingset;
      ++deactivated;
    }
    PutBack(pfn);
  }
  memory_.lru().Count(lruvec.memcg, VmEvent::kPgdeactivate, deactivated);
  if (EventSink* events = tracer_.events()) {
    const uint64_t kept = taken - deactivated;
    events->Emit(EventKind::kMmVmscanLruShrinkActive, {0, taken, kept, deactivated, kept, sc.priority, ReclaimFlags(IsFile(kind))});
  }
}

}  // namespace mmlab

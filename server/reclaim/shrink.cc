// Which lists are gone through and how far. Linux: mm/vmscan.c (shrink_node() and below).
#include <algorithm>

#include "server/base/check.h"
#include "server/files/files.h"
#include "server/physical/page_allocator.h"
#include "server/physical/shrinker.h"
#include "server/reclaim/reclaim.h"
#include "server/reclaim/scan_control.h"

namespace mmlab {

void Reclaim::ShrinkNode(ScanControl& sc) {
  LruLists& lru = memory_.lru();
  sc.round_unqueued_dirty = sc.round_file_taken = 0;
  PrepareScanCount(sc);
  const std::vector<uint16_t> numbers = sc.cgroups == nullptr ? lru.Numbers() : *sc.cgroups;
  for (const uint16_t number : numbers) {
    ShrinkLruvec(lru.of(number), sc);
    // A cgroup's limit wants no more than it asked for; the node is shrunk evenly.
    if (sc.cgroups != nullptr && sc.freed >= sc.target) return;
  }
  if (sc.cgroups == nullptr) ShrinkShrinkers(sc);
  if (sc.kswapd && sc.round_unqueued_dirty == sc.round_file_taken) node_dirty_ = true;
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

void Reclaim::ShrinkLruvec(Lruvec& lruvec, ScanControl& sc) {
  ScanCounts left = CountsToScan(lruvec, sc);
  ScanCounts targets = left;
  const bool all_of_it = sc.cgroups == nullptr && !sc.kswapd && sc.priority == kDefaultPriority;
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
  LruLists& lru = memory_.lru();
  FrameList& list = lruvec.list(kind);
  isolated_.clear();
  const uint32_t all = list.count;
  for (uint32_t looked = 0; looked < all && isolated_.size() < pages && !list.empty(); ++looked) {
    const Pfn pfn(list.tail);
    Frame& frame = memory_.frame(pfn);
    if (frame.zone > sc.highest_zone) {
      constexpr auto kFirst = static_cast<int>(VmEvent::kPgskipDma);
      memory_.vm_stat().Count(static_cast<VmEvent>(kFirst + static_cast<int>(memory_.zones()[frame.zone].type)));
      lru.RotateToHead(pfn);
      continue;
    }
    lru.Remove(pfn);
    ++frame.refcount;
    isolated_.push_back(pfn);
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

// Goes through the pages that were isolated; how many were freed.
uint64_t Reclaim::ShrinkIsolated(ScanControl& sc) {
  sc.pages_written = sc.unqueued_dirty = 0;
  uint64_t freed = 0;
  for (const Pfn pfn : isolated_) {
    if (ShrinkPage(pfn, sc) != Fate::kFreed) {
      PutBack(pfn);
      continue;
    }
    ++freed;
    MMLAB_CHECK(memory_.frame(pfn).refcount == 1);
    memory_.FreePages(pfn, PageOrder(0));
  }
  EndWriteback();
  return freed;
}

// folio_end_writeback(): what was written goes next.
void Reclaim::EndWriteback() {
  for (const Pfn pfn : written_) {
    memory_.frame(pfn).flags &= ~uint32_t{kPgWriteback | kPgReclaim};
    memory_.lru().RotateReclaimable(pfn);
  }
  written_.clear();
}

uint64_t Reclaim::ShrinkInactive(Lruvec& lruvec, LruKind kind, uint64_t pages, ScanControl& sc) {
  VmStat& stat = memory_.vm_stat();
  const bool file = IsFile(kind);
  const uint64_t taken = Isolate(lruvec, kind, pages, sc);
  if (sc.cgroups == nullptr) stat.Count(sc.kswapd ? VmEvent::kPgscanKswapd : VmEvent::kPgscanDirect, taken);
  stat.Count(file ? VmEvent::kPgscanFile : VmEvent::kPgscanAnon, taken);
  sc.scanned += taken;
  sc.scanned_in_all += taken;
  if (taken == 0) return 0;
  const uint16_t memcg = memory_.frame(isolated_.front()).memcg;
  const uint64_t freed = ShrinkIsolated(sc);
  if (sc.cgroups == nullptr) stat.Count(sc.kswapd ? VmEvent::kPgstealKswapd : VmEvent::kPgstealDirect, freed);
  stat.Count(file ? VmEvent::kPgstealFile : VmEvent::kPgstealAnon, freed);
  if (sc.pages_written > 0) memory_.lru().NoteCost(memcg, file, sc.pages_written);
  // Nothing but dirty pages: whoever writes them back is late.
  if (sc.unqueued_dirty == taken) files_.SyncAll();
  sc.round_unqueued_dirty += sc.unqueued_dirty;
  if (file) sc.round_file_taken += taken;
  return freed;
}

void Reclaim::ShrinkActive(Lruvec& lruvec, LruKind kind, uint64_t pages, const ScanControl& sc) {
  VmStat& stat = memory_.vm_stat();
  const uint64_t taken = Isolate(lruvec, kind, pages, sc);
  if (sc.cgroups == nullptr) stat.Count(VmEvent::kPgrefill, taken);
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
  stat.Count(VmEvent::kPgdeactivate, deactivated);
}

}  // namespace mmlab

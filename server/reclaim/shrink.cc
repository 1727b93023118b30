// Which pages are looked at and what becomes of them. Linux: mm/vmscan.c (shrink_node() and below).
#include <algorithm>

#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/cgroup/cgroups.h"
#include "server/files/files.h"
#include "server/physical/page_allocator.h"
#include "server/physical/reverse_map.h"
#include "server/physical/shrinker.h"
#include "server/reclaim/reclaim.h"
#include "server/reclaim/scan_control.h"

namespace mmlab {
namespace {

LruKind ActiveOf(LruKind inactive) { return inactive == LruKind::kInactiveAnon ? LruKind::kActiveAnon : LruKind::kActiveFile; }

uint64_t SquareRoot(uint64_t value) {
  uint64_t root = 0;
  while ((root + 1) * (root + 1) <= value) ++root;
  return root;
}

}  // namespace

bool Reclaim::InactiveIsLow(const Lruvec& lruvec, LruKind inactive) const {
  const uint64_t old = lruvec.Pages(inactive);
  const uint64_t active = lruvec.Pages(ActiveOf(inactive));
  const uint64_t gib = (old + active) >> (30 - memory_.page_size().shift());
  return old * (gib > 0 ? SquareRoot(10 * gib) : 1) < active;
}

// prepare_scan_count(): active pages of files move on only when there are too few inactive ones, or pages come back that should have
// stayed.
void Reclaim::PrepareScanCount(ScanControl& sc) {
  const Lruvec& target = memory_.lru().of(sc.target_memcg);
  sc.deactivate_file = sc.force_deactivate || memory_.vm_stat().Get(NodeStat::kWorkingsetActivateFile) != refaults_ ||
                       InactiveIsLow(target, LruKind::kInactiveFile);
}

// get_scan_count() without swap: anonymous memory has nowhere to go, so only files are looked at, and what was lazily freed, which is on
// their lists.
std::array<uint64_t, 4> Reclaim::ScanCounts(const Lruvec& lruvec, ScanControl& sc) const {
  std::array<uint64_t, 4> counts{};
  for (const LruKind kind : {LruKind::kInactiveFile, LruKind::kActiveFile}) {
    const uint64_t pages = lruvec.Pages(kind, sc.highest_zone);
    uint64_t& count = counts[static_cast<size_t>(kind)];
    count = Unprotected(lruvec, pages, sc) >> sc.priority;
    // What a removed cgroup left behind goes a little faster.
    if (count == 0 && lruvec.memcg != 0 && !cgroups_.memcg(lruvec.memcg).online) count = std::min(pages, kSwapClusterMax);
  }
  return counts;
}

// The part of get_scan_count() about mem_cgroup_protection(): pressure in proportion to what is not protected.
uint64_t Reclaim::Unprotected(const Lruvec& lruvec, uint64_t pages, ScanControl& sc) const {
  if (lruvec.memcg == sc.target_memcg || lruvec.memcg == 0) return pages;
  const Memcg& memcg = cgroups_.memcg(lruvec.memcg);
  const uint64_t min = memcg.effective_min;
  const uint64_t low = memcg.effective_low;
  if (min == 0 && low == 0) return pages;
  uint64_t protection = min;
  if (!sc.low_reclaim && low > min) {
    protection = low;
    sc.low_skipped = true;
  }
  const uint64_t size = std::max(memcg.memory.usage, protection);
  return std::max(pages - pages * protection / (size + 1), kSwapClusterMax);
}

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
  PrepareScanCount(sc);
  const Cgroups::Pin pin(cgroups_);
  for (const uint16_t number : cgroups_.Subtree(sc.target_memcg)) {
    if (MayShrink(number, sc)) ShrinkLruvec(lru.of(number), sc);
  }
  if (!sc.for_cgroup) ShrinkShrinkers(sc);
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
  std::array<uint64_t, 4> left = ScanCounts(lruvec, sc);
  if (Explanation* why = tracer_.explanation(); why != nullptr && (left[0] | left[1] | left[2] | left[3]) != 0) {
    why->Add(StepKind::kScanBalance, "pages of files are looked at; there is no swap space for anonymous ones")
        .Number("priority", sc.priority)
        .Pages("inactive_file", PageCount(left[2]))
        .Pages("active_file", PageCount(left[3]));
  }
  const bool all_of_it = !sc.for_cgroup && !sc.kswapd && sc.priority == kDefaultPriority;
  uint64_t freed = 0;
  while (left[2] > 0 || left[3] > 0) {
    for (size_t i = 0; i < left.size(); ++i) {
      const uint64_t now = std::min(left[i], kSwapClusterMax);
      left[i] -= now;
      if (now > 0) freed += ShrinkList(lruvec, static_cast<LruKind>(i), now, sc);
    }
    if (freed >= sc.target && !all_of_it) break;
  }
  sc.freed += freed;
}

uint64_t Reclaim::ShrinkList(Lruvec& lruvec, LruKind kind, uint64_t pages, ScanControl& sc) {
  if (!IsActive(kind)) return ShrinkInactive(lruvec, kind, pages, sc);
  if (sc.deactivate_file) {
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

// What a cgroup's limit asks for counts for the cgroup alone, not for the node.
void Reclaim::CountEvent(VmEvent item, uint64_t times, const Lruvec& lruvec, const ScanControl& sc) {
  if (sc.for_cgroup) {
    memory_.lru().CountOnly(lruvec.memcg, item, times);
  } else {
    memory_.lru().Count(lruvec.memcg, item, times);
  }
}

uint64_t Reclaim::ShrinkInactive(Lruvec& lruvec, LruKind kind, uint64_t pages, ScanControl& sc) {
  VmStat& stat = memory_.vm_stat();
  const bool file = IsFile(kind);
  const uint64_t taken = Isolate(lruvec, kind, pages, sc);
  CountEvent(sc.kswapd ? VmEvent::kPgscanKswapd : VmEvent::kPgscanDirect, taken, lruvec, sc);
  stat.Count(file ? VmEvent::kPgscanFile : VmEvent::kPgscanAnon, taken);
  sc.scanned += taken;
  sc.scanned_in_all += taken;
  uint64_t freed = 0;
  for (const Pfn pfn : isolated_) {
    const Fate fate = ShrinkPage(pfn, sc);
    if (fate == Fate::kFreed) {
      ++freed;
      MMLAB_CHECK(memory_.frame(pfn).refcount == 1);
      memory_.FreePages(pfn, PageOrder(0));
      continue;
    }
    if (fate == Fate::kActivated && (memory_.frame(pfn).flags & kPgUnevictable) == 0) {
      memory_.frame(pfn).flags |= kPgActive;
      memory_.lru().Count(lruvec.memcg, VmEvent::kPgactivate);
    }
    PutBack(pfn);
  }
  CountEvent(sc.kswapd ? VmEvent::kPgstealKswapd : VmEvent::kPgstealDirect, freed, lruvec, sc);
  stat.Count(file ? VmEvent::kPgstealFile : VmEvent::kPgstealAnon, freed);
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
}

Reclaim::Fate Reclaim::Keep(Pfn pfn, Fate fate, const char* why_text) const {
  if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kPageKept, why_text).Frame("pfn", pfn);
  return fate;
}

// One turn of shrink_folio_list(). The page is off the lists and has one reference of ours.
Reclaim::Fate Reclaim::ShrinkPage(Pfn pfn, const ScanControl& sc) {
  Frame& frame = memory_.frame(pfn);
  const bool anonymous = frame.state == FrameState::kAnon;
  if ((frame.flags & (kPgUnevictable | kPgMlocked)) != 0) return Keep(pfn, Fate::kKept, "the page is locked in memory");
  // folio_check_references()
  const PageReferences used = reverse_map_.TestClearReferenced(pfn);
  const bool was_referenced = (frame.flags & kPgReferenced) != 0;
  frame.flags &= ~uint32_t{kPgReferenced};
  if (used.locked) return Keep(pfn, Fate::kActivated, "a VMA that maps the page is locked");
  if (used.referenced > 0) {
    frame.flags |= kPgReferenced;
    if (was_referenced || used.referenced > 1) return Keep(pfn, Fate::kActivated, "the page was used again: it becomes active");
    if (used.executable && (frame.flags & kPgSwapBacked) == 0) return Keep(pfn, Fate::kActivated, "the page holds code that runs");
    return Keep(pfn, Fate::kKept, "the page was used: it gets a second chance");
  }
  const int holders =
      frame.mapcount + 1 + (frame.state == FrameState::kFile || frame.state == FrameState::kShmem || (frame.flags & kPgSwapCache) != 0);
  if (frame.refcount != holders) return Keep(pfn, Fate::kKept, "somebody holds the page");
  if ((frame.flags & kPgSwapBacked) != 0) return Keep(pfn, Fate::kActivated, "there is no swap space for the page");
  if (frame.mapcount > 0 && reverse_map_.TryToUnmap(pfn) != UnmapOutcome::kUnmapped) {
    return Keep(pfn, Fate::kActivated, "the page could not be taken out of all page tables");
  }
  if ((frame.flags & kPgDirty) != 0) return Keep(pfn, Fate::kActivated, "the page is dirty: writeback has to come first");
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kPageEvicted, anonymous ? "the page was lazily freed and not written since: it goes"
                                               : "the page was not used lately and its file has its content: it goes")
        .Frame("pfn", pfn)
        .Number("priority", sc.priority);
  }
  if (anonymous) {
    memory_.lru().Count(frame.memcg, VmEvent::kPglazyfreed);
  } else {
    files_.Evict(pfn);
  }
  return Fate::kFreed;
}

}  // namespace mmlab

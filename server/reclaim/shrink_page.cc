// What becomes of one page. Linux: mm/vmscan.c (shrink_folio_list(), pageout(), __remove_mapping()).
#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/page_allocator.h"
#include "server/reclaim/reclaim.h"
#include "server/reclaim/scan_control.h"

namespace mmlab {
namespace {

// References of whatever keeps the page for later: a page cache or the swap cache.
int CacheReferences(const Frame& frame) {
  const bool of_file = (frame.state == FrameState::kFile || frame.state == FrameState::kShmem) && frame.mapping != 0;
  return of_file || (frame.flags & kPgSwapCache) != 0 ? 1 : 0;
}

}  // namespace

Reclaim::Fate Reclaim::Keep(Pfn pfn, Fate fate, const char* why_text) const {
  if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kPageKept, why_text).Frame("pfn", pfn);
  return fate;
}

// activate_locked: the page is not to be met again soon.
Reclaim::Fate Reclaim::Activate(Pfn pfn, const char* why_text) {
  Frame& frame = memory_.frame(pfn);
  if ((frame.flags & kPgSwapCache) != 0 && (files_.swap().full() || (frame.flags & kPgMlocked) != 0)) files_.swap().TryToFree(pfn);
  if ((frame.flags & (kPgMlocked | kPgUnevictable)) == 0) {
    frame.flags |= kPgActive;
    memory_.lru().Count(frame.memcg, VmEvent::kPgactivate);
  }
  return Keep(pfn, Fate::kActivated, why_text);
}

Reclaim::References Reclaim::CheckReferences(Pfn pfn, Frame& frame, const char** why) {
  const PageReferences used = reverse_map_.TestClearReferenced(pfn);
  const bool was_referenced = (frame.flags & kPgReferenced) != 0;
  const bool of_file = (frame.flags & kPgSwapBacked) == 0;
  frame.flags &= ~uint32_t{kPgReferenced};
  if (used.locked) {
    *why = "a VMA that maps the page is locked";
    return References::kActivate;
  }
  if (used.referenced > 0) {
    frame.flags |= kPgReferenced;
    *why = "the page was used again: it becomes active";
    if (was_referenced || used.referenced > 1) return References::kActivate;
    *why = "the page holds code that runs";
    if (used.executable && of_file) return References::kActivate;
    *why = "the page was used: it gets a second chance";
    return References::kKeep;
  }
  return was_referenced && of_file ? References::kReclaimClean : References::kReclaim;
}

bool Reclaim::AddToSwap(Pfn pfn, Frame& frame) {
  SwapAreas& swap = files_.swap();
  const std::optional<SwapEntry> entry = swap.Allocate(frame.memcg);
  if (Explanation* why = tracer_.explanation()) {
    ExplanationStep& step = why->Add(StepKind::kSwapSlot, entry.has_value() ? "the page gets a slot" : "no slot is free").Frame("pfn", pfn);
    if (entry.has_value()) step.Number("area", entry->area).Number("slot", entry->offset);
    step.Pages("free", static_cast<int64_t>(swap.free_pages()));
  }
  if (!entry.has_value()) return false;
  swap.AddToCache(pfn, *entry);
  frame.flags |= kPgDirty;
  return true;
}

// pageout(). The page is dirty and nobody maps it.
Reclaim::Fate Reclaim::WriteOut(Pfn pfn, Frame& frame, References references, ScanControl& sc) {
  VmStat& stat = memory_.vm_stat();
  const bool of_file = (frame.flags & kPgSwapBacked) == 0;
  if (of_file && !(sc.kswapd && (frame.flags & kPgReclaim) != 0 && node_dirty_)) {
    // Whoever writes back files is asked to hurry; when the page is written, it goes.
    stat.Add(NodeStat::kNrVmscanImmediateReclaim, 1);
    frame.flags |= kPgReclaim;
    return Activate(pfn, "the page is dirty: it goes as soon as it is written back");
  }
  if (references == References::kReclaimClean) return Keep(pfn, Fate::kKept, "the page was used and is dirty");
  if (!sc.may_write) return Keep(pfn, Fate::kKept, "the page is dirty, and nothing is written for a boost of the watermarks");
  if (frame.refcount != 1 + CacheReferences(frame)) return Keep(pfn, Fate::kKept, "somebody holds the page");
  reverse_map_.FlushUnmapped(true);
  if (of_file) {
    Inode* inode = files_.FindById(static_cast<uint32_t>(frame.mapping));
    MMLAB_CHECK(inode != nullptr);
    frame.flags |= kPgReclaim;
    files_.WritePage(*inode, pfn);
  } else {
    if ((frame.flags & kPgSwapCache) == 0 && !files_.MoveToSwap(pfn)) return Activate(pfn, "no swap space is left for the page of shmem");
    files_.swap().Write(pfn);
    stat.Add(NodeStat::kNrWritten, 1);
    frame.flags |= kPgWriteback | kPgReclaim;
    written_.push_back(pfn);
  }
  stat.Add(NodeStat::kNrVmscanWrite, 1);
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmVmscanWriteFolio, {pfn.raw(), ReclaimFlags(of_file)});
  ++sc.pages_written;
  return Keep(pfn, Fate::kKept, "the page is being written; then it goes");
}

// The page is clean and nobody maps it.
Reclaim::Fate Reclaim::Evict(Pfn pfn, Frame& frame, const ScanControl& sc) {
  const bool lazily_freed = frame.state == FrameState::kAnon && (frame.flags & kPgSwapBacked) == 0;
  if (frame.refcount != 1 + CacheReferences(frame)) return Keep(pfn, Fate::kKept, "somebody holds the page");
  if (!lazily_freed && CacheReferences(frame) == 0) return Keep(pfn, Fate::kKept, "nobody has a copy of the page");
  if (Explanation* why = tracer_.explanation()) {
    const char* reason = lazily_freed                        ? "the page was lazily freed and not written since: it goes"
                         : (frame.flags & kPgSwapCache) != 0 ? "the page was not used lately and its slot has its content: it goes"
                                                             : "the page was not used lately and its file has its content: it goes";
    why->Add(StepKind::kPageEvicted, reason).Frame("pfn", pfn).Number("priority", sc.priority);
  }
  if (lazily_freed) {
    memory_.lru().Count(frame.memcg, VmEvent::kPglazyfreed);
  } else if ((frame.flags & kPgSwapCache) != 0) {
    files_.swap().Evict(pfn, memory_.lru().NoteEviction(pfn, sc.target_memcg));
  } else {
    files_.Evict(pfn, sc.target_memcg);
  }
  return Fate::kFreed;
}

// One turn of shrink_folio_list(). The page is off the lists and has one reference of ours.
Reclaim::Fate Reclaim::ShrinkPage(Pfn pfn, ScanControl& sc) {
  Frame& frame = memory_.frame(pfn);
  if ((frame.flags & (kPgUnevictable | kPgMlocked)) != 0) return Activate(pfn, "the page is locked in memory");
  if ((frame.flags & kPgKsm) != 0) return Activate(pfn, "a merged page stays: who maps it is known to KSM alone");
  if ((frame.flags & kPgHead) != 0) {
    const char* why = nullptr;
    const References used = sc.ignore_references ? References::kReclaim : CheckReferences(pfn, frame, &why);
    if (used == References::kActivate) return Activate(pfn, why);
    if (used == References::kKeep) return Keep(pfn, Fate::kKept, why);
    // Only small pages are taken: this goes on with the first of them.
    if (!reverse_map_.SplitHuge(pfn)) return Activate(pfn, "the huge page is held, so that it can't be split");
  }
  // A fault or a write works on it: in the kernel its lock would be taken, or the fault would find its entry changed and start again.
  if (frame.refcount != frame.mapcount + 1 + CacheReferences(frame)) return Keep(pfn, Fate::kKept, "somebody holds the page");
  if ((frame.flags & kPgWriteback) != 0) {
    frame.flags |= kPgReclaim;
    ++sc.round_under_way;
    return Activate(pfn, "the page is being written: it goes as soon as that is done");
  }
  if (frame.state == FrameState::kFile && (frame.flags & kPgDirty) != 0) ++sc.unqueued_dirty;
  // A walk of page tables met it while it was off the lists.
  const bool promoted = memory_.lru().generations_enabled() && frame.mapcount > 0 && (frame.flags & kPgReferenced) != 0;
  if (promoted && !sc.ignore_references) return Keep(pfn, Fate::kKept, "page tables say that the page was used");
  References references = References::kReclaim;
  if (!sc.ignore_references) {
    const char* why = nullptr;
    references = CheckReferences(pfn, frame, &why);
    if (references == References::kActivate) return Activate(pfn, why);
    if (references == References::kKeep) {
      ++sc.ref_kept;
      return Keep(pfn, Fate::kKept, why);
    }
  }
  const bool swap_backed = (frame.flags & kPgSwapBacked) != 0;
  if (frame.state == FrameState::kAnon && swap_backed && (frame.flags & kPgSwapCache) == 0 && !AddToSwap(pfn, frame)) {
    return Activate(pfn, "there is no swap space for the page");
  }
  if (frame.mapcount > 0 && reverse_map_.TryToUnmap(pfn) != UnmapOutcome::kUnmapped) {
    ++sc.unmap_failed;
    return Activate(pfn, "the page could not be taken out of all page tables");
  }
  // The only copy of a page of shmem is here, whatever it says.
  const bool only_copy = frame.state == FrameState::kShmem && (frame.flags & kPgSwapCache) == 0;
  if ((frame.flags & kPgDirty) != 0 || only_copy) {
    return WriteOut(pfn, frame, references, sc);
  }
  return Evict(pfn, frame, sc);
}

}  // namespace mmlab

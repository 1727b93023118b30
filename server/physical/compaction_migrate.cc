// Moving what the scanners chose. The rules are those of migrate_pages().

#include "server/base/event.h"
#include "server/physical/compact_control.h"
#include "server/physical/page_owner.h"
#include "server/physical/reverse_map.h"

namespace mmlab {
namespace {

constexpr int kMaxPasses = 10;  // NR_MAX_MIGRATE_PAGES_RETRY

}  // namespace

// Pages that were isolated and not moved go back to where they came from.
void Compaction::PutBack(Control& /*cc*/) {
  while (!migrate_pages_.empty()) {
    const Pfn pfn(migrate_pages_.back());
    migrate_pages_.pop_back();
    Frame& frame = memory_.frame(pfn);
    --frame.refcount;
    if ((frame.flags & kPgMovable) == 0) users_.PutOnLru(pfn);
  }
}

bool Compaction::MigratePage(uint32_t from, uint32_t to) {
  Frame& source = memory_.lists_.frame(from);
  const bool movable = (source.flags & kPgMovable) != 0;
  const int mappers = source.mapcount;
  const bool moved = (movable ? holders_ : users_).MovePage(Pfn(from), Pfn(to));
  if (Explanation* why = tracer_.explanation()) {
    if (moved) {
      why->Add(StepKind::kPageMigrated, "the page moved: whoever used it uses the new frame")
          .Frame("from_pfn", Pfn(from))
          .Frame("to_pfn", Pfn(to))
          .Number("mapped_by", mappers);
    } else {
      why->Add(StepKind::kPageNotMigrated, "somebody holds the page who cannot be told")
          .Frame("pfn", Pfn(from))
          .Number("reference_count", source.refcount - 1)
          .Number("mapped_by", mappers);
    }
  }
  if (!moved) return false;
  source.refcount = 0;
  memory_.FreePages(Pfn(from), PageOrder(0));
  if (!movable) users_.PutOnLru(Pfn(to));
  return true;
}

bool Compaction::MigratePages(Control& cc, uint64_t* moved, bool* no_target) {
  *moved = 0;
  *no_target = false;
  cc.wanted = migrate_pages_.size();
  uint64_t failed = 0;
  // A page that somebody holds may be let go while others are moved; the order of the rest stays.
  for (int pass = 0; pass < kMaxPasses && !*no_target; ++pass) {
    failed = 0;
    std::vector<uint32_t>& pages = migrate_pages_;
    size_t at = pages.size();
    while (at > 0) {
      --at;
      const uint32_t to = TakeTarget(cc);
      if (to == kNoFrame) {
        ++failed;
        *no_target = true;
        break;
      }
      if (MigratePage(pages[at], to)) {
        ++*moved;
        pages.erase(pages.begin() + static_cast<ptrdiff_t>(at));
      } else {
        ++failed;
        free_pages_.push_back(to);
      }
    }
    if (failed == 0) break;
  }
  memory_.vm_stat_.Count(VmEvent::kPgmigrateSuccess, *moved);
  memory_.vm_stat_.Count(VmEvent::kPgmigrateFail, failed);
  cc.moved += *moved;
  if (EventSink* events = tracer_.events()) {
    constexpr absl::string_view kModes[] = {"MIGRATE_ASYNC", "MIGRATE_SYNC_LIGHT", "MIGRATE_SYNC"};
    events->Emit(EventKind::kMmMigratePages, {*moved, failed, 0, 0, 0, kModes[static_cast<size_t>(cc.mode)], "compaction"});
    events->Emit(EventKind::kMmCompactionMigratepages, {*moved, cc.wanted - *moved});
  }
  return failed == 0;
}

// reclaim_clean_pages_from_list()
void Compaction::ReclaimClean(uint32_t start, uint32_t end) {
  constexpr uint32_t kStays = kPgDirty | kPgWriteback | kPgUnevictable | kPgMlocked | kPgSwapBacked;
  if (reclaimer_ == nullptr) return;
  std::vector<Pfn> clean;
  for (uint32_t pfn = start; pfn < end; ++pfn) {
    const Frame frame = memory_.lists_.Peek(pfn);
    if (frame.state == FrameState::kFile && (frame.flags & (kStays | kPgLru)) == kPgLru) clean.push_back(Pfn(pfn));
  }
  if (clean.empty()) return;
  reclaimer_->ReclaimPages(clean);
  users_.DrainLru();
}

// Moves a page that is on an LRU list or has a holder who can move it. False: it stays.
bool Compaction::EvacuatePage(uint32_t pfn) {
  Frame& frame = memory_.lists_.frame(pfn);
  const bool movable = (frame.flags & kPgMovable) != 0;
  if ((frame.flags & kPgLru) == 0 && !movable) return false;
  if (!movable) memory_.lru_.Remove(Pfn(pfn));
  ++frame.refcount;
  // A huge page goes in pieces.
  bool moved = !IsCompound(frame) || users_.SplitToMove(Pfn(pfn));
  if (moved) {
    const bool highmem = memory_.InHighmem(Pfn(pfn));
    const Gfp gfp = kGfpUser | kGfpMovable | kGfpRetryMayFail | (highmem ? kGfpZoneHighmem : 0);  // alloc_migration_target()
    const std::optional<Pfn> to = memory_.AllocPages(gfp, PageOrder(0));
    moved = to.has_value() && MigratePage(pfn, static_cast<uint32_t>(to->raw()));
    if (to.has_value() && !moved) memory_.FreePages(*to, PageOrder(0));
  }
  if (moved) return true;
  --frame.refcount;
  if (!movable) users_.PutOnLru(Pfn(pfn));
  return false;
}

bool Compaction::Evacuate(uint32_t start, uint32_t end) {
  users_.DrainLru();
  ReclaimClean(start, end);
  uint64_t moved = 0;
  bool all = true;
  for (uint32_t pfn = start; pfn < end && all;) {
    const Frame frame = memory_.lists_.Peek(pfn);
    if (frame.state == FrameState::kFree && frame.order <= kMaxOrder) {
      pfn += 1u << frame.order;
      continue;
    }
    all = EvacuatePage(pfn);
    moved += all ? 1 : 0;
    ++pfn;
  }
  users_.DrainLru();
  memory_.vm_stat_.Count(VmEvent::kCompactIsolated, moved);
  memory_.vm_stat_.Count(VmEvent::kPgmigrateSuccess, moved);
  if (!all) memory_.vm_stat_.Count(VmEvent::kPgmigrateFail);
  if (EventSink* events = tracer_.events()) {
    if (moved > 0 || !all) events->Emit(EventKind::kMmMigratePages, {moved, all ? 0 : 1, 0, 0, 0, "MIGRATE_SYNC", "contig_range"});
  }
  return all;
}

}  // namespace mmlab

#ifndef MMLAB_SERVER_PHYSICAL_COMPACTION_H_
#define MMLAB_SERVER_PHYSICAL_COMPACTION_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/hash.h"
#include "server/physical/gfp.h"
#include "server/physical/zone.h"

namespace mmlab {

class BuddyMemory;
class PageOwner;
class PageReclaimer;
class Tracer;

// enum compact_result of include/linux/compaction.h, in its order: of several zones the largest counts.
enum class CompactResult : uint8_t {
  kNotSuitableZone,
  kSkipped,   // Reclaim would do more good, or nothing is to be done.
  kDeferred,  // It failed lately.
  kNoSuitablePage,
  kContinue,
  kComplete,        // The whole zone was looked at, in vain.
  kPartialSkipped,  // The scanners met, but not all of the zone was looked at.
  kContended,
  kSuccess,  // The request should be served now.
};
absl::string_view CompactResultName(CompactResult result);  // "partial_skipped", as the events print it.

// enum compact_priority: the lower, the harder it tries.
enum class CompactPriority : int8_t { kSyncFull = 0, kSyncLight = 1, kAsync = 2 };

// sysctl vm.compact_unevictable_allowed, vm.compaction_proactiveness, vm.extfrag_threshold.
struct CompactSettings {
  bool unevictable_allowed = true;
  int proactiveness = 20;
  int extfrag_threshold = 500;
};

// A request for a block of pages that no zone could serve, as far as compaction needs it (struct alloc_context).
struct CompactRequest {
  Gfp gfp = 0;
  int order = -1;  // -1: everything, as compact_memory does.
  uint32_t alloc_flags = 0;
  int highest_zone = 0;
  int preferred_zone = 0;
};

// Moves pages together so that free ones lie together. Linux: mm/compaction.c, mm/migrate.c.
//
// In each zone a migrate scanner goes up from the start and takes pages that can move, a free scanner comes down from the end and takes
// free pages for them; where they meet, the zone is done. Page blocks in which nothing was found are skipped next time.
// Always true between calls: no page is isolated; positions of the scanners lie in their zone.
// kcompactd runs what it was woken for after the request that woke it.
class Compaction {
 public:
  // All outlive this. `users`: who maps pages of the LRU lists and caches them. `holders`: who holds other pages marked kPgMovable.
  Compaction(BuddyMemory& memory, PageOwner& users, PageOwner& holders, Tracer& tracer, int64_t now_nanoseconds);

  const CompactSettings& settings() const { return settings_; }
  void SetSettings(const CompactSettings& settings) { settings_ = settings; }

  // try_to_compact_pages(): for a request. *captured: a block of just that order that came up on the way and is allocated now, unprepared,
  // else kNoFrame.
  CompactResult TryToCompact(const CompactRequest& request, CompactPriority priority, uint32_t* captured);
  // What the allocator tells after a request was served by a zone that was just compacted.
  void NoteSuccess(int zone, int order);
  // compaction_zonelist_suitable(): whether compaction could start if `reclaimable` pages by zone were free too.
  bool SuitableAfterReclaim(const CompactRequest& request, const std::array<uint64_t, kZones>& reclaimable) const;

  // compact_nodes(), writing to vm.compact_memory: all zones from end to end. Returns how many pages moved.
  uint64_t CompactAll();

  // __alloc_contig_migrate_range(): moves what is in use out of a range whose page blocks are isolated, and takes clean pages of files away
  // that nobody needs to be moved. False: something stays.
  bool Evacuate(uint32_t start, uint32_t end);
  // Who takes those pages away; null: nobody, they are moved. Outlives its use here.
  void SetReclaimer(PageReclaimer* reclaimer) { reclaimer_ = reclaimer; }

  // kswapd goes to sleep: page blocks that were skipped are looked at again if compaction got through its zone since.
  void ResetSkipped();
  // wakeup_kcompactd(). It runs at the next RunKcompactd().
  void WakeKcompactd(int order, int highest_zone);
  void RunKcompactd();
  // Time has come to `now_nanoseconds`: twice a second kcompactd looks whether memory is fragmented more than
  // vm.compaction_proactiveness lets it be. A look that is in vain is not repeated within one such step.
  void AdvanceTo(int64_t now_nanoseconds);
  // vm.compaction_proactiveness was written, which makes kcompactd look at once.
  void TriggerProactive(int64_t now_nanoseconds);

  void CheckInvariants(std::vector<std::string>* problems) const;
  void AddToHash(StateHasher& hasher) const;
  uint64_t HostMemory() const;

 private:
  enum class Mode : uint8_t { kAsync, kSyncLight, kSync };  // enum migrate_mode
  enum class Isolated : uint8_t { kAbort, kNone, kSome };   // isolate_migrate_t
  struct Control;                                           // compact_control.h

  // What is remembered of a zone from one run to the next: the fields compact_* of struct zone and the skip bits of its page blocks.
  struct ZoneState {
    std::array<uint32_t, 2> cached_migrate{};  // Where the migrate scanner goes on: asynchronous, synchronous.
    uint32_t cached_free = 0;
    uint32_t init_migrate = 0;
    uint32_t init_free = 0;
    uint32_t considered = 0;
    uint32_t defer_shift = 0;
    int order_failed = 0;
    bool blockskip_flush = false;
    std::vector<uint64_t> skip;  // One bit a page block, from pfn 0 on; made when the first is set.
  };

  // compaction.cc
  bool Deferred(const Zone& zone, int order);
  void Defer(const Zone& zone, int order);
  void DeferReset(const Zone& zone, int order, bool succeeded);
  bool Restarting(const Zone& zone, int order) const;
  CompactResult Suitable(const Zone& zone, int order, uint32_t alloc_flags, int highest_zone, int64_t free_pages, uint64_t* mark) const;
  CompactResult CheckSuitable(const Zone& zone, int order, uint32_t alloc_flags, int highest_zone) const;
  CompactResult RuleFinished(Control& cc);
  CompactResult Finished(Control& cc);
  CompactResult CompactZone(Control& cc);
  void PlaceScanners(Control& cc);
  CompactResult Run(Control& cc);
  void ReleaseFreePages(Control& cc);
  CompactResult CompactOneZone(Zone& zone, const CompactRequest& request, CompactPriority priority, uint32_t* captured);
  void CompactForKcompactd(int order, int highest_zone);
  // extfrag_for_order() of a whole page block, 0 .. 100; of all zones by their size.
  uint32_t ZoneScore(const Zone& zone) const;
  uint32_t NodeScore() const;
  uint32_t ScoreMark(bool low) const;
  // False: nothing was gained.
  bool CompactProactively();

  // compaction_migrate.cc
  // migrate_pages(): false when one could not be moved; *no_target: for want of a free page.
  bool MigratePages(Control& cc, uint64_t* moved, bool* no_target);
  bool MigratePage(uint32_t from, uint32_t to);
  void ReclaimClean(uint32_t start, uint32_t end);
  bool EvacuatePage(uint32_t pfn);
  void PutBack(Control& cc);

  // compaction_scan.cc
  Isolated IsolateMigratePages(Control& cc);
  void IsolateMigrateBlock(Control& cc, uint32_t low, uint32_t end);
  enum class Look : uint8_t { kPass, kFail, kTake, kTakeMovable };
  Look LookAt(const Control& cc, const Frame& frame) const;
  bool SuitableSource(const Control& cc, uint32_t pfn) const;
  bool SuitableTarget(const Control& cc, uint32_t pfn) const;
  uint32_t FastFindSource(Control& cc);
  uint32_t TakeTarget(Control& cc);  // compaction_alloc(); kNoFrame: there is none.
  void IsolateFreePages(Control& cc);
  uint32_t IsolateFreeBlock(Control& cc, uint32_t* start, uint32_t end, uint32_t stride);
  void FastIsolateFree(Control& cc);
  bool TakeFree(Control& cc, uint32_t pfn, int order);
  bool WholeBlockIn(const Zone& zone, uint32_t start, uint32_t end) const;
  // Whether the frame is inside, and not the start of, a free block of untouched memory that covers its page block.
  bool InsideUntouchedRun(uint32_t pfn) const;

  // compaction_skip.cc
  bool Skipped(const Zone& zone, uint32_t pfn) const;
  void SetSkipped(const Zone& zone, uint32_t pfn, bool skipped);
  bool TestAndSetSkip(const Control& cc, uint32_t pfn);
  void NoteMigrateDone(Control& cc, uint32_t pfn);
  void NoteFreeDone(Control& cc, uint32_t block);
  void ResetPositions(const Zone& zone);
  void ResetZoneSkipped(const Zone& zone);
  bool ResetBlock(const Zone& zone, uint32_t pfn, bool source, bool target);

  uint32_t BlockPages() const;
  uint32_t BlockStart(uint32_t pfn) const { return pfn & ~(BlockPages() - 1); }
  uint32_t BlockEnd(uint32_t pfn) const { return BlockStart(pfn) + BlockPages(); }
  bool AtBlockStart(uint32_t pfn) const { return (pfn & (BlockPages() - 1)) == 0; }
  ZoneState& StateOf(const Zone& zone) { return zones_[static_cast<size_t>(zone.index)]; }
  const ZoneState& StateOf(const Zone& zone) const { return zones_[static_cast<size_t>(zone.index)]; }

  BuddyMemory& memory_;
  PageOwner& users_;
  PageOwner& holders_;
  PageReclaimer* reclaimer_ = nullptr;
  Tracer& tracer_;
  CompactSettings settings_;
  std::array<ZoneState, kZones> zones_;
  int kcompactd_order_ = 0;
  int kcompactd_zone_ = kZones - 1;
  bool kcompactd_woken_ = false;
  int64_t next_look_;  // When kcompactd next looks at the fragmentation score.
  // While a zone is compacted, kept for their memory; the last element is the head of the kernel's list.
  std::vector<uint32_t> migrate_pages_;
  std::vector<uint32_t> free_pages_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_COMPACTION_H_

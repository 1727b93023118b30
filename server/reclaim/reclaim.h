#ifndef MMLAB_SERVER_RECLAIM_RECLAIM_H_
#define MMLAB_SERVER_RECLAIM_RECLAIM_H_

#include <array>
#include <cstdint>
#include <vector>

#include "server/base/address.h"
#include "server/base/hash.h"
#include "server/cgroup/cgroup_pressure.h"
#include "server/physical/lru_lists.h"
#include "server/physical/memory_pressure.h"
#include "server/physical/reverse_map.h"

namespace mmlab {

class BuddyMemory;
class Cgroups;
class Files;
class OomKiller;
class Shrinker;
class Tracer;

// Gives pages back when memory runs short. Linux: mm/vmscan.c.
//
// kswapd runs at the request that wakes it, from below the low watermarks until a zone that the request could use is above its high one, or
// nothing can be freed. When it had to write pages, it waits for the disk then: it goes on when somebody reclaims directly, who waits too,
// or when the operation is done. A request that finds too little meanwhile reclaims directly. Swap areas are as quick as reclaim: what is
// written of the pages of one look at a list is there when the next ones have been looked at. Always true: between two calls no page is
// isolated from the LRU lists or on its way to a swap area.
class Reclaim final : public MemoryPressure, public CgroupPressure, public PageReclaimer {
 public:
  // All outlive this.
  Reclaim(BuddyMemory& memory, Cgroups& cgroups, Files& files, ReverseMap& reverse_map, PageTableWalker& walker, OomKiller& killer,
          Tracer& tracer);

  // MemoryPressure
  bool WakeKswapd(Gfp gfp, int order, int highest_zone) override;
  uint64_t DirectReclaim(Gfp gfp, int order, int highest_zone) override;
  bool CanReclaimAnonymous() const override;
  bool OutOfMemory(Gfp gfp, int order, int highest_zone) override;
  void AllocationFailed(Gfp gfp, int order) override;

  // CgroupPressure
  uint64_t ReclaimCgroup(uint16_t memcg, uint64_t pages) override;
  bool CgroupOutOfMemory(uint16_t memcg, Gfp gfp, int order) override;
  bool ActingProcessDies() const override;
  void DrainLru() override;

  // PageReclaimer
  void ReclaimPages(const std::vector<Pfn>& pages) override;

  // The operation is done: kswapd does what it has left to do.
  void EndOperation() {
    if (kswapd_waits_) ContinueKswapd();
  }

  // The machine's clock, nanoseconds; null: none. Outlives this.
  void SetClock(const int64_t* now) { now_ = now; }
  // The clock went on: kswapd looks once more whether it may sleep.
  void AdvanceTime();

  // vm.swappiness: 0 to 200.
  void SetSwappiness(uint32_t swappiness) { swappiness_ = swappiness; }

  // MGLRU in the place of active and inactive lists: /sys/kernel/mm/lru_gen. Linux: lru_gen_caps and lru_gen_min_ttl, mm/vmscan.c.
  struct GenerationSettings {
    bool enabled = false;       // LRU_GEN_CORE
    bool walk_tables = false;   // LRU_GEN_MM_WALK: not only reclaim asks page tables, aging does too.
    bool upper_tables = false;  // LRU_GEN_NONLEAF_YOUNG: kept, but there are no accessed marks of tables here.
    uint32_t min_ttl_ms = 0;    // Younger generations are not evicted; when none is older, a process is killed.
  };
  const GenerationSettings& generation_settings() const { return generation_settings_; }
  void SetGenerations(const GenerationSettings& settings);

  void AddShrinker(Shrinker& shrinker) { shrinkers_.push_back(&shrinker); }

  // vm.drop_caches: bit 0 takes clean unmapped pages of files out of the page cache, bit 1 empties what shrinkers can give.
  void DropCaches(uint32_t bits);

  void AddToHash(StateHasher& hasher) const;

  // Whether kswapd gave up on the node (kswapd_failures), until somebody else frees something.
  bool hopeless() const;

 private:
  struct ScanControl;
  // What became of a page that was looked at (the labels of shrink_folio_list()).
  enum class Fate : uint8_t { kFreed, kKept, kActivated };
  // folio_check_references()
  enum class References : uint8_t { kReclaim, kReclaimClean, kKeep, kActivate };
  using ScanCounts = std::array<uint64_t, 4>;  // By LruKind.

  // scan_balance.cc
  void PrepareScanCount(ScanControl& sc);
  ScanCounts CountsToScan(const Lruvec& lruvec, ScanControl& sc) const;
  // The part of a list of that many pages that the cgroup's protection leaves to be looked at.
  uint64_t Unprotected(const Lruvec& lruvec, uint64_t pages, ScanControl& sc) const;
  // can_reclaim_anon_pages(): there is swap space, and the cgroup may have some of it.
  bool MaySwap(uint16_t memcg) const;
  bool InactiveIsLow(const Lruvec& lruvec, LruKind inactive) const;

  // shrink.cc
  void ShrinkNode(ScanControl& sc);
  // Whether a memory cgroup's protection lets it be shrunk now.
  bool MayShrink(uint16_t memcg, ScanControl& sc);
  void ShrinkLruvec(Lruvec& lruvec, ScanControl& sc);
  uint64_t ShrinkList(Lruvec& lruvec, LruKind kind, uint64_t pages, ScanControl& sc);
  uint64_t ShrinkInactive(Lruvec& lruvec, LruKind kind, uint64_t pages, ScanControl& sc);
  void ShrinkActive(Lruvec& lruvec, LruKind kind, uint64_t pages, const ScanControl& sc);
  void ShrinkShrinkers(ScanControl& sc);
  // Takes up to `pages` pages off the old end of a list, each with a reference of its own.
  uint64_t Isolate(Lruvec& lruvec, LruKind kind, uint64_t pages, const ScanControl& sc);
  uint64_t ShrinkIsolated(ScanControl& sc);
  void PutBack(Pfn pfn);
  void CountEvent(VmEvent item, uint64_t times, const Lruvec& lruvec, const ScanControl& sc);
  void EndWriteback();
  // When it is done, so that nothing is being written.
  void WaitForDisk();
  static const char* ReclaimFlags(bool file);  // trace_reclaim_flags()

  // kswapd_age_node(): a part of the active anonymous pages moves on, so that they are looked at before they are needed.
  void AgeNode(ScanControl& sc);

  // generations.cc
  uint32_t SwappinessOf(uint16_t memcg) const;
  bool ShouldRunAging(const Lruvec& lruvec, const ScanControl& sc, bool can_swap, uint64_t* to_scan) const;
  void Age(Lruvec& lruvec, bool can_swap);
  bool AgeLruvec(Lruvec& lruvec, const ScanControl& sc);
  void AgeGenerations(ScanControl& sc);
  void ShrinkGenerations(Lruvec& lruvec, ScanControl& sc);
  uint64_t GenerationsToScan(Lruvec& lruvec, const ScanControl& sc, bool can_swap, bool* need_aging);
  uint64_t EvictOldest(Lruvec& lruvec, ScanControl& sc, uint32_t swappiness, bool* swapped);
  uint64_t IsolateOldest(Lruvec& lruvec, ScanControl& sc, uint32_t swappiness, size_t* kind);
  uint64_t ScanOldest(Lruvec& lruvec, ScanControl& sc, size_t kind, int tier);
  bool SortPage(Lruvec& lruvec, Pfn pfn, const ScanControl& sc, size_t kind, int tier);
  void IsolateFromGeneration(Pfn pfn);
  uint64_t ShrinkTaken(ScanControl& sc);
  bool EnoughEvicted(const Lruvec& lruvec, uint64_t max_seq, ScanControl& sc, bool swapped) const;

  // shrink_page.cc
  Fate ShrinkPage(Pfn pfn, ScanControl& sc);
  References CheckReferences(Pfn pfn, Frame& frame, const char** why);
  Fate Activate(Pfn pfn, const char* why);
  Fate Keep(Pfn pfn, Fate fate, const char* why) const;
  bool AddToSwap(Pfn pfn, Frame& frame);
  Fate WriteOut(Pfn pfn, Frame& frame, References references, ScanControl& sc);
  Fate Evict(Pfn pfn, Frame& frame, const ScanControl& sc);

  bool Balanced(int highest_zone, int order) const;
  uint64_t Boost(int highest_zone) const;
  uint64_t TryToFree(ScanControl& sc);
  uint64_t TryByPriorities(ScanControl& sc);
  // balance_pgdat(). `until_written`: not further than to the first round in which pages were written.
  void BalanceNode(int highest_zone, int order, bool until_written);
  void ContinueKswapd();
  void TryToSleep(bool balanced);
  // allow_direct_reclaim()
  bool MayReclaimDirectly() const;

  BuddyMemory& memory_;
  Cgroups& cgroups_;
  Files& files_;
  ReverseMap& reverse_map_;
  PageTableWalker& walker_;
  OomKiller& killer_;
  Tracer& tracer_;
  std::vector<Shrinker*> shrinkers_;
  int kswapd_failures_ = 0;    // Rounds of kswapd in a row that freed nothing; after 16 it is not woken until something is freed.
  bool kswapd_waits_ = false;  // For the disk.
  int kswapd_zone_ = 0;        // What it was woken for.
  int kswapd_order_ = 0;
  int64_t kswapd_dozes_until_ = 0;  // Until then it sleeps lightly; 0: it sleeps, or runs.
  const int64_t* now_ = nullptr;
  bool node_dirty_ = false;  // PGDAT_DIRTY: kswapd met nothing but dirty pages of files, and writes them itself.
  uint32_t swappiness_ = 60;
  GenerationSettings generation_settings_;
  std::vector<Pfn> isolated_;  // While one list is shrunk; kept for their memory.
  std::vector<Pfn> written_;
  std::vector<Pfn> under_way_;  // To the disk.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_RECLAIM_RECLAIM_H_

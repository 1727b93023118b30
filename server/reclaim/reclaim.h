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

namespace mmlab {

class BuddyMemory;
class Cgroups;
class Files;
class OomKiller;
class ReverseMap;
class Shrinker;
class Tracer;

// Gives pages back when memory runs short. Linux: mm/vmscan.c.
//
// kswapd runs to its end at the request that wakes it: from below the low watermarks until all zones that the request could use are above
// their high ones, or nothing can be freed. A request that still finds too little reclaims directly.
// There is no swap: anonymous memory and shmem stay where they are, apart from what was lazily freed.
// Always true: between two calls no page is isolated from the LRU lists.
class Reclaim final : public MemoryPressure, public CgroupPressure {
 public:
  // All outlive this.
  Reclaim(BuddyMemory& memory, Cgroups& cgroups, Files& files, ReverseMap& reverse_map, OomKiller& killer, Tracer& tracer);

  // MemoryPressure
  void WakeKswapd(Gfp gfp, int order, int highest_zone) override;
  uint64_t DirectReclaim(Gfp gfp, int order, int highest_zone) override;
  bool OutOfMemory(Gfp gfp, int order, int highest_zone) override;

  // CgroupPressure
  uint64_t ReclaimCgroup(uint16_t memcg, uint64_t pages) override;
  bool CgroupOutOfMemory(uint16_t memcg, Gfp gfp, int order) override;
  bool ActingProcessDies() const override;
  void DrainLru() override;

  void AddShrinker(Shrinker& shrinker) { shrinkers_.push_back(&shrinker); }

  // vm.drop_caches: bit 0 takes clean unmapped pages of files out of the page cache, bit 1 empties what shrinkers can give.
  void DropCaches(uint32_t bits);

  void AddToHash(StateHasher& hasher) const;

 private:
  struct ScanControl;
  // What became of a page that was looked at (enum folio_references and the labels of shrink_folio_list()).
  enum class Fate : uint8_t { kFreed, kKept, kActivated };

  void ShrinkNode(ScanControl& sc);
  // Whether a memory cgroup's protection lets it be shrunk now.
  bool MayShrink(uint16_t memcg, ScanControl& sc);
  // The part of a list of that many pages that the cgroup's protection leaves to be looked at.
  uint64_t Unprotected(const Lruvec& lruvec, uint64_t pages, ScanControl& sc) const;
  void PrepareScanCount(ScanControl& sc);
  void ShrinkLruvec(Lruvec& lruvec, ScanControl& sc);
  std::array<uint64_t, 4> ScanCounts(const Lruvec& lruvec, ScanControl& sc) const;
  uint64_t ShrinkList(Lruvec& lruvec, LruKind kind, uint64_t pages, ScanControl& sc);
  uint64_t ShrinkInactive(Lruvec& lruvec, LruKind kind, uint64_t pages, ScanControl& sc);
  void ShrinkActive(Lruvec& lruvec, LruKind kind, uint64_t pages, const ScanControl& sc);
  void ShrinkShrinkers(ScanControl& sc);
  // Takes up to `pages` pages off the old end of a list, each with a reference of its own.
  uint64_t Isolate(Lruvec& lruvec, LruKind kind, uint64_t pages, const ScanControl& sc);
  void PutBack(Pfn pfn);
  void CountEvent(VmEvent item, uint64_t times, const Lruvec& lruvec, const ScanControl& sc);
  Fate ShrinkPage(Pfn pfn, const ScanControl& sc);
  Fate Keep(Pfn pfn, Fate fate, const char* why) const;
  bool InactiveIsLow(const Lruvec& lruvec, LruKind inactive) const;
  bool Balanced(int highest_zone) const;
  uint64_t TryToFree(ScanControl& sc);
  void BalanceNode(int highest_zone);

  BuddyMemory& memory_;
  Cgroups& cgroups_;
  Files& files_;
  ReverseMap& reverse_map_;
  OomKiller& killer_;
  Tracer& tracer_;
  std::vector<Shrinker*> shrinkers_;
  int kswapd_failures_ = 0;    // Rounds of kswapd in a row that freed nothing; after 16 it is not woken until something is freed.
  int64_t refaults_ = 0;       // workingset_activate_file when reclaim last ended.
  std::vector<Pfn> isolated_;  // While one list is shrunk; kept for its memory.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_RECLAIM_RECLAIM_H_

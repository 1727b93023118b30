#ifndef MMLAB_SERVER_FILES_SWAP_AREAS_H_
#define MMLAB_SERVER_FILES_SWAP_AREAS_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "server/base/address.h"
#include "server/base/errno.h"
#include "server/files/disk_stats.h"
#include "server/files/swap_entry.h"
#include "server/physical/contents.h"
#include "server/physical/frame.h"

namespace mmlab {

class PhysicalMemory;
class StateHasher;
class Tracer;
class VmStat;

// What /proc/swaps shows of an area.
struct SwapAreaView {
  std::string path;
  bool file = false;
  PageCount size;  // Without the header.
  PageCount used;
  int priority = 0;
};

// How often each slot is referred to, by area and offset.
using SwapCounts = absl::btree_map<std::pair<uint32_t, uint32_t>, uint32_t>;

// The swap areas of a machine, their slots with what is stored in them, and the swap cache. Linux: mm/swapfile.c, mm/swap_slots.c,
// mm/swap_state.c.
//
// Slots are given out in batches to a cache in front of the areas and come back through another one, as the kernel's per-CPU caches do; all
// swapping counts as done by one CPU.
// Always true: a slot is free, or in one of the two caches, or its count (entries in page tables and pages of shmem that stand there) is
// not 0, or the swap cache has a page for it; nr_swapcached is the number of those pages, each with a reference of the cache.
class SwapAreas {
 public:
  static constexpr size_t kMaxAreas = 29;  // MAX_SWAPFILES: 32 less what migration and broken pages need.

  SwapAreas(PhysicalMemory& memory, VmStat& vm_stat, Tracer& tracer);
  ~SwapAreas();

  // swapon(): an area of so many pages, header included; of more than `most_slots` the rest is left alone. `priority` 0 to 32767; without
  // one, below all others so far. kEBUSY (in use), kEINVAL (no room for a slot), kEPERM (no number left).
  Errno Add(const std::string& path, bool file, uint64_t pages, uint64_t most_slots, std::optional<int> priority);
  // swapoff() in steps: Stop(), so that nothing new goes there; its owner empties it; Remove(), or Resume() when it could not be emptied.
  std::optional<uint32_t> Find(absl::string_view path) const;
  void Stop(uint32_t area);
  void Resume(uint32_t area);
  void Remove(uint32_t area);
  uint32_t pages_of(uint32_t area) const { return areas_[area]->pages; }
  uint64_t used_of(uint32_t area) const { return areas_[area]->used; }
  // The pages that the cache has of an area, in the order of their slots.
  std::vector<Pfn> CachedPagesOf(uint32_t area) const;

  // An area is being emptied: who asked for that goes first when memory is gone (set_current_oom_origin()).
  bool emptying() const { return emptying_; }

  bool any() const { return total_ > 0; }
  uint64_t total_pages() const { return total_; }  // total_swap_pages
  uint64_t free_pages() const { return free_; }    // get_nr_swap_pages(): slots that are not given out, not even to the cache.
  // Whether a page could get a slot now.
  bool available() const { return free_ > 0 || !to_give_.empty(); }
  uint64_t cached_pages() const { return cached_.size(); }
  // vm_swap_full(): more than half is used, so that copies of pages which are in memory are not worth their slots.
  bool full() const { return free_ * 2 < total_; }
  std::vector<SwapAreaView> Views() const;
  // /sys/kernel/mm/swap/vma_ra_enabled: what lies next to a page in its VMA is read with it. That is for disks without heads; all disks
  // here have them, so that what lies next to it in the area is read, whatever this says (swap_use_vma_readahead()).
  bool vma_readahead() const { return vma_readahead_; }
  void SetVmaReadahead(bool enabled) { vma_readahead_ = enabled; }

  // folio_alloc_swap(): a slot of the area with the highest priority, of those in turn, for a page that this memory cgroup is charged for;
  // its count is 0. Nothing: none is free, or the cgroup may not have it.
  std::optional<SwapEntry> Allocate(uint16_t memcg);
  // Who is charged for a slot; 0: the root.
  uint16_t MemcgOf(SwapEntry entry) const;
  // swap_duplicate(), swap_free(): one more or one fewer refers to the slot. FreeWithCache(), free_swap_and_cache(): with the last one goes
  // what the cache has of it and nobody maps.
  void Duplicate(SwapEntry entry) { ++SlotOf(entry).count; }
  void Free(SwapEntry entry);
  void FreeWithCache(SwapEntry entry);
  uint32_t CountOf(SwapEntry entry) const;
  bool InUse(SwapEntry entry) const;

  // The swap cache. Add takes a reference of the page, Remove leaves it to the caller.
  void AddToCache(Pfn pfn, SwapEntry entry);
  void RemoveFromCache(Pfn pfn);
  std::optional<Pfn> CachedPage(SwapEntry entry) const;
  // The cache holds another frame for a page from now on (folio_migrate_mapping()).
  void ReplacePage(Pfn from, Pfn to);
  SwapEntry EntryOf(Pfn pfn) const { return cached_.at(static_cast<uint32_t>(pfn.raw())); }
  // folio_free_swap(): gives up the slot of a page that no entry refers to any more; the page is dirty then. False: somebody does, or the
  // cache has no such page. REQUIRES: somebody else holds the page.
  bool TryToFree(Pfn pfn);
  // __remove_mapping() of a page that reclaim takes: the slot keeps its bytes, and `shadow` for when it comes back.
  void Evict(Pfn pfn, uint64_t shadow);

  // Moves bytes between a page and its slot, and counts them.
  void Write(Pfn pfn);
  void Read(SwapEntry entry, Pfn pfn);
  // What was written to and read from areas, living or not, by their path.
  const std::map<std::string, DiskStats>& traffic() const { return traffic_; }
  uint64_t TakeShadow(SwapEntry entry) { return std::exchange(SlotOf(entry).shadow, 0); }

  // swapin_nr_pages(): how many slots around this one are read with it, a power of two. `page_cluster`: its logarithm at most.
  uint32_t ReadaheadWindow(SwapEntry entry, int page_cluster);
  void NoteReadaheadHit() { ++readahead_hits_; }

  void CheckInvariants(const SwapCounts& counts, std::vector<std::string>* violations) const;
  void AddToHash(StateHasher& hasher) const;
  uint64_t HostMemory() const;

 private:
  static constexpr uint32_t kCluster = 256;  // SWAPFILE_CLUSTER
  static constexpr size_t kBatch = 64;       // SWAP_BATCH, SWAP_SLOTS_CACHE_SIZE
  struct Slot {
    uint32_t count = 0;
    uint32_t cached = kNoFrame;
    uint16_t memcg = 0;   // Who is charged for it (swap_cgroup).
    uint64_t shadow = 0;  // What workingset.c remembers of the page that went there; 0: nothing.
    SavedPage bytes;
  };
  struct Cluster {
    std::array<Slot, kCluster> slots;
    std::array<uint64_t, kCluster / 64> taken{};
    uint32_t used = 0;
  };
  // swap_info_struct
  struct Area {
    std::string path;
    bool file = false;
    bool writable = true;
    uint32_t pages = 0;
    int priority = 0;
    uint32_t used = 0;
    uint32_t lowest = 1;                             // No slot below is free.
    uint32_t next = 1;                               // Where the search goes on (cluster_next),
    uint32_t left_in_run = 0;                        // for how many slots before a run of free ones is looked for (cluster_nr).
    std::vector<std::unique_ptr<Cluster>> clusters;  // Null: all free.
    DiskStats* traffic = nullptr;
    uint32_t after_read = 0;   // The slot behind the one that was read last,
    uint32_t after_write = 0;  // and written.
    bool Taken(uint32_t offset) const {
      const Cluster* cluster = clusters[offset / kCluster].get();
      return cluster != nullptr && (cluster->taken[offset % kCluster / 64] >> (offset % 64) & 1) != 0;
    }
    // The first free slot from there on; `pages`: none.
    uint32_t NextFree(uint32_t offset) const;
    // The first run of kCluster free slots from there on; `pages`: none.
    uint32_t FreeRun(uint32_t offset) const;
    void Take(uint32_t offset);
    void Give(uint32_t offset);
  };
  size_t TakeSlots(uint32_t number, size_t wanted);
  bool Refill();
  void FlushReturned();
  void Return(SwapEntry entry);
  void InsertByPriority(uint32_t number);
  Slot& SlotOf(SwapEntry entry);
  const Slot* FindSlot(SwapEntry entry) const;
  void DropIfUnused(SwapEntry entry);

  PhysicalMemory& memory_;
  VmStat& vm_stat_;
  Tracer& tracer_;
  std::vector<std::unique_ptr<Area>> areas_;         // By number; null: none.
  std::vector<uint32_t> by_priority_;                // Highest first; those of one priority change places as they are used.
  absl::flat_hash_map<uint32_t, SwapEntry> cached_;  // By frame; only looked up.
  std::vector<SwapEntry> to_give_;                   // swap_slots_cache: slots, the next one last.
  std::vector<SwapEntry> returned_;                  // slots_ret
  bool emptying_ = false;
  bool vma_readahead_ = true;
  std::map<std::string, DiskStats> traffic_;
  uint64_t total_ = 0;
  uint64_t free_ = 0;  // nr_swap_pages
  int least_priority_ = -1;
  uint32_t readahead_hits_ = 4;  // swapin_readahead_hits
  uint32_t last_offset_ = 0;
  uint32_t last_window_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_SWAP_AREAS_H_

#ifndef MMLAB_SERVER_PHYSICAL_REVERSE_MAP_H_
#define MMLAB_SERVER_PHYSICAL_REVERSE_MAP_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "server/base/address.h"

namespace mmlab {

// Who used a page since somebody last asked: what its entries in page tables and their VMAs say (folio_referenced()).
struct PageReferences {
  int referenced = 0;       // Entries that were marked accessed.
  bool locked = false;      // A VMA that maps it is VM_LOCKED.
  bool executable = false;  // One that used it is VM_EXEC.
};

// How taking a page out of page tables ended (try_to_unmap(), and what shrink_folio_list() makes of it).
enum class UnmapOutcome : uint8_t {
  kUnmapped,   // No entry maps it any more. An entry that was dirty has made the page dirty.
  kStillUsed,  // Mapped by a locked VMA, or lazily freed and written again since.
};

// What reclaim asks of the owners of mapped pages. Done by process, wired by machine.
class ReverseMap {
 public:
  virtual ~ReverseMap() = default;
  // Counts and clears the accessed marks of all entries that map the page.
  virtual PageReferences TestClearReferenced(Pfn pfn) = 0;
  // split_folio_to_list(): makes a huge page, of which the caller holds one reference and which is on no LRU list, small ones: swap space
  // is given to small pages only. False: somebody else holds it.
  virtual bool SplitHuge(Pfn head) = 0;
  // Takes the page out of every page table; anonymous pages leave the swap entry behind that the swap cache has for them, lazily freed
  // clean ones leave nothing.
  virtual UnmapOutcome TryToUnmap(Pfn pfn) = 0;
  // try_to_unmap_flush(): TLBs forget the entries that were taken away since the last time, before their pages are given back. Before a
  // page is written, when `before_write` (try_to_unmap_flush_dirty()): only if one of them could be written through.
  virtual void FlushUnmapped(bool before_write) = 0;

  // MGLRU runs or not: while it does, pages that come with a fault are hot, and asking for one page's accessed marks promotes its used
  // neighbours (lru_gen_look_around()).
  virtual void SetGenerations(bool enabled) = 0;
};

// Page tables from the side of the processes. Done by process, wired by machine.
class PageTableWalker {
 public:
  virtual ~PageTableWalker() = default;
  // walk_mm() of every address space whose processes are in one of these cgroups (Cgroup::id): clears the accessed marks of their pages
  // that `memcg` is charged for and promotes those that were marked. Without can_swap only pages of files.
  virtual void PromoteUsed(absl::FunctionRef<bool(uint32_t)> in_cgroup, uint16_t memcg, bool can_swap) = 0;
};

// What the owners of mapped pages ask of reclaim. Done by reclaim, wired by machine.
class PageReclaimer {
 public:
  virtual ~PageReclaimer() = default;
  // reclaim_pages(): takes these pages away if it can, used lately or not. REQUIRES: all are on LRU lists, none twice.
  virtual void ReclaimPages(const std::vector<Pfn>& pages) = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_REVERSE_MAP_H_

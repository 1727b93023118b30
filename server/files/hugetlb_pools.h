#ifndef MMLAB_SERVER_FILES_HUGETLB_POOLS_H_
#define MMLAB_SERVER_FILES_HUGETLB_POOLS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "server/base/address.h"
#include "server/base/errno.h"

namespace mmlab {

struct Layout;
class PhysicalMemory;
class StateHasher;
class Tracer;
class VmStat;

// The pool of huge pages of one size. Linux: struct hstate. All counts are huge pages of this size.
struct HugetlbPool {
  int order = 0;            // Small pages of one: 2^order.
  int demote_order = 0;     // Of the pages that its pages are demoted to; 0: there is no smaller size.
  uint64_t maximum = 0;     // What was asked for and is kept: vm.nr_hugepages.
  uint64_t total = 0;       // HugePages_Total
  uint64_t reserved = 0;    // HugePages_Rsvd: promised to mappings, not taken yet.
  uint64_t surplus = 0;     // HugePages_Surp: more than is kept; they go as soon as they are free.
  uint64_t overcommit = 0;  // vm.nr_overcommit_hugepages: most surplus pages.
  uint64_t lost = 0;        // Of the reserved ones: those that nobody can give back any more.
  std::vector<Pfn> free;    // HugePages_Free, by their first frame; the one that is taken next stands last.

  uint64_t pages() const { return uint64_t{1} << order; }
  // persistent_huge_pages()
  uint64_t persistent() const { return total - surplus; }
  // available_huge_pages(): free ones that nobody was promised.
  uint64_t available() const { return free.size() - reserved; }
  // hstate_is_gigantic(): larger than the largest block of the page allocator.
  bool gigantic() const { return order > kMaxOrder; }
};

// The pools of huge pages of a machine. Linux: mm/hugetlb.c.
//
// Always true: free and used pages together are `total`, each the first frame of a block of its size in state kHugetlb; a free one has no
// reference; there are at least as many free pages as reserved ones. Left to others: which file or mapping a page or a reservation is of.
class HugetlbPools {
 public:
  HugetlbPools(PhysicalMemory& memory, VmStat& vm_stat, Tracer& tracer) : memory_(memory), vm_stat_(vm_stat), tracer_(tracer) {}

  // What an architecture has: orders, and which of them is used where none is named. movable: the kernel can move such pages, but gigantic
  // ones (hugepage_movable_supported()).
  struct Sizes {
    std::vector<int> orders;
    size_t default_pool = 0;
    size_t pmd_pool = 0;  // Of what one entry of level 2 maps.
    bool movable = false;
  };
  static Sizes SizesOf(const Layout& layout);
  void SetSizes(const Sizes& sizes);
  // default_hugepagesz=. REQUIRES: pool < pools().size().
  void SetDefault(size_t pool) { sizes_.default_pool = pool; }

  absl::Span<const HugetlbPool> pools() const { return pools_; }
  const HugetlbPool& pool(size_t index) const { return pools_[index]; }
  size_t default_pool() const { return sizes_.default_pool; }
  int pmd_order() const { return pools_[sizes_.pmd_pool].order; }
  // size_to_hstate(): the pool of pages of so many bytes.
  std::optional<size_t> FindBySize(uint64_t bytes) const;
  // hstate_sizelog(): the pool of pages of 2^log bytes; 0: the default one.
  std::optional<size_t> FindByLog(uint32_t log) const;
  // hugetlb_total_pages(): small pages in all pools.
  uint64_t total_pages() const;
  std::string Name(size_t pool) const;  // "hugepages-2048kB"

  // set_max_huge_pages(): makes the pool keep so many pages, as far as memory is found and pages in use allow.
  void SetMaximum(size_t pool, uint64_t count);
  // gather_bootmem_prealloc(): a page that boot made, without references.
  void AddBootPage(size_t pool, Pfn head);
  // demote_size_store(): kEINVAL when there is no pool of such pages, they are not smaller, or smaller than a pmd's.
  Errno SetDemoteSize(size_t pool, uint64_t bytes);
  // demote_store(): makes up to so many free pages that nobody was promised pages of the smaller size.
  void Demote(size_t pool, uint64_t count);
  // kEINVAL: pages larger than the page allocator's blocks are never made on demand.
  Errno SetOvercommit(size_t pool, uint64_t count);

  // hugetlb_acct_memory(): promises so many more pages, with surplus pages where free ones are lacking; false: not possible, nothing has
  // changed. Unreserve takes promises back.
  [[nodiscard]] bool Reserve(size_t pool, uint64_t pages);
  void Unreserve(size_t pool, uint64_t pages);
  // Promises that no mapping knows of any more stay counted, as in Linux (clear_vma_resv_huge_pages()).
  void Lose(size_t pool, uint64_t pages) { pools_[pool].lost += pages; }

  // The pool's part of alloc_huge_page(): a page with one reference, for somebody who was promised it, or one that nobody was promised.
  // Nothing: there is none. Its bytes are those of its last user.
  std::optional<Pfn> Take(size_t pool, bool promised);
  // free_huge_page(). REQUIRES: no references and no entries that map it.
  void Release(size_t pool, Pfn head);

  // `used`: pages of each pool that somebody holds; `promised`: what files and mappings think they were promised.
  void CheckInvariants(absl::Span<const uint64_t> used, absl::Span<const uint64_t> promised, std::vector<std::string>* violations) const;
  void AddToHash(StateHasher& hasher) const;
  uint64_t HostMemory() const;

 private:
  bool Grow(HugetlbPool& pool);  // alloc_fresh_huge_page()
  std::optional<Pfn> Allocate(const HugetlbPool& pool);
  void GiveBack(const HugetlbPool& pool, Pfn head);
  void DemoteOne(HugetlbPool& pool, size_t smaller);
  void Enqueue(HugetlbPool& pool, Pfn head);
  bool GrowSurplus(HugetlbPool& pool);  // alloc_surplus_huge_page()
  static Pfn Remove(HugetlbPool& pool, size_t index);
  void FreeRemoved(const HugetlbPool& pool, std::vector<Pfn>& removed);
  void Explain(const HugetlbPool& pool, const char* text) const;

  PhysicalMemory& memory_;
  VmStat& vm_stat_;
  Tracer& tracer_;
  Sizes sizes_;
  std::vector<HugetlbPool> pools_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_HUGETLB_POOLS_H_

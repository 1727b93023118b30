#ifndef MMLAB_SERVER_KERNEL_SLUB_H_
#define MMLAB_SERVER_KERNEL_SLUB_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/base/random.h"
#include "server/base/result.h"
#include "server/kernel/slab_rules.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

// A cache of objects, by its place in the allocator; never given again after the cache was destroyed.
enum class SlabCacheId : uint32_t {};

// An object of a slab: which slab, and its place there.
struct SlabObject {
  uint32_t slab = 0;
  uint32_t index = 0;
  friend bool operator==(SlabObject, SlabObject) = default;
};

// What is wrong with an address that somebody frees.
enum class SlabFault : uint8_t {
  kNone = 0,
  kNotSlab,      // The page is no slab.
  kWrongCache,   // An object of another cache.
  kNoObject,     // Within a slab, but not where an object starts.
  kAlreadyFree,  // Freed before, and not allocated since.
};

// Where a slab stands. Every slab is in exactly one place.
enum class SlabPlace : uint8_t { kNowhere = 0, kCpu = 1, kCpuPartial = 2, kNodePartial = 3, kFull = 4 };

struct SlabPageView {
  Pfn pfn;  // First page.
  int order = 0;
  SlabPlace place = SlabPlace::kNowhere;
  int cpu = -1;  // For kCpu and kCpuPartial.
  uint32_t objects = 0;
  uint32_t inuse = 0;      // As the kernel counts: what is on a CPU's own free list is in use.
  uint32_t allocated = 0;  // Objects that somebody holds.
};

struct SlabCacheView {
  SlabCacheId id{};
  std::string name;
  std::vector<std::string> aliases;  // Names of the caches that were merged into this one.
  SlabGeometry geometry;
  int refcount = 0;
  uint32_t usersize = 0;
  bool constructor = false;
  uint64_t slabs = 0;
  uint64_t total_objects = 0;
  uint64_t allocated = 0;          // Objects that somebody holds.
  uint64_t node_partial = 0;       // Slabs on the node's partial list.
  uint64_t node_partial_free = 0;  // Free objects there: what /proc/slabinfo does not count as active.
  uint64_t cpu_partial_slabs = 0;  // On the lists of all CPUs.
};

// Where an address lies.
struct SlabObjectView {
  SlabFault fault = SlabFault::kNotSlab;  // kNone or kAlreadyFree: the address of an object; kNoObject: within a slab only.
  SlabCacheId cache{};
  SlabObject object;
  VirtAddr start;  // Of the object.
  SlabPageView slab;
};

// The slab allocator of 6.1 kernels: mm/slub.c, mm/slab_common.c. Hands out objects of a slab that belongs to the CPU, then of the slabs on
// the CPU's partial list, then of those on the node's, then of a new slab; freed objects make their slabs go the same way back.
//
// Always true between calls: every slab is in one place; a slab's objects are free (once on its own list or on its CPU's) or allocated; its
// pages are FrameState::kSlab; nr_slab_* count them. CheckInvariants() proves it.
//
// The order of the objects within a slab is random, as under CONFIG_SLAB_FREELIST_RANDOM, from the seed. Not thread-safe: the machine's
// lane.
class Slub {
 public:
  // `linear_base` is where the kernel sees physical address 0, modulo 2^64. Makes the kernel's own and the kmalloc caches.
  // `memory` and `tracer` outlive this.
  Slub(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer, uint64_t seed);

  // kmem_cache_create(): a new cache, or an older one that serves such objects as well. EINVAL: flags that callers must not give, an
  // alignment that is no power of two, an object that fits no slab. ENOMEM: kMaxCaches were made.
  SysResult<SlabCacheId> CreateCache(const SlabCacheRequest& request);
  // kmem_cache_destroy(): gives up one user of the cache; with the last, the cache. EBUSY: somebody still holds objects, nothing but empty
  // slabs is gone (the kernel warns and leaks the cache; here it stays as it was); or the kernel itself is the last user. `name` is what
  // the user calls it, an alias perhaps.
  Errno DestroyCache(SlabCacheId id, absl::string_view name);
  // kmem_cache_shrink(): true when slabs remain.
  bool Shrink(SlabCacheId id);

  // kmem_cache_alloc(), of an existing cache. Nothing: no memory.
  [[nodiscard]] std::optional<SlabObject> AllocObject(SlabCacheId id, Gfp gfp) {
    Cache& cache = CacheOf(id);
    CpuSlab& cpu = cache.cpus[static_cast<size_t>(memory_.current_cpu())];
    if (cpu.freelist != kEnd && tracer_.explanation() == nullptr) [[likely]] {
      ++cache.allocated;
      return TakeFromCpu(cpu);
    }
    return AllocSlow(cache, cpu, gfp);
  }
  // kmem_cache_free(). REQUIRES: an allocated object of that cache (FaultOf is kNone).
  void FreeObject(SlabCacheId id, SlabObject object) {
    Cache& cache = CacheOf(id);
    CpuSlab& cpu = cache.cpus[static_cast<size_t>(memory_.current_cpu())];
    if (object.slab == cpu.slab && tracer_.explanation() == nullptr) [[likely]] {
      uint16_t& link = slabs_[object.slab].links[object.index];
      MMLAB_CHECK(link == kAllocated);
      link = cpu.freelist;
      cpu.freelist = static_cast<uint16_t>(object.index);
      --cache.allocated;
      return;
    }
    FreeSlow(cache, object);
  }

  // kmem_cache_alloc_bulk(): all or nothing. kmem_cache_free_bulk(): objects of one slab that stand close together go back at once.
  [[nodiscard]] bool AllocBulk(SlabCacheId id, Gfp gfp, absl::Span<SlabObject> out);
  void FreeBulk(SlabCacheId id, absl::Span<const SlabObject> objects);

  // kmalloc(), kfree() and ksize() by address. kmalloc(0) answers ZERO_SIZE_PTR. Nothing: no memory, or more than the largest block.
  [[nodiscard]] std::optional<VirtAddr> Kmalloc(uint64_t bytes, Gfp gfp);
  SlabFault Kfree(VirtAddr address);
  // Bytes that the holder may use; 0 for ZERO_SIZE_PTR. EFAULT: nothing allocated there.
  SysResult<uint64_t> Ksize(VirtAddr address) const;
  // krealloc(): the same address when the bytes fit, else another with the contents moved. EFAULT: nothing allocated there; ENOMEM.
  SysResult<VirtAddr> Krealloc(VirtAddr address, uint64_t bytes, Gfp gfp);
  // The cache that serves kmalloc(bytes, gfp); nothing for 0 bytes and for what goes to the page allocator.
  std::optional<SlabCacheId> KmallocCache(uint64_t bytes, Gfp gfp) const;
  static constexpr uint64_t kZeroSizePtr = 16;
  static constexpr size_t kMaxCaches = 65536;

  // Where an address lies; never fails. `cache`, when given, is the one that the caller takes it to belong to.
  SlabObjectView Locate(VirtAddr address, std::optional<SlabCacheId> cache = std::nullopt) const;
  // False: whole pages that kmalloc handed out. REQUIRES: view.fault is not kNotSlab.
  static bool IsObject(const SlabObjectView& view) { return view.object.slab != kNoSlab; }
  VirtAddr AddressOf(SlabObject object) const;
  // What SLUB's checks write to the kernel log when somebody frees `address` to `cache` and Locate found `fault`: the whole report.
  std::string FaultReport(VirtAddr address, const SlabObjectView& view) const;

  std::optional<SlabCacheId> Find(absl::string_view name) const;  // By name or alias.
  bool Has(SlabCacheId id) const;
  SlabCacheView View(SlabCacheId id) const;
  std::vector<SlabCacheId> Caches() const;  // Oldest first.
  std::vector<SlabPageView> Slabs(SlabCacheId id) const;
  SlabPageView SlabOf(SlabObject object) const;
  // The partial lists of the current CPU and of the node, from head to tail.
  std::vector<SlabPageView> CpuPartial(SlabCacheId id) const;
  std::vector<SlabPageView> NodePartial(SlabCacheId id) const;
  VirtAddr AddressOfPage(Pfn pfn) const { return VirtAddr(linear_base_ + (pfn.raw() << platform_.page_size.shift())); }
  // Which objects of a slab are allocated, by index.
  std::vector<bool> AllocatedIn(SlabObject object) const;
  // The slab that serves the current CPU, and how many free objects stand on the CPU's list and on the slab's own.
  struct CpuView {
    std::optional<Pfn> slab;
    uint32_t free_on_cpu = 0;
    uint32_t free_on_slab = 0;
    uint32_t partial_slabs = 0;  // On this CPU's partial list.
  };
  CpuView Cpu(SlabCacheId id) const;
  const SlabPlatform& platform() const { return platform_; }

  // Takes over a cache as a recording of a kernel shows it. The next recorded one must be younger.
  SlabCacheId AdoptCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount);
  // The caches that a kernel of this layout has when its first process starts, without objects.
  void AddBootCaches(LayoutKind layout);
  // Forgets the caches that the constructor made. REQUIRES: no objects.
  void ForgetCaches();

  uint64_t HostMemory() const;
  void AddToHash(StateHasher& hasher) const;
  void CheckInvariants(std::vector<std::string>* problems) const;

 private:
  static constexpr uint16_t kEnd = 0xffff;        // End of a list of free objects.
  static constexpr uint16_t kAllocated = 0xfffe;  // In place of a link: somebody holds the object.
  static constexpr uint32_t kNoSlab = 0xffffffff;

  struct Slab {
    uint32_t pfn = 0;
    uint32_t cache = 0;
    uint32_t next = kNoSlab;  // On the node's or a CPU's partial list.
    uint32_t prev = kNoSlab;
    uint16_t objects = 0;
    uint16_t inuse = 0;
    uint16_t freelist = kEnd;   // The slab's own list.
    uint16_t slabs_behind = 0;  // On a CPU's partial list: this and those after it.
    uint8_t order = 0;
    bool frozen = false;  // Belongs to a CPU: its own slab, or one of its partial list.
    SlabPlace place = SlabPlace::kNowhere;
    uint8_t cpu = 0;
    std::unique_ptr<uint16_t[]> links;  // For each object: the next free one, kEnd or kAllocated.
  };
  struct CpuSlab {
    uint32_t slab = kNoSlab;
    uint32_t partial = kNoSlab;
    uint16_t freelist = kEnd;
  };
  struct Cache {
    uint32_t id = 0;
    std::string name;
    std::vector<std::string> aliases;
    SlabGeometry geometry;
    int refcount = 0;
    uint32_t usersize = 0;
    bool constructor = false;
    bool permanent = false;  // The kernel's own.
    std::vector<CpuSlab> cpus;
    uint32_t partial_head = kNoSlab;
    uint32_t partial_tail = kNoSlab;
    uint32_t nr_partial = 0;
    uint64_t slabs = 0;
    uint64_t total_objects = 0;
    uint64_t allocated = 0;
    std::unique_ptr<uint16_t[]> random_order;  // A permutation of the objects of a slab; made with the first slab.
  };

  Cache& CacheOf(SlabCacheId id) { return *caches_[static_cast<uint32_t>(id)]; }
  const Cache& CacheOf(SlabCacheId id) const { return *caches_[static_cast<uint32_t>(id)]; }
  SlabObject TakeFromCpu(CpuSlab& cpu) {
    const uint16_t index = cpu.freelist;
    uint16_t& link = slabs_[cpu.slab].links[index];
    cpu.freelist = link;
    link = kAllocated;
    return {cpu.slab, index};
  }

  // slub.cc: caches.
  SlabCacheId AddCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount, bool permanent);
  Cache* FindMergeable(const SlabCacheRequest& request, SlabCacheId* id);
  void GrowMerged(uint32_t object_size, SlabGeometry& geometry) const;
  void MakeBootCaches();

  // slub_objects.cc: the way of an object.
  std::optional<SlabObject> AllocSlow(Cache& cache, CpuSlab& cpu, Gfp gfp);
  bool RefillCpu(Cache& cache, CpuSlab& cpu, Gfp gfp);
  bool TakeNodePartial(Cache& cache, CpuSlab& cpu);
  std::optional<SlabObject> AllocChecked(Cache& cache, Gfp gfp);
  void FreeSlow(Cache& cache, SlabObject object);
  void FreeRun(Cache& cache, uint32_t slab, uint16_t head, uint16_t tail, uint16_t count);
  void FreeChecked(Cache& cache, uint32_t slab, uint16_t head, uint16_t tail, uint16_t count);
  void FreeToOtherSlab(Cache& cache, uint32_t slab, uint16_t head, uint16_t tail, uint16_t count);
  void PutCpuPartial(Cache& cache, uint32_t slab, bool drain);
  void UnfreezePartials(Cache& cache, uint32_t first);
  void Deactivate(Cache& cache, uint32_t slab, uint16_t freelist);
  void FlushCpus(Cache& cache);

  // slub_slabs.cc: slabs and their pages.
  uint32_t NewSlab(Cache& cache, Gfp gfp);
  void DiscardSlab(Cache& cache, uint32_t slab);
  void FillFreelist(Cache& cache, Slab& slab);
  void AddPartial(Cache& cache, uint32_t slab, bool to_tail);
  void RemovePartial(Cache& cache, uint32_t slab);
  void CountPages(SlabFlags flags, int order, int sign);
  uint32_t CountFree(const Slab& slab, uint16_t head) const;
  SlabPageView ViewOf(const Slab& slab) const;
  void Explain(const char* text, const Cache& cache, const Slab& slab) const;

  SlabPlatform platform_;
  uint64_t linear_base_;
  BuddyMemory& memory_;
  Tracer& tracer_;
  Random random_;
  std::vector<std::unique_ptr<Cache>> caches_;  // By id; empty after destruction. Ascending ids are ascending ages.
  std::array<std::array<int32_t, 16>, kKmallocTypes> kmalloc_caches_{};  // Ids, -1 = none.
  std::vector<Slab> slabs_;
  std::vector<uint32_t> free_slots_;
  uint64_t large_pages_ = 0;  // Pages of kmalloc()s beyond the largest class.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_SLUB_H_

#ifndef MMLAB_SERVER_KERNEL_SLAB_ALLOCATOR_H_
#define MMLAB_SERVER_KERNEL_SLAB_ALLOCATOR_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/base/result.h"
#include "server/kernel/slab_rules.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

// A cache of objects, by its place in the allocator; never given again after the cache was destroyed.
enum class SlabCacheId : uint32_t {};

// An object of a slab: which slab, and its place there (SLOB: the unit where it starts).
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
enum class SlabPlace : uint8_t {
  kNowhere = 0,
  kCpu = 1,          // SLUB: serves a CPU.
  kCpuPartial = 2,   // SLUB: on a CPU's partial list.
  kNodePartial = 3,  // SLUB, SLAB: on the node's partial list.
  kFull = 4,         // Without free objects.
  kFree = 5,         // SLAB: on the list of slabs without objects.
  kSmall = 6,        // SLOB: on the list for objects below 256 bytes,
  kMedium = 7,       // below 1024 bytes,
  kLarge = 8,        // and above.
};

struct SlabPageView {
  Pfn pfn;  // First page.
  int order = 0;
  SlabPlace place = SlabPlace::kNowhere;
  int cpu = -1;  // For kCpu and kCpuPartial.
  uint32_t objects = 0;
  uint32_t inuse = 0;      // As the kernel counts: what is on a CPU's own free list or in an array of free objects is in use.
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
  bool permanent = false;  // The kernel's own.
  uint64_t slabs = 0;
  uint64_t active_slabs = 0;       // SLAB: with objects; SLUB takes all for active.
  uint64_t total_objects = 0;      // Places for objects.
  uint64_t active_objects = 0;     // What /proc/slabinfo counts as active.
  uint64_t allocated = 0;          // Objects that somebody holds.
  uint64_t node_partial = 0;       // Slabs on the node's partial list.
  uint64_t cpu_partial_slabs = 0;  // SLUB: on the lists of all CPUs.
  uint64_t array_objects = 0;      // SLAB: free objects in the arrays of all CPUs,
  uint64_t shared_objects = 0;     // and in the shared one.
  // What the kernel's start-up took beside all that: slabs of which only these numbers are known.
  uint64_t boot_slabs = 0;
  uint64_t boot_total_objects = 0;
  uint64_t boot_active_objects = 0;
};

// Where an address lies.
struct SlabObjectView {
  SlabFault fault = SlabFault::kNotSlab;  // kNone or kAlreadyFree: the address of an object; kNoObject: within a slab only.
  std::optional<SlabCacheId> cache;       // Nothing: whole pages or a block that kmalloc handed out, or the cache is gone (SLOB).
  std::optional<SlabObject> object;       // Nothing: whole pages.
  VirtAddr start;                         // Of the object.
  SlabPageView slab;
};

// What an allocator holds and what of it serves somebody.
struct SlabUsage {
  uint64_t objects = 0;       // That somebody holds.
  uint64_t object_bytes = 0;  // What they take, with padding and headers.
  uint64_t pages = 0;         // Of slabs and of large kmalloc()s.
};

// The slab allocator of a kernel, one of the three of 6.1: what they have in common, which is all that callers see of them. Linux:
// include/linux/slab.h, mm/slab_common.c. Not thread-safe: the machine's lane.
class SlabAllocator {
 public:
  // `linear_base` is where the kernel sees physical address 0, modulo 2^64. `memory` and `tracer` outlive the allocator.
  static std::unique_ptr<SlabAllocator> Make(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer,
                                             uint64_t seed);
  virtual ~SlabAllocator() = default;
  SlabAllocator(const SlabAllocator&) = delete;
  SlabAllocator& operator=(const SlabAllocator&) = delete;

  SlabAllocatorKind kind() const { return platform_.allocator; }
  const SlabPlatform& platform() const { return platform_; }

  // kmem_cache_create(): a new cache, or an older one that serves such objects as well. EINVAL: flags that callers must not give, an
  // alignment that is no power of two, an object that fits no slab. ENOMEM: kMaxCaches were made.
  SysResult<SlabCacheId> CreateCache(const SlabCacheRequest& request);
  // kmem_cache_destroy(): gives up one user of the cache; with the last, the cache. EBUSY: somebody still holds objects, nothing but empty
  // slabs is gone (the kernel warns and leaks the cache; here it stays as it was; SLOB knows of no objects and destroys it); or the kernel
  // itself is the last user. `name` is what the user calls it, an alias perhaps.
  Errno DestroyCache(SlabCacheId id, absl::string_view name);
  // kmem_cache_shrink(): true when slabs remain.
  virtual bool Shrink(SlabCacheId id) = 0;

  // kmem_cache_alloc(), of an existing cache. Nothing: no memory.
  [[nodiscard]] virtual std::optional<SlabObject> AllocObject(SlabCacheId id, Gfp gfp) = 0;
  // kmem_cache_free(). REQUIRES: an allocated object of that cache (Locate's fault is kNone).
  virtual void FreeObject(SlabCacheId id, SlabObject object) = 0;
  // kmem_cache_alloc_bulk(): all or nothing.
  [[nodiscard]] virtual bool AllocBulk(SlabCacheId id, Gfp gfp, absl::Span<SlabObject> out);
  virtual void FreeBulk(SlabCacheId id, absl::Span<const SlabObject> objects);

  // kmalloc(), kfree() and ksize() by address. kmalloc(0) answers ZERO_SIZE_PTR. Nothing: no memory, or more than the largest block.
  [[nodiscard]] virtual std::optional<VirtAddr> Kmalloc(uint64_t bytes, Gfp gfp);
  virtual SlabFault Kfree(VirtAddr address);
  // Bytes that the holder may use; 0 for ZERO_SIZE_PTR. EFAULT: nothing allocated there.
  virtual SysResult<uint64_t> Ksize(VirtAddr address) const = 0;
  // krealloc(): the same address when the bytes fit, else another with the contents moved. EFAULT: nothing allocated there; ENOMEM.
  SysResult<VirtAddr> Krealloc(VirtAddr address, uint64_t bytes, Gfp gfp);
  // The cache that serves kmalloc(bytes, gfp); nothing for 0 bytes and for what comes from no cache.
  std::optional<SlabCacheId> KmallocCache(uint64_t bytes, Gfp gfp) const;
  static constexpr uint64_t kZeroSizePtr = 16;
  static constexpr size_t kMaxCaches = 65536;

  // The tracepoints of these calls, for callers that the kernel's own code would be: kmem:kmem_cache_alloc, kmem_cache_free, kmalloc,
  // kfree.
  void TellAlloc(SlabCacheId id, std::optional<SlabObject> object, Gfp gfp) const;
  void TellFree(SlabCacheId id, SlabObject object) const;  // Before it goes.
  void TellKmalloc(uint64_t bytes, std::optional<VirtAddr> address, Gfp gfp) const;
  void TellKfree(VirtAddr address) const;

  // Where an address lies; never fails. `cache`, when given, is the one that the caller takes it to belong to.
  virtual SlabObjectView Locate(VirtAddr address, std::optional<SlabCacheId> cache = std::nullopt) const = 0;
  virtual VirtAddr AddressOf(SlabObject object) const = 0;
  // What the kernel's checks write to its log when somebody frees `address` and Locate found view.fault: the whole report.
  virtual std::string FaultReport(VirtAddr address, const SlabObjectView& view) const = 0;
  // What they write when they find that somebody wrote `bytes` at `address` where they do not belong: into a free object, or beside one
  // that is held. Empty: nothing is found. REQUIRES: view.object is the object there.
  virtual std::string OverwriteReport(VirtAddr address, absl::string_view bytes, const SlabObjectView& view) const = 0;
  // What the kernel writes when a cache is destroyed of which somebody still holds objects: DestroyCache answered EBUSY.
  virtual std::string RemainingReport(SlabCacheId id) const;
  // Which places of a slab are allocated, by index (SLOB: one element for each block, free or not, by address).
  virtual std::vector<bool> AllocatedIn(SlabObject object) const = 0;

  std::optional<SlabCacheId> Find(absl::string_view name) const;  // By name or alias.
  bool Has(SlabCacheId id) const { return InfoOf(static_cast<size_t>(id)) != nullptr; }
  std::vector<SlabCacheId> Caches() const;  // Oldest first.
  virtual SlabCacheView View(SlabCacheId id) const = 0;
  virtual std::vector<SlabPageView> Slabs(SlabCacheId id) const = 0;
  virtual SlabUsage Usage() const;
  VirtAddr AddressOfPage(Pfn pfn) const { return VirtAddr(linear_base_ + (pfn.raw() << platform_.page_size.shift())); }

  // The caches that a kernel of this layout has when its first process starts, without objects.
  void AddBootCaches(LayoutKind layout);
  // Slabs that start-up took, of caches that exist. Their frames are PhysicalConfig::boot_slabs.
  void AddBootSlabs(absl::Span<const SlabinfoCounts> counts);
  // Whether an address lies in these slabs, whose objects nobody but the kernel's start-up knows.
  bool InBootSlab(VirtAddr address) const;
  // Caches that were made since boot and still exist.
  uint64_t made_caches() const { return made_caches_; }
  // slabinfo_write(), a line written to /proc/slabinfo: "NAME LIMIT BATCHCOUNT SHARED" sets the tunables of a cache; numbers that make no
  // sense are ignored. EINVAL: no such line or cache; EIO: SLUB, which has no tunables; ENOMEM: arrays of that size cannot be had.
  Errno WriteSlabinfo(absl::string_view line);
  // What the allocator does by itself every `kReapNanoseconds` (SLAB's cache_reap(); the others do nothing). False: nothing was left to do.
  virtual bool Reap() { return false; }
  static constexpr int64_t kReapNanoseconds = 2'000'000'000;  // REAPTIMEOUT_AC

  virtual uint64_t HostMemory() const = 0;
  virtual void AddToHash(StateHasher& hasher) const = 0;
  virtual void CheckInvariants(std::vector<std::string>* problems) const = 0;

 protected:
  // What the allocators know alike of each cache. Linux: struct kmem_cache.
  struct CacheInfo {
    uint32_t id = 0;
    std::string name;
    std::vector<std::string> aliases;
    SlabGeometry geometry;
    int refcount = 0;
    uint32_t usersize = 0;
    bool constructor = false;
    bool permanent = false;  // The kernel's own.
    uint32_t boot_slabs = 0;
    uint32_t boot_total_objects = 0;
    uint32_t boot_active_objects = 0;
  };

  SlabAllocator(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer);

  // The cache of an id; null when it is gone or was never made.
  virtual CacheInfo* InfoOf(size_t id) const = 0;
  virtual size_t cache_slots() const = 0;  // One more than the largest id.
  // Makes the cache as it was decided. Never fails.
  virtual SlabCacheId AddCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount, bool permanent) = 0;
  // do_tune_cpucache(), with numbers that make sense.
  virtual Errno Tune(SlabCacheId /*id*/, uint32_t /*limit*/, uint32_t /*batchcount*/, uint32_t /*shared*/) { return Errno::kEIO; }
  // Takes the cache out of the allocator with its slabs; false, with only empty slabs given back: somebody holds objects.
  virtual bool RemoveCache(SlabCacheId id) = 0;
  // The kernel's own caches and those of kmalloc.
  void MakeFirstCaches();
  void ForgetKmallocCaches();
  // Notes that this cache serves kmalloc, if its name says so.
  void NoteKmallocCache(const std::string& name, SlabCacheId id);
  void SetInfo(CacheInfo& info, const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount, bool permanent) const;
  static SlabCacheView ViewOf(const CacheInfo& info);  // What follows from `info` alone.

  // Pages straight from the page allocator: kmalloc() beyond the largest class. Their frames are kSlab with mapping 0.
  std::optional<VirtAddr> KmallocLarge(uint64_t bytes, Gfp gfp);
  void FreeLarge(const SlabObjectView& view);
  // The first frame of the slab, or of the pages of a large kmalloc(), that an address lies in. Nothing: neither is there.
  std::optional<Pfn> SlabPageAt(VirtAddr address) const;
  // What Locate answers for an address in pages of a large kmalloc() whose first frame is `head`.
  SlabObjectView LocateLarge(VirtAddr address, Pfn head, bool of_cache) const;
  // Pages for slabs, of the linear map.
  std::optional<Pfn> TakePages(Gfp gfp, int order);
  void AddLarge(SlabUsage& usage) const;  // Large kmalloc()s, and the pages of everything.
  void CountPages(SlabFlags flags, int order, int sign);
  uint64_t CountedPages() const;  // nr_slab_reclaimable + nr_slab_unreclaimable, without what start-up took.

  SlabPlatform platform_;
  uint64_t linear_base_;
  BuddyMemory& memory_;
  Tracer& tracer_;
  std::array<std::array<int32_t, 16>, kKmallocTypes> kmalloc_caches_{};  // Ids, -1 = none.
  uint64_t large_pages_ = 0;                                             // Pages of kmalloc()s beyond the largest class,
  uint64_t large_count_ = 0;                                             // and how many these are.
  uint64_t made_caches_ = 0;

 private:
  CacheInfo* FindMergeable(const SlabCacheRequest& request);
  void GrowMerged(uint32_t object_size, SlabGeometry& geometry) const;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_SLAB_ALLOCATOR_H_

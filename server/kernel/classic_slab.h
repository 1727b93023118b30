#ifndef MMLAB_SERVER_KERNEL_CLASSIC_SLAB_H_
#define MMLAB_SERVER_KERNEL_CLASSIC_SLAB_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/base/random.h"
#include "server/kernel/slab_allocator.h"

namespace mmlab {

// The allocator SLAB of 6.1 kernels: mm/slab.c, without CONFIG_DEBUG_SLAB. Hands out the free object that came last into the CPU's array;
// an empty array takes a batch from the shared one, then from slabs with free objects, partial ones first, then from a new slab; a full one
// gives a batch to the shared array or back to the slabs. Slabs without objects are kept up to a limit. The first object of each slab
// starts a colour further than that of the slab before.
//
// Always true between calls: every slab is on one list, by how many of its objects are out; an object is in its slab, in one array, or
// held; pages are FrameState::kSlab; nr_slab_* count them. CheckInvariants() proves it.
//
// The order of the objects within a slab is random, as under CONFIG_SLAB_FREELIST_RANDOM, from the seed. struct kmem_cache and the arrays
// themselves are not allocated from caches here. Not thread-safe: the machine's lane.
class ClassicSlab final : public SlabAllocator {
 public:
  // Makes the kernel's own and the kmalloc caches. `memory` and `tracer` outlive this.
  ClassicSlab(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer, uint64_t seed);

  bool Shrink(SlabCacheId id) override;
  [[nodiscard]] std::optional<SlabObject> AllocObject(SlabCacheId id, Gfp gfp) override;
  void FreeObject(SlabCacheId id, SlabObject object) override;
  SysResult<uint64_t> Ksize(VirtAddr address) const override;

  SlabObjectView Locate(VirtAddr address, std::optional<SlabCacheId> cache = std::nullopt) const override;
  VirtAddr AddressOf(SlabObject object) const override;
  std::string FaultReport(VirtAddr address, const SlabObjectView& view) const override;
  std::string OverwriteReport(VirtAddr address, absl::string_view bytes, const SlabObjectView& view) const override;
  std::vector<bool> AllocatedIn(SlabObject object) const override;

  SlabCacheView View(SlabCacheId id) const override;
  std::vector<SlabPageView> Slabs(SlabCacheId id) const override;
  // Where the first object of a slab starts, in bytes from the slab's start.
  uint32_t ColourOf(SlabObject object) const { return slabs_[object.slab].colour; }

  // Arrays that were not used since the last time lose a fifth; every second time so does the shared one, and free slabs are given back.
  bool Reap() override;

  uint64_t HostMemory() const override;
  void AddToHash(StateHasher& hasher) const override;
  void CheckInvariants(std::vector<std::string>* problems) const override;

 private:
  static constexpr uint32_t kNoSlab = 0xffffffff;
  enum List : uint8_t { kFullList, kPartialList, kFreeList, kLists };
  enum class Held : uint8_t { kInSlab, kInArray, kHeld };

  struct Slab {
    uint32_t pfn = 0;
    uint32_t cache = 0;
    uint32_t next = kNoSlab;
    uint32_t prev = kNoSlab;
    uint32_t colour = 0;  // Bytes before the first object.
    uint16_t active = 0;  // Objects that are out: in arrays or held.
    List list = kFreeList;
    VirtAddr management;              // Under SlabFreelist::kOffSlab: the kmalloc() that holds the free list.
    std::unique_ptr<uint8_t[]> free;  // By rank: which object goes out next once `rank` of them are out. Null: the slab is gone.
    std::unique_ptr<Held[]> held;     // By object.
  };
  struct SlabList {
    uint32_t head = kNoSlab;
    uint32_t tail = kNoSlab;
    uint32_t count = 0;
  };
  // struct array_cache: free objects, the last one in goes out first.
  struct ObjectArray {
    std::vector<SlabObject> objects;
    bool touched = false;  // Used since it was last reaped.
  };
  struct Cache : CacheInfo {
    std::vector<ObjectArray> cpus;
    ObjectArray shared;
    std::array<SlabList, kLists> lists;
    uint32_t colour_next = 0;
    bool free_touched = false;  // A free slab was needed since the last reaping.
    uint64_t free_objects = 0;  // In slabs.
    uint64_t free_limit = 0;    // More than so many make free slabs go.
    uint64_t slabs = 0;
    uint64_t allocated = 0;
    std::unique_ptr<uint8_t[]> random_order;  // A permutation of the objects of a slab; made with the first slab.
  };

  Cache& CacheOf(SlabCacheId id) { return *caches_[static_cast<uint32_t>(id)]; }
  const Cache& CacheOf(SlabCacheId id) const { return *caches_[static_cast<uint32_t>(id)]; }
  CacheInfo* InfoOf(size_t id) const override { return id < caches_.size() ? caches_[id].get() : nullptr; }
  size_t cache_slots() const override { return caches_.size(); }
  SlabCacheId AddCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount, bool permanent) override;
  bool RemoveCache(SlabCacheId id) override;
  Errno Tune(SlabCacheId id, uint32_t limit, uint32_t batchcount, uint32_t shared) override;

  // classic_slab.cc: arrays.
  ObjectArray& ArrayOf(Cache& cache) { return cache.cpus[static_cast<size_t>(memory_.current_cpu())]; }
  bool Refill(Cache& cache, Gfp gfp);
  void Flush(Cache& cache, ObjectArray& array);
  uint32_t Transfer(Cache& cache, ObjectArray& to, uint32_t most);
  void FreeBlock(Cache& cache, ObjectArray& array, size_t count);
  bool ReapArray(Cache& cache, ObjectArray& array, uint32_t limit);
  void DrainAll(Cache& cache);
  uint32_t DrainFree(Cache& cache, uint32_t most);

  // classic_slab_slabs.cc: slabs and their pages.
  uint32_t NewSlab(Cache& cache, Gfp gfp);
  void FillFreelist(Cache& cache, Slab& slab);
  void DestroySlab(Cache& cache, uint32_t at);
  int TakeObjects(Cache& cache, ObjectArray& array, uint32_t at, int count);
  void PutObject(Cache& cache, SlabObject object);
  void Link(Cache& cache, uint32_t at, List list, bool to_tail);
  void Unlink(Cache& cache, uint32_t at);
  SlabPageView ViewOf(const Slab& slab) const;
  void Explain(const char* text, const Cache& cache, const Slab& slab) const;

  Random random_;
  std::vector<std::unique_ptr<Cache>> caches_;  // By id; empty after destruction. Ascending ids are ascending ages.
  std::vector<Slab> slabs_;
  std::vector<uint32_t> free_slots_;
  uint64_t reaps_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_CLASSIC_SLAB_H_

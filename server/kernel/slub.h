#ifndef MMLAB_SERVER_KERNEL_SLUB_H_
#define MMLAB_SERVER_KERNEL_SLUB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "server/base/check.h"
#include "server/base/random.h"
#include "server/kernel/slab_allocator.h"

namespace mmlab {

// The slab allocator of 6.1 kernels: mm/slub.c, mm/slab_common.c. Hands out objects of a slab that belongs to the CPU, then of the slabs on
// the CPU's partial list, then of those on the node's, then of a new slab; freed objects make their slabs go the same way back.
//
// Always true between calls: every slab is in one place; a slab's objects are free (once on its own list or on its CPU's) or allocated; its
// pages are FrameState::kSlab; nr_slab_* count them. CheckInvariants() proves it.
//
// The order of the objects within a slab is random, as under CONFIG_SLAB_FREELIST_RANDOM, from the seed. Not thread-safe: the machine's
// lane.
class Slub final : public SlabAllocator {
 public:
  // Makes the kernel's own and the kmalloc caches. `memory` and `tracer` outlive this.
  Slub(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer, uint64_t seed);

  bool Shrink(SlabCacheId id) override;

  [[nodiscard]] std::optional<SlabObject> AllocObject(SlabCacheId id, Gfp gfp) override;
  void FreeObject(SlabCacheId id, SlabObject object) override {
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

  // kmem_cache_free_bulk(): objects of one slab that stand close together go back at once.
  void FreeBulk(SlabCacheId id, absl::Span<const SlabObject> objects) override;
  SysResult<uint64_t> Ksize(VirtAddr address) const override;

  SlabObjectView Locate(VirtAddr address, std::optional<SlabCacheId> cache = std::nullopt) const override;
  VirtAddr AddressOf(SlabObject object) const override;
  std::string FaultReport(VirtAddr address, const SlabObjectView& view) const override;
  std::string OverwriteReport(VirtAddr address, absl::string_view bytes, const SlabObjectView& view) const override;
  std::string RemainingReport(SlabCacheId id) const override;
  std::vector<bool> AllocatedIn(SlabObject object) const override;

  SlabCacheView View(SlabCacheId id) const override;
  std::vector<SlabPageView> Slabs(SlabCacheId id) const override;
  SlabPageView SlabOf(SlabObject object) const;
  // The partial lists of the current CPU and of the node, from head to tail.
  std::vector<SlabPageView> CpuPartial(SlabCacheId id) const;
  std::vector<SlabPageView> NodePartial(SlabCacheId id) const;
  // The slab that serves the current CPU, and how many free objects stand on the CPU's list and on the slab's own.
  struct CpuView {
    std::optional<Pfn> slab;
    uint32_t free_on_cpu = 0;
    uint32_t free_on_slab = 0;
    uint32_t partial_slabs = 0;  // On this CPU's partial list.
  };
  CpuView Cpu(SlabCacheId id) const;

  // Takes over a cache as a recording of a kernel shows it. The next recorded one must be younger.
  SlabCacheId AdoptCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount);
  // Lets the CPU's list of free objects begin with one that lies there in its page, as a recording shows it of an order that was drawn at
  // random. Nothing happens when none on the list does.
  void MakeNext(SlabCacheId id, uint32_t offset_in_page);
  // Forgets the caches that the constructor made. REQUIRES: no objects.
  void ForgetCaches();

  uint64_t HostMemory() const override;
  void AddToHash(StateHasher& hasher) const override;
  void CheckInvariants(std::vector<std::string>* problems) const override;

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
  struct Cache : CacheInfo {
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
  // The object's index in the CPU's slab. REQUIRES: the CPU has a free one.
  uint16_t TakeFromCpu(CpuSlab& cpu) {
    const uint16_t index = cpu.freelist;
    uint16_t& link = slabs_[cpu.slab].links[index];
    cpu.freelist = link;
    link = kAllocated;
    return index;
  }

  // slub.cc: caches.
  CacheInfo* InfoOf(size_t id) const override { return id < caches_.size() ? caches_[id].get() : nullptr; }
  size_t cache_slots() const override { return caches_.size(); }
  SlabCacheId AddCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount, bool permanent) override;
  bool RemoveCache(SlabCacheId id) override;

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
  uint32_t CountFree(const Slab& slab, uint16_t head) const;
  SlabPageView ViewOf(const Slab& slab) const;
  void Explain(const char* text, const Cache& cache, const Slab& slab) const;

  Random random_;
  std::vector<std::unique_ptr<Cache>> caches_;  // By id; empty after destruction. Ascending ids are ascending ages.
  std::vector<Slab> slabs_;
  std::vector<uint32_t> free_slots_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_SLUB_H_

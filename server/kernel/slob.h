#ifndef MMLAB_SERVER_KERNEL_SLOB_H_
#define MMLAB_SERVER_KERNEL_SLOB_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/kernel/slab_allocator.h"

namespace mmlab {

// The allocator SLOB of 6.1 kernels: mm/slob.c. A simple list of blocks: all caches and kmalloc() share pages, which are cut into blocks
// where the first hole is that fits; freed blocks join their free neighbours. Pages with room are on one of three lists, by the size of
// what they were first taken for, and a search goes on where the last one found something. A block of kmalloc() starts with its size.
// Objects of a page and more come from the page allocator.
//
// Always true between calls: blocks cover their page without gap or overlap and two free ones never touch; a page with free units is on
// one list, one without on none, one with nothing but free units is given back. CheckInvariants() proves it.
//
// The kernel knows nothing of the blocks that it handed out; here they are remembered, so that wrong frees can be told. Not thread-safe:
// the machine's lane.
class Slob final : public SlabAllocator {
 public:
  Slob(const SlabPlatform& platform, uint64_t linear_base, BuddyMemory& memory, Tracer& tracer)
      : SlabAllocator(platform, linear_base, memory, tracer) {}

  bool Shrink(SlabCacheId) override { return false; }
  [[nodiscard]] std::optional<SlabObject> AllocObject(SlabCacheId id, Gfp gfp) override;
  void FreeObject(SlabCacheId id, SlabObject object) override;
  [[nodiscard]] std::optional<VirtAddr> Kmalloc(uint64_t bytes, Gfp gfp) override;
  SlabFault Kfree(VirtAddr address) override;
  SysResult<uint64_t> Ksize(VirtAddr address) const override;

  SlabObjectView Locate(VirtAddr address, std::optional<SlabCacheId> cache = std::nullopt) const override;
  VirtAddr AddressOf(SlabObject object) const override;
  std::string FaultReport(VirtAddr address, const SlabObjectView& view) const override;
  std::string OverwriteReport(VirtAddr address, absl::string_view bytes, const SlabObjectView& view) const override;
  std::vector<bool> AllocatedIn(SlabObject object) const override;

  SlabCacheView View(SlabCacheId id) const override;
  std::vector<SlabPageView> Slabs(SlabCacheId id) const override;  // The pages that hold objects of the cache.
  SlabUsage Usage() const override;

  uint64_t HostMemory() const override;
  void AddToHash(StateHasher& hasher) const override;
  void CheckInvariants(std::vector<std::string>* problems) const override;

 private:
  static constexpr uint32_t kNoPage = 0xffffffff;
  static constexpr int kLists = 3;  // Small, medium, large.
  static constexpr int kNoList = -1;
  static constexpr int32_t kFreeBlock = -1;  // Block::owner: nobody,
  static constexpr int32_t kKmalloc = -2;    // kmalloc(); else a cache's id.

  struct Block {
    uint16_t start = 0;  // In units from the start of the page.
    uint16_t units = 0;
    int32_t owner = kFreeBlock;
    uint32_t bytes = 0;  // What kmalloc was asked for, or the size of the cache's objects.
  };
  struct Page {
    uint32_t pfn = 0;
    uint32_t next = kNoPage;
    uint32_t prev = kNoPage;
    uint16_t free_units = 0;
    int8_t list = kNoList;
    uint8_t order = 0;
    bool exists = false;
    bool whole = false;         // One object of a page and more, with one block of 0 units.
    std::vector<Block> blocks;  // By address.
  };
  struct PageList {
    uint32_t head = kNoPage;
    uint32_t tail = kNoPage;
  };
  struct Cache : CacheInfo {
    uint64_t allocated = 0;
  };
  // What is wanted of a block: its size, and that (its address + offset) is a multiple of align.
  struct Wish {
    uint32_t bytes = 0;
    uint32_t align = 0;
    uint32_t align_offset = 0;
  };

  Cache& CacheOf(SlabCacheId id) { return *caches_[static_cast<uint32_t>(id)]; }
  const Cache& CacheOf(SlabCacheId id) const { return *caches_[static_cast<uint32_t>(id)]; }
  CacheInfo* InfoOf(size_t id) const override { return id < caches_.size() ? caches_[id].get() : nullptr; }
  size_t cache_slots() const override { return caches_.size(); }
  SlabCacheId AddCache(const SlabCacheRequest& request, const SlabGeometry& geometry, int refcount, bool permanent) override;
  bool RemoveCache(SlabCacheId id) override;

  uint32_t PageUnits() const { return static_cast<uint32_t>(platform_.page_size.bytes().raw() / kSlobUnit); }
  uint32_t Header() const { return std::max(platform_.kmalloc_align, 8u); }  // Before each block of kmalloc().
  static int ListFor(uint32_t bytes) { return bytes < 256 ? 0 : bytes < 1024 ? 1 : 2; }
  std::optional<SlabObject> Alloc(const Wish& wish, Gfp gfp, int32_t owner, uint32_t bytes);
  std::optional<uint16_t> TakeFrom(uint32_t at, const Wish& wish, int32_t owner, uint32_t bytes);
  void Free(SlabObject object, uint32_t bytes);
  uint32_t NewPage(int order, Gfp gfp);
  void GivePage(uint32_t at);
  void Link(uint32_t at, int list);
  void Unlink(uint32_t at);
  void RotateToFront(uint32_t at);
  size_t BlockAt(const Page& page, uint32_t unit) const;  // The block that a unit lies in.
  VirtAddr StartOf(const Page& page, const Block& block) const;
  SlabPageView ViewOf(const Page& page) const;
  void Explain(const char* text, const Page& page) const;

  std::vector<std::unique_ptr<Cache>> caches_;  // By id; empty after destruction. Ascending ids are ascending ages.
  std::vector<Page> pages_;
  std::vector<uint32_t> free_slots_;
  std::array<PageList, kLists> lists_;
  uint64_t used_units_ = 0;     // Of blocks that somebody holds,
  uint64_t used_blocks_ = 0;    // and their number;
  uint64_t whole_pages_ = 0;    // pages of whole-page objects,
  uint64_t whole_objects_ = 0;  // and their number.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_SLOB_H_

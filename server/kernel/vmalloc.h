#ifndef MMLAB_SERVER_KERNEL_VMALLOC_H_
#define MMLAB_SERVER_KERNEL_VMALLOC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/types/span.h"
#include "server/base/address.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/base/result.h"
#include "server/kernel/free_area_tree.h"
#include "server/physical/gfp.h"

namespace mmlab {

class BuddyMemory;
class KernelLogger;
class KernelPageTables;

// Flags of an area, with the kernel's names and values (include/linux/vmalloc.h).
inline constexpr uint32_t kVmIoremap = 0x1;
inline constexpr uint32_t kVmAlloc = 0x2;
inline constexpr uint32_t kVmMap = 0x4;
inline constexpr uint32_t kVmUsermap = 0x8;
inline constexpr uint32_t kVmDmaCoherent = 0x10;
inline constexpr uint32_t kVmNoGuard = 0x40;
inline constexpr uint32_t kVmFlushResetPerms = 0x100;
inline constexpr uint32_t kVmAreaFlags = 0x1ff;

// One area in use: a vmap_area with its vm_struct, which an area of vm_map_ram() has not.
struct KernelArea {
  uint64_t start = 0;
  uint64_t end = 0;  // Guard page included.
  bool has_vm = true;
  uint32_t flags = 0;
  uint32_t nr_pages = 0;
  std::string caller;                // As /proc/vmallocinfo prints it, "symbol+0x1a/0x2b0"; empty: not printed.
  std::optional<PhysAddr> physical;  // Of an ioremap.
  uint64_t page_array = 0;           // Area that holds the array of page pointers when that is larger than a page; 0: kmalloc.
  std::vector<Pfn> pages;            // That the area owns; empty where only addresses are simulated.
};

struct VmallocConfig {
  VirtAddr start;             // VMALLOC_START
  VirtAddr end;               // VMALLOC_END
  uint64_t last_address = 0;  // Of the layout: 0xffffffff or 2^64 - 1.
  PageSize page_size{12};
  int word_bytes = 4;                // Of a pointer.
  int ioremap_max_order = 22;        // IOREMAP_MAX_ORDER: log2 of the largest alignment of an ioremap.
  int max_cpus = 32;                 // NR_CPUS: sizes the blocks of vm_map_ram().
  int cpus = 1;                      // Online.
  PageCount total_ram;               // totalram_pages()
  std::vector<PfnRange> system_ram;  // What ioremap() refuses.
};

// What an operation of this room answers.
struct VmallocOutcome {
  VirtAddr address;
  VirtRange area;                              // Guard page included; empty for a part of a vm_map_ram block.
  uint32_t nr_pages = 0;                       // Of the area.
  PageCount lazy;                              // Freed but not yet usable again, after the operation.
  std::optional<PageCount> lazy_before_purge;  // When the operation crossed the limit, so that the worker purged.
};

struct VmallocRequest {
  Bytes size;
  uint64_t align = 1;
  VirtAddr start;  // Both 0: all of the vmalloc range.
  VirtAddr end;
  Gfp gfp = 0;
  uint32_t flags = 0;  // Beside kVmAlloc.
  std::string caller;
};

// The kernel's virtual address space outside of the linear map: vmalloc, vmap, ioremap and their like. Linux 6.1: mm/vmalloc.c.
// From the same state it hands out the same addresses as that kernel does.
//
// Always true: an address between 1 and the last one is in an area, lazily freed, or free; an area owns nr_pages frames of state kVmalloc
// (when there is a page allocator). CheckInvariants() proves it.
//
// What the kernel answers with NULL is ENOMEM; what it answers with a warning or BUG() is EINVAL; nothing has changed then, but for a
// purge. Not thread-safe: the machine's lane.
class Vmalloc {
 public:
  // `memory` and `tables`: both or none; without them only addresses are simulated. They outlive this.
  Vmalloc(VmallocConfig config, BuddyMemory* memory, KernelPageTables* tables, Tracer& tracer);

  // Where it is said when no addresses are left; null: nowhere. It outlives this.
  void SetLog(KernelLogger* log) { log_ = log; }

  // --- Boot ---

  // What is there from boot, by address: areas (their frames are boot's, none are taken here) and ranges freed lazily.
  // False: they overlap; those behind are left out.
  bool AddBootAreas(absl::Span<const KernelArea> areas, absl::Span<const FreeAreaTree::Area> lazy);
  // A recorded state: areas, lazily freed ranges, the free tree in pre-order. False: they contradict each other.
  bool Load(absl::Span<const KernelArea> areas, absl::Span<const FreeAreaTree::Area> lazy,
            absl::Span<const FreeAreaTree::RecordedNode> free_tree);

  // --- Operations ---

  SysResult<VmallocOutcome> Alloc(const VmallocRequest& request);                                         // __vmalloc_node_range()
  SysResult<VmallocOutcome> Map(absl::Span<const Pfn> pages, uint32_t flags, const std::string& caller);  // vmap()
  // get_vm_area(): addresses only. Flags: kVmIoremap aligns to the size; kVmMap and others as /proc shows them.
  SysResult<VmallocOutcome> GetArea(Bytes size, uint32_t flags, const std::string& caller);
  // pcpu_get_vm_areas() for one area: the highest addresses that are free, without a guard page.
  SysResult<VmallocOutcome> GetPercpuArea(Bytes size, const std::string& caller);
  SysResult<VmallocOutcome> Ioremap(PhysAddr physical, Bytes size, const std::string& caller);
  SysResult<VmallocOutcome> MapRam(absl::Span<const Pfn> pages, int cpu);  // vm_map_ram()
  SysResult<VmallocOutcome> Free(VirtAddr address);                        // vfree(): any address of the area's pages.
  SysResult<VmallocOutcome> Unmap(VirtAddr address);                       // vunmap(), free_vm_area(): frames stay allocated.
  SysResult<VmallocOutcome> Iounmap(VirtAddr address);
  SysResult<VmallocOutcome> UnmapRam(VirtAddr address, PageCount count);  // vm_unmap_ram(), with the count that vm_map_ram() was given.
  VmallocOutcome UnmapAliases();                                          // vm_unmap_aliases()

  // --- Reading ---

  const VmallocConfig& config() const { return config_; }
  const absl::btree_map<uint64_t, KernelArea>& areas() const { return areas_; }
  const absl::btree_map<uint64_t, uint64_t>& lazy_ranges() const { return lazy_; }  // Start -> end.
  const FreeAreaTree& free_areas() const { return free_; }
  uint64_t ranges() const { return areas_.size() + lazy_.size() + free_.size(); }  // Each a struct vmap_area.
  PageCount lazy_pages() const { return PageCount(lazy_pages_); }
  PageCount lazy_max_pages() const;
  uint64_t nr_vmalloc_pages() const { return nr_vmalloc_pages_; }  // VmallocUsed
  bool InVmallocSpace(uint64_t address) const { return config_.start.raw() <= address && address < config_.end.raw(); }
  uint32_t block_pages() const { return block_pages_; }  // VMAP_BBMAP_BITS

  uint64_t HostMemory() const;
  void AddToHash(StateHasher& hasher) const;
  void CheckInvariants(std::vector<std::string>* problems) const;

 private:
  // A block that vm_map_ram() cuts small requests from. Linux: struct vmap_block.
  struct Block {
    uint32_t free = 0;   // Pages never handed out.
    uint32_t dirty = 0;  // Pages given back.
    int cpu = 0;
  };

  uint64_t Bytes_(uint64_t pages) const { return pages << config_.page_size.shift(); }
  SysResult<uint64_t> AllocRange(uint64_t size, uint64_t align, uint64_t low, uint64_t high);  // alloc_vmap_area()
  SysResult<KernelArea*> NewArea(uint64_t size, uint64_t align, uint32_t flags, uint64_t low, uint64_t high, const std::string& caller);
  bool FillPages(KernelArea& area, Gfp gfp);
  bool MapPages(uint64_t start, absl::Span<const Pfn> pages);
  KernelArea* Find(uint64_t address);  // The area that holds it.
  // The area leaves the list; its range becomes lazily free.
  void Remove(uint64_t start, bool unmap);
  void AddLazy(uint64_t start, uint64_t end);
  SysResult<VmallocOutcome> Release(VirtAddr address, bool free_pages, uint32_t wanted_flag);
  void FreeArea(uint64_t start, bool free_pages);
  void PurgeLazy(const char* reason);  // __purge_vmap_area_lazy()
  void PurgeBlocks();                  // purge_fragmented_blocks_allcpus()
  SysResult<uint64_t> BlockAlloc(uint32_t pages, int cpu);
  VmallocOutcome Done(VirtAddr address, const KernelArea* area);
  uint32_t RoundedUp(uint64_t pages) const;

  VmallocConfig config_;
  BuddyMemory* memory_;
  KernelPageTables* tables_;
  Tracer& tracer_;
  KernelLogger* log_ = nullptr;
  uint32_t block_pages_;
  FreeAreaTree free_;
  absl::btree_map<uint64_t, KernelArea> areas_;
  absl::btree_map<uint64_t, uint64_t> lazy_;
  absl::btree_map<uint64_t, Block> blocks_;
  std::vector<std::vector<uint64_t>> block_queues_;  // By CPU: blocks with free pages, oldest first.
  uint64_t lazy_pages_ = 0;
  uint64_t nr_vmalloc_pages_ = 0;
  uint64_t lost_pages_ = 0;  // Frames of areas that were unmapped with vunmap(): nobody can free them any more.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_VMALLOC_H_

#ifndef MMLAB_SERVER_KERNEL_PERCPU_ALLOCATOR_H_
#define MMLAB_SERVER_KERNEL_PERCPU_ALLOCATOR_H_

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "server/base/address.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/base/result.h"

namespace mmlab {

// Where the addresses and pages of chunks come from; the machine has it.
class PercpuPages {
 public:
  virtual ~PercpuPages() = default;
  // pcpu_get_vm_areas(): addresses for the units of a chunk, one behind the other. Nothing: none are free.
  virtual std::optional<VirtAddr> GetArea(Bytes size) = 0;
  virtual void FreeArea(VirtAddr start) = 0;
  // A frame for each page of [start, end), and the entries that map it. False: no memory; then nothing has changed.
  virtual bool Populate(VirtRange range) = 0;
  virtual void Depopulate(VirtRange range) = 0;
};

// Addresses whose use by boot is known: what is in it, and how much of it.
struct PercpuBootChunk {
  VirtAddr base;           // Of CPU 0's unit.
  uint32_t start = 0;      // Bytes before the part that is handed out: variables of the kernel itself, and those of modules.
  uint32_t end = 0;        // Behind it.
  uint32_t used = 0;       // Bytes from `start` on that boot took.
  uint32_t populated = 0;  // Pages from the first one on.
  bool immutable = false;  // The first chunk: memory of boot, which always stays.
};

struct PercpuConfig {
  int cpus = 1;
  uint32_t unit_size = 0;  // Bytes of a chunk for each CPU; whole pages.
  PageSize page_size{12};
};

// Memory of which each CPU has its own: alloc_percpu(), free_percpu(). A chunk has a unit for each CPU, all of them alike; a request takes
// the same place in each. Pages exist where somebody needed them, and a few more. Linux 6.1: mm/percpu.c, mm/percpu-vm.c.
//
// Chunks stand on lists by the largest run of free bytes; a request is served by the first place that fits in the first chunk, from the
// list of its size upwards. In two things the kernel's hints may choose another place: which of several equally large runs of a chunk it
// knows, and where an atomic request looks for pages that exist. Always true: allocated and free ranges of a chunk make up its size; an
// allocated range has pages; CheckInvariants() proves it. Not thread-safe: the machine's lane.
class PercpuAllocator {
 public:
  // `pages` and `tracer` outlive this; the boot's chunks, the immutable one first.
  PercpuAllocator(const PercpuConfig& config, const std::vector<PercpuBootChunk>& boot, PercpuPages& pages, Tracer& tracer);

  // __alloc_percpu_gfp(): the address of CPU 0's part. EINVAL (the kernel warns and gives NULL): size 0 or more than 32 KiB, an alignment
  // that is no power of two or more than a page. ENOMEM: no addresses or pages; an atomic request, which makes neither, found none.
  SysResult<VirtAddr> Alloc(uint64_t size, uint64_t align, bool atomic);
  // free_percpu(), by the address of CPU 0's part. EINVAL: nothing allocated starts there.
  Errno Free(VirtAddr address);

  // Where `cpu` has its part of what was allocated at an address (per_cpu_ptr()).
  VirtAddr Of(VirtAddr address, int cpu) const { return address + Bytes(uint64_t{config_.unit_size} * static_cast<uint64_t>(cpu)); }
  // Whether the address is in a unit of a chunk that has an area of its own, which nobody else may free.
  bool OwnsArea(VirtAddr address) const;
  uint64_t pages() const;  // pcpu_nr_pages(): Percpu of /proc/meminfo.

  struct ChunkView {
    VirtAddr base;
    uint32_t pages = 0;            // Of a unit.
    uint32_t populated = 0;        // Of these, how many exist.
    uint32_t empty_populated = 0;  // Of these, how many nobody uses.
    uint32_t free_bytes = 0;
    uint32_t largest_free = 0;  // The largest run of free bytes.
    uint32_t allocations = 0;
    int slot = 0;
    bool immutable = false;
    bool isolated = false;  // Its empty pages are being given back: used when no other chunk serves.
  };
  std::vector<ChunkView> Chunks() const;  // By list, as a request goes through them.
  uint32_t unit_size() const { return config_.unit_size; }
  uint64_t empty_populated_pages() const { return empty_populated_; }  // pcpu_nr_empty_pop_pages

  uint64_t HostMemory() const;
  void AddToHash(StateHasher& hasher) const;
  void CheckInvariants(std::vector<std::string>* problems) const;

 private:
  struct Chunk {
    VirtAddr base;
    absl::btree_map<uint32_t, uint32_t> free;       // Start -> end, in bytes of a unit.
    absl::btree_map<uint32_t, uint32_t> allocated;  // Likewise.
    std::vector<bool> populated;                    // By page.
    uint32_t nr_populated = 0;
    uint32_t nr_empty = 0;  // Populated pages that are wholly free.
    uint32_t free_bytes = 0;
    int slot = -1;
    bool immutable = false;
    bool isolated = false;
  };
  using ChunkList = std::list<std::unique_ptr<Chunk>>;

  uint32_t page_bytes() const { return static_cast<uint32_t>(config_.page_size.bytes().raw()); }
  uint32_t unit_pages() const { return config_.unit_size / page_bytes(); }
  int SlotOfSize(uint32_t size) const;
  int SlotOf(const Chunk& chunk) const;
  static uint32_t LargestFree(const Chunk& chunk);
  ChunkList::iterator Move(ChunkList::iterator chunk, int slot, bool front);
  void Relocate(ChunkList::iterator chunk);
  void Reintegrate(ChunkList::iterator chunk);
  bool PageIsFree(const Chunk& chunk, uint32_t page) const;
  void CountEmpty(Chunk& chunk);
  std::optional<uint32_t> FindPlace(const Chunk& chunk, uint32_t size, uint32_t align, bool atomic) const;
  static void Take(Chunk& chunk, uint32_t start, uint32_t size);
  bool Populate(Chunk& chunk, uint32_t first, uint32_t end);
  void Depopulate(Chunk& chunk, uint32_t first, uint32_t end);
  bool CreateChunk();
  SysResult<VirtAddr> Serve(ChunkList::iterator chunk, uint32_t place, uint32_t size, bool atomic);
  bool ShouldReclaim(const Chunk& chunk) const;
  void Balance();
  void FreeEmptyChunks(bool without_pages);
  void ReclaimPages();
  void FillUp();
  void Explain(const char* text, const Chunk& chunk) const;

  PercpuConfig config_;
  PercpuPages& pages_;
  Tracer& tracer_;
  std::vector<ChunkList> lists_;  // By slot; the last three: sidelined, wholly free, to be given back.
  int sidelined_slot_;
  int free_slot_;
  int depopulate_slot_;
  uint64_t populated_ = 0;        // pcpu_nr_populated: pages of a unit, over all chunks.
  uint64_t empty_populated_ = 0;  // Over the chunks that are not isolated.
  bool atomic_failed_ = false;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_PERCPU_ALLOCATOR_H_

#ifndef MMLAB_SERVER_KERNEL_KMAP_H_
#define MMLAB_SERVER_KERNEL_KMAP_H_

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

namespace mmlab {

class KernelPageTables;

struct KmapConfig {
  VirtAddr page_offset;     // PAGE_OFFSET: where the linear map starts.
  Pfn max_low_pfn;          // First frame that the linear map does not reach.
  Pfn end_pfn;              // First frame that does not exist.
  VirtAddr pkmap_base;      // PKMAP_BASE
  uint32_t last_pkmap = 0;  // LAST_PKMAP: slots of the window, a power of two; 0 on a layout without high memory.
  VirtAddr fix_kmap_first;  // Of the first slot for local mappings; the others lie below.
  int cpus = 1;
  PageSize page_size{12};
};

// Temporary mappings of high memory, which the linear map of a 32-bit kernel does not reach. Linux 6.1: mm/highmem.c.
//
// kmap(): a window of slots that everybody shares; a slot counts its users plus one, a slot without users (count 1) keeps its page until a
// search for a slot wraps around to 0 and flushes. kmap_local_page(): a stack of slots for each CPU, in the fixmap.
//
// Always true: a frame has one slot at most. Errnos: EINVAL what the kernel answers with BUG(); EAGAIN where kmap() would sleep until
// somebody else lets go of a slot. Not thread-safe: the machine's lane.
class Kmap {
 public:
  static constexpr int kLocalSlots = 16;  // KM_MAX_IDX

  struct Slot {
    uint32_t count = 0;
    Pfn frame;
  };

  // `tables`: may be null; then only addresses are simulated. Outlives this.
  Kmap(const KmapConfig& config, KernelPageTables* tables, Tracer& tracer);

  // A recorded state. False: a slot that does not exist.
  bool Load(uint32_t last_pkmap_nr, absl::Span<const std::pair<uint32_t, Slot>> slots);

  SysResult<VirtAddr> Map(Pfn frame);                // kmap()
  Errno Unmap(Pfn frame);                            // kunmap()
  SysResult<VirtAddr> MapLocal(Pfn frame, int cpu);  // kmap_local_page(); EAGAIN: all slots of the CPU are in use, where the kernel BUGs.
  Errno UnmapLocal(VirtAddr address, int cpu);       // kunmap_local(): the last one first.
  void FlushUnused();                                // kmap_flush_unused()
  bool IsHigh(Pfn frame) const { return frame >= config_.max_low_pfn; }

  const KmapConfig& config() const { return config_; }
  uint32_t last_pkmap_nr() const { return last_; }
  const std::vector<Slot>& slots() const { return slots_; }
  // Frames mapped by kmap_local on a CPU, first to last.
  const std::vector<Pfn>& local(int cpu) const { return local_[static_cast<size_t>(cpu)]; }
  VirtAddr SlotAddress(uint32_t slot) const;
  VirtAddr LocalAddress(int cpu, size_t index) const;

  uint64_t HostMemory() const;
  void AddToHash(StateHasher& hasher) const;
  void CheckInvariants(std::vector<std::string>* problems) const;

 private:
  SysResult<uint32_t> FindSlot();  // get_next_pkmap_nr() until a slot is empty.
  VirtAddr LinearAddress(Pfn frame) const { return VirtAddr(config_.page_offset.raw() + config_.page_size.StartOf(frame).raw()); }

  KmapConfig config_;
  KernelPageTables* tables_;
  Tracer& tracer_;
  uint32_t last_ = 0;
  std::vector<Slot> slots_;                      // Empty until the first kmap of high memory.
  absl::btree_map<uint64_t, uint32_t> slot_of_;  // By frame number: page_address() of high memory.
  std::vector<std::vector<Pfn>> local_;          // By CPU.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_KMAP_H_

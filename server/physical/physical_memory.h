#ifndef MMLAB_SERVER_PHYSICAL_PHYSICAL_MEMORY_H_
#define MMLAB_SERVER_PHYSICAL_PHYSICAL_MEMORY_H_

#include <cstdint>
#include <optional>

#include "server/base/address.h"
#include "server/physical/frame.h"
#include "server/physical/gfp.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

class FrameContents;
class LruLists;
class MemoryController;

// The frames of one machine and who may have them: zones, free lists, per-CPU lists. Linux: mm/page_alloc.c.
//
// What rooms above (files, process) need of physical memory, as an interface, so that they can be tested on a few frames.
// BuddyMemory (page_allocator.h) is the one implementation that a machine runs on.
class PhysicalMemory {
 public:
  virtual ~PhysicalMemory() = default;

  // alloc_pages(): 2^order frames, naturally aligned, or nothing when memory is short; then nothing has changed.
  // The head frame comes back with refcount 1, state kKernel (the caller sets a better one), the other fields zero; the bytes read as zero
  // (a fresh frame never shows what its previous owner wrote).
  // Without kGfpComp the metadata of the block's other frames belongs to nobody and must be left alone.
  [[nodiscard]] virtual std::optional<Pfn> AllocPages(Gfp gfp, PageOrder order) = 0;

  // __free_pages(): gives back exactly a block that AllocPages returned. Clears its metadata and its bytes.
  virtual void FreePages(Pfn head, PageOrder order) = 0;

  // alloc_contig_pages(): 2^order frames, naturally aligned and more than the largest block has, in a place out of which everything that is
  // in use can be moved. They are one compound page in that state with one reference; the bytes read as zero. Nothing: there is no such
  // place.
  [[nodiscard]] virtual std::optional<Pfn> AllocContig(Gfp gfp, PageOrder order, FrameState state) = 0;
  // free_contig_range(): gives back such a page, frame by frame.
  virtual void FreeContig(Pfn head, PageOrder order) = 0;

  // split_page(): makes a block 2^order blocks of order 0, each to be freed on its own. REQUIRES: allocated, not compound.
  virtual void SplitPage(Pfn head, PageOrder order) = 0;

  // Metadata of a frame; makes its block of metadata exist. REQUIRES: pfn < end_pfn().
  virtual Frame& frame(Pfn pfn) = 0;
  virtual FrameContents& contents() = 0;
  virtual const FrameContents& contents() const = 0;
  virtual PageSize page_size() const = 0;
  // The CPU that runs the operations now, and how many there are.
  virtual int current_cpu() const = 0;
  virtual int cpus() const = 0;
  // PageHighMem(): the frame is in high memory, which the kernel reaches by mapping it.
  virtual bool InHighmem(Pfn pfn) const = 0;

  // The LRU lists that reclaim works on. A frame that is freed leaves them by itself.
  virtual LruLists& lru() = 0;

  // alloc_pages() and mem_cgroup_charge(): a page for a process or a file, charged to the process that acts. Nothing: memory is short, or
  // the process's memory cgroup may not have more.
  [[nodiscard]] std::optional<Pfn> AllocCharged(Gfp gfp) {
    const std::optional<Pfn> pfn = AllocPages(gfp, PageOrder(0));
    if (charger_ == nullptr || !pfn.has_value()) [[likely]]
      return pfn;
    return Charged(*pfn);
  }

  // __mod_lruvec_page_state(): counts a page, for its node in `node`, and for the memory cgroup that is charged for it.
  void CountPage(VmStat& node, const Frame& frame, NodeStat item, int64_t delta) {
    if (frame.memcg == 0) [[likely]] {
      node.Add(item, delta);
    } else {
      CountCharged(frame, item, delta);
    }
  }

  // folio_wait_locked() behind the read of a page: the acting process waited for the disk, and for want of memory where reclaim took what
  // it should not have taken.
  void WaitForRead(Pfn pfn);

  // Whom charges and stalls go to; null: nobody counts them. Outlives its use here.
  MemoryController* controller() const { return controller_; }
  void SetController(MemoryController* controller) { controller_ = controller; }
  // The same while there is any cgroup beside the root; null otherwise, so that one test is all that charging costs then.
  MemoryController* charger() const { return charger_; }
  void SetCharging(bool charging) { charger_ = charging ? controller_ : nullptr; }

  // A frame that no allocation returns, always zero, mapped wherever an anonymous page was only read (ZERO_PAGE(0)).
  virtual Pfn zero_frame() const = 0;

 private:
  std::optional<Pfn> Charged(Pfn pfn);
  void CountCharged(const Frame& frame, NodeStat item, int64_t delta);

  MemoryController* controller_ = nullptr;
  MemoryController* charger_ = nullptr;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_PHYSICAL_MEMORY_H_

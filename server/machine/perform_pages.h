#ifndef MMLAB_SERVER_MACHINE_PERFORM_PAGES_H_
#define MMLAB_SERVER_MACHINE_PERFORM_PAGES_H_

#include "server/arch/kernel_layout.h"
#include "server/machine/movable_pages.h"
#include "server/machine/operation.h"
#include "server/physical/compaction.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

// The flags that a kind of caller gives (GFP_KERNEL and its kin).
Gfp GfpOf(op::GfpClass gfp);

// What code inside the kernel asks of the page allocator, as operations. A frame that was handed out here can be given back here and no
// other: whoever names frames that he does not hold gets EINVAL, and nothing changes. The CPU is set already.
class PagePerformer {
 public:
  PagePerformer(BuddyMemory& memory, const KernelLayout& layout, MovablePages& movable, Compaction& compaction)
      : memory_(memory), layout_(layout), movable_(movable), compaction_(compaction) {}

  Outcome Perform(const op::AllocPages& o);
  Outcome Perform(const op::FreePages& o);
  Outcome Perform(const op::GetFreePages& o);
  Outcome Perform(const op::AllocPagesExact& o);
  Outcome Perform(const op::FreePagesExact& o);
  Outcome Perform(const op::AllocPagesBulk& o);
  Outcome Perform(const op::FreePageList& o);
  Outcome Perform(const op::SplitPage& o);
  Outcome Perform(const op::DrainPages& o);
  Outcome Perform(const op::CompactMemory& o);

 private:
  // Whether a block of this order was handed out that starts here.
  bool Holds(uint64_t pfn, int order) const;
  void HandOut(Pfn first, uint64_t blocks);

  BuddyMemory& memory_;
  const KernelLayout& layout_;
  MovablePages& movable_;
  Compaction& compaction_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PERFORM_PAGES_H_

#ifndef MMLAB_SERVER_MACHINE_PERFORM_SLAB_H_
#define MMLAB_SERVER_MACHINE_PERFORM_SLAB_H_

#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "server/kernel/kernel_objects.h"
#include "server/kernel/slab_allocator.h"
#include "server/machine/kernel_log.h"
#include "server/machine/operation.h"

namespace mmlab {

// What the operations on slab objects do. A wrong free answers EINVAL, changes nothing but the kernel log, and brings what it wrote there
// as data. An object that the kernel itself holds is not freed: EBUSY.
class SlabPerformer {
 public:
  SlabPerformer(SlabAllocator& slab, const KernelObjects& kernels, BuddyMemory& memory, KernelLog& log)
      : slab_(slab), kernels_(kernels), memory_(memory), log_(log) {}

  Outcome Perform(const op::KmemCacheCreate& o);
  Outcome Perform(const op::KmemCacheDestroy& o);
  Outcome Perform(const op::KmemCacheShrink& o);
  Outcome Perform(const op::KmemCacheAlloc& o);
  Outcome Perform(const op::KmemCacheFree& o);
  Outcome Perform(const op::KmemCacheAllocBulk& o);
  Outcome Perform(const op::KmemCacheFreeBulk& o);
  Outcome Perform(const op::Kmalloc& o);
  Outcome Perform(const op::Krealloc& o);
  Outcome Perform(const op::Kfree& o);
  Outcome Perform(const op::Ksize& o);
  Outcome Perform(const op::WriteSlabinfo& o);
  Outcome Perform(const op::WriteSlabMemory& o);

 private:
  // What keeps an address from being freed: a report of the allocator's checks, or that the kernel holds it. Nothing: it may go.
  std::optional<Outcome> Refusal(VirtAddr address, const SlabObjectView& view);
  Outcome Reported(Errno error, std::string report);  // With what the kernel writes to its log.
  bool Kernels(const SlabObjectView& view) const;     // Whether the kernel itself holds the object.
  // Calls `visit` with each frame behind kernel addresses: where the bytes start in it and in the range, and how many they are.
  void ForEachPage(VirtAddr address, uint64_t size,
                   absl::FunctionRef<void(Pfn pfn, uint64_t offset, uint64_t done, uint64_t count)> visit) const;
  void Zero(VirtAddr address, uint64_t size);

  SlabAllocator& slab_;
  const KernelObjects& kernels_;  // What the kernel itself holds.
  BuddyMemory& memory_;
  KernelLog& log_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PERFORM_SLAB_H_

#ifndef MMLAB_SERVER_MACHINE_PERFORM_SLAB_H_
#define MMLAB_SERVER_MACHINE_PERFORM_SLAB_H_

#include "server/kernel/slab_allocator.h"
#include "server/machine/operation.h"

namespace mmlab {

// What the operations on slab objects do. A wrong free answers EINVAL, changes nothing, and brings what the kernel would log as data.
Outcome PerformSlab(const op::KmemCacheCreate& o, SlabAllocator& slab);
Outcome PerformSlab(const op::KmemCacheDestroy& o, SlabAllocator& slab);
Outcome PerformSlab(const op::KmemCacheShrink& o, SlabAllocator& slab);
Outcome PerformSlab(const op::KmemCacheAlloc& o, Gfp gfp, SlabAllocator& slab);
Outcome PerformSlab(const op::KmemCacheFree& o, SlabAllocator& slab);
Outcome PerformSlab(const op::KmemCacheAllocBulk& o, Gfp gfp, SlabAllocator& slab);
Outcome PerformSlab(const op::KmemCacheFreeBulk& o, SlabAllocator& slab);
Outcome PerformSlab(const op::Kmalloc& o, Gfp gfp, SlabAllocator& slab);
Outcome PerformSlab(const op::Krealloc& o, Gfp gfp, SlabAllocator& slab);
Outcome PerformSlab(const op::Kfree& o, SlabAllocator& slab);
Outcome PerformSlab(const op::Ksize& o, SlabAllocator& slab);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PERFORM_SLAB_H_

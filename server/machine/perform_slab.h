#ifndef MMLAB_SERVER_MACHINE_PERFORM_SLAB_H_
#define MMLAB_SERVER_MACHINE_PERFORM_SLAB_H_

#include "server/kernel/slub.h"
#include "server/machine/operation.h"

namespace mmlab {

// What the operations on slab objects do. A wrong free answers EINVAL, changes nothing, and brings what the kernel would log as data.
Outcome PerformSlab(const op::KmemCacheCreate& o, Slub& slub);
Outcome PerformSlab(const op::KmemCacheDestroy& o, Slub& slub);
Outcome PerformSlab(const op::KmemCacheShrink& o, Slub& slub);
Outcome PerformSlab(const op::KmemCacheAlloc& o, Gfp gfp, Slub& slub);
Outcome PerformSlab(const op::KmemCacheFree& o, Slub& slub);
Outcome PerformSlab(const op::Kmalloc& o, Gfp gfp, Slub& slub);
Outcome PerformSlab(const op::Krealloc& o, Gfp gfp, Slub& slub);
Outcome PerformSlab(const op::Kfree& o, Slub& slub);
Outcome PerformSlab(const op::Ksize& o, Slub& slub);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PERFORM_SLAB_H_

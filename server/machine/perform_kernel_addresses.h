#ifndef MMLAB_SERVER_MACHINE_PERFORM_KERNEL_ADDRESSES_H_
#define MMLAB_SERVER_MACHINE_PERFORM_KERNEL_ADDRESSES_H_

#include "server/kernel/kmap.h"
#include "server/kernel/percpu_allocator.h"
#include "server/kernel/vmalloc.h"
#include "server/machine/operation.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

// What the operations on the kernel's address space do. The CPU of an operation is the current one.
Outcome PerformVmalloc(const op::Vmalloc& o, Gfp gfp, Vmalloc& vmalloc);
Outcome PerformVmalloc(const op::Vfree& o, Vmalloc& vmalloc);
Outcome PerformVmalloc(const op::Vmap& o, const BuddyMemory& memory, Vmalloc& vmalloc);
Outcome PerformVmalloc(const op::Vunmap& o, Vmalloc& vmalloc);
Outcome PerformVmalloc(const op::GetVmArea& o, Vmalloc& vmalloc);
Outcome PerformVmalloc(const op::Ioremap& o, Vmalloc& vmalloc);
Outcome PerformVmalloc(const op::Iounmap& o, Vmalloc& vmalloc);
Outcome PerformVmalloc(const op::VmMapRam& o, const BuddyMemory& memory, Vmalloc& vmalloc);
Outcome PerformVmalloc(const op::VmUnmapRam& o, Vmalloc& vmalloc);
Outcome PerformVmalloc(const op::VmUnmapAliases& o, Vmalloc& vmalloc);
Outcome PerformKmap(const op::Kmap& o, Kmap& kmap);
Outcome PerformKmap(const op::Kunmap& o, Kmap& kmap);
Outcome PerformKmap(const op::KmapLocal& o, Kmap& kmap);
Outcome PerformKmap(const op::KunmapLocal& o, Kmap& kmap);
Outcome PerformKmap(const op::KmapFlushUnused& o, Kmap& kmap);
Outcome PerformPercpu(const op::AllocPercpu& o, int cpus, PercpuAllocator& percpu);
Outcome PerformPercpu(const op::FreePercpu& o, PercpuAllocator& percpu);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PERFORM_KERNEL_ADDRESSES_H_

#ifndef MMLAB_SERVER_MACHINE_KERNEL_ADDRESSES_H_
#define MMLAB_SERVER_MACHINE_KERNEL_ADDRESSES_H_

#include "server/kernel/kernel_page_tables.h"
#include "server/kernel/kmap.h"
#include "server/kernel/vmalloc.h"
#include "server/machine/machine.h"

namespace mmlab {

// A machine's kernel address space outside of the linear map. Areas of the recorded boot own no frames: what the kernel's start-up took is
// not told apart from other reserved and used memory.
struct Machine::KernelAddresses {
  KernelAddresses(const Layout& layout, const VmallocConfig& vmalloc_config, const KmapConfig& kmap_config, BuddyMemory& memory,
                  Tracer& tracer);

  KernelPageTables tables;
  Vmalloc vmalloc;
  Kmap kmap;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_KERNEL_ADDRESSES_H_

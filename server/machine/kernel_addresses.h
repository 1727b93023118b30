#ifndef MMLAB_SERVER_MACHINE_KERNEL_ADDRESSES_H_
#define MMLAB_SERVER_MACHINE_KERNEL_ADDRESSES_H_

#include <algorithm>
#include <cstdint>
#include <memory>

#include "server/kernel/boot_page_tables.h"
#include "server/kernel/kernel_page_tables.h"
#include "server/kernel/kmap.h"
#include "server/kernel/vmalloc.h"
#include "server/machine/machine.h"
#include "server/machine/percpu_memory.h"

namespace mmlab {

// A machine's kernel address space. Areas of the recorded boot own no frames: what the kernel's start-up took is
// not told apart from other reserved and used memory.
struct Machine::KernelAddresses {
  KernelAddresses(const Layout& layout, std::unique_ptr<const BootPageTables> boot_tables, const VmallocConfig& vmalloc_config,
                  const KmapConfig& kmap_config, BuddyMemory& memory, Tracer& tracer);

  std::unique_ptr<const BootPageTables> boot;  // Null: not known.
  KernelPageTables tables;
  Vmalloc vmalloc;
  Kmap kmap;
  PercpuMemory percpu_memory;
  std::unique_ptr<PercpuAllocator> percpu;  // Null: not known where it lies, or only the areas were to be read.
  uint64_t boot_ranges = 0;                 // What there is from boot, whose structures nobody counts.
  uint64_t boot_areas = 0;

  uint64_t ranges_made() const { return vmalloc.ranges() - std::min(vmalloc.ranges(), boot_ranges); }
  uint64_t areas_made() const { return vmalloc.areas().size() - std::min<uint64_t>(vmalloc.areas().size(), boot_areas); }
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_KERNEL_ADDRESSES_H_

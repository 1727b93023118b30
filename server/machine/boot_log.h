#ifndef MMLAB_SERVER_MACHINE_BOOT_LOG_H_
#define MMLAB_SERVER_MACHINE_BOOT_LOG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/machine/machine.h"

namespace mmlab {

// The stages of a boot, in the kernel's order. Numbers of v1::BootStage.
enum class BootStage : uint8_t {
  kFirmware = 1,       // What firmware and loader say, as the kernel takes it. Linux: e820__memory_setup(), early_init_dt_scan().
  kMemoryMap = 2,      // What is RAM for this kernel. parse_early_param(), trim_bios_range(), e820__end_of_ram_pfn().
  kAddressSpace = 3,   // lowmem, HighMem. find_low_pfn_range(), initmem_init(), arm64_memblock_init().
  kZones = 4,          // free_area_init()
  kEarlyAreas = 5,     // Early allocations: CMA, per-CPU areas, hash tables. setup_per_cpu_areas(), alloc_large_system_hash().
  kPageAllocator = 6,  // build_all_zonelists(), mem_init()
  kSlab = 7,           // kmem_cache_init()
  kFreeing = 8,        // What boot alone needed. free_initmem(), free_initrd_mem()
};

struct BootLogLine {
  BootStage stage;
  int level;         // KERN_*: 3 error, 4 warning, 5 notice, 6 info, 7 debug.
  std::string text;  // With the kernel's wording.
  std::string why;   // Where its numbers come from.
};

// What the kernel of the machine said of memory while it booted. Always the same for the same description.
std::vector<BootLogLine> BootLog(const Machine& machine);

// As `dmesg -r` prints it: "<6>[    0.000000] text". The machine's clock does not move while it boots.
std::string BootLogText(const Machine& machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_BOOT_LOG_H_

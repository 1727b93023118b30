#ifndef MMLAB_SERVER_MACHINE_MACHINE_SPEC_H_
#define MMLAB_SERVER_MACHINE_MACHINE_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "server/arch/kernel_layout.h"
#include "server/arch/layout.h"
#include "server/base/address.h"
#include "server/kernel/slab_rules.h"
#include "server/kernel/vmalloc.h"

namespace mmlab {

// What a machine is made of: v1::MachineSpec in the engine's types, presets already filled in. Units and ranges are documented there.
struct FirmwareRange {
  enum class Type : uint8_t { kRam = 1, kReserved = 2, kAcpi = 3, kNvs = 4, kUnusable = 5 };
  PhysRange range;
  Type type = Type::kRam;
};

struct NamedRange {
  PhysRange range;
  std::string name;
};

// v1::ReservedRange. (ReservedRange itself is page-aligned and belongs to the physical room.)
struct BootReservation {
  PhysRange range;
  std::string purpose;
  bool freed_late = false;  // Given to the page allocator after the watermarks were computed.
};

struct IomemResource {
  PhysAddr start;
  PhysAddr last;  // Inclusive, as /proc/iomem prints it.
  std::string name;
  std::vector<IomemResource> children;
};

struct MachineSpec {
  std::string preset;  // For information only.
  LayoutKind layout = LayoutKind::kX86_32;
  std::vector<FirmwareRange> firmware_ranges;
  int cpus = 1;
  std::string kernel_release;
  std::string kernel_version;
  std::string kernel_machine;
  std::string kernel_built_by;
  std::string kernel_compiler;
  std::vector<NamedRange> kernel_sections;
  std::vector<BootReservation> reserved_ranges;
  std::vector<IomemResource> iomem_resources;
  std::vector<NamedRange> cma_areas;
  enum class TransparentHugepage : uint8_t { kNever = 1, kMadvise = 2, kAlways = 3 };
  TransparentHugepage transparent_hugepage = TransparentHugepage::kNever;
  std::map<std::string, std::string> sysctls;           // Set by the user; by name with dots.
  std::map<std::string, std::string> recorded_sysctls;  // Of the recorded boot, where no rule derives them.
  std::vector<KernelArea> recorded_areas;               // Likewise: of the kernel's address space, by address.
  std::vector<FreeAreaTree::Area> recorded_lazy_areas;  // Likewise: freed by vfree() and not purged yet, by address.
  std::vector<SlabinfoCounts> recorded_slabs;           // Likewise: of the slab caches.
  uint32_t recorded_large_kmalloc_pages = 0;            // Likewise: of kmalloc()s that took whole pages.
  bool no_hardware_access_flag = false;
  uint64_t seed = 0;
  std::string hostname;
  int64_t boot_time_seconds = 1700000000;
  std::string command_line;
  VmSplit vmsplit = VmSplit::k3G;      // x86-32.
  std::optional<Highmem> highmem;      // x86-32; absent: 64G with PAE, else 4G.
  int va_bits = 48;                    // ARM64: 39 or 48.
  bool kasan = false;                  // ARM64.
  std::optional<PhysRange> initramfs;  // Where the loader put it.
  SlabAllocatorKind slab_allocator = SlabAllocatorKind::kSlub;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_MACHINE_SPEC_H_

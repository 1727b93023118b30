#ifndef MMLAB_SERVER_ARCH_KERNEL_LAYOUT_H_
#define MMLAB_SERVER_ARCH_KERNEL_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/arch/layout.h"
#include "server/base/address.h"

namespace mmlab {

// CONFIG_VMSPLIT_*: where an x86-32 kernel's part of each address space starts (PAGE_OFFSET). Numbers of v1::VmSplit.
enum class VmSplit : uint8_t {
  k3G = 1,     // 0xc0000000
  k3GOpt = 2,  // 0xb0000000: all of 1 GiB of RAM is lowmem. Not with PAE.
  k2G = 3,     // 0x80000000
  k2GOpt = 4,  // 0x78000000: all of 2 GiB of RAM is lowmem. Not with PAE.
  k1G = 5,     // 0x40000000
};

// CONFIG_NOHIGHMEM, CONFIG_HIGHMEM4G, CONFIG_HIGHMEM64G (which is PAE): the RAM that an x86-32 kernel can use. Numbers of v1::Highmem.
enum class Highmem : uint8_t { kOff = 1, k4G = 2, k64G = 3 };

// How the kernel was built and told to lay out its address space. What does not concern a layout kind is ignored there.
struct KernelLayoutConfig {
  LayoutKind kind = LayoutKind::kX86_32;
  VmSplit vmsplit = VmSplit::k3G;
  std::optional<Highmem> highmem;        // Absent: 64G with PAE, else 4G.
  Bytes vmalloc_reserve{128 << 20};      // __VMALLOC_RESERVE. "vmalloc=SIZE" makes it SIZE + VMALLOC_OFFSET.
  std::optional<PageCount> highmem_arg;  // "highmem=": so much HighMem even if all RAM fits into lowmem.
  int va_bits = 48;                      // ARM64: 39 or 48 (36, 47 with 16 KiB pages, 42 with 64 KiB).
  PageSize page_size{12};                // ARM64: 4, 16 or 64 KiB.
  bool kasan = false;                    // ARM64: CONFIG_KASAN_GENERIC, a shadow byte for each 8 bytes.

  Highmem highmem_or_default() const { return highmem.value_or(kind == LayoutKind::kX86_32Pae ? Highmem::k64G : Highmem::k4G); }
};

// A stretch of the kernel's address space, for reading.
struct LayoutRegion {
  std::string name;  // "vmalloc", "lowmem", ".text".
  VirtAddr start;
  VirtAddr last;  // Inclusive: the last one ends at the top of the address space.
  std::string meaning;
};

// The variables and macros of the kernel's address space under their kernel names, in lower case. Linux: arch/x86/include/asm/
// pgtable_32_areas.h, fixmap.h, arch/x86/mm/init_32.c (find_low_pfn_range, initmem_init); arch/arm64/include/asm/memory.h, pgtable.h,
// fixmap.h, arch/arm64/mm/init.c (arm64_memblock_init).
//
// Always true: on x86-32 page_offset < high_memory < vmalloc_start < vmalloc_end <= pkmap_base < ldt_base < cpu_entry_area < fixaddr_start
// < fixaddr_top; on ARM64 page_offset < page_end <= modules_vaddr < vmalloc_start < vmalloc_end < fixaddr_start < pci_io_start <
// vmemmap_start.
struct KernelLayout {
  KernelLayoutConfig config;

  // Both.
  VirtAddr page_offset;    // PAGE_OFFSET: where the linear map starts.
  VirtAddr task_size;      // TASK_SIZE.
  VirtAddr high_memory;    // First address behind the linear map of RAM (lowmem).
  VirtAddr vmalloc_start;  // VMALLOC_START, VMALLOC_END.
  VirtAddr vmalloc_end;
  VirtAddr modules_vaddr;  // MODULES_VADDR, MODULES_END: on x86-32 all of vmalloc.
  VirtAddr modules_end;
  VirtAddr fixaddr_start;  // FIXADDR_START, FIXADDR_TOP: the permanent fixmap slots; slot n is the page at fixaddr_top - n pages.
  VirtAddr fixaddr_top;
  uint32_t end_of_permanent_fixed_addresses = 0;  // Slots of the fixmap that stay.
  uint32_t end_of_fixed_addresses = 0;            // With those of early boot.
  Pfn max_pfn;                                    // First frame behind the RAM that the kernel uses.
  Pfn max_low_pfn;                                // First frame that is not in the linear map.
  Pfn max_arch_pfn;                               // MAX_ARCH_PFN: first frame number that the layout cannot have.
  Pfn firmware_end_pfn;                           // End of the RAM that firmware told of; above max_pfn: the rest is lost.

  // x86-32.
  Bytes vmalloc_reserve;        // __VMALLOC_RESERVE
  Bytes vmalloc_offset;         // VMALLOC_OFFSET: the hole between high_memory and vmalloc_start.
  Bytes maxmem;                 // MAXMEM: RAM that can be lowmem.
  Pfn maxmem_pfn;               // MAXMEM_PFN
  Pfn highstart_pfn;            // HighMem is [highstart_pfn, highend_pfn); equal when there is none.
  Pfn highend_pfn;              //
  PageCount highmem_pages;      //
  VirtAddr pkmap_base;          // PKMAP_BASE, kmap()'s window of last_pkmap pages; vmalloc_end + 2 pages even where CONFIG_HIGHMEM is off.
  uint32_t last_pkmap = 0;      // LAST_PKMAP; 0 without CONFIG_HIGHMEM.
  uint32_t fix_kmap_begin = 0;  // FIX_KMAP_BEGIN, FIX_KMAP_END (inclusive): the slots of kmap_local.
  uint32_t fix_kmap_end = 0;    //
  VirtAddr ldt_base;            // LDT_BASE_ADDR
  VirtAddr cpu_entry_area;      // CPU_ENTRY_AREA_BASE

  // ARM64.
  VirtAddr page_end;            // PAGE_END: end of the linear map's window.
  VirtAddr kimage_vaddr;        // KIMAGE_VADDR: where the kernel image is mapped.
  uint64_t kimage_voffset = 0;  // Virtual minus physical address of the image, modulo 2^64.
  PhysAddr memstart_addr;       // PHYS_OFFSET: the physical address of page_offset.
  VirtAddr pci_io_start;        // PCI_IO_START, PCI_IO_END
  VirtAddr pci_io_end;          //
  VirtAddr vmemmap_start;       // VMEMMAP_START, VMEMMAP_END: the window of struct pages.
  VirtAddr vmemmap_end;         //
  VirtAddr vmemmap;             // Where the struct page of frame 0 would be.
  VirtAddr kasan_shadow_start;  // KASAN_SHADOW_START, KASAN_SHADOW_END; zero without KASAN.
  VirtAddr kasan_shadow_end;    //

  bool is_x86() const { return config.kind != LayoutKind::kArm64; }
  bool has_highmem_zone() const { return is_x86() && config.highmem_or_default() != Highmem::kOff; }  // CONFIG_HIGHMEM

  // __va(), __pa() of the linear map. REQUIRES: the address is in it.
  VirtAddr VirtOf(PhysAddr address) const { return page_offset + (address - memstart_addr); }
  PhysAddr PhysOf(VirtAddr address) const { return memstart_addr + (address - page_offset); }
  VirtAddr FixToVirt(uint32_t index) const { return fixaddr_top - Bytes(uint64_t{index} << config.page_size.shift()); }
  // Nothing: the address is not in the linear map of RAM.
  std::optional<PhysAddr> LinearPhysOf(VirtAddr address) const;
};

// VMALLOC_OFFSET of x86-32.
inline constexpr uint64_t kVmallocOffset = 8 << 20;

// Where the kernel's part starts; 0: not a split.
VirtAddr PageOffsetOf(VmSplit split);

// Computes the layout for a kernel that was given this RAM (ascending, without overlaps, not empty) and whose image lies at `image` (ARM64
// only). INVALID_ARGUMENT names the field of v1::MachineSpec and the rule: a split that the layout kind does not have, va_bits and page
// size that do not go together, no room left for lowmem.
absl::StatusOr<KernelLayout> ComputeKernelLayout(const KernelLayoutConfig& config, absl::Span<const PfnRange> ram, PhysAddr image);

// A value with its kernel name, in the kernel's order of definition.
struct LayoutValue {
  absl::string_view name;  // "VMALLOC_START", "max_low_pfn".
  uint64_t value;
  enum class Kind : uint8_t { kAddress, kPhysical, kPfn, kBytes, kPages, kCount } kind;
  absl::string_view meaning;
};
// Values that the layout kind does not have are left out.
std::vector<LayoutValue> LayoutValues(const KernelLayout& layout);

// The kernel's address space from bottom to top. The kernel image is left out: its sections are the machine's.
std::vector<LayoutRegion> LayoutRegions(const KernelLayout& layout);

}  // namespace mmlab

#endif  // MMLAB_SERVER_ARCH_KERNEL_LAYOUT_H_

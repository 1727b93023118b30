#ifndef MMLAB_SERVER_MACHINE_MEMORY_MAP_H_
#define MMLAB_SERVER_MACHINE_MEMORY_MAP_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/arch/kernel_layout.h"
#include "server/arch/layout.h"
#include "server/base/address.h"
#include "server/machine/boot_arguments.h"
#include "server/machine/machine_spec.h"

namespace mmlab {

// The firmware's map in order: sorted, without overlaps, neighbours of one type joined. Where ranges overlap, the higher type number wins,
// so that what anybody reserved is not used as RAM. Linux: e820__update_table(), arch/x86/kernel/e820.c.
std::vector<FirmwareRange> SanitizeFirmwareRanges(absl::Span<const FirmwareRange> ranges);

// As the boot log names a type: "usable", "ACPI NVS"; empty for a number that is none of them. Linux: e820_print_type().
absl::string_view E820TypeName(FirmwareRange::Type type);

// What the kernel makes of the firmware's map: changed as the command line says (mem=, memmap=) and sanitised; on x86 the first page is
// kept from use and no RAM is believed between 640 KiB and 1 MiB. Left out is what lies beyond ResourceEnd, and RAM that the layout cannot
// address: without PAE any range that does not end in time, with PAE one that starts beyond MAX_ARCH_PFN. Linux: setup_arch(),
// e820__memblock_setup(), trim_bios_range().
std::vector<FirmwareRange> KernelMemoryMap(const MachineSpec& spec);

// `ranges`, sanitised and changed by what a command line asks for. Linux: e820__finish_early_params(), memblock_mem_limit_remove_map().
std::vector<FirmwareRange> EditFirmwareRanges(LayoutKind layout, absl::Span<const FirmwareRange> ranges,
                                              absl::Span<const MemoryEdit> edits);

// First address that the kernel's resource tree cannot hold: without PAE its numbers (resource_size_t) have 32 bits.
uint64_t ResourceEnd(const Layout& layout);

// RAM of a kernel's map in whole frames, ascending. Linux: e820__memblock_setup().
std::vector<PfnRange> RamFrames(PageSize page_size, absl::Span<const FirmwareRange> map);

// The address space of the kernel that boots on this RAM (ascending, not empty), as spec and its command line configure it.
// INVALID_ARGUMENT as ComputeKernelLayout.
absl::StatusOr<KernelLayout> KernelLayoutOf(const MachineSpec& spec, absl::Span<const PfnRange> ram);

// The same for a kernel that was built for other pages or addresses of other width (ARM64), on the same RAM. INVALID_ARGUMENT names
// page_size_bytes or va_bits and the rule.
absl::StatusOr<KernelLayout> BuiltOtherwise(const MachineSpec& spec, uint64_t page_size_bytes, int va_bits);

// `ram` without what lies at or above `end`.
std::vector<PfnRange> RamBelow(absl::Span<const PfnRange> ram, Pfn end);

// Ranges of `from` without what `cut` covers. Both ascending, without overlaps.
std::vector<PfnRange> Subtract(absl::Span<const PfnRange> from, absl::Span<const PfnRange> cut);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_MEMORY_MAP_H_

#ifndef MMLAB_SERVER_MACHINE_MEMORY_MAP_H_
#define MMLAB_SERVER_MACHINE_MEMORY_MAP_H_

#include <vector>

#include "absl/types/span.h"
#include "server/arch/layout.h"
#include "server/base/address.h"
#include "server/machine/machine_spec.h"

namespace mmlab {

// The firmware's map in order: sorted, without overlaps, neighbours of one type joined. Where ranges overlap, the higher type number wins,
// so that what anybody reserved is not used as RAM. Linux: e820__update_table(), arch/x86/kernel/e820.c.
std::vector<FirmwareRange> SanitizeFirmwareRanges(absl::Span<const FirmwareRange> ranges);

// What the kernel of a layout makes of a firmware map: sanitised; on x86 the first page is kept from use and no RAM is believed between
// 640 KiB and 1 MiB; RAM that the layout cannot address is left out, and anything beyond ResourceEnd. Linux: setup_arch(),
// trim_bios_range().
std::vector<FirmwareRange> KernelMemoryMap(const Layout& layout, absl::Span<const FirmwareRange> ranges);

// First address that the kernel's resource tree cannot hold: without PAE its numbers (resource_size_t) have 32 bits.
uint64_t ResourceEnd(const Layout& layout);

// RAM of a kernel's map in whole frames, ascending. Linux: e820__memblock_setup().
std::vector<PfnRange> RamFrames(PageSize page_size, absl::Span<const FirmwareRange> map);

// First frame that the kernel does not map for good (max_low_pfn): where HighMem starts on x86-32, the end of RAM elsewhere.
Pfn MaxLowPfn(const Layout& layout, absl::Span<const PfnRange> ram);

// VMALLOC_END - VMALLOC_START of the layout, for a kernel with the given max_low_pfn.
Bytes VmallocTotal(const Layout& layout, Pfn max_low_pfn);

// Ranges of `from` without what `cut` covers. Both ascending, without overlaps.
std::vector<PfnRange> Subtract(absl::Span<const PfnRange> from, absl::Span<const PfnRange> cut);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_MEMORY_MAP_H_

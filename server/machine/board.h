#ifndef MMLAB_SERVER_MACHINE_BOARD_H_
#define MMLAB_SERVER_MACHINE_BOARD_H_

#include <string>

#include "absl/status/status.h"
#include "server/arch/layout.h"
#include "server/base/address.h"
#include "server/machine/machine_spec.h"

namespace mmlab {

// The kernel that a layout runs when the description names none: that of the recordings.
struct DefaultKernel {
  std::string release;
  std::string version;
  std::string built_by;
  std::string compiler;
};
DefaultKernel DefaultKernelOf(LayoutKind layout);

// v1::MachineSpec.ram_bytes: replaces everything in `spec` that says what lies where in physical memory by the layout's usual board
// (x86-32: QEMU's "pc", ARM64: QEMU's "virt") with so much RAM. INVALID_ARGUMENT: not a multiple of 1 MiB, or not 48 MiB (ARM64: 64 MiB) to
// what the layout can address, at most 1 TiB.
absl::Status DescribeUsualBoard(Bytes ram, MachineSpec& spec);

// Where a 6.1 kernel that boots on spec.firmware_ranges puts its image and what it takes before the page allocator exists: memory map,
// per-CPU areas, the two large hash tables, small structures, on ARM64 the tables of the linear map, bounce buffers and CMA. On x86-32 each
// of the kernel's early allocations is done again, so that managed pages are those of a real boot; on ARM64 they are so where
// iomem_resources has the kernel's "reserved" ranges, and within 0.1 % otherwise. Fills kernel_sections, reserved_ranges and cma_areas.
// INVALID_ARGUMENT: it does not fit into the RAM.
absl::Status PlanReservations(MachineSpec& spec);

// Adds to what the kernel keeps the gigantic pages that the command line asks for, as many as there is memory for, from the top. Nothing is
// added when the description has some. Linux: alloc_bootmem_huge_page(). REQUIRES: reserved_ranges and cma_areas are complete.
void ReserveHugePages(MachineSpec& spec);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_BOARD_H_

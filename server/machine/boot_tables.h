#ifndef MMLAB_SERVER_MACHINE_BOOT_TABLES_H_
#define MMLAB_SERVER_MACHINE_BOOT_TABLES_H_

#include <memory>

#include "absl/types/span.h"
#include "server/arch/kernel_layout.h"
#include "server/arch/layout.h"
#include "server/base/address.h"
#include "server/kernel/boot_page_tables.h"
#include "server/machine/machine_spec.h"

namespace mmlab {

// The tables that a machine's kernel made at boot, computed from where its description says that the kernel lies. Null: it does not say
// (kernel_sections). `ram`: ascending, below kernel.max_pfn.
std::unique_ptr<BootPageTables> BootTablesOf(const MachineSpec& spec, const Layout& layout, const KernelLayout& kernel,
                                             absl::Span<const PfnRange> ram);
// The same for the RAM of the description.
std::unique_ptr<BootPageTables> BootTablesOf(const MachineSpec& spec, const Layout& layout, const KernelLayout& kernel);

// BootReservation.purpose of the frames that ARM64 takes for these tables.
inline constexpr char kLinearMapTables[] = "page tables of the linear map";

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_BOOT_TABLES_H_

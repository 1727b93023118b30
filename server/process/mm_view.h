#ifndef MMLAB_SERVER_PROCESS_MM_VIEW_H_
#define MMLAB_SERVER_PROCESS_MM_VIEW_H_

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/address.h"
#include "server/process/vm_area.h"
#include "server/process/vma_store.h"

namespace mmlab {

class AddressSpace;

// What the structures of an address space have that the simulation does not keep as it stands, derived on request.

// The names of VM_* bits, without "VM_", in the order of the bits.
std::vector<absl::string_view> VmFlagNames(uint64_t vm_flags);
// The operations that vma->vm_ops points at: "ext4_file_vm_ops"; empty for null.
absl::string_view VmOpsName(const VmArea& vma);
// AT_* of an entry of the auxiliary vector: "AT_PHDR"; empty for a number that Linux does not give.
absl::string_view AuxiliaryTypeName(uint64_t type);
// mm->flags (include/linux/sched/coredump.h): who may dump it, coredump_filter 0x33, MMF_DISABLE_THP, MMF_MULTIPROCESS.
uint64_t MmFlags(const AddressSpace& mm);
// mm->highest_vm_end of 4.12: 0 without VMAs.
VirtAddr HighestVmEnd(const AddressSpace& mm);
// The VMAs as a store of them needs them.
std::vector<StoredVma> StoredVmas(const AddressSpace& mm);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_MM_VIEW_H_

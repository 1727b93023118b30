#ifndef MMLAB_SERVER_PROCESS_VM_AREA_H_
#define MMLAB_SERVER_PROCESS_VM_AREA_H_

#include <cstdint>
#include <memory>

#include "server/base/address.h"
#include "server/process/anon_vma_chain.h"
#include "server/process/anon_vma_name.h"
#include "server/process/hugetlb_reserve.h"

namespace mmlab {

class AddressSpace;
class OpenFile;
struct VmaTreeNode;

// vm_flags, with the kernel's names and values (include/linux/mm.h).
enum VmFlag : uint64_t {
  kVmRead = 0x1,
  kVmWrite = 0x2,
  kVmExec = 0x4,
  kVmShared = 0x8,
  kVmMayRead = 0x10,
  kVmMayWrite = 0x20,
  kVmMayExec = 0x40,
  kVmMayShare = 0x80,
  kVmGrowsDown = 0x100,
  kVmPfnMap = 0x400,
  kVmLocked = 0x2000,
  kVmIo = 0x4000,
  kVmSeqRead = 0x8000,
  kVmRandRead = 0x10000,
  kVmDontCopy = 0x20000,
  kVmDontExpand = 0x40000,
  kVmLockOnFault = 0x80000,
  kVmAccount = 0x100000,
  kVmNoReserve = 0x200000,
  kVmHugetlb = 0x400000,
  kVmSync = 0x800000,
  kVmWipeOnFork = 0x2000000,
  kVmDontDump = 0x4000000,
  kVmSoftDirty = 0x8000000,
  kVmMixedMap = 0x10000000,
  kVmHugePage = 0x20000000,
  kVmNoHugePage = 0x40000000,
  kVmMergeable = 0x80000000,
  // ARM64: in VM_DATA_DEFAULT_FLAGS, so heap, .bss and stack have it; mmap gives it on CPUs with memory tagging only, which no machine has.
  // So mapped memory never merges with the heap. smaps does not name it.
  kVmMteAllowed = 0x200000000,
};
inline constexpr uint64_t kVmAccessFlags = kVmRead | kVmWrite | kVmExec;
inline constexpr uint64_t kVmSpecial = kVmIo | kVmDontExpand | kVmPfnMap | kVmMixedMap;  // Never merged, never locked.
inline constexpr uint64_t kVmLockedMask = kVmLocked | kVmLockOnFault;
inline constexpr uint64_t kStackGuardGapPages = 256;  // stack_guard_gap: below a VMA with VM_GROWSDOWN they stay free.

// What vm_ops a VMA has, as far as that decides anything.
enum class VmaBacking : uint8_t {
  kAnonymous,  // No vm_ops: private memory, heap, stack, private /dev/zero.
  kFile,       // file->f_op->mmap of a regular file: ext4, tmpfs, memfd, SysV shm, shared anonymous memory, shared /dev/zero.
  kVvar,       // Special mappings (_install_special_mapping()): vvar, vdso, and of 32-bit ARM programs vectors and sigpage.
  kVdso,
  kVectors,
  kSigpage,
};

// A run of addresses with equal properties. Linux: struct vm_area_struct, include/linux/mm_types.h.
//
// Always true: start < end, both page-aligned; VMAs of an address space do not overlap. Owned by its AddressSpace; the address of a VmArea
// is stable while it exists.
struct VmArea {
  AddressSpace* mm = nullptr;
  VirtAddr start;
  VirtAddr end;
  uint64_t flags = 0;  // VmFlag bits.
  PageIndex pgoff;     // vm_pgoff: page offset in the file; for anonymous memory the virtual page number at creation (moves keep it).
  VmaBacking backing = VmaBacking::kAnonymous;
  bool hugetlb_unmapped = false;   // HPAGE_RESV_UNMAPPED: who made the mapping took a huge page away from here; the next fault finds none.
  uint32_t object = 0;             // Its struct vm_area_struct, as KernelObjects::Take() numbered it while the VMA is linked; 0 = none.
  std::shared_ptr<OpenFile> file;  // kFile; also kAnonymous for a private mapping of /dev/zero (vm_file without vm_ops).
  uint64_t file_link = 0;          // Its key in file->inode->mappings.
  AnonVma* anon_vma = nullptr;     // Set by AnonVmaPrepare() when the first anonymous page comes.
  AnonVmaChain anon_vma_chain;     // All that pages mapped here may belong to, newest first.
  uint64_t rmap_number = 0;        // Its key in AnonVma::vmas; 0 before it was first linked to one.
  AnonVmaName name;                // prctl(PR_SET_VMA_ANON_NAME)
  HugetlbReserve hugetlb_reserve;  // Private huge pages, of the process that made the mapping.

  // Where it stands in its VmaTree; only the tree touches it.
  struct TreeLinks {
    VmArea* previous = nullptr;
    VmArea* next = nullptr;
    VmaTreeNode* leaf = nullptr;
  };
  TreeLinks links;

  VirtRange range() const { return VirtRange{start, end}; }
  Bytes length() const { return end - start; }
  bool is(uint64_t flag) const { return (flags & flag) != 0; }
  bool shared() const { return is(kVmShared); }
  bool anonymous() const { return backing == VmaBacking::kAnonymous; }  // vma_is_anonymous()
  bool special_mapping() const { return backing > VmaBacking::kFile; }
  // Page offset of an address, linear_page_index().
  PageIndex IndexOf(VirtAddr address, PageSize page_size) const { return pgoff + PageCount((address - start).raw() >> page_size.shift()); }
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_VM_AREA_H_

#include "server/process/mm_view.h"

#include "server/files/open_file.h"
#include "server/process/address_space.h"

namespace mmlab {
namespace {

struct NamedNumber {
  uint64_t number;
  absl::string_view name;
};

constexpr NamedNumber kFlagNames[] = {
    {kVmRead, "READ"},
    {kVmWrite, "WRITE"},
    {kVmExec, "EXEC"},
    {kVmShared, "SHARED"},
    {kVmMayRead, "MAYREAD"},
    {kVmMayWrite, "MAYWRITE"},
    {kVmMayExec, "MAYEXEC"},
    {kVmMayShare, "MAYSHARE"},
    {kVmGrowsDown, "GROWSDOWN"},
    {kVmPfnMap, "PFNMAP"},
    {kVmLocked, "LOCKED"},
    {kVmIo, "IO"},
    {kVmSeqRead, "SEQ_READ"},
    {kVmRandRead, "RAND_READ"},
    {kVmDontCopy, "DONTCOPY"},
    {kVmDontExpand, "DONTEXPAND"},
    {kVmLockOnFault, "LOCKONFAULT"},
    {kVmAccount, "ACCOUNT"},
    {kVmNoReserve, "NORESERVE"},
    {kVmHugetlb, "HUGETLB"},
    {kVmSync, "SYNC"},
    {kVmWipeOnFork, "WIPEONFORK"},
    {kVmDontDump, "DONTDUMP"},
    {kVmSoftDirty, "SOFTDIRTY"},
    {kVmMixedMap, "MIXEDMAP"},
    {kVmHugePage, "HUGEPAGE"},
    {kVmNoHugePage, "NOHUGEPAGE"},
    {kVmMergeable, "MERGEABLE"},
    {kVmMteAllowed, "MTE_ALLOWED"},
};

// include/uapi/linux/auxvec.h, arch/*/include/uapi/asm/auxvec.h
constexpr NamedNumber kAuxiliaryTypes[] = {
    {0, "AT_NULL"},      {1, "AT_IGNORE"},  {2, "AT_EXECFD"},   {3, "AT_PHDR"},          {4, "AT_PHENT"},
    {5, "AT_PHNUM"},     {6, "AT_PAGESZ"},  {7, "AT_BASE"},     {8, "AT_FLAGS"},         {9, "AT_ENTRY"},
    {10, "AT_NOTELF"},   {11, "AT_UID"},    {12, "AT_EUID"},    {13, "AT_GID"},          {14, "AT_EGID"},
    {15, "AT_PLATFORM"}, {16, "AT_HWCAP"},  {17, "AT_CLKTCK"},  {23, "AT_SECURE"},       {25, "AT_RANDOM"},
    {26, "AT_HWCAP2"},   {31, "AT_EXECFN"}, {32, "AT_SYSINFO"}, {33, "AT_SYSINFO_EHDR"}, {51, "AT_MINSIGSTKSZ"},
};

}  // namespace

std::vector<absl::string_view> VmFlagNames(uint64_t vm_flags) {
  std::vector<absl::string_view> names;
  for (const NamedNumber& flag : kFlagNames) {
    if ((vm_flags & flag.number) != 0) names.push_back(flag.name);
  }
  return names;
}

absl::string_view VmOpsName(const VmArea& vma) {
  if (vma.backing == VmaBacking::kVvar || vma.backing == VmaBacking::kVdso) return "special_mapping_vmops";
  if (vma.backing != VmaBacking::kFile) return "";
  switch (vma.file->inode->kind) {
    case FileKind::kExt4:
      return "ext4_file_vm_ops";
    case FileKind::kBlockDevice:
      return "generic_file_vm_ops";
    case FileKind::kSysvShm:
      return "shm_vm_ops";
    case FileKind::kHugetlbfs:
      return "hugetlb_vm_ops";
    case FileKind::kMemfd:
      return vma.is(kVmHugetlb) ? "hugetlb_vm_ops" : "shmem_vm_ops";
    case FileKind::kTmpfs:
    case FileKind::kSharedAnon:
    case FileKind::kDevZero:
      return "shmem_vm_ops";
    case FileKind::kPipe:
      break;
  }
  return "";
}

absl::string_view AuxiliaryTypeName(uint64_t type) {
  for (const NamedNumber& known : kAuxiliaryTypes) {
    if (known.number == type) return known.name;
  }
  return "";
}

uint64_t MmFlags(const AddressSpace& mm) {
  constexpr uint64_t kDumpFilter = 0x33 << 2;
  constexpr uint64_t kDisableThp = uint64_t{1} << 24;
  constexpr uint64_t kMultiprocess = uint64_t{1} << 26;
  return static_cast<uint64_t>(mm.dumpable) | kDumpFilter | (mm.thp_disabled ? kDisableThp : 0) | (mm.multiprocess ? kMultiprocess : 0);
}

VirtAddr HighestVmEnd(const AddressSpace& mm) {
  const VmArea* last = mm.vmas.Last();
  return last == nullptr ? VirtAddr(0) : last->end;
}

std::vector<StoredVma> StoredVmas(const AddressSpace& mm) {
  std::vector<StoredVma> stored;
  stored.reserve(mm.vmas.size());
  for (const VmArea* vma = mm.vmas.First(); vma != nullptr; vma = mm.vmas.Next(*vma)) {
    const uint64_t guard = vma->is(kVmGrowsDown) ? kStackGuardGapPages << mm.page_size.shift() : 0;
    stored.push_back({vma->start.raw(), vma->end.raw(), guard});
  }
  return stored;
}

}  // namespace mmlab

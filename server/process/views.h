#ifndef MMLAB_SERVER_PROCESS_VIEWS_H_
#define MMLAB_SERVER_PROCESS_VIEWS_H_

#include <cstdint>
#include <string>

#include "server/base/address.h"

namespace mmlab {

struct FaultCounts {
  uint64_t minor = 0;
  uint64_t major = 0;
};

// What can be read of a process, computed on request; the proto messages of the same names document each field.

// The Vm and Rss lines of /proc/PID/status.
struct MemoryStatus {
  Bytes vm_peak, vm_size, vm_lck, vm_pin, vm_hwm, vm_rss, rss_anon, rss_file, rss_shmem;
  Bytes vm_data, vm_stk, vm_exe, vm_lib, vm_pte, vm_swap, hugetlb;
};

// An entry of /proc/PID/smaps.
struct Smaps {
  Bytes rss, pss, pss_dirty, shared_clean, shared_dirty, private_clean, private_dirty, referenced, anonymous, lazy_free;
  Bytes anon_huge_pages, shmem_pmd_mapped, file_pmd_mapped, shared_hugetlb, private_hugetlb, swap, swap_pss, locked;
};

// The lines that smaps_rollup has beyond those of smaps: Pss by kind of page.
struct SmapsRollup {
  Smaps sums;  // Rounded once, over all VMAs.
  Bytes pss_anon, pss_file, pss_shmem;
};

// What numa_maps counts of a VMA, in pages.
struct VmaPages {
  uint64_t pages = 0, anon = 0, dirty = 0, active = 0;
  uint64_t mapcount_max = 0;
};

// Resident bytes by kind of page, exact.
struct ResidentBytes {
  Bytes anon, file, shmem;
};

// A VMA as /proc/PID/maps shows it.
struct VmAreaView {
  VirtAddr start;
  VirtAddr end;
  std::string permissions;  // "rw-p"
  Bytes offset;
  std::string backing;  // Last column of maps; empty for plain anonymous memory.
  uint64_t inode = 0;   // 0 without file.
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::string vm_flags;  // "rd wr mr mw me ac", as in smaps.
  Bytes page_size;       // vma_kernel_pagesize()
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_VIEWS_H_

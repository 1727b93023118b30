#ifndef MMLAB_SERVER_PROCESS_PROCESS_LIMITS_H_
#define MMLAB_SERVER_PROCESS_PROCESS_LIMITS_H_

#include <cstdint>

#include "server/base/address.h"

namespace mmlab {

// Sysctls and figures that decide what processes may do. The machine writes it when a sysctl changes.
struct ProcessLimits {
  static constexpr uint64_t kNoProcessLimit = ~uint64_t{0};

  int overcommit_memory = 0;      // 0 heuristic, 1 always, 2 never.
  int64_t overcommit_ratio = 50;  // Percent of RAM.
  int64_t overcommit_kbytes = 0;  // Instead of the ratio when not 0.
  int64_t admin_reserve_kbytes = 8192;
  int64_t user_reserve_kbytes = 131072;
  int64_t max_map_count = 65530;
  uint64_t mmap_min_addr = 65536;  // Bytes.
  bool legacy_va_layout = false;
  int randomize_va_space = 0;  // 0 none, 1 without heap, 2 all.
  PageCount total_ram;         // totalram_pages()
  PageCount total_swap;
  uint64_t shmmax = 0;  // Bytes.
  uint64_t shmall = 0;  // Pages.
  int shmmni = 4096;
  uint64_t processes_of_user = kNoProcessLimit;  // max_threads / 2 of the boot: RLIMIT_NPROC and RLIMIT_SIGPENDING of a new process.
  int64_t hugetlb_shm_group = 0;                 // Whose members may make segments of huge pages.
  bool anon_vma_name = false;  // CONFIG_ANON_VMA_NAME: Debian's kernels are built without it, so that naming memory answers EINVAL.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PROCESS_LIMITS_H_

#ifndef MMLAB_SERVER_PROCFS_PAGEMAP_H_
#define MMLAB_SERVER_PROCFS_PAGEMAP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/address.h"

namespace mmlab {

class Machine;
class Process;

// /proc/PID/pagemap: eight bytes, lowest first, for each page of user space, as a reader with CAP_SYS_ADMIN sees them: with frame numbers.
// Linux: fs/proc/task_mmu.c (pagemap_read), Documentation/admin-guide/mm/pagemap.rst.
inline constexpr uint64_t kPagemapExclusive = uint64_t{1} << 56;  // PM_MMAP_EXCLUSIVE: mapped once.
inline constexpr uint64_t kPagemapFile = uint64_t{1} << 61;       // PM_FILE: of a file, or shared anonymous memory.
inline constexpr uint64_t kPagemapSwap = uint64_t{1} << 62;       // PM_SWAP
inline constexpr uint64_t kPagemapPresent = uint64_t{1} << 63;    // PM_PRESENT
inline constexpr uint64_t kPagemapFrame =
    (uint64_t{1} << 55) - 1;  // Frame number; of a swapped page the area and, from bit 5 on, the slot.

inline constexpr uint64_t kPagemapAreaMask = 31;
inline constexpr int kPagemapSlotShift = 5;  // MAX_SWAPFILES_SHIFT

struct PagemapPage {
  VirtAddr address;
  uint64_t entry = 0;
};
// The pages of [start, end) whose entry is not zero, by address, at most `most` of them. Costs time in proportion to these and to the page
// tables on the way. REQUIRES: the process has an address space; start and end are page-aligned, end not above task_size.
std::vector<PagemapPage> PagemapPages(const Machine& machine, const Process& process, VirtAddr start, VirtAddr end, size_t most);

// The bytes from `offset` on, at most `length` of them; none behind the last page of user space, nor without an address space.
// REQUIRES: both are multiples of 8.
std::string ReadPagemap(const Machine& machine, const Process& process, uint64_t offset, uint64_t length);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_PAGEMAP_H_

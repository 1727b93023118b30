#ifndef MMLAB_SERVER_PROCESS_PAGING_H_
#define MMLAB_SERVER_PROCESS_PAGING_H_

#include <cstdint>
#include <optional>
#include <string>

#include "server/base/address.h"
#include "server/base/errno.h"
#include "server/process/access.h"
#include "server/process/views.h"
#include "server/process/vm_area.h"

namespace mmlab {

class AddressSpace;
class Files;
class PhysicalMemory;
class Process;
class Tracer;
class VmStat;
struct Layout;

// What a fault wants: bits of enum fault_flag.
struct FaultAccess {
  bool write = false;
  bool execute = false;
  bool user = true;  // False: the kernel touches user memory (copy_to_user, populate).
};

// How a fault ended (vm_fault_t).
enum class FaultOutcome : uint8_t { kMinor, kMajor, kSigBus, kSigSegv, kOom };

// The page-table side of address spaces: page tables in simulated frames, faults, unmapping, copying and moving of entries, and what is
// counted over them. Linux: mm/memory.c, mm/mremap.c (move_page_tables), mm/mlock.c, mm/mincore.c, fs/proc/task_mmu.c (smaps walk).
//
// It never makes, splits or removes VMAs: callers (mmap.cc and friends) do that and call here for the pages underneath.
// A task's small rss counters (SPLIT_RSS_COUNTING, mm/memory.c): faults are counted against `task`, folded into the address space when the
// kernel would.
class Paging {
 public:
  Paging(const Layout& layout, PhysicalMemory& memory, Files& files, VmStat& vm_stat, Tracer& tracer, bool hardware_access_flag);

  // pgd_alloc() / mm teardown. CreateTables: false when memory is short.
  [[nodiscard]] bool CreateTables(AddressSpace& mm);
  void DestroyTables(AddressSpace& mm);

  // handle_mm_fault() on an address inside `vma`, whose permission to do `access` was checked. Counts the fault of `task`.
  FaultOutcome HandleFault(Process& task, VmArea& vma, VirtAddr address, FaultAccess access);

  // unmap_page_range(): takes away all pages of the range, drops swap entries, folds rss. even_cows = false keeps private copies
  // (truncate).
  void Zap(Process& task, VmArea& vma, VirtRange range, bool even_cows = true);
  // free_pgtables(): gives back tables that cover nothing any more between floor and ceiling (0 = top).
  void FreeTables(AddressSpace& mm, VirtRange range, VirtAddr floor, VirtAddr ceiling);

  // copy_page_range() at fork; false when memory is short (then what was copied stays, to be torn down with the child).
  [[nodiscard]] bool CopyRange(Process& parent, VmArea& from, Process& child, VmArea& to);
  // move_page_tables(); returns how many bytes were moved before memory was short.
  Bytes MoveTables(VmArea& from, VirtAddr old_start, VmArea& to, VirtAddr new_start, Bytes length);
  // change_protection() after the VMA got its new flags.
  void ChangeProtection(VmArea& vma, VirtRange range);

  // mlock_vma_pages_range() after flags changed: marks or unmarks resident pages mlocked.
  void UpdateMlocked(VmArea& vma, VirtRange range);
  // populate_vma_page_range(): faults every page in as the kernel itself does (no user fault is counted). kEFAULT, kENOMEM, kEAGAIN as GUP
  // answers; stops at the first.
  Errno PopulateRange(Process& task, VmArea& vma, VirtRange range, bool write);

  // The page-level part of madvise for one VMA's part of the range, after its checks: DONTNEED goes through Zap.
  void MadviseFree(Process& task, VmArea& vma, VirtRange range);
  void MadviseCold(Process& task, VmArea& vma, VirtRange range);
  void MadvisePageout(Process& task, VmArea& vma, VirtRange range);
  void MadviseWillneed(VmArea& vma, VirtRange range);
  // Zaps every mapping of these pages of a file, private copies too if even_cows (unmap_mapping_range), for truncate and MADV_REMOVE.
  // mincore's bytes of the range, appended to out.
  void Mincore(const VmArea& vma, VirtRange range, std::string& out) const;

  // One entry of smaps, by walking the tables.
  Smaps MeasureVma(const VmArea& vma) const;

  // Physical address that a user access would reach now, without any fault; nothing when no entry maps it.
  std::optional<PhysAddr> Translate(const AddressSpace& mm, VirtAddr address) const;

 private:
  const Layout& layout_;
  PhysicalMemory& memory_;
  Files& files_;
  VmStat& vm_stat_;
  Tracer& tracer_;
  const bool hardware_access_flag_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PAGING_H_

#ifndef MMLAB_SERVER_PROCESS_ADDRESS_SPACE_H_
#define MMLAB_SERVER_PROCESS_ADDRESS_SPACE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "server/base/address.h"
#include "server/process/anon_vma.h"
#include "server/process/process.h"
#include "server/process/vma_tree.h"

namespace mmlab {

class PageReplacement;

// A user address space. Linux: struct mm_struct, include/linux/mm_types.h; the field names are its own.
//
// Always true: total_vm is the sum of all VMAs' pages; map_count their number; the *_vm counters follow vm_stat_account().
class AddressSpace {
 public:
  PageSize page_size{12};
  VmaTree vmas;
  AnonVmaTable* anon_vmas = nullptr;  // The machine's.
  KernelObjectRef object;             // Its struct mm_struct.
  uint64_t maple_nodes = 0;           // Of the tree of its VMAs, as they are accounted.

  VirtAddr mmap_base;  // Top (or, legacy, bottom) of the mmap area.
  VirtAddr mmap_legacy_base;
  bool top_down = true;
  VirtAddr task_size;
  Pfn pgd;                                // Frame of the top page table.
  std::array<uint64_t, 5> table_pages{};  // Page-table pages by level, 1 = pte .. 4 = pgd; mm_pgtables_bytes() counts pte, pmd, pud.

  PageCount total_vm, locked_vm, pinned_vm, data_vm, exec_vm, stack_vm;
  PageCount hiwater_vm, hiwater_rss;
  std::array<int64_t, kRssKinds> rss{};  // mm->rss_stat: pages, without what tasks still hold in TaskRss.
  uint64_t hugetlb_pages = 0;            // hugetlb_usage: small pages that entries of huge pages of pools map; in no rss.
  uint64_t def_flags = 0;                // VM_LOCKED and VM_LOCKONFAULT after mlockall(MCL_FUTURE).

  VirtAddr start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
  VirtAddr arg_start, arg_end, env_start, env_end;
  VirtAddr vdso;
  std::vector<std::pair<uint64_t, uint64_t>> saved_auxv;  // AT_* numbers and values as exec put them on the stack.
  std::shared_ptr<OpenFile> exe_file;                     // The program that it runs; null before exec.
  int dumpable = 1;                                       // MMF_DUMPABLE: 0 nobody may dump it, 1 its user may.
  bool thp_disabled = false;                              // MMF_DISABLE_THP: PR_SET_THP_DISABLE.
  bool compat = false;                                    // TIF_32BIT: a 32-bit ARM program on ARM64.
  int mm_users = 1;                                       // Tasks that use it.
  bool multiprocess = false;                              // MMF_MULTIPROCESS: processes share it that are no threads of one another.
  // Page tables put aside for the day when a huge entry is split: one for each huge entry, counted in table_pages
  // (pgtable_trans_huge_deposit()).
  std::vector<Pfn> deposited_tables;
  bool uses_huge_zero = false;                   // MMF_HUGE_ZERO_PAGE: holds a reference on the huge zero page.
  uint64_t ksm_slot = 0;                         // MMF_VM_MERGEABLE: its key among those that KSM visits; 0 = none.
  uint64_t khugepaged_slot = 0;                  // MMF_VM_HUGEPAGE: its key among those that khugepaged visits; 0 = none.
  std::shared_ptr<PageReplacement> replacement;  // A bound on resident pages, with a policy of its own; null: as Linux does it.
  // mm->context.id of ARM64: generation and number of the ASID that its TLB entries bear; 0 = never switched to. Always 0 on x86-32.
  uint64_t context_id = 0;
  // mm_cpumask() of x86-32, which has at most 32 CPUs: those, by bit, on which it is loaded, so that their TLBs may have entries of it.
  uint64_t cpu_mask = 0;

  PageCount map_count() const { return PageCount(vmas.size()); }
  // get_mm_rss(): file, anonymous and shmem pages as the totals show them now; they may lag behind (TaskRss) and never read below zero.
  PageCount rss_total() const;
  void UpdateHiwaterVm();   // update_hiwater_vm(), before total_vm is lowered.
  void UpdateHiwaterRss();  // update_hiwater_rss(), before pages are taken away.
  // vm_stat_account(): `pages` may be negative.
  void Account(uint64_t vm_flags, int64_t pages);
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_ADDRESS_SPACE_H_

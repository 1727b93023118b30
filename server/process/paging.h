#ifndef MMLAB_SERVER_PROCESS_PAGING_H_
#define MMLAB_SERVER_PROCESS_PAGING_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/arch/page_table_format.h"
#include "server/base/address.h"
#include "server/base/errno.h"
#include "server/files/file_mapper.h"
#include "server/physical/reverse_map.h"
#include "server/process/access.h"
#include "server/process/lru_batches.h"
#include "server/process/process.h"
#include "server/process/views.h"
#include "server/process/vm_area.h"

namespace mmlab {

class AddressSpace;
class AnonVmaTable;
class Files;
class PhysicalMemory;
class Process;
class StateHasher;
class Tracer;
class VmStat;
struct Frame;
struct Layout;
struct PageWalk;

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
//
// Always true: a frame's mapcount is the number of entries that map it (the zero page, vvar and special entries apart; the first page of
// the vdso counts one more, for init); an anonymous page that is marked exclusive is mapped once.
class Paging final : public FileMapper, public ReverseMap {
 public:
  Paging(const Layout& layout, PhysicalMemory& memory, Files& files, const AnonVmaTable& anon_vmas, VmStat& vm_stat, Tracer& tracer,
         bool hardware_access_flag);
  ~Paging() override;

  const PageTableFormat& format() const { return format_; }

  // pgd_alloc() / mm teardown. CreateTables: false when memory is short; then nothing is left behind.
  // DestroyTables REQUIRES: everything was zapped and FreeTables() called for the whole of user space.
  [[nodiscard]] bool CreateTables(AddressSpace& mm);
  void DestroyTables(AddressSpace& mm);

  // handle_mm_fault() on an address inside `vma`, whose permission to do `access` was checked. Counts the fault of `task` (not one that
  // ends in a signal).
  FaultOutcome HandleFault(Process& task, VmArea& vma, VirtAddr address, FaultAccess access);

  // unmap_page_range(): takes away all pages of the range, folds the rss of `task` where page tables are. even_cows = false keeps private
  // copies (hole punching). The caller called update_hiwater_rss() before the first of the VMAs that go together.
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
  // __get_user_pages() of populate_vma_page_range() (force, for memory that is not PROT_NONE: permissions other than that are overridden)
  // and faultin_vma_page_range(): faults in what is not there, counted like any fault. kEFAULT, kENOMEM as GUP answers; stops at the first.
  Errno PopulateRange(Process& task, VmArea& vma, VirtRange range, bool write, bool force);

  // The page-level part of madvise for one VMA's part of the range, after its checks: DONTNEED goes through Zap.
  void MadviseFree(Process& task, VmArea& vma, VirtRange range);
  void MadviseCold(Process& task, VmArea& vma, VirtRange range);
  void MadvisePageout(Process& task, VmArea& vma, VirtRange range);
  void MadviseWillneed(VmArea& vma, VirtRange range);
  // mincore's bytes of the range, appended to out.
  void Mincore(const VmArea& vma, VirtRange range, std::string& out) const;

  // sync_mm_rss(): folds the small counters of a task into its address space (exit, exec).
  void SyncRss(Process& task);

  // FileMapper. Processes says who is acting, so that rss is folded into the right counters.
  void SetCurrent(Process* task) { current_ = task; }
  void UnmapFilePages(Inode& inode, PageIndex first, PageIndex end, bool even_cows) override;
  void CleanFilePage(Inode& inode, PageIndex index) override;
  void AddToLru(Pfn pfn) override;
  void DrainLru() override;
  void ForgetMlocked() override { --mlocked_pages_; }

  // ReverseMap (paging_reverse_map.cc).
  PageReferences TestClearReferenced(Pfn pfn) override;
  UnmapOutcome TryToUnmap(Pfn pfn) override;

  // One entry of smaps, by walking the tables.
  Smaps MeasureVma(const VmArea& vma) const;
  SmapsRollup MeasureAll(const AddressSpace& mm) const;
  VmaPages CountPages(const VmArea& vma) const;  // numa_maps
  // Resident pages by kind, counted over the tables of all VMAs.
  std::array<int64_t, kRssKinds> CountRss(const AddressSpace& mm) const;
  uint64_t mlocked_pages() const { return mlocked_pages_; }
  uint64_t PageProtection(const VmArea& vma) const;  // vm_page_prot

  // What the processor does with a user access: whether the entry allows it; sets the bits that the hardware sets. The frame where allowed.
  struct HardwareAccess {
    PteVerdict verdict = PteVerdict::kNotPresent;
    Pfn pfn;
    uint8_t* table = nullptr;  // The lowest table in host memory, where there is one: for the next access nearby.
  };
  HardwareAccess TryAccess(const AddressSpace& mm, VirtAddr address, bool write, bool execute);
  // The same where the table of that address is already known.
  HardwareAccess TryAccessIn(uint8_t* table, VirtAddr address, bool write, bool execute);

  // Physical address that a user access would reach now, without any fault; nothing when no entry maps it.
  std::optional<PhysAddr> Translate(const AddressSpace& mm, VirtAddr address) const;
  PageWalk Walk(const AddressSpace& mm, VirtAddr address) const;

  // Checks page tables, rss, mapcounts and exclusive marks of these address spaces, which must be all that exist.
  void CheckInvariants(const std::vector<const Process*>& tasks, std::vector<std::string>* violations) const;
  void AddToHash(const AddressSpace& mm, StateHasher& hasher) const;
  void AddToHash(StateHasher& hasher) const;  // What belongs to no address space.

 private:
  struct Fault;
  struct SmapsSums {  // Bytes; pss* in 1/4096 bytes.
    uint64_t rss = 0, shared_clean = 0, shared_dirty = 0, private_clean = 0, private_dirty = 0, referenced = 0, anonymous = 0,
             lazy_free = 0;
    uint64_t pss = 0, pss_dirty = 0, pss_locked = 0, pss_anon = 0, pss_file = 0, pss_shmem = 0;
  };
  using RssDelta = std::array<int64_t, kRssKinds>;

  // Page tables (paging_tables.cc).
  std::optional<Pfn> AllocTable(AddressSpace& mm, int level);
  void FreeTable(AddressSpace& mm, int level, Pfn table);
  int CountedLevel(int level) const { return level == format_.levels() ? 4 : level; }
  uint8_t* TableBytes(Pfn table) const;
  // The table of that level which covers the address; null when there is none.
  uint8_t* FindTable(const AddressSpace& mm, VirtAddr address, int level) const;
  uint8_t* EnsureTable(AddressSpace& mm, VirtAddr address, int level);  // Null: memory is short.
  // FindTable() of level 1 that remembers the last answer, for faults one after another.
  uint8_t* FindLowestTable(const AddressSpace& mm, VirtAddr address);
  void FreeTableRange(AddressSpace& mm, uint8_t* table, int level, uint64_t start, uint64_t end, uint64_t floor, uint64_t ceiling);
  // Calls visit(table, first address, last address) for each lowest table that exists within the range.
  template <typename Visit>
  void ForEachTable(const AddressSpace& mm, VirtRange range, Visit visit) const;

  // Frames behind entries (paging_rmap.cc).
  Frame* NormalPage(Pte pte, Pfn* pfn) const;  // vm_normal_page(); null for none and for what has no rss.
  RssKind KindOf(const Frame& frame) const;
  bool WantsWriteNotify(const VmArea& vma) const;
  Pte MaybeWritable(Pte pte, const VmArea& vma) const;
  void AddNewAnonRmap(Pfn pfn, Frame& frame, VmArea& vma, VirtAddr address);
  void AddFileRmap(Pfn pfn, Frame& frame, VmArea& vma);
  void RemoveRmap(Pfn pfn, Frame& frame, const VmArea& vma);
  void PutPage(Pfn pfn, Frame& frame);
  void MlockPage(Pfn pfn, Frame& frame);
  void MunlockPage(Pfn pfn, Frame& frame);
  void CountRssFast(Process& task, AddressSpace& mm, RssKind kind, int64_t pages);
  void AddRss(Process* task, AddressSpace& mm, const RssDelta& delta);
  void ZapTable(Process* task, VmArea& vma, uint8_t* table, VirtAddr start, VirtAddr last, bool even_cows);
  void ZapRange(Process* task, VmArea& vma, VirtRange range, bool even_cows);

  // Calls visit(vma, address, table, index) for each entry that maps the page.
  template <typename Visit>
  void ForEachMapping(Pfn pfn, const Frame& frame, Visit visit) const;
  void UnmapEntry(VmArea& vma, uint8_t* table, uint32_t index, Pfn pfn, Frame& frame);

  void AccumulateSmaps(const VmArea& vma, SmapsSums& sums) const;
  static Smaps ToSmaps(const SmapsSums& sums);
  void CountTables(const AddressSpace& mm, size_t which, std::vector<std::string>* violations) const;
  // Makes entries old; those of pages that reclaim could take are listed.
  void AgeRange(VmArea& vma, VirtRange range, std::vector<VirtAddr>* isolated);

  // Faults (paging_fault.cc, paging_file_fault.cc).
  FaultOutcome HandlePteFault(Fault& fault);
  FaultOutcome AnonymousFault(Fault& fault);
  FaultOutcome WriteProtectFault(Fault& fault);
  FaultOutcome SharedWriteFault(Fault& fault, Frame& frame);
  FaultOutcome CopyPage(Fault& fault, std::optional<Pfn> old_pfn);
  void ReusePage(Fault& fault);
  FaultOutcome FileFault(Fault& fault);
  FaultOutcome SpecialFault(Fault& fault);
  bool FaultAround(Fault& fault, bool* out_of_memory);
  FaultOutcome ReadFileFault(Fault& fault);
  FaultOutcome CowFileFault(Fault& fault);
  FaultOutcome SharedFileFault(Fault& fault);
  struct BackingPage {
    FaultOutcome outcome = FaultOutcome::kMinor;
    Pfn pfn;
  };
  BackingPage GetBackingPage(Fault& fault);
  FaultOutcome FinishFault(Fault& fault, Pfn pfn);
  void SetPte(Fault& fault, Pfn pfn, VirtAddr address);
  bool PrepareTable(Fault& fault);  // pte_alloc()
  bool PrepareTableFor(Fault& fault, Pfn pfn);
  std::optional<Pfn> SpecialPage(const VmArea& vma, PageIndex index);
  std::optional<Pfn> VvarPage();

  bool CopyTables(const VmArea& from, VmArea& to, const uint8_t* source, int level, VirtRange range);
  void CopyTable(const VmArea& from, uint8_t* source, uint8_t* target, VirtAddr start, VirtAddr last, RssDelta& delta);
  bool MoveTable(AddressSpace& mm, VirtAddr old_start, VirtAddr new_start, int level);
  void MoveEntries(AddressSpace& mm, VirtAddr old_start, VirtAddr new_start, uint64_t bytes);

  const Layout& layout_;
  const PageTableFormat format_;
  PhysicalMemory& memory_;
  Files& files_;
  const AnonVmaTable& anon_vmas_;
  VmStat& vm_stat_;
  Tracer& tracer_;
  const bool hardware_access_flag_;
  Process* current_ = nullptr;
  struct {
    Pfn pgd;
    uint64_t start = 0;
    uint8_t* table = nullptr;  // Null: nothing is remembered.
  } last_table_;               // Forgotten when any table goes or moves.
  LruBatches lru_;
  uint64_t mlocked_pages_ = 0;
  std::vector<Pfn> vdso_pages_;                     // Made when first touched; so are these.
  std::array<std::optional<Pfn>, 3> compat_pages_;  // Of 32-bit ARM programs: vdso, vectors, sigpage.
  std::optional<Pfn> vvar_page_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PAGING_H_

#ifndef MMLAB_SERVER_PROCESS_PAGING_H_
#define MMLAB_SERVER_PROCESS_PAGING_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "server/arch/page_table_format.h"
#include "server/base/address.h"
#include "server/base/errno.h"
#include "server/files/file_mapper.h"
#include "server/files/swap_areas.h"
#include "server/physical/frame.h"
#include "server/physical/page_owner.h"
#include "server/physical/physical_memory.h"
#include "server/physical/reverse_map.h"
#include "server/process/access.h"
#include "server/process/huge_settings.h"
#include "server/process/lru_batches.h"
#include "server/process/process.h"
#include "server/process/views.h"
#include "server/process/vm_area.h"

namespace mmlab {

class AddressSpace;
class AnonVmaTable;
class Explanation;
class Files;
class Khugepaged;
class Ksm;
class PageReplacement;
class Process;
class Shrinker;
class StateHasher;
class Tracer;
class VmStat;
enum class HugeAdvice : uint8_t;
struct ExplanationStep;
struct HugetlbPool;
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

// Why a range was collapsed into a huge page or not (enum scan_result). From kAllocationFailed on the attempt had let go of the address
// space.
enum class CollapseResult : uint8_t {
  kSucceed,
  kNoTable,
  kAlreadyHuge,
  kTooManyNone,
  kTooManySwapped,
  kTooManyShared,
  kNotNormal,
  kNotAnonymous,
  kNotOnLru,
  kPinned,
  kReadOnly,
  kNotReferenced,
  kAllocationFailed,
  kChargeFailed,
  kSwappedOut,
  kMappedSmall,
  kFailed,
};

// The page-table side of address spaces: page tables in simulated frames, faults, unmapping, copying and moving of entries, and what is
// counted over them. Linux: mm/memory.c, mm/mremap.c (move_page_tables), mm/mlock.c, mm/mincore.c, fs/proc/task_mmu.c (smaps walk).
//
// It never makes, splits or removes VMAs: callers (mmap.cc and friends) do that and call here for the pages underneath.
// A task's small rss counters (SPLIT_RSS_COUNTING, mm/memory.c): faults are counted against `task`, folded into the address space when the
// kernel would.
//
// Always true: a frame's mapcount is the number of entries that map it (the zero page, vvar and special entries apart; the first page of
// the vdso counts one more, for init); an anonymous page that is marked exclusive is mapped once.
class Paging final : public FileMapper, public ReverseMap, public PageOwner {
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

  // --- Transparent huge pages (paging_huge*.cc). Linux: mm/huge_memory.c, mm/khugepaged.c. ---

  HugePageSettings& huge_settings() { return huge_settings_; }
  const HugePageSettings& huge_settings() const { return huge_settings_; }
  uint32_t huge_pages() const { return format_.entries(1); }  // HPAGE_PMD_NR
  // hugepage_vma_check(), for smaps (THPeligible).
  bool ThpEligible(const VmArea& vma) const;
  // split_huge_pmd_if_needed(): before `vma` gets a boundary at the address, inside a huge page.
  void SplitHugeAt(VmArea& vma, VirtAddr address);
  // The entry that maps a huge page at this address; 0: none does.
  uint64_t HugeEntryAt(const AddressSpace& mm, VirtAddr address) const;
  // Whether there is a huge zero page that no address space uses.
  std::optional<Pfn> huge_zero_frame() const { return huge_zero_; }  // Its first frame; nothing: nobody uses one.
  bool HugeZeroIsIdle() const { return huge_zero_.has_value() && huge_zero_users_ == 0; }
  // The shrinker of the huge zero page: gives it back if it is idle.
  void ShrinkHugeZero();
  // The shrinker of partly unmapped huge pages: splits up to so many of them. How many were split.
  uint64_t ShrinkDeferredSplits(uint64_t pages);
  uint64_t deferred_splits() const { return deferred_splits_.size(); }
  // split_huge_page(): makes a huge page small ones; their LRU places are next to its own, if it has one. False: somebody holds it, beside
  // the caller with so many references.
  bool SplitHugePage(Pfn head, int references = 0);
  // Whether the VMA can hold a collapsed huge page; by_settings: `enabled` and the VMA's advice are asked too.
  bool CollapseAllowed(const VmArea& vma, bool by_settings) const;
  // Makes the pages from the address on one huge page. khugepaged: within the limits of max_ptes_*. REQUIRES: `vma` holds the whole aligned
  // range, CollapseAllowed().
  CollapseResult Collapse(VmArea& vma, VirtAddr address, bool khugepaged);
  // madvise() made the VMA one that khugepaged may visit.
  void EnterKhugepaged(const VmArea& vma, uint64_t vm_flags);
  // mm_put_huge_zero_page(), khugepaged_exit(): the address space is torn down.
  void LeaveHugePages(AddressSpace& mm);
  Khugepaged& khugepaged() { return *khugepaged_; }
  // What can give back memory of huge pages when it is short.
  std::vector<Shrinker*> shrinkers() const { return {huge_shrinkers_[0].get(), huge_shrinkers_[1].get()}; }

  // --- Huge pages of pools (paging_hugetlb*.cc). Linux: mm/hugetlb.c, arch/arm64/mm/hugetlbpage.c. ---

  // vma_kernel_pagesize()
  Bytes KernelPageSize(const VmArea& vma) const;

  // --- Same-page merging (paging_ksm.cc): what Ksm asks for. ---

  Ksm& ksm() { return *ksm_; }
  const Ksm& ksm() const { return *ksm_; }
  // The anonymous page that is mapped at the address, a part of a huge one too.
  std::optional<Pfn> AnonPageAt(const AddressSpace& mm, VirtAddr address) const;
  // The first one in the range; what no table covers costs nothing.
  struct AnonPage {
    VirtAddr address;
    Pfn pfn;
  };
  std::optional<AnonPage> NextAnonPage(const AddressSpace& mm, VirtRange range) const;
  uint64_t ContentHash(Pfn pfn) const;
  bool SameContent(Pfn a, Pfn b) const;
  bool IsZero(Pfn pfn) const;
  // The stable node that a merged page stands for; 0: it is no merged page.
  uint64_t KsmNodeOf(Pfn pfn) const;
  void MakeKsmPage(Pfn pfn, uint64_t node);
  // The entry at the address maps the merged page, or the zero page, instead of `pfn` from now on. False: somebody else holds `pfn`.
  // REQUIRES: it maps `pfn`, whose content is the same.
  bool MergeWith(VmArea& vma, VirtAddr address, Pfn pfn, Pfn merged);
  bool MergeWithZero(VmArea& vma, VirtAddr address, Pfn pfn);
  // Both entries map the page that is returned; nothing: somebody else holds one of the pages.
  std::optional<Pfn> MergeTwo(VmArea& vma, VirtAddr address, Pfn pfn, VmArea& other_vma, VirtAddr other_address, Pfn other);
  // Gives each merged page of the range a copy of its own. kENOMEM: memory is short; what was copied stays.
  Errno UnmergeRange(VmArea& vma, VirtRange range);

  // --- A bound on resident pages (paging_replacement.cc). ---

  // From now on (null: no more). What is too much of what is resident now makes room at once. Huge pages that are there are not counted;
  // new ones do not come.
  void SetReplacement(Process& task, AddressSpace& mm, std::shared_ptr<PageReplacement> replacement);
  // The accessed bit of the small page there; nothing: none is resident.
  std::optional<bool> Accessed(const AddressSpace& mm, VirtAddr address) const;

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
  // unuse_mm(): brings back what the tables of an address space have in a swap area. kENOMEM.
  Errno Unuse(AddressSpace& mm, uint32_t area);
  // Slots that entries of these tables stand for, for the check of all.
  void CountSwap(const AddressSpace& mm, SwapCounts& counts) const;
  // mincore's bytes of the range, appended to out.
  void Mincore(const VmArea& vma, VirtRange range, std::string& out) const;

  // sync_mm_rss(): folds the small counters of a task into its address space (exit, exec).
  void SyncRss(Process& task);

  // FileMapper. Processes says who is acting, so that rss is folded into the right counters.
  void SetCurrent(Process* task) { current_ = task; }
  void UnmapFilePages(Inode& inode, PageIndex first, PageIndex end, bool even_cows) override;
  void CleanFilePage(Inode& inode, PageIndex index) override;
  bool SplitFilePage(Pfn head) override { return SplitHugePage(head); }
  uint32_t HugeGfp(bool advised) const override;
  void AddToLru(Pfn pfn) override;
  void DrainLru() override;
  void ForgetMlocked(const Frame& frame) override;

  // Who takes pages for MADV_PAGEOUT; null: nobody. Outlives its use here.
  void SetReclaimer(PageReclaimer* reclaimer) { reclaimer_ = reclaimer; }

  // PageOwner (paging_migrate.cc).
  bool MovePage(Pfn from, Pfn to) override;
  bool SplitToMove(Pfn head) override;
  void PutOnLru(Pfn pfn) override { AddToLru(pfn); }
  // ReverseMap (paging_reverse_map.cc).
  PageReferences TestClearReferenced(Pfn pfn) override;
  bool SplitHuge(Pfn head) override;
  UnmapOutcome TryToUnmap(Pfn pfn) override;
  void FlushUnmapped(bool before_write) override;
  void SetGenerations(bool enabled) override { generations_ = enabled; }
  // walk_mm(): promotes the pages of an address space that were used since the last walk. REQUIRES: MGLRU runs.
  void PromoteUsed(AddressSpace& mm, uint16_t memcg, bool can_swap);

  // One entry of smaps, by walking the tables.
  Smaps MeasureVma(const VmArea& vma) const;
  SmapsRollup MeasureAll(const AddressSpace& mm) const;
  VmaPages CountPages(const VmArea& vma) const;  // numa_maps
  // Resident pages by kind, counted over the tables of all VMAs.
  std::array<int64_t, kRssKinds> CountRss(const AddressSpace& mm) const;
  uint64_t mlocked_pages() const;                    // nr_mlock of all zones.
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
  int MapCount(Pfn pfn) const { return MapCountOf(pfn, memory_.frame(pfn)); }

  // Checks page tables, rss, mapcounts and exclusive marks of these address spaces, which must be all that exist.
  void CheckInvariants(const std::vector<const Process*>& tasks, std::vector<std::string>* violations) const;
  void AddToHash(const AddressSpace& mm, StateHasher& hasher) const;
  void AddToHash(StateHasher& hasher) const;  // What belongs to no address space.

 private:
  struct Fault;
  struct SmapsSums {  // Bytes; pss* in 1/4096 bytes.
    uint64_t rss = 0, shared_clean = 0, shared_dirty = 0, private_clean = 0, private_dirty = 0, referenced = 0, anonymous = 0,
             lazy_free = 0, swap = 0, anon_huge = 0, shmem_huge = 0, shared_hugetlb = 0, private_hugetlb = 0;
    uint64_t pss = 0, pss_dirty = 0, pss_locked = 0, pss_anon = 0, pss_file = 0, pss_shmem = 0, pss_swap = 0;
  };
  using RssDelta = std::array<int64_t, kRssKinds>;

  // Page tables (paging_tables.cc).
  std::optional<Pfn> AllocTable(AddressSpace& mm, int level);
  void FreeTable(AddressSpace& mm, int level, Pfn table);
  void CountTable(Pfn table, int64_t delta);
  int CountedLevel(int level) const { return level == format_.levels() ? 4 : level; }
  uint8_t* TableBytes(Pfn table) const;
  // The table of that level which covers the address; null when there is none.
  uint8_t* FindTable(const AddressSpace& mm, VirtAddr address, int level) const;
  uint8_t* EnsureTable(AddressSpace& mm, VirtAddr address, int level);  // Null: memory is short.
  // FindTable() of level 1 that remembers the last answer, for neighbours one after another.
  struct LastTable {
    Pfn pgd;
    uint64_t start = 0;
    uint8_t* table = nullptr;  // Null: nothing is remembered.
  };
  uint8_t* FindLowestTable(const AddressSpace& mm, VirtAddr address, LastTable& last) const;
  uint8_t* FindLowestTable(const AddressSpace& mm, VirtAddr address) { return FindLowestTable(mm, address, last_table_); }
  void ForgetTables() { last_table_.table = last_mapping_.table = nullptr; }
  void FreeTableRange(AddressSpace& mm, uint8_t* table, int level, uint64_t start, uint64_t end, uint64_t floor, uint64_t ceiling);
  // Calls visit(table, first address, last address) for each lowest table that exists within the range.
  template <typename Visit>
  void ForEachTable(const AddressSpace& mm, VirtRange range, Visit visit) const;
  // The same, with visit_huge(table of level 2, index, first address, last address) for what huge entries map. It answers whether it dealt
  // with the entry; if not, it has split it, and `visit` gets the table that is there now.
  template <typename Visit, typename VisitHuge>
  void ForEachTable(const AddressSpace& mm, VirtRange range, Visit visit, VisitHuge visit_huge) const;
  // What huge entries map within the range: visit(entry, first address).
  template <typename Visit>
  void ForEachHugeEntry(const AddressSpace& mm, VirtRange range, Visit visit) const;

  // Frames behind entries (paging_rmap.cc).
  Frame* NormalPage(Pte pte, Pfn* pfn) const;  // vm_normal_page(); null for none and for what has no rss.
  RssKind KindOf(const Frame& frame) const;
  bool WantsWriteNotify(const VmArea& vma) const;
  Pte MaybeWritable(Pte pte, const VmArea& vma) const;
  void AddNewAnonRmap(Pfn pfn, Frame& frame, VmArea& vma, VirtAddr address);
  void AddFileRmap(Pfn pfn, Frame& frame, VmArea& vma);
  void RemoveRmap(Pfn pfn, Frame& frame, const VmArea& vma);
  void PutPage(Pfn pfn, Frame& frame);
  Frame& HeadOf(Pfn pfn, Frame& frame) const {  // compound_head()
    return (frame.flags & kPgTail) == 0 ? frame : memory_.frame(HugeHead(pfn));
  }
  const Frame& HeadOf(Pfn pfn, const Frame& frame) const { return HeadOf(pfn, const_cast<Frame&>(frame)); }
  Pfn HugeHead(Pfn pfn) const { return Pfn(pfn.raw() & ~(uint64_t{huge_pages()} - 1)); }
  int MapCountOf(Pfn pfn, const Frame& frame) const {  // page_mapcount()
    return IsCompound(frame) ? frame.mapcount + EntireMapCount(HugeHead(pfn)) : frame.mapcount;
  }
  void MlockPage(Pfn pfn, Frame& frame);
  void MunlockPage(Pfn pfn, Frame& frame);
  void CountRssFast(Process& task, AddressSpace& mm, RssKind kind, int64_t pages);
  void AddRss(Process* task, AddressSpace& mm, const RssDelta& delta);
  void ZapTable(Process* task, VmArea& vma, uint8_t* table, VirtAddr start, VirtAddr last, bool even_cows);
  void ZapRange(Process* task, VmArea& vma, VirtRange range, bool even_cows);

  // Generations (paging_generations.cc).
  void SetInFault(bool in_fault);
  class InFault {  // lru_gen_enter_fault() to lru_gen_exit_fault()
   public:
    InFault(Paging& paging, const VmArea& vma) : paging_(paging) {
      if (paging_.generations_) [[unlikely]]
        paging_.SetInFault((vma.flags & (kVmSeqRead | kVmRandRead)) == 0);
    }
    ~InFault() {
      if (paging_.generations_) [[unlikely]]
        paging_.SetInFault(false);
    }
    InFault(const InFault&) = delete;
    InFault& operator=(const InFault&) = delete;

   private:
    Paging& paging_;
  };
  void PromoteUsedIn(const VmArea& vma, uint16_t memcg, bool can_swap);
  // Whether the entry was marked accessed and is of a page that may be promoted; then it is not marked any more.
  bool TakeYoung(uint8_t* table, uint32_t index, uint16_t memcg, bool can_swap, Pfn* head);
  void LookAround(const VmArea& vma, uint8_t* table, uint32_t index, const Frame& frame);

  // Huge pages (paging_huge.cc, paging_huge_split.cc, paging_huge_range.cc).
  int EntireMapCount(Pfn head) const;  // compound_mapcount()
  void AddEntireMap(Pfn head, int change);
  bool Whole(VirtAddr start, VirtAddr last) const { return (last - start).raw() == format_.coverage(2); }
  // hugepage_vma_check(). Forced: whatever the settings say (MADV_COLLAPSE).
  enum class HugeAsk : uint8_t { kFault, kSmaps, kKhugepaged, kForced };
  bool HugeAllowed(const VmArea& vma, uint64_t vm_flags, HugeAsk ask) const;
  // What a fault does with an address that has no lowest table; nothing: it goes on with small pages.
  std::optional<FaultOutcome> HugeFault(Fault& fault, uint8_t* table);
  std::optional<FaultOutcome> HugeAnonymousFault(Fault& fault, uint8_t* table);
  std::optional<FaultOutcome> HugeZeroFault(Fault& fault, uint8_t* table);
  std::optional<FaultOutcome> HugeWriteFault(Fault& fault, uint8_t* table);
  struct ScanSums {  // What the entries of a range hold.
    uint64_t last_pfn = ~uint64_t{0};
    uint32_t none = 0, swapped = 0, shared = 0, referenced = 0;
    bool writable = false;
  };
  // Huge pages of files (paging_huge_file.cc).
  bool HugeFits(const VmArea& vma, VirtAddr start) const;  // transhuge_vma_suitable()
  HugeAdvice AdviceOf(const VmArea& vma) const;
  bool MapHugeFile(Fault& fault, Pfn pfn);
  void SetHugeFile(VmArea& vma, VirtAddr start, Pfn head, bool write);
  void AddHugeFileRmap(Pfn head, VmArea& vma);
  void UnmapHugeFile(Pfn head);
  void ZapHugeFile(VmArea& vma, uint8_t* table, VirtAddr address);
  CollapseResult CollapseFile(VmArea& vma, VirtAddr address, bool khugepaged, ScanSums& sums);
  CollapseResult ScanFile(const Inode& inode, PageIndex first, bool khugepaged, ScanSums& sums) const;
  CollapseResult GatherFile(Inode& inode, PageIndex first);
  bool FreeEmptyLowest(AddressSpace& mm, VirtAddr address);
  void RetractTables(const Inode& inode, PageIndex first);
  CollapseResult MapCollapsed(VmArea& vma, VirtAddr address, bool install);
  static uint32_t HugeGfpLight();  // GFP_TRANSHUGE_LIGHT
  template <typename Visit>
  void ForEachVmaOf(const Frame& head, Visit visit) const;
  void PrepareHugePage(Pfn head);
  void AddNewHugeRmap(Pfn head, VmArea& vma, VirtAddr address);
  bool GetHugeZero(AddressSpace& mm);
  bool IsHugeZero(uint64_t entry) const { return huge_zero_.has_value() && format_.HugePfn(entry) == *huge_zero_; }
  CollapseResult CollapseScan(const uint8_t* table, bool khugepaged, ScanSums& sums);
  CollapseResult TryCollapse(VmArea& vma, VirtAddr address, bool khugepaged, ScanSums& sums);
  bool ChargeCollapsed(Pfn head, const uint8_t* table, Gfp gfp);
  void CollapseInto(VmArea& vma, VirtAddr address, uint8_t* table, Pfn head);
  bool DepositTable(AddressSpace& mm);
  Pfn WithdrawTable(AddressSpace& mm);
  void FreeDeposited(AddressSpace& mm) { FreeTable(mm, 1, WithdrawTable(mm)); }
  void SplitHugeEntry(VmArea& vma, uint8_t* table, VirtAddr address, const char* reason);
  void FillSplitTable(const VmArea& vma, uint64_t entry, uint8_t* table);
  void RemoveEntireMap(Pfn head, Frame& frame, const VmArea& vma);
  void RemoveSubpageRmap(Pfn pfn, Frame& frame);
  void DeferSplit(Pfn head);
  void ForgetDeferredSplit(Pfn head);
  void ReleaseHugePage(Pfn head, const Frame& frame);
  void ZapHuge(VmArea& vma, uint8_t* table, VirtAddr address);
  bool CopyHuge(AddressSpace& to, uint8_t* source, uint8_t* target, VirtAddr address);
  void SplitFrames(Pfn head, int references);
  void SplitEntriesOf(Pfn head, const Frame& frame);
  void RemapSplitPages(Pfn head);
  bool LazyFreeHuge(VmArea& vma, uint8_t* table, VirtAddr start, VirtAddr last);
  bool AgeHuge(uint8_t* table, VirtAddr start, VirtAddr last, std::vector<Pfn>* isolated);
  PageReferences TestClearHugeReferenced(Pfn head);
  HardwareAccess TryHugeAccess(const AddressSpace& mm, VirtAddr address, bool write, bool execute);
  void AddHugeToSmaps(uint64_t entry, bool locked, SmapsSums& sums) const;
  template <typename Visit>
  void ForEachHugeMapping(Pfn head, const Frame& frame, Visit visit) const;
  template <typename Visit>
  void ForEachSubpageMapping(Pfn head, const Frame& frame, Visit visit) const;
  bool ProtectForKsm(VmArea& vma, VirtAddr address, Pfn pfn);
  void ReplaceForKsm(VmArea& vma, VirtAddr address, Pfn pfn, std::optional<Pfn> merged);
  bool FollowHuge(const AddressSpace& mm, VirtAddr address, bool write);
  // `mapped`: how many small entries map each frame. Returns how many pages of huge pages are mlocked.
  uint64_t CheckHugePages(const std::vector<const AddressSpace*>& spaces, const std::map<Pfn, int>& mapped,
                          std::vector<std::string>* violations) const;
  void AddHugeToHash(StateHasher& hasher) const;
  // Huge pages of pools (paging_hugetlb.cc, paging_hugetlb_fault.cc).
  struct HugetlbEntry;
  template <typename Visit>
  void ForEachHugetlb(const AddressSpace& mm, VirtRange range, int order, Visit visit) const;
  const HugetlbPool& HugetlbPoolOf(const VmArea& vma) const;
  int HugetlbLevel(int order) const;
  uint32_t HugetlbEntries(int order) const;
  HugetlbEntry EnsureHugetlb(AddressSpace& mm, VirtAddr address, int order);
  void FreeEmptyTable(AddressSpace& mm, uint8_t* table, uint32_t index, int level);
  uint64_t LoadHugetlb(const HugetlbEntry& at) const;
  void StoreHugetlb(const HugetlbEntry& at, uint64_t entry);
  Pfn HugetlbPfn(const HugetlbEntry& at, uint64_t entry) const;
  uint64_t MkHugetlb(const HugetlbEntry& at, uint64_t entry) const;
  uint64_t MakeHugetlb(const HugetlbEntry& at, const VmArea& vma, Pfn head, bool writable) const;
  uint64_t HugetlbIndex(const VmArea& vma, VirtAddr address) const;  // vma_hugecache_offset()
  void UnmapHugetlb(VmArea& vma, const HugetlbEntry& at, uint64_t entry);
  void DropHugetlbMap(const VmArea& vma, Pfn head);
  void ZapHugetlb(VmArea& vma, VirtRange range);
  bool CopyHugetlb(const VmArea& from, VmArea& to);
  Bytes MoveHugetlb(const VmArea& from, VirtAddr old_start, VirtAddr new_start, Bytes length);
  void ProtectHugetlb(const VmArea& vma, VirtRange range);
  void AddHugetlbToSmaps(const VmArea& vma, SmapsSums& sums) const;
  VmaPages CountHugetlbPages(const VmArea& vma) const;
  void MincoreHugetlb(const VmArea& vma, VirtRange range, std::string& out) const;
  FaultOutcome HugetlbFault(VmArea& vma, VirtAddr address, bool write);
  FaultOutcome HugetlbSigBus(const char* reason, VirtAddr address) const;
  std::optional<Pfn> AllocHugetlb(VmArea& vma, uint64_t index, bool avoid_reserve);
  void AddNewHugetlbRmap(Pfn head, const VmArea& vma, VirtAddr address);
  FaultOutcome HugetlbMissing(VmArea& vma, VirtAddr start, const HugetlbEntry& at, bool write);
  FaultOutcome HugetlbWrite(VmArea& vma, VirtAddr start, const HugetlbEntry& at, uint64_t entry);
  bool ReusableHugetlb(Pfn head);
  void CopyHugetlbPage(VmArea& vma, VirtAddr start, const HugetlbEntry& at, Pfn old, Pfn copy);
  void UnmapHugetlbElsewhere(const VmArea& vma, VirtAddr start, Pfn head);
  Errno PopulateHugetlb(VmArea& vma, VirtRange range, bool write);
  void CheckHugetlb(const std::vector<const AddressSpace*>& spaces, std::vector<std::string>* violations) const;
  // Entries of pages that were swapped out (paging_swap.cc).
  SwapEntry SwapOf(Pte pte) const { return SwapEntry{format_.SwapArea(pte), format_.SwapSlot(pte)}; }
  // page_add_anon_rmap(): takes over a reference.
  void AddAnonRmap(Pfn pfn, Frame& frame, VmArea& vma, VirtAddr address, bool exclusive);
  // free_swap_cache(): a page that nobody maps any more needs no slot.
  void FreeSwapCache(Pfn pfn, const Frame& frame);
  void UnuseEntry(VmArea& vma, uint8_t* table, VirtAddr address, Pfn pfn);

  // A bound on resident pages (paging_replacement.cc).
  VirtAddr AddressOf(uint64_t page) const { return VirtAddr(page << layout_.page_size.shift()); }
  Pte PteAt(const AddressSpace& mm, VirtAddr address) const;  // 0: there is no table.
  bool IsResident(const AddressSpace& mm, VirtAddr address) const;
  void MakeRoomFor(Process& task, AddressSpace& mm, VirtAddr address);
  void MakeRoom(Process& task, AddressSpace& mm, uint64_t frames);
  void NoteLoaded(AddressSpace& mm, VirtAddr address);
  bool TakeAway(Process& task, AddressSpace& mm, VirtAddr address);
  ExplanationStep& ExplainRoom(const PageReplacement& bound, absl::FunctionRef<bool(uint64_t page)> accessed, Explanation& why) const;

  // Calls visit(vma, address, table, index) for each entry that maps the page.
  template <typename Visit>
  void ForEachMapping(Pfn pfn, const Frame& frame, Visit visit) const;
  void MoveEntry(VmArea& vma, uint8_t* table, uint32_t index, Pfn from, Pfn to);
  void UnmapEntry(VmArea& vma, uint8_t* table, uint32_t index, Pfn pfn, Frame& frame);

  void AccumulateSmaps(const VmArea& vma, SmapsSums& sums) const;
  static Smaps ToSmaps(const SmapsSums& sums);
  void CountTables(const AddressSpace& mm, size_t which, std::vector<std::string>* violations) const;
  // Makes entries old; pages that reclaim could take are listed.
  void AgeRange(VmArea& vma, VirtRange range, std::vector<Pfn>* isolated);
  void WillneedSwapped(VmArea& vma, VirtRange range);

  // Faults (paging_fault.cc, paging_file_fault.cc).
  FaultOutcome HandlePteFault(Fault& fault);
  FaultOutcome AnonymousFault(Fault& fault);
  FaultOutcome WriteProtectFault(Fault& fault);
  FaultOutcome SharedWriteFault(Fault& fault, Frame& frame);
  FaultOutcome SwapFault(Fault& fault);
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

  bool CopyTables(const VmArea& from, VmArea& to, uint8_t* source, int level, VirtRange range);
  void CopyTable(const VmArea& from, uint8_t* source, uint8_t* target, VirtAddr start, VirtAddr last, RssDelta& delta);
  bool MoveTable(AddressSpace& mm, VirtAddr old_start, VirtAddr new_start, int level);
  void MoveEntries(AddressSpace& mm, VirtAddr old_start, VirtAddr new_start, uint64_t bytes);

  // What became of TLBs since reclaim began with a list of pages; kept while somebody wants to know why.
  struct TlbBatch {
    int64_t entries = 0;    // Taken out of page tables.
    int64_t flushes = 0;    // Each of an entry, or of all that was put off.
    uint64_t cpus = 0;      // Put off: CPUs, by bit, that have to forget entries (tlb_ubc).
    uint64_t reached = 0;   // CPUs that were told so.
    bool writable = false;  // An entry was put off through which the page could have been written.
  };
  void NoteUnmapped(const AddressSpace& mm, bool dirty);

  const Layout& layout_;
  const PageTableFormat format_;
  PhysicalMemory& memory_;
  Files& files_;
  const AnonVmaTable& anon_vmas_;
  VmStat& vm_stat_;
  Tracer& tracer_;
  const bool hardware_access_flag_;
  Process* current_ = nullptr;
  PageReclaimer* reclaimer_ = nullptr;
  bool generations_ = false;        // MGLRU runs.
  LastTable last_table_;            // Of faults. Both are forgotten when any table goes or moves.
  mutable LastTable last_mapping_;  // Of reclaim, which meets neighbours one after another too.
  LruBatches lru_;
  HugePageSettings huge_settings_;
  const std::unique_ptr<Khugepaged> khugepaged_;
  const std::unique_ptr<Ksm> ksm_;
  const std::array<std::unique_ptr<Shrinker>, 2> huge_shrinkers_;
  TlbBatch tlb_batch_;
  std::optional<Pfn> huge_zero_;  // Of all address spaces; what huge entries of memory that was only read map.
  uint64_t huge_zero_users_ = 0;
  absl::btree_map<uint64_t, Pfn> deferred_splits_;  // Huge pages that are partly unmapped, in the order in which that happened.
  uint64_t next_deferred_ = 1;
  std::vector<Pfn> vdso_pages_;                     // Made when first touched; so are these.
  std::array<std::optional<Pfn>, 3> compat_pages_;  // Of 32-bit ARM programs: vdso, vectors, sigpage.
  std::optional<Pfn> vvar_page_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PAGING_H_

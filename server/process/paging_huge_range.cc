// Huge pages under madvise and mlock, and what is read of them. Linux: mm/huge_memory.c (madvise_free_huge_pmd, follow_trans_huge_pmd),
// mm/madvise.c, fs/proc/task_mmu.c (smaps_pmd_entry).
#include "absl/strings/str_format.h"
#include "server/base/hash.h"
#include "server/files/files.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/khugepaged.h"
#include "server/process/paging.h"
#include "server/process/paging_huge_map.h"
#include "server/process/paging_walk.h"

namespace mmlab {
namespace {

constexpr int kPssShift = 12;  // PSS_SHIFT, as for small pages.

}  // namespace

// madvise_free_huge_pmd(): false when the entry was split and its pages are to be looked at one by one.
bool Paging::LazyFreeHuge(VmArea& /*vma*/, uint8_t* table, VirtAddr start, VirtAddr last) {
  const uint32_t index = format_.IndexOf(start, 2);
  const uint64_t entry = format_.Load(table, index);
  if (IsHugeZero(entry)) return true;
  const Pfn head = format_.HugePfn(entry);
  Frame& frame = memory_.frame(head);
  // total_mapcount()
  int64_t maps = EntireMapCount(head);
  for (uint32_t i = 0; i < huge_pages(); ++i) maps += memory_.frame(head + PageCount(i)).mapcount;
  if (maps != 1) return true;
  if (!Whole(start, last)) return !SplitHugePage(head);
  frame.flags &= ~uint32_t{kPgDirty};
  if (format_.Young(entry) || format_.Dirty(entry)) format_.Store(table, index, format_.MkClean(format_.MkOld(entry)));
  lru_.MarkLazyFree(head);
  return true;
}

// The huge part of madvise_cold_or_pageout_pte_range(): false when the page was split. isolated: what is to be taken away; null: nothing.
bool Paging::AgeHuge(uint8_t* table, VirtAddr start, VirtAddr last, std::vector<Pfn>* isolated) {
  const uint32_t index = format_.IndexOf(start, 2);
  const uint64_t entry = format_.Load(table, index);
  if (IsHugeZero(entry)) return true;
  const Pfn head = format_.HugePfn(entry);
  Frame& frame = memory_.frame(head);
  if (MapCountOf(head, frame) != 1) return true;
  // Swap space is given to small pages only, so that what is to go is split first.
  if (isolated != nullptr || !Whole(start, last)) {
    const bool of_file = frame.state == FrameState::kShmem;
    if (!SplitHugePage(head)) return true;
    if (isolated == nullptr || !Whole(start, last)) return false;
    if (!of_file) vm_stat_.Count(VmEvent::kThpSwpoutFallback);
    // Entries of anonymous memory lead to the small pages; of a file none are left.
    for (uint32_t i = 0; of_file && i < huge_pages(); ++i) {
      const Pfn pfn = head + PageCount(i);
      if ((memory_.frame(pfn).flags & (kPgLru | kPgUnevictable)) == kPgLru) isolated->push_back(pfn);
    }
    return false;
  }
  format_.Store(table, index, format_.MkOld(entry));
  frame.flags &= ~uint32_t{kPgReferenced};
  return true;
}

// folio_referenced() of a huge page.
PageReferences Paging::TestClearHugeReferenced(Pfn head) {
  PageReferences found;
  Frame& frame = memory_.frame(head);
  const auto look = [&](const VmArea& vma, uint8_t* table, uint32_t index) {
    if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) found.locked = true;
    const uint64_t entry = format_.Load(table, index);
    if (!format_.Young(entry)) return;
    format_.Store(table, index, format_.MkOld(entry));
    if (vma.is(kVmSeqRead)) return;
    ++found.referenced;
    found.executable = found.executable || vma.is(kVmExec);
  };
  ForEachHugeMapping(head, frame, [&](VmArea& vma, uint8_t* table, VirtAddr address) { look(vma, table, format_.IndexOf(address, 2)); });
  ForEachSubpageMapping(head, frame, [&](VmArea& vma, uint8_t* table, uint32_t index, Pfn) { look(vma, table, index); });
  return found;
}

bool Paging::SplitHuge(Pfn head) {
  // What nothing maps as a whole is split at once; else swap space for all of it would have been wished.
  const Frame& frame = memory_.frame(head);
  const bool fallback = EntireMapCount(head) > 0 && frame.state == FrameState::kAnon && (frame.flags & kPgSwapBacked) != 0;
  if (!SplitHugePage(head, /*references=*/1)) return false;
  if (fallback) vm_stat_.Count(VmEvent::kThpSwpoutFallback);
  return true;
}

// follow_trans_huge_pmd(): whether the entry lets get_user_pages() have the page without a fault.
bool Paging::FollowHuge(const AddressSpace& mm, VirtAddr address, bool write) {
  uint8_t* table = FindTable(mm, address, 2);
  if (table == nullptr) return false;
  const uint32_t index = format_.IndexOf(address, 2);
  const uint64_t entry = format_.Load(table, index);
  if (!format_.Huge(entry) || (write && !format_.Writable(entry))) return false;
  format_.Store(table, index, format_.MkYoung(write ? format_.MkDirty(entry) : entry));
  return true;
}

void Paging::AddHugeToSmaps(uint64_t entry, bool locked, SmapsSums& sums) const {
  if (IsHugeZero(entry)) return;
  const uint64_t page = layout_.page_size.bytes().raw();
  const uint64_t size = page * huge_pages();
  const Pfn head = format_.HugePfn(entry);
  const Frame& frame = memory_.frame(head);
  const bool dirty = format_.Dirty(entry) || (frame.flags & kPgDirty) != 0;
  const bool anonymous = frame.state == FrameState::kAnon;
  (anonymous ? sums.anon_huge : sums.shmem_huge) += size;
  sums.rss += size;
  if (anonymous) {
    sums.anonymous += size;
    if ((frame.flags & kPgSwapBacked) == 0 && !dirty) sums.lazy_free += size;
  }
  uint64_t& pss_of_kind = anonymous ? sums.pss_anon : sums.pss_shmem;
  if (format_.Young(entry) || (frame.flags & kPgReferenced) != 0) sums.referenced += size;
  if (frame.refcount == 1) {
    // Mapped just here. On x86-32 the share of a whole huge page, in 1/4096 bytes, does not fit its 32-bit word and is lost.
    const uint64_t share = layout_.word_bytes == 4 ? (size << kPssShift) & 0xffffffff : size << kPssShift;
    sums.pss += share;
    pss_of_kind += share;
    if (locked) sums.pss_locked += share;
    if (dirty) sums.pss_dirty += share;
    (dirty ? sums.private_dirty : sums.private_clean) += size;
    return;
  }
  for (uint32_t i = 0; i < huge_pages(); ++i) {
    const int maps = MapCountOf(head, memory_.frame(head + PageCount(i)));
    const bool is_private = maps < 2;
    const uint64_t share = (page << kPssShift) / (is_private ? 1 : static_cast<uint64_t>(maps));
    sums.pss += share;
    pss_of_kind += share;
    if (locked) sums.pss_locked += share;
    if (dirty) sums.pss_dirty += share;
    (dirty ? (is_private ? sums.private_dirty : sums.shared_dirty) : (is_private ? sums.private_clean : sums.shared_clean)) += page;
  }
}

uint64_t Paging::CheckHugePages(const std::vector<const AddressSpace*>& spaces, const std::map<Pfn, int>& mapped,
                                std::vector<std::string>* violations) const {
  std::map<Pfn, int> entire;  // Huge entries that map each head.
  uint64_t zero_users = 0;
  for (const AddressSpace* mm : spaces) {
    uint64_t entries = 0;
    for (const VmArea* vma = mm->vmas.First(); vma != nullptr; vma = mm->vmas.Next(*vma)) {
      if (vma->is(kVmHugetlb)) continue;
      ForEachHugeEntry(*mm, vma->range(), [&](uint64_t entry, VirtAddr) {
        entries += vma->anonymous() ? 1 : 0;
        if (!IsHugeZero(entry)) ++entire[format_.HugePfn(entry)];
      });
    }
    zero_users += mm->uses_huge_zero ? 1 : 0;
    if (entries != mm->deposited_tables.size()) {
      violations->push_back(
          absl::StrFormat("%d huge entries of anonymous memory, %d tables put aside", entries, mm->deposited_tables.size()));
    }
  }
  if (zero_users != huge_zero_users_) {
    violations->push_back(absl::StrFormat("%d users of the huge zero page are counted, %d are", huge_zero_users_, zero_users));
  }
  std::map<Pfn, int64_t> small;  // Small entries that map a part of each head.
  for (const auto& [pfn, maps] : mapped) {
    const Frame& frame = memory_.frame(pfn);
    if (!IsCompound(frame)) continue;
    small[HugeHead(pfn)] += maps;
    if (frame.mapcount != maps) {
      violations->push_back(absl::StrFormat("frame 0x%x of a huge page: mapcount %d, %d entries map it", pfn.raw(), frame.mapcount, maps));
    }
    entire.try_emplace(HugeHead(pfn), 0);
  }
  for (const auto& [id, inode] : files_.all()) {
    if (inode->huge_pages == 0) continue;
    for (const auto& [index, pfn] : inode->pages.Pages()) {
      if ((memory_.frame(pfn).flags & kPgHead) != 0) entire.try_emplace(pfn, 0);
    }
  }
  uint64_t mlocked = 0;
  int64_t shmem_mapped = 0;
  for (const auto& [head, maps] : entire) {
    const Frame& frame = memory_.frame(head);
    const bool of_file = frame.state == FrameState::kShmem;
    if (of_file && maps > 0) shmem_mapped += huge_pages();
    if ((frame.flags & kPgMlocked) != 0) mlocked += huge_pages();
    const auto it = small.find(head);
    const int64_t parts = it == small.end() ? 0 : it->second;
    if ((frame.flags & kPgHead) == 0 || EntireMapCount(head) != maps ||
        frame.refcount != maps + parts + (of_file && frame.mapping != 0 ? int64_t{huge_pages()} : 0)) {
      violations->push_back(absl::StrFormat("huge page 0x%x: counts %d entries and %d references, %d huge and %d small entries map it",
                                            head.raw(), EntireMapCount(head), frame.refcount, maps, parts));
    }
    if ((frame.flags & kPgAnonExclusive) != 0 && MapCountOf(head, frame) > 1) {
      violations->push_back(absl::StrFormat("huge page 0x%x is marked exclusive and mapped %d times", head.raw(), MapCountOf(head, frame)));
    }
  }
  if (shmem_mapped != vm_stat_.Get(NodeStat::kNrShmemPmdmapped)) {
    violations->push_back(
        absl::StrFormat("nr_shmem_pmdmapped is %d, huge entries map %d", vm_stat_.Get(NodeStat::kNrShmemPmdmapped), shmem_mapped));
  }
  return mlocked;
}

void Paging::AddHugeToHash(StateHasher& hasher) const {
  hasher.Add(huge_zero_.has_value() ? huge_zero_->raw() : 0);
  for (const auto& [key, head] : deferred_splits_) {
    hasher.Add(key);
    hasher.Add(head.raw());
  }
  hasher.Add(next_deferred_);
  hasher.Add(static_cast<uint64_t>(huge_settings_.enabled));
  hasher.Add(static_cast<uint64_t>(huge_settings_.defrag));
  hasher.Add(huge_settings_.use_zero_page ? 1 : 0);
  const KhugepagedSettings& settings = huge_settings_.khugepaged;
  for (const uint32_t value :
       {settings.pages_to_scan, settings.scan_sleep_millisecs, settings.alloc_sleep_millisecs, settings.max_ptes_none,
        settings.max_ptes_swap, settings.max_ptes_shared, settings.pages_collapsed, settings.full_scans}) {
    hasher.Add(value);
  }
  hasher.Add(settings.defrag ? 1 : 0);
  khugepaged_->AddToHash(hasher);
}

}  // namespace mmlab

// What is read out of page tables: smaps, mincore, counts, the invariants. Linux: fs/proc/task_mmu.c, mm/mincore.c.
#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_format.h"
#include "server/base/hash.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/ksm.h"
#include "server/process/paging.h"
#include "server/process/paging_walk.h"

namespace mmlab {
namespace {

constexpr int kPssShift = 12;  // Shares of pages are counted in 1/4096 bytes (PSS_SHIFT).

// smaps prints whole KiB.
Bytes WholeKib(uint64_t bytes) { return Bytes(bytes & ~uint64_t{1023}); }

// For ForEachTable(): calls visit(entry, address) for each entry that is there.
template <typename Visit>
auto EachEntry(const PageTableFormat& format, Visit visit) {
  return [&format, visit](const uint8_t* table, VirtAddr start, VirtAddr last) {
    uint32_t index = format.IndexOf(start, 1);
    const Bytes page(uint64_t{1} << format.shift(1));
    for (VirtAddr address = start; address < last; address += page, ++index) {
      if (const Pte pte = format.Load(table, index); !format.None(pte)) visit(pte, address);
    }
  };
}

}  // namespace

void Paging::AccumulateSmaps(const VmArea& vma, SmapsSums& sums) const {
  if (vma.is(kVmPfnMap)) return;  // walk_page_range() leaves it out.
  if (vma.is(kVmHugetlb)) return AddHugetlbToSmaps(vma, sums);
  const uint64_t page = layout_.page_size.bytes().raw();
  const bool locked = vma.is(kVmLocked);
  if (vma.file != nullptr && vma.file->inode->shmem()) {
    // shmem_swap_usage(): its entries are in the file, not in page tables.
    for ([[maybe_unused]] const auto& swapped : vma.file->inode->pages.Swapped(vma.pgoff, vma.IndexOf(vma.end, layout_.page_size))) {
      sums.swap += page;
    }
  }
  ForEachTable(*vma.mm, vma.range(), EachEntry(format_, [&](Pte pte, VirtAddr) {
    if (format_.IsSwap(pte)) {
      sums.swap += page;
      sums.pss_swap += (page << kPssShift) / std::max<uint64_t>(1, files_.swap().CountOf(SwapOf(pte)));
      return;
    }
    Pfn pfn;
    const Frame* frame = NormalPage(pte, &pfn);
    if (frame == nullptr) return;
    const Frame& head = HeadOf(pfn, *frame);
    const int mapcount = MapCountOf(pfn, *frame);
    const bool dirty = format_.Dirty(pte) || (head.flags & kPgDirty) != 0;
    sums.rss += page;
    if (frame->state == FrameState::kAnon) {
      sums.anonymous += page;
      if ((head.flags & kPgSwapBacked) == 0 && !dirty) sums.lazy_free += page;
    }
    if (format_.Young(pte) || (head.flags & kPgReferenced) != 0) sums.referenced += page;
    const bool is_private = mapcount < 2;
    const uint64_t share = (page << kPssShift) / (is_private ? 1 : static_cast<uint64_t>(mapcount));
    sums.pss += share;
    if (frame->state == FrameState::kAnon) {
      sums.pss_anon += share;
    } else {
      (KindOf(*frame) == RssKind::kShmem ? sums.pss_shmem : sums.pss_file) += share;
    }
    if (locked) sums.pss_locked += share;
    if (dirty) sums.pss_dirty += share;
    (dirty ? (is_private ? sums.private_dirty : sums.shared_dirty) : (is_private ? sums.private_clean : sums.shared_clean)) += page;
  }));
  ForEachHugeEntry(*vma.mm, vma.range(), [&](uint64_t entry, VirtAddr) { AddHugeToSmaps(entry, locked, sums); });
}

Smaps Paging::ToSmaps(const SmapsSums& sums) {
  Smaps smaps;
  smaps.rss = Bytes(sums.rss);
  smaps.pss = WholeKib(sums.pss >> kPssShift);
  smaps.pss_dirty = WholeKib(sums.pss_dirty >> kPssShift);
  smaps.shared_clean = Bytes(sums.shared_clean);
  smaps.shared_dirty = Bytes(sums.shared_dirty);
  smaps.private_clean = Bytes(sums.private_clean);
  smaps.private_dirty = Bytes(sums.private_dirty);
  smaps.referenced = Bytes(sums.referenced);
  smaps.anonymous = Bytes(sums.anonymous);
  smaps.lazy_free = Bytes(sums.lazy_free);
  smaps.anon_huge_pages = Bytes(sums.anon_huge);
  smaps.shmem_pmd_mapped = Bytes(sums.shmem_huge);
  smaps.shared_hugetlb = Bytes(sums.shared_hugetlb);
  smaps.private_hugetlb = Bytes(sums.private_hugetlb);
  smaps.locked = WholeKib(sums.pss_locked >> kPssShift);
  smaps.swap = Bytes(sums.swap);
  smaps.swap_pss = WholeKib(sums.pss_swap >> kPssShift);
  return smaps;
}

Smaps Paging::MeasureVma(const VmArea& vma) const {
  SmapsSums sums;
  AccumulateSmaps(vma, sums);
  return ToSmaps(sums);
}

SmapsRollup Paging::MeasureAll(const AddressSpace& mm) const {
  SmapsSums sums;
  for (const VmArea* vma = mm.vmas.First(); vma != nullptr; vma = mm.vmas.Next(*vma)) AccumulateSmaps(*vma, sums);
  return {ToSmaps(sums), WholeKib(sums.pss_anon >> kPssShift), WholeKib(sums.pss_file >> kPssShift), WholeKib(sums.pss_shmem >> kPssShift)};
}

// gather_stats(); the kernel's own pages (vvar, vdso) are reserved and not counted.
VmaPages Paging::CountPages(const VmArea& vma) const {
  VmaPages counted;
  if (vma.special_mapping()) return counted;
  if (vma.is(kVmHugetlb)) return CountHugetlbPages(vma);
  ForEachTable(*vma.mm, vma.range(), EachEntry(format_, [&](Pte pte, VirtAddr) {
    Pfn pfn;
    const Frame* frame = NormalPage(pte, &pfn);
    if (frame == nullptr) return;
    ++counted.pages;
    counted.anon += frame->state == FrameState::kAnon ? 1 : 0;
    counted.dirty += format_.Dirty(pte) || (frame->flags & kPgDirty) != 0 ? 1 : 0;
    counted.active += (frame->flags & (kPgActive | kPgUnevictable)) != 0 ? 1 : 0;
    counted.mapcount_max = std::max(counted.mapcount_max, static_cast<uint64_t>(frame->mapcount));
  }));
  return counted;
}

std::array<int64_t, kRssKinds> Paging::CountRss(const AddressSpace& mm) const {
  RssDelta total{};
  for (const VmArea* vma = mm.vmas.First(); vma != nullptr; vma = mm.vmas.Next(*vma)) {
    if (vma->is(kVmHugetlb)) continue;
    ForEachTable(mm, vma->range(), EachEntry(format_, [&](Pte pte, VirtAddr) {
                   Pfn pfn;
                   if (format_.IsSwap(pte)) {
                     ++total[static_cast<size_t>(RssKind::kSwap)];
                   } else if (const Frame* frame = NormalPage(pte, &pfn); frame != nullptr) {
                     ++total[static_cast<size_t>(KindOf(*frame))];
                   }
                 }));
    ForEachHugeEntry(mm, vma->range(), [&](uint64_t entry, VirtAddr) {
      if (!IsHugeZero(entry)) total[static_cast<size_t>(KindOf(memory_.frame(format_.HugePfn(entry))))] += huge_pages();
    });
  }
  return total;
}

void Paging::Mincore(const VmArea& vma, VirtRange range, std::string& out) const {
  const PageSize page_size = layout_.page_size;
  if (vma.special_mapping()) {
    // can_do_mincore() refuses to tell anything about memory that is neither anonymous nor of a file.
    out.append((range.length().raw() + page_size.mask()) >> page_size.shift(), '\1');
    return;
  }
  if (vma.is(kVmHugetlb)) return MincoreHugetlb(vma, range, out);
  // vm_file, not the kind of memory, decides: a private mapping of /dev/zero has a file without pages.
  const Inode* inode = vma.file == nullptr ? nullptr : vma.file->inode.get();
  for (VirtAddr address = range.start; address < range.end; address += page_size.bytes()) {
    const uint8_t* table = FindTable(*vma.mm, address, 1);
    const Pte pte = table == nullptr ? 0 : format_.Load(table, format_.IndexOf(address, 1));
    bool resident = !format_.None(pte) || (table == nullptr && HugeEntryAt(*vma.mm, address) != 0);
    if (table != nullptr && resident && format_.IsSwap(pte)) {
      resident = files_.swap().CachedPage(SwapOf(pte)).has_value();
    } else if (!resident && inode != nullptr) {
      const PageIndex index = vma.IndexOf(address, page_size);
      const auto swapped = inode->pages.FindSwapped(index);
      resident = swapped.has_value() ? files_.swap().CachedPage(*swapped).has_value() : files_.FindPage(*inode, index).has_value();
    }
    out.push_back(resident ? '\1' : '\0');
  }
}

void Paging::CheckInvariants(const std::vector<const Process*>& tasks, std::vector<std::string>* violations) const {
  std::map<Pfn, int> mapped;
  std::map<const AddressSpace*, RssDelta> held;  // By tasks, in their small counters. Only looked up, never walked.
  std::vector<const AddressSpace*> spaces;
  for (const Process* task : tasks) {
    if (task->mm == nullptr) continue;
    const auto [it, fresh] = held.try_emplace(task->mm.get(), RssDelta{});
    if (fresh) spaces.push_back(task->mm.get());
    for (size_t kind = 0; kind < kRssKinds; ++kind) it->second[kind] += task->rss.count[kind];
  }
  for (size_t i = 0; i < spaces.size(); ++i) {
    const AddressSpace& mm = *spaces[i];
    CountTables(mm, i, violations);
    const RssDelta counted = CountRss(mm);
    for (size_t kind = 0; kind < kRssKinds; ++kind) {
      const int64_t known = mm.rss[kind] + held.at(&mm)[kind];
      if (known != counted[kind]) {
        violations->push_back(absl::StrFormat("address space %d: rss of kind %d is %d, its tables map %d", i, kind, known, counted[kind]));
      }
    }
    for (const VmArea* vma = mm.vmas.First(); vma != nullptr; vma = mm.vmas.Next(*vma)) {
      if (vma->is(kVmHugetlb)) continue;
      ForEachTable(mm, vma->range(), EachEntry(format_, [&](Pte pte, VirtAddr) {
                     if (Pfn pfn; NormalPage(pte, &pfn) != nullptr) ++mapped[pfn];
                   }));
    }
  }
  if (!vdso_pages_.empty()) ++mapped[vdso_pages_[0]];
  ksm_->CheckInvariants(violations);
  CheckHugetlb(spaces, violations);
  uint64_t mlocked = CheckHugePages(spaces, mapped, violations);
  for (const auto& [pfn, maps] : mapped) {
    const Frame& frame = memory_.frame(pfn);
    if (IsCompound(frame)) continue;
    if ((frame.flags & kPgMlocked) != 0) ++mlocked;
    if (frame.mapcount != maps || frame.refcount < maps) {
      violations->push_back(
          absl::StrFormat("frame 0x%x: mapcount %d and %d references, %d entries map it", pfn.raw(), frame.mapcount, frame.refcount, maps));
    }
    if ((frame.flags & kPgAnonExclusive) != 0 && (frame.state != FrameState::kAnon || maps != 1)) {
      violations->push_back(absl::StrFormat("frame 0x%x is marked exclusive and mapped by %d entries", pfn.raw(), maps));
    }
  }
  // MREMAP_DONTUNMAP unlocks a VMA without looking at its pages (mremap.cc): those of a file stay marked in the page cache.
  for (const auto& [id, inode] : files_.all()) {
    for (const auto& [index, pfn] : inode->pages.Pages()) {
      const Frame& frame = memory_.frame(pfn);
      if ((frame.flags & kPgMlocked) != 0 && !IsCompound(frame) && !mapped.contains(pfn)) ++mlocked;
    }
  }
  if (mlocked != mlocked_pages())
    violations->push_back(absl::StrFormat("%d pages are counted as mlocked, %d are", mlocked_pages(), mlocked));
}

void Paging::CountTables(const AddressSpace& mm, size_t which, std::vector<std::string>* violations) const {
  std::array<uint64_t, 5> counted{};
  std::vector<Pfn> tables{mm.pgd};
  for (int level = format_.levels(); level >= 1; --level) {
    counted[static_cast<size_t>(CountedLevel(level))] += tables.size();
    std::vector<Pfn> below;
    for (const Pfn table : tables) {
      if (memory_.frame(table).state != FrameState::kPageTable) {
        violations->push_back(absl::StrFormat("address space %d: its table in frame 0x%x is not a page table", which, table.raw()));
      }
      for (uint32_t i = 0; level > 1 && i < format_.entries(level); ++i) {
        const uint64_t entry = format_.Load(TableBytes(table), i);
        if (format_.TablePresent(entry)) below.push_back(format_.TableOf(entry));
      }
    }
    tables = std::move(below);
  }
  counted[1] += mm.deposited_tables.size();
  for (size_t level = 1; level < counted.size(); ++level) {
    if (counted[level] != mm.table_pages[level]) {
      violations->push_back(absl::StrFormat("address space %d: %d tables of level %d are counted, %d exist", which, mm.table_pages[level],
                                            level, counted[level]));
    }
  }
}

void Paging::AddToHash(const AddressSpace& mm, StateHasher& hasher) const {
  hasher.Add(mm.pgd.raw());
  for (const VmArea* vma = mm.vmas.First(); vma != nullptr; vma = mm.vmas.Next(*vma)) {
    ForEachTable(mm, vma->range(), EachEntry(format_, [&](Pte pte, VirtAddr address) {
                   hasher.Add(address.raw());
                   hasher.Add(pte);
                 }));
    ForEachHugeEntry(mm, vma->range(), [&](uint64_t entry, VirtAddr address) {
      hasher.Add(address.raw());
      hasher.Add(entry);
    });
  }
  for (const Pfn table : mm.deposited_tables) hasher.Add(table.raw());
  hasher.Add((mm.thp_disabled ? 1 : 0) | (mm.uses_huge_zero ? 2 : 0));
  hasher.Add(mm.khugepaged_slot);
  hasher.Add(mm.ksm_slot);
}

void Paging::AddToHash(StateHasher& hasher) const {
  lru_.AddToHash(hasher);
  AddHugeToHash(hasher);
  ksm_->AddToHash(hasher);
  for (const Pfn pfn : vdso_pages_) hasher.Add(pfn.raw());
  hasher.Add(vvar_page_.has_value() ? vvar_page_->raw() : 0);
  for (const std::optional<Pfn>& page : compat_pages_) hasher.Add(page.has_value() ? page->raw() : 0);
}

}  // namespace mmlab

// Copying, moving and changing entries: fork, mremap, mprotect. Linux: mm/memory.c (copy_page_range), mm/mremap.c, mm/mprotect.c.
#include <algorithm>

#include "server/base/check.h"
#include "server/files/files.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"
#include "server/process/paging_walk.h"

namespace mmlab {

bool Paging::CopyRange(Process& /*parent*/, VmArea& from, Process& /*child*/, VmArea& to) {
  // vma_needs_copy(): what a fault would bring back from a file the child fetches itself.
  if (!from.is(kVmPfnMap | kVmMixedMap) && from.anon_vma == nullptr) return true;
  if (from.is(kVmHugetlb)) return CopyHugetlb(from, to);
  return CopyTables(from, to, TableBytes(from.mm->pgd), format_.levels(), from.range());
}

// copy_p4d_range() and below: the child gets a table wherever the parent has one, even an empty one.
bool Paging::CopyTables(const VmArea& from, VmArea& to, uint8_t* source, int level, VirtRange range) {
  const uint64_t size = format_.coverage(level);
  VirtAddr next;
  for (VirtAddr address = range.start; address < range.end; address = next) {
    next = std::min(range.end, VirtAddr((address.raw() & ~(size - 1)) + size));
    const uint64_t entry = format_.Load(source, format_.IndexOf(address, level));
    if (level == 2 && format_.Huge(entry)) {
      if (!from.anonymous()) continue;  // A fault brings it back.
      if (!CopyHuge(*to.mm, source, EnsureTable(*to.mm, address, 2), address)) return false;
      continue;
    }
    if (!format_.TablePresent(entry)) continue;
    uint8_t* target = EnsureTable(*to.mm, address, level - 1);
    if (target == nullptr) return false;
    uint8_t* table = TableBytes(format_.TableOf(entry));
    if (level > 2) {
      if (!CopyTables(from, to, table, level - 1, VirtRange{address, next})) return false;
      continue;
    }
    RssDelta delta{};
    CopyTable(from, table, target, address, next, delta);
    AddRss(nullptr, *to.mm, delta);
  }
  return true;
}

void Paging::CopyTable(const VmArea& from, uint8_t* source, uint8_t* target, VirtAddr start, VirtAddr last, RssDelta& delta) {
  const bool copy_on_write = (from.flags & (kVmShared | kVmMayWrite)) == kVmMayWrite;  // is_cow_mapping()
  uint32_t index = format_.IndexOf(start, 1);
  const auto count = static_cast<uint32_t>((last - start).raw() >> layout_.page_size.shift());
  for (const uint32_t stop = index + count; index < stop; ++index) {
    Pte pte = format_.Load(source, index);
    if (format_.None(pte)) continue;
    if (format_.IsSwap(pte)) {
      files_.swap().Duplicate(SwapOf(pte));
      ++delta[static_cast<size_t>(RssKind::kSwap)];
      pte = format_.ClearSwapExclusive(pte);
      format_.Store(source, index, pte);
      format_.Store(target, index, pte);
      continue;
    }
    Pfn pfn;
    if (Frame* frame = NormalPage(pte, &pfn); frame != nullptr) {
      ++HeadOf(pfn, *frame).refcount;
      ++frame->mapcount;
      frame->flags &= ~uint32_t{kPgAnonExclusive};
      ++delta[static_cast<size_t>(KindOf(*frame))];
    }
    if (copy_on_write && format_.Writable(pte)) {
      pte = format_.WrProtect(pte);
      format_.Store(source, index, pte);
    }
    if (from.shared()) pte = format_.MkClean(pte);
    format_.Store(target, index, format_.MkOld(pte));
  }
}

void Paging::ChangeProtection(VmArea& vma, VirtRange range) {
  if (vma.is(kVmHugetlb)) return ProtectHugetlb(vma, range);
  const uint64_t protection = PageProtection(vma);
  const bool try_writable = vma.shared() ? WantsWriteNotify(vma) : vma.is(kVmWrite);
  const auto change = [&](uint8_t* table, VirtAddr start, VirtAddr last) {
    uint32_t index = format_.IndexOf(start, 1);
    const auto count = static_cast<uint32_t>((last - start).raw() >> layout_.page_size.shift());
    for (const uint32_t stop = index + count; index < stop; ++index) {
      const Pte old = format_.Load(table, index);
      if (!format_.Present(old)) continue;
      Pte pte = format_.Modify(old, protection);
      // can_change_pte_writable(): spares the write fault where it would change nothing else.
      if (try_writable && !format_.Writable(pte) && format_.Dirty(pte)) {
        Pfn pfn;
        const Frame* frame = NormalPage(pte, &pfn);
        if (vma.shared() || (frame != nullptr && (frame->flags & kPgAnonExclusive) != 0)) pte = format_.MkWrite(pte);
      }
      format_.Store(table, index, pte);
    }
  };
  ForEachTable(*vma.mm, range, change, [&](uint8_t* table, uint32_t index, VirtAddr start, VirtAddr last) {
    const bool whole = Whole(start, last);
    if (whole) {
      format_.Store(table, index, format_.ModifyHuge(format_.Load(table, index), protection));
    } else {
      SplitHugeEntry(vma, table, start, "part of what the huge page maps gets another protection");
    }
    return whole;
  });
}

Bytes Paging::MoveTables(VmArea& from, VirtAddr old_start, VmArea& to, VirtAddr new_start, Bytes length) {
  AddressSpace& mm = *from.mm;
  MMLAB_CHECK(to.mm == from.mm);
  if (from.is(kVmHugetlb)) return MoveHugetlb(from, old_start, new_start, length);
  uint64_t old_address = old_start.raw();
  uint64_t new_address = new_start.raw();
  const uint64_t old_end = old_address + length.raw();
  // get_extent(): as far as one table of both places goes.
  const auto extent_at = [&](int level) {
    const uint64_t size = format_.coverage(level);
    const uint64_t to_old_edge = size - (old_address & (size - 1));
    const uint64_t to_new_edge = size - (new_address & (size - 1));
    return std::min({to_old_edge, old_end - old_address, to_new_edge});
  };
  const int upper = std::min(3, format_.levels());  // Whose entries cover what the kernel calls a pud; folded into pmd with two levels.
  uint64_t extent = 0;
  for (; old_address < old_end; old_address += extent, new_address += extent) {
    extent = extent_at(upper);
    if (FindTable(mm, VirtAddr(old_address), upper - 1) == nullptr && HugeEntryAt(mm, VirtAddr(old_address)) == 0) continue;
    if (EnsureTable(mm, VirtAddr(new_address), upper) == nullptr) break;
    if (upper == 3 && extent == format_.coverage(3) && MoveTable(mm, VirtAddr(old_address), VirtAddr(new_address), 3)) continue;
    extent = extent_at(2);
    const bool huge = HugeEntryAt(mm, VirtAddr(old_address)) != 0;
    if (!huge && FindTable(mm, VirtAddr(old_address), 1) == nullptr) continue;
    if (EnsureTable(mm, VirtAddr(new_address), 2) == nullptr) break;
    if (extent == format_.coverage(2) && MoveTable(mm, VirtAddr(old_address), VirtAddr(new_address), 2)) continue;
    if (huge)
      SplitHugeEntry(from, FindTable(mm, VirtAddr(old_address), 2), VirtAddr(old_address), "the huge page moves to where none fits");
    if (FindTable(mm, VirtAddr(old_address), 1) == nullptr) continue;  // Of a file nothing is left to move.
    if (EnsureTable(mm, VirtAddr(new_address), 1) == nullptr) break;
    MoveEntries(mm, VirtAddr(old_address), VirtAddr(new_address), extent);
  }
  return Bytes(old_address - old_start.raw());
}

// move_normal_pmd(), move_normal_pud(): a whole table changes its place when nothing is there yet.
bool Paging::MoveTable(AddressSpace& mm, VirtAddr old_start, VirtAddr new_start, int level) {
  uint8_t* source = FindTable(mm, old_start, level);
  uint8_t* target = FindTable(mm, new_start, level);
  MMLAB_CHECK(source != nullptr && target != nullptr);
  const uint32_t target_index = format_.IndexOf(new_start, level);
  if (format_.TablePresent(format_.Load(target, target_index))) return false;
  ForgetTables();
  const uint32_t source_index = format_.IndexOf(old_start, level);
  format_.Store(target, target_index, format_.Load(source, source_index));
  format_.Store(source, source_index, 0);
  return true;
}

void Paging::MoveEntries(AddressSpace& mm, VirtAddr old_start, VirtAddr new_start, uint64_t bytes) {
  uint8_t* source = FindTable(mm, old_start, 1);
  uint8_t* target = FindTable(mm, new_start, 1);
  const uint32_t from = format_.IndexOf(old_start, 1);
  const uint32_t to = format_.IndexOf(new_start, 1);
  const auto count = static_cast<uint32_t>(bytes >> layout_.page_size.shift());
  for (uint32_t i = 0; i < count; ++i) {
    const Pte pte = format_.Load(source, from + i);
    if (format_.None(pte)) continue;
    format_.Store(source, from + i, 0);
    format_.Store(target, to + i, pte);
  }
}

}  // namespace mmlab

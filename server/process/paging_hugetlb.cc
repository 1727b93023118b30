// Huge pages of pools in page tables: finding, unmapping, copying, moving, changing their entries. Linux: mm/hugetlb.c,
// arch/arm64/mm/hugetlbpage.c.
#include <algorithm>

#include "server/base/check.h"
#include "server/files/files.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"
#include "server/process/paging_hugetlb_walk.h"

namespace mmlab {

const HugetlbPool& Paging::HugetlbPoolOf(const VmArea& vma) const { return files_.hugetlb().pool(vma.file->inode->hugetlb->pool); }

Bytes Paging::KernelPageSize(const VmArea& vma) const {
  if (!vma.is(kVmHugetlb)) return layout_.page_size.bytes();
  return layout_.page_size.BytesOf(PageCount(HugetlbPoolOf(vma).pages()));
}

// The level whose entries map pages of that order, alone or several together.
int Paging::HugetlbLevel(int order) const {
  const int shift = order + format_.shift(1);
  if (format_.levels() > 2 && shift >= format_.shift(3)) return 3;
  return shift >= format_.shift(2) ? 2 : 1;
}

uint32_t Paging::HugetlbEntries(int order) const { return 1u << (order + format_.shift(1) - format_.shift(HugetlbLevel(order))); }

// huge_pte_alloc(): makes the tables that are missing. Without table: memory is short.
Paging::HugetlbEntry Paging::EnsureHugetlb(AddressSpace& mm, VirtAddr address, int order) {
  const int level = HugetlbLevel(order);
  HugetlbEntry at{EnsureTable(mm, address, level), format_.IndexOf(address, level), HugetlbEntries(order), level};
  for (uint32_t i = 0; at.table != nullptr && level > 1 && i < at.count; ++i) FreeEmptyTable(mm, at.table, at.index + i, level);
  return at;
}

// A table that somebody left behind, empty, goes from the entry of that level, with those below it.
void Paging::FreeEmptyTable(AddressSpace& mm, uint8_t* table, uint32_t index, int level) {
  const uint64_t entry = format_.Load(table, index);
  if (!format_.TablePresent(entry)) return;
  const Pfn below = format_.TableOf(entry);
  for (uint32_t i = 0; i < format_.entries(level - 1); ++i) {
    if (level > 2) FreeEmptyTable(mm, TableBytes(below), i, level - 1);
    MMLAB_CHECK(format_.None(format_.Load(TableBytes(below), i)));
  }
  format_.Store(table, index, 0);
  FreeTable(mm, level - 1, below);
}

// huge_ptep_get(): what the processor noted in one of several entries counts for the page.
uint64_t Paging::LoadHugetlb(const HugetlbEntry& at) const {
  uint64_t entry = format_.Load(at.table, at.index);
  if (entry == 0) return 0;
  for (uint32_t i = 1; i < at.count; ++i) {
    const uint64_t other = format_.Load(at.table, at.index + i);
    if (format_.Dirty(other)) entry = format_.MkDirty(entry);
    if (format_.Young(other)) entry = format_.MkYoung(entry);
  }
  return entry;
}

// set_huge_pte_at()
void Paging::StoreHugetlb(const HugetlbEntry& at, uint64_t entry) {
  const uint64_t step = format_.coverage(at.level);
  for (uint32_t i = 0; i < at.count; ++i) format_.Store(at.table, at.index + i, entry == 0 ? 0 : entry + i * step);
}

Pfn Paging::HugetlbPfn(const HugetlbEntry& at, uint64_t entry) const {
  return at.level == 1 ? format_.PfnOf(entry) : format_.HugePfn(entry);
}

// arch_make_huge_pte()
uint64_t Paging::MkHugetlb(const HugetlbEntry& at, uint64_t entry) const {
  if (at.level > 1) entry = format_.MkHuge(entry);
  return at.count > 1 ? format_.MkContiguous(entry) : entry;
}

// make_huge_pte()
uint64_t Paging::MakeHugetlb(const HugetlbEntry& at, const VmArea& vma, Pfn head, bool writable) const {
  Pte pte = format_.Make(head, PageProtection(vma));
  pte = writable ? format_.MkWrite(format_.MkDirty(pte)) : format_.WrProtect(pte);
  return MkHugetlb(at, format_.MkYoung(pte));
}

uint64_t Paging::HugetlbIndex(const VmArea& vma, VirtAddr address) const {
  return vma.IndexOf(address, layout_.page_size).raw() >> HugetlbPoolOf(vma).order;
}

// page_remove_rmap() and put_page().
void Paging::UnmapHugetlb(VmArea& vma, const HugetlbEntry& at, uint64_t entry) {
  const HugetlbPool& pool = HugetlbPoolOf(vma);
  const Pfn head = HugetlbPfn(at, entry);
  StoreHugetlb(at, 0);
  vma.mm->hugetlb_pages -= pool.pages();
  DropHugetlbMap(vma, head);
}

void Paging::DropHugetlbMap(const VmArea& vma, Pfn head) {
  Frame& frame = memory_.frame(head);
  MMLAB_CHECK(frame.mapcount > 0);
  --frame.mapcount;
  files_.PutHugetlb(vma.file->inode->hugetlb->pool, head);
}

// __unmap_hugepage_range()
void Paging::ZapHugetlb(VmArea& vma, VirtRange range) {
  ForEachHugetlb(*vma.mm, range, HugetlbPoolOf(vma).order, [&](const HugetlbEntry& at, VirtAddr) {
    const uint64_t entry = LoadHugetlb(at);
    if (entry != 0) UnmapHugetlb(vma, at, entry);
  });
}

// copy_hugetlb_page_range()
bool Paging::CopyHugetlb(const VmArea& from, VmArea& to) {
  const HugetlbPool& pool = HugetlbPoolOf(from);
  const bool copy_on_write = (from.flags & (kVmShared | kVmMayWrite)) == kVmMayWrite;  // is_cow_mapping()
  bool enough = true;
  ForEachHugetlb(*from.mm, from.range(), pool.order, [&](const HugetlbEntry& source, VirtAddr address) {
    const HugetlbEntry target = enough ? EnsureHugetlb(*to.mm, address, pool.order) : HugetlbEntry{};
    enough = target.table != nullptr;
    uint64_t entry = LoadHugetlb(source);
    if (!enough || entry == 0) return;
    Frame& frame = memory_.frame(HugetlbPfn(source, entry));
    ++frame.refcount;
    ++frame.mapcount;
    frame.flags &= ~uint32_t{kPgAnonExclusive};
    if (copy_on_write) {
      entry = format_.WrProtect(entry);
      StoreHugetlb(source, entry);
    }
    StoreHugetlb(target, entry);
    to.mm->hugetlb_pages += pool.pages();
  });
  return enough;
}

// move_hugetlb_page_tables()
Bytes Paging::MoveHugetlb(const VmArea& from, VirtAddr old_start, VirtAddr new_start, Bytes length) {
  const int order = HugetlbPoolOf(from).order;
  Bytes moved = length;
  ForEachHugetlb(*from.mm, VirtRange{old_start, old_start + length}, order, [&](const HugetlbEntry& source, VirtAddr address) {
    const uint64_t entry = LoadHugetlb(source);
    if (entry == 0 || moved < length) return;
    const HugetlbEntry target = EnsureHugetlb(*from.mm, new_start + (address - old_start), order);
    if (target.table == nullptr) {
      moved = address - old_start;
      return;
    }
    StoreHugetlb(source, 0);
    StoreHugetlb(target, entry);
  });
  return moved;
}

// hugetlb_change_protection()
void Paging::ProtectHugetlb(const VmArea& vma, VirtRange range) {
  const uint64_t protection = PageProtection(vma);
  ForEachHugetlb(*vma.mm, range, HugetlbPoolOf(vma).order, [&](const HugetlbEntry& at, VirtAddr) {
    const uint64_t entry = LoadHugetlb(at);
    if (entry != 0) StoreHugetlb(at, MkHugetlb(at, format_.Modify(entry, protection)));
  });
}

}  // namespace mmlab

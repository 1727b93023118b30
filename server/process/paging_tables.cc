// Page tables in simulated frames: making, finding, freeing them. Linux: mm/memory.c (free_pgd_range), arch/x86/mm/pgtable.c.
#include "server/arch/layout.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/hardware/page_walk.h"
#include "server/physical/contents.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/huge_shrinkers.h"
#include "server/process/khugepaged.h"
#include "server/process/ksm.h"
#include "server/process/paging.h"

namespace mmlab {

Paging::Paging(const Layout& layout, PhysicalMemory& memory, Files& files, const AnonVmaTable& anon_vmas, VmStat& vm_stat, Tracer& tracer,
               bool hardware_access_flag)
    : layout_(layout),
      format_(layout),
      memory_(memory),
      files_(files),
      anon_vmas_(anon_vmas),
      vm_stat_(vm_stat),
      tracer_(tracer),
      hardware_access_flag_(hardware_access_flag),
      lru_(memory, vm_stat),
      huge_settings_(huge_pages()),
      khugepaged_(std::make_unique<Khugepaged>(*this, vm_stat)),
      ksm_(std::make_unique<Ksm>(*this, tracer)),
      huge_shrinkers_{std::make_unique<HugeZeroShrinker>(*this), std::make_unique<DeferredSplitShrinker>(*this)} {}

Paging::~Paging() = default;

uint8_t* Paging::TableBytes(Pfn table) const { return memory_.contents().Bytes(table); }

std::optional<Pfn> Paging::AllocTable(AddressSpace& mm, int level) {
  const std::optional<Pfn> pfn = memory_.AllocPages(kGfpKernelAccount | kGfpZero, PageOrder(0));
  if (!pfn.has_value()) return std::nullopt;
  Frame& frame = memory_.frame(*pfn);
  frame.state = FrameState::kPageTable;
  frame.index = static_cast<uint64_t>(CountedLevel(level));
  ++mm.table_pages[static_cast<size_t>(CountedLevel(level))];
  if (CountedLevel(level) <= 2) CountTable(*pfn, 1);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kPageTableAlloc, "a page table was missing and is made").Number("level", level).Frame("table", *pfn);
  }
  return pfn;
}

// inc_lruvec_page_state() and its opposite for a table.
void Paging::CountTable(Pfn table, int64_t delta) {
  if (memory_.charger() == nullptr) [[likely]] {
    vm_stat_.Add(NodeStat::kNrPageTablePages, delta);
  } else {
    memory_.lru().AddKernelStat(memory_.frame(table), NodeStat::kNrPageTablePages, delta);
  }
}

void Paging::FreeTable(AddressSpace& mm, int level, Pfn table) {
  ForgetTables();
  uint64_t& count = mm.table_pages[static_cast<size_t>(CountedLevel(level))];
  MMLAB_CHECK(count > 0);
  --count;
  if (CountedLevel(level) <= 2) CountTable(table, -1);
  memory_.FreePages(table, PageOrder(0));
}

bool Paging::CreateTables(AddressSpace& mm) {
  const int top = format_.levels();
  const std::optional<Pfn> pgd = AllocTable(mm, top);
  if (!pgd.has_value()) return false;
  mm.pgd = *pgd;
  if (layout_.kind != LayoutKind::kX86_32Pae) return true;
  // PAE's processors read the four top entries only when CR3 is loaded, so the user part of them is filled once (preallocate_pmds()).
  const uint32_t user_entries = format_.IndexOf(VirtAddr(layout_.task_size.raw() - 1), top) + 1;
  for (uint32_t i = 0; i < user_entries; ++i) {
    const std::optional<Pfn> pmd = AllocTable(mm, top - 1);
    if (!pmd.has_value()) {
      DestroyTables(mm);
      return false;
    }
    format_.Store(TableBytes(mm.pgd), i, format_.TableEntry(*pmd, top));
  }
  return true;
}

void Paging::DestroyTables(AddressSpace& mm) {
  LeaveHugePages(mm);
  const int top = format_.levels();
  uint8_t* pgd = TableBytes(mm.pgd);
  for (uint32_t i = 0; top > 2 && i < format_.entries(top); ++i) {
    const uint64_t entry = format_.Load(pgd, i);
    if (format_.TablePresent(entry)) FreeTable(mm, top - 1, format_.TableOf(entry));
  }
  FreeTable(mm, top, mm.pgd);
  mm.pgd = Pfn();
  for (const uint64_t pages : mm.table_pages) MMLAB_CHECK(pages == 0);
}

uint8_t* Paging::FindTable(const AddressSpace& mm, VirtAddr address, int level) const {
  uint8_t* table = TableBytes(mm.pgd);
  for (int at = format_.levels(); at > level; --at) {
    const uint64_t entry = format_.Load(table, format_.IndexOf(address, at));
    if (!format_.TablePresent(entry)) return nullptr;
    table = TableBytes(format_.TableOf(entry));
  }
  return table;
}

uint8_t* Paging::FindLowestTable(const AddressSpace& mm, VirtAddr address, LastTable& last) const {
  if (last.table != nullptr && last.pgd == mm.pgd && address.raw() - last.start < format_.coverage(2)) return last.table;
  uint8_t* table = FindTable(mm, address, 1);
  if (table != nullptr) last = {mm.pgd, address.raw() & ~(format_.coverage(2) - 1), table};
  return table;
}

uint8_t* Paging::EnsureTable(AddressSpace& mm, VirtAddr address, int level) {
  uint8_t* table = TableBytes(mm.pgd);
  for (int at = format_.levels(); at > level; --at) {
    const uint32_t index = format_.IndexOf(address, at);
    uint64_t entry = format_.Load(table, index);
    if (!format_.TablePresent(entry)) {
      MMLAB_CHECK(at != 2 || !format_.Huge(entry));
      const std::optional<Pfn> made = AllocTable(mm, at - 1);
      if (!made.has_value()) return nullptr;
      entry = format_.TableEntry(*made, at);
      format_.Store(table, index, entry);
    }
    table = TableBytes(format_.TableOf(entry));
  }
  return table;
}

void Paging::FreeTables(AddressSpace& mm, VirtRange range, VirtAddr floor, VirtAddr ceiling) {
  // Only whole lowest tables: the ends are pulled in where a neighbour still uses the table at the edge.
  const uint64_t size = format_.coverage(2);
  uint64_t start = range.start.raw() & ~(size - 1);
  uint64_t end = range.end.raw();
  uint64_t top = ceiling.raw();
  if (start < floor.raw()) start += size;
  if (top != 0) {
    top &= ~(size - 1);
    if (top == 0) return;
  }
  if (end - 1 > top - 1) end -= size;
  if (start > end - 1 || end == 0) return;
  FreeTableRange(mm, TableBytes(mm.pgd), format_.levels(), start, end, floor.raw(), top);
}

void Paging::FreeTableRange(AddressSpace& mm, uint8_t* table, int level, uint64_t start, uint64_t end, uint64_t floor, uint64_t ceiling) {
  const uint64_t size = format_.coverage(level);
  uint64_t next = 0;
  for (uint64_t address = start; address < end; address = next) {
    next = std::min(end, (address & ~(size - 1)) + size);
    const uint32_t index = format_.IndexOf(VirtAddr(address), level);
    const uint64_t entry = format_.Load(table, index);
    if (!format_.TablePresent(entry)) continue;
    const Pfn child = format_.TableOf(entry);
    if (level > 2) {
      FreeTableRange(mm, TableBytes(child), level - 1, address, next, floor, ceiling);
      const uint64_t covered = address & ~(size - 1);
      const uint64_t top = ceiling & ~(size - 1);
      if (covered < floor || (ceiling != 0 && top == 0) || next - 1 > top - 1) continue;
    }
    format_.Store(table, index, 0);
    FreeTable(mm, level - 1, child);
  }
}

Paging::HardwareAccess Paging::TryAccessIn(uint8_t* table, VirtAddr address, bool write, bool execute) {
  const uint32_t index = format_.IndexOf(address, 1);
  const Pte pte = format_.Load(table, index);
  const PageTableFormat::Checked checked = format_.Check(pte, write, execute, hardware_access_flag_);
  if (checked.verdict != PteVerdict::kAllowed) return {checked.verdict, Pfn(), table};
  if (checked.pte != pte) format_.Store(table, index, checked.pte);
  return {PteVerdict::kAllowed, format_.PfnOf(pte), table};
}

Paging::HardwareAccess Paging::TryAccess(const AddressSpace& mm, VirtAddr address, bool write, bool execute) {
  uint8_t* table = FindLowestTable(mm, address);
  if (table == nullptr) return TryHugeAccess(mm, address, write, execute);
  return TryAccessIn(table, address, write, execute);
}

PageWalk Paging::Walk(const AddressSpace& mm, VirtAddr address) const {
  const FrameContents& contents = memory_.contents();
  return WalkPageTables(
      format_, [&contents](Pfn frame, size_t offset, void* out, size_t size) { contents.Read(frame, offset, out, size); }, mm.pgd, address);
}

std::optional<PhysAddr> Paging::Translate(const AddressSpace& mm, VirtAddr address) const { return Walk(mm, address).physical; }

}  // namespace mmlab

// What is read of huge pages of pools, and what must agree about them. Linux: fs/proc/task_mmu.c, mm/mincore.c.
#include <algorithm>
#include <map>

#include "absl/strings/str_format.h"
#include "server/files/files.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"
#include "server/process/paging_hugetlb_walk.h"

namespace mmlab {

void Paging::AddHugetlbToSmaps(const VmArea& vma, SmapsSums& sums) const {
  const uint64_t size = KernelPageSize(vma).raw();
  ForEachHugetlb(*vma.mm, vma.range(), HugetlbPoolOf(vma).order, [&](const HugetlbEntry& at, VirtAddr) {
    const uint64_t entry = LoadHugetlb(at);
    if (entry != 0) (memory_.frame(HugetlbPfn(at, entry)).mapcount >= 2 ? sums.shared_hugetlb : sums.private_hugetlb) += size;
  });
}

// gather_hugetlb_stats(): huge pages, not small ones.
VmaPages Paging::CountHugetlbPages(const VmArea& vma) const {
  VmaPages counted;
  ForEachHugetlb(*vma.mm, vma.range(), HugetlbPoolOf(vma).order, [&](const HugetlbEntry& at, VirtAddr) {
    const uint64_t entry = LoadHugetlb(at);
    if (entry == 0) return;
    const Frame& frame = memory_.frame(HugetlbPfn(at, entry));
    ++counted.pages;
    counted.anon += (frame.flags & kPgHugetlbAnon) != 0 ? 1 : 0;
    counted.dirty += format_.Dirty(entry) || (frame.flags & kPgDirty) != 0 ? 1 : 0;
    counted.mapcount_max = std::max(counted.mapcount_max, static_cast<uint64_t>(frame.mapcount));
  });
  return counted;
}

// mincore_hugetlb(), __mincore_unmapped_range(): where no table is, the page cache is asked for as many pages as there are small ones, by
// the numbers of huge ones.
void Paging::MincoreHugetlb(const VmArea& vma, VirtRange range, std::string& out) const {
  const HugetlbPool& pool = HugetlbPoolOf(vma);
  const auto& cached = vma.file->inode->hugetlb->pages;
  const uint64_t size = KernelPageSize(vma).raw();
  const uint64_t page = layout_.page_size.bytes().raw();
  for (uint64_t address = range.start.raw(); address < range.end.raw();) {
    const uint64_t end = std::min(range.end.raw(), (address & ~(size - 1)) + size);
    const uint8_t* table = FindTable(*vma.mm, VirtAddr(address), HugetlbLevel(pool.order));
    const bool mapped = table != nullptr && format_.Load(table, format_.IndexOf(VirtAddr(address), HugetlbLevel(pool.order))) != 0;
    for (uint64_t index = HugetlbIndex(vma, VirtAddr(address)); address < end; address += page, ++index) {
      out.push_back(mapped || (table == nullptr && cached.contains(index)) ? '\1' : '\0');
    }
  }
}

// `spaces`: all that exist.
void Paging::CheckHugetlb(const std::vector<const AddressSpace*>& spaces, std::vector<std::string>* violations) const {
  const HugetlbPools& pools = files_.hugetlb();
  std::vector<uint64_t> promised(pools.pools().size());
  std::map<Pfn, std::pair<size_t, int>> mapped;  // The pool of each used page, and how many entries map it.
  for (const auto& [id, inode] : files_.all()) {
    if (inode->hugetlb == nullptr) continue;
    const HugetlbInode& huge = *inode->hugetlb;
    promised[huge.pool] += huge.reserved.Count(0, ~uint64_t{0}) - huge.pages.size();
    for (const auto& [index, head] : huge.pages) mapped[head] = {huge.pool, 0};
  }
  const std::map<Pfn, std::pair<size_t, int>> cached = mapped;
  for (const AddressSpace* mm : spaces) {
    uint64_t pages = 0;
    for (const VmArea* vma = mm->vmas.First(); vma != nullptr; vma = mm->vmas.Next(*vma)) {
      if (!vma->is(kVmHugetlb)) continue;
      const size_t pool = vma->file->inode->hugetlb->pool;
      const int order = pools.pool(pool).order;
      if (const ReserveMap* taken = vma->hugetlb_reserve.get()) {
        const uint64_t first = HugetlbIndex(*vma, vma->start);
        const uint64_t end = first + (layout_.page_size.WholePagesIn(vma->length()).raw() >> order);
        promised[pool] += end - first - taken->Count(first, end);
      }
      ForEachHugetlb(*mm, vma->range(), order, [&](const HugetlbEntry& at, VirtAddr) {
        const uint64_t entry = LoadHugetlb(at);
        if (entry == 0) return;
        auto& [of, maps] = mapped[HugetlbPfn(at, entry)];
        of = pool;
        ++maps;
        pages += pools.pool(pool).pages();
      });
    }
    if (pages != mm->hugetlb_pages) {
      violations->push_back(absl::StrFormat("%d pages of pools are counted as mapped, %d are", mm->hugetlb_pages, pages));
    }
  }
  std::vector<uint64_t> used(pools.pools().size());
  for (const auto& [head, use] : mapped) {
    ++used[use.first];
    const Frame& frame = memory_.frame(head);
    if (frame.state != FrameState::kHugetlb || frame.mapcount != use.second ||
        frame.refcount != use.second + (cached.contains(head) ? 1 : 0)) {
      violations->push_back(absl::StrFormat("huge page 0x%x of a pool: mapcount %d and %d references, %d entries map it", head.raw(),
                                            frame.mapcount, frame.refcount, use.second));
    }
  }
  pools.CheckInvariants(used, promised, violations);
}

}  // namespace mmlab

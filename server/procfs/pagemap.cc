#include "server/procfs/pagemap.h"

#include <algorithm>

#include "server/hardware/page_walk.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/process/address_space.h"
#include "server/process/process.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

// What one look into the tables tells: the entry of a page, and how far the same look reaches when there is nothing.
struct Look {
  uint64_t entry = 0;
  uint64_t bytes = 0;
};

uint64_t Present(const Machine& machine, Pfn pfn, bool counted) {
  uint64_t entry = kPagemapPresent | pfn.raw();
  if (!counted) return entry;
  const BuddyMemory& memory = machine.memory();
  // Pages of pools count their maps on the first frame, whichever part is looked at.
  if (const Frame head = memory.PeekFrame(memory.HeadOf(pfn)); head.state == FrameState::kHugetlb) {
    return entry | ((head.flags & kPgHugetlbAnon) == 0 ? kPagemapFile : 0) | (head.mapcount == 1 ? kPagemapExclusive : 0);
  }
  if (memory.PeekFrame(memory.HeadOf(pfn)).state != FrameState::kAnon) entry |= kPagemapFile;
  if (machine.processes().MapCount(pfn) == 1) entry |= kPagemapExclusive;
  return entry;
}

Look LookAt(const Machine& machine, const PageTableFormat& format, const Process& process, VirtAddr address) {
  const PageWalk walk = machine.processes().Walk(process, address);
  const WalkStep& last = walk.steps[static_cast<size_t>(walk.count - 1)];
  const uint64_t covered = format.coverage(last.level);
  const uint64_t offset = address.raw() & (covered - 1);
  if (format.None(last.entry) || (last.level > 2 && !format.IsBlock(last.entry, last.level))) return {0, covered - offset};
  if (format.IsSwap(last.entry)) {
    return {kPagemapSwap | format.SwapArea(last.entry) | uint64_t{format.SwapSlot(last.entry)} << kPagemapSlotShift, covered - offset};
  }
  // vm_normal_page(): pages that the kernel does not count, such as the zero page, are there, but nothing is said of them.
  const bool counted = !format.Special(last.entry);
  const Pfn pfn = last.level == 1 ? format.PfnOf(last.entry) : format.HugePfn(last.entry) + PageCount(offset >> 12);
  return {Present(machine, pfn, counted), machine.layout().page_size.bytes().raw()};
}

}  // namespace

std::vector<PagemapPage> PagemapPages(const Machine& machine, const Process& process, VirtAddr start, VirtAddr end, size_t most) {
  std::vector<PagemapPage> pages;
  const PageTableFormat format(machine.layout());
  const VmaTree& vmas = process.mm->vmas;
  for (const VmArea* vma = vmas.Find(start); vma != nullptr && vma->start < end; vma = vmas.Next(*vma)) {
    const VirtAddr stop = std::min(vma->end, end);
    for (VirtAddr at = std::max(vma->start, start); at < stop;) {
      const Look look = LookAt(machine, format, process, at);
      if (look.entry != 0) {
        if (pages.size() == most) return pages;
        pages.push_back({at, look.entry});
      }
      if ((stop - at).raw() <= look.bytes) break;
      at = at + Bytes(look.bytes);
    }
  }
  return pages;
}

std::string ReadPagemap(const Machine& machine, const Process& process, uint64_t offset, uint64_t length) {
  if (process.mm == nullptr) return "";
  const PageSize page_size = machine.layout().page_size;
  const uint64_t pages = process.mm->task_size.raw() >> page_size.shift();
  const uint64_t first = offset / 8;
  if (first >= pages) return "";
  const uint64_t count = std::min(pages - first, length / 8);
  const VirtAddr start(first << page_size.shift());
  const VirtAddr end(start + page_size.BytesOf(PageCount(count)));
  std::string bytes(count * 8, '\0');
  for (const PagemapPage& page : PagemapPages(machine, process, start, end, count)) {
    char* out = &bytes[((page.address - start).raw() >> page_size.shift()) * 8];
    for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(page.entry >> (8 * i));
  }
  return bytes;
}

}  // namespace mmlab

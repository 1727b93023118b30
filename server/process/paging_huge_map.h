#ifndef MMLAB_SERVER_PROCESS_PAGING_HUGE_MAP_H_
#define MMLAB_SERVER_PROCESS_PAGING_HUGE_MAP_H_

#include <algorithm>

#include "server/files/files.h"
#include "server/process/address_space.h"
#include "server/process/anon_vma.h"
#include "server/process/paging.h"

namespace mmlab {

// Private to paging*.cc: calls visit(vma) for each VMA that may map the page, whose first frame is given.
template <typename Visit>
void Paging::ForEachVmaOf(const Frame& head, Visit visit) const {
  const auto number = static_cast<uint32_t>(head.mapping);
  if (head.state == FrameState::kShmem) {
    const Inode* inode = files_.FindById(number);
    if (inode == nullptr) return;
    for (const auto& [link, vma] : inode->mappings) visit(*vma);
    return;
  }
  const AnonVma* anon_vma = anon_vmas_.Find(number);
  if (anon_vma == nullptr) return;
  for (const auto& [key, vma] : anon_vma->vmas) visit(*vma);
}

// Calls visit(vma, table of level 2, address) for each huge entry that maps the page.
template <typename Visit>
void Paging::ForEachHugeMapping(Pfn head, const Frame& frame, Visit visit) const {
  const PageSize page_size = layout_.page_size;
  const PageIndex index(frame.index);
  ForEachVmaOf(frame, [&](VmArea& vma) {
    if (index < vma.pgoff || index + PageCount(huge_pages()) > vma.pgoff + page_size.WholePagesIn(vma.length())) return;
    const VirtAddr address = vma.start + page_size.BytesOf(index - vma.pgoff);
    uint8_t* table = FindTable(*vma.mm, address, 2);
    if (table == nullptr) return;
    const uint64_t entry = format_.Load(table, format_.IndexOf(address, 2));
    if (format_.Huge(entry) && format_.HugePfn(entry) == head) visit(vma, table, address);
  });
}

// Calls visit(vma, lowest table, index, pfn) for each small entry that maps a part of the huge page.
template <typename Visit>
void Paging::ForEachSubpageMapping(Pfn head, const Frame& frame, Visit visit) const {
  const PageSize page_size = layout_.page_size;
  const PageIndex first(frame.index);
  ForEachVmaOf(frame, [&](VmArea& vma) {
    const PageIndex end = std::min(first + PageCount(huge_pages()), vma.pgoff + page_size.WholePagesIn(vma.length()));
    for (PageIndex index = std::max(first, vma.pgoff); index < end; ++index) {
      const VirtAddr address = vma.start + page_size.BytesOf(index - vma.pgoff);
      uint8_t* table = FindTable(*vma.mm, address, 1);
      if (table == nullptr) continue;
      const uint32_t at = format_.IndexOf(address, 1);
      Pfn pfn;
      if (NormalPage(format_.Load(table, at), &pfn) != nullptr && pfn == head + (index - first)) visit(vma, table, at, pfn);
    }
  });
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PAGING_HUGE_MAP_H_

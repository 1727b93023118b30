#ifndef MMLAB_SERVER_PROCESS_PAGING_RMAP_WALK_H_
#define MMLAB_SERVER_PROCESS_PAGING_RMAP_WALK_H_

#include "server/files/files.h"
#include "server/process/address_space.h"
#include "server/process/anon_vma.h"
#include "server/process/paging.h"

namespace mmlab {

// Private to paging*.cc: visits the entries that map a page (rmap_walk()).
template <typename Visit>
void Paging::ForEachMapping(Pfn pfn, const Frame& frame, Visit visit) const {
  const PageSize page_size = layout_.page_size;
  const PageIndex index(frame.index);
  int left = frame.mapcount;
  const auto look = [&](VmArea& vma) {
    if (index < vma.pgoff || index >= vma.pgoff + page_size.WholePagesIn(vma.length())) return;
    const VirtAddr address = vma.start + page_size.BytesOf(index - vma.pgoff);
    uint8_t* table = FindLowestTable(*vma.mm, address, last_mapping_);
    if (table == nullptr) return;
    const uint32_t at = format_.IndexOf(address, 1);
    const Pte pte = format_.Load(table, at);
    if (format_.None(pte) || !format_.Present(pte) || format_.Special(pte) || format_.PfnOf(pte) != pfn) return;
    --left;
    visit(vma, table, at);
  };
  if (frame.state == FrameState::kAnon) {
    const AnonVma* anon_vma = anon_vmas_.Find(static_cast<uint32_t>(frame.mapping));
    if (anon_vma == nullptr) return;
    for (const auto& [link, vma] : anon_vma->vmas) {
      look(*vma);
      if (left == 0) return;
    }
    return;
  }
  const Inode* inode = files_.FindById(static_cast<uint32_t>(frame.mapping));
  if (inode == nullptr) return;
  for (const auto& [link, vma] : inode->mappings) {
    look(*vma);
    if (left == 0) return;
  }
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PAGING_RMAP_WALK_H_

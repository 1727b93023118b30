// What page tables tell MGLRU: which pages were used. Linux: mm/vmscan.c (walk_mm, lru_gen_look_around).
#include <algorithm>

#include "server/files/files.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"
#include "server/process/paging_walk.h"
#include "server/process/process.h"
#include "server/process/processes.h"

namespace mmlab {

void Paging::SetInFault(bool in_fault) {
  memory_.lru().SetInFault(in_fault);
  lru_.SetHot(in_fault);
}

bool Paging::TakeYoung(uint8_t* table, uint32_t index, uint16_t memcg, bool can_swap, Pfn* head) {
  const Pte pte = format_.Load(table, index);
  if (format_.None(pte) || !format_.Present(pte) || !format_.Young(pte)) return false;
  Pfn pfn;
  Frame* page = NormalPage(pte, &pfn);
  if (page == nullptr) return false;
  Frame& frame = HeadOf(pfn, *page);
  if (frame.memcg != memcg || (!can_swap && (frame.flags & kPgSwapBacked) != 0)) return false;
  format_.Store(table, index, format_.MkOld(pte));
  if (format_.Dirty(pte) && frame.state != FrameState::kAnon) {
    if (Inode* inode = files_.FindById(static_cast<uint32_t>(frame.mapping)); inode != nullptr) files_.MarkDirty(*inode, pfn);
  }
  *head = IsCompound(frame) ? HugeHead(pfn) : pfn;
  return true;
}

void Paging::PromoteUsedIn(const VmArea& vma, uint16_t memcg, bool can_swap) {
  LruLists& lru = memory_.lru();
  const auto take = [&](uint8_t* table, uint32_t index) {
    Pfn head;
    if (TakeYoung(table, index, memcg, can_swap, &head)) lru.Promote(head);
  };
  ForEachTable(
      *vma.mm, VirtRange{vma.start, vma.end},
      [&](uint8_t* table, VirtAddr start, VirtAddr last) {
        const uint32_t first = format_.IndexOf(start, 1);
        const auto count = static_cast<uint32_t>((last - start).raw() >> layout_.page_size.shift());
        for (uint32_t index = first; index < first + count; ++index) take(table, index);
      },
      [&](uint8_t* table, uint32_t index, VirtAddr, VirtAddr) {
        if (!IsHugeZero(format_.Load(table, index))) take(table, index);
        return true;
      });
}

void Paging::PromoteUsed(AddressSpace& mm, uint16_t memcg, bool can_swap) {
  if (!hardware_access_flag_) return;  // Each mark that is cleared would cost a fault.
  // should_skip_vma(): ages mean nothing where pages stay, or are read once.
  constexpr uint64_t kSkipped = kVmLocked | kVmSpecial | kVmSeqRead | kVmRandRead;
  for (VmArea* vma = mm.vmas.First(); vma != nullptr; vma = mm.vmas.Next(*vma)) {
    const bool swaps = vma->anonymous() || (vma->file != nullptr && !vma->file->inode->on_disk());
    if ((vma->flags & kSkipped) == 0 && (can_swap || !swaps)) PromoteUsedIn(*vma, memcg, can_swap);
  }
}

// Pages that are used together lie together: the neighbours in the same table are looked at in the same breath.
void Paging::LookAround(const VmArea& vma, uint8_t* table, uint32_t index, const Frame& frame) {
  if ((vma.flags & kVmSpecial) != 0) return;
  LruLists& lru = memory_.lru();
  const auto window = static_cast<uint32_t>(lru.batch());
  const PageSize page_size = layout_.page_size;
  const VirtAddr address = vma.start + page_size.BytesOf(PageIndex(frame.index) - vma.pgoff);
  // The part of the table that the VMA has.
  const uint64_t before = std::min<uint64_t>(index, (address - vma.start).raw() >> page_size.shift());
  const uint64_t after = std::min<uint64_t>(format_.entries(1) - index, (vma.end - address).raw() >> page_size.shift());
  auto start = static_cast<uint32_t>(index - before);
  auto end = static_cast<uint32_t>(index + after);
  if (end - start > window) {
    if (index - start < window / 2) {
      end = start + window;
    } else if (end - index < window / 2) {
      start = end - window;
    } else {
      start = index - window / 2;
      end = start + window;
    }
  }
  for (uint32_t at = start; at < end; ++at) {
    Pfn head;
    if (at != index && TakeYoung(table, at, frame.memcg, true, &head)) lru.Promote(head);
  }
}

void Processes::PromoteUsed(absl::FunctionRef<bool(uint32_t)> in_cgroup, uint16_t memcg, bool can_swap) {
  const AddressSpace* last = nullptr;
  for (const auto& [pid, process] : processes_) {
    if (process->mm == nullptr || process->mm.get() == last || !in_cgroup(process->cgroup)) continue;
    last = process->mm.get();
    paging_->PromoteUsed(*process->mm, memcg, can_swap);
  }
}

}  // namespace mmlab

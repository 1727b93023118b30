// Pages on their way to swap areas and back: swap-in with readahead, shmem. Linux: mm/swap_state.c, mm/shmem.c (shmem_writepage,
// shmem_swapin_folio, shmem_unuse).
#include <algorithm>

#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/lru_lists.h"
#include "server/physical/memory_controller.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

Errno Files::Swapon(const std::string& path, std::optional<int> priority, uint64_t most_slots) {
  const std::shared_ptr<Inode> inode = Find(path);
  if (inode == nullptr) return Errno::kENOENT;
  if (inode->swap_area) return Errno::kEBUSY;
  if (!inode->on_disk()) return Errno::kEINVAL;
  const bool file = inode->kind == FileKind::kExt4;
  const Errno error = swap_.Add(path, file, page_size_.WholePagesIn(Bytes(inode->size)).raw(), most_slots, priority);
  if (error == Errno::kOk) inode->swap_area = true;
  return error;
}

std::optional<Pfn> Files::ReadSwap(SwapEntry entry, bool* read) {
  *read = false;
  if (const std::optional<Pfn> cached = swap_.CachedPage(entry); cached.has_value()) {
    ++memory_.frame(*cached).refcount;
    return cached;
  }
  if (swap_.CountOf(entry) == 0) return std::nullopt;
  const std::optional<Pfn> pfn = memory_.AllocPages(kGfpHighuserMovable, PageOrder(0));
  if (!pfn.has_value()) return std::nullopt;
  if (MemoryController* charger = memory_.charger();
      charger != nullptr && !charger->ChargeAgain(*pfn, PageOrder(0), swap_.MemcgOf(entry), kGfpKernel)) [[unlikely]] {
    memory_.FreePages(*pfn, PageOrder(0));
    return std::nullopt;
  }
  // To get the memory, somebody may have been killed who alone wanted the slot.
  if (swap_.CountOf(entry) == 0 || swap_.CachedPage(entry).has_value()) {
    memory_.FreePages(*pfn, PageOrder(0));
    return ReadSwap(entry, read);
  }
  Frame& frame = memory_.frame(*pfn);
  frame.state = FrameState::kAnon;
  frame.flags |= kPgUptodate | kPgSwapBacked;
  swap_.AddToCache(*pfn, entry);
  if (const uint64_t shadow = swap_.TakeShadow(entry); shadow != 0) memory_.lru().NoteRefault(*pfn, shadow, true);
  if (mapper_ != nullptr) mapper_->AddToLru(*pfn);
  swap_.Read(entry, *pfn);
  memory_.WaitForRead(*pfn);
  *read = true;
  return pfn;
}

std::optional<SwappedPage> Files::SwapIn(SwapEntry entry) {
  Explanation* why = tracer_.explanation();
  if (const std::optional<Pfn> cached = swap_.CachedPage(entry); cached.has_value()) {
    Frame& frame = memory_.frame(*cached);
    ++frame.refcount;
    const bool ahead = (frame.flags & kPgReclaim) != 0 && (frame.flags & kPgWriteback) == 0;  // PG_readahead is the same bit.
    if (ahead) {
      frame.flags &= ~uint32_t{kPgReclaim};
      vm_stat_.Count(VmEvent::kSwapRaHit);
      swap_.NoteReadaheadHit();
    }
    if (why != nullptr) {
      why->Add(StepKind::kSwapIn, ahead ? "the swap cache has the page: it was read with a neighbour" : "the swap cache has the page still")
          .Number("area", entry.area)
          .Number("slot", entry.offset)
          .Frame("pfn", *cached)
          .Number("users", swap_.CountOf(entry));
    }
    return SwappedPage{*cached, false};
  }
  const uint32_t window = swap_.ReadaheadWindow(entry, page_cluster_);
  if (why != nullptr) {
    why->Add(StepKind::kSwapIn, "the page is read from its slot, with the slots around it")
        .Number("area", entry.area)
        .Number("slot", entry.offset)
        .Pages("window", static_cast<int64_t>(window))
        .Number("users", swap_.CountOf(entry));
  }
  bool read = false;
  if (window > 1) {
    const uint32_t first = std::max<uint32_t>(entry.offset & ~(window - 1), 1);
    const uint32_t last = std::min(entry.offset | (window - 1), swap_.pages_of(entry.area) - 1);
    for (uint32_t offset = first; offset <= last; ++offset) {
      const std::optional<Pfn> pfn = ReadSwap({entry.area, offset}, &read);
      if (!pfn.has_value()) continue;
      if (read && offset != entry.offset) {
        memory_.frame(*pfn).flags |= kPgReclaim;
        vm_stat_.Count(VmEvent::kSwapRa);
      }
      PutPage(*pfn);
    }
    DrainLru();
  }
  const std::optional<Pfn> pfn = ReadSwap(entry, &read);
  if (!pfn.has_value()) return std::nullopt;
  return SwappedPage{*pfn, true};
}

bool Files::MoveToSwap(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  MMLAB_CHECK(frame.state == FrameState::kShmem && frame.mapcount == 0);
  if (!swap_.any()) return false;
  const std::optional<SwapEntry> entry = swap_.Allocate(frame.memcg);
  if (!entry.has_value()) return false;
  Inode* inode = FindById(static_cast<uint32_t>(frame.mapping));
  MMLAB_CHECK(inode != nullptr);
  const PageIndex index(frame.index);
  swap_.AddToCache(pfn, *entry);
  swap_.Duplicate(*entry);
  inode->pages.MoveToSwap(index, *entry);
  frame.mapping = 0;
  frame.index = 0;
  --cached_pages_;
  --shmem_pages_;
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrFilePages, -1);
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrShmem, -1);
  --frame.refcount;  // The file's; the swap cache has its own.
  return true;
}

SysResult<CachedPage> Files::SwapInShmem(Inode& inode, PageIndex index, SwapEntry entry) {
  const std::optional<SwappedPage> found = SwapIn(entry);
  if (!found.has_value()) return Errno::kENOMEM;
  const Pfn pfn = found->pfn;
  Frame& frame = memory_.frame(pfn);
  swap_.Free(entry);
  const bool left = swap_.TryToFree(pfn);
  MMLAB_CHECK(left);
  // Our reference becomes that of the page cache.
  frame.state = FrameState::kShmem;
  InsertPage(inode, index, pfn);
  return CachedPage{pfn, found->major};
}

Errno Files::UnuseShmem(uint32_t area) {
  std::vector<uint32_t> ids;
  for (const auto& [id, inode] : by_id_) {
    if (inode->pages.swapped() > 0) ids.push_back(id);
  }
  for (const uint32_t id : ids) {
    PageIndex at;
    while (true) {
      // The file may be gone since: memory for its pages can cost processes their lives.
      Inode* inode = FindById(id);
      if (inode == nullptr) break;
      const auto swapped = inode->pages.Swapped(at);
      if (swapped.empty()) break;
      const auto [index, entry] = *swapped.begin();
      at = index + PageCount(1);
      if (entry.area != area) continue;
      const std::optional<SwappedPage> found = SwapIn(entry);
      if (!found.has_value()) return Errno::kENOMEM;
      if (inode = FindById(id); inode != nullptr && inode->pages.FindSwapped(index) == entry)
        MMLAB_TRY(SwapInShmem(*inode, index, entry).error());
      PutPage(found->pfn);
    }
  }
  return Errno::kOk;
}

void Files::CountSwap(SwapCounts& counts) const {
  for (const auto& [id, inode] : by_id_) {
    for (const auto& [index, entry] : inode->pages.Swapped()) ++counts[{entry.area, entry.offset}];
  }
}

}  // namespace mmlab

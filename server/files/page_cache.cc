#include <algorithm>
#include <tuple>

#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

PageIndex Files::EndIndex(const Inode& inode) const { return PageIndex() + page_size_.PagesHolding(Bytes(inode.size)); }

std::optional<Pfn> Files::FindPage(const Inode& inode, PageIndex index) const { return inode.pages.Find(index); }

bool Files::TakeBlocks(Inode& inode, uint64_t pages) {
  const bool tmpfs = inode.kind == FileKind::kTmpfs;
  if (tmpfs && tmpfs_limit_ != 0 && tmpfs_pages_ + pages > tmpfs_limit_) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kFileLookup, "the tmpfs is full: it holds half of the machine's memory").Pages("limit", PageCount(tmpfs_limit_));
    }
    return false;
  }
  if (inode.noreserve && !Charge(static_cast<int64_t>(pages))) return false;
  tmpfs_pages_ += tmpfs ? pages : 0;
  return true;
}

void Files::GiveBlocks(Inode& inode, uint64_t pages) {
  if (inode.noreserve) Uncharge(static_cast<int64_t>(pages));
  tmpfs_pages_ -= inode.kind == FileKind::kTmpfs ? pages : 0;
}

SysResult<Pfn> Files::AddPage(Inode& inode, PageIndex index) {
  constexpr uint64_t kMostIndex = (uint64_t{1} << 40) - 1;  // Of Frame::index: 4 PiB, where Linux has room for 2^63 bytes of tmpfs.
  const bool shmem = inode.shmem();
  if (index.raw() > kMostIndex || (shmem && !TakeBlocks(inode, 1))) return Errno::kENOSPC;
  const std::optional<Pfn> pfn = memory_.AllocCharged(kGfpHighuserMovable);
  if (!pfn.has_value()) {
    if (shmem) GiveBlocks(inode, 1);
    return Errno::kENOMEM;
  }
  Frame& frame = memory_.frame(*pfn);
  frame.state = shmem ? FrameState::kShmem : FrameState::kFile;
  frame.flags |= shmem ? kPgUptodate | kPgSwapBacked : uint32_t{kPgUptodate};
  const uint64_t shadow = InsertPage(inode, index, *pfn);
  if (shadow != 0) memory_.lru().NoteRefault(*pfn, shadow, swap_.available());
  if (mapper_ != nullptr) mapper_->AddToLru(*pfn);
  return *pfn;
}

void Files::TellPage(EventKind kind, const Inode& inode, PageIndex index, Pfn pfn) const {
  EventSink* events = tracer_.events();
  if (events == nullptr) return;
  const uint64_t offset = page_size_.BytesOf(PageCount(index.raw())).raw();
  events->Emit(kind, {inode.device_major, inode.device_minor, inode.number, pfn.raw(), offset, 0});
}

uint64_t Files::InsertPage(Inode& inode, PageIndex index, Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  frame.mapping = inode.id;
  frame.index = index.raw();
  const uint64_t shadow = inode.pages.Insert(index, pfn);
  if (!inode.shmem()) TellPage(EventKind::kMmFilemapAddToPageCache, inode, index, pfn);
  ++cached_pages_;
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrFilePages, 1);
  if (inode.kind == FileKind::kBlockDevice) ++buffer_pages_;
  if (!inode.shmem()) return shadow;
  ++shmem_pages_;
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrShmem, 1);
  return shadow;
}

void Files::PutPage(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  MMLAB_CHECK(frame.refcount > 0);
  if (--frame.refcount > 0) return;
  MMLAB_CHECK(frame.mapcount == 0);
  if ((frame.flags & kPgMlocked) != 0 && mapper_ != nullptr) mapper_->ForgetMlocked(frame);
  memory_.FreePages(pfn, PageOrder(0));
}

void Files::RemovePage(Inode& inode, PageIndex index, Pfn pfn, uint64_t shadow) {
  Frame& frame = memory_.frame(pfn);
  MMLAB_CHECK(frame.state == FrameState::kFile || frame.state == FrameState::kShmem);
  if (frame.state == FrameState::kShmem) {
    --shmem_pages_;
    memory_.CountPage(vm_stat_, frame, NodeStat::kNrShmem, -1);
    GiveBlocks(inode, 1);
  } else if ((frame.flags & kPgDirty) != 0) {
    NoteClean(inode, frame);
  }
  MMLAB_CHECK((frame.flags & kPgWriteback) == 0);
  --cached_pages_;
  if (inode.kind == FileKind::kBlockDevice) --buffer_pages_;
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrFilePages, -1);
  frame.flags &= ~uint32_t{kPgDirty};
  TellPage(EventKind::kMmFilemapDeleteFromPageCache, inode, index, pfn);
  if (shadow != 0) {
    inode.pages.Evict(index, shadow);
  } else {
    inode.pages.Erase(index);
  }
  PutPage(pfn);
}

void Files::ReplacePage(Pfn from, Pfn to) {
  const Frame& frame = memory_.frame(from);
  Inode* inode = FindById(static_cast<uint32_t>(frame.mapping));
  MMLAB_CHECK(inode != nullptr);
  MMLAB_CHECK(inode->pages.Find(PageIndex(frame.index)) == from);
  inode->pages.Replace(PageIndex(frame.index), to);
}

void Files::RemovePages(Inode& inode, PageIndex first, PageIndex end) {
  WaitForFile(inode);
  inode.pages.EraseShadows(first, end);
  for (const auto& [index, entry] : inode.pages.Swapped(first, end)) {
    swap_.FreeWithCache(entry);
    inode.pages.Erase(index);
    GiveBlocks(inode, 1);
  }
  std::tie(first, end) = SplitAtEnds(inode, first, end);
  // Releasing a batch of pages empties the per-CPU LRU batches first.
  if (mapper_ != nullptr && !inode.pages.Pages(first, end).empty()) mapper_->DrainLru();
  for (const auto& [index, pfn] : inode.pages.Pages(first, end)) {
    if (IsCompound(memory_.frame(pfn))) [[unlikely]] {
      RemoveHugePage(inode, pfn);
    } else {
      RemovePage(inode, index, pfn);
    }
  }
}

SysResult<CachedPage> Files::PageForFault(Inode& inode, PageIndex index, HugeAdvice advice) {
  if (index >= EndIndex(inode)) return Errno::kEINVAL;
  return PageForWrite(inode, index, advice);
}

SysResult<CachedPage> Files::PageForWrite(Inode& inode, PageIndex index, HugeAdvice advice, bool overwritten) {
  Explanation* why = tracer_.explanation();
  if (const std::optional<Pfn> found = FindPage(inode, index); found.has_value()) {
    if (why != nullptr) {
      why->Add(StepKind::kFileLookup, "the page is in the page cache")
          .Text("file", inode.path)
          .Number("index", index.raw())
          .Frame("pfn", *found);
    }
    return CachedPage{*found, false};
  }
  if (const auto swapped = inode.pages.FindSwapped(index); swapped.has_value()) return SwapInShmem(inode, index, *swapped);
  if (WantsHuge(inode, index, advice) && mapper_ != nullptr) [[unlikely]] {
    const uint64_t part = index.raw() & (huge_pages() - 1);
    if (const std::optional<Pfn> head = AddHugePage(inode, index - PageCount(part), advice))
      return CachedPage{*head + PageCount(part), false};
  }
  MMLAB_TRY_ASSIGN(const Pfn pfn, AddPage(inode, index));
  const uint64_t offset = index.raw() << page_size_.shift();
  const bool read = inode.on_disk() && !overwritten;
  if (read) {
    const uint64_t kib = page_size_.bytes().raw() >> 10;
    vm_stat_.Count(VmEvent::kPgpgin, kib);
    DiskStats& disk = DiskOf(inode);
    reads_on_ ? disk.Merge(disk.reads, kib) : disk.Read(kib);
  }
  if (inode.on_disk() && offset < inode.disk.size()) {
    const size_t count = std::min<size_t>(inode.disk.size() - offset, page_size_.bytes().raw());
    memory_.contents().Write(pfn, 0, inode.disk.data() + offset, count);
  }
  if (why != nullptr) {
    why->Add(StepKind::kFileLookup, read          ? "the page is not in the page cache and is read"
                                    : overwritten ? "the page is not in the page cache; nothing of it is left to be read"
                                                  : "the page is a hole; a zeroed one fills it")
        .Text("file", inode.path)
        .Number("index", index.raw())
        .Frame("pfn", pfn);
  }
  return CachedPage{pfn, read};
}

SysResult<std::optional<CachedPage>> Files::PageForRead(Inode& inode, PageIndex index) {
  if (const std::optional<Pfn> found = FindPage(inode, index); found.has_value())
    return std::optional<CachedPage>(CachedPage{*found, false});
  if (inode.shmem() && !inode.pages.FindSwapped(index).has_value()) return std::optional<CachedPage>();
  MMLAB_TRY_ASSIGN(const CachedPage page, PageForWrite(inode, index));
  return std::optional<CachedPage>(page);
}

void Files::DropCleanPage(Pfn pfn, uint64_t shadow) {
  const Frame& frame = memory_.frame(pfn);
  MMLAB_CHECK(frame.state == FrameState::kFile && frame.mapcount == 0 && (frame.flags & (kPgDirty | kPgWriteback)) == 0);
  Inode* inode = FindById(static_cast<uint32_t>(frame.mapping));
  MMLAB_CHECK(inode != nullptr);
  // What was written since the page was read lives only here.
  const uint64_t offset = uint64_t{frame.index} << page_size_.shift();
  const bool zero = memory_.contents().BytesIfAny(pfn) == nullptr;
  if (!zero || offset < inode->disk.size()) {
    std::string bytes(std::min<uint64_t>(page_size_.bytes().raw(), inode->size > offset ? inode->size - offset : 0), '\0');
    memory_.contents().Read(pfn, 0, bytes.data(), bytes.size());
    if (inode->disk.size() < offset + bytes.size()) inode->disk.resize(offset + bytes.size());
    inode->disk.replace(offset, bytes.size(), bytes);
  }
  RemovePage(*inode, PageIndex(frame.index), pfn, shadow);
}

void Files::Evict(Pfn pfn, uint16_t target_memcg) { DropCleanPage(pfn, memory_.lru().NoteEviction(pfn, target_memcg)); }

void Files::DropClean() {
  DrainLru();
  for (const auto& [id, inode] : by_id_) {
    if (!inode->on_disk()) continue;
    for (const auto& [index, pfn] : inode->pages.Pages()) {
      const Frame& frame = memory_.frame(pfn);
      if (frame.refcount == 1 && (frame.flags & (kPgDirty | kPgWriteback)) == 0) DropCleanPage(pfn);
    }
  }
}

void Files::ZeroBytes(Inode& inode, uint64_t from, uint64_t to) {
  for (uint64_t at = from; at < std::min<uint64_t>(to, inode.disk.size()); ++at) inode.disk[at] = '\0';
  while (from < to) {
    const uint64_t in_page = from & page_size_.mask();
    const size_t count = std::min<uint64_t>(to - from, page_size_.bytes().raw() - in_page);
    const PageIndex index(from >> page_size_.shift());
    // Without memory for it a swapped-out page keeps its bytes, as in the kernel.
    if (inode.pages.FindSwapped(index).has_value()) (void)PageForWrite(inode, index);
    if (const auto page = FindPage(inode, index); page.has_value()) {
      const std::string zeros(count, '\0');
      memory_.contents().Write(*page, in_page, zeros.data(), count);
      MarkDirty(inode, *page);
    }
    from += count;
  }
}

}  // namespace mmlab

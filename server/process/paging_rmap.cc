// Frames behind entries: who maps them, who counts them, how they go. Linux: mm/rmap.c, mm/memory.c (zap_pte_range), mm/mlock.c.
#include "server/base/check.h"
#include "server/files/files.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"
#include "server/process/paging_walk.h"

namespace mmlab {

Frame* Paging::NormalPage(Pte pte, Pfn* pfn) const {
  if (!format_.Present(pte) || format_.Special(pte)) return nullptr;
  *pfn = format_.PfnOf(pte);
  return &memory_.frame(*pfn);
}

RssKind Paging::KindOf(const Frame& frame) const {
  if (frame.state == FrameState::kAnon) return RssKind::kAnon;
  return frame.state == FrameState::kShmem || (frame.flags & kPgSwapBacked) != 0 ? RssKind::kShmem : RssKind::kFile;
}

bool Paging::WantsWriteNotify(const VmArea& vma) const {
  // vma_wants_writenotify(): of the files here only ext4 has page_mkwrite and counts dirty pages.
  return (vma.flags & (kVmWrite | kVmShared)) == (kVmWrite | kVmShared) && vma.file != nullptr && vma.file->inode->kind == FileKind::kExt4;
}

uint64_t Paging::PageProtection(const VmArea& vma) const {
  return format_.Protection(WantsWriteNotify(vma) ? vma.flags & ~uint64_t{kVmShared} : vma.flags);
}

Pte Paging::MaybeWritable(Pte pte, const VmArea& vma) const { return vma.is(kVmWrite) ? format_.MkWrite(pte) : pte; }

void Paging::AddNewAnonRmap(Pfn pfn, Frame& frame, VmArea& vma, VirtAddr address) {
  frame.state = FrameState::kAnon;
  frame.flags |= kPgUptodate | kPgSwapBacked | kPgAnonExclusive;
  frame.mapcount = 1;
  frame.mapping = vma.anon_vma->id;
  frame.index = vma.IndexOf(address, layout_.page_size).raw();
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrAnonPages, 1);
  if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) {
    MlockPage(pfn, frame);
    lru_.AddMlocked(pfn);
  } else {
    lru_.Add(pfn);
  }
}

void Paging::AddFileRmap(Pfn pfn, Frame& frame, VmArea& vma) {
  if (IsCompound(frame)) [[unlikely]] {
    Frame& head = HeadOf(pfn, frame);
    ++head.refcount;
    if (++frame.mapcount == 1 && EntireMapCount(HugeHead(pfn)) == 0) memory_.CountPage(vm_stat_, head, NodeStat::kNrMapped, 1);
    return;  // Small entries do not lock huge pages.
  }
  ++frame.refcount;
  if (++frame.mapcount == 1) memory_.CountPage(vm_stat_, frame, NodeStat::kNrMapped, 1);
  if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) MlockPage(pfn, frame);
}

void Paging::RemoveRmap(Pfn pfn, Frame& frame, const VmArea& vma) {
  if (IsCompound(frame)) return RemoveSubpageRmap(pfn, frame);
  MMLAB_CHECK(frame.mapcount > 0);
  if (--frame.mapcount == 0)
    memory_.CountPage(vm_stat_, frame, frame.state == FrameState::kAnon ? NodeStat::kNrAnonPages : NodeStat::kNrMapped, -1);
  if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) MunlockPage(pfn, frame);
}

void Paging::PutPage(Pfn pfn, Frame& page) {
  Frame& frame = HeadOf(pfn, page);
  MMLAB_CHECK(frame.refcount > 0);
  if (--frame.refcount > 0) return;
  if (IsCompound(frame)) return ReleaseHugePage(HugeHead(pfn), frame);
  MMLAB_CHECK(frame.mapcount == 0);
  if ((frame.flags & kPgMlocked) != 0) ForgetMlocked(frame);
  memory_.FreePages(pfn, PageOrder(0));
}

void Paging::ForgetMlocked(const Frame& frame) {
  memory_.lru().AddZoneStat(frame, ZoneStat::kNrMlock, -int64_t{CompoundPages(frame)});
  vm_stat_.Count(VmEvent::kUnevictablePgsCleared, CompoundPages(frame));
}

uint64_t Paging::mlocked_pages() const { return memory_.lru().SumOfZones(ZoneStat::kNrMlock); }

// mlock_count: how many VM_LOCKED VMAs map the page; kept, as the kernel does, where the page's list link would be.
void Paging::MlockPage(Pfn pfn, Frame& frame) {
  if ((frame.flags & kPgMlocked) == 0) {
    const uint32_t pages = CompoundPages(frame);
    if ((frame.flags & kPgLru) != 0) vm_stat_.Count(VmEvent::kUnevictablePgsCulled, pages);
    memory_.lru().ChangeFlags(pfn, kPgMlocked | kPgUnevictable, kPgActive);
    frame.prev = 0;
    memory_.lru().AddZoneStat(frame, ZoneStat::kNrMlock, pages);
    vm_stat_.Count(VmEvent::kUnevictablePgsMlocked, pages);
  }
  ++frame.prev;
}

void Paging::MunlockPage(Pfn pfn, Frame& frame) {
  if ((frame.flags & kPgMlocked) == 0 || --frame.prev > 0) return;
  const uint32_t pages = CompoundPages(frame);
  frame.prev = kNoFrame;
  if ((frame.flags & kPgLru) != 0) vm_stat_.Count(VmEvent::kUnevictablePgsRescued, pages);
  memory_.lru().ChangeFlags(pfn, 0, kPgMlocked | kPgUnevictable);
  memory_.lru().AddZoneStat(frame, ZoneStat::kNrMlock, -int64_t{pages});
  vm_stat_.Count(VmEvent::kUnevictablePgsMunlocked, pages);
}

void Paging::CountRssFast(Process& task, AddressSpace& mm, RssKind kind, int64_t pages) {
  auto& counters = task.mm.get() == &mm ? task.rss.count : mm.rss;
  counters[static_cast<size_t>(kind)] += pages;
}

void Paging::SyncRss(Process& task) {
  if (task.mm != nullptr) {
    for (size_t kind = 0; kind < kRssKinds; ++kind) task.mm->rss[kind] += task.rss.count[kind];
  }
  task.rss = TaskRss();
}

void Paging::AddRss(Process* task, AddressSpace& mm, const RssDelta& delta) {
  if (task != nullptr && task->mm.get() == &mm) SyncRss(*task);
  for (size_t kind = 0; kind < kRssKinds; ++kind) mm.rss[kind] += delta[kind];
}

void Paging::ZapTable(Process* task, VmArea& vma, uint8_t* table, VirtAddr start, VirtAddr last, bool even_cows) {
  RssDelta delta{};
  uint32_t index = format_.IndexOf(start, 1);
  const auto count = static_cast<uint32_t>((last - start).raw() >> layout_.page_size.shift());
  for (const uint32_t stop = index + count; index < stop; ++index) {
    const Pte pte = format_.Load(table, index);
    if (format_.None(pte)) continue;
    if (format_.IsSwap(pte)) {
      if (!even_cows) continue;
      format_.Store(table, index, 0);
      --delta[static_cast<size_t>(RssKind::kSwap)];
      files_.swap().FreeWithCache(SwapOf(pte));
      continue;
    }
    Pfn pfn;
    Frame* frame = NormalPage(pte, &pfn);
    if (frame != nullptr && !even_cows && frame->state == FrameState::kAnon) continue;
    format_.Store(table, index, 0);
    if (frame == nullptr) continue;
    const bool anonymous = frame->state == FrameState::kAnon;
    if (!anonymous && format_.Dirty(pte)) {
      if (Inode* inode = files_.FindById(static_cast<uint32_t>(frame->mapping)); inode != nullptr) files_.MarkDirty(*inode, pfn);
    }
    if (!anonymous && format_.Young(pte) && !vma.is(kVmSeqRead)) memory_.lru().MarkAccessed(IsCompound(*frame) ? HugeHead(pfn) : pfn);
    --delta[static_cast<size_t>(KindOf(*frame))];
    RemoveRmap(pfn, *frame, vma);
    FreeSwapCache(pfn, *frame);
    PutPage(pfn, *frame);
  }
  AddRss(task, *vma.mm, delta);
}

void Paging::ZapRange(Process* task, VmArea& vma, VirtRange range, bool even_cows) {
  if (vma.is(kVmHugetlb)) return ZapHugetlb(vma, range);
  DrainLru();
  ForEachTable(
      *vma.mm, range, [&](uint8_t* table, VirtAddr start, VirtAddr last) { ZapTable(task, vma, table, start, last, even_cows); },
      [&](uint8_t* table, uint32_t, VirtAddr start, VirtAddr last) {
        const bool whole = Whole(start, last);
        if (whole) {
          ZapHuge(vma, table, start);
        } else {
          SplitHugeEntry(vma, table, start, "part of what the huge page maps is given up");
        }
        return whole;
      });
}

void Paging::Zap(Process& task, VmArea& vma, VirtRange range, bool even_cows) { ZapRange(&task, vma, range, even_cows); }

void Paging::AddToLru(Pfn pfn) { lru_.Add(pfn); }

void Paging::DrainLru() { lru_.Drain(); }

void Paging::UnmapFilePages(Inode& inode, PageIndex first, PageIndex end, bool even_cows) {
  const PageSize page_size = layout_.page_size;
  for (const auto& [link, vma] : inode.mappings) {
    const PageIndex vma_end = vma->pgoff + page_size.WholePagesIn(vma->length());
    const PageIndex from = std::max(first, vma->pgoff);
    const PageIndex to = std::min(end, vma_end);
    if (from >= to) continue;
    const VirtAddr start = vma->start + page_size.BytesOf(from - vma->pgoff);
    vma->mm->UpdateHiwaterRss();
    ZapRange(current_, *vma, VirtRange{start, start + page_size.BytesOf(to - from)}, even_cows);
  }
}

void Paging::CleanFilePage(Inode& inode, PageIndex index) {
  const PageSize page_size = layout_.page_size;
  for (const auto& [link, vma] : inode.mappings) {
    if (!vma->shared() || index < vma->pgoff || index >= vma->pgoff + page_size.WholePagesIn(vma->length())) continue;
    const VirtAddr address = vma->start + page_size.BytesOf(index - vma->pgoff);
    uint8_t* table = FindTable(*vma->mm, address, 1);
    if (table == nullptr) continue;
    const uint32_t at = format_.IndexOf(address, 1);
    const Pte pte = format_.Load(table, at);
    if (!format_.Present(pte) || !(format_.Dirty(pte) || format_.Writable(pte))) continue;
    format_.Store(table, at, format_.MkClean(format_.WrProtect(pte)));
  }
}

}  // namespace mmlab

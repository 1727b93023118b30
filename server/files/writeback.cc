// From the page cache to the disk. Linux: mm/page-writeback.c, fs/fs-writeback.c.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/lru_lists.h"
#include "server/physical/memory_controller.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"

namespace mmlab {
namespace {

constexpr uint64_t kFewestBetweenChecks = 16;
constexpr uint64_t kChecksPerLimit = 32;    // ratelimit_pages: the limit is looked at so often on the way to it.
constexpr uint64_t kWritebackPages = 1024;  // Of one file before it is the next one's turn (MIN_WRITEBACK_PAGES).

}  // namespace

void Files::MarkDirty(Inode& inode, Pfn pfn) {
  Frame& frame = memory_.frame(HeadOf(pfn));
  if ((frame.flags & kPgDirty) != 0) return;
  frame.flags |= kPgDirty;
  if (!inode.on_disk()) return;  // Memory is shmem's only store: nothing to write back, nothing counted.
  frame.flags &= ~uint32_t{kPgReclaim};
  if (inode.dirty_pages++ == 0) inode.dirtied_when = clock_ == nullptr ? 0 : *clock_;
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrDirty, 1);
  memory_.lru().AddZoneStat(frame, ZoneStat::kNrZoneWritePending, 1);
  vm_stat_.Add(NodeStat::kNrDirtied, 1);
  ++dirtied_since_check_;
  if (EventSink* events = tracer_.events(); events != nullptr && events->wants(EventKind::kWritebackDirtyFolio)) {
    const std::string device = absl::StrCat(inode.device_major, ":", inode.device_minor);
    events->Emit(EventKind::kWritebackDirtyFolio, {device, inode.number, frame.index});
  }
}

void Files::NoteClean(Inode& inode, const Frame& frame) {
  MMLAB_CHECK(inode.dirty_pages > 0);
  --inode.dirty_pages;
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrDirty, -1);
  memory_.lru().AddZoneStat(frame, ZoneStat::kNrZoneWritePending, -1);
}

void Files::BalanceDirty() {
  if (limiter_ == nullptr || dirtied_since_check_ < kFewestBetweenChecks) return;
  const DirtyLimits limits = limiter_->Limits();
  if (dirtied_since_check_ < std::max(kFewestBetweenChecks, limits.threshold / kChecksPerLimit)) return;
  dirtied_since_check_ = 0;
  if (static_cast<uint64_t>(vm_stat_.Get(NodeStat::kNrDirty)) > limits.background) WriteDownTo(limits.background);
  // dirty_freerun_ceiling()
  const uint64_t ceiling = (limits.threshold + limits.background) / 2;
  const auto pending = static_cast<uint64_t>(vm_stat_.Get(NodeStat::kNrDirty)) + under_way_.size();
  if (pending <= ceiling) return;
  const int64_t before = std::max(waited_until_, Now());
  WaitForWrites(pending - ceiling);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kWriteback, "more is dirty or being written than is free to be: the writer is held back until it is not")
        .Pages("pending", static_cast<int64_t>(pending))
        .Pages("ceiling", static_cast<int64_t>(ceiling))
        .Pages("limit", static_cast<int64_t>(limits.threshold))
        .Number("pause_ns", std::max(waited_until_, Now()) - before);
  }
}

// wb_writeback() for the background: the files that have been dirty for longest, in turns.
void Files::WriteDownTo(uint64_t background) {
  const auto above = [&] { return static_cast<uint64_t>(vm_stat_.Get(NodeStat::kNrDirty)) > background; };
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kWriteback, "more is dirty than vm.dirty_background_ratio allows: the oldest is written")
        .Pages("dirty", vm_stat_.Get(NodeStat::kNrDirty))
        .Pages("limit", static_cast<int64_t>(background));
  }
  std::vector<Inode*> dirty;
  for (const auto& [id, inode] : by_id_) {
    if (inode->dirty_pages > 0) dirty.push_back(inode);
  }
  std::stable_sort(dirty.begin(), dirty.end(), [](const Inode* a, const Inode* b) { return a->dirtied_when < b->dirtied_when; });
  for (bool wrote = true; wrote && above();) {
    wrote = false;
    for (Inode* inode : dirty) {
      if (above() && FlushInode(*inode, kWritebackPages) > 0) wrote = true;
    }
  }
}

// Pages that are under way already are left for the next time.
uint64_t Files::FlushInode(Inode& inode, uint64_t most) {
  uint64_t written = 0;
  if (inode.dirty_pages == 0) return 0;
  for (const auto& [index, pfn] : inode.pages.Pages()) {
    if ((memory_.frame(pfn).flags & (kPgDirty | kPgWriteback)) != kPgDirty) continue;
    WritePage(inode, pfn);
    if (++written == most || inode.dirty_pages == 0) break;
  }
  return written;
}

void Files::FlushOlderThan(int64_t oldest, int64_t at) {
  for (const auto& [id, inode] : by_id_) {
    if (inode->dirty_pages == 0 || inode->dirtied_when > oldest) continue;
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kWriteback, "the file has been dirty for longer than vm.dirty_expire_centisecs: it is written")
          .Text("file", inode->path)
          .Pages("dirty", int64_t{inode->dirty_pages})
          .Number("dirty_since_ns", inode->dirtied_when)
          .Number("written_at_ns", at);
    }
    for (const auto& [index, pfn] : inode->pages.Pages()) {
      if ((memory_.frame(pfn).flags & (kPgDirty | kPgWriteback)) == kPgDirty) StartWriteback(*inode, pfn, at);
    }
  }
}

void Files::WritePage(Inode& inode, Pfn pfn) { StartWriteback(inode, pfn, Now()); }

void Files::StartWriteback(Inode& inode, Pfn pfn, int64_t at) {
  Frame& frame = memory_.frame(pfn);
  MMLAB_CHECK((frame.flags & (kPgDirty | kPgWriteback)) == kPgDirty);
  if (mapper_ != nullptr) mapper_->CleanFilePage(inode, PageIndex(frame.index));
  frame.flags = (frame.flags & ~uint32_t{kPgDirty}) | kPgWriteback;
  NoteClean(inode, frame);
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrWriteback, 1);
  memory_.lru().AddZoneStat(frame, ZoneStat::kNrZoneWritePending, 1);
  ++inode.under_way;
  const uint64_t kib = page_size_.bytes().raw() >> 10;
  vm_stat_.Count(VmEvent::kPgpgout, kib);
  // Pages of a file that lie next to each other are one request.
  DiskStats& disk = DiskOf(inode);
  const bool joins =
      !under_way_.empty() && under_way_.back().inode == inode.id && uint64_t{memory_.frame(under_way_.back().pfn).index} + 1 == frame.index;
  joins ? disk.Merge(disk.writes, kib) : disk.Write(kib);
  disk_free_at_ = std::max(disk_free_at_, at) + static_cast<int64_t>(kib) * kDiskNanosecondsPerKib;
  under_way_.push_back({pfn, inode.id, disk_free_at_, !joins});
  if (clock_ == nullptr) EndFirstWrite();
}

// folio_end_writeback(): what reclaim waits for goes next.
void Files::EndFirstWrite() {
  const Write write = under_way_.front();
  under_way_.pop_front();
  if (!under_way_.empty()) under_way_.front().begins = true;
  Frame& frame = memory_.frame(write.pfn);
  frame.flags &= ~uint32_t{kPgWriteback};
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrWriteback, -1);
  memory_.lru().AddZoneStat(frame, ZoneStat::kNrZoneWritePending, -1);
  vm_stat_.Add(NodeStat::kNrWritten, 1);
  --by_id_.at(write.inode)->under_way;
  if ((frame.flags & kPgReclaim) == 0) return;
  frame.flags &= ~uint32_t{kPgReclaim};
  memory_.lru().RotateReclaimable(write.pfn);
}

void Files::AdvanceTo(int64_t now) {
  while (!under_way_.empty() && under_way_.front().due <= now) EndFirstWrite();
}

void Files::WaitForWrites(uint64_t pages) {
  int64_t until = 0;
  for (; pages > 0 && !under_way_.empty(); --pages) {
    until = under_way_.front().due;
    EndFirstWrite();
  }
  const int64_t from = std::max(waited_until_, Now());
  if (until <= from) return;
  waited_until_ = until;
  if (MemoryController* controller = memory_.controller(); controller != nullptr) controller->Stall(StallKind::kIo, until - from);
}

// filemap_fdatawait()
void Files::WaitForFile(const Inode& inode) {
  if (inode.under_way == 0) return;
  uint64_t pages = under_way_.size();
  while (under_way_[pages - 1].inode != inode.id) --pages;
  WaitForWrites(pages);
}

void Files::Sync(Inode& inode, PageIndex first, PageIndex end) {
  if (!inode.on_disk() || (inode.dirty_pages == 0 && inode.under_way == 0)) return;
  WaitForFile(inode);
  const uint32_t dirty = inode.dirty_pages;
  for (const auto& [index, pfn] : inode.pages.Pages(first, end)) {
    if ((memory_.frame(pfn).flags & kPgDirty) != 0) WritePage(inode, pfn);
  }
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kWriteback, "what is dirty of the file is written, as was asked for")
        .Text("file", inode.path)
        .Pages("pages", static_cast<int64_t>(dirty - inode.dirty_pages));
  }
  WaitForFile(inode);
}

void Files::WriteAll() {
  for (const auto& [id, inode] : by_id_) FlushInode(*inode, ~uint64_t{0});
}

void Files::SyncAll() {
  for (const auto& [id, inode] : by_id_) Sync(*inode, PageIndex(0), PageIndex(~uint64_t{0}));
}

}  // namespace mmlab

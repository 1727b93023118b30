// From the page cache to the disk. Linux: mm/page-writeback.c, fs/fs-writeback.c.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"

namespace mmlab {
namespace {

constexpr uint64_t kFewestBetweenChecks = 16;
constexpr uint64_t kChecksPerLimit = 32;    // ratelimit_pages: the limit is looked at so often on the way to it.
constexpr uint64_t kWritebackPages = 1024;  // Of one file before it is the next one's turn (MIN_WRITEBACK_PAGES).

}  // namespace

void Files::MarkDirty(Inode& inode, Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
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
  const auto above = [&] { return static_cast<uint64_t>(vm_stat_.Get(NodeStat::kNrDirty)) > limits.background; };
  if (!above()) return;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kWriteback, "more is dirty than vm.dirty_background_ratio allows: the oldest is written")
        .Pages("dirty", vm_stat_.Get(NodeStat::kNrDirty))
        .Pages("limit", static_cast<int64_t>(limits.background));
  }
  std::vector<Inode*> dirty;
  for (const auto& [id, inode] : by_id_) {
    if (inode->dirty_pages > 0) dirty.push_back(inode);
  }
  std::stable_sort(dirty.begin(), dirty.end(), [](const Inode* a, const Inode* b) { return a->dirtied_when < b->dirtied_when; });
  while (above()) {
    for (Inode* inode : dirty) {
      if (above()) FlushInode(*inode, kWritebackPages);
    }
  }
}

uint64_t Files::FlushInode(Inode& inode, uint64_t most) {
  uint64_t written = 0;
  for (auto it = inode.pages.begin(); it != inode.pages.end() && inode.dirty_pages > 0 && written < most; ++it) {
    if ((memory_.frame(it->second).flags & kPgDirty) == 0) continue;
    WritePage(inode, it->second);
    ++written;
  }
  return written;
}

void Files::FlushOlderThan(int64_t nanoseconds) {
  for (const auto& [id, inode] : by_id_) {
    if (inode->dirty_pages > 0 && inode->dirtied_when <= nanoseconds) FlushInode(*inode, ~uint64_t{0});
  }
}

void Files::WritePage(Inode& inode, Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  if (mapper_ != nullptr) mapper_->CleanFilePage(inode, PageIndex(frame.index));
  frame.flags &= ~uint32_t{kPgDirty};
  NoteClean(inode, frame);
  vm_stat_.Add(NodeStat::kNrWritten, 1);
  vm_stat_.Count(VmEvent::kPgpgout, page_size_.bytes().raw() >> 10);
  // folio_end_writeback(): what reclaim waits for goes next.
  if ((frame.flags & kPgReclaim) == 0) return;
  frame.flags &= ~uint32_t{kPgReclaim};
  memory_.lru().RotateReclaimable(pfn);
}

void Files::Sync(Inode& inode, PageIndex first, PageIndex end) {
  if (!inode.on_disk() || inode.dirty_pages == 0) return;
  const uint32_t dirty = inode.dirty_pages;
  for (auto it = inode.pages.lower_bound(first); it != inode.pages.end() && it->first < end; ++it) {
    if ((memory_.frame(it->second).flags & kPgDirty) != 0) WritePage(inode, it->second);
  }
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kWriteback, "what is dirty of the file is written, as was asked for")
        .Text("file", inode.path)
        .Pages("pages", static_cast<int64_t>(dirty - inode.dirty_pages));
  }
}

uint64_t Files::SyncAll() {
  const int64_t written = vm_stat_.Get(NodeStat::kNrWritten);
  for (const auto& [id, inode] : by_id_) Sync(*inode, PageIndex(0), PageIndex(~uint64_t{0}));
  return static_cast<uint64_t>(vm_stat_.Get(NodeStat::kNrWritten) - written);
}

}  // namespace mmlab

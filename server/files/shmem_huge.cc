// Huge pages of tmpfs, memfd, SysV shm and shared anonymous memory. Linux: mm/shmem.c (shmem_is_huge, shmem_alloc_hugefolio,
// shmem_undo_range), the page cache's part of mm/huge_memory.c and mm/khugepaged.c (collapse_file).
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/memory_controller.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

void Files::SetShmemEnabled(ShmemEnabled enabled) {
  shmem_enabled_ = enabled;
  // What is denied or forced leaves the internal mount's option as it was.
  if (enabled <= ShmemEnabled::kAdvise) internal_huge_ = static_cast<ShmemHuge>(enabled);
}

ShmemHuge Files::HugeOption(const Inode& inode) const { return inode.kind == FileKind::kTmpfs ? inode.huge : internal_huge_; }

bool Files::WantsHuge(const Inode& inode, PageIndex index, HugeAdvice advice) const {
  if (!inode.shmem() || advice == HugeAdvice::kNo || shmem_enabled_ == ShmemEnabled::kDeny) return false;
  if (shmem_enabled_ == ShmemEnabled::kForce) return true;
  const ShmemHuge option = HugeOption(inode);
  if (option == ShmemHuge::kAlways) return true;
  if (option == ShmemHuge::kNever) return false;
  const uint64_t end = (index.raw() | (huge_pages() - 1)) + 1;
  const bool within_size = option == ShmemHuge::kWithinSize && page_size_.PagesHolding(Bytes(inode.size)).raw() >= end;
  return within_size || advice == HugeAdvice::kYes;
}

// shmem_alloc_hugefolio() and shmem_add_to_page_cache(); nothing: a small page has to do.
std::optional<Pfn> Files::AddHugePage(Inode& inode, PageIndex first, HugeAdvice advice) {
  Explanation* why = tracer_.explanation();
  const auto refuse = [&](const char* text) -> std::optional<Pfn> {
    if (why != nullptr) why->Add(StepKind::kHugeFault, text).Text("file", inode.path).Number("index", static_cast<int64_t>(first.raw()));
    return std::nullopt;
  };
  constexpr uint64_t kMostIndex = (uint64_t{1} << 40) - 1;  // Of Frame::index.
  const PageIndex end = first + PageCount(huge_pages());
  if (end.raw() > kMostIndex) return refuse("no huge page: beyond what a file can have");
  if (!TakeBlocks(inode, huge_pages())) return refuse("no huge page: the file may not have so many pages more");
  const auto give_back = [&](const char* text) {
    GiveBlocks(inode, huge_pages());
    return refuse(text);
  };
  if (!inode.pages.Pages(first, end).empty() || !inode.pages.Swapped(first, end).empty()) {
    return give_back("no huge page: the file has pages in the range already");
  }
  const Gfp gfp = mapper_->HugeGfp(advice == HugeAdvice::kYes);
  const std::optional<Pfn> head = memory_.AllocPages(gfp, PageOrder(huge_order()));
  if (!head.has_value()) {
    vm_stat_.Count(VmEvent::kThpFileFallback);
    return give_back("no huge page: no block of that size is free");
  }
  MemoryController* const charger = memory_.charger();
  if (charger != nullptr && !charger->ChargePage(*head, PageOrder(huge_order()), gfp)) {
    memory_.FreePages(*head, PageOrder(huge_order()));
    vm_stat_.Count(VmEvent::kThpFileFallback);
    vm_stat_.Count(VmEvent::kThpFileFallbackCharge);
    return give_back("no huge page: its memory cgroup may not have so much");
  }
  InsertHugePage(inode, first, *head);
  --memory_.frame(*head).refcount;
  vm_stat_.Count(VmEvent::kThpFileAlloc);
  mapper_->AddToLru(*head);
  if (why != nullptr) {
    why->Add(StepKind::kHugeFault, "a zeroed huge page fills the hole in the file")
        .Text("file", inode.path)
        .Number("index", static_cast<int64_t>(first.raw()))
        .Frame("pfn", *head);
  }
  return head;
}

// The page cache has one reference for each small page, as in the kernel. What the file is to each part says every part, but its place,
// which follows from the first one's.
void Files::InsertHugePage(Inode& inode, PageIndex first, Pfn head) {
  for (uint64_t i = 0; i < huge_pages(); ++i) {
    Frame& frame = memory_.frame(head + PageCount(i));
    frame.state = FrameState::kShmem;
    frame.flags |= kPgUptodate | kPgSwapBacked;
    frame.mapping = inode.id;
    frame.index = 0;
    frame.mapcount = 0;
    inode.pages.Insert(first + PageCount(i), head + PageCount(i));
  }
  Frame& frame = memory_.frame(head);
  frame.index = first.raw();
  frame.refcount += static_cast<int32_t>(huge_pages());
  CountHugePage(inode, frame, 1);
}

void Files::CountHugePage(Inode& inode, const Frame& head, int sign) {
  const int64_t pages = sign * static_cast<int64_t>(huge_pages());
  inode.huge_pages += static_cast<uint32_t>(sign);
  cached_pages_ += static_cast<uint64_t>(pages);
  shmem_pages_ += static_cast<uint64_t>(pages);
  memory_.CountPage(vm_stat_, head, NodeStat::kNrFilePages, pages);
  memory_.CountPage(vm_stat_, head, NodeStat::kNrShmem, pages);
  memory_.CountPage(vm_stat_, head, NodeStat::kNrShmemHugepages, pages);
}

// truncate_inode_folio() of a huge page that nobody maps.
void Files::RemoveHugePage(Inode& inode, Pfn head) {
  Frame& frame = memory_.frame(head);
  const PageIndex first(frame.index);
  CountHugePage(inode, frame, -1);
  GiveBlocks(inode, huge_pages());
  frame.flags &= ~uint32_t{kPgDirty};
  for (uint64_t i = 0; i < huge_pages(); ++i) inode.pages.Erase(first + PageCount(i));
  frame.refcount -= static_cast<int32_t>(huge_pages());
  MMLAB_CHECK(frame.refcount >= 0);
  for (uint64_t i = 0; i < huge_pages(); ++i) memory_.frame(head + PageCount(i)).mapping = 0;
  if (frame.refcount > 0) return;
  if ((frame.flags & kPgMlocked) != 0 && mapper_ != nullptr) mapper_->ForgetMlocked(frame);
  memory_.FreePages(head, PageOrder(huge_order()));
}

Pfn Files::HeadOf(Pfn pfn) const { return (memory_.frame(pfn).flags & kPgTail) == 0 ? pfn : Pfn(pfn.raw() & ~(huge_pages() - 1)); }

// Of what is to go from `first` to `end`: where that ends within a huge page, the page is split. A page that somebody holds can't be: what
// is to go of it is zeroed and stays (truncate_inode_partial_folio()). Where what can be removed starts and ends.
std::pair<PageIndex, PageIndex> Files::SplitAtEnds(Inode& inode, PageIndex first, PageIndex end) {
  if (inode.huge_pages == 0) return {first, end};
  const auto split = [&](PageIndex at) -> bool {
    const std::optional<Pfn> found = inode.pages.Find(at);
    if (!found.has_value() || !IsCompound(memory_.frame(*found))) return true;
    const Pfn head = HeadOf(*found);
    if (memory_.frame(head).index == at.raw()) return true;
    memory_.frame(head).flags |= kPgDirty;
    return mapper_ != nullptr && mapper_->SplitFilePage(head);
  };
  const PageIndex huge_first(first.raw() & ~(huge_pages() - 1));
  const PageIndex huge_end(end.raw() & ~(huge_pages() - 1));
  DrainLru();
  if (!split(first)) {
    const PageIndex next = huge_first + PageCount(huge_pages());
    ZeroPages(inode, first, std::min(next, end));
    first = next;
  }
  if (end.raw() != ~uint64_t{0} && first < end && !split(end)) {
    ZeroPages(inode, std::max(first, huge_end), end);
    end = huge_end;
  }
  return {first, std::max(first, end)};
}

void Files::ZeroPages(Inode& inode, PageIndex first, PageIndex end) {
  for (const auto& [index, pfn] : inode.pages.Pages(first, end)) memory_.contents().Clear(pfn);
}

void Files::NoteSplit(Pfn head) {
  const Frame& frame = memory_.frame(head);
  Inode* inode = FindById(static_cast<uint32_t>(frame.mapping));
  MMLAB_CHECK(inode != nullptr && inode->huge_pages > 0);
  --inode->huge_pages;
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrShmemHugepages, -static_cast<int64_t>(huge_pages()));
}

void Files::DropBehindEnd(Inode& inode, PageIndex first) {
  const PageIndex end = first + PageCount(huge_pages());
  const PageIndex from = std::max(first + PageCount(1), EndIndex(inode));
  for (const auto& [index, pfn] : inode.pages.Pages(from, end)) RemovePage(inode, index, pfn);
}

bool Files::TakeHoles(Inode& inode, PageIndex first) {
  uint64_t holes = huge_pages();
  for ([[maybe_unused]] const auto& page : inode.pages.Pages(first, first + PageCount(huge_pages()))) --holes;
  return TakeBlocks(inode, holes);
}

void Files::CollapseInto(Inode& inode, PageIndex first, Pfn head) {
  const PageIndex end = first + PageCount(huge_pages());
  for (const auto& [index, pfn] : inode.pages.Pages(first, end)) {
    inode.pages.Erase(index);
    Frame& frame = memory_.frame(pfn);
    memory_.contents().Copy(pfn, head + PageCount(index - first));
    --cached_pages_;
    --shmem_pages_;
    memory_.CountPage(vm_stat_, frame, NodeStat::kNrFilePages, -1);
    memory_.CountPage(vm_stat_, frame, NodeStat::kNrShmem, -1);
    frame.mapping = 0;
    PutPage(pfn);
  }
  InsertHugePage(inode, first, head);
  Frame& frame = memory_.frame(head);
  frame.flags |= kPgDirty;
  --frame.refcount;
  mapper_->AddToLru(head);
}

void Files::CheckHugeShmem(std::vector<std::string>* violations) const {
  uint64_t huge = 0;
  for (const auto& [id, inode] : by_id_) {
    huge += inode->huge_pages;
    uint64_t found = 0;
    for (const auto& [index, pfn] : inode->pages.Pages()) {
      const Frame& frame = memory_.frame(pfn);
      if (!IsCompound(frame)) continue;
      const Pfn head = HeadOf(pfn);
      const Frame& first = memory_.frame(head);
      found += head == pfn ? 1 : 0;
      if ((first.flags & kPgHead) == 0 || first.index + (pfn.raw() - head.raw()) != index.raw() || frame.mapping != id ||
          frame.state != FrameState::kShmem) {
        violations->push_back(absl::StrCat("page ", index.raw(), " of ", inode->path, " is no part of the huge page ", head.raw()));
      }
    }
    if (found != inode->huge_pages) {
      violations->push_back(absl::StrCat(inode->path, " has ", found, " huge pages, counted ", inode->huge_pages));
    }
  }
  const uint64_t pages = huge == 0 ? 0 : huge * huge_pages();  // Without huge pages nobody may have said how large they are.
  const int64_t counted = vm_stat_.Get(NodeStat::kNrShmemHugepages);
  if (counted != static_cast<int64_t>(pages)) {
    violations->push_back(absl::StrCat("nr_shmem_hugepages is ", counted, ", counted ", pages));
  }
}

}  // namespace mmlab

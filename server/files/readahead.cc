// How much of a file is read with what is wanted. Linux: mm/readahead.c, mm/filemap.c (do_sync_mmap_readahead).
#include <algorithm>
#include <bit>

#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/physical_memory.h"

namespace mmlab {
namespace {

constexpr uint64_t kMostPages = 32;         // ra_pages: 128 KiB.
constexpr uint64_t kMostOfLargeRead = 320;  // io_pages: what a disk moves at once, for single reads of more than a window.
constexpr uint32_t kLotsOfMisses = 100;     // MMAP_LOTSAMISS

// get_init_ra_size(): a first request is taken for the start of more.
uint64_t FirstSize(uint64_t request, uint64_t most) {
  const uint64_t size = std::bit_ceil(std::max<uint64_t>(request, 1));
  if (size <= most / 32) return size * 4;
  return size <= most / 4 ? size * 2 : most;
}

// get_next_ra_size()
uint64_t NextSize(uint64_t size, uint64_t most) {
  if (size < most / 16) return 4 * size;
  return size <= most / 2 ? 2 * size : most;
}

}  // namespace

// do_page_cache_ra(): pages that are there already stay; the one with which `lookahead` are left is marked.
void Files::ReadPages(OpenFile& file, uint64_t start, uint64_t pages, uint64_t lookahead) {
  Inode& inode = *file.inode;
  const uint64_t end = EndIndex(inode).raw();
  if (start >= end) return;
  pages = std::min(pages, end - start);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kReadahead, "the file is read in a window")
        .Text("file", inode.path)
        .Number("start", static_cast<int64_t>(start))
        .Pages("pages", static_cast<int64_t>(pages))
        .Pages("ahead", static_cast<int64_t>(lookahead));
  }
  for (uint64_t i = 0; i < pages; ++i) {
    const PageIndex index(start + i);
    if (FindPage(inode, index).has_value()) {
      reads_on_ = false;
      continue;
    }
    const auto page = PageForWrite(inode, index);
    reads_on_ = page.ok();
    if (!page.ok()) return;
    if (i + lookahead == pages) memory_.frame(page.value().pfn).flags |= kPgReclaim;  // PG_readahead is the same bit.
  }
  reads_on_ = false;
}

// ondemand_readahead()
void Files::OndemandReadahead(OpenFile& file, bool marked, PageIndex page, uint64_t request) {
  ReadaheadState& ra = file.readahead;
  const uint64_t index = page.raw();
  const uint64_t most = request > kMostPages ? std::min(request, kMostOfLargeRead) : kMostPages;
  const auto previous = static_cast<uint64_t>(ra.previous) >> page_size_.shift();
  if (index != 0 && (index == ra.start + ra.size - ra.async_size || index == ra.start + ra.size)) {
    // As expected: the window moves on and grows.
    ra.start += ra.size;
    ra.size = std::max(ra.size, NextSize(ra.size, most));
    ra.async_size = ra.size;
  } else if (index != 0 && marked) {
    // Somebody else's mark: go on behind what is there.
    uint64_t start = index + 1;
    while (start - index <= most && FindPage(*file.inode, PageIndex(start)).has_value()) ++start;
    if (start - index > most) return;
    ra.start = start;
    ra.size = NextSize(start - index + request, most);
    ra.async_size = ra.size;
  } else if (index == 0 || request > most || index - previous <= 1) {
    ra.start = index;
    ra.size = FirstSize(request, most);
    ra.async_size = ra.size > request ? ra.size - request : ra.size;
  } else {
    // count_history_pages(): what is there of the pages before tells a stream from a single read.
    uint64_t history = 0;
    while (history < most && history < index && FindPage(*file.inode, PageIndex(index - 1 - history)).has_value()) ++history;
    if (history <= request) return ReadPages(file, index, request, 0);
    if (history >= index) history *= 2;
    ra.start = index;
    ra.size = std::min(history + request, most);
    ra.async_size = 1;
  }
  if (index == ra.start && ra.size == ra.async_size) {
    // The mark would be met at once: the next window is part of this one.
    const uint64_t more = NextSize(ra.size, most);
    const bool fits = ra.size + more <= most;
    ra.async_size = fits ? more : most / 2;
    ra.size = fits ? ra.size + more : most;
  }
  ReadPages(file, ra.start, ra.size, ra.async_size);
}

void Files::ReadAhead(OpenFile& file, PageIndex index, uint64_t request) {
  if (file.inode->on_disk()) OndemandReadahead(file, false, index, request);
}

void Files::ReadAheadMarked(OpenFile& file, PageIndex index, uint64_t request) {
  if (!file.inode->on_disk()) return;
  const std::optional<Pfn> pfn = FindPage(*file.inode, index);
  if (!pfn.has_value() || (memory_.frame(*pfn).flags & (kPgReclaim | kPgDirty | kPgWriteback)) != kPgReclaim) return;
  memory_.frame(*pfn).flags &= ~uint32_t{kPgReclaim};
  OndemandReadahead(file, true, index, request);
}

void Files::ReadAround(OpenFile& file, PageIndex index, MapAdvice advice) {
  if (!file.inode->on_disk() || advice == MapAdvice::kRandom) return;
  ReadaheadState& ra = file.readahead;
  if (FindPage(*file.inode, index).has_value()) {
    if (ra.mmap_miss > 0) --ra.mmap_miss;
    return ReadAheadMarked(file, index, kMostPages);
  }
  if (index >= EndIndex(*file.inode)) return;
  if (advice == MapAdvice::kSequential) return OndemandReadahead(file, false, index, kMostPages);
  if (ra.mmap_miss < kLotsOfMisses * 10) ++ra.mmap_miss;
  if (ra.mmap_miss > kLotsOfMisses) return;
  ra.start = index.raw() - std::min(index.raw(), kMostPages / 2);
  ra.size = kMostPages;
  ra.async_size = kMostPages / 4;
  ReadPages(file, ra.start, ra.size, ra.async_size);
}

}  // namespace mmlab

#include <set>

#include "absl/strings/str_format.h"
#include "server/base/kernel_logger.h"
#include "server/files/files.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/commit_account.h"
#include "server/process/paging.h"
#include "server/process/processes.h"

// swapon() and swapoff(): mm/swapfile.c.

namespace mmlab {

Errno Processes::Swapon(const std::string& path, std::optional<int> priority) {
  MMLAB_TRY(files_.Swapon(path, priority, paging_->format().most_swap_slots()));
  if (log_ == nullptr) return Errno::kOk;
  for (const SwapAreaView& area : files_.swap().Views()) {
    if (area.path != path) continue;
    // No disk is quick at random (SS) or forgets what is discarded (D); each area has a map of what compressed swap holds of it (FS).
    const uint64_t kbytes = layout_.page_size.BytesOf(area.size).raw() >> 10;
    log_->Log(LogLevel::kInfo,
              absl::StrFormat("Adding %dk swap on %s.  Priority:%d extents:1 across:%dk FS", kbytes, path, area.priority, kbytes));
  }
  return Errno::kOk;
}

// try_to_unuse(). While pages come back others have to go: a page that is in the area's cache yet, as another address space wants it too,
// may be sent to its old slot again. Then one more round is needed.
Errno Processes::EmptySwapArea(uint32_t area) {
  constexpr int kMostRounds = 64;  // The kernel goes on until a signal comes.
  SwapAreas& swap = files_.swap();
  const auto in_use = [&] {
    SwapCounts counts;
    files_.CountSwap(counts);
    for (const auto& [pid, process] : processes_) {
      if (process->mm != nullptr) paging_->CountSwap(*process->mm, counts);
    }
    const auto first = counts.lower_bound({area, 0});
    return !swap.CachedPagesOf(area).empty() || (first != counts.end() && first->first.first == area);
  };
  for (int round = 0; round < kMostRounds; ++round) {
    MMLAB_TRY(files_.UnuseShmem(area));
    std::set<const AddressSpace*> seen;  // Only looked up.
    for (const auto& [pid, process] : processes_) {
      if (process->mm != nullptr && seen.insert(process->mm.get()).second) MMLAB_TRY(paging_->Unuse(*process->mm, area));
    }
    // What is left are pages that somebody maps while nobody refers to their slots.
    for (const Pfn pfn : swap.CachedPagesOf(area)) {
      Frame& frame = memory_.frame(pfn);
      ++frame.refcount;
      swap.TryToFree(pfn);
      if (--frame.refcount == 0) memory_.FreePages(pfn, PageOrder(0));
    }
    if (!in_use()) return Errno::kOk;
  }
  return Errno::kENOMEM;
}

Errno Processes::Swapoff(const std::string& path) {
  const std::shared_ptr<Inode> inode = files_.Find(path);
  if (inode == nullptr) return Errno::kENOENT;
  SwapAreas& swap = files_.swap();
  const std::optional<uint32_t> area = swap.Find(path);
  if (!area.has_value()) return Errno::kEINVAL;
  const auto pages = static_cast<int64_t>(swap.pages_of(*area)) - 1;
  if (!commit_->Charge(pages)) return Errno::kENOMEM;
  commit_->Uncharge(pages);
  swap.Stop(*area);
  if (const Errno error = EmptySwapArea(*area); error != Errno::kOk) {
    swap.Resume(*area);
    return error;
  }
  swap.Remove(*area);
  inode->swap_area = false;
  return Errno::kOk;
}

}  // namespace mmlab

#include "server/files/hugetlb_pools.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

void HugetlbPools::SetSizes(const Sizes& sizes) {
  sizes_ = sizes;
  pools_.clear();
  for (const int order : sizes.orders) pools_.emplace_back().order = order;
}

std::optional<size_t> HugetlbPools::FindByLog(uint32_t log) const {
  if (log == 0) return sizes_.default_pool;
  for (size_t i = 0; i < pools_.size(); ++i) {
    if (static_cast<uint32_t>(pools_[i].order + memory_.page_size().shift()) == log) return i;
  }
  return std::nullopt;
}

uint64_t HugetlbPools::total_pages() const {
  uint64_t pages = 0;
  for (const HugetlbPool& pool : pools_) pages += pool.total * pool.pages();
  return pages;
}

std::string HugetlbPools::Name(size_t pool) const {
  return absl::StrCat("hugepages-", pools_[pool].pages() << (memory_.page_size().shift() - 10), "kB");
}

void HugetlbPools::Explain(const HugetlbPool& pool, const char* text) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  why->Add(StepKind::kHugetlbPool, text)
      .Size("page_size", memory_.page_size().BytesOf(PageCount(pool.pages())))
      .Number("total", static_cast<int64_t>(pool.total))
      .Number("free", static_cast<int64_t>(pool.free.size()))
      .Number("reserved", static_cast<int64_t>(pool.reserved))
      .Number("surplus", static_cast<int64_t>(pool.surplus));
}

bool HugetlbPools::Grow(HugetlbPool& pool) {
  const Gfp gfp = (sizes_.movable ? kGfpHighuserMovable : kGfpHighuser) | kGfpComp | kGfpNoWarn | kGfpRetryMayFail;  // htlb_alloc_mask()
  const std::optional<Pfn> head = memory_.AllocPages(gfp, PageOrder(pool.order));
  vm_stat_.Count(head.has_value() ? VmEvent::kHtlbBuddyAllocSuccess : VmEvent::kHtlbBuddyAllocFail);
  if (!head.has_value()) {
    Explain(pool, "the page allocator has no block of that size, nor could one be made by reclaim and compaction");
    return false;
  }
  Frame& frame = memory_.frame(*head);
  frame.state = FrameState::kHugetlb;
  frame.refcount = 0;
  ++pool.total;
  pool.free.push_back(*head);
  return true;
}

bool HugetlbPools::GrowSurplus(HugetlbPool& pool) {
  if (pool.gigantic() || pool.surplus >= pool.overcommit) {
    Explain(pool, "no surplus page: nr_overcommit_hugepages are there");
    return false;
  }
  if (!Grow(pool)) return false;
  ++pool.surplus;
  Explain(pool, "a surplus page was made");
  return true;
}

// remove_hugetlb_page()
Pfn HugetlbPools::Remove(HugetlbPool& pool, size_t index) {
  const Pfn head = pool.free[index];
  pool.free.erase(pool.free.begin() + static_cast<ptrdiff_t>(index));
  --pool.total;
  return head;
}

// update_and_free_pages_bulk(): what was removed last is freed first.
void HugetlbPools::FreeRemoved(const HugetlbPool& pool, std::vector<Pfn>& removed) {
  for (; !removed.empty(); removed.pop_back()) {
    memory_.frame(removed.back()).refcount = 1;
    memory_.FreePages(removed.back(), PageOrder(pool.order));
  }
}

bool HugetlbPools::SetMaximum(size_t index, uint64_t count) {
  HugetlbPool& pool = pools_[index];
  if (pool.gigantic()) return count == 0;
  while (pool.surplus > 0 && count > pool.persistent()) --pool.surplus;
  while (count > pool.persistent()) {
    if (!Grow(pool)) {
      pool.maximum = pool.persistent();
      return true;
    }
  }
  const uint64_t least = std::max(count, pool.reserved + pool.total - pool.free.size());
  std::vector<Pfn> removed;
  // try_to_free_low(): what lies in low memory goes first. Without high memory that is all of it, and the order is the same.
  for (size_t i = pool.free.size(); i-- > 0 && least < pool.total;) {
    if (!memory_.InHighmem(pool.free[i])) removed.push_back(Remove(pool, i));
  }
  FreeRemoved(pool, removed);
  while (least < pool.persistent() && !pool.free.empty()) removed.push_back(Remove(pool, pool.free.size() - 1));
  FreeRemoved(pool, removed);
  // What is in use stays, as surplus.
  while (count < pool.persistent() && pool.surplus < pool.total) ++pool.surplus;
  pool.maximum = pool.persistent();
  Explain(pool, "the pool was resized");
  return true;
}

Errno HugetlbPools::SetOvercommit(size_t index, uint64_t count) {
  HugetlbPool& pool = pools_[index];
  if (pool.gigantic()) return Errno::kEINVAL;
  pool.overcommit = count;
  return Errno::kOk;
}

bool HugetlbPools::Reserve(size_t index, uint64_t pages) {
  if (pages == 0) return true;
  HugetlbPool& pool = pools_[index];
  // gather_surplus_pages()
  const uint64_t before = pool.total;
  bool enough = pages <= UINT64_MAX - pool.reserved;
  while (enough && pool.reserved + pages > pool.free.size()) enough = GrowSurplus(pool);
  const uint64_t made = pool.total - before;
  std::reverse(pool.free.end() - static_cast<ptrdiff_t>(made), pool.free.end());
  if (!enough) {
    std::vector<Pfn> removed;
    for (uint64_t i = 0; i < made; ++i) removed.push_back(Remove(pool, pool.free.size() - 1));
    pool.surplus -= made;
    FreeRemoved(pool, removed);
    Explain(pool, "the reservation is refused: too few free pages that nobody was promised");
    return false;
  }
  pool.reserved += pages;
  Explain(pool, "pages are reserved for the mapping");
  return true;
}

// return_unused_surplus_pages()
void HugetlbPools::Unreserve(size_t index, uint64_t pages) {
  if (pages == 0) return;
  HugetlbPool& pool = pools_[index];
  MMLAB_CHECK(pages <= pool.reserved);
  pool.reserved -= pages;
  std::vector<Pfn> removed;
  for (uint64_t left = std::min(pages, pool.surplus); left > 0 && !pool.free.empty(); --left) {
    --pool.surplus;
    removed.push_back(Remove(pool, pool.free.size() - 1));
  }
  FreeRemoved(pool, removed);
  Explain(pool, "a reservation is given back");
}

std::optional<Pfn> HugetlbPools::Take(size_t index, bool promised) {
  HugetlbPool& pool = pools_[index];
  if ((!promised && pool.available() == 0) || pool.free.empty()) {
    if (!GrowSurplus(pool)) {
      Explain(pool, "no huge page: every free one is promised to somebody else");
      return std::nullopt;
    }
  }
  const Pfn head = pool.free.back();
  pool.free.pop_back();
  if (promised) --pool.reserved;
  memory_.frame(head).refcount = 1;
  Explain(pool, promised ? "a huge page is taken that was reserved" : "a huge page is taken that nobody was promised");
  return head;
}

void HugetlbPools::Release(size_t index, Pfn head) {
  HugetlbPool& pool = pools_[index];
  Frame& frame = memory_.frame(head);
  MMLAB_CHECK(frame.refcount == 0 && frame.mapcount == 0 && frame.state == FrameState::kHugetlb);
  frame.flags &= kPgHead;
  frame.mapping = 0;
  frame.index = 0;
  if (pool.surplus > 0) {
    --pool.surplus;
    --pool.total;
    frame.refcount = 1;
    memory_.FreePages(head, PageOrder(pool.order));
    Explain(pool, "a surplus page goes back to the page allocator");
  } else {
    pool.free.push_back(head);
    Explain(pool, "a huge page goes back to its pool");
  }
}

void HugetlbPools::CheckInvariants(absl::Span<const uint64_t> used, absl::Span<const uint64_t> promised,
                                   std::vector<std::string>* violations) const {
  for (size_t i = 0; i < pools_.size(); ++i) {
    const HugetlbPool& pool = pools_[i];
    if (pool.free.size() + used[i] != pool.total || pool.surplus > pool.total || pool.reserved > pool.free.size()) {
      violations->push_back(absl::StrFormat("%s: %d pages, %d of them free and %d used, %d reserved, %d surplus", Name(i), pool.total,
                                            pool.free.size(), used[i], pool.reserved, pool.surplus));
    }
    if (promised[i] + pool.lost != pool.reserved) {
      violations->push_back(
          absl::StrFormat("%s: %d pages are reserved, %d by files and mappings, %d lost", Name(i), pool.reserved, promised[i], pool.lost));
    }
    for (const Pfn head : pool.free) {
      const Frame& frame = memory_.frame(head);
      if (frame.state != FrameState::kHugetlb || frame.refcount != 0 || frame.mapcount != 0 || frame.order != pool.order) {
        violations->push_back(absl::StrFormat("%s: free page 0x%x is in use", Name(i), head.raw()));
      }
    }
  }
}

void HugetlbPools::AddToHash(StateHasher& hasher) const {
  hasher.Add(sizes_.default_pool);
  for (const HugetlbPool& pool : pools_) {
    for (const uint64_t count : {pool.maximum, pool.total, pool.reserved, pool.surplus, pool.overcommit, pool.lost}) hasher.Add(count);
    for (const Pfn head : pool.free) hasher.Add(head.raw());
  }
}

uint64_t HugetlbPools::HostMemory() const {
  uint64_t bytes = pools_.capacity() * sizeof(HugetlbPool);
  for (const HugetlbPool& pool : pools_) bytes += pool.free.capacity() * sizeof(Pfn);
  return bytes;
}

}  // namespace mmlab

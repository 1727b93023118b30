#include "server/files/hugetlb_pools.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/arch/layout.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

// In the order in which the kernel adds them (hugetlbpage_init()): PUD_SIZE, CONT_PMD_SIZE, PMD_SIZE, CONT_PTE_SIZE. ARM64's kernel alone
// of the three moves huge pages. A page block is as large as what one pmd maps.
HugetlbPools::Sizes HugetlbPools::SizesOf(const Layout& layout) {
  if (layout.is_x86()) return {{layout.pageblock_order}, 0, 0, false};
  return {{18, 13, layout.pageblock_order, 4}, 2, 2, true};
}

// hugetlb_init_hstates(): pages are demoted to the next smaller size, unless somebody says otherwise.
void HugetlbPools::SetSizes(const Sizes& sizes) {
  sizes_ = sizes;
  pools_.clear();
  for (const int order : sizes.orders) {
    HugetlbPool& pool = pools_.emplace_back();
    pool.order = order;
    for (const int other : sizes.orders) {
      if (other < order) pool.demote_order = std::max(pool.demote_order, other);
    }
  }
}

std::optional<size_t> HugetlbPools::FindBySize(uint64_t bytes) const {
  for (size_t i = 0; i < pools_.size(); ++i) {
    if (memory_.page_size().BytesOf(PageCount(pools_[i].pages())).raw() == bytes) return i;
  }
  return std::nullopt;
}

std::optional<size_t> HugetlbPools::FindByLog(uint32_t log) const {
  if (log == 0) return sizes_.default_pool;
  return log < 64 ? FindBySize(uint64_t{1} << log) : std::nullopt;
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

// alloc_gigantic_page(), alloc_buddy_huge_page(), with htlb_alloc_mask(): gigantic pages are never where only movable ones may be.
std::optional<Pfn> HugetlbPools::Allocate(const HugetlbPool& pool) {
  if (pool.gigantic()) {
    const std::optional<Pfn> head = memory_.AllocContig(kGfpHighuser, PageOrder(pool.order), FrameState::kHugetlb);
    if (!head.has_value()) Explain(pool, "no range of that size could be emptied");
    return head;
  }
  const Gfp gfp = (sizes_.movable ? kGfpHighuserMovable : kGfpHighuser) | kGfpComp | kGfpNoWarn | kGfpRetryMayFail;
  const std::optional<Pfn> head = memory_.AllocPages(gfp, PageOrder(pool.order));
  vm_stat_.Count(head.has_value() ? VmEvent::kHtlbBuddyAllocSuccess : VmEvent::kHtlbBuddyAllocFail);
  if (!head.has_value()) {
    Explain(pool, "the page allocator has no block of that size, nor could one be made by reclaim and compaction");
  }
  return head;
}

// __update_and_free_page()
void HugetlbPools::GiveBack(const HugetlbPool& pool, Pfn head) {
  memory_.frame(head).refcount = 1;
  if (pool.gigantic()) {
    memory_.FreeContig(head, PageOrder(pool.order));
  } else {
    memory_.FreePages(head, PageOrder(pool.order));
  }
}

void HugetlbPools::AddBootPage(size_t pool, Pfn head) {
  Enqueue(pools_[pool], head);
  pools_[pool].maximum = pools_[pool].total;
}

// prep_new_huge_page()
void HugetlbPools::Enqueue(HugetlbPool& pool, Pfn head) {
  Frame& frame = memory_.frame(head);
  frame.state = FrameState::kHugetlb;
  frame.refcount = 0;
  ++pool.total;
  pool.free.push_back(head);
}

bool HugetlbPools::Grow(HugetlbPool& pool) {
  const std::optional<Pfn> head = Allocate(pool);
  if (!head.has_value()) return false;
  Enqueue(pool, *head);
  return true;
}

bool HugetlbPools::GrowSurplus(HugetlbPool& pool) {
  if (pool.gigantic() || pool.surplus >= pool.overcommit) {
    Explain(pool, pool.gigantic() ? "no surplus page: pages as large as these are never made on demand"
                                  : "no surplus page: nr_overcommit_hugepages are there");
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
  for (; !removed.empty(); removed.pop_back()) GiveBack(pool, removed.back());
}

void HugetlbPools::SetMaximum(size_t index, uint64_t count) {
  HugetlbPool& pool = pools_[index];
  while (pool.surplus > 0 && count > pool.persistent()) --pool.surplus;
  while (count > pool.persistent()) {
    if (!Grow(pool)) {
      pool.maximum = pool.persistent();
      return;
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
}

Errno HugetlbPools::SetDemoteSize(size_t index, uint64_t bytes) {
  const std::optional<size_t> smaller = FindBySize(bytes);
  if (!smaller.has_value() || pools_[*smaller].order < pools_[sizes_.pmd_pool].order) return Errno::kEINVAL;
  if (pools_[*smaller].order >= pools_[index].order) return Errno::kEINVAL;
  pools_[index].demote_order = pools_[*smaller].order;
  return Errno::kOk;
}

void HugetlbPools::Demote(size_t index, uint64_t count) {
  HugetlbPool& pool = pools_[index];
  size_t smaller = 0;
  while (pools_[smaller].order != pool.demote_order) ++smaller;
  for (; count > 0 && pool.available() > 0; --count) DemoteOne(pool, smaller);
  Explain(pool, "free pages that nobody was promised were demoted");
  Explain(pools_[smaller], "the pool that their parts went to");
}

// demote_free_huge_page()
void HugetlbPools::DemoteOne(HugetlbPool& pool, size_t smaller) {
  HugetlbPool& to = pools_[smaller];
  const Pfn head = Remove(pool, pool.free.size() - 1);
  for (uint64_t i = 0; i < pool.pages(); i += to.pages()) {
    Frame& frame = memory_.frame(head + PageCount(i));
    frame.Become(FrameState::kHugetlb);
    frame.flags = kPgHead;
    frame.order = static_cast<uint8_t>(to.order);
    ++to.total;
    Release(smaller, head + PageCount(i));  // Where the smaller pool has more than it keeps, parts go to the page allocator.
  }
  if (pool.maximum > 0) --pool.maximum;
  to.maximum += pool.pages() / to.pages();
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
    GiveBack(pool, head);
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
    hasher.Add(static_cast<uint64_t>(pool.demote_order));
    for (const Pfn head : pool.free) hasher.Add(head.raw());
  }
}

uint64_t HugetlbPools::HostMemory() const {
  uint64_t bytes = pools_.capacity() * sizeof(HugetlbPool);
  for (const HugetlbPool& pool : pools_) bytes += pool.free.capacity() * sizeof(Pfn);
  return bytes;
}

}  // namespace mmlab

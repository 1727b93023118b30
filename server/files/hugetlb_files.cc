// Files whose pages come from a pool of huge pages. Linux: fs/hugetlbfs/inode.c, hugetlb_reserve_pages() of mm/hugetlb.c.
#include <algorithm>
#include <utility>

#include "server/base/check.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/physical_memory.h"

namespace mmlab {
namespace {

constexpr uint32_t kHugetlbfsMinor = 14;  // Of the internal mounts: the default size's, then the others'.

}  // namespace

SysResult<std::shared_ptr<Inode>> Files::NewHugetlb(FileKind kind, const std::string& path, uint64_t size, size_t pool, bool reserve) {
  const size_t nth = pool == hugetlb_.default_pool() ? 0 : pool < hugetlb_.default_pool() ? pool + 1 : pool;
  std::shared_ptr<Inode> inode = NewInode(FileKind::kHugetlbfs, path, 0, kHugetlbfsMinor + static_cast<uint32_t>(nth));
  inode->kind = kind;
  inode->size = size;
  inode->noreserve = true;
  inode->hugetlb = std::make_unique<HugetlbInode>();
  inode->hugetlb->pool = pool;
  inode->hugetlb->reserved_at_creation = kind == FileKind::kSysvShm;
  if (reserve && !ReserveHugetlb(*inode, 0, size >> HugeShift(*inode))) return Errno::kENOMEM;
  return inode;
}

bool Files::ReserveHugetlb(Inode& inode, uint64_t first, uint64_t end) {
  HugetlbInode& huge = *inode.hugetlb;
  if (!hugetlb_.Reserve(huge.pool, end - first - huge.reserved.Count(first, end))) return false;
  huge.reserved.Add(first, end);
  return true;
}

void Files::AddHugetlbPage(Inode& inode, uint64_t index, Pfn head) {
  Frame& frame = memory_.frame(head);
  frame.mapping = inode.id;
  frame.index = index;
  frame.flags |= kPgUptodate | kPgDirty;
  inode.hugetlb->pages.emplace(index, head);
}

void Files::PutHugetlb(size_t pool, Pfn head) {
  Frame& frame = memory_.frame(head);
  MMLAB_CHECK(frame.refcount > 0);
  if (--frame.refcount == 0) hugetlb_.Release(pool, head);
}

void Files::RemoveHugetlb(Inode& inode, uint64_t first, uint64_t end, bool truncate) {
  HugetlbInode& huge = *inode.hugetlb;
  uint64_t freed = 0;
  for (auto it = huge.pages.lower_bound(first); it != huge.pages.end() && it->first < end; ++freed) {
    const auto [index, head] = *it;
    it = huge.pages.erase(it);
    if (!truncate) huge.reserved.Remove(index, index + 1);
    memory_.frame(head).flags &= ~uint32_t{kPgUptodate | kPgDirty};
    PutHugetlb(huge.pool, head);
  }
  // hugetlb_unreserve_pages()
  if (truncate) hugetlb_.Unreserve(huge.pool, huge.reserved.Remove(first, end) - freed);
}

void Files::UnmapHugetlb(Inode& inode, uint64_t first, uint64_t end) {
  if (mapper_ == nullptr) return;
  const int order = hugetlb_.pool(inode.hugetlb->pool).order;
  const uint64_t most = ~uint64_t{0} >> order;
  mapper_->UnmapFilePages(inode, PageIndex(first << order), PageIndex(end > most ? ~uint64_t{0} : end << order), true);
}

Errno Files::TruncateHugetlb(Inode& inode, uint64_t size) {
  const int shift = HugeShift(inode);
  if ((size & ((uint64_t{1} << shift) - 1)) != 0) return Errno::kEINVAL;
  inode.size = size;
  UnmapHugetlb(inode, size >> shift, ~uint64_t{0});
  RemoveHugetlb(inode, size >> shift, ~uint64_t{0}, /*truncate=*/true);
  return Errno::kOk;
}

Errno Files::PunchHugetlbHole(Inode& inode, uint64_t offset, uint64_t length) {
  const int shift = HugeShift(inode);
  const uint64_t mask = (uint64_t{1} << shift) - 1;
  const uint64_t end = offset + length;
  const uint64_t hole_start = (offset + mask) & ~mask;
  const uint64_t hole_end = end & ~mask;
  if (offset < hole_start) ZeroHugetlb(inode, offset, std::min(end, hole_start));
  if (hole_end > hole_start) UnmapHugetlb(inode, hole_start >> shift, hole_end >> shift);
  if (end > hole_end && end > hole_start) ZeroHugetlb(inode, hole_end, end);
  if (hole_end > hole_start) RemoveHugetlb(inode, hole_start >> shift, hole_end >> shift, /*truncate=*/false);
  return Errno::kOk;
}

// hugetlbfs_zero_partial_page(): bytes within one huge page, if it is there.
void Files::ZeroHugetlb(Inode& inode, uint64_t from, uint64_t to) {
  const int shift = HugeShift(inode);
  const auto it = inode.hugetlb->pages.find(from >> shift);
  if (it == inode.hugetlb->pages.end()) return;
  const std::string zeros(page_size_.bytes().raw(), '\0');
  while (from < to) {
    const uint64_t in_huge = from & ((uint64_t{1} << shift) - 1);
    const uint64_t in_page = from & page_size_.mask();
    const uint64_t count = std::min(to - from, page_size_.bytes().raw() - in_page);
    memory_.contents().Write(it->second + PageCount(in_huge >> page_size_.shift()), in_page, zeros.data(), count);
    from += count;
  }
}

}  // namespace mmlab

#include <algorithm>
#include <optional>
#include <string>

#include "server/arch/layout.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/process/processes.h"
#include "server/process/user_memory.h"

// How bytes move between a file and a process's memory: mm/filemap.c, mm/shmem.c, lib/iov_iter.c.

namespace mmlab {

Errno Processes::Access(Pid pid, const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal, std::string& data) {
  Process* process = Enter(pid);
  if (process == nullptr || process->mm == nullptr) return Errno::kESRCH;
  return UserMemory(Core(), memory_, *process).Access(request, result, signal, data);
}

// filemap_get_pages(): the page that a read goes on with, after reading it and those ahead from the disk. Nothing: a hole.
SysResult<std::optional<Pfn>> Processes::CachedPage(OpenFile& file, PageIndex index, uint64_t wanted, bool first) {
  Inode& inode = *file.inode;
  if (!files_.FindPage(inode, index).has_value()) files_.ReadAhead(file, index, wanted);
  files_.ReadAheadMarked(file, index, wanted);
  const auto page = files_.PageForRead(inode, index);
  if (!page.ok()) return page.error();
  if (!page.value().has_value()) return std::optional<Pfn>();
  const Pfn pfn = page.value()->pfn;
  if (page.value()->major) memory_.WaitForRead(pfn);
  // One use, however small the pieces in which a page is read.
  const int64_t previous = file.readahead.previous;
  const bool same_page = first && previous > 0 && static_cast<uint64_t>(previous - 1) >> layout_.page_size.shift() == index.raw();
  if (!same_page) memory_.lru().MarkAccessed(files_.HeadOf(pfn));
  return std::optional<Pfn>(pfn);
}

// A page of a file of hugetlbfs. Nothing: a hole.
std::optional<Pfn> Processes::HugetlbPage(const Inode& inode, PageIndex index) const {
  const int order = files_.hugetlb().pool(inode.hugetlb->pool).order;
  const auto page = inode.hugetlb->pages.find(index.raw() >> order);
  if (page == inode.hugetlb->pages.end()) return std::nullopt;
  return page->second + PageCount(index.raw() & ((uint64_t{1} << order) - 1));
}

SysResult<uint64_t> Processes::ReadFile(Process& process, OpenFile& file, uint64_t address, uint64_t length, uint64_t offset) {
  UserMemory user(Core(), memory_, process);
  Inode& inode = *file.inode;
  if (inode.kind == FileKind::kDevZero) {
    const uint64_t cleared = user.Clear(address, length);
    if (cleared == 0 && length > 0) return Errno::kEFAULT;
    return cleared;
  }
  const PageSize page_size = layout_.page_size;
  std::string bytes;
  uint64_t done = 0;
  while (done < length && offset + done < inode.size) {
    const uint64_t position = offset + done;
    const uint64_t in_page = position & page_size.mask();
    const uint64_t count = std::min({length - done, page_size.bytes().raw() - in_page, inode.size - position});
    const PageIndex index(position >> page_size.shift());
    const uint64_t wanted = page_size.PagesHolding(Bytes(offset + length)).raw() - index.raw();
    const SysResult<std::optional<Pfn>> page =
        inode.hugetlb != nullptr ? SysResult<std::optional<Pfn>>(HugetlbPage(inode, index)) : CachedPage(file, index, wanted, done == 0);
    if (!page.ok()) return done > 0 ? SysResult<uint64_t>(done) : page.error();
    bytes.assign(count, '\0');
    if (page.value().has_value()) memory_.contents().Read(*page.value(), in_page, bytes.data(), count);
    const uint64_t copied = user.CopyTo(address + done, bytes.data(), count);
    done += copied;
    if (inode.hugetlb == nullptr) file.readahead.previous = static_cast<int64_t>(offset + done);
    if (copied < count) return done > 0 ? SysResult<uint64_t>(done) : Errno::kEFAULT;
  }
  return done;
}

SysResult<uint64_t> Processes::WriteFile(Process& process, OpenFile& file, uint64_t address, uint64_t length, uint64_t offset) {
  Inode& inode = *file.inode;
  if (inode.kind == FileKind::kDevZero) return length;  // write_null() does not even look at the bytes.
  if (inode.hugetlb != nullptr) return Refuse(Errno::kEINVAL, "files of hugetlbfs can't be written, only mapped");
  UserMemory user(Core(), memory_, process);
  const PageSize page_size = layout_.page_size;
  std::string bytes;
  uint64_t done = 0;
  while (done < length) {
    // generic_perform_write(): a page of the file at a time; its source is faulted in first, then copied without faults.
    const uint64_t position = offset + done;
    const uint64_t in_page = position & page_size.mask();
    const uint64_t wanted = std::min(length - done, page_size.bytes().raw() - in_page);
    const uint64_t count = user.FaultInReadable(address + done, wanted);
    if (count == 0) return done > 0 ? SysResult<uint64_t>(done) : Errno::kEFAULT;
    // __block_write_begin_int(): what is written as a whole, or lies behind the end, need not be read.
    const bool overwritten = wanted == page_size.bytes().raw() || position - in_page >= inode.size;
    const auto page = files_.PageForWrite(inode, PageIndex(position >> page_size.shift()), HugeAdvice::kNone, overwritten);
    if (!page.ok()) return done > 0 ? SysResult<uint64_t>(done) : page.error();
    bytes.resize(count);
    // The source may have to be faulted in again; the page of the file is held meanwhile, so that reclaim does not take it.
    Frame& held = memory_.frame(page.value().pfn);
    ++held.refcount;
    const uint64_t copied = user.CopyFrom(address + done, bytes.data(), count);
    --held.refcount;
    if (copied < count) return done > 0 ? SysResult<uint64_t>(done) : Errno::kEFAULT;
    memory_.contents().Write(page.value().pfn, in_page, bytes.data(), count);
    files_.MarkDirty(inode, page.value().pfn);
    inode.size = std::max(inode.size, position + count);
    files_.BalanceDirty();
    done += count;
  }
  return done;
}

}  // namespace mmlab

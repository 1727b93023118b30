#include "server/files/files.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/physical/contents.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"

namespace mmlab {
namespace {

// Device numbers as maps shows them: the disk, and unnamed devices for the file systems without one.
constexpr uint32_t kDiskMajor = 8;
constexpr uint32_t kDiskMinor = 1;
constexpr uint32_t kTmpfsMinor = 25;
constexpr uint32_t kInternalShmemMinor = 1;
constexpr uint32_t kDevMinor = 5;

constexpr uint64_t kQueueBytes = 576;  // That an empty std::deque has.
constexpr uint64_t kMaxFileSize = uint64_t{1} << 63;
constexpr uint64_t kMaxExt4Size = 0xffffffff000;  // s_maxbytes with 4 KiB blocks.

}  // namespace

Files::Files(PhysicalMemory& memory, VmStat& vm_stat, Tracer& tracer)
    : page_size_(memory.page_size()),
      memory_(memory),
      vm_stat_(vm_stat),
      tracer_(tracer),
      swap_(memory, vm_stat, tracer),
      hugetlb_(memory, vm_stat, tracer) {
  by_path_["/dev/zero"] = NewInode(FileKind::kDevZero, "/dev/zero", 0, kDevMinor);
}

Files::~Files() = default;

std::shared_ptr<Inode> Files::NewInode(FileKind kind, std::string path, uint32_t major, uint32_t minor) {
  auto inode = std::make_unique<Inode>();
  inode->id = next_id_++;
  inode->kind = kind;
  inode->number = next_number_++;
  inode->device_major = major;
  inode->device_minor = minor;
  inode->path = std::move(path);
  inode->pages.SetKernelObjects(kernel_objects_);
  by_id_[inode->id] = inode.get();
  if (inode->shmem()) inode->object = KernelObjectRef(kernel_objects_, KernelObject::kShmemInode);
  if (kind == FileKind::kBlockDevice) inode->object = KernelObjectRef(kernel_objects_, KernelObject::kBdevInode);
  if (kind == FileKind::kHugetlbfs) inode->object = KernelObjectRef(kernel_objects_, KernelObject::kHugetlbInode);
  if (kind == FileKind::kPipe) {
    inode->object = KernelObjectRef(kernel_objects_, KernelObject::kInode);
    inode->pipe = KernelObjectRef(kernel_objects_, KernelObject::kPipeInfo);
    inode->pipe_buffers = KernelObjectRef(kernel_objects_, KernelObject::kPipeBuffers);
  }
  inode->dentry = KernelObjectRef(kernel_objects_, KernelObject::kDentry);
  return std::shared_ptr<Inode>(inode.release(), [this](Inode* dead) {
    Evict(*dead);
    delete dead;
  });
}

void Files::Evict(Inode& inode) {
  if (inode.hugetlb != nullptr) RemoveHugetlb(inode, 0, ~uint64_t{0}, /*truncate=*/true);
  RemovePages(inode, PageIndex(0), PageIndex(~uint64_t{0}));
  if (inode.kind == FileKind::kBlockDevice) disks_.erase(inode.id);
  if (inode.shmem() && !inode.noreserve) Uncharge(static_cast<int64_t>(page_size_.PagesHolding(Bytes(inode.size)).raw()));
  by_id_.erase(inode.id);
  if (found_ == &inode) found_ = nullptr;
}

SysResult<std::shared_ptr<Inode>> Files::CreateFile(const std::string& path, FileKind kind, uint64_t size, absl::string_view content,
                                                    bool resident, const MountOptions& mount) {
  if (path.empty() || path[0] != '/' || size >= kMaxFileSize) return Errno::kEINVAL;
  if (by_path_.contains(path)) return Errno::kEEXIST;
  if (kind == FileKind::kHugetlbfs) {
    const std::optional<size_t> pool = mount.huge_page_bytes == 0 ? hugetlb_.default_pool() : hugetlb_.FindBySize(mount.huge_page_bytes);
    if (!pool.has_value() || !content.empty()) return Errno::kEINVAL;
    if ((size & (page_size_.BytesOf(PageCount(hugetlb_.pool(*pool).pages())).raw() - 1)) != 0) return Errno::kEINVAL;
    MMLAB_TRY_ASSIGN(std::shared_ptr<Inode> made, NewHugetlb(kind, path, size, *pool, /*reserve=*/false));
    by_path_[path] = made;
    return made;
  }
  const bool on_disk = kind == FileKind::kExt4 || kind == FileKind::kBlockDevice;
  const uint32_t major = kind == FileKind::kExt4 ? kDiskMajor : 0;
  const uint32_t minor = kind == FileKind::kExt4 ? kDiskMinor : kind == FileKind::kBlockDevice ? kDevMinor : kTmpfsMinor;
  std::shared_ptr<Inode> inode = NewInode(kind, path, major, minor);
  inode->noreserve = !on_disk;
  inode->huge = mount.tmpfs_huge;
  inode->size = std::max<uint64_t>(size, content.size());
  if (on_disk) inode->disk = std::string(content);
  if (on_disk && resident) {
    for (PageIndex index; index < EndIndex(*inode); ++index) {
      auto page = PageForRead(*inode, index);
      if (!page.ok()) return page.error();
    }
  }
  if (!on_disk) {
    if (const Errno error = WriteContent(*inode, 0, content); error != Errno::kOk) return error;
  }
  by_path_[path] = inode;
  return inode;
}

std::shared_ptr<Inode> Files::Find(const std::string& path) const {
  const auto it = by_path_.find(path);
  return it == by_path_.end() ? nullptr : it->second;
}

SysResult<std::shared_ptr<Inode>> Files::NewShmem(FileKind kind, const std::string& path, uint64_t size, bool noreserve) {
  if (!noreserve && !Charge(static_cast<int64_t>(page_size_.PagesHolding(Bytes(size)).raw()))) return Errno::kENOMEM;
  std::shared_ptr<Inode> inode = NewInode(kind, path, 0, kInternalShmemMinor);
  inode->noreserve = noreserve;
  inode->size = size;
  return inode;
}

std::shared_ptr<Inode> Files::NewPipe() { return NewInode(FileKind::kPipe, "pipe:", 0, kDevMinor); }

Errno Files::Truncate(Inode& inode, uint64_t size) {
  if (inode.hugetlb != nullptr) return TruncateHugetlb(inode, size);
  const uint64_t old_size = inode.size;
  const bool shmem = inode.shmem();
  if (shmem && !inode.noreserve && size != old_size) {
    const auto pages = static_cast<int64_t>(page_size_.PagesHolding(Bytes(size)).raw());
    const auto old_pages = static_cast<int64_t>(page_size_.PagesHolding(Bytes(old_size)).raw());
    if (pages > old_pages && !Charge(pages - old_pages)) return Errno::kENOMEM;
    if (pages < old_pages) Uncharge(old_pages - pages);
  }
  inode.size = size;
  if (inode.disk.size() > size) inode.disk.resize(size);
  if (size > old_size) return Errno::kOk;
  const PageIndex first_gone = EndIndex(inode);
  const PageIndex end(~uint64_t{0});
  const bool pages_behind = page_size_.PagesHolding(Bytes(old_size)) > page_size_.PagesHolding(Bytes(size));
  if ((pages_behind || !shmem) && mapper_ != nullptr) mapper_->UnmapFilePages(inode, first_gone, end, true);
  RemovePages(inode, first_gone, end);
  const uint64_t page_end = page_size_.BytesOf(first_gone - PageIndex()).raw();
  if (size < page_end) ZeroBytes(inode, size, page_end);
  return Errno::kOk;
}

Errno Files::PunchHole(Inode& inode, uint64_t offset, uint64_t length) {
  if (inode.kind == FileKind::kDevZero || inode.kind == FileKind::kPipe) return Errno::kEOPNOTSUPP;
  if (length == 0 || offset + length < offset || offset + length >= kMaxFileSize) return Errno::kEINVAL;
  const uint64_t end = offset + length;
  if (inode.hugetlb != nullptr) return PunchHugetlbHole(inode, offset, length);
  if (inode.kind == FileKind::kExt4 && end > kMaxExt4Size) return Errno::kEFBIG;
  const PageIndex first = PageIndex() + page_size_.PagesHolding(Bytes(offset));
  const PageIndex last = PageIndex() + page_size_.WholePagesIn(Bytes(end));
  if (first < last) {
    if (mapper_ != nullptr) mapper_->UnmapFilePages(inode, first, last, false);
    RemovePages(inode, first, last);
    if (!inode.disk.empty()) {
      const uint64_t from = std::min<uint64_t>(inode.disk.size(), page_size_.BytesOf(first - PageIndex()).raw());
      const uint64_t to = std::min<uint64_t>(inode.disk.size(), page_size_.BytesOf(last - PageIndex()).raw());
      std::fill(inode.disk.begin() + static_cast<ptrdiff_t>(from), inode.disk.begin() + static_cast<ptrdiff_t>(to), '\0');
    }
  }
  const uint64_t whole_start = page_size_.BytesOf(first - PageIndex()).raw();
  const uint64_t whole_end = page_size_.BytesOf(last - PageIndex()).raw();
  if (whole_start > whole_end) {
    ZeroBytes(inode, offset, end);
    return Errno::kOk;
  }
  if (offset < whole_start) ZeroBytes(inode, offset, std::min(whole_start, end));
  if (whole_end < end) ZeroBytes(inode, std::max(whole_end, offset), end);
  return Errno::kOk;
}

Errno Files::Unlink(const std::string& path) {
  const auto it = by_path_.find(path);
  if (it == by_path_.end()) return Errno::kENOENT;
  if (it->second->swap_area || it->second->kind == FileKind::kDevZero) return Errno::kEPERM;
  by_path_.erase(it);
  return Errno::kOk;
}

Errno Files::WriteContent(Inode& inode, uint64_t offset, absl::string_view data) {
  while (!data.empty()) {
    const uint64_t in_page = offset & page_size_.mask();
    const size_t count = std::min<size_t>(data.size(), page_size_.bytes().raw() - in_page);
    auto page = PageForWrite(inode, PageIndex(offset >> page_size_.shift()));
    if (!page.ok()) return page.error();
    const Pfn pfn = page.value().pfn;
    memory_.contents().Write(pfn, in_page, data.data(), count);
    MarkDirty(inode, pfn);
    inode.size = std::max(inode.size, offset + count);
    offset += count;
    data.remove_prefix(count);
  }
  return Errno::kOk;
}

Inode* Files::FindById(uint32_t id) const {
  if (found_ != nullptr && found_->id == id) return found_;
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : found_ = it->second;
}

void Files::CheckInvariants(std::vector<std::string>* violations) const {
  uint64_t cached = 0;
  uint64_t shmem = 0;
  uint64_t buffers = 0;
  uint64_t all_dirty = 0;
  uint64_t tmpfs = 0;
  for (const auto& [id, inode] : by_id_) {
    if (inode->kind == FileKind::kTmpfs) tmpfs += inode->pages.pages() + inode->pages.swapped();
    cached += inode->pages.pages();
    if (inode->shmem()) shmem += inode->pages.pages();
    if (inode->kind == FileKind::kBlockDevice) buffers += inode->pages.pages();
    all_dirty += inode->dirty_pages;
    uint64_t dirty = 0, under_way = 0;
    for (const auto& [index, pfn] : inode->pages.Pages()) {
      const Frame& frame = memory_.frame(pfn);
      if (inode->on_disk() && (frame.flags & kPgDirty) != 0) ++dirty;
      if (inode->on_disk() && (frame.flags & kPgWriteback) != 0) ++under_way;
      if (IsCompound(frame)) continue;
      const FrameState state = inode->shmem() ? FrameState::kShmem : FrameState::kFile;
      if (frame.state != state || frame.mapping != id || frame.index != index.raw() || frame.refcount < 1 + frame.mapcount) {
        violations->push_back(
            absl::StrFormat("page %d of file %d (%s): frame 0x%x has state %d, mapping %d, index %d, %d references, %d maps", index.raw(),
                            id, inode->path, pfn.raw(), static_cast<int>(frame.state), static_cast<uint64_t>(frame.mapping),
                            static_cast<uint64_t>(frame.index), frame.refcount, frame.mapcount));
      }
    }
    if (dirty != inode->dirty_pages || under_way != inode->under_way) {
      violations->push_back(absl::StrCat(dirty, " pages of ", inode->path, " are dirty, counted ", inode->dirty_pages, "; ", under_way,
                                         " are under way, counted ", inode->under_way));
    }
  }
  CheckHugeShmem(violations);
  const auto expect = [violations](absl::string_view what, int64_t counter, uint64_t counted) {
    if (counter != static_cast<int64_t>(counted)) violations->push_back(absl::StrCat(what, " is ", counter, ", counted ", counted));
  };
  expect("nr_file_pages", vm_stat_.Get(NodeStat::kNrFilePages), cached + swap_.cached_pages());
  expect("nr_dirty", vm_stat_.Get(NodeStat::kNrDirty), all_dirty);
  expect("nr_writeback", vm_stat_.Get(NodeStat::kNrWriteback), under_way_.size());
  expect("nr_shmem", vm_stat_.Get(NodeStat::kNrShmem), shmem);
  expect("the number of pages of tmpfs", static_cast<int64_t>(tmpfs_pages_), tmpfs);
  expect("the number of pages of block devices", static_cast<int64_t>(buffer_pages_), buffers);
}

void Files::AddToHash(StateHasher& hasher) const {
  hasher.Add(next_id_);
  for (const auto& [id, inode] : by_id_) {
    hasher.Add(id);
    hasher.Add(inode->number);
    hasher.Add(static_cast<uint64_t>(inode->kind));
    hasher.Add(inode->size);
    hasher.Add(inode->noreserve ? 1 : 0);
    hasher.Add(static_cast<uint64_t>(inode->huge));
    hasher.AddBytes(inode->path.data(), inode->path.size());
    hasher.AddBytes(inode->disk.data(), inode->disk.size());
    inode->pages.AddToHash(hasher);
    if (inode->hugetlb != nullptr) {
      hasher.Add(inode->hugetlb->pool);
      inode->hugetlb->reserved.AddToHash(hasher);
      for (const auto& [index, head] : inode->hugetlb->pages) {
        hasher.Add(index);
        hasher.Add(head.raw());
      }
    }
    hasher.Add(inode->swap_area ? 1 : 0);
    hasher.Add(static_cast<uint64_t>(inode->dirtied_when));
  }
  hasher.Add(dirtied_since_check_);
  for (const Write& write : under_way_) {
    hasher.Add(write.pfn.raw());
    hasher.Add(static_cast<uint64_t>(write.due));
  }
  hasher.Add(static_cast<uint64_t>(disk_free_at_));
  hasher.Add(static_cast<uint64_t>(waited_until_));
  swap_.AddToHash(hasher);
  hugetlb_.AddToHash(hasher);
  hasher.Add(static_cast<uint64_t>(shmem_enabled_) << 8 | static_cast<uint64_t>(internal_huge_));
}

Bytes Files::HostMemory() const {
  Bytes total(sizeof(Files) + swap_.HostMemory() + hugetlb_.HostMemory() + under_way_.size() * sizeof(Write) + kQueueBytes +
              disks_.size() * sizeof(DiskStats));
  for (const auto& [id, inode] : by_id_) {
    total +=
        Bytes(sizeof(Inode) + inode->path.capacity() + inode->disk.capacity() + inode->pages.HostMemory() + inode->mappings.size() * 24);
    if (inode->hugetlb != nullptr) {
      total += Bytes(sizeof(HugetlbInode) + inode->hugetlb->pages.size() * 20 + inode->hugetlb->reserved.ranges() * 20);
    }
  }
  return total;
}

}  // namespace mmlab

#ifndef MMLAB_SERVER_FILES_OPEN_FILE_H_
#define MMLAB_SERVER_FILES_OPEN_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/btree_map.h"
#include "server/base/address.h"
#include "server/files/page_slots.h"
#include "server/files/reserve_map.h"
#include "server/kernel/kernel_objects.h"

namespace mmlab {

struct VmArea;

enum class FileKind : uint8_t { kTmpfs, kExt4, kMemfd, kSysvShm, kSharedAnon, kDevZero, kPipe, kBlockDevice, kHugetlbfs };

// Which files of a tmpfs get transparent huge pages: its mount option huge= (SHMEM_HUGE_*).
enum class ShmemHuge : uint8_t { kNever, kAlways, kWithinSize, kAdvise };

// /sys/kernel/mm/transparent_hugepage/shmem_enabled; the first four are also the option of the kernel's own mount, in the order of
// ShmemHuge.
enum class ShmemEnabled : uint8_t { kNever, kAlways, kWithinSize, kAdvise, kDeny, kForce };
// What madvise(), for the mapping of a fault, says of huge pages.
enum class HugeAdvice : uint8_t { kNone, kYes, kNo };

// How a file system is mounted.
struct MountOptions {
  uint64_t huge_page_bytes = 0;              // hugetlbfs: pagesize=, 0 the default size.
  ShmemHuge tmpfs_huge = ShmemHuge::kNever;  // tmpfs: huge=
};

// What a file of huge pages has beside the rest. Linux: struct hugetlbfs_inode_info.
struct HugetlbInode {
  size_t pool = 0;                       // Index in HugetlbPools.
  bool reserved_at_creation = false;     // S_PRIVATE: SysV shm, whose mappings reserve nothing.
  ReserveMap reserved;                   // Pages that are reserved or there, by number of huge page.
  absl::btree_map<uint64_t, Pfn> pages;  // Page cache, by number of huge page; the first frame of each.
};

// A file's identity and its pages in memory. Linux: struct inode with its address_space (i_pages).
struct Inode {
  uint32_t id = 0;  // Frame::mapping of its pages; never 0.
  FileKind kind = FileKind::kTmpfs;
  uint64_t number = 0;  // Inode number as maps prints it.
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::string path;   // As maps shows it: "/path", "/memfd:name (deleted)", "/SYSV00000000 (deleted)", "/dev/zero (deleted)".
  uint64_t size = 0;  // i_size, bytes.
  // On a disk: the first bytes of what is there, zeros behind them; a page outside the page cache is read from here.
  std::string disk;
  PageSlots pages;                     // Page cache, what reclaim evicted from it (mm/workingset.c), and what of shmem is on swap areas.
  uint32_t under_way = 0;              // On a disk: how many pages are being written,
  uint32_t dirty_pages = 0;            // how many have yet to be,
  int64_t dirtied_when = 0;            // and since when there have been any: machine time in nanoseconds.
  bool swap_area = false;              // S_SWAPFILE: it is one that is in use.
  bool noreserve = false;              // Shared anonymous memory and SysV shm: VM_NORESERVE at creation (accounted page by page).
  ShmemHuge huge = ShmemHuge::kNever;  // kTmpfs: huge= of its mount.
  uint32_t huge_pages = 0;             // Of shmem: how many huge ones `pages` holds, by each of their small pages.
  int writable_mappings = 0;           // i_mmap_writable
  absl::btree_map<uint64_t, VmArea*> mappings;  // i_mmap: the VMAs that map it, by VmArea::file_link (in the order of their making).
  uint64_t mappings_made = 0;
  std::unique_ptr<HugetlbInode> hugetlb;  // hugetlbfs, and memfd and SysV shm of huge pages; then `pages` stays empty. Else null.
  KernelObjectRef object;                 // The structure that holds it,
  KernelObjectRef dentry;                 // its name,
  KernelObjectRef pipe;                   // of a pipe its state
  KernelObjectRef pipe_buffers;           // and its ring of pages.
  bool on_disk() const { return kind == FileKind::kExt4 || kind == FileKind::kBlockDevice; }
  bool shmem() const {
    return hugetlb == nullptr && !on_disk() && kind != FileKind::kDevZero && kind != FileKind::kPipe && kind != FileKind::kHugetlbfs;
  }
};

// How a file is being read, to read ahead of it. Linux: struct file_ra_state.
struct ReadaheadState {
  uint64_t start = 0;       // The window that was read last: its first page,
  uint64_t size = 0;        // its pages,
  uint64_t async_size = 0;  // and how many of them are left when the next one is read.
  uint32_t mmap_miss = 0;   // Faults that found nothing, less those that found something.
  int64_t previous = -1;    // Where the last read ended, bytes.
};

// An open file description. Linux: struct file.
class OpenFile {
 public:
  OpenFile(std::shared_ptr<Inode> of, bool may_read, bool may_write) : inode(std::move(of)), readable(may_read), writable(may_write) {}
  const std::shared_ptr<Inode> inode;
  const bool readable;
  const bool writable;
  ReadaheadState readahead;
  KernelObjectRef object;    // Its struct file,
  KernelObjectRef security;  // and what the security modules keep with it.
  // Takes both. Null: objects are not accounted.
  void Account(KernelObjects* objects) {
    object = KernelObjectRef(objects, KernelObject::kFilp);
    security = KernelObjectRef(objects, KernelObject::kFileSecurity);
  }
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_OPEN_FILE_H_

#ifndef MMLAB_SERVER_FILES_OPEN_FILE_H_
#define MMLAB_SERVER_FILES_OPEN_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/btree_map.h"
#include "server/base/address.h"
#include "server/kernel/kernel_objects.h"

namespace mmlab {

struct VmArea;

enum class FileKind : uint8_t { kTmpfs, kExt4, kMemfd, kSysvShm, kSharedAnon, kDevZero, kPipe };

// A file's identity and its pages in memory. Linux: struct inode with its address_space (i_pages).
struct Inode {
  uint32_t id = 0;  // Frame::mapping of its pages; never 0.
  FileKind kind = FileKind::kTmpfs;
  uint64_t number = 0;  // Inode number as maps prints it.
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::string path;   // As maps shows it: "/path", "/memfd:name (deleted)", "/SYSV00000000 (deleted)", "/dev/zero (deleted)".
  uint64_t size = 0;  // i_size, bytes.
  std::string disk;   // kExt4: the first bytes of what is on the disk, zeros behind them; a page outside the page cache is read from here.
  absl::btree_map<PageIndex, Pfn> pages;         // Page cache.
  absl::btree_map<PageIndex, uint64_t> shadows;  // What reclaim left behind of pages that it evicted (mm/workingset.c).
  bool noreserve = false;                        // Shared anonymous memory and SysV shm: VM_NORESERVE at creation (accounted page by page).
  int writable_mappings = 0;                     // i_mmap_writable
  absl::btree_map<uint64_t, VmArea*> mappings;   // i_mmap: the VMAs that map it, by VmArea::file_link (in the order of their making).
  uint64_t mappings_made = 0;
  KernelObjectRef object;  // The structure that holds it,
  KernelObjectRef dentry;  // and its name.
  bool shmem() const { return kind != FileKind::kExt4 && kind != FileKind::kDevZero && kind != FileKind::kPipe; }
};

// An open file description. Linux: struct file.
class OpenFile {
 public:
  OpenFile(std::shared_ptr<Inode> of, bool may_read, bool may_write) : inode(std::move(of)), readable(may_read), writable(may_write) {}
  const std::shared_ptr<Inode> inode;
  const bool readable;
  const bool writable;
  KernelObjectRef object;  // Its struct file.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_OPEN_FILE_H_

#ifndef MMLAB_SERVER_FILES_FILES_H_
#define MMLAB_SERVER_FILES_FILES_H_

#include <cstdint>
#include <memory>
#include <string>

#include "server/base/errno.h"
#include "server/base/result.h"
#include "server/files/commit_charger.h"
#include "server/files/open_file.h"

namespace mmlab {

class PhysicalMemory;
class Tracer;
class VmStat;

// The files of a machine and their pages in memory. Linux: mm/filemap.c, mm/shmem.c, mm/truncate.c.
//
// An inode lives as long as somebody holds it: the table of paths, open files, mappings. With the last holder its pages and its commit
// charge are given back.
class Files {
 public:
  Files(PhysicalMemory& memory, VmStat& vm_stat, Tracer& tracer);
  ~Files();

  // Who accounts shmem. Given by Processes before any file is made; until then nothing is charged.
  void SetCommitCharger(CommitCharger* charger);

  // The file at a path, "/dev/zero" among them; null when there is none.
  std::shared_ptr<Inode> Find(const std::string& path) const;
  std::shared_ptr<Inode> NewPipe();
  // shmem_file_setup() for memfd, SysV shm and shared anonymous memory. Without noreserve the whole size is charged now; kENOMEM when the
  // overcommit rule refuses that.
  SysResult<std::shared_ptr<Inode>> NewShmem(FileKind kind, const std::string& path, uint64_t size, bool noreserve);

  // vfs_truncate() after its checks: changes the size, takes pages beyond it out of memory and out of all mappings (private copies too).
  Errno Truncate(Inode& inode, uint64_t size);
  // vfs_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE): whole pages go, from mappings too; parts of pages become zero.
  Errno PunchHole(Inode& inode, uint64_t offset, uint64_t length);
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_FILES_H_

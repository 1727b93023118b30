#ifndef MMLAB_SERVER_PROCESS_SHM_TABLE_H_
#define MMLAB_SERVER_PROCESS_SHM_TABLE_H_

#include <cstdint>
#include <memory>

#include "absl/container/btree_map.h"
#include "server/files/open_file.h"

namespace mmlab {

// A System V shared memory segment. Linux: struct shmid_kernel, ipc/shm.c. Attached as many times as VMAs map its inode.
struct ShmSegment {
  int32_t id = 0;
  int32_t key = 0;  // 0 = IPC_PRIVATE, and again after IPC_RMID.
  uint64_t size = 0;
  uint32_t mode = 0;  // Permission bits.
  uint32_t creator_uid = 0;
  bool marked = false;          // SHM_DEST: goes with the last detach.
  std::shared_ptr<Inode> kept;  // Null once marked: then only its mappings keep it.
  std::weak_ptr<Inode> inode;
};

// The segments of a machine by id, with ids given out as ipc/util.c does (ipc_addid()).
class ShmTable {
 public:
  // Each of these first forgets the marked segments that nobody has attached any more.
  ShmSegment* Find(int32_t id);
  ShmSegment* FindByKey(int32_t key);
  ShmSegment& Add(ShmSegment segment);
  // IPC_RMID
  void Remove(ShmSegment& segment);
  uint64_t total_pages();  // shm_tot
  const absl::btree_map<int32_t, ShmSegment>& all() const { return by_index_; }

 private:
  void DropUnused();

  absl::btree_map<int32_t, ShmSegment> by_index_;  // By the lower 15 bits of the id.
  int32_t last_index_ = -1;
  int32_t next_index_ = 0;
  int32_t sequence_ = 0;
  uint64_t total_pages_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_SHM_TABLE_H_

#ifndef MMLAB_SERVER_FILES_COMMIT_CHARGER_H_
#define MMLAB_SERVER_FILES_COMMIT_CHARGER_H_

#include <cstdint>

namespace mmlab {

// The machine's commit charge (vm_committed_as) as files see it: shmem charges a whole object at once or, when the object was made with
// VM_NORESERVE, each page as it comes to be. On behalf of the process whose system call or fault is running. Done by
// process/commit_account.h.
class CommitCharger {
 public:
  virtual ~CommitCharger() = default;
  // security_vm_enough_memory_mm(): false when the overcommit rule refuses; then nothing is charged.
  [[nodiscard]] virtual bool Charge(int64_t pages) = 0;
  // vm_unacct_memory()
  virtual void Uncharge(int64_t pages) = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_COMMIT_CHARGER_H_

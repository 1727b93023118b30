#ifndef MMLAB_SERVER_PROCESS_COMMIT_ACCOUNT_H_
#define MMLAB_SERVER_PROCESS_COMMIT_ACCOUNT_H_

#include <cstdint>

#include "server/base/address.h"
#include "server/base/explanation.h"
#include "server/files/commit_charger.h"
#include "server/process/process_limits.h"

namespace mmlab {

class HugetlbPools;
class Process;

// The machine's commit charge: memory that processes were promised, touched or not. Linux: vm_committed_as, mm/util.c.
//
// It is the pages of all VM_ACCOUNT VMAs, plus the sizes of shmem objects made without VM_NORESERVE, plus the pages of the other shmem
// objects; but, as in the kernel, the growth of a stack that is not VM_ACCOUNT is charged and never given back.
class CommitAccount : public CommitCharger {
 public:
  CommitAccount(const ProcessLimits& limits, const HugetlbPools& hugetlb, const Tracer& tracer)
      : limits_(limits), hugetlb_(hugetlb), tracer_(tracer) {}

  // The process on whose behalf pages are charged; null: the kernel itself.
  void SetCurrent(const Process* process) { current_ = process; }

  bool Charge(int64_t pages) override;
  void Uncharge(int64_t pages) override { committed_ -= pages; }

  int64_t committed() const { return committed_; }  // Pages.
  int64_t limit() const;                            // vm_commit_limit(), pages.

 private:
  bool Enough(int64_t pages) const;

  const ProcessLimits& limits_;
  const HugetlbPools& hugetlb_;  // Its pages are kept out of the limit.
  const Tracer& tracer_;
  const Process* current_ = nullptr;
  int64_t committed_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_COMMIT_ACCOUNT_H_

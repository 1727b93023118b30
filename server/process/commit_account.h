#ifndef MMLAB_SERVER_PROCESS_COMMIT_ACCOUNT_H_
#define MMLAB_SERVER_PROCESS_COMMIT_ACCOUNT_H_

#include <cstdint>

#include "server/base/address.h"
#include "server/base/explanation.h"
#include "server/files/commit_charger.h"
#include "server/kernel/percpu_counter.h"
#include "server/process/process_limits.h"

namespace mmlab {

class HugetlbPools;
class KernelLogger;
class PhysicalMemory;
class Process;

// The machine's commit charge: memory that processes were promised, touched or not. Linux: vm_committed_as, mm/util.c.
//
// It is the pages of all VM_ACCOUNT VMAs, plus the sizes of shmem objects made without VM_NORESERVE, plus the pages of the other shmem
// objects; but, as in the kernel, the growth of a stack that is not VM_ACCOUNT is charged and never given back.
//
// Each CPU charges to a part of its own at first (percpu_counter): /proc shows the exact sum, while vm.overcommit_memory = 2 goes by the
// shared value, which lags behind by up to a batch for each CPU.
class CommitAccount : public CommitCharger {
 public:
  CommitAccount(const ProcessLimits& limits, const PhysicalMemory& memory, const HugetlbPools& hugetlb, const Tracer& tracer);

  // The process on whose behalf pages are charged; null: the kernel itself.
  void SetCurrent(const Process* process) { current_ = process; }
  // Where refusals are logged; null: nowhere. Outlives its use here.
  void SetLog(KernelLogger* log) { log_ = log; }

  bool Charge(int64_t pages) override;
  void Uncharge(int64_t pages) override { Add(-pages); }
  // sync_overcommit_as(): every CPU gives up its part, as when vm.overcommit_memory becomes 2.
  void Sync();

  int64_t committed() const { return committed_.Sum(); }               // vm_memory_committed(), pages.
  int64_t approximately() const { return committed_.ReadPositive(); }  // What vm.overcommit_memory = 2 goes by, pages.
  int64_t limit() const;                                               // vm_commit_limit(), pages.
  int32_t batch() const;                                               // vm_committed_as_batch, pages.
  void AddToHash(StateHasher& hasher) const { committed_.AddToHash(hasher); }

 private:
  void Add(int64_t pages);
  bool Enough(int64_t pages) const;

  const ProcessLimits& limits_;
  const PhysicalMemory& memory_;
  const HugetlbPools& hugetlb_;  // Its pages are kept out of the limit.
  const Tracer& tracer_;
  const Process* current_ = nullptr;
  KernelLogger* log_ = nullptr;
  PercpuCounter committed_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_COMMIT_ACCOUNT_H_

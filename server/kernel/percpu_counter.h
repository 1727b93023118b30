#ifndef MMLAB_SERVER_KERNEL_PERCPU_COUNTER_H_
#define MMLAB_SERVER_KERNEL_PERCPU_COUNTER_H_

#include <cstdint>
#include <vector>

#include "server/base/hash.h"

namespace mmlab {

// A number that each CPU changes in a part of its own and folds into the shared value only when that part has grown to a batch. Cheap to
// change, and the shared value is wrong by less than cpus x batch. Linux: struct percpu_counter, lib/percpu_counter.c.
//
// All arithmetic wraps at 64 bits, as the kernel's does.
class PercpuCounter {
 public:
  // REQUIRES: cpus >= 1.
  PercpuCounter(int64_t value, int cpus);

  // percpu_counter_batch: what percpu_counter_add() uses, max(32, 2 x CPUs).
  static int32_t DefaultBatch(int cpus);

  // percpu_counter_add_batch() on one CPU. Any batch is allowed; one below 1 folds at once. REQUIRES: 0 <= cpu < cpus.
  void Add(int cpu, int64_t amount, int32_t batch);
  // percpu_counter_set(): the parts of all CPUs become zero.
  void Set(int64_t value);
  // percpu_counter_sync(): folds the part of one CPU, however small. REQUIRES: 0 <= cpu < cpus.
  void Sync(int cpu);

  int64_t count() const { return count_; }  // percpu_counter_read(): the shared value alone.
  int64_t ReadPositive() const { return count_ > 0 ? count_ : 0; }
  int32_t local(int cpu) const { return local_[static_cast<size_t>(cpu)]; }
  int64_t Sum() const;  // percpu_counter_sum(): exact.
  int cpus() const { return static_cast<int>(local_.size()); }

  void AddToHash(StateHasher& hasher) const;

 private:
  int64_t count_;
  std::vector<int32_t> local_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_PERCPU_COUNTER_H_

#ifndef MMLAB_SERVER_HOST_WORKER_POOL_H_
#define MMLAB_SERVER_HOST_WORKER_POOL_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace mmlab {

// A fixed number of threads that carry what would hold up the threads of the network: boots, long operations, walks over a whole machine.
// First come, first served. Jobs must not wait for other jobs that have not started.
class WorkerPool {
 public:
  using Job = absl::AnyInvocable<void()>;

  explicit WorkerPool(int threads);
  // Runs what is still queued, then ends the threads.
  ~WorkerPool();

  void Post(Job job);

  int threads() const { return static_cast<int>(threads_.size()); }
  int busy() const { return busy_.load(std::memory_order_relaxed); }
  size_t queued() const;

 private:
  bool ReadyLocked() const { return !jobs_.empty() || stopping_; }
  void Work();

  mutable absl::Mutex mutex_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<int> busy_{0};
  std::vector<std::thread> threads_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_WORKER_POOL_H_

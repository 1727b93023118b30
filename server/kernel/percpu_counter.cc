#include "server/kernel/percpu_counter.h"

#include <algorithm>

#include "server/base/check.h"

namespace mmlab {
namespace {

int64_t WrappingAdd(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }

}  // namespace

PercpuCounter::PercpuCounter(int64_t value, int cpus) : count_(value), local_(static_cast<size_t>(cpus)) { MMLAB_CHECK(cpus >= 1); }

int32_t PercpuCounter::DefaultBatch(int cpus) { return std::max(32, 2 * cpus); }

void PercpuCounter::Add(int cpu, int64_t amount, int32_t batch) {
  MMLAB_CHECK(cpu >= 0 && cpu < cpus());
  int32_t& local = local_[static_cast<size_t>(cpu)];
  const int64_t part = WrappingAdd(local, amount);
  if (part >= batch || part <= -int64_t{batch}) {
    count_ = WrappingAdd(count_, part);
    local = 0;
  } else {
    local = static_cast<int32_t>(part);  // Below the batch, so it fits.
  }
}

void PercpuCounter::Set(int64_t value) {
  std::fill(local_.begin(), local_.end(), 0);
  count_ = value;
}

void PercpuCounter::Sync(int cpu) {
  MMLAB_CHECK(cpu >= 0 && cpu < cpus());
  int32_t& local = local_[static_cast<size_t>(cpu)];
  count_ = WrappingAdd(count_, local);
  local = 0;
}

int64_t PercpuCounter::Sum() const {
  int64_t sum = count_;
  for (const int32_t part : local_) sum = WrappingAdd(sum, part);
  return sum;
}

void PercpuCounter::AddToHash(StateHasher& hasher) const {
  hasher.Add(static_cast<uint64_t>(count_));
  for (const int32_t part : local_) hasher.Add(static_cast<uint64_t>(static_cast<uint32_t>(part)));
}

}  // namespace mmlab

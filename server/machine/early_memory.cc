#include "server/machine/early_memory.h"

#include <algorithm>
#include <utility>

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t RoundUp(uint64_t value, uint64_t step) { return (value + step - 1) / step * step; }

}  // namespace

EarlyMemory::EarlyMemory(const std::vector<PhysRange>& free) {
  for (const PhysRange range : free) {
    if (range.start < range.end) Release(range);
  }
}

void EarlyMemory::Reserve(PhysRange range) {
  std::vector<PhysRange> left;
  for (PhysRange r : free_) {
    if (!r.Overlaps(range)) {
      left.push_back(r);
      continue;
    }
    if (r.start < range.start) left.push_back({r.start, range.start});
    if (range.end < r.end) left.push_back({range.end, r.end});
  }
  free_ = std::move(left);
}

std::optional<PhysRange> EarlyMemory::Take(uint64_t bytes, uint64_t align, uint64_t limit) {
  for (size_t i = free_.size(); i-- > 0;) {
    const uint64_t low = free_[i].start.raw();
    const uint64_t top = std::min(free_[i].end.raw(), limit);
    if (top < low || top - low < bytes) continue;
    const uint64_t start = (top - bytes) / align * align;
    if (start < low) continue;
    const PhysRange range{PhysAddr(start), PhysAddr(start + bytes)};
    Reserve(range);
    return range;
  }
  return std::nullopt;
}

void EarlyMemory::Release(PhysRange range) {
  const auto at = std::lower_bound(free_.begin(), free_.end(), range, [](PhysRange a, PhysRange b) { return a.start < b.start; });
  const auto placed = free_.insert(at, range);
  const auto i = static_cast<size_t>(placed - free_.begin());
  if (i + 1 < free_.size() && free_[i].end == free_[i + 1].start) {
    free_[i].end = free_[i + 1].end;
    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i) + 1);
  }
  if (i > 0 && free_[i - 1].end == free_[i].start) {
    free_[i - 1].end = free_[i].end;
    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

uint64_t HashTableBytes(uint64_t kernel_pages, int scale, uint64_t bucket_bytes, bool wide) {
  uint64_t entries = RoundUp(kernel_pages, (1 << 20) / kPage);
  if (wide) {
    for (uint64_t adapt = (uint64_t{64} << 30) / kPage; adapt < entries; adapt <<= 2) ++scale;
  }
  entries >>= scale - 12;
  uint64_t rounded = 1;
  while (rounded < entries) rounded <<= 1;
  const uint64_t most = kernel_pages * kPage / 16 / bucket_bytes;
  while (rounded > most && rounded > 1) rounded >>= 1;
  return RoundUp(rounded * bucket_bytes, kPage);
}

}  // namespace mmlab

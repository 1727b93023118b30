#include "server/files/reserve_map.h"

#include <algorithm>
#include <iterator>

#include "server/base/hash.h"

namespace mmlab {

uint64_t ReserveMap::Count(uint64_t from, uint64_t to) const {
  uint64_t count = 0;
  auto it = ranges_.upper_bound(from);
  if (it != ranges_.begin()) --it;
  for (; it != ranges_.end() && it->first < to; ++it) {
    const uint64_t first = std::max(from, it->first);
    const uint64_t end = std::min(to, it->second);
    if (first < end) count += end - first;
  }
  return count;
}

uint64_t ReserveMap::Add(uint64_t from, uint64_t to) {
  if (from >= to) return 0;
  const uint64_t added = to - from - Count(from, to);
  auto it = ranges_.upper_bound(from);
  if (it != ranges_.begin() && std::prev(it)->second >= from) --it;
  while (it != ranges_.end() && it->first <= to) {
    from = std::min(from, it->first);
    to = std::max(to, it->second);
    it = ranges_.erase(it);
  }
  ranges_[from] = to;
  return added;
}

uint64_t ReserveMap::Remove(uint64_t from, uint64_t to) {
  uint64_t removed = 0;
  auto it = ranges_.upper_bound(from);
  if (it != ranges_.begin()) --it;
  while (it != ranges_.end() && it->first < to) {
    const uint64_t first = it->first;
    const uint64_t end = it->second;
    if (end <= from) {
      ++it;
      continue;
    }
    ranges_.erase(it);
    removed += std::min(to, end) - std::max(from, first);
    if (first < from) ranges_[first] = from;
    if (to < end) ranges_[to] = end;
    it = ranges_.lower_bound(end);
  }
  return removed;
}

void ReserveMap::AddToHash(StateHasher& hasher) const {
  for (const auto& [from, to] : ranges_) {
    hasher.Add(from);
    hasher.Add(to);
  }
}

}  // namespace mmlab

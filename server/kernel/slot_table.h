#ifndef MMLAB_SERVER_KERNEL_SLOT_TABLE_H_
#define MMLAB_SERVER_KERNEL_SLOT_TABLE_H_

#include <cstdint>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "server/base/random.h"

namespace mmlab {

// The number of an element of `slots` that nobody uses: the one given back last, else a new one at the end. `free_slots` holds the numbers
// of those given back.
template <typename Slot>
uint32_t TakeSlot(std::vector<Slot>& slots, std::vector<uint32_t>& free_slots) {
  if (free_slots.empty()) {
    slots.emplace_back();
    return static_cast<uint32_t>(slots.size() - 1);
  }
  const uint32_t at = free_slots.back();
  free_slots.pop_back();
  return at;
}

// The numbers 0 .. count - 1 in random order. REQUIRES: count > 0. Linux: freelist_randomize(), mm/slab_common.c.
template <typename Index>
std::unique_ptr<Index[]> RandomOrder(uint32_t count, Random& random) {
  auto order = std::make_unique<Index[]>(count);
  std::iota(&order[0], &order[0] + count, Index{0});
  for (uint32_t i = count - 1; i > 0; --i) std::swap(order[i], order[random.Below(i + 1)]);
  return order;
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_SLOT_TABLE_H_

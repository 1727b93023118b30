#include "server/physical/fragmentation.h"

#include <cstddef>

namespace mmlab {
namespace {

struct FreeMemory {
  uint64_t pages = 0;
  uint64_t blocks = 0;
  uint64_t usable_pages = 0;  // In blocks of at least the order.
};

FreeMemory Sum(absl::Span<const uint64_t> free_blocks, int order) {
  FreeMemory sum;
  for (size_t i = 0; i < free_blocks.size(); ++i) {
    const uint64_t pages = free_blocks[i] << i;
    sum.pages += pages;
    sum.blocks += free_blocks[i];
    if (i >= static_cast<size_t>(order)) sum.usable_pages += pages;
  }
  return sum;
}

}  // namespace

int64_t UnusableIndex(absl::Span<const uint64_t> free_blocks, int order) {
  const FreeMemory sum = Sum(free_blocks, order);
  if (sum.pages == 0) return 1000;
  return static_cast<int64_t>((sum.pages - sum.usable_pages) * 1000 / sum.pages);
}

int64_t UnusablePercent(absl::Span<const uint64_t> free_blocks, int order) {
  const FreeMemory sum = Sum(free_blocks, order);
  return sum.pages == 0 ? 0 : static_cast<int64_t>((sum.pages - sum.usable_pages) * 100 / sum.pages);
}

int64_t FragmentationIndex(absl::Span<const uint64_t> free_blocks, int order) {
  const FreeMemory sum = Sum(free_blocks, order);
  if (sum.blocks == 0) return 0;
  if (sum.usable_pages != 0) return -1000;
  const uint64_t wanted_blocks = (sum.pages * 1000) >> order;  // Thousandths of blocks of the order that all free pages could make.
  return 1000 - static_cast<int64_t>((1000 + wanted_blocks) / sum.blocks);
}

}  // namespace mmlab

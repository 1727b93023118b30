#include "server/files/xarray_nodes.h"

#include <algorithm>
#include <bit>

namespace mmlab {
namespace {

constexpr int kChunkShift = 6;  // XA_CHUNK_SHIFT

int HeightFor(uint64_t last) { return (std::bit_width(last) + kChunkShift - 1) / kChunkShift; }

// Which node of a level holds an index; level 0 has the entries themselves.
uint64_t NodeAt(uint64_t index, int level) {
  const int shift = kChunkShift * (level + 1);
  return shift >= 64 ? 0 : index >> shift;
}

}  // namespace

uint64_t XarrayNodesFor(uint64_t index, const XarrayNeighbours& others) {
  if (!others.last.has_value()) return static_cast<uint64_t>(HeightFor(index));
  const int before = HeightFor(*others.last);
  const int after = HeightFor(std::max(*others.last, index));
  uint64_t nodes = 0;
  for (int level = 0; level < after; ++level) {
    const uint64_t own = NodeAt(index, level);
    const bool there = (others.below.has_value() && NodeAt(*others.below, level) == own) ||
                       (others.above.has_value() && NodeAt(*others.above, level) == own);
    nodes += there ? 0 : 1;
    // The tree grows by a level, where all that was there shares the first node.
    if (level >= before) ++nodes;
  }
  return nodes;
}

}  // namespace mmlab

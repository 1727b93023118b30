#ifndef MMLAB_SERVER_FILES_XARRAY_NODES_H_
#define MMLAB_SERVER_FILES_XARRAY_NODES_H_

#include <cstdint>
#include <optional>

namespace mmlab {

// What stands beside an index in the xarray of a page cache, the index itself left out.
struct XarrayNeighbours {
  std::optional<uint64_t> below;
  std::optional<uint64_t> above;
  std::optional<uint64_t> last;  // The largest of all.
};

// How many nodes (struct xa_node) the tree has more with an entry at `index` than without it. A node has 64 slots; the tree is as high as
// its largest index asks for, and an entry at 0 alone needs no node. Linux: xas_create(), xas_delete_node(), lib/xarray.c.
uint64_t XarrayNodesFor(uint64_t index, const XarrayNeighbours& others);

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_XARRAY_NODES_H_

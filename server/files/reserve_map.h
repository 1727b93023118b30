#ifndef MMLAB_SERVER_FILES_RESERVE_MAP_H_
#define MMLAB_SERVER_FILES_RESERVE_MAP_H_

#include <cstdint>

#include "absl/container/btree_map.h"

namespace mmlab {

class StateHasher;

// A set of huge-page numbers, kept as ranges. Linux: struct resv_map, mm/hugetlb.c.
//
// Of a file: the pages that are reserved for shared mappings or there already. Of a private mapping: the reserved pages that were taken.
// Always true: ranges are not empty, do not overlap and do not touch.
class ReserveMap {
 public:
  // region_count(): how many of [from, to) are in the map.
  uint64_t Count(uint64_t from, uint64_t to) const;
  // region_add(): how many of them are new.
  uint64_t Add(uint64_t from, uint64_t to);
  // region_del(): how many of them were there.
  uint64_t Remove(uint64_t from, uint64_t to);

  size_t ranges() const { return ranges_.size(); }
  void AddToHash(StateHasher& hasher) const;

 private:
  absl::btree_map<uint64_t, uint64_t> ranges_;  // From the first number to the one behind the last.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_RESERVE_MAP_H_

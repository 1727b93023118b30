#ifndef MMLAB_SERVER_PHYSICAL_RECORDED_STATE_H_
#define MMLAB_SERVER_PHYSICAL_RECORDED_STATE_H_

#include <array>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "server/base/address.h"
#include "server/physical/physical_config.h"
#include "server/physical/zone.h"

namespace mmlab {

// The allocator's state as a dump of a real kernel shows it, so that a recorded sequence can be replayed from its first state.

struct RecordedPcp {
  uint32_t count = 0;
  uint32_t high = 0;
  uint32_t batch = 1;
  uint8_t free_factor = 0;
  int32_t free_diff = 0;
  int32_t cma_diff = 0;
  std::array<std::vector<uint32_t>, kPcpLists> lists;  // Head to tail.
};

struct RecordedZone {
  int index = 0;
  uint32_t start_pfn = 0;
  uint32_t spanned = 0;
  uint32_t present = 0;
  uint32_t managed = 0;
  uint32_t cma_pages = 0;
  uint64_t wmark_min = 0;
  uint64_t wmark_low = 0;
  uint64_t wmark_high = 0;
  uint64_t watermark_boost = 0;
  std::array<uint64_t, kZones> lowmem_reserve{};
  uint64_t percpu_drift_mark = 0;
  uint32_t pageset_high = 0;
  uint32_t pageset_batch = 1;
  int32_t stat_threshold = 0;
  uint32_t nr_reserved_highatomic = 0;
  uint32_t flags = 0;
  int64_t nr_free_pages = 0;
  int64_t nr_free_cma = 0;
  // By order and migrate type: first frames, head to tail.
  std::array<std::array<std::vector<uint32_t>, kMigrateTypes>, kOrders> free;
  std::vector<RecordedPcp> pcp;
  std::vector<uint8_t> pageblock_types;                // From the page block that holds start_pfn.
  std::map<uint32_t, uint8_t> remembered_types;        // Of pages on per-CPU lists, where it is not the list's.
  std::vector<std::pair<uint32_t, uint32_t>> movable;  // [first, end): allocated pages that count as movable.
};

struct RecordedState {
  ZoneSet zones = ZoneSet::kX86_32;
  PageSize page_size{12};
  int pageblock_order = kMaxOrder;
  int cpus = 1;
  int current_cpu = 0;
  std::vector<RecordedZone> zone;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_RECORDED_STATE_H_

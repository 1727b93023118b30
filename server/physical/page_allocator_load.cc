#include <algorithm>

#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

uint32_t EndOf(const RecordedState& recorded) {
  uint32_t end = 0;
  for (const RecordedZone& zone : recorded.zone) end = std::max(end, zone.start_pfn + zone.spanned);
  return end;
}

void LoadNumbers(const RecordedZone& from, Zone& zone) {
  zone.start_pfn = from.start_pfn;
  zone.spanned = from.spanned;
  zone.present = from.present;
  zone.managed = from.managed;
  zone.cma_pages = from.cma_pages;
  zone.wmark_min = from.wmark_min;
  zone.wmark_low = from.wmark_low;
  zone.wmark_high = from.wmark_high;
  zone.wmark_promo = from.wmark_high + (from.wmark_high - from.wmark_low);
  zone.watermark_boost = from.watermark_boost;
  zone.lowmem_reserve = from.lowmem_reserve;
  zone.percpu_drift_mark = from.percpu_drift_mark;
  zone.pageset_high = from.pageset_high;
  zone.pageset_batch = from.pageset_batch;
  zone.stat_threshold = from.stat_threshold;
  zone.nr_reserved_highatomic = from.nr_reserved_highatomic;
  zone.flags = from.flags;
  zone.stats[static_cast<size_t>(ZoneStat::kNrFreePages)] = from.nr_free_pages;
  zone.stats[static_cast<size_t>(ZoneStat::kNrFreeCma)] = from.nr_free_cma;
}

// Makes 2^order frames one block: a head and its tails.
void MakeBlock(FreeLists& lists, uint32_t pfn, int order, FrameState state, uint8_t type) {
  for (uint32_t i = 0; i < (1u << order); ++i) {
    Frame& frame = lists.frame(pfn + i);
    frame.state = state;
    frame.order = i == 0 ? static_cast<uint8_t>(order) : kTailOrder;
    frame.migrate_type = type;
  }
}

}  // namespace

BuddyMemory::BuddyMemory(const RecordedState& recorded, Tracer& tracer)
    : tracer_(tracer),
      page_size_(recorded.page_size),
      zone_set_(recorded.zones),
      cpus_(recorded.cpus),
      cpu_(static_cast<uint32_t>(recorded.current_cpu)),
      lists_(EndOf(recorded), recorded.pageblock_order, {}),
      contents_(EndOf(recorded), recorded.page_size) {
  const std::vector<ZoneType> types = ZoneTypesOf(zone_set_);
  zone_count_ = types.size();
  for (size_t i = 0; i < types.size(); ++i) {
    Zone& zone = lists_.zones()[i];
    zone.index = static_cast<int>(i);
    zone.type = types[i];
    zone.highmem = types[i] == ZoneType::kHighMem;
    if (types[i] == ZoneType::kNormal) normal_zone_ = zone.index;
  }
  // Every zone's range first: frames learn their zone from it.
  for (const RecordedZone& from : recorded.zone) LoadNumbers(from, lists_.zones()[static_cast<size_t>(from.index)]);
  SetUpCpus();
  for (const RecordedZone& from : recorded.zone) LoadLists(from, lists_.zones()[static_cast<size_t>(from.index)]);
  RecomputeQuick();
}

void BuddyMemory::LoadLists(const RecordedZone& from, Zone& zone) {
  const uint32_t first_block = zone.start_pfn & ~(lists_.pageblock_pages() - 1);
  for (uint32_t i = 0; i < from.pageblock_types.size(); ++i) {
    lists_.SetPageblockType(std::max(first_block + i * lists_.pageblock_pages(), zone.start_pfn), from.pageblock_types[i]);
  }
  for (int order = 0; order <= kMaxOrder; ++order) {
    for (int type = 0; type < kMigrateTypes; ++type) {
      for (const uint32_t pfn : from.free[order][type]) {
        MakeBlock(lists_, pfn, order, FrameState::kFree, static_cast<uint8_t>(type));
        lists_.PushTail(zone, pfn, order, type);
      }
    }
  }
  for (size_t cpu = 0; cpu < from.pcp.size(); ++cpu) {
    const RecordedPcp& old = from.pcp[cpu];
    PerCpuPages& pcp = zone.pcp[cpu];
    pcp.count = old.count;
    pcp.high = old.high;
    pcp.batch = old.batch;
    pcp.free_factor = old.free_factor;
    pcp.free_diff = old.free_diff;
    pcp.cma_diff = old.cma_diff;
    for (int index = 0; index < kPcpLists; ++index) {
      const int huge_type = index == kPcpHugeList ? kMigrateUnmovable : kMigrateMovable;
      const auto type = static_cast<uint8_t>(index >= kPcpHugeList ? huge_type : index % kMigratePcpTypes);
      for (const uint32_t pfn : old.lists[index]) {
        const auto odd = from.remembered_types.find(pfn);
        MakeBlock(lists_, pfn, PcpOrder(index), FrameState::kPcp, odd == from.remembered_types.end() ? type : odd->second);
        PcpPushTail(pcp.lists[index], pfn, lists_.frame(pfn));
      }
    }
  }
  for (const auto& [first, end] : from.movable) {
    for (uint32_t pfn = first; pfn < end; ++pfn) lists_.frame(pfn).flags |= kPgLru;
  }
}

}  // namespace mmlab

// The slow half of the per-CPU page lists: refill, overflow, drain. The rules are those of rmqueue_bulk(), nr_pcp_free(),
// free_pcppages_bulk(), drain_pages_zone().

#include <algorithm>

#include "server/base/event.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr int kBatchScaleMost = 5;  // CONFIG_PCP_BATCH_SCALE_MAX

}  // namespace

void BuddyMemory::PcpPushTail(PcpList& list, uint32_t pfn, Frame& frame) {
  frame.state = FrameState::kPcp;
  frame.next = kNoFrame;
  frame.prev = list.tail;
  if (list.empty()) {
    list.head = pfn;
  } else {
    lists_.table().At(list.tail).next = pfn;
  }
  list.tail = pfn;
}

uint32_t BuddyMemory::PcpPopTail(PcpList& list) {
  const uint32_t pfn = list.tail;
  if (pfn == list.head) {
    list.head = kNoFrame;
  } else {
    list.tail = lists_.table().At(pfn).prev;
    lists_.table().At(list.tail).next = kNoFrame;
  }
  return pfn;
}

bool BuddyMemory::RefillPcp(Zone& zone, PerCpuPages& pcp, PcpList& list, int order, int type, uint32_t flags) {
  uint32_t batch = pcp.batch;
  if (batch > 1) batch = std::max(batch >> order, 2u);
  uint32_t got = 0;
  for (; got < batch; ++got) {
    const uint32_t pfn = RemoveBlock(zone, order, type, flags);
    if (pfn == kNoFrame) break;
    Frame& frame = lists_.table().At(pfn);
    PcpPushTail(list, pfn, frame);
    if (frame.migrate_type == kMigrateCma) AddCpuStat(zone, ZoneStat::kNrFreeCma, &PerCpuPages::cma_diff, -(int64_t{1} << order));
  }
  AddCpuStat(zone, ZoneStat::kNrFreePages, &PerCpuPages::free_diff, -(static_cast<int64_t>(got) << order));
  pcp.count += got << order;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFrameSource, "per-CPU list was empty: refilled from the free lists")
        .Text("zone", zone.name())
        .Number("cpu", static_cast<int64_t>(cpu_))
        .Number("order", order)
        .Text("migrate_type", MigrateTypeName(type))
        .Number("asked_blocks", batch)
        .Number("got_blocks", got);
  }
  return got != 0;
}

// Gives back part of the lists, starting with the one that was just freed to.
void BuddyMemory::PcpOverflow(Zone& zone, PerCpuPages& pcp, int index, bool free_high, uint32_t high) {
  int64_t count = 0;
  if (free_high) {
    count = pcp.count;
  } else if (high < pcp.batch) {
    count = 1;
  } else {
    const int64_t least = pcp.batch;
    const int64_t most = int64_t{high} - pcp.batch;
    count = int64_t{pcp.batch} << pcp.free_factor;
    if (count < most && pcp.free_factor < kBatchScaleMost) ++pcp.free_factor;
    count = std::max(count, least);
    count = std::min(count, most);
  }
  FreePcpBulk(zone, pcp, count, index);
}

void BuddyMemory::FreePcpBulk(Zone& zone, PerCpuPages& pcp, int64_t count, int index) {
  count = std::min<int64_t>(count, pcp.count);
  while (count > 0) {
    while (pcp.lists[index].empty()) index = index + 1 == kPcpLists ? 0 : index + 1;
    PcpList& list = pcp.lists[index];
    const int order = PcpOrder(index);
    do {
      const uint32_t pfn = PcpPopTail(list);
      count -= int64_t{1} << order;
      pcp.count -= 1u << order;
      const int type = isolating_ ? lists_.PageblockType(pfn) : lists_.table().At(pfn).migrate_type;
      FreeBlock(zone, pfn, order, type, false);
      if (EventSink* events = tracer_.events()) events->Emit(EventKind::kMmPagePcpuDrain, {pfn, order, type});
    } while (count > 0 && !list.empty());
    index = index + 1 == kPcpLists ? 0 : index + 1;
  }
}

void BuddyMemory::DrainZone(Zone& zone, PerCpuPages& pcp) {
  while (pcp.count != 0) FreePcpBulk(zone, pcp, std::min<int64_t>(pcp.count, int64_t{pcp.batch} << kBatchScaleMost), 0);
}

void BuddyMemory::DrainLocalPages() {
  for (Zone& zone : lists_.zones()) {
    if (zone.populated()) DrainZone(zone, zone.pcp[cpu_]);
  }
}

void BuddyMemory::DrainAllPages() {
  for (Zone& zone : lists_.zones()) {
    for (PerCpuPages& pcp : zone.pcp) DrainZone(zone, pcp);
  }
}

void BuddyMemory::FoldCpuCounters() {
  for (Zone& zone : lists_.zones()) {
    for (PerCpuPages& pcp : zone.pcp) {
      zone.stats[static_cast<size_t>(ZoneStat::kNrFreePages)] += pcp.free_diff;
      zone.stats[static_cast<size_t>(ZoneStat::kNrFreeCma)] += pcp.cma_diff;
      pcp.free_diff = pcp.cma_diff = 0;
    }
  }
}

}  // namespace mmlab

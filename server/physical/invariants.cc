// The proof that the allocator keeps its promises, and the hash of its state.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

// What the lists say, to be compared with what the zone's counters say.
struct Recount {
  uint64_t free_pages = 0;
  uint64_t cma_pages = 0;
};

void CheckFreeList(const FreeLists& lists, const Zone& zone, int order, int type, Recount* sum, std::vector<std::string>* problems) {
  const auto where = [&](uint32_t pfn) {
    return absl::StrCat("zone ", zone.name(), " order ", order, " ", MigrateTypeName(type), " pfn ", pfn, ": ");
  };
  uint32_t count = 0;
  lists.ForEach(zone, order, type, [&](uint32_t pfn) {
    ++count;
    const Frame frame = lists.Peek(pfn);
    if (frame.state != FrameState::kFree) problems->push_back(absl::StrCat(where(pfn), "on a free list but not free"));
    if (frame.order != order) problems->push_back(absl::StrCat(where(pfn), "order is ", static_cast<int>(frame.order)));
    if (frame.migrate_type != type) problems->push_back(absl::StrCat(where(pfn), "type is ", static_cast<int>(frame.migrate_type)));
    if (frame.zone != zone.index) problems->push_back(absl::StrCat(where(pfn), "belongs to zone ", static_cast<int>(frame.zone)));
    if (!zone.Spans(pfn) || !zone.Spans(pfn + (1u << order) - 1)) problems->push_back(absl::StrCat(where(pfn), "outside its zone"));
    if (pfn % (1u << order) != 0) problems->push_back(absl::StrCat(where(pfn), "not aligned"));
    if (order < lists.pageblock_order()) {
      const Frame buddy = lists.Peek(pfn ^ (1u << order));
      if (buddy.state == FrameState::kFree && buddy.order == order && buddy.zone == zone.index) {
        problems->push_back(absl::StrCat(where(pfn), "its buddy is free too"));
      }
    }
  });
  const FrameList& list = zone.free_area[order].lists[type];
  if (list.count != count)
    problems->push_back(absl::StrCat("zone ", zone.name(), " order ", order, ": list says ", list.count, " blocks, has ", count));
  if (type != kMigrateIsolate) sum->free_pages += uint64_t{count} << order;
  if (type == kMigrateCma) sum->cma_pages += uint64_t{count} << order;
}

void CheckPcp(const FreeLists& lists, const Zone& zone, size_t cpu, std::vector<std::string>* problems) {
  const PerCpuPages& pcp = zone.pcp[cpu];
  const std::string where = absl::StrCat("zone ", zone.name(), " cpu ", cpu, ": ");
  uint64_t pages = 0;
  for (int index = 0; index < kPcpLists; ++index) {
    const PcpList& list = pcp.lists[index];
    const int order = index >= kPcpHugeList ? lists.pageblock_order() : index / kMigratePcpTypes;
    uint32_t count = 0;
    uint32_t before = kNoFrame;
    for (uint32_t pfn = list.head; pfn != kNoFrame && count <= pcp.count; ++count) {
      const Frame frame = lists.Peek(pfn);
      if (frame.state != FrameState::kPcp || frame.order != order || frame.zone != zone.index) {
        problems->push_back(absl::StrCat(where, "pfn ", pfn, " does not belong on list ", index));
      }
      if (pfn != list.head && frame.prev != before) problems->push_back(absl::StrCat(where, "pfn ", pfn, " has a wrong back link"));
      before = pfn;
      pfn = frame.next;
    }
    if (!list.empty() && before != list.tail) problems->push_back(absl::StrCat(where, "list ", index, " ends elsewhere than it says"));
    pages += uint64_t{count} << order;
  }
  if (pages != pcp.count) problems->push_back(absl::StrCat(where, "count is ", pcp.count, ", the lists hold ", pages));
}

void CheckZone(const FreeLists& lists, const Zone& zone, std::vector<std::string>* problems) {
  Recount sum;
  for (int order = 0; order <= kMaxOrder; ++order) {
    uint32_t blocks = 0;
    for (int type = 0; type < kMigrateTypes; ++type) {
      CheckFreeList(lists, zone, order, type, &sum, problems);
      blocks += zone.free_area[order].lists[type].count;
    }
    if (blocks != zone.free_area[order].nr_free)
      problems->push_back(absl::StrCat("zone ", zone.name(), " order ", order, ": nr_free is wrong"));
  }
  for (size_t cpu = 0; cpu < zone.pcp.size(); ++cpu) CheckPcp(lists, zone, cpu, problems);
  if (sum.free_pages != zone.free_pages_exact()) {
    problems->push_back(absl::StrCat("zone ", zone.name(), ": nr_free_pages ", zone.free_pages_exact(), ", lists hold ", sum.free_pages));
  }
  int64_t cma = zone.stats[static_cast<size_t>(ZoneStat::kNrFreeCma)];
  for (const PerCpuPages& pcp : zone.pcp) cma += pcp.cma_diff;
  if (cma != static_cast<int64_t>(sum.cma_pages)) problems->push_back(absl::StrCat("zone ", zone.name(), ": nr_free_cma is wrong"));
  if (zone.managed > zone.present || zone.present > zone.spanned)
    problems->push_back(absl::StrCat("zone ", zone.name(), ": managed > present > spanned"));
}

}  // namespace

void BuddyMemory::CheckInvariants(std::vector<std::string>* problems) const {
  std::array<uint64_t, 2> listed{};  // Blocks that say of themselves that they are free, or on a per-CPU list.
  for (const Zone& zone : zones()) CheckZone(lists_, zone, problems);
  lists_.ForEachTouched([&](uint32_t base, const FrameBlock& block) {
    for (uint32_t i = 0; i < FrameBlock::kFrames;) {
      const Frame& head = block.frames[i];
      const int order = head.order > kMaxOrder && head.order != kTailOrder && (head.flags & kPgHead) != 0 ? kMaxOrder : head.order;
      if (order > kMaxOrder || i + (1u << order) > FrameBlock::kFrames) {
        problems->push_back(absl::StrCat("pfn ", base + i, ": not the head of a block, but none before it covers it"));
        ++i;
        continue;
      }
      if (head.state == FrameState::kFree) ++listed[0];
      if (head.state == FrameState::kPcp) ++listed[1];
      for (uint32_t j = 1; j < (1u << order); ++j) {
        const Frame& tail = block.frames[i + j];
        const bool alone = head.state > FrameState::kPcp && !IsCompound(head);
        if (alone && (tail.flags != 0 || tail.refcount != 0 || tail.mapcount != 0 || tail.mapping != 0)) {
          problems->push_back(absl::StrCat("pfn ", base + i + j, ": inside a block that is not compound, but in use"));
        }
        if (tail.order != kTailOrder) problems->push_back(absl::StrCat("pfn ", base + i + j, ": inside a block, but not a tail"));
      }
      i += 1u << order;
    }
  });
  uint64_t touched = 0;
  uint64_t on_cpus = 0;
  for (const Zone& zone : zones()) {
    for (int order = 0; order <= kMaxOrder; ++order) {
      for (int type = 0; type < kMigrateTypes; ++type) {
        lists_.ForEach(zone, order, type, [&](uint32_t pfn) { touched += lists_.table().Find(pfn) != nullptr; });
      }
    }
    for (const PerCpuPages& pcp : zone.pcp) {
      for (const PcpList& list : pcp.lists) {
        for (uint32_t pfn = list.head; pfn != kNoFrame; pfn = lists_.table().At(pfn).next) ++on_cpus;
      }
    }
  }
  lru_.CheckInvariants(problems);
  for (Gfp bits = 0; bits <= kQuickMask; ++bits) {
    if (quick_[bits].floor != QuickFloor(bits)) problems->push_back(absl::StrCat("the quick path of gfp ", bits, " has an old floor"));
  }
  int64_t pending = 0;
  for (const Zone& zone : zones()) {
    pending += zone.stats[static_cast<size_t>(ZoneStat::kNrZoneWritePending)];
    for (const PerCpuPages& pcp : zone.pcp) {
      if (pcp.limit != PcpLimit(zone, pcp)) problems->push_back(absl::StrCat("zone ", zone.name(), ": a CPU has an old limit"));
    }
  }
  if (pending != vm_stat_.Get(NodeStat::kNrDirty) + vm_stat_.Get(NodeStat::kNrWriteback)) {
    problems->push_back(absl::StrCat("nr_zone_write_pending is ", pending, " in all zones, nr_dirty ", vm_stat_.Get(NodeStat::kNrDirty),
                                     ", nr_writeback ", vm_stat_.Get(NodeStat::kNrWriteback)));
  }
  if (touched != listed[0]) problems->push_back(absl::StrCat(listed[0], " blocks say they are free, ", touched, " are on free lists"));
  if (on_cpus != listed[1]) problems->push_back(absl::StrCat(listed[1], " blocks say a CPU has them, ", on_cpus, " are on per-CPU lists"));
}

void BuddyMemory::StateHash(StateHasher& hasher) const {
  hasher.Add(cpu_);
  hasher.Add(min_free_kbytes_);
  hasher.Add(watermark_scale_factor_);
  hasher.Add(watermark_boost_factor_);
  hasher.Add(pagelist_high_fraction_);
  for (const Zone& zone : zones()) {
    for (const uint64_t value : {zone.wmark_min, zone.wmark_low, zone.wmark_high, zone.watermark_boost, uint64_t{zone.managed}})
      hasher.Add(value);
    for (const uint64_t value : zone.lowmem_reserve) hasher.Add(value);
    for (const int64_t value : zone.stats) hasher.Add(static_cast<uint64_t>(value));
    hasher.Add(zone.nr_reserved_highatomic);
    hasher.Add(zone.flags);
    hasher.Add(zone.numa_hits);
    for (int order = 0; order <= kMaxOrder; ++order) {
      for (int type = 0; type < kMigrateTypes; ++type) {
        lists_.ForEach(zone, order, type, [&](uint32_t pfn) { hasher.Add(pfn); });
        hasher.Add(zone.free_area[order].lists[type].count);
      }
    }
    for (const PerCpuPages& pcp : zone.pcp) {
      for (const uint64_t value : {pcp.count, pcp.high, pcp.batch, uint32_t{pcp.free_factor}}) hasher.Add(value);
      hasher.Add(static_cast<uint64_t>(pcp.free_diff));
      hasher.Add(static_cast<uint64_t>(pcp.cma_diff));
      for (const PcpList& list : pcp.lists) {
        uint32_t blocks = 0;
        for (uint32_t pfn = list.head; pfn != kNoFrame; pfn = lists_.table().At(pfn).next, ++blocks) hasher.Add(pfn);
        hasher.Add(blocks);
      }
    }
  }
  // Frames in use, and page blocks whose type is not what boot gave (CMA areas stay); whether their metadata exists must not show.
  lists_.ForEachTouched([&](uint32_t base, const FrameBlock& block) {
    for (const uint32_t offset : {0u, lists_.pageblock_pages(), uint32_t{block.zone_split}}) {
      if (offset >= FrameBlock::kFrames) continue;
      const int type = lists_.PageblockType(base + offset);
      if (type != kMigrateCma && type != lists_.BootPageblockType(base + offset))
        hasher.Add(uint64_t{base + offset} << 8 | static_cast<uint32_t>(type));
    }
    for (uint32_t i = 0; i < FrameBlock::kFrames; ++i) {
      const Frame& frame = block.frames[i];
      if (frame.state <= FrameState::kPcp && frame.flags == 0 && frame.refcount == 0) continue;
      if (frame.state == FrameState::kSlab && frame.mapping == kBootSlabMapping) continue;
      hasher.Add(uint64_t{base} + i);
      hasher.Add(uint64_t{frame.flags} << 32 | static_cast<uint32_t>(frame.state) << 16 | frame.order);
      if (frame.memcg != 0) hasher.Add(frame.memcg);
      hasher.Add(uint64_t{frame.next} << 32 | frame.prev);
      hasher.Add(static_cast<uint64_t>(frame.refcount) << 32 ^ static_cast<uint32_t>(frame.mapcount));
      hasher.Add(uint64_t{frame.index} << 24 | frame.mapping);
    }
  });
  vm_stat_.StateHash(hasher);
  lru_.StateHash(hasher);
  contents_.StateHash(hasher);
}

}  // namespace mmlab

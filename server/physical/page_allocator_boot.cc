// What the machine's memory is when its first process starts. The rules are those of free_area_init(), memblock_free_all(),
// set_highmem_pages_init(), init_per_zone_wmark_min(), in this order.

#include <algorithm>
#include <bit>
#include <limits>

#include "server/physical/page_allocator.h"
#include "server/physical/watermarks.h"

namespace mmlab {
namespace {

constexpr uint32_t Raw(Pfn pfn) { return static_cast<uint32_t>(pfn.raw()); }

uint32_t EndOfRam(const PhysicalConfig& config) {
  MMLAB_CHECK(!config.ram.empty());
  const uint64_t end = config.ram.back().end.raw();
  MMLAB_CHECK(end > 0 && end < kNoFrame - FrameBlock::kFrames);
  return static_cast<uint32_t>(end);
}

std::vector<std::pair<uint32_t, uint32_t>> RawRanges(const std::vector<PfnRange>& ranges) {
  std::vector<std::pair<uint32_t, uint32_t>> raw;
  raw.reserve(ranges.size());
  for (const PfnRange& range : ranges) raw.emplace_back(Raw(range.start), Raw(range.end));
  return raw;
}

// `ranges` without `holes`, both ascending.
std::vector<PfnRange> Without(const std::vector<PfnRange>& ranges, std::vector<PfnRange> holes) {
  std::sort(holes.begin(), holes.end(), [](const PfnRange& a, const PfnRange& b) { return a.start < b.start; });
  std::vector<PfnRange> left;
  for (const PfnRange& range : ranges) {
    Pfn at = range.start;
    for (const PfnRange& hole : holes) {
      if (hole.end <= at || hole.start >= range.end) continue;
      if (hole.start > at) left.push_back({at, hole.start});
      at = std::max(at, hole.end);
    }
    if (at < range.end) left.push_back({at, range.end});
  }
  // Neighbours become one, or their blocks would not merge.
  std::vector<PfnRange> merged;
  for (const PfnRange& range : left) {
    if (!merged.empty() && merged.back().end == range.start) {
      merged.back().end = range.end;
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

}  // namespace

BuddyMemory::BuddyMemory(const PhysicalConfig& config, Tracer& tracer)
    : tracer_(tracer),
      page_size_(config.page_size),
      zone_set_(config.zones),
      cpus_(config.cpus),
      watermark_scale_factor_(config.watermark_scale_factor),
      watermark_boost_factor_(config.watermark_boost_factor),
      lowmem_reserve_ratio_(config.lowmem_reserve_ratio),
      lists_(EndOfRam(config), config.pageblock_order, RawRanges(config.ram), RawRanges(config.boot_slabs)),
      contents_(EndOfRam(config), config.page_size) {
  MMLAB_CHECK(cpus_ >= 1 && config.pageblock_order <= kMaxOrder && config.pageblock_order >= kMaxOrder - 1);
  SetUpZones(config);
  SetUpCpus();
  ReleaseBootMemory(config);
  BootSettings settings;
  settings.page_size = page_size_;
  settings.pageblock_order = config.pageblock_order;
  settings.cpus = cpus_;
  settings.transparent_hugepage = config.transparent_hugepage;
  settings.watermark_scale_factor = watermark_scale_factor_;
  settings.lowmem_reserve_ratio = lowmem_reserve_ratio_;
  // What is freed late is on the free lists from the start, so that it has merged with its neighbours at no cost; only the settings must
  // not know of it.
  AddLateFreed(config, false);
  min_free_kbytes_ = ComputeBootSettings(MutableZones(), settings);
  std::vector<Zone> computed_from;
  if (tracer_.explanation() != nullptr) computed_from.assign(zones().begin(), zones().end());
  AddLateFreed(config, true);
  ExplainZones(config);
  ExplainWatermarks(computed_from);
  FoldCpuCounters();
  RecomputeQuick();
  if (config.min_free_kbytes) SetMinFreeKbytes(*config.min_free_kbytes);
  ChooseZeroFrame(config);
}

void BuddyMemory::SetUpZones(const PhysicalConfig& config) {
  const std::vector<ZoneType> types = ZoneTypesOf(config.zones);
  zone_count_ = types.size();
  const Pfn first = config.ram.front().start;
  const Pfn last = config.ram.back().end;
  Pfn low(0);
  for (size_t i = 0; i < types.size(); ++i) {
    Zone& zone = lists_.zones()[i];
    zone.index = static_cast<int>(i);
    zone.type = types[i];
    if (types[i] == ZoneType::kNormal) normal_zone_ = zone.index;
    const Pfn high = std::max(low, config.zone_end[static_cast<size_t>(types[i])]);
    const Pfn start = std::clamp(first, low, high);
    const Pfn end = std::clamp(last, low, high);
    low = high;
    if (start == end) continue;
    zone.start_pfn = Raw(start);
    zone.spanned = Raw(end) - zone.start_pfn;
    for (const PfnRange& ram : config.ram) {
      const Pfn from = std::max(ram.start, start);
      const Pfn to = std::min(ram.end, end);
      if (from < to) zone.present += static_cast<uint32_t>((to - from).raw());
    }
  }
  bool highmem = false;
  for (Zone& zone : lists_.zones()) {
    if (zone.type == ZoneType::kHighMem) zone.highmem = true;
    if (zone.type == ZoneType::kHighMem && zone.populated()) highmem = true;
    if (zone.type == ZoneType::kMovable) zone.highmem = highmem;
  }
}

void BuddyMemory::SetUpCpus() {
  for (Zone& zone : lists_.zones()) {
    if (zone.populated()) zone.pcp.resize(static_cast<size_t>(cpus_));
  }
  RecomputeZoneList();
}

// Which zone each kind of request starts with.
void BuddyMemory::RecomputeZoneList() {
  int8_t first = kNoZone;
  for (size_t i = 0; i < zone_count_; ++i) {
    if (lists_.zones()[i].populated()) first = static_cast<int8_t>(i);
    first_zone_[i] = first;
  }
  const auto index_of = [&](ZoneType type) {
    for (size_t i = 0; i < zone_count_; ++i) {
      if (lists_.zones()[i].type == type) return static_cast<int8_t>(i);
    }
    return static_cast<int8_t>(normal_zone_);  // A kernel without that zone serves the request like any other.
  };
  for (Gfp bits = 0; bits < highest_zone_.size(); ++bits) {
    ZoneType type = ZoneType::kNormal;
    if ((bits & kGfpZoneHighmem) != 0) type = (bits & kGfpMovable) != 0 ? ZoneType::kMovable : ZoneType::kHighMem;
    if ((bits & kGfpZoneDma32) != 0) type = ZoneType::kDma32;
    if ((bits & kGfpZoneDma) != 0) type = ZoneType::kDma;
    highest_zone_[bits] = index_of(type);
  }
}

int64_t BuddyMemory::QuickFloor(Gfp bits) const {
  const int highest = highest_zone_[bits & 15];
  const int index = first_zone_[highest];
  // A flag that the next allocation has to clear is not for the quick path.
  if (index == kNoZone || (zones()[index].flags & kZoneBoostedWatermark) != 0) return std::numeric_limits<int64_t>::max() / 2;
  const Zone& zone = zones()[index];
  return static_cast<int64_t>(zone.wmark_low + zone.watermark_boost + zone.lowmem_reserve[highest]) + zone.nr_reserved_highatomic;
}

uint32_t BuddyMemory::PcpLimit(const Zone& zone, const PerCpuPages& pcp) {
  return (zone.flags & kZoneReclaimActive) != 0 ? std::min(pcp.batch << 2, pcp.high) : pcp.high;
}

BuddyMemory::QuickRequest BuddyMemory::QuickOf(Gfp bits) {
  static constexpr int64_t kNothing = 0;
  QuickRequest quick;
  const int index = first_zone_[highest_zone_[bits & 15]];
  Zone& zone = lists_.zones()[index == kNoZone ? 0 : index];
  const int type = TypeOf(bits);
  quick.zone = &zone;
  quick.withheld = type == kMigrateMovable ? &kNothing : &zone.stats[static_cast<size_t>(ZoneStat::kNrFreeCma)];
  quick.floor = QuickFloor(bits);
  if (index == kNoZone) return quick;
  quick.pcp = pcp_now_[index];
  quick.lists = &quick.pcp->lists[static_cast<size_t>(type)];
  quick.allocated = &vm_stat_.counter(PgallocOf(zone));
  return quick;
}

void BuddyMemory::RecomputeQuick() {
  for (Zone& zone : MutableZones()) {
    for (PerCpuPages& pcp : zone.pcp) pcp.limit = PcpLimit(zone, pcp);
    pcp_now_[static_cast<size_t>(zone.index)] = zone.populated() ? &zone.pcp[cpu_] : nullptr;
  }
  for (Gfp bits = 0; bits <= kQuickMask; ++bits) quick_[bits] = QuickOf(bits);
  free_to_ = QuickFree();
}

// Hands a range within one zone to the free lists, in the largest aligned blocks, as boot does: ascending, each to its list's tail. High
// memory is freed page by page instead and merges on the way; each complete block goes to the head, so that its lists descend.
void BuddyMemory::ReleaseRange(Zone& zone, uint32_t start, uint32_t end, bool cma, bool page_by_page) {
  constexpr uint32_t kLargest = 1u << kMaxOrder;
  zone.managed += end - start;
  AddFree(zone, end - start, cma ? kMigrateCma : kMigrateMovable);
  while (start < end) {
    int order = start == 0 ? kMaxOrder : std::min(kMaxOrder, std::countr_zero(start));
    while (start + (1u << order) > end) --order;
    uint32_t blocks = 1;
    if (order == kMaxOrder) blocks = (end - start) / kLargest;
    const int type = cma ? kMigrateCma : lists_.BootPageblockType(start);
    lists_.AddUntouched(zone, start, order, type, blocks, page_by_page);
    start += blocks << order;
  }
}

void BuddyMemory::ReleaseBootMemory(const PhysicalConfig& config) {
  std::vector<PfnRange> taken;
  for (const ReservedRange& reserved : config.reserved) taken.push_back(reserved.range);
  taken.insert(taken.end(), config.cma.begin(), config.cma.end());
  taken.insert(taken.end(), config.boot_slabs.begin(), config.boot_slabs.end());
  const std::vector<PfnRange> free = Without(config.ram, std::move(taken));
  const auto release = [&](const PfnRange& range, bool cma) {
    for (Zone& zone : lists_.zones()) {
      if (zone.spanned == 0) continue;
      const uint32_t start = std::max(Raw(range.start), zone.start_pfn);
      const uint32_t end = std::min(Raw(range.end), zone.end_pfn());
      if (start >= end) continue;
      ReleaseRange(zone, start, end, cma, zone.type == ZoneType::kHighMem);
      if (cma) zone.cma_pages += end - start;
    }
  };
  for (const PfnRange& range : free) release(range, false);
  TakeBootSlabs(config);
  for (const PfnRange& range : config.cma) {
    MMLAB_CHECK(range.start.raw() % lists_.pageblock_pages() == 0 && range.end.raw() % lists_.pageblock_pages() == 0);
    release(range, true);
  }
}

// Start-up had these pages from the allocator, whose they stay.
void BuddyMemory::TakeBootSlabs(const PhysicalConfig& config) {
  for (const PfnRange& range : config.boot_slabs) {
    Zone& zone = lists_.zones()[lists_.ZoneOf(Raw(range.start))];
    MMLAB_CHECK(zone.Spans(Raw(range.start)) && zone.Spans(Raw(range.end) - 1));
    zone.managed += static_cast<uint32_t>(range.length().raw());
    boot_slab_pages_ += range.length().raw();
  }
  MMLAB_CHECK(config.boot_slab_reclaimable <= boot_slab_pages_);
  vm_stat_.Add(NodeStat::kNrSlabReclaimable, static_cast<int64_t>(config.boot_slab_reclaimable));
  vm_stat_.Add(NodeStat::kNrSlabUnreclaimable, static_cast<int64_t>(boot_slab_pages_ - config.boot_slab_reclaimable));
}

void BuddyMemory::AddLateFreed(const PhysicalConfig& config, bool managed) {
  for (Zone& zone : lists_.zones()) {
    if (zone.spanned == 0) continue;
    for (const PfnRange& range : config.late_freed) {
      const uint32_t start = std::max(Raw(range.start), zone.start_pfn);
      const uint32_t end = std::min(Raw(range.end), zone.end_pfn());
      if (start < end) zone.managed = managed ? zone.managed + (end - start) : zone.managed - (end - start);
    }
  }
}

void BuddyMemory::ChooseZeroFrame(const PhysicalConfig& config) {
  if (config.zero_frame) {
    zero_frame_ = Raw(*config.zero_frame);
    MMLAB_CHECK(lists_.Peek(zero_frame_).state == FrameState::kReserved);
    return;
  }
  for (const ReservedRange& reserved : config.reserved) {
    for (const PfnRange& ram : config.ram) {
      if (!ram.Contains(reserved.range.start)) continue;
      zero_frame_ = Raw(reserved.range.start);
      return;
    }
  }
  const std::optional<Pfn> pfn = AllocPages(kGfpKernel | kGfpMemalloc, PageOrder(0));
  MMLAB_CHECK(pfn.has_value());
  zero_frame_ = Raw(*pfn);
}

// --- Settings that may change later. ---

void BuddyMemory::RecomputeWatermarks() {
  ComputeWatermarks(MutableZones(), page_size_, min_free_kbytes_, watermark_scale_factor_);
  ComputePagesets(MutableZones(), page_size_, pagelist_high_fraction_);
  RecomputeQuick();
  ExplainWatermarks(zones());
}

void BuddyMemory::SetMinFreeKbytes(uint32_t kbytes) {
  min_free_kbytes_ = kbytes;
  user_min_free_kbytes_ = kbytes;
  RecomputeWatermarks();
}

void BuddyMemory::SetTransparentHugepage(bool enabled) {
  if (enabled) {
    min_free_kbytes_ = HugepageMinFreeKbytes(zones(), page_size_, pageblock_order(), min_free_kbytes_);
  } else if (const uint32_t kbytes = DefaultMinFreeKbytes(zones(), page_size_); kbytes > user_min_free_kbytes_.value_or(0)) {
    min_free_kbytes_ = kbytes;
  }
  RecomputeWatermarks();
}

void BuddyMemory::SetWatermarkScaleFactor(uint32_t factor) {
  watermark_scale_factor_ = factor;
  RecomputeWatermarks();
}

void BuddyMemory::SetPercpuPagelistHighFraction(uint32_t fraction) {
  if (fraction == pagelist_high_fraction_) return;
  pagelist_high_fraction_ = fraction;
  ComputePagesets(MutableZones(), page_size_, pagelist_high_fraction_);
  RecomputeQuick();
  ExplainWatermarks(zones());
}

void BuddyMemory::SetLowmemReserveRatio(const std::array<uint32_t, 5>& ratio) {
  lowmem_reserve_ratio_ = ratio;
  ComputeLowmemReserve(MutableZones(), lowmem_reserve_ratio_);
  RecomputeQuick();
  ExplainWatermarks(zones());
}

// --- Reading. ---

PageCount BuddyMemory::managed_pages() const {
  PageCount sum;
  for (const Zone& zone : zones()) sum += PageCount(zone.managed);
  return sum;
}

PageCount BuddyMemory::free_pages() const {
  PageCount sum;
  for (const Zone& zone : zones()) sum += PageCount(zone.free_pages());
  return sum;
}

std::array<uint32_t, kMigrateTypes> BuddyMemory::PageblockCounts(const Zone& zone) const {
  std::array<uint32_t, kMigrateTypes> counts{};
  // Steps from the zone's first frame, aligned or not, as the kernel does.
  for (uint32_t pfn = zone.start_pfn; pfn < zone.end_pfn(); pfn += lists_.pageblock_pages()) ++counts[lists_.PageblockType(pfn)];
  return counts;
}

std::array<uint64_t, kFrameStates> BuddyMemory::FrameCounts() const {
  std::array<uint64_t, kFrameStates> counts{};
  uint64_t left = 0;  // RAM of which nothing has been said yet.
  for (const Zone& zone : zones()) {
    left += zone.present;
    for (int order = 0; order <= kMaxOrder; ++order)
      counts[static_cast<size_t>(FrameState::kFree)] += uint64_t{zone.free_area[order].nr_free} << order;
    for (const PerCpuPages& pcp : zone.pcp) counts[static_cast<size_t>(FrameState::kPcp)] += pcp.count;
  }
  lists_.ForEachTouched([&](uint32_t, const FrameBlock& block) {
    for (uint32_t i = 0; i < FrameBlock::kFrames;) {
      const Frame& head = block.frames[i];
      const uint32_t pages = 1u << std::min<int>(head.order, kMaxOrder);
      if (head.state > FrameState::kPcp) counts[static_cast<size_t>(head.state)] += pages;
      i += pages;
    }
  });
  for (const auto& [first, end] : lists_.boot_slabs()) {
    for (uint32_t pfn = first; pfn < end; pfn = (pfn | (FrameBlock::kFrames - 1)) + 1) {
      if (lists_.table().BlockOf(pfn) != nullptr) continue;
      counts[static_cast<size_t>(FrameState::kSlab)] += std::min(end, (pfn | (FrameBlock::kFrames - 1)) + 1) - pfn;
    }
  }
  for (const uint64_t count : counts) left -= count;
  counts[static_cast<size_t>(FrameState::kReserved)] = left;
  return counts;
}

uint64_t BuddyMemory::total_reserve_pages() const { return TotalReservePages(zones()); }

Pfn BuddyMemory::HeadOf(Pfn pfn) const {
  const auto at = static_cast<uint32_t>(pfn.raw());
  for (int order = 0; order <= kMaxOrder; ++order) {
    const uint32_t head = at & ~((1u << order) - 1);
    const Frame frame = lists_.Peek(head);
    if (frame.order == kTailOrder) continue;
    // Gigantic pages: each part as large as the largest block has a frame that looks like the head of one.
    uint32_t first = head;
    while ((lists_.Peek(first).flags & kPgTail) != 0) first -= FrameBlock::kFrames;
    return Pfn(first);
  }
  return pfn;
}

uint64_t BuddyMemory::HostMemory() const {
  uint64_t bytes = sizeof(*this) + lists_.HostMemory() + contents_.HostMemory() + lru_.HostMemory();
  for (const Zone& zone : lists_.zones()) bytes += zone.pcp.size() * sizeof(PerCpuPages);
  return bytes;
}

}  // namespace mmlab

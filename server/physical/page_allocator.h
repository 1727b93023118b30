#ifndef MMLAB_SERVER_PHYSICAL_PAGE_ALLOCATOR_H_
#define MMLAB_SERVER_PHYSICAL_PAGE_ALLOCATOR_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/physical/free_lists.h"
#include "server/physical/lru_lists.h"
#include "server/physical/memory_controller.h"
#include "server/physical/page_contents.h"
#include "server/physical/physical_config.h"
#include "server/physical/physical_memory.h"
#include "server/physical/recorded_state.h"
#include "server/physical/vm_stat.h"
#include "server/physical/zone.h"

namespace mmlab {

class Compaction;
enum class CompactPriority : int8_t;
enum class CompactResult : uint8_t;
class MemoryPressure;
struct CompactRequest;

// The page allocator of one machine: zones, buddy free lists, per-CPU page lists. Linux 6.1: mm/page_alloc.c.
// It hands out the same frames as that kernel does from the same state.
//
// Always true between calls: every frame is in one state (FrameState); nr_free_pages of a zone with the CPUs' parts is what stands on its
// lists; no two free buddies of one kind stay apart; CheckInvariants() proves it.
//
// What happens when memory runs low is MemoryPressure's part. Without one, a request that may reclaim (kGfpDirectReclaim) and finds no
// memory takes back what the CPUs hold and the high-order reserve, as reclaim that finds nothing to evict does, and then fails.
//
// Not thread-safe: the machine's lane.
class BuddyMemory final : public PhysicalMemory {
 public:
  // REQUIRES: the config as PhysicalConfig demands. `tracer` outlives this.
  BuddyMemory(const PhysicalConfig& config, Tracer& tracer);
  // A machine in the middle of its life, from a recording of a real kernel's lists (tests).
  BuddyMemory(const RecordedState& recorded, Tracer& tracer);

  // --- PhysicalMemory ---

  [[nodiscard]] std::optional<Pfn> AllocPages(Gfp gfp, PageOrder order) override;
  void FreePages(Pfn head, PageOrder order) override;
  [[nodiscard]] std::optional<Pfn> AllocContig(Gfp gfp, PageOrder order, FrameState state) override;
  void FreeContig(Pfn head, PageOrder order) override;
  void SplitPage(Pfn head, PageOrder order) override;
  Frame& frame(Pfn pfn) override {
    MMLAB_CHECK(pfn < end_pfn());
    return lists_.frame(static_cast<uint32_t>(pfn.raw()));
  }
  PageContents& contents() override { return contents_; }
  const PageContents& contents() const override { return contents_; }
  PageSize page_size() const override { return page_size_; }
  bool InHighmem(Pfn pfn) const override { return lists_.zones()[PeekFrame(pfn).zone].highmem; }
  LruLists& lru() override { return lru_; }
  const LruLists& lru() const { return lru_; }
  Pfn zero_frame() const override { return Pfn(zero_frame_); }

  // Who frees memory when it runs low, and who moves pages together when it is in pieces; null: nobody. They outlive their use here.
  void SetMemoryPressure(MemoryPressure* pressure) { pressure_ = pressure; }
  void SetCompaction(Compaction* compaction) { compaction_ = compaction; }
  // zone_watermark_ok() against the zone's high watermark, and against its low one for single pages, of requests that may use zones up to
  // highest_zone.
  bool AboveHighWatermark(int zone, int highest_zone, int order) const;
  bool AboveLowWatermark(int zone, int highest_zone) const;
  uint64_t ReclaimablePages(const Zone& zone) const;  // zone_reclaimable_pages()
  // ZONE_RECLAIM_ACTIVE: while set, the CPUs keep fewer free pages to themselves.
  void SetReclaimActive(int zone, bool active);
  // Takes back the boost of a zone's watermarks: kswapd has done what it was for.
  void DropWatermarkBoost(int zone) {
    lists_.zones()[static_cast<size_t>(zone)].watermark_boost = 0;
    RecomputeQuick();
  }

  // --- What else the kernel's allocator offers ---

  // alloc_pages_exact(): just the pages that hold `bytes`, each a block of order 0; the unused tail of the block is free again. Free with
  // FreePagesExact and the same size. Nothing: no memory, or more bytes than the largest block has.
  [[nodiscard]] std::optional<Pfn> AllocPagesExact(Bytes bytes, Gfp gfp);
  void FreePagesExact(Pfn first, Bytes bytes);
  // alloc_pages_bulk_array(): order-0 pages for as many elements of `out` as it can; returns how many.
  size_t AllocPagesBulk(Gfp gfp, absl::Span<Pfn> out);
  // free_unref_page_list(): order-0 pages, in this order.
  void FreePageList(absl::Span<const Pfn> pages);
  // drain_local_pages() and drain_all_pages(): the per-CPU lists of the current CPU, or of all, go back to the free lists.
  void DrainLocalPages();
  void DrainAllPages();
  // What the kernel's vmstat worker does every second: adds the CPUs' parts of the counters to the zones'.
  void FoldCpuCounters();

  // gather_bootmem_prealloc(): what was kept from the allocator at boot becomes such a page as AllocContig() makes, under its rule from now
  // on. REQUIRES: all of it is reserved RAM of one zone.
  void AdoptReserved(Pfn head, PageOrder order, FrameState state);

  // Which CPU runs the operations from now on; decides whose lists are used. REQUIRES: cpu < cpus.
  void SetCurrentCpu(int cpu) {
    MMLAB_CHECK(cpu >= 0 && cpu < cpus_);
    if (static_cast<uint32_t>(cpu) == cpu_) return;
    cpu_ = static_cast<uint32_t>(cpu);
    RecomputeQuick();
  }
  int current_cpu() const override { return static_cast<int>(cpu_); }
  int cpus() const override { return cpus_; }

  // --- Settings (sysctl vm.*). They take effect at once, as in the kernel. ---

  void SetMinFreeKbytes(uint32_t kbytes);
  // /sys/kernel/mm/transparent_hugepage/enabled was written: enabled = always or madvise.
  void SetTransparentHugepage(bool enabled);
  void SetWatermarkScaleFactor(uint32_t factor);
  void SetWatermarkBoostFactor(uint32_t factor) { watermark_boost_factor_ = factor; }
  void SetLowmemReserveRatio(const std::array<uint32_t, 5>& ratio);
  void SetPercpuPagelistHighFraction(uint32_t fraction);
  uint32_t min_free_kbytes() const { return min_free_kbytes_; }
  uint32_t watermark_scale_factor() const { return watermark_scale_factor_; }
  uint32_t watermark_boost_factor() const { return watermark_boost_factor_; }
  const std::array<uint32_t, 5>& lowmem_reserve_ratio() const { return lowmem_reserve_ratio_; }

  // --- Reading ---

  // Three or four, by index; zones without RAM included, as /proc/zoneinfo lists them.
  absl::Span<const Zone> zones() const { return absl::MakeConstSpan(lists_.zones()).first(zone_count_); }
  ZoneSet zone_set() const { return zone_set_; }
  int pageblock_order() const { return lists_.pageblock_order(); }
  PageCount managed_pages() const;                               // totalram_pages()
  PageCount free_pages() const;                                  // nr_free_pages as /proc reads it.
  uint64_t total_reserve_pages() const;                          // totalreserve_pages
  uint64_t boot_slab_pages() const { return boot_slab_pages_; }  // Of PhysicalConfig::boot_slabs.
  Pfn end_pfn() const { return Pfn(lists_.table().end_pfn()); }
  // What frame() would show, without making it exist on the host. A tail of a block shows order kTailOrder: see HeadOf.
  Frame PeekFrame(Pfn pfn) const {
    MMLAB_CHECK(pfn < end_pfn());
    return lists_.Peek(static_cast<uint32_t>(pfn.raw()));
  }
  // The first frame of the free or allocated block that a frame belongs to.
  Pfn HeadOf(Pfn pfn) const;
  int PageblockTypeOf(Pfn pfn) const { return lists_.PageblockType(static_cast<uint32_t>(pfn.raw())); }
  // RAM by what it is used for, in pages, indexed by FrameState; the sum is all RAM. A block counts as what its first frame says. Costs
  // time in proportion to touched memory.
  std::array<uint64_t, kFrameStates> FrameCounts() const;
  // /proc/pagetypeinfo's "Number of blocks type". Costs a look at each page block.
  std::array<uint32_t, kMigrateTypes> PageblockCounts(const Zone& zone) const;
  const FreeLists& lists() const { return lists_; }

  VmStat& vm_stat() { return vm_stat_; }
  const VmStat& vm_stat() const { return vm_stat_; }
  uint64_t HostMemory() const;  // Bytes that this takes on the host.
  void StateHash(StateHasher& hasher) const;
  // Proves the promises above; appends one line for each that is broken. Costs time in proportion to touched memory.
  void CheckInvariants(std::vector<std::string>* problems) const;

 private:
  friend class Compaction;  // The other half of the room that works on the free lists.

  // alloc_flags of mm/internal.h, bit values ours.
  enum AllocFlag : uint32_t {
    kAllocWmarkMin = 0,  // Which watermark is checked, in the two lowest bits.
    kAllocWmarkLow = 1,
    kAllocWmarkMask = 3,
    kAllocNoWatermarks = 1u << 2,
    kAllocMinReserve = 1u << 3,
    kAllocNonBlock = 1u << 4,
    kAllocHighatomic = 1u << 5,
    kAllocCma = 1u << 6,
    kAllocNoFragment = 1u << 7,
    kAllocKswapd = 1u << 8,
    kAllocReserves = kAllocMinReserve | kAllocNonBlock,
  };
  static constexpr int kNoZone = -1;

  // What a request may use. Linux: struct alloc_context.
  struct AllocContext {
    int highest_zone = 0;
    int preferred_zone = kNoZone;  // The highest populated one of those; the zone list goes down from there.
    int migrate_type = kMigrateUnmovable;
  };

  // A block that compaction waits for, taken as soon as merging makes it. Linux: struct capture_control.
  struct Capture {
    int zone = 0;
    int order = 0;
    uint32_t pfn = kNoFrame;
  };
  // What a request that can be served at once needs to know, by the bits of its Gfp that decide it: those of the zone and of the migrate
  // type (kQuickMask).
  struct alignas(64) QuickRequest {
    Zone* zone = nullptr;  // Of the current CPU's lists: the first one that the request may use.
    PerCpuPages* pcp = nullptr;
    PcpList* lists = nullptr;           // Those of its migrate type: this one for order 0, every third from here on for the next orders.
    uint64_t* allocated = nullptr;      // pgalloc_*
    const int64_t* withheld = nullptr;  // Free pages that it must not count on beside those in `floor`: nr_free_cma, or none.
    int64_t floor = 0;                  // More pages than this must stay free: low watermark, boost, lowmem_reserve, highatomic reserve.
  };
  static constexpr Gfp kQuickMask = 31;
  // The same for a block that is freed: the lists of the current CPU for a kind of page block.
  struct QuickFree {
    FrameBlock::Pageblock of{kMigrateTypes, 0};  // No block is of that kind.
    PerCpuPages* pcp = nullptr;
    PcpList* lists = nullptr;
  };

  // gfp_migratetype()
  static int TypeOf(Gfp gfp) {
    if ((gfp & kGfpMovable) != 0) return kMigrateMovable;
    return (gfp & kGfpReclaimable) != 0 ? kMigrateReclaimable : kMigrateUnmovable;
  }

  // page_allocator_boot.cc
  void SetUpZones(const PhysicalConfig& config);
  void SetUpCpus();
  void RecomputeZoneList();
  QuickRequest QuickOf(Gfp bits);
  int64_t QuickFloor(Gfp bits) const;
  static uint32_t PcpLimit(const Zone& zone, const PerCpuPages& pcp);  // nr_pcp_high()
  // To be called whenever anything changes that quick_, pcp_now_ and PerCpuPages::limit are made of.
  void RecomputeQuick();
  void ReleaseBootMemory(const PhysicalConfig& config);
  void TakeBootSlabs(const PhysicalConfig& config);
  void ReleaseRange(Zone& zone, uint32_t start, uint32_t end, bool cma, bool page_by_page);
  void AddLateFreed(const PhysicalConfig& config, bool managed);
  void ChooseZeroFrame(const PhysicalConfig& config);
  void RecomputeWatermarks();

  // explain_zones.cc
  void ExplainZones(const PhysicalConfig& config) const;
  void ExplainWatermarks(absl::Span<const Zone> from) const;
  absl::Span<Zone> MutableZones() { return absl::MakeSpan(lists_.zones()).first(zone_count_); }

  // page_allocator_load.cc
  void LoadLists(const RecordedZone& from, Zone& zone);

  // page_allocator.cc: from request to zone.
  AllocContext ContextOf(Gfp gfp) const;
  uint32_t AllocQuick(Gfp gfp, int order);
  bool FreeQuick(uint32_t pfn, int order);
  uint32_t FirstFlags(Gfp gfp, const AllocContext& context) const;
  uint32_t GetPageFromFreelist(Gfp gfp, int order, uint32_t flags, const AllocContext& context);
  std::optional<Pfn> AllocSpecial(Gfp gfp, PageOrder order);
  std::optional<Pfn> AllocBlock(Gfp gfp, PageOrder order);
  void FreeWritten(Pfn head, PageOrder order);
  void FreeBlockOf(Pfn head, PageOrder order);
  uint32_t LookAgain(Gfp gfp, int order, uint32_t flags, const AllocContext& context);  // The same, out of line.
  void PrepareNewPage(uint32_t pfn, int order, Gfp gfp);
  void EmitAlloc(uint32_t pfn, int order, Gfp gfp, int type) const;
  void ClearForFree(Frame& frame, uint32_t pfn, int order);
  void ClearTails(uint32_t pfn, int order, uint8_t zone);

  // alloc_slowpath.cc: when no zone can serve a request at once.
  struct SlowRequest;
  uint32_t AllocSlowpath(Gfp gfp, int order, const AllocContext& context);
  uint32_t FromFreelist(const SlowRequest& request);
  uint32_t SlowFlags(Gfp gfp, int order, const AllocContext& context) const;
  uint32_t RetryUntilGone(SlowRequest& request);
  uint32_t AllocByDraining(const SlowRequest& request);
  uint32_t AfterReclaim(SlowRequest& request);
  uint32_t AfterCompaction(SlowRequest& request);
  uint32_t AfterKilling(SlowRequest& request);
  void WakeDaemons(const SlowRequest& request);
  bool RunKswapd(Gfp gfp, int order, int highest_zone);
  void WakeForBoost();
  bool ReclaimAgain(SlowRequest& request);
  bool CompactAgain(SlowRequest& request);
  void ExplainRequest(Gfp gfp, int order, uint32_t flags, const AllocContext& context) const;

  // zone_watermarks.cc
  uint64_t WatermarkOf(const Zone& zone, uint32_t flags) const {
    return ((flags & kAllocWmarkMask) == kAllocWmarkLow ? zone.wmark_low : zone.wmark_min) + zone.watermark_boost;
  }
  // __zone_watermark_unusable_free(): free pages that this request must not count on.
  static int64_t UnusableFree(const Zone& zone, int order, uint32_t flags) {
    int64_t unusable = (int64_t{1} << order) - 1;
    if ((flags & kAllocReserves) == 0) unusable += zone.nr_reserved_highatomic;
    if ((flags & kAllocCma) == 0) unusable += static_cast<int64_t>(zone.stat(ZoneStat::kNrFreeCma));
    return unusable;
  }
  bool WatermarkOk(const Zone& zone, int order, uint64_t mark, int highest_zone, uint32_t flags, int64_t free_pages) const;
  bool WatermarkFast(const Zone& zone, int order, uint64_t mark, int highest_zone, uint32_t flags, Gfp gfp) const {
    if (order == 0) [[likely]] {
      const int64_t free = static_cast<int64_t>(zone.free_pages());
      const int64_t reserved = UnusableFree(zone, 0, flags);
      const int64_t usable = free > reserved ? free - reserved : 0;
      if (usable > static_cast<int64_t>(mark + zone.lowmem_reserve[highest_zone])) [[likely]]
        return true;
    }
    return WatermarkSlow(zone, order, mark, highest_zone, flags, gfp);
  }
  bool WatermarkSlow(const Zone& zone, int order, uint64_t mark, int highest_zone, uint32_t flags, Gfp gfp) const;
  void ExplainZone(const Zone& zone, int order, uint64_t mark, int highest_zone, uint32_t flags, bool ok) const;

  // per_cpu_pages.cc: one zone's lists of the current CPU.
  static bool PcpAllowed(int order, int pageblock_order) { return order <= kCostlyOrder || order == pageblock_order; }
  static int PcpIndex(int type, int order) {
    return order > kCostlyOrder ? kPcpHugeList + (type == kMigrateMovable) : order * kMigratePcpTypes + type;
  }
  int PcpOrder(int index) const { return index >= kPcpHugeList ? lists_.pageblock_order() : index / kMigratePcpTypes; }
  uint32_t TakeFromZone(Zone& zone, int order, uint32_t flags, int type);
  uint32_t TakeFromPcp(Zone& zone, PerCpuPages& pcp, int order, int type, uint32_t flags);
  bool RefillPcp(Zone& zone, PerCpuPages& pcp, PcpList& list, int order, int type, uint32_t flags);
  void FreeToPcp(Zone& zone, uint32_t pfn, Frame& frame, int order, int type);
  void PcpOverflow(Zone& zone, PerCpuPages& pcp, int index, bool free_high, uint32_t high);
  void FreePcpBulk(Zone& zone, PerCpuPages& pcp, int64_t count, int index);
  void DrainZone(Zone& zone, PerCpuPages& pcp);
  void PcpPushHead(PcpList& list, uint32_t pfn, Frame& frame);
  void PcpPushTail(PcpList& list, uint32_t pfn, Frame& frame);
  uint32_t PcpPopHead(PcpList& list);
  uint32_t PcpPopTail(PcpList& list);

  // buddy.cc: one zone's free lists.
  uint32_t TakeFromBuddy(Zone& zone, int order, uint32_t flags, int type);
  uint32_t RemoveSmallest(Zone& zone, int order, int type);
  uint32_t RemoveBlock(Zone& zone, int order, int type, uint32_t flags);
  void FreeBlock(Zone& zone, uint32_t pfn, int order, int type, bool to_tail);
  // compaction_capture()
  bool CaptureBlock(Zone& zone, uint32_t pfn, int order, int type);
  // __isolate_free_page(): takes a free block off its list as so many allocated single pages. False: too little memory is free for that.
  bool IsolateFreeBlock(Zone& zone, uint32_t pfn, int order);
  bool BuddyMergeLikely(uint32_t pfn, uint32_t buddy, int order) const;
  void AddFree(Zone& zone, int64_t pages, int type);
  void AddCpuStat(Zone& zone, ZoneStat item, int32_t PerCpuPages::*diff, int64_t delta);
  static VmEvent PgallocOf(const Zone& zone) {
    return static_cast<VmEvent>(static_cast<int>(VmEvent::kPgallocDma) + static_cast<int>(zone.type));
  }
  void CountAlloc(Zone& zone, uint64_t pages, uint64_t requests = 1) {
    vm_stat_.Count(PgallocOf(zone), pages);
    CountNode(zone, requests);
  }
  void CountNode(Zone& zone, uint64_t requests) {
    if (zone_set_ == ZoneSet::kArm64) zone.numa_hits += requests;  // The one kernel with NUMA, of one node.
  }

  // contig.cc: ranges larger than the largest block.
  bool UntouchedFree(const Zone& zone, uint32_t pfn) const;
  bool RangeValid(const Zone& zone, uint32_t start, uint32_t end) const;
  std::optional<uint32_t> FindUnmovable(const Zone& zone, uint32_t start, uint32_t end) const;
  void IsolateRange(Zone& zone, uint32_t start, uint32_t end);
  void UndoIsolation(Zone& zone, uint32_t start, uint32_t end);
  bool TakeIsolated(Zone& zone, uint32_t start, uint32_t end);
  bool TryContig(Zone& zone, uint32_t start, uint32_t end);
  void MakeCompound(uint32_t pfn, int order, FrameState state);

  // fallback.cc: taking over pages of other migrate types.
  bool StealFallback(Zone& zone, int order, int type, uint32_t flags);
  int FindFallback(const FreeArea& area, int order, int type, bool* can_steal) const;
  void StealSuitable(Zone& zone, uint32_t pfn, int order, uint32_t flags, int type, bool whole_block);
  bool BoostWatermark(Zone& zone);
  uint32_t MovePageblock(Zone& zone, uint32_t pfn, int type, uint32_t* movable);
  void ReserveHighatomic(Zone& zone, uint32_t pfn);
  bool UnreserveHighatomic(const AllocContext& context, bool force);

  Tracer& tracer_;
  PageSize page_size_;
  ZoneSet zone_set_;
  size_t zone_count_ = kZones;
  int cpus_;
  uint32_t cpu_ = 0;
  std::array<PerCpuPages*, kZones> pcp_now_{};  // Those of the current CPU, by zone.
  std::array<QuickRequest, kQuickMask + 1> quick_{};
  QuickFree free_to_;  // Where the last block went.
  uint32_t zero_frame_ = 0;
  uint64_t boot_slab_pages_ = 0;
  // By the three zone bits and kGfpMovable of a request: the highest zone it may use; and the first populated one from each zone downward.
  std::array<int8_t, 16> highest_zone_{};
  std::array<int8_t, kZones> first_zone_{};
  int normal_zone_ = 1;

  uint32_t min_free_kbytes_ = 0;
  std::optional<uint32_t> user_min_free_kbytes_;  // What somebody wrote.
  uint32_t watermark_scale_factor_ = 10;
  uint32_t watermark_boost_factor_ = 15000;
  std::array<uint32_t, 5> lowmem_reserve_ratio_{};
  uint32_t pagelist_high_fraction_ = 0;

  FreeLists lists_;
  PageContents contents_;
  VmStat vm_stat_;
  LruLists lru_{lists_, vm_stat_, &tracer_};
  MemoryPressure* pressure_ = nullptr;
  Compaction* compaction_ = nullptr;
  Capture* capture_ = nullptr;  // While compaction for a request runs.
  bool freeing_ = false;        // Inside the slow path: memory is being freed (PF_MEMALLOC).
  bool isolating_ = false;      // Some page blocks are isolated.
  int boosted_zone_ = kNoZone;  // Within a request: kswapd is to be woken for this zone's boost when the page is there.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_PAGE_ALLOCATOR_H_

#ifndef MMLAB_SERVER_PHYSICAL_LRU_LISTS_H_
#define MMLAB_SERVER_PHYSICAL_LRU_LISTS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/base/address.h"
#include "server/base/hash.h"
#include "server/physical/free_lists.h"
#include "server/physical/lru_generations.h"
#include "server/physical/vm_stat.h"
#include "server/physical/zone.h"

namespace mmlab {

class Tracer;

// enum lru_list of include/linux/mmzone.h, in its order, which is also that of the counters (nr_inactive_anon ...).
enum class LruKind : uint8_t { kInactiveAnon = 0, kActiveAnon = 1, kInactiveFile = 2, kActiveFile = 3, kUnevictable = 4 };
inline constexpr int kLruKinds = 5;

inline constexpr bool IsActive(LruKind kind) { return kind == LruKind::kActiveAnon || kind == LruKind::kActiveFile; }
inline constexpr bool IsFile(LruKind kind) { return kind == LruKind::kInactiveFile || kind == LruKind::kActiveFile; }

// The evictable pages of the node that one memory cgroup is charged for, in the order of their age, newest first. Linux: struct lruvec,
// include/linux/mmzone.h.
//
// Always true: counts are what the lists hold, by zone; the unevictable list has only a count, as in Linux, where a locked page's link
// counts its locks. While there are generations, all lists are empty and pages count as active or not by their generation.
struct Lruvec {
  std::array<FrameList, kLruKinds> lists;
  std::array<std::array<uint32_t, kZones>, kLruKinds> zone_pages{};
  uint64_t nonresident_age = 0;    // Evictions and activations so far, the clock of refault distances (mm/workingset.c).
  uint16_t memcg = 0;              // Whose they are,
  int64_t made = 0;                // Machine time, ns.
  uint16_t parent = 0;             // who is above, 0: the root,
  std::vector<uint16_t> children;  // and directly below.
  // Of the cgroup and all below it: what reclaim of anonymous and of file pages cost of late, pages written and pages that came back.
  uint64_t anon_cost = 0;
  uint64_t file_cost = 0;
  std::array<uint64_t, 2> activations{};        // Of those too: refaults of anonymous and of file pages that were activated at once.
  std::array<uint64_t, 2> refaults{};           // `activations` when reclaim last ended.
  std::unique_ptr<LruGenerations> generations;  // Null: MGLRU is off.

  FrameList& list(LruKind kind) { return lists[static_cast<size_t>(kind)]; }
  const FrameList& list(LruKind kind) const { return lists[static_cast<size_t>(kind)]; }
  // lruvec_lru_size(): pages in zones up to that one.
  uint64_t Pages(LruKind kind, int highest_zone = kZones - 1) const;
};

// The LRU lists of a machine: one Lruvec for each memory cgroup, number 0 for the root. Linux: mm/swap.c, include/linux/mm_inline.h.
//
// A compound page is one entry that counts as many pages as it has.
// Which list a frame belongs on follows from its flags: kPgUnevictable, kPgActive, kPgSwapBacked. kPgLru says that it is on one.
// Always true: nr_inactive_anon and its kin, of the node and of each zone, are the sums over the Lruvecs.
class LruLists {
 public:
  // All outlive this; without a tracer nothing is explained.
  LruLists(FreeLists& frames, VmStat& vm_stat, const Tracer* tracer = nullptr);

  // The list that a frame's flags name, were there no generations.
  static LruKind KindOf(const Frame& frame) {
    if ((frame.flags & kPgUnevictable) != 0) return LruKind::kUnevictable;
    const bool active = (frame.flags & kPgActive) != 0;
    if ((frame.flags & kPgSwapBacked) != 0) return active ? LruKind::kActiveAnon : LruKind::kInactiveAnon;
    return active ? LruKind::kActiveFile : LruKind::kInactiveFile;
  }

  // lruvec_add_folio(): to the head of its list. REQUIRES: not on one.
  void Add(Pfn pfn);
  // lruvec_add_folio_tail()
  void AddTail(Pfn pfn);
  // lruvec_del_folio(). REQUIRES: on one.
  void Remove(Pfn pfn);
  // isolate_lru_folios(): takes up to `pages` off the old end of a list onto `taken`, which is empty, each with a reference of its own. How
  // many were passed over, to the other end: those of zones beyond highest_zone.
  uint64_t Isolate(Lruvec& lruvec, LruKind kind, uint64_t pages, int highest_zone, std::vector<Pfn>& taken);
  // Changes flags that decide the list; a frame that is on one moves to the head of the right one.
  void ChangeFlags(Pfn pfn, uint32_t set, uint32_t clear);
  // lru_add_page_tail(): a compound page on a list became `pages` single ones; the others go before the first. REQUIRES: their flags name
  // the same list.
  void SplitCompound(Pfn head, uint32_t pages);
  // folio_mark_accessed(): once marks an inactive page referenced, twice makes it active.
  void MarkAccessed(Pfn pfn);
  // workingset_eviction(): what to remember of a page that is evicted for the sake of that cgroup; 0: of the node.
  uint64_t NoteEviction(Pfn pfn, uint16_t target);
  // workingset_refault() of a page that is not on a list yet: active at once when it came back before as many other pages were evicted as
  // there are active ones.
  void NoteRefault(Pfn pfn, uint64_t shadow, bool swap_space);
  // lru_note_cost(): `pages` of that kind had to be written or read because they were taken away, which is said to all above too.
  void NoteCost(uint16_t memcg, bool file, uint64_t pages);
  // To the other end of its list: what was not to be evicted after all, and what is to go next.
  void RotateToHead(Pfn pfn);
  void RotateToTail(Pfn pfn);
  // folio_rotate_reclaimable(): a page that was to go as soon as it was written is written now.
  void RotateReclaimable(Pfn pfn);

  // --- Generations, instead of active and inactive lists (lru_generations.cc). Linux: the MGLRU parts of mm/vmscan.c ---

  bool generations_enabled() const { return generations_enabled_; }
  // lru_gen_change_state(): every page moves to where it belongs then.
  void EnableGenerations(bool enabled);
  // The machine's time, which tells how old generations are and outlives this (null, tests: 0), and the bits of its words, which are how
  // many pages are looked at together (MIN_LRU_BATCH).
  void SetMachine(const int64_t* clock, uint64_t word_bits) {
    clock_ = clock;
    root_.made = now();
    batch_ = word_bits;
  }
  uint64_t batch() const { return batch_; }
  int64_t now() const { return clock_ == nullptr ? 0 : *clock_; }
  // current->in_lru_fault: pages that are added while a process faults are hot.
  void SetInFault(bool in_fault) { in_fault_ = in_fault; }
  // folio_update_gen(): it was used through a page table. A page that is not on a list is marked for who holds it.
  void Promote(Pfn pfn);
  // folio_inc_gen(), and to which end of the next generation's list. REQUIRES: of the oldest generation.
  void MoveToNextGeneration(Pfn pfn, bool reclaiming, bool tail);
  // lru_gen_del_folio() for reclaim: the page does not count as active any more. REQUIRES: in a generation.
  void RemoveForReclaim(Pfn pfn);
  // inc_max_seq(): a new youngest generation; where there are as many as can be, the oldest joins the next.
  void AddGeneration(Lruvec& lruvec, bool can_swap);
  // try_to_inc_min_seq(): empty oldest generations end. Whether one did.
  bool DropEmptyGenerations(Lruvec& lruvec, bool can_swap);

  // --- By memory cgroup ---

  Lruvec& of(uint16_t memcg) { return *lruvecs_[memcg]; }
  const Lruvec& of(uint16_t memcg) const { return *lruvecs_[memcg]; }
  Lruvec& root() { return root_; }
  const Lruvec& root() const { return root_; }
  // Numbers of all that exist, ascending; 0 is always there.
  std::vector<uint16_t> Numbers() const;
  // REQUIRES: that number has none yet; the other, above it, has.
  void Make(uint16_t memcg, uint16_t parent);
  // lruvec_page_state() of a list: pages of a cgroup and of all below it.
  uint64_t TreePages(uint16_t memcg, LruKind kind) const;
  // REQUIRES: its lists are empty, and none is below. The root stays.
  void Drop(uint16_t memcg);
  // Counts of the pages and the doings of one cgroup, without those below it: what memory.stat sums up. REQUIRES: it exists; not 0, whose
  // counts are the node's.
  VmStat& stat(uint16_t memcg) { return made_[memcg]->stat; }
  const VmStat& stat(uint16_t memcg) const { return made_[memcg]->stat; }
  // __mod_lruvec_page_state(): the node's counter, and that of the cgroup which is charged for the frame.
  void AddStat(const Frame& frame, NodeStat item, int64_t delta) {
    vm_stat_.Add(item, delta);
    if (frame.memcg != 0) [[unlikely]]
      made_[frame.memcg]->stat.Add(item, delta);
  }
  // The same for pages of the kernel itself, whose charge moves up when their cgroup is removed.
  void AddKernelStat(const Frame& frame, NodeStat item, int64_t delta) {
    vm_stat_.Add(item, delta);
    if (frame.memcg == 0) [[likely]]
      return;
    if (const uint16_t owner = made_[frame.memcg]->kernel_owner; owner != 0) made_[owner]->stat.Add(item, delta);
  }
  // __mod_zone_page_state(): a counter of the zone that the frame is in. Not for those that the lists or the allocator keep.
  void AddZoneStat(const Frame& frame, ZoneStat item, int64_t delta) {
    int64_t& value = frames_.zones()[frame.zone].stats[static_cast<size_t>(item)];
    value += delta;
    MMLAB_CHECK(value >= 0);
  }
  // global_zone_page_state() of such a counter.
  uint64_t SumOfZones(ZoneStat item) const;
  // count_memcg_events() beside count_vm_events().
  void Count(uint16_t memcg, VmEvent item, uint64_t times = 1) {
    vm_stat_.Count(item, times);
    CountOnly(memcg, item, times);
  }
  void CountOnly(uint16_t memcg, VmEvent item, uint64_t times = 1) {
    if (memcg != 0) made_[memcg]->stat.Count(item, times);
  }
  // Which cgroup kernel memory that this one is charged for counts for; 0: the root.
  uint16_t kernel_owner(uint16_t memcg) const { return made_[memcg]->kernel_owner; }
  // reparent of kernel memory: its counts go from one cgroup, and from all whose counts went there before, to another; 0: to none.
  void MoveKernelStats(uint16_t from, uint16_t to);

  // Charges a frame to another cgroup, with its place on the lists.
  void Recharge(Pfn pfn, uint16_t memcg);

  void CheckInvariants(std::vector<std::string>* problems) const;
  void StateHash(StateHasher& hasher) const;
  uint64_t HostMemory() const;

 private:
  Frame& frame(Pfn pfn) { return frames_.frame(static_cast<uint32_t>(pfn.raw())); }
  void Count(const Frame& frame, LruKind kind, int sign) {
    CountPages(*lruvecs_[frame.memcg], kind, frame.zone, sign * static_cast<int64_t>(CompoundPages(frame)));
  }
  // The counters of a zone and of the node stand in the order of LruKind.
  static ZoneStat ZoneStatOf(LruKind kind) {
    return static_cast<ZoneStat>(static_cast<uint8_t>(ZoneStat::kNrZoneInactiveAnon) + static_cast<uint8_t>(kind));
  }
  static NodeStat NodeStatOf(LruKind kind) {
    return static_cast<NodeStat>(static_cast<uint8_t>(NodeStat::kNrInactiveAnon) + static_cast<uint8_t>(kind));
  }
  void CountPages(Lruvec& lruvec, LruKind kind, size_t zone, int64_t pages) {
    lruvec.zone_pages[static_cast<size_t>(kind)][zone] += static_cast<uint32_t>(pages);
    frames_.zones()[zone].stats[static_cast<size_t>(ZoneStatOf(kind))] += pages;
    vm_stat_.Add(NodeStatOf(kind), pages);
  }
  void AddToGeneration(Lruvec& lruvec, Pfn pfn, bool reclaiming);
  void RemoveFromGeneration(Pfn pfn, bool reclaiming);
  void MoveToGeneration(Pfn pfn, size_t place, bool tail);
  LruKind CountedAs(const Frame& frame) const;
  void EndOldest(LruGenerations& generations, size_t kind);
  void MergeOldest(Lruvec& lruvec, size_t kind, bool can_swap);
  void FillGenerations(Lruvec& lruvec);
  void DrainGenerations(Lruvec& lruvec);
  uint64_t NoteGenerationEviction(const Frame& frame);
  void NoteGenerationRefault(Frame& frame, uint64_t shadow);
  void AgeNonresident(uint16_t memcg);
  void CheckGenerations(const Lruvec& lruvec, std::vector<std::string>* problems) const;
  void HashGenerations(const LruGenerations& generations, StateHasher& hasher) const;
  void LinkHead(FrameList& list, uint32_t pfn, Frame& frame) {
    frame.prev = kNoFrame;
    frame.next = list.head;
    (list.head == kNoFrame ? list.tail : frames_.table().At(list.head).prev) = pfn;
    list.head = pfn;
    ++list.count;
  }
  void LinkTail(FrameList& list, uint32_t pfn, Frame& frame);
  void Unlink(FrameList& list, uint32_t pfn, Frame& frame) {
    MMLAB_CHECK(list.count > 0 && (frame.prev != kNoFrame || list.head == pfn));
    (frame.prev == kNoFrame ? list.head : frames_.table().At(frame.prev).next) = frame.next;
    (frame.next == kNoFrame ? list.tail : frames_.table().At(frame.next).prev) = frame.prev;
    frame.next = frame.prev = kNoFrame;
    --list.count;
  }

  struct Made {
    Lruvec lruvec;
    VmStat stat;
    uint16_t kernel_owner = 0;  // Where its kernel memory counts: itself, or one above it.
  };

  FreeLists& frames_;
  VmStat& vm_stat_;
  const Tracer* tracer_;
  const int64_t* clock_ = nullptr;
  uint64_t batch_ = 64;
  bool generations_enabled_ = false;
  bool in_fault_ = false;
  Lruvec root_;
  std::vector<std::unique_ptr<Made>> made_;  // By number, 0 and those that do not exist null.
  std::vector<Lruvec*> lruvecs_;             // By number.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_LRU_LISTS_H_

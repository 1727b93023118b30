#ifndef MMLAB_SERVER_PHYSICAL_FREE_LISTS_H_
#define MMLAB_SERVER_PHYSICAL_FREE_LISTS_H_

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "server/physical/frame_table.h"
#include "server/physical/zone.h"

namespace mmlab {

// The zones, the metadata of their frames, and the free lists that tie both together.
//
// A free block is on one list, linked through the Frame of its first page. Blocks that nobody has touched since boot have no Frames on the
// host: neighbouring ones of the largest order stand on their list as one run, smaller ones as single entries, and get their
// Frames (Materialise) when one of them is taken or looked at through frame(). Whatever is read here is the same before and after.
//
// Always true: a frame with metadata is the head of a block (order 0..10) or a tail of one (order kTailOrder); a head of state kFree is on
// zones[zone].free_area[order].lists[migrate_type].
class FreeLists {
 public:
  using Ranges = std::vector<std::pair<uint32_t, uint32_t>>;  // Ascending [first, end).
  // `ram` and `boot_slabs` decide the migrate type with which a page block starts. Frames of boot_slabs need no metadata to be what they
  // are.
  FreeLists(uint32_t end_pfn, int pageblock_order, Ranges ram, Ranges boot_slabs = {})
      : table_(end_pfn), pageblock_order_(pageblock_order), ram_(std::move(ram)), boot_slabs_(std::move(boot_slabs)) {}

  std::array<Zone, kZones>& zones() { return zones_; }
  const std::array<Zone, kZones>& zones() const { return zones_; }
  const FrameTable& table() const { return table_; }
  int pageblock_order() const { return pageblock_order_; }
  uint32_t pageblock_pages() const { return 1u << pageblock_order_; }

  // Metadata of a frame, made if it does not exist.
  Frame& frame(uint32_t pfn) {
    if (Frame* frame = table_.Find(pfn)) [[likely]]
      return *frame;
    return Materialise(pfn);
  }
  // What frame() would give, without making it exist. The links of a free block are not filled in.
  Frame Peek(uint32_t pfn) const;

  // --- Free lists. `pfn` is the first page of a block. ---

  // Puts a block on a list and makes its first frame say so; its other frames must be tails already.
  void PushHead(Zone& zone, uint32_t pfn, int order, int type) { Push(zone, pfn, order, type, false); }
  void PushTail(Zone& zone, uint32_t pfn, int order, int type) { Push(zone, pfn, order, type, true); }
  // Takes a block off its list; its Frame keeps its order. REQUIRES: has metadata and is free.
  void Remove(Zone& zone, uint32_t pfn);
  // First block of a list, with metadata. REQUIRES: the list is not empty.
  uint32_t First(const FrameList& list) {
    (void)frame(list.head);
    return list.head;
  }
  // To the tail of the list of another type (or its own).
  void MoveToTail(Zone& zone, uint32_t pfn, int type);

  // The free block of just this order that starts at pfn, if there is one: PageBuddy() and buddy_order().
  bool IsFreeBlock(uint32_t pfn, int order) const {
    const Frame* frame = table_.Find(pfn);
    return frame != nullptr && frame->state == FrameState::kFree && frame->order == order;
  }

  // The neighbours of a block on its list; kNoFrame at the ends. REQUIRES: of an order below kMaxOrder.
  uint32_t NextOnList(uint32_t pfn) { return NextOf(pfn); }
  uint32_t PreviousOnList(uint32_t pfn) { return PrevOf(pfn); }
  // Turns a list, its blocks keeping their round, until it starts with this block, or ends with it. REQUIRES: as above, and on the list.
  void RotateToHead(FrameList& list, uint32_t pfn);
  void RotateToTail(FrameList& list, uint32_t pfn);

  // From head to tail.
  void ForEach(const Zone& zone, int order, int type, absl::FunctionRef<void(uint32_t pfn)> visit) const;

  // --- Migrate types of page blocks. ---

  int PageblockType(uint32_t pfn) const {
    FrameBlock* block = table_.BlockOf(pfn);
    if (block == nullptr) [[unlikely]]
      return UntouchedPageblockType(pfn);
    return block->PageblockAt(pfn & (FrameBlock::kFrames - 1), pageblock_order_).type;
  }
  void SetPageblockType(uint32_t pfn, int type);
  // What it is before anybody changes it: movable if its first frame is RAM of the same zone (memmap_init_range() looks at no other), else
  // unmovable; so are those in which boot took slabs. CMA areas come later.
  int BootPageblockType(uint32_t pfn) const;

  // --- Boot. ---

  // To a list, without metadata unless that exists already. `blocks` neighbouring blocks of the largest order are one run.
  // Ascending ones go to the tail; descending ones (from the highest to the lowest) to the head. REQUIRES: blocks == 1 unless order ==
  // kMaxOrder.
  void AddUntouched(Zone& zone, uint32_t pfn, int order, int type, uint32_t blocks, bool descending);

  const Ranges& boot_slabs() const { return boot_slabs_; }

  uint64_t HostMemory() const;
  // Blocks of metadata that exist, ascending: pfn of the first frame.
  void ForEachTouched(absl::FunctionRef<void(uint32_t pfn, const FrameBlock& block)> visit) const;
  // Index of the zone that spans a frame; the last zone for frames outside all zones.
  int ZoneOf(uint32_t pfn) const;

 private:
  // One or more free blocks without metadata, one place in a list. Keyed by its lowest frame.
  struct Untouched {
    uint32_t next = kNoFrame;  // Neighbours in the list, by the frame that names them.
    uint32_t prev = kNoFrame;
    uint32_t blocks = 1;
    uint8_t zone = 0;
    uint8_t order = 0;
    uint8_t type = 0;
    bool descending = false;
  };
  using UntouchedMap = absl::btree_map<uint32_t, Untouched>;

  // A list names an entry by the first frame of its first block in list order.
  static uint32_t NameOf(uint32_t lowest, const Untouched& entry) {
    return entry.descending ? lowest + (entry.blocks - 1) * FrameBlock::kFrames : lowest;
  }
  UntouchedMap::iterator Holding(uint32_t pfn);  // end(): no such entry.
  UntouchedMap::const_iterator Holding(uint32_t pfn) const { return const_cast<FreeLists*>(this)->Holding(pfn); }
  uint32_t& NextOf(uint32_t name);
  uint32_t& PrevOf(uint32_t name);

  void Push(Zone& zone, uint32_t pfn, int order, int type, bool tail);
  void Link(FrameList& list, uint32_t name, uint32_t prev, uint32_t next);
  void Unlink(FrameList& list, uint32_t prev, uint32_t next);
  Frame& Materialise(uint32_t pfn);
  void FillFree(FrameBlock& block, uint32_t pfn, const Untouched& entry, uint32_t prev, uint32_t next);
  void SplitRun(FrameBlock& block, uint32_t base, UntouchedMap::iterator run);
  int UntouchedPageblockType(uint32_t pfn) const;
  void SetBootTypes(FrameBlock& block, uint32_t base) const;
  bool IsBootSlab(uint32_t pfn) const;
  void FillBootSlabs(FrameBlock& block, uint32_t base) const;

  FrameTable table_;
  int pageblock_order_;
  Ranges ram_;
  Ranges boot_slabs_;
  std::array<Zone, kZones> zones_;
  UntouchedMap untouched_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_FREE_LISTS_H_

#ifndef MMLAB_SERVER_PROCESS_PAGE_REPLACEMENT_H_
#define MMLAB_SERVER_PROCESS_PAGE_REPLACEMENT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "server/base/address.h"
#include "server/base/hash.h"
#include "server/process/replacement_policy.h"

namespace mmlab {

const char* ReplacementPolicyName(ReplacementPolicy policy);  // "FIFO"

// A bound on the resident pages of a part of an address space, and who makes room when it is reached. Linux has no such thing: its reclaim
// looks at all pages of a node or a memory cgroup, and only when these run short.
//
// It decides and remembers; Paging takes pages away. Pages are numbered by their address divided by the page size. Frames are told apart by
// slots, as the tables of textbooks show them: a page keeps its slot, the one that replaces it takes it over.
//
// Always true: a page is in one slot at most, and is one of the range.
class PageReplacement {
 public:
  static constexpr uint32_t kMinFrames = 2;  // An access across the border of two pages needs both.
  static constexpr uint32_t kMaxFrames = 65536;

  struct Bound {
    ReplacementPolicy policy = ReplacementPolicy::kFifo;
    uint32_t frames = kMinFrames;
    uint64_t first_page = 0;
    uint64_t end_page = 0;             // Behind the last one.
    std::vector<uint64_t> references;  // kOptimal: the pages of all accesses to come, in order.
  };
  struct Slot {
    std::optional<uint64_t> page;  // Nothing: free.
    uint64_t loaded = 0;           // Number of the access that brought it in; 0: it was there before the bound.
    uint64_t used = 0;             // Number of the last access to it.
    bool kept = false;             // It could not be taken away when room was made last.
  };
  // Whether the processor has marked the page accessed.
  using AccessedBit = absl::FunctionRef<bool(uint64_t page)>;
  using ClearAccessedBit = absl::FunctionRef<void(uint64_t page)>;

  explicit PageReplacement(Bound bound);

  const Bound& bound() const { return bound_; }
  bool Covers(uint64_t page) const { return page >= bound_.first_page && page < bound_.end_page; }
  bool Holds(uint64_t page) const { return slot_of_.contains(page); }
  uint64_t held() const { return slot_of_.size(); }  // Pages; more than `frames` where none of them could make room.

  // An access to a page of the range, which is resident now.
  void Referenced(uint64_t page);
  // The page became resident, for an access that comes now; or was so before the bound.
  void Load(uint64_t page);
  void Found(uint64_t page);
  // It is not any more. `evicted`: to make room, rather than because somebody else took it.
  void Forget(uint64_t page, bool evicted);

  // Which slot makes room, of those that are not kept; nothing: none can. kClock looks at accessed bits on its way, and clears them.
  std::optional<size_t> ChooseVictim(AccessedBit accessed, ClearAccessedBit clear);
  void Keep(size_t slot) { slots_[slot].kept = true; }
  // A new search for room starts with all pages.
  void BeginRoom();

  const std::vector<Slot>& slots() const { return slots_; }
  size_t hand() const { return hand_; }              // kClock: the slot that it looks at next.
  uint64_t references() const { return now_; }       // Accesses so far.
  uint64_t loads() const { return loads_; }          // Pages that became resident by an access: the faults of the textbook's tables.
  uint64_t evictions() const { return evictions_; }  // Pages that made room.
  size_t position() const { return position_; }      // kOptimal: of the next access in `references`.
  // kOptimal: when the page is used next, as a position in `references`; nothing: never again.
  std::optional<size_t> NextUse(uint64_t page) const;

  uint64_t HostMemory() const;
  void AddToHash(StateHasher& hasher) const;
  void CheckInvariants(std::vector<std::string>* violations) const;

 private:
  static bool Usable(const Slot& slot) { return slot.page.has_value() && !slot.kept; }
  std::optional<size_t> Oldest(uint64_t Slot::*when) const;
  std::optional<size_t> UsedLatest() const;
  std::optional<size_t> SecondChance(AccessedBit accessed, ClearAccessedBit clear);

  const Bound bound_;
  std::vector<Slot> slots_;
  std::vector<size_t> free_slots_;
  absl::flat_hash_map<uint64_t, size_t> slot_of_;  // Only looked up.
  // kOptimal: positions in `references` of each page, in order.
  absl::flat_hash_map<uint64_t, std::vector<size_t>> uses_;
  size_t position_ = 0;
  size_t hand_ = 0;
  uint64_t now_ = 0;
  uint64_t loads_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PAGE_REPLACEMENT_H_

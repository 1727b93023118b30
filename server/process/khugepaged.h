#ifndef MMLAB_SERVER_PROCESS_KHUGEPAGED_H_
#define MMLAB_SERVER_PROCESS_KHUGEPAGED_H_

#include <array>
#include <cstdint>

#include "absl/container/btree_map.h"
#include "server/base/address.h"

namespace mmlab {

class AddressSpace;
class Paging;
class StateHasher;
class VmStat;

// The kernel thread that gathers small pages into huge ones. Linux: mm/khugepaged.c.
//
// It visits address spaces in the order in which they first could hold a huge page, pages_to_scan pages a round, with a rest of
// scan_sleep_millisecs between rounds. Time moves by Advance(): it then does at once all rounds that were due.
class Khugepaged {
 public:
  Khugepaged(Paging& paging, VmStat& vm_stat) : paging_(paging), vm_stat_(vm_stat) {}

  // __khugepaged_enter(): visits the address space from now on. Idempotent.
  void Enter(AddressSpace& mm);
  // __khugepaged_exit()
  void Exit(AddressSpace& mm);
  // Somebody wrote to an attribute that ends the present rest.
  void Wake() { next_round_ = 0; }
  // The clock reads `now` (nanoseconds).
  void Advance(int64_t now);

  void AddToHash(StateHasher& hasher) const;

 private:
  // All that rounds leave behind which make no huge page.
  struct Mark {
    uint64_t slot = 0;
    uint64_t address = 0;
    uint32_t collapsed = 0;
    uint32_t full_scans = 0;
    std::array<uint64_t, 3> refusals{};  // Of the events kRefusals in khugepaged.cc.
  };

  void Round();  // khugepaged_do_scan()
  // khugepaged_scan_mm_slot(): looks at up to `pages` pages of the present address space; how far it came, in pages and VMAs.
  uint64_t ScanSlot(uint64_t pages);
  void NextSlot();
  Mark MarkNow() const;
  int64_t Rest() const;  // Nanoseconds between two rounds.
  // Counts `times` repetitions of what happened since the mark.
  void Repeat(const Mark& since, uint64_t times);

  Paging& paging_;
  VmStat& vm_stat_;
  absl::btree_map<uint64_t, AddressSpace*> slots_;  // By AddressSpace::khugepaged_slot, the order of their coming.
  uint64_t next_slot_ = 1;
  uint64_t slot_ = 0;  // Which one is being visited; 0: the next round starts with the first.
  uint64_t address_ = 0;
  int64_t clock_ = 0;       // What the clock read last, nanoseconds.
  int64_t next_round_ = 0;  // Nanoseconds on the machine's clock; 0 = at once.
  bool allocation_failed_ = false;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_KHUGEPAGED_H_

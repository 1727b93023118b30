#ifndef MMLAB_SERVER_PROCESS_KSM_H_
#define MMLAB_SERVER_PROCESS_KSM_H_

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "server/base/address.h"
#include "server/base/errno.h"
#include "server/base/explanation.h"

namespace mmlab {

class AddressSpace;
class Paging;
class StateHasher;
struct VmArea;

// What an administrator says about KSM: /sys/kernel/mm/ksm.
struct KsmSettings {
  uint32_t run = 0;  // 0 stopped, 1 merging, 2 stopped and everything unmerged.
  uint32_t pages_to_scan = 100;
  uint32_t sleep_millisecs = 20;  // Between two batches of pages.
  int32_t max_page_sharing = 256;
  bool use_zero_pages = false;
  bool merge_across_nodes = true;
  uint32_t stable_node_chains_prune_millisecs = 2000;
};

// Kernel same-page merging: pages of equal content in memory that was advised MADV_MERGEABLE become one. Linux: mm/ksm.c.
//
// Merged pages are write-protected and stand in the stable tree; a page whose checksum did not change since it was last looked at stands in
// the unstable tree until the next full scan. Both are looked up by content here, through a hash of it, and compared byte by byte.
// Time moves by Advance(): it then looks at pages_to_scan pages for each rest of sleep_millisecs that has passed.
//
// Always true: pages_shared() is the number of stable nodes that have members, pages_sharing() that of all further members.
class Ksm {
 public:
  Ksm(Paging& paging, Tracer& tracer) : paging_(paging), tracer_(tracer) {}

  const KsmSettings& settings() const { return settings_; }
  KsmSettings& settings() { return settings_; }

  // __ksm_enter(): the address space has mergeable memory. Idempotent.
  void Enter(AddressSpace& mm);
  // __ksm_exit()
  void Exit(AddressSpace& mm);
  // ksm/run was written. kEINVAL above 2; kENOMEM when memory is short for unmerging, which is then stopped.
  Errno Run(uint32_t run);
  // ksm/max_page_sharing: kEINVAL below 2, kEBUSY while there are merged pages.
  Errno SetMaxPageSharing(int32_t most);
  // The clock reads `now` (nanoseconds).
  void Advance(int64_t now);

  uint64_t pages_shared() const { return pages_shared_; }
  uint64_t pages_sharing() const { return pages_sharing_; }
  uint64_t pages_unshared() const { return pages_unshared_; }
  uint64_t pages_volatile() const;  // Looked at, and in neither tree: they change too fast.
  uint64_t full_scans() const { return full_scans_; }
  uint64_t stable_node_chains() const;
  uint64_t stable_node_dups() const;
  // /proc/PID/ksm_merging_pages and ksm_stat.
  uint64_t MergingPages(const AddressSpace& mm) const;
  uint64_t RmapItems(const AddressSpace& mm) const;

  void CheckInvariants(std::vector<std::string>* violations) const;
  void AddToHash(StateHasher& hasher) const;
  uint64_t HostMemory() const;

 private:
  enum class Place : uint8_t { kNone, kUnstable, kStable };
  // struct ksm_rmap_item: a page of mergeable memory that was looked at.
  struct Item {
    uint32_t checksum = 0;
    Place place = Place::kNone;
    uint64_t node = 0;  // kStable: which stable node; kUnstable: the hash under which it stands.
  };
  // struct ksm_mm_slot
  struct Slot {
    uint64_t id = 0;
    AddressSpace* mm = nullptr;             // Null: it has exited.
    absl::btree_map<uint64_t, Item> items;  // By address.
    uint64_t merging = 0;                   // Items in the stable tree.
  };
  using Slots = std::list<Slot>;
  struct Member {
    uint64_t slot;
    uint64_t address;
    friend auto operator<=>(const Member&, const Member&) = default;
  };
  // struct ksm_stable_node: one merged page.
  struct StableNode {
    Pfn pfn;
    uint64_t hash = 0;
    absl::btree_set<Member> members;
  };
  // All stable nodes of one content: a single one, or a chain of several, since each has at most max_page_sharing members.
  struct Content {
    std::vector<uint64_t> nodes;  // The one that takes the next member first.
    bool chain = false;
  };
  struct Found {  // What the scan comes to.
    Slot* slot = nullptr;
    VmArea* vma = nullptr;
    uint64_t address = 0;
    Pfn pfn;
  };

  void ScanBatch();             // ksm_do_scan()
  std::optional<Found> Next();  // scan_get_next_rmap_item()
  bool FindIn(Slot& slot, Found* found);
  void EndSlot();
  void Merge(const Found& found);  // cmp_and_merge_page()
  void MergeUnstable(const Found& found, Item& item, uint64_t hash);
  void RemoveFromTree(Slot& slot, uint64_t address, Item& item);
  void EraseItem(Slot& slot, absl::btree_map<uint64_t, Item>::iterator it);
  void EraseItems(Slot& slot, uint64_t from, uint64_t to);
  uint64_t SearchStable(Pfn pfn, uint64_t hash);  // The node to merge with; 0: none.
  uint64_t InsertStable(Pfn pfn, uint64_t hash);
  void Append(uint64_t node, Slot& slot, uint64_t address, Item& item);
  bool Alive(uint64_t id, const StableNode& node) const;
  void DropNode(uint64_t id);
  bool IsFull(const StableNode& node) const { return static_cast<int64_t>(node.members.size()) >= settings_.max_page_sharing; }
  bool Same(Pfn a, Pfn b) const;
  uint64_t HashOf(Pfn pfn) const;
  Errno UnmergeAll();
  Explanation* why() const { return tracer_.explanation(); }

  Paging& paging_;
  Tracer& tracer_;
  KsmSettings settings_;
  Slots slots_;                            // In the order in which they are visited.
  Slots::iterator cursor_ = slots_.end();  // end(): the next batch begins a full scan.
  uint64_t address_ = 0;
  absl::btree_map<uint64_t, Slot*> by_id_;
  uint64_t next_slot_ = 1;
  absl::btree_map<uint64_t, StableNode> nodes_;
  uint64_t next_node_ = 1;
  absl::btree_map<uint64_t, Content> stable_;   // By hash.
  absl::btree_map<uint64_t, Member> unstable_;  // By hash; of the present full scan.
  uint64_t pages_shared_ = 0;
  uint64_t pages_sharing_ = 0;
  uint64_t pages_unshared_ = 0;
  uint64_t full_scans_ = 0;
  uint64_t changes_ = 0;    // Grows whenever a scan leaves anything other than it found it.
  int64_t clock_ = 0;       // What the clock read last, nanoseconds.
  int64_t next_batch_ = 0;  // Nanoseconds on the machine's clock; 0 = at once.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_KSM_H_

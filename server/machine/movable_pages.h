#ifndef MMLAB_SERVER_MACHINE_MOVABLE_PAGES_H_
#define MMLAB_SERVER_MACHINE_MOVABLE_PAGES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "server/base/address.h"
#include "server/base/hash.h"
#include "server/physical/page_owner.h"

namespace mmlab {

class BuddyMemory;

// Pages that operations took and let move, by the number that the caller chose. Linux: a driver with struct movable_operations.
//
// Always true: each is a single page in state kKernel with kPgMovable, its number in Frame::index.
class MovablePages final : public PageOwner {
 public:
  static constexpr uint64_t kMaxId = (uint64_t{1} << 40) - 1;  // Fits into Frame::index.

  // `memory` outlives this.
  explicit MovablePages(BuddyMemory& memory) : memory_(memory) {}

  std::optional<Pfn> Find(uint64_t id) const;
  const absl::btree_map<uint64_t, Pfn>& all() const { return pages_; }
  // __SetPageMovable(). REQUIRES: id is 1 .. kMaxId and not in use; the page was just allocated, order 0.
  void Add(uint64_t id, Pfn pfn);
  // __ClearPageMovable() of a page that is about to be freed; nothing to do when it is none of these.
  void Forget(Pfn pfn);

  // PageOwner
  bool MovePage(Pfn from, Pfn to) override;
  bool SplitToMove(Pfn) override { return false; }  // They are single pages.
  void PutOnLru(Pfn) override {}                    // They never were on a list.
  void DrainLru() override {}

  void CheckInvariants(std::vector<std::string>* violations) const;
  void AddToHash(StateHasher& hasher) const;
  uint64_t HostMemory() const;

 private:
  BuddyMemory& memory_;
  absl::btree_map<uint64_t, Pfn> pages_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_MOVABLE_PAGES_H_

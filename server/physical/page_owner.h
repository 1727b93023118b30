#ifndef MMLAB_SERVER_PHYSICAL_PAGE_OWNER_H_
#define MMLAB_SERVER_PHYSICAL_PAGE_OWNER_H_

#include "server/base/address.h"

namespace mmlab {

// Who uses pages and can change over to others. Linux: what migrate_pages() asks of the reverse map, of the page cache
// (a_ops->migrate_folio) and of holders of other movable pages (struct movable_operations). Wired by machine.
class PageOwner {
 public:
  virtual ~PageOwner() = default;

  // Makes everybody who uses `from` use `to`, with the same content, flags and cgroup. The caller holds one reference of `from`, which is
  // on no LRU list, and the only one of `to`, which was just allocated. Afterwards `from` has the caller's reference alone.
  // False: somebody holds `from` who cannot be told; then nothing has changed.
  virtual bool MovePage(Pfn from, Pfn to) = 0;
  // split_folio_to_list(): makes a huge page, of which the caller holds one reference and which is on no LRU list, small ones, of which the
  // caller holds the first and the others are on the LRU lists. False: somebody else holds it.
  virtual bool SplitToMove(Pfn head) = 0;
  // folio_add_lru(): a page that was taken off the LRU lists, or came in place of one, goes back there.
  virtual void PutOnLru(Pfn pfn) = 0;
  // lru_add_drain(): pages on their way to the LRU lists arrive there, so that nobody holds them on the way.
  virtual void DrainLru() = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_PAGE_OWNER_H_

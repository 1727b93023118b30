#ifndef MMLAB_SERVER_FILES_FILE_MAPPER_H_
#define MMLAB_SERVER_FILES_FILE_MAPPER_H_

#include "server/base/address.h"

namespace mmlab {

struct Frame;
struct Inode;

// What files asks of the address spaces that map them (Inode::mappings). Done by process/paging.h.
class FileMapper {
 public:
  virtual ~FileMapper() = default;
  // unmap_mapping_pages(): takes pages [first, end) of the file out of every page table; with even_cows private copies too.
  virtual void UnmapFilePages(Inode& inode, PageIndex first, PageIndex end, bool even_cows) = 0;
  // folio_mkclean(): makes the shared entries of one page clean and read-only, so that the next write is noticed.
  virtual void CleanFilePage(Inode& inode, PageIndex index) = 0;
  // split_folio(): makes a huge page of shmem, which nothing holds but its file and page tables, small ones that nothing maps. False:
  // somebody else holds it.
  virtual bool SplitFilePage(Pfn head) = 0;
  // vma_thp_gfp_mask(): how hard memory for a huge page is looked for, where madvise(MADV_HUGEPAGE) asked for it and elsewhere.
  virtual uint32_t HugeGfp(bool advised) const = 0;
  // folio_add_lru() and lru_add_drain(): new pages reach the LRU lists in batches.
  virtual void AddToLru(Pfn pfn) = 0;
  virtual void DrainLru() = 0;
  // free_pages_prepare() of a page that is still marked mlocked, which nobody maps: it is counted no more.
  virtual void ForgetMlocked(const Frame& frame) = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_FILE_MAPPER_H_

#ifndef MMLAB_SERVER_FILES_FILES_H_
#define MMLAB_SERVER_FILES_FILES_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/strings/string_view.h"
#include "server/base/address.h"
#include "server/base/result.h"
#include "server/files/commit_charger.h"
#include "server/files/dirty_limits.h"
#include "server/files/disk_stats.h"
#include "server/files/file_mapper.h"
#include "server/files/hugetlb_pools.h"
#include "server/files/open_file.h"
#include "server/files/swap_areas.h"

namespace mmlab {

class PhysicalMemory;
class StateHasher;
class Tracer;
class VmStat;
struct Frame;
enum class EventKind : uint8_t;

// What a look into the page cache found.
struct CachedPage {
  Pfn pfn;
  bool major = false;  // It had to be read from the disk or a swap area first.
};

// A page that was swapped out, back in memory, in the swap cache. Whoever asked for it has a reference.
using SwappedPage = CachedPage;

// The files of a machine and their pages in memory. Linux: mm/filemap.c, mm/shmem.c, mm/truncate.c, and as much of ext4 as decides what a
// process sees.
//
// An inode lives as long as somebody holds it: the table of paths, open files, mappings. With the last holder its pages and its commit
// charge are given back.
// Always true: nr_file_pages is the number of pages in all page caches and in the swap cache, nr_shmem those of shmem files; each is in
// state kFile or kShmem, holds one reference for the cache, and has mapping and index of its place. A shmem file that was made without
// VM_NORESERVE has its whole size charged, any other shmem file each of its pages.
class Files {
 public:
  Files(PhysicalMemory& memory, VmStat& vm_stat, Tracer& tracer);
  ~Files();
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  // Who accounts shmem and who maps files. Given by Processes before any file is made and taken back (null) at its end; nothing is charged
  // or unmapped before or after.
  void SetCommitCharger(CommitCharger* charger) { charger_ = charger; }
  void SetMapper(FileMapper* mapper) { mapper_ = mapper; }
  // What the file system of all tmpfs files can hold (shmem_default_max_blocks()); 0: no limit. memfd, SysV shm and shared anonymous memory
  // have none.
  void SetTmpfsLimit(PageCount pages) { tmpfs_limit_ = pages.raw(); }
  // Where the kernel objects of files are accounted; it outlives this.
  void SetKernelObjects(KernelObjects* objects) { kernel_objects_ = objects; }

  // A file that was there before: tmpfs with its content in memory; ext4 with its content in the page cache, clean, if `resident`, on the
  // disk otherwise. `mount`: how the file system is mounted that it is on. kEEXIST, kEINVAL (no absolute path, or a size of huge pages that
  // the machine lacks), kENOSPC, kENOMEM.
  SysResult<std::shared_ptr<Inode>> CreateFile(const std::string& path, FileKind kind, uint64_t size, absl::string_view content,
                                               bool resident, const MountOptions& mount = {});
  // The file of that path, "/dev/zero" too; null when there is none.
  std::shared_ptr<Inode> Find(const std::string& path) const;

  // The pages of tmpfs files, in memory or in swap.
  PageCount tmpfs_pages() const { return PageCount(tmpfs_pages_); }

  // shmem_file_setup() for memfd, SysV shm and shared anonymous memory. Without noreserve the whole size is charged now; kENOMEM when the
  // overcommit rule refuses that.
  SysResult<std::shared_ptr<Inode>> NewShmem(FileKind kind, const std::string& path, uint64_t size, bool noreserve);
  std::shared_ptr<Inode> NewPipe();

  // The page if it is in the page cache.
  std::optional<Pfn> FindPage(const Inode& inode, PageIndex index) const;
  // filemap_fault(), shmem_fault(): the page for a mapping; made or read where it is missing. kEINVAL beyond the end of the file (SIGBUS),
  // kENOSPC when the charge is refused or the tmpfs is full (SIGBUS), kENOMEM.
  SysResult<CachedPage> PageForFault(Inode& inode, PageIndex index, HugeAdvice advice = HugeAdvice::kNone);
  // write_begin() of the file's kind: the page to write into, made where it is missing, up to date. `overwritten`: nothing of what the disk
  // has of it will be left, so that it is not read.
  SysResult<CachedPage> PageForWrite(Inode& inode, PageIndex index, HugeAdvice advice = HugeAdvice::kNone, bool overwritten = false);
  // The page to read from; nothing: a hole in a shmem file, which reads as zero. kENOMEM.
  SysResult<std::optional<CachedPage>> PageForRead(Inode& inode, PageIndex index);

  // set_page_dirty()
  void MarkDirty(Inode& inode, Pfn pfn);

  // --- Writeback (writeback.cc) ---
  //
  // A page that is written is clean at once and under way (PG_writeback) until the disk has it: it takes pages one after another, at
  // kDiskNanosecondsPerKib of machine time. An operation takes none of that: who waits for a page has it on the disk at once, and the time
  // counts as pressure.

  // How much may be dirty, and the machine's clock. Both outlive this; null (tests): no limit, time 0.
  void SetWriteback(const DirtyLimiter* limiter, const int64_t* clock) {
    limiter_ = limiter;
    clock_ = clock;
  }
  // balance_dirty_pages_ratelimited(), after something was written to a file: above the background limit what is dirty is written, oldest
  // files first, until it is not; half way from there to the limit and above the writer waits for pages that are under way.
  void BalanceDirty();
  // wb_check_old_data_flush() at a time that may have passed already: writes files that had been dirty since `oldest` or longer.
  void FlushOlderThan(int64_t oldest, int64_t at);
  // writepage() of one dirty page of a file on a disk. REQUIRES: it is not under way.
  void WritePage(Inode& inode, Pfn pfn);
  // wakeup_flusher_threads(): writes every file and waits for nothing.
  void WriteAll();
  // sync(): writes every file and waits.
  void SyncAll();
  // Machine time went on: what is on the disk by now.
  void AdvanceTo(int64_t now);
  // The acting process waits until so many of the pages that are under way are on the disk.
  void WaitForWrites(uint64_t pages);
  uint64_t pages_under_way() const { return under_way_.size(); }
  // What /proc/diskstats shows, by name: disks with file systems, block devices.
  std::vector<DiskView> Disks() const;

  // --- Readahead (readahead.cc) ---

  // page_cache_sync_ra(): a page is wanted, with `request` pages from it on, and is not in the page cache.
  void ReadAhead(OpenFile& file, PageIndex index, uint64_t request);
  // page_cache_async_ra(): the page is there and marked; it is the first of those that were read ahead. Does nothing when it is not marked.
  void ReadAheadMarked(OpenFile& file, PageIndex index, uint64_t request);
  // do_sync_mmap_readahead() and do_async_mmap_readahead() for a fault, by the advice that was given for the mapping.
  enum class MapAdvice : uint8_t { kNormal, kSequential, kRandom };
  void ReadAround(OpenFile& file, PageIndex index, MapAdvice advice);

  // ftruncate(): also takes the pages out of the address spaces that map them. kENOMEM when the charge of a larger size is refused.
  Errno Truncate(Inode& inode, uint64_t size);
  // fallocate() with FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE.
  Errno PunchHole(Inode& inode, uint64_t offset, uint64_t length);
  // file_write_and_wait_range(): writes back the dirty pages [first, end) of an ext4 file; nothing to do for shmem.
  void Sync(Inode& inode, PageIndex first, PageIndex end);

  // unlink(): the path is gone; the file goes with whoever still has it. kENOENT, kEPERM (a swap area in use).
  Errno Unlink(const std::string& path);

  // --- Transparent huge pages of shmem (shmem_huge.cc). Linux: mm/shmem.c ---
  //
  // A huge page is in Inode::pages by each of its small pages; the file has as many references.

  ShmemEnabled shmem_enabled() const { return shmem_enabled_; }
  void SetShmemEnabled(ShmemEnabled enabled);
  // huge= of the file system that the file is on; for files without a path that of the kernel's own mount.
  ShmemHuge HugeOption(const Inode& inode) const;
  ShmemHuge internal_huge() const { return internal_huge_; }
  // shmem_is_huge(): whether a huge page shall hold this page of the file.
  bool WantsHuge(const Inode& inode, PageIndex index, HugeAdvice advice) const;
  // The first frame of the huge page that a frame is part of; itself for any other.
  Pfn HeadOf(Pfn pfn) const;
  // __split_huge_page(): the page is about to become small ones; then, what of it lies behind the end of the file goes, but the first.
  // REQUIRES: a huge page of shmem.
  void NoteSplit(Pfn head);
  void DropBehindEnd(Inode& inode, PageIndex first);
  // collapse_file()'s part: the pages of the file from `first` on, all small and mapped by nobody, and its holes become this huge page,
  // which has the reference that it was allocated with and its content already. REQUIRES: TakeHoles() said yes.
  void CollapseInto(Inode& inode, PageIndex first, Pfn head);
  // Takes blocks for the holes among the pages from `first` on. False: the file may not have so many; then nothing has changed.
  [[nodiscard]] bool TakeHoles(Inode& inode, PageIndex first);

  // --- Huge pages (hugetlb_files.cc). Linux: fs/hugetlbfs/inode.c. Numbers of pages are those of huge pages. ---

  HugetlbPools& hugetlb() { return hugetlb_; }
  const HugetlbPools& hugetlb() const { return hugetlb_; }
  // hugetlb_file_setup(): a file without a path in the pool's internal file system. `reserve`: its whole size is reserved now. kENOMEM: the
  // pool has too little.
  SysResult<std::shared_ptr<Inode>> NewHugetlb(FileKind kind, const std::string& path, uint64_t size, size_t pool, bool reserve);
  // hugetlb_reserve_pages() for what shares the file's pages. False: the pool has too little.
  [[nodiscard]] bool ReserveHugetlb(Inode& inode, uint64_t first, uint64_t end);
  // hugetlb_add_to_page_cache(): takes over the reference.
  void AddHugetlbPage(Inode& inode, uint64_t index, Pfn head);
  // put_page() of a page of a pool.
  void PutHugetlb(size_t pool, Pfn head);

  // --- Swap (swap_in.cc) ---

  SwapAreas& swap() { return swap_; }
  const SwapAreas& swap() const { return swap_; }
  // swapon(), the file's part: kENOENT, kEBUSY, kEINVAL, kEPERM. `most_slots`: what an entry of a page table can name.
  Errno Swapon(const std::string& path, std::optional<int> priority, uint64_t most_slots);
  // vm.page-cluster
  void SetPageCluster(int page_cluster) { page_cluster_ = page_cluster; }
  // do_swap_page()'s search: from the swap cache, or read with its neighbours (swap_cluster_readahead()). Nothing: no memory.
  std::optional<SwappedPage> SwapIn(SwapEntry entry);
  // read_swap_cache_async(): into the swap cache, if it is not there yet. Nothing: no memory, or nobody wants the slot any more.
  std::optional<Pfn> ReadSwap(SwapEntry entry, bool* read);
  // shmem_writepage(): the page leaves its file for the swap cache. False: no slot; then nothing has changed.
  // REQUIRES: a page of shmem that nobody maps.
  bool MoveToSwap(Pfn pfn);
  // shmem_unuse(): brings back what files have in an area. kENOMEM.
  Errno UnuseShmem(uint32_t area);
  // Slots that files stand for, for the check of all.
  void CountSwap(SwapCounts& counts) const;

  // The page cache holds another frame for a page from now on; what it counts of the page stays (folio_migrate_mapping()).
  void ReplacePage(Pfn from, Pfn to);
  // Takes a clean page that nobody maps out of the page cache.
  void DropCleanPage(Pfn pfn) { DropCleanPage(pfn, 0); }
  // The same for reclaim for the sake of a cgroup (0: of the node), which remembers when that was (__remove_mapping(),
  // workingset_eviction()): should the page come back soon, it is active at once.
  void Evict(Pfn pfn, uint16_t target_memcg);
  // invalidate_mapping_pages() of every file: whatever is clean and mapped by nobody goes (vm.drop_caches).
  void DropClean();
  // lru_add_drain()
  void DrainLru() {
    if (mapper_ != nullptr) mapper_->DrainLru();
  }

  // Bytes of a file into and out of its page cache, for tools; a system call goes page by page instead.
  Errno WriteContent(Inode& inode, uint64_t offset, absl::string_view data);

  Inode* FindById(uint32_t id) const;
  // All inodes by id.
  const absl::btree_map<uint32_t, Inode*>& all() const { return by_id_; }
  uint64_t cached_pages() const { return cached_pages_; }
  uint64_t shmem_pages() const { return shmem_pages_; }
  uint64_t buffer_pages() const { return buffer_pages_; }  // nr_blockdev_pages()

  void CheckInvariants(std::vector<std::string>* violations) const;
  void AddToHash(StateHasher& hasher) const;
  Bytes HostMemory() const;

 private:
  std::shared_ptr<Inode> NewInode(FileKind kind, std::string path, uint32_t major, uint32_t minor);
  void Evict(Inode& inode);
  bool Charge(int64_t pages) { return charger_ == nullptr || charger_->Charge(pages); }
  void Uncharge(int64_t pages) {
    if (charger_ != nullptr) charger_->Uncharge(pages);
  }
  SysResult<Pfn> AddPage(Inode& inode, PageIndex index);
  void TellPage(EventKind kind, const Inode& inode, PageIndex index, Pfn pfn) const;  // A tracepoint of mm/filemap.c.
  // Puts a page into the page cache and counts it; takes over a reference. The shadow that was there, 0: none.
  uint64_t InsertPage(Inode& inode, PageIndex index, Pfn pfn);
  void NoteClean(Inode& inode, const Frame& frame);
  uint64_t FlushInode(Inode& inode, uint64_t most);
  void WriteDownTo(uint64_t background);
  int64_t Now() const { return clock_ == nullptr ? 0 : *clock_; }
  void StartWriteback(Inode& inode, Pfn pfn, int64_t at);
  void EndFirstWrite();
  void WaitForFile(const Inode& inode);
  // The disk that a file is on, or is.
  DiskStats& DiskOf(const Inode& inode) { return disks_[inode.kind == FileKind::kBlockDevice ? inode.id : 0]; }
  void ReadPages(OpenFile& file, uint64_t start, uint64_t pages, uint64_t lookahead);
  void OndemandReadahead(OpenFile& file, bool marked, PageIndex index, uint64_t request);
  SysResult<CachedPage> SwapInShmem(Inode& inode, PageIndex index, SwapEntry entry);
  bool TakeBlocks(Inode& inode, uint64_t pages);  // shmem_inode_acct_block()
  void GiveBlocks(Inode& inode, uint64_t pages);  // shmem_inode_unacct_blocks()
  int huge_order() const { return hugetlb_.pmd_order(); }
  uint64_t huge_pages() const { return uint64_t{1} << huge_order(); }
  std::optional<Pfn> AddHugePage(Inode& inode, PageIndex first, HugeAdvice advice);
  void InsertHugePage(Inode& inode, PageIndex first, Pfn head);
  void CountHugePage(Inode& inode, const Frame& head, int sign);
  void RemoveHugePage(Inode& inode, Pfn head);
  std::pair<PageIndex, PageIndex> SplitAtEnds(Inode& inode, PageIndex first, PageIndex end);
  void ZeroPages(Inode& inode, PageIndex first, PageIndex end);
  void CheckHugeShmem(std::vector<std::string>* violations) const;
  // `shadow`: what to leave in the page's place; 0: nothing.
  void RemovePage(Inode& inode, PageIndex index, Pfn pfn, uint64_t shadow = 0);
  void DropCleanPage(Pfn pfn, uint64_t shadow);
  void RemovePages(Inode& inode, PageIndex first, PageIndex end);
  void ZeroBytes(Inode& inode, uint64_t from, uint64_t to);
  void PutPage(Pfn pfn);
  PageIndex EndIndex(const Inode& inode) const;
  int HugeShift(const Inode& inode) const { return hugetlb_.pool(inode.hugetlb->pool).order + page_size_.shift(); }
  // remove_inode_hugepages(); `truncate`: reservations without pages go too.
  void RemoveHugetlb(Inode& inode, uint64_t first, uint64_t end, bool truncate);
  void UnmapHugetlb(Inode& inode, uint64_t first, uint64_t end);
  Errno TruncateHugetlb(Inode& inode, uint64_t size);
  Errno PunchHugetlbHole(Inode& inode, uint64_t offset, uint64_t length);
  void ZeroHugetlb(Inode& inode, uint64_t from, uint64_t to);

  PageSize page_size_;
  PhysicalMemory& memory_;
  VmStat& vm_stat_;
  Tracer& tracer_;
  CommitCharger* charger_ = nullptr;
  KernelObjects* kernel_objects_ = nullptr;
  FileMapper* mapper_ = nullptr;
  uint32_t next_id_ = 1;
  uint64_t next_number_ = 2;
  uint64_t cached_pages_ = 0;
  uint64_t shmem_pages_ = 0;
  uint64_t tmpfs_pages_ = 0;
  uint64_t tmpfs_limit_ = 0;
  uint64_t buffer_pages_ = 0;
  const DirtyLimiter* limiter_ = nullptr;
  const int64_t* clock_ = nullptr;
  uint64_t dirtied_since_check_ = 0;
  struct Write {
    Pfn pfn;
    uint32_t inode = 0;
    int64_t due = 0;      // Machine time, ns, when the disk has it.
    bool begins = false;  // A request begins with it.
  };
  std::deque<Write> under_way_;                 // In the order in which the disk has them.
  int64_t disk_free_at_ = 0;                    // When the disk has done all it was asked,
  int64_t waited_until_ = 0;                    // and until when somebody has waited for it already.
  bool reads_on_ = false;                       // The next page that is read lies behind the one before.
  absl::btree_map<uint32_t, DiskStats> disks_;  // By the inode of a block device; 0: the disk of the file systems.
  SwapAreas swap_;
  HugetlbPools hugetlb_;
  ShmemEnabled shmem_enabled_ = ShmemEnabled::kNever;
  ShmemHuge internal_huge_ = ShmemHuge::kNever;  // huge= of the kernel's own mount.
  int page_cluster_ = 3;
  absl::btree_map<uint32_t, Inode*> by_id_;
  mutable Inode* found_ = nullptr;  // By FindById(), last.
  absl::btree_map<std::string, std::shared_ptr<Inode>> by_path_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_FILES_H_

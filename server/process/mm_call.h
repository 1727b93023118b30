#ifndef MMLAB_SERVER_PROCESS_MM_CALL_H_
#define MMLAB_SERVER_PROCESS_MM_CALL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "server/base/address.h"
#include "server/base/explanation.h"
#include "server/base/result.h"
#include "server/process/address_space.h"
#include "server/process/process.h"
#include "server/process/vm_area.h"

namespace mmlab {

class CommitAccount;
class Files;
class OpenFile;
class Paging;
struct Layout;
struct ProcessLimits;

// What the system calls of all processes of a machine share.
struct ProcessCore {
  const Layout& layout;
  const ProcessLimits& limits;
  Paging& paging;
  Files& files;
  CommitAccount& commit;
  AnonVmaTable& anon_vmas;
  Tracer& tracer;
};

inline constexpr uint32_t kProtRead = 1;
inline constexpr uint32_t kProtWrite = 2;
inline constexpr uint32_t kProtExec = 4;
inline constexpr uint32_t kMapShared = 0x1;
inline constexpr uint32_t kMapPrivate = 0x2;
inline constexpr uint32_t kMapFixed = 0x10;
inline constexpr uint32_t kMapAnonymous = 0x20;

// One system call of one task on its address space: where the rules of mm/mmap.c, mm/mremap.c, mm/mprotect.c, mm/mlock.c and
// mm/madvise.c are. Addresses and lengths are `unsigned long` of the simulated machine in a uint64_t: sums wrap at its word size.
class MmCall {
 public:
  MmCall(const ProcessCore& core, Process& task);

  // System calls, with their checks in the kernel's order (mmap.cc, munmap.cc, mprotect.cc, mremap.cc, brk.cc, madvise.cc, mlock.cc,
  // range_calls.cc).
  SysResult<uint64_t> Mmap(uint64_t address, uint64_t length, uint32_t prot, uint32_t flags, int32_t fd, uint64_t offset);
  Errno Munmap(uint64_t address, uint64_t length);
  Errno Mprotect(uint64_t address, uint64_t length, uint32_t prot);
  SysResult<uint64_t> Mremap(uint64_t address, uint64_t old_length, uint64_t new_length, uint32_t flags, uint64_t new_address);
  uint64_t Brk(uint64_t address);
  SysResult<uint64_t> Sbrk(int64_t increment);
  Errno Madvise(uint64_t address, uint64_t length, int32_t advice);
  Errno Mlock(uint64_t address, uint64_t length, uint32_t flags);
  Errno Munlock(uint64_t address, uint64_t length);
  Errno Mlockall(uint32_t flags);
  Errno Munlockall();
  Errno Msync(uint64_t address, uint64_t length, uint32_t flags);
  SysResult<std::string> Mincore(uint64_t address, uint64_t length);
  Errno SetVmaName(uint64_t address, uint64_t length, const std::string& name);
  VmArea* ExpandStack(VirtAddr address);

  // What exec, shmat and fork need beside the system calls.
  // do_mmap(): `populate` becomes the bytes that the caller must fault in afterwards.
  SysResult<uint64_t> DoMmap(const std::shared_ptr<OpenFile>& file, uint64_t address, uint64_t length, uint32_t prot, uint32_t flags,
                             uint64_t pgoff, uint64_t* populate);
  // do_munmap(): [start, start + length), checked; kOk when nothing was mapped there.
  Errno DoMunmap(uint64_t start, uint64_t length);
  // vm_brk_flags(): anonymous memory at a place chosen by the kernel.
  Errno VmBrk(uint64_t start, uint64_t length, bool executable);
  SysResult<uint64_t> GetUnmappedArea(const OpenFile* file, uint64_t address, uint64_t length, uint64_t pgoff, uint32_t flags);
  // _install_special_mapping()
  Errno InstallSpecial(uint64_t start, uint64_t length, uint64_t vm_flags, VmaBacking backing);
  Errno ExpandDownwards(VmArea& vma, uint64_t address);
  // __mm_populate(): faults the range in; errors stop it unless they are to be ignored.
  Errno Populate(uint64_t start, uint64_t length, bool ignore_errors);
  // exit_mmap()
  void ExitMmap();
  VmArea* LinkVma(std::unique_ptr<VmArea> vma);
  void CountMapleNodes();                           // After a VMA came or went.
  uint64_t StackGapStart(const VmArea& vma) const;  // vm_start_gap()

  uint64_t Wrap(uint64_t value) const { return value & word_mask_; }
  // A register that a system call got: 32-bit programs have half of them, whatever the kernel's words.
  uint64_t Argument(uint64_t value) const { return mm_.compat ? value & 0xffffffff : Wrap(value); }
  uint64_t PageAlign(uint64_t value) const { return Wrap(value + page_mask_) & ~page_mask_; }
  bool PageAligned(uint64_t value) const { return (value & page_mask_) == 0; }
  uint64_t UntagAddress(uint64_t address) const;
  bool AccessOk(uint64_t address, uint64_t length) const;
  uint64_t word_mask() const { return word_mask_; }
  uint64_t ProtToFlags(uint32_t prot) const;
  uint64_t MmapMinAddr() const;  // mmap_min_addr: the sysctl's value or the configured least, whichever is higher.

 private:
  struct Expansion;  // Of an existing VMA by mmap_region().

  PageCount Pages(uint64_t length) const { return PageCount(length >> shift_); }
  int64_t PagesIn(const VmArea& vma) const { return static_cast<int64_t>(vma.length().raw() >> shift_); }
  Explanation* why() const { return core_.tracer.explanation(); }
  Errno Refuse(Errno error, const char* rule) const;  // Explains and returns the error.
  Errno Nothing(const char* rule) const;              // The same for a success that changes nothing.

  // Limits.
  bool MayExpandVm(uint64_t vm_flags, uint64_t pages) const;
  Errno MlockFutureCheck(uint64_t vm_flags, uint64_t length) const;
  bool CanDoMlock() const;
  bool MapCountAbove(int64_t below_limit) const;  // map_count > max_map_count - below_limit

  // Address selection.
  SysResult<uint64_t> SearchArea(uint64_t address, uint64_t length, uint32_t flags) const;
  // Starts on a multiple of align_mask + 1; 0: any page will do.
  SysResult<uint64_t> VmUnmappedArea(bool top_down, uint64_t length, uint64_t low, uint64_t high, uint64_t align_mask = 0) const;
  SysResult<uint64_t> UnmappedAreaTopDown(uint64_t length, uint64_t low, uint64_t high) const;
  SysResult<uint64_t> UnmappedAreaBottomUp(uint64_t length, uint64_t low, uint64_t high) const;

  // mmap.
  Errno CheckFileMapping(const OpenFile& file, uint32_t prot, uint32_t* flags, uint64_t length, uint64_t pgoff, uint64_t* vm_flags) const;
  SysResult<uint64_t> MmapRegion(const std::shared_ptr<OpenFile>& file, uint64_t address, uint64_t length, uint64_t vm_flags,
                                 uint64_t pgoff);
  VmArea* ExpandNeighbour(const OpenFile* file, uint64_t address, uint64_t length, uint64_t vm_flags, uint64_t pgoff);
  SysResult<VmArea*> NewRegion(const std::shared_ptr<OpenFile>& file, uint64_t address, uint64_t length, uint64_t vm_flags, uint64_t pgoff);

  // Memory of huge-page pools (hugetlb_calls.cc).
  uint64_t HugeBytes(const OpenFile& file) const;  // Size of the huge pages of a file that has such.
  SysResult<std::shared_ptr<OpenFile>> AnonymousHugetlb(uint64_t* length, uint32_t flags);
  uint64_t HugeShmemArea(const OpenFile* file, uint64_t address, uint64_t length, uint64_t pgoff, uint32_t flags, uint64_t chosen) const;
  SysResult<uint64_t> HugetlbArea(const OpenFile& file, uint64_t address, uint64_t length, uint32_t flags) const;
  Errno SetUpHugetlb(VmArea& vma);
  void CloseHugetlb(VmArea& vma);
  uint64_t UntakenHugetlb(const VmArea& vma, VirtAddr start, VirtAddr end) const;
  void HandOverHugetlb(VmArea& vma, VirtAddr start, VirtAddr end);

  // VMAs: merge, split, adjust (vma_merge.cc).
  bool IsMergeableVma(const VmArea& vma, const OpenFile* file, uint64_t vm_flags, const std::string* name) const;
  bool CanMergeBefore(const VmArea& vma, uint64_t vm_flags, const AnonVma* anon_vma, const OpenFile* file, uint64_t pgoff,
                      const std::string* name) const;
  bool CanMergeAfter(const VmArea& vma, uint64_t vm_flags, const AnonVma* anon_vma, const OpenFile* file, uint64_t pgoff,
                     const std::string* name) const;
  VmArea* VmaMerge(VmArea* prev, uint64_t start, uint64_t end, uint64_t vm_flags, AnonVma* anon_vma, const OpenFile* file, uint64_t pgoff,
                   const std::string* name);
  Errno SplitVma(VmArea& vma, uint64_t address, bool new_below);        // split_vma(): checks map_count.
  Errno SplitUnchecked(VmArea& vma, uint64_t address, bool new_below);  // __split_vma()
  void TakeOver(VmArea& vma, VmArea& absorbed);                         // The rest of a VMA that another one grew over.
  void ImportAnonVma(VmArea& importer, const VmArea& exporter);
  void DropVma(VmArea& vma);  // Unlinks and frees, nothing else.
  std::unique_ptr<VmArea> Duplicate(const VmArea& vma) const;

  Errno MunmapAligned(VmArea* vma, uint64_t start, uint64_t end);
  Errno DoBrkFlags(VmArea* brk_vma, uint64_t start, uint64_t length, uint64_t flags);
  Errno MprotectFixup(VmArea* vma, VmArea** prev, uint64_t start, uint64_t end, uint64_t newflags);

  // mremap.
  SysResult<VmArea*> VmaToResize(uint64_t address, uint64_t old_length, uint64_t new_length, uint32_t flags) const;
  SysResult<uint64_t> MremapTo(uint64_t address, uint64_t old_length, uint64_t new_address, uint64_t new_length, bool* locked,
                               uint32_t flags);
  SysResult<uint64_t> MoveVma(VmArea* vma, uint64_t old_address, uint64_t old_length, uint64_t new_length, uint64_t new_address,
                              bool* locked, uint32_t flags);
  VmArea* CopyVma(VmArea** vma, uint64_t address, uint64_t length, uint64_t pgoff);
  bool Expandable(const VmArea& vma, uint64_t delta);
  Errno ExpandInPlace(VmArea* vma, uint64_t address, uint64_t old_length, uint64_t new_length, bool* locked);

  // mlock.
  Errno DoMlock(uint64_t address, uint64_t length, uint64_t vm_flags);
  Errno MlockFixup(VmArea* vma, VmArea** prev, uint64_t start, uint64_t end, uint64_t newflags);
  Errno ApplyVmaLockFlags(uint64_t start, uint64_t length, uint64_t flags);
  void ApplyMlockallFlags(uint32_t flags);
  uint64_t CountMlocked(uint64_t start, uint64_t length) const;
  Errno PopulateVma(VmArea& vma, uint64_t start, uint64_t end);  // populate_vma_page_range()

  // madvise.
  Errno MadviseVma(VmArea* vma, VmArea** prev, uint64_t start, uint64_t end, int32_t advice);
  Errno MadviseUpdate(VmArea* vma, VmArea** prev, uint64_t start, uint64_t end, uint64_t new_flags, const AnonVmaName& name);
  Errno MadvisePopulate(uint64_t start, uint64_t end, bool write);
  Errno MadviseCollapse(VmArea& vma, uint64_t start, uint64_t end);
  Errno MadviseRemove(VmArea& vma, uint64_t start, uint64_t end);
  template <typename Visit>
  Errno WalkVmas(uint64_t start, uint64_t end, Visit visit);
  bool MayTouchPageCache(const VmArea& vma) const;

  const ProcessCore core_;
  Process& task_;
  AddressSpace& mm_;
  const int shift_;
  const uint64_t page_mask_;
  const uint64_t word_mask_;
  const uint64_t task_size_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_MM_CALL_H_

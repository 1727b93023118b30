#ifndef MMLAB_SERVER_PHYSICAL_FRAME_H_
#define MMLAB_SERVER_PHYSICAL_FRAME_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace mmlab {

// What one page frame is used for. Every frame is in exactly one state; memory is accounted by conservation of these.
enum class FrameState : uint8_t {
  kReserved = 0,  // Never given to the page allocator: firmware, kernel image, mem_map, holes.
  kFree = 1,      // In a block on a zone's free list.
  kPcp = 2,       // On a per-CPU page list.
  kKernel = 3,    // Handed out by alloc_pages to the kernel or to a client of PageService.
  kPageTable = 4,
  kAnon = 5,   // A process's anonymous page.
  kFile = 6,   // Page cache of a file.
  kShmem = 7,  // tmpfs, memfd, SysV shm, shared anonymous memory.
  kSlab = 8,
  kKernelStack = 9,
  kVmalloc = 10,
  kHugetlb = 11,  // A page of a hugetlb pool, used or not.
};
inline constexpr int kFrameStates = 12;

// Page flags with the kernel's names (include/linux/page-flags.h); bit values are ours.
enum FrameFlag : uint32_t {
  kPgReferenced = 1u << 0,
  kPgUptodate = 1u << 1,
  kPgDirty = 1u << 2,
  kPgLru = 1u << 3,
  kPgActive = 1u << 4,
  kPgUnevictable = 1u << 5,
  kPgMlocked = 1u << 6,
  kPgSwapBacked = 1u << 7,
  kPgSwapCache = 1u << 8,
  kPgWriteback = 1u << 9,
  kPgAnonExclusive = 1u << 10,
  kPgWorkingset = 1u << 11,
  kPgReclaim = 1u << 12,
  kPgHead = 1u << 13,  // First frame of a compound page.
  kPgTail = 1u << 14,
  kPgPrivate = 1u << 15,
  kPgMovable = 1u << 16,       // Not on an LRU list, but its holder can move it (PAGE_MAPPING_MOVABLE).
  kPgKernelCharge = 1u << 20,  // MEMCG_DATA_KMEM: charged to a memory cgroup as the kernel's own memory.
  kPgKsm = 1u << 21,           // Merged by KSM: one frame for pages of equal content (PageKsm()).
  kPgHugetlbAnon = 1u << 22,   // kHugetlb: a private page of a process, in no file (PageAnon()).
};

// While MGLRU runs: LRU_GEN_MASK, one more than the place of the page's generation, 0 in none; and LRU_REFS_MASK, uses through file
// descriptors beyond those that kPgReferenced and kPgWorkingset say. Pages of hugetlb are on no list and use these bits otherwise.
inline constexpr uint32_t kPgGenerationShift = 17;
inline constexpr uint32_t kPgGenerationMask = 7u << kPgGenerationShift;
inline constexpr uint32_t kPgRefsShift = 22;
inline constexpr uint32_t kPgRefsMask = 3u << kPgRefsShift;

// Frame::mapping of a kSlab frame of PhysicalConfig::boot_slabs.
inline constexpr uint32_t kBootSlabMapping = 0xffffff;

inline constexpr uint32_t kNoFrame = 0xffffffff;  // End of a list of frames.

// Metadata of one page frame. Linux: struct page, include/linux/mm_types.h. 32 bytes; exists on the host only in blocks of frames that
// were touched.
struct Frame {
  uint32_t next = kNoFrame;  // Links of whichever list the frame is on (free list, per-CPU list, LRU), by frame number.
  uint32_t prev = kNoFrame;
  uint32_t flags : 24 = 0;  // FrameFlag bits.
  FrameState state = FrameState::kReserved;
  uint8_t order = 0;             // Of the block that starts here: free, on a per-CPU list, or allocated.
  uint8_t migrate_type : 4 = 0;  // MigrateType remembered while free or on a per-CPU list.
  uint8_t zone : 4 = 0;          // Index into PhysicalMemory::zones().
  uint16_t memcg = 0;            // Memory cgroup that is charged for it; 0 = none (the root).
  int32_t refcount = 0;          // page_count()
  int32_t mapcount = 0;          // page_mapcount(): page-table entries that map it.
  // page->index: page offset in its file, or virtual page number for anonymous pages. kPageTable: the table's level, 1 = pte; 0 = one of
  // the kernel's own. kPgMovable: the number that its holder knows it by.
  uint64_t index : 40 = 0;
  uint64_t mapping : 24 = 0;  // Which anon_vma (kAnon) or file (kFile, kShmem) it belongs to; 0 = none.

  // Changes the state and clears all flags, in one store: two of other widths stall whoever reads them soon after.
  void Become(FrameState to) {
    static_assert(std::endian::native == std::endian::little);
    const uint32_t word = static_cast<uint32_t>(to) << 24;
    std::memcpy(reinterpret_cast<unsigned char*>(this) + offsetof(Frame, order) - sizeof(word), &word, sizeof(word));
  }
};
static_assert(sizeof(Frame) == 32);

// compound_nr(): pages of the compound page that starts at the frame; 1 for any other.
inline uint32_t CompoundPages(const Frame& frame) { return (frame.flags & kPgHead) != 0 ? 1u << frame.order : 1; }
// Whether the frame is part of a compound page.
inline bool IsCompound(const Frame& frame) { return (frame.flags & (kPgHead | kPgTail)) != 0; }

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_FRAME_H_

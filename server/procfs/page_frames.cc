#include "server/procfs/page_frames.h"

#include <algorithm>
#include <iterator>

#include "server/cgroup/cgroups.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

enum KpfBit : int {
  kKpfReferenced = 2,
  kKpfUptodate = 3,
  kKpfDirty = 4,
  kKpfLru = 5,
  kKpfActive = 6,
  kKpfSlab = 7,
  kKpfWriteback = 8,
  kKpfReclaim = 9,
  kKpfBuddy = 10,
  kKpfMmap = 11,
  kKpfAnon = 12,
  kKpfSwapCache = 13,
  kKpfSwapBacked = 14,
  kKpfCompoundHead = 15,
  kKpfCompoundTail = 16,
  kKpfHuge = 17,
  kKpfUnevictable = 18,
  kKpfNoPage = 20,
  kKpfKsm = 21,
  kKpfThp = 22,
  kKpfZeroPage = 24,
  kKpfPgtable = 26,
  kKpfReserved = 32,
  kKpfMlocked = 33,
  kKpfMappedToDisk = 34,
  kKpfPrivate = 35,
  kKpfOwnerPrivate = 37,
};

struct Copied {
  uint32_t flag;
  KpfBit bit;
};
// Flags that are shown as they are. PG_anon_exclusive is PG_mappedtodisk by another name, PG_swapcache PG_owner_priv_1.
constexpr Copied kCopied[] = {
    {kPgReferenced, kKpfReferenced},
    {kPgUptodate, kKpfUptodate},
    {kPgDirty, kKpfDirty},
    {kPgLru, kKpfLru},
    {kPgActive, kKpfActive},
    {kPgWriteback, kKpfWriteback},
    {kPgReclaim, kKpfReclaim},
    {kPgSwapBacked, kKpfSwapBacked},
    {kPgUnevictable, kKpfUnevictable},
    {kPgMlocked, kKpfMlocked},
    {kPgPrivate, kKpfPrivate},
    {kPgHead, kKpfCompoundHead},
    {kPgTail, kKpfCompoundTail},
    {kPgKsm, kKpfKsm},
    {kPgAnonExclusive, kKpfMappedToDisk},
    {kPgSwapCache, kKpfOwnerPrivate},
};

// enum pageflags of include/linux/page-flags.h. PG_swapcache is PG_owner_priv_1 by another name, PG_anon_exclusive PG_mappedtodisk.
struct PgBit {
  uint32_t flag;
  int bit;
};
constexpr PgBit kPgBits[] = {
    {kPgReferenced, 1},     {kPgUptodate, 2},   {kPgDirty, 3},       {kPgLru, 4},          {kPgActive, 5},
    {kPgWorkingset, 6},     {kPgSwapCache, 10}, {kPgPrivate, 13},    {kPgWriteback, 15},   {kPgHead, 16},
    {kPgAnonExclusive, 17}, {kPgReclaim, 18},   {kPgSwapBacked, 19}, {kPgUnevictable, 20}, {kPgMlocked, 21},
};
constexpr int kPgSlabBit = 9;
constexpr int kPgReservedBit = 12;
// Above the flags, include/linux/page-flags-layout.h: the zone's two bits on top on x86-32; on ARM64 four of the node (0), two of the
// zone, and 8 + ilog2(NR_CPUS) of the task and CPU that faulted it in last, all set as long as NUMA balancing is off. The generation of
// the multi-generational LRU below them is 0: that is off.
constexpr int kX86ZoneShift = 30;
constexpr int kArm64ZoneShift = 58;
constexpr int kArm64LastCpupidBits = 16;
constexpr uint64_t kArm64LastCpupid = ((uint64_t{1} << kArm64LastCpupidBits) - 1) << (kArm64ZoneShift - kArm64LastCpupidBits);

bool InAnyZone(const BuddyMemory& memory, Pfn pfn) {
  for (const Zone& zone : memory.zones()) {
    if (zone.Spans(static_cast<uint32_t>(pfn.raw()))) return true;
  }
  return false;
}

// Tables of the kernel's own, and tables above pmd_t, are plain pages to it (pgtable_pte_page_ctor()).
bool IsTable(const Frame& frame) { return frame.state == FrameState::kPageTable && (frame.index == 1 || frame.index == 2); }

// The first frame of a compound page, itself for any other.
Pfn CompoundHead(const BuddyMemory& memory, Pfn pfn, const Frame& frame) { return (frame.flags & kPgTail) != 0 ? memory.HeadOf(pfn) : pfn; }

// compound_mapcount(): entries that map a huge page as a whole. Its first tail counts them, as in the kernel; pages of pools are mapped in
// no other way, and count on the head.
uint64_t EntireMaps(const BuddyMemory& memory, Pfn head, const Frame& first) {
  if (first.state == FrameState::kHugetlb) return static_cast<uint64_t>(first.mapcount);
  const bool transparent = first.state == FrameState::kAnon || first.state == FrameState::kShmem;
  return transparent && (first.flags & kPgHead) != 0 ? memory.PeekFrame(head + PageCount(1)).index : 0;
}

// page_mapped(): of any part of a compound page.
bool IsMapped(const BuddyMemory& memory, Pfn head, const Frame& first) {
  if (EntireMaps(memory, head, first) > 0) return true;
  if (first.state == FrameState::kHugetlb) return false;
  for (uint32_t i = 0; i < CompoundPages(first); ++i) {
    if (memory.PeekFrame(head + PageCount(i)).mapcount > 0) return true;
  }
  return false;
}

uint64_t Count(const Machine& machine, Pfn pfn) {
  const BuddyMemory& memory = machine.memory();
  const Frame frame = memory.PeekFrame(pfn);
  const Pfn head = CompoundHead(memory, pfn, frame);
  const Frame first = memory.PeekFrame(head);
  if (first.state == FrameState::kFree || first.state == FrameState::kSlab || IsTable(frame)) return 0;
  return (first.state == FrameState::kHugetlb ? 0 : static_cast<uint64_t>(frame.mapcount)) + EntireMaps(memory, head, first);
}

// Pages of users that no group is charged for belong to the root; others to none.
uint64_t CgroupInode(const Machine& machine, Pfn pfn) {
  const Frame frame = machine.memory().PeekFrame(pfn);
  if (frame.memcg != 0) return machine.cgroups().InodeOf(frame.memcg);
  if ((frame.flags & kPgTail) != 0) return 0;
  return frame.state == FrameState::kAnon || frame.state == FrameState::kFile || frame.state == FrameState::kShmem ? 1 : 0;
}

}  // namespace

uint64_t KpageFlags(const Machine& machine, Pfn pfn) {
  const BuddyMemory& memory = machine.memory();
  if (!InAnyZone(memory, pfn)) return uint64_t{1} << kKpfNoPage;
  const Frame frame = memory.PeekFrame(pfn);
  uint64_t bits = 0;
  const auto set = [&bits](KpfBit bit, bool on) { bits |= uint64_t{on} << bit; };
  for (const Copied& one : kCopied) set(one.bit, (frame.flags & one.flag) != 0);
  const Pfn head = CompoundHead(memory, pfn, frame);
  const Frame first = head == pfn ? frame : memory.PeekFrame(head);
  const bool slab = first.state == FrameState::kSlab;
  set(kKpfSlab, slab);
  set(kKpfMmap, !slab && IsMapped(memory, head, first));
  set(kKpfAnon, first.state == FrameState::kAnon || (first.flags & kPgHugetlbAnon) != 0);
  // Of compound pages, one of a pool (PageHuge), or a transparent huge page: those that are on an LRU list or anonymous, and the zero page.
  const bool huge_zero = machine.processes().huge_zero_frame() == head;
  set(kKpfHuge, first.state == FrameState::kHugetlb);
  set(kKpfThp, IsCompound(frame) && ((first.flags & kPgLru) != 0 || first.state == FrameState::kAnon || huge_zero));
  set(kKpfSwapCache, (frame.flags & (kPgSwapCache | kPgSwapBacked)) == (kPgSwapCache | kPgSwapBacked));
  // Every frame of a free block; the tails of allocated ones are in the state of free ones here, but not on a list.
  set(kKpfBuddy, frame.state == FrameState::kFree && memory.PeekFrame(memory.HeadOf(pfn)).state == FrameState::kFree);
  set(kKpfPgtable, IsTable(frame));
  set(kKpfReserved, frame.state == FrameState::kReserved);
  set(kKpfZeroPage, pfn == memory.zero_frame() || (IsCompound(frame) && huge_zero));
  return bits;
}

uint64_t PageFlagsWord(const Machine& machine, Pfn pfn) {
  const BuddyMemory& memory = machine.memory();
  if (!InAnyZone(memory, pfn)) return 0;
  const Frame frame = memory.PeekFrame(pfn);
  uint64_t word = 0;
  for (const PgBit& one : kPgBits) word |= uint64_t{(frame.flags & one.flag) != 0} << one.bit;
  word |= uint64_t{frame.state == FrameState::kSlab} << kPgSlabBit;
  word |= uint64_t{frame.state == FrameState::kReserved} << kPgReservedBit;
  if (machine.layout().is_x86()) return word | uint64_t{frame.zone} << kX86ZoneShift;
  return word | uint64_t{frame.zone} << kArm64ZoneShift | kArm64LastCpupid;
}

std::vector<std::string> KpageFlagNames(uint64_t bits) {
  static constexpr struct {
    KpfBit bit;
    const char* name;
  } kNames[] = {
      {kKpfReferenced, "referenced"},
      {kKpfUptodate, "uptodate"},
      {kKpfDirty, "dirty"},
      {kKpfLru, "lru"},
      {kKpfActive, "active"},
      {kKpfSlab, "slab"},
      {kKpfWriteback, "writeback"},
      {kKpfReclaim, "reclaim"},
      {kKpfBuddy, "buddy"},
      {kKpfMmap, "mmap"},
      {kKpfAnon, "anonymous"},
      {kKpfSwapCache, "swapcache"},
      {kKpfSwapBacked, "swapbacked"},
      {kKpfCompoundHead, "compound_head"},
      {kKpfCompoundTail, "compound_tail"},
      {kKpfHuge, "huge"},
      {kKpfUnevictable, "unevictable"},
      {kKpfNoPage, "nopage"},
      {kKpfZeroPage, "zero_page"},
      {kKpfPgtable, "pgtable"},
      {kKpfReserved, "reserved"},
      {kKpfMlocked, "mlocked"},
      {kKpfMappedToDisk, "mappedtodisk"},
      {kKpfPrivate, "private"},
      {kKpfOwnerPrivate, "owner_private"},
  };
  std::vector<std::string> names;
  for (const auto& one : kNames) {
    if ((bits >> one.bit & 1) != 0) names.emplace_back(one.name);
  }
  return names;
}

bool IsFrameFile(absl::string_view path) {
  return std::find(std::begin(kFrameFiles), std::end(kFrameFiles), path) != std::end(kFrameFiles);
}

std::string ReadFrameFile(const Machine& machine, absl::string_view path, uint64_t offset, uint64_t length) {
  const uint64_t end_pfn = machine.memory().end_pfn().raw();
  const uint64_t first = offset / 8;
  if (first >= end_pfn) return "";
  const uint64_t last = first + std::min(end_pfn - first, length / 8);
  const auto value = path == "kpageflags" ? KpageFlags : path == "kpagecount" ? Count : CgroupInode;
  std::string bytes;
  bytes.reserve((last - first) * 8);
  for (uint64_t pfn = first; pfn < last; ++pfn) {
    const uint64_t entry = value(machine, Pfn(pfn));
    for (int shift = 0; shift < 64; shift += 8) bytes.push_back(static_cast<char>(entry >> shift & 0xff));
  }
  return bytes;
}

}  // namespace mmlab

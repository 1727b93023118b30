#ifndef MMLAB_SERVER_CGROUP_MEMCG_H_
#define MMLAB_SERVER_CGROUP_MEMCG_H_

#include <array>
#include <cstdint>
#include <string>

namespace mmlab {

// Pages that are charged, against limits. Linux: struct page_counter, mm/page_counter.c.
struct PageCounter {
  uint64_t usage = 0;      // Pages of the cgroup and of all below it, and what CPUs hold in stock for it.
  uint64_t watermark = 0;  // The most that it was.
  uint64_t failures = 0;   // failcnt: how often max refused.
  uint64_t min = 0, low = 0;
  uint64_t high, max;  // Pages.

  explicit PageCounter(uint64_t no_limit) : high(no_limit), max(no_limit) {}
};

// What happened to a memory cgroup, in the order of enum memcg_memory_event.
enum class MemcgEvent : uint8_t { kLow, kHigh, kMax, kOom, kOomKill, kOomGroupKill, kSwapHigh, kSwapMax, kSwapFail };
inline constexpr int kMemcgEvents = 9;

// The memory controller's part of a cgroup. Linux: struct mem_cgroup, mm/memcontrol.c.
//
// Its number is what Frame::memcg says. It outlives its cgroup ("dying") for as long as pages or swap space are charged to it.
struct Memcg {
  Memcg(uint16_t its_number, uint16_t its_parent, std::string its_path, uint64_t no_limit)
      : number(its_number), parent(its_parent), path(std::move(its_path)), memory(no_limit), swap(no_limit), zswap_max(no_limit) {}

  uint16_t number;
  uint16_t parent;   // 0: the root.
  std::string path;  // "/a/b", as the kernel's log names it.
  bool online = true;
  uint64_t inode = 1;  // Of its cgroup's directory.
  bool oom_group = false;
  PageCounter memory;
  PageCounter swap;
  uint64_t zswap_max;                             // Pages; zswap is off, so that nothing comes up against it.
  uint64_t effective_min = 0, effective_low = 0;  // emin, elow: as of the last reclaim that looked (pages).
  uint64_t kernel_pages = 0;                      // MEMCG_KMEM: charged for the kernel's own use.
  uint64_t frames = 0;                            // Whose Frame::memcg is this number,
  uint64_t kernel_frames = 0;                     // and of these, the kernel's own.
  uint64_t swapped = 0;                           // Pages of swap space charged by this number.
  // Objects of the kernel (struct obj_cgroup). What was made for this cgroup stays with its number when the cgroup is removed; whom the
  // pages are charged to is then LruLists::kernel_owner().
  uint64_t object_bytes = 0;                    // Of the objects.
  uint64_t object_rest = 0;                     // Bytes that are charged and used by nothing: nr_charged_bytes. Without the CPUs' stock.
  std::array<int64_t, 2> slab_bytes{};          // Unreclaimable, reclaimable; those that CPUs have yet to count are missing.
  std::array<uint64_t, kMemcgEvents> events{};  // Here and below.
  std::array<uint64_t, kMemcgEvents> local_events{};  // Here.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_CGROUP_MEMCG_H_

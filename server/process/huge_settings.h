#ifndef MMLAB_SERVER_PROCESS_HUGE_SETTINGS_H_
#define MMLAB_SERVER_PROCESS_HUGE_SETTINGS_H_

#include <cstdint>

namespace mmlab {

// For whom transparent huge pages are made: /sys/kernel/mm/transparent_hugepage/enabled.
enum class ThpEnabled : uint8_t { kNever, kMadvise, kAlways };
// How hard a fault tries to get one: .../defrag.
enum class ThpDefrag : uint8_t { kAlways, kDefer, kDeferMadvise, kMadvise, kNever };

// The attributes of khugepaged: .../khugepaged.
struct KhugepagedSettings {
  bool defrag = true;          // Whether it may reclaim and compact to get a huge page.
  uint32_t pages_to_scan = 0;  // Pages that one round looks at.
  uint32_t scan_sleep_millisecs = 10000;
  uint32_t alloc_sleep_millisecs = 60000;  // After a huge page could not be had.
  uint32_t max_ptes_none = 0;              // Most pages of a range that may be missing.
  uint32_t max_ptes_swap = 0;              // Most that may be swapped out.
  uint32_t max_ptes_shared = 0;            // Most that somebody else may map too.
  uint32_t pages_collapsed = 0;            // Huge pages that it made so far.
  uint32_t full_scans = 0;                 // Rounds through all address spaces.
};

// What an administrator says about transparent huge pages. Linux: transparent_hugepage_flags of mm/huge_memory.c, mm/khugepaged.c.
struct HugePageSettings {
  ThpEnabled enabled = ThpEnabled::kNever;
  ThpDefrag defrag = ThpDefrag::kMadvise;
  bool use_zero_page = true;
  KhugepagedSettings khugepaged;

  // hugepage_init(), khugepaged_init(): the defaults for huge pages of so many pages.
  explicit HugePageSettings(uint32_t huge_pages) {
    khugepaged.pages_to_scan = huge_pages * 8;
    khugepaged.max_ptes_none = huge_pages - 1;
    khugepaged.max_ptes_swap = huge_pages / 8;
    khugepaged.max_ptes_shared = huge_pages / 2;
  }
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_HUGE_SETTINGS_H_

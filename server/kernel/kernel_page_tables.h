#ifndef MMLAB_SERVER_KERNEL_KERNEL_PAGE_TABLES_H_
#define MMLAB_SERVER_KERNEL_KERNEL_PAGE_TABLES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "server/arch/page_table_format.h"
#include "server/base/address.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/hardware/page_walk.h"
#include "server/physical/physical_memory.h"

namespace mmlab {

class BootPageTables;

// The kernel's own page tables (init_mm, swapper_pg_dir): real entries in simulated frames, for the areas that are mapped page by page,
// beside those that boot left. Linux: mm/vmalloc.c (vmap_range_noflush, vunmap_range_noflush), arch/*/include/asm/pgtable*.h.
//
// Tables are made when first needed and never freed, as in the kernel; they do not count as nr_page_table_pages, which is about processes.
class KernelPageTables {
 public:
  enum class Kind : uint8_t {
    kMemory,  // PAGE_KERNEL
    kDevice,  // What ioremap() maps with: not cached.
  };

  // `boot`: the tables that boot made, which outlive this; null: nothing is known of them, and the first mapping takes a frame for the top
  // table.
  KernelPageTables(const Layout& layout, PhysicalMemory& memory, const BootPageTables* boot);

  // Maps one page. False: no memory for a table.
  [[nodiscard]] bool MapPage(VirtAddr address, Pfn pfn, Kind kind);
  // Maps a physical range, with the largest entries that fit. False: no memory for a table; what was mapped stays.
  [[nodiscard]] bool MapRange(VirtAddr address, PhysAddr physical, Bytes size, Kind kind);
  // Entries of the range become none. Costs time in proportion to the tables that exist there.
  void Unmap(VirtRange range);

  // Where an address leads; nothing when it is not mapped. With an explanation, one step for each level.
  std::optional<PhysAddr> Translate(VirtAddr address, Explanation* why) const;

  std::optional<Pfn> root() const { return root_; }
  bool knows_boot() const { return boot_ != nullptr; }
  bool Has(Pfn frame) const;  // Whether it is one of them, or of boot's.
  // An entry of one of these tables or of boot's.
  uint64_t Load(Pfn table, uint32_t index) const;
  uint64_t tables() const { return table_frames_.size(); }  // Frames taken for tables.
  const std::vector<Pfn>& table_frames() const { return table_frames_; }
  uint64_t HostMemory() const { return table_frames_.capacity() * sizeof(Pfn); }

 private:
  bool IsLeaf(uint64_t entry, int level) const;
  uint64_t LeafEntry(Pfn pfn, int level, Kind kind) const;
  void Store(Pfn table, uint32_t index, uint64_t entry);
  std::optional<Pfn> NewTable();
  bool HasTable(VirtAddr address, int level) const;  // The entry of that level points at a table.
  bool MapAt(VirtAddr address, Pfn pfn, int level, Kind kind);
  void UnmapIn(Pfn table, int level, uint64_t start, uint64_t last);

  PageTableFormat format_;
  PhysicalMemory& memory_;
  const BootPageTables* boot_;
  bool arm64_;
  bool no_execute_;
  std::optional<Pfn> root_;
  std::vector<Pfn> table_frames_;
  // The table of the lowest level that was written to last, by the addresses that it covers: tables stay where they are.
  uint64_t last_covered_ = ~uint64_t{0};
  Pfn last_table_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_KERNEL_PAGE_TABLES_H_

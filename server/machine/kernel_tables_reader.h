#ifndef MMLAB_SERVER_MACHINE_KERNEL_TABLES_READER_H_
#define MMLAB_SERVER_MACHINE_KERNEL_TABLES_READER_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "server/arch/page_table_format.h"
#include "server/hardware/page_walk.h"
#include "server/machine/machine.h"

namespace mmlab {

class BootPageTables;
class KernelPageTables;

// The kernel's page tables of a machine, for reading: what boot left, which is computed, and what was mapped since.
class KernelTablesReader {
 public:
  // `machine` outlives this and does not change in between.
  explicit KernelTablesReader(const Machine& machine);
  ~KernelTablesReader();
  KernelTablesReader(const KernelTablesReader&) = delete;
  KernelTablesReader& operator=(const KernelTablesReader&) = delete;

  // swapper_pg_dir; nothing: where the kernel lies is not known, and it has mapped nothing since.
  std::optional<Pfn> root() const;
  bool Has(Pfn frame) const;
  // REQUIRES: Has(table).
  uint64_t Entry(Pfn table, uint32_t index) const;
  // REQUIRES: root() is set.
  PageWalk Walk(VirtAddr address) const;
  bool knows_boot() const { return knows_boot_; }  // Whether the linear map and the image are in them.

 private:
  PageTableFormat format_;
  const KernelPageTables* tables_;                     // Null before the kernel mapped anything since boot;
  std::unique_ptr<const BootPageTables> boot_tables_;  // then these, or null.
  bool knows_boot_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_KERNEL_TABLES_READER_H_

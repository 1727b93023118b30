#include "server/machine/kernel_tables_reader.h"

#include <cstring>

#include "server/kernel/boot_page_tables.h"
#include "server/kernel/kernel_page_tables.h"
#include "server/machine/boot_tables.h"

namespace mmlab {

KernelTablesReader::KernelTablesReader(const Machine& machine)
    : format_(machine.layout()),
      tables_(machine.kernel_tables()),
      boot_tables_(tables_ != nullptr ? nullptr : BootTablesOf(machine.spec(), machine.layout(), machine.kernel_layout())),
      knows_boot_(tables_ != nullptr ? tables_->knows_boot() : boot_tables_ != nullptr) {}

KernelTablesReader::~KernelTablesReader() = default;

std::optional<Pfn> KernelTablesReader::root() const {
  if (tables_ != nullptr) return tables_->root();
  return boot_tables_ != nullptr ? std::optional<Pfn>(boot_tables_->root()) : std::nullopt;
}

bool KernelTablesReader::Has(Pfn frame) const {
  if (tables_ != nullptr) return tables_->Has(frame);
  return boot_tables_ != nullptr && boot_tables_->Has(frame);
}

uint64_t KernelTablesReader::Entry(Pfn table, uint32_t index) const {
  return tables_ != nullptr ? tables_->Load(table, index) : boot_tables_->Entry(table, index);
}

PageWalk KernelTablesReader::Walk(VirtAddr address) const {
  const auto read = [this](Pfn frame, size_t offset, void* out, size_t size) {
    const uint64_t entry = Entry(frame, static_cast<uint32_t>(offset / size));
    std::memcpy(out, &entry, size);
  };
  return WalkPageTables(format_, read, *root(), address);
}

}  // namespace mmlab

#include "server/machine/kernel_addresses.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "server/arch/kernel_layout.h"
#include "server/machine/boot_tables.h"
#include "server/machine/kernel_log.h"
#include "server/machine/memory_map.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

// IOREMAP_MAX_ORDER: a pmd entry on x86-32, a pud entry on ARM64.
int IoremapMaxOrder(LayoutKind kind) {
  switch (kind) {
    case LayoutKind::kX86_32:
      return 22;
    case LayoutKind::kX86_32Pae:
      return 21;
    case LayoutKind::kArm64:
      return 30;
  }
  return 22;
}

}  // namespace

Machine::KernelAddresses::KernelAddresses(const Layout& layout, std::unique_ptr<const BootPageTables> boot_tables,
                                          const VmallocConfig& vmalloc_config, const KmapConfig& kmap_config, BuddyMemory& memory,
                                          Tracer& tracer)
    : boot(std::move(boot_tables)),
      tables(layout, memory, boot.get()),
      vmalloc(vmalloc_config, &memory, &tables, tracer),
      kmap(kmap_config, &tables, tracer),
      percpu_memory(layout.kind, layout.page_size, vmalloc, tables, memory) {}

std::unique_ptr<Machine::KernelAddresses> Machine::FreshKernelAddresses(bool for_areas_only) const {
  const bool x86 = layout_->is_x86();
  VmallocConfig config;
  config.start = kernel_layout_.vmalloc_start;
  config.end = kernel_layout_.vmalloc_end;
  config.last_address = x86 ? std::numeric_limits<uint32_t>::max() : std::numeric_limits<uint64_t>::max();
  config.page_size = layout_->page_size;
  config.word_bytes = layout_->word_bytes;
  config.ioremap_max_order = IoremapMaxOrder(layout_->kind);
  config.max_cpus = x86 ? 32 : 256;
  config.cpus = spec_.cpus;
  config.total_ram = memory_->managed_pages();
  config.system_ram = RamFrames(layout_->page_size, KernelMemoryMap(spec_));
  KmapConfig kmap;
  kmap.page_offset = kernel_layout_.page_offset;
  kmap.max_low_pfn = kernel_layout_.max_low_pfn;
  kmap.end_pfn = memory_->end_pfn();
  kmap.cpus = spec_.cpus;
  kmap.page_size = layout_->page_size;
  if (x86) {
    kmap.pkmap_base = kernel_layout_.pkmap_base;
    kmap.last_pkmap = kernel_layout_.last_pkmap;
    kmap.fix_kmap_first = kernel_layout_.FixToVirt(kernel_layout_.fix_kmap_begin);
  }
  auto addresses = std::make_unique<KernelAddresses>(*layout_, for_areas_only ? nullptr : BootTablesOf(spec_, *layout_, kernel_layout_),
                                                     config, kmap, *memory_, *tracer_);
  addresses->vmalloc.SetLog(for_areas_only ? nullptr : log_.get());
  const VirtAddr lowest = std::min(kernel_layout_.modules_vaddr, kernel_layout_.vmalloc_start);
  const auto inside = [&](const auto& area) { return lowest.raw() <= area.start && area.end <= kernel_layout_.vmalloc_end.raw(); };
  std::vector<KernelArea> areas;
  std::copy_if(spec_.recorded_areas.begin(), spec_.recorded_areas.end(), std::back_inserter(areas), inside);
  std::vector<FreeAreaTree::Area> lazy;
  std::copy_if(spec_.recorded_lazy_areas.begin(), spec_.recorded_lazy_areas.end(), std::back_inserter(lazy), inside);
  addresses->vmalloc.AddBootAreas(areas, lazy);
  const std::optional<VirtAddr> percpu_area = BootPercpuArea(spec_, *layout_, addresses->percpu_memory, addresses->vmalloc);
  addresses->boot_ranges = addresses->vmalloc.ranges();
  addresses->boot_areas = addresses->vmalloc.areas().size();
  if (for_areas_only) return addresses;
  addresses->percpu = MakePercpuAllocator(spec_, *layout_, kernel_layout_, addresses->percpu_memory, percpu_area, *tracer_);
  return addresses;
}

Machine::KernelAddresses& Machine::MakeKernelAddresses() {
  if (kernel_addresses_ == nullptr) kernel_addresses_ = FreshKernelAddresses(false);
  return *kernel_addresses_;
}

const KernelPageTables* Machine::kernel_tables() const { return kernel_addresses_ == nullptr ? nullptr : &kernel_addresses_->tables; }

void Machine::ReadVmalloc(absl::FunctionRef<void(const Vmalloc&)> read) const {
  if (kernel_addresses_ != nullptr) return read(kernel_addresses_->vmalloc);
  read(FreshKernelAddresses(true)->vmalloc);
}

bool Machine::ReadPercpu(absl::FunctionRef<void(const PercpuAllocator&)> read) const {
  std::unique_ptr<KernelAddresses> fresh;
  if (kernel_addresses_ == nullptr) fresh = FreshKernelAddresses(false);
  const KernelAddresses& addresses = fresh != nullptr ? *fresh : *kernel_addresses_;
  if (addresses.percpu == nullptr) return false;
  read(*addresses.percpu);
  return true;
}

uint64_t Machine::percpu_pages() const {
  if (kernel_addresses_ != nullptr && kernel_addresses_->percpu != nullptr) return kernel_addresses_->percpu->pages();
  return BootPercpuPages(layout_->kind, spec_.cpus);
}

}  // namespace mmlab

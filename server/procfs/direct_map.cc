#include "server/procfs/direct_map.h"

#include <algorithm>
#include <set>

#include "absl/strings/string_view.h"
#include "server/machine/machine.h"
#include "server/machine/memory_map.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

// Numbers of the large pages that were split for the rights of the kernel's image.
class SplitPages {
 public:
  SplitPages(const MachineSpec& spec, bool no_execute, uint64_t large) : large_(large) {
    const PhysRange code = SectionOf(spec, "Kernel code");
    const PhysRange rodata = SectionOf(spec, "Kernel rodata");
    Change(code.start.raw(), rodata.end.raw());  // mark_rodata_ro()
    if (!no_execute) return;
    const uint64_t data_end = SectionOf(spec, "Kernel data").end.raw();
    const uint64_t init_end = SectionOf(spec, "Kernel bss").start.raw();
    Change(RoundUp(data_end, kSmall), init_end);                                 // free_initmem()
    Change(RoundUp(code.end.raw(), kSmall), (init_end + large) & ~(large - 1));  // mark_nxdata_nx()
  }
  uint64_t count() const { return split_.size(); }

 private:
  static constexpr uint64_t kSmall = 4096;

  static PhysRange SectionOf(const MachineSpec& spec, absl::string_view name) {
    const auto it = std::find_if(spec.kernel_sections.begin(), spec.kernel_sections.end(),
                                 [&](const NamedRange& section) { return section.name == name; });
    return it == spec.kernel_sections.end() ? PhysRange{} : it->range;
  }
  static uint64_t RoundUp(uint64_t address, uint64_t unit) { return (address + unit - 1) & ~(unit - 1); }
  // A large page that is changed only in part is split.
  void Change(uint64_t start, uint64_t end) {
    if (start % large_ != 0) split_.insert(start / large_);
    if (end % large_ != 0) split_.insert(end / large_);
  }

  const uint64_t large_;
  std::set<uint64_t> split_;
};

}  // namespace

std::vector<MeminfoField> DirectMapFields(const Machine& machine) {
  if (!machine.layout().is_x86()) return {};
  const PageSize page_size = machine.layout().page_size;
  const bool pae = machine.layout().kind == LayoutKind::kX86_32Pae;
  const uint64_t large_bytes = pae ? 2 << 20 : 4 << 20;
  const uint64_t large_pages = large_bytes >> page_size.shift();
  uint64_t low_end = 0;
  bool highmem = false;
  for (const Zone& zone : machine.memory().zones()) {
    if (!zone.populated()) continue;
    if (!zone.highmem) low_end = std::max<uint64_t>(low_end, zone.end_pfn());
    highmem = highmem || zone.highmem;
  }
  uint64_t small = 0, large = 0;
  uint64_t covered = 256;  // The first MiB, whatever lies in it.
  small += covered;
  for (const PfnRange& ram : RamBelow(RamFrames(page_size, KernelMemoryMap(machine.spec())), Pfn(low_end))) {
    const uint64_t start = std::max(ram.start.raw(), covered);
    const uint64_t end = ram.end.raw();
    if (start >= end) continue;
    const uint64_t first_large = std::max((start + large_pages - 1) / large_pages, uint64_t{1});
    const uint64_t end_large = std::max(end / large_pages, first_large);
    large += end_large - first_large;
    small += end - start - (end_large - first_large) * large_pages;
    covered = end;
  }
  const uint64_t split = std::min(large, SplitPages(machine.spec(), pae, large_bytes).count() + (highmem ? 0 : 1));
  large -= split;
  small += split * large_pages;
  const int to_kilobytes = page_size.shift() - 10;
  return {{"DirectMap4k", small << to_kilobytes, true}, {pae ? "DirectMap2M" : "DirectMap4M", large * (large_bytes >> 10), true}};
}

}  // namespace mmlab

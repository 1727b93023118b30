#include "server/machine/virtual_translation.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/arch/kernel_layout.h"
#include "server/kernel/vmalloc.h"
#include "server/machine/kernel_tables_reader.h"
#include "server/machine/physical_access.h"
#include "server/process/address_space.h"
#include "server/process/process.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

constexpr uint64_t kAsidMask = 0xffff;

// Addresses that TTBR0 serves, respectively the kernel's tables.
bool IsUser(const Machine& machine, VirtAddr address) { return address < machine.layout().task_size; }
bool IsKernel(const Machine& machine, VirtAddr address) {
  return machine.layout().is_x86() ? !IsUser(machine, address) : address >= machine.kernel_layout().page_offset;
}

std::string RegionOf(const Machine& machine, VirtAddr address) {
  for (const LayoutRegion& region : LayoutRegions(machine.kernel_layout())) {
    if (region.start <= address && address <= region.last) return region.name;
  }
  return "none";
}

// Whether the address is in the kernel's image, which ARM64 maps apart from the linear map.
bool IsImage(const Machine& machine, VirtAddr address) {
  const KernelLayout& layout = machine.kernel_layout();
  if (layout.is_x86() || address < layout.kimage_vaddr) return false;
  const PhysAddr physical(address.raw() - layout.kimage_voffset);
  const std::vector<NamedRange>& sections = machine.spec().kernel_sections;
  return !sections.empty() && sections.front().range.start <= physical && physical < sections.back().range.end;
}

// The linear map where the description does not say where the kernel, and with it its tables, lies.
void FollowLinearMap(const Machine& machine, PhysAddr physical, const ProcessorAccess& access, VirtualTranslation& out) {
  out.physical = physical;
  out.note = "the linear map: by arithmetic, because the machine's description does not say where its kernel and the tables of boot lie";
  if (!access.user) return;
  TranslationFault fault{TranslationFault::Kind::kPermission, 0, 0, 0, "the memory is the kernel's"};
  if (machine.layout().is_x86()) fault.x86_error_code = 1u | (access.write ? 2u : 0u) | 4u;
  out.fault = fault;
}

void FinishWalk(const Machine& machine, const ProcessorAccess& access, VirtualTranslation& out) {
  const Layout& layout = machine.layout();
  out.physical = out.walk.physical;
  if (out.physical.has_value()) {
    out.page_bytes = Bytes(PageTableFormat(layout).coverage(out.walk.steps[static_cast<size_t>(out.walk.count) - 1].level));
  }
  out.fault = FaultOf(layout, out.walk, access, !machine.spec().no_hardware_access_flag);
}

void TranslateUser(const Machine& machine, const Process* process, VirtAddr address, const ProcessorAccess& access,
                   VirtualTranslation& out) {
  if (process == nullptr) {
    out.note = "user addresses mean something only in the tables of a process, and none was named";
    return;
  }
  const AddressSpace& mm = *process->mm;
  out.base_register = machine.layout().is_x86() ? "CR3" : "TTBR0_EL1";
  out.base = machine.layout().page_size.StartOf(mm.pgd);
  out.asid = static_cast<uint32_t>(mm.context_id & kAsidMask);
  out.walk = machine.processes().Walk(*process, address);
  FinishWalk(machine, access, out);
}

// Why an address of the kernel's has no entry.
std::string WhyUnmapped(const Machine& machine, VirtAddr address, absl::string_view region) {
  if (machine.kernel_layout().LinearPhysOf(address).has_value()) return "the linear map maps RAM, and there is none";
  if (region == "pkmap") return "no frame has this slot of kmap()'s window";
  if (region == "fixmap") return "no frame has this slot for a while; what boot put into fixed slots is not simulated";
  if (region == "vmemmap") return "the kernel's struct pages: their entries are not simulated";
  std::string why = "nothing is mapped there";
  machine.ReadVmalloc([&](const Vmalloc& vmalloc) {
    const auto after = vmalloc.areas().upper_bound(address.raw());
    if (after == vmalloc.areas().begin()) return;
    const KernelArea& area = std::prev(after)->second;
    if (address.raw() >= area.end) return;
    why = area.nr_pages != 0 && area.pages.empty() ? "in an area that the kernel made while it booted: which frames it has is not known"
                                                   : "in an area of addresses without pages, or its guard page";
  });
  return why;
}

void TranslateByKernelTables(const Machine& machine, VirtAddr address, const ProcessorAccess& access, VirtualTranslation& out) {
  const bool x86 = machine.layout().is_x86();
  const KernelTablesReader tables(machine);
  const auto linear = machine.kernel_layout().LinearPhysOf(address);
  if (linear.has_value() && !tables.knows_boot()) return FollowLinearMap(machine, *linear, access, out);
  if (tables.root().has_value()) {
    out.base_register = x86 ? "CR3" : "TTBR1_EL1";
    out.base = machine.layout().page_size.StartOf(*tables.root());
    if (x86) out.note = "each process's top table has the same entries for the kernel as the kernel's own (swapper_pg_dir)";
    out.walk = tables.Walk(address);
    FinishWalk(machine, access, out);
  } else {
    out.fault = TranslationFault{TranslationFault::Kind::kTranslation, 0, 0, 0, "the kernel's tables have no entry for it"};
    if (x86) out.fault->x86_error_code = (access.write ? 2u : 0u) | (access.user ? 4u : 0u);
  }
  if (!out.physical.has_value()) out.note = WhyUnmapped(machine, address, out.region);
}

}  // namespace

VirtualTranslation TranslateVirtual(const Machine& machine, const Process* process, VirtAddr address, const ProcessorAccess& access) {
  VirtualTranslation out;
  out.region = RegionOf(machine, address);
  if (IsUser(machine, address)) {
    TranslateUser(machine, process, address, access, out);
  } else if (!IsKernel(machine, address)) {
    out.note = "between the addresses that TTBR0_EL1 serves and those of TTBR1_EL1";
    out.fault = FaultOf(machine.layout(), out.walk, access, !machine.spec().no_hardware_access_flag);
  } else {
    if (IsImage(machine, address)) out.region = "kernel image";
    TranslateByKernelTables(machine, address, access, out);
  }
  return out;
}

uint64_t ReadVirtual(const Machine& machine, const Process* process, VirtAddr address, uint64_t length, std::string* data,
                     std::string* reason) {
  const PageSize page = machine.layout().page_size;
  const uint64_t last = machine.layout().word_bytes == 4 ? 0xffffffff : ~uint64_t{0};
  const PhysicalAccess physical(machine);
  uint64_t done = 0;
  while (done < length) {
    if (last - address.raw() < done) {
      *reason = "the last address was read";
      break;
    }
    const VirtAddr at = address + Bytes(done);
    const VirtualTranslation translation = TranslateVirtual(machine, process, at, ProcessorAccess{false, false, false});
    if (!translation.physical.has_value()) {
      *reason = absl::StrCat("0x", absl::Hex(at.raw()),
                             " is not mapped: ", translation.fault.has_value() ? translation.fault->reason : translation.note);
      break;
    }
    const uint64_t count = std::min(length - done, page.bytes().raw() - page.OffsetIn(at));
    const uint64_t read = physical.Read(*translation.physical, count, data, reason);
    done += read;
    if (read < count) break;
  }
  return done;
}

}  // namespace mmlab

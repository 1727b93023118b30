// The layout as lists for readers: values under their kernel names, regions in order.

#include <algorithm>

#include "server/arch/kernel_layout.h"

namespace mmlab {
namespace {

using Kind = LayoutValue::Kind;

void AddX86Values(const KernelLayout& l, std::vector<LayoutValue>& out) {
  out.push_back({"__VMALLOC_RESERVE", l.vmalloc_reserve.raw(), Kind::kBytes, "kept from lowmem for vmalloc; the command line's vmalloc="});
  out.push_back({"VMALLOC_OFFSET", l.vmalloc_offset.raw(), Kind::kBytes, "hole between high_memory and VMALLOC_START"});
  out.push_back({"MAXMEM", l.maxmem.raw(), Kind::kBytes, "VMALLOC_END - PAGE_OFFSET - __VMALLOC_RESERVE: RAM that can be lowmem"});
  out.push_back({"MAXMEM_PFN", l.maxmem_pfn.raw(), Kind::kPfn, "MAXMEM as a frame number"});
  out.push_back({"highstart_pfn", l.highstart_pfn.raw(), Kind::kPfn, "first frame of HighMem"});
  out.push_back({"highend_pfn", l.highend_pfn.raw(), Kind::kPfn, "first frame behind HighMem"});
  out.push_back({"highmem_pages", l.highmem_pages.raw(), Kind::kPages, "frames from max_low_pfn to max_pfn, or what highmem= says"});
  out.push_back({"PKMAP_BASE", l.pkmap_base.raw(), Kind::kAddress, "window of kmap()"});
  out.push_back({"LAST_PKMAP", l.last_pkmap, Kind::kCount, "pages of that window"});
  out.push_back({"LDT_BASE_ADDR", l.ldt_base.raw(), Kind::kAddress, "local descriptor tables, page-table isolation"});
  out.push_back({"CPU_ENTRY_AREA_BASE", l.cpu_entry_area.raw(), Kind::kAddress, "cpu_entry_area: GDT, TSS and entry stacks of each CPU"});
  out.push_back({"FIX_KMAP_BEGIN", l.fix_kmap_begin, Kind::kCount, "first fixmap slot of kmap_local"});
  out.push_back({"FIX_KMAP_END", l.fix_kmap_end, Kind::kCount, "last one"});
}

void AddArm64Values(const KernelLayout& l, std::vector<LayoutValue>& out) {
  out.push_back({"VA_BITS", static_cast<uint64_t>(l.config.va_bits), Kind::kCount, "bits of a virtual address"});
  out.push_back({"PAGE_END", l.page_end.raw(), Kind::kAddress, "end of the window of the linear map"});
  out.push_back({"KIMAGE_VADDR", l.kimage_vaddr.raw(), Kind::kAddress, "where the kernel image is mapped"});
  out.push_back({"kimage_voffset", l.kimage_voffset, Kind::kCount, "virtual minus physical address of the image"});
  out.push_back({"memstart_addr", l.memstart_addr.raw(), Kind::kPhysical, "PHYS_OFFSET: what PAGE_OFFSET maps"});
  out.push_back({"PCI_IO_START", l.pci_io_start.raw(), Kind::kAddress, "PCI I/O ports"});
  out.push_back({"PCI_IO_END", l.pci_io_end.raw(), Kind::kAddress, "their end"});
  out.push_back({"VMEMMAP_START", l.vmemmap_start.raw(), Kind::kAddress, "window of struct pages, 64 bytes a frame"});
  out.push_back({"VMEMMAP_END", l.vmemmap_end.raw(), Kind::kAddress, "its end"});
  out.push_back({"VMEMMAP_SIZE", (l.vmemmap_end - l.vmemmap_start).raw(), Kind::kBytes, "its size"});
  out.push_back({"vmemmap", l.vmemmap.raw(), Kind::kAddress, "where the struct page of frame 0 would be"});
  if (!l.config.kasan) return;
  out.push_back({"KASAN_SHADOW_START", l.kasan_shadow_start.raw(), Kind::kAddress, "a byte for each 8 bytes of the kernel's addresses"});
  out.push_back({"KASAN_SHADOW_END", l.kasan_shadow_end.raw(), Kind::kAddress, "its end"});
}

}  // namespace

std::vector<LayoutValue> LayoutValues(const KernelLayout& l) {
  std::vector<LayoutValue> out = {
      {"PAGE_OFFSET", l.page_offset.raw(), Kind::kAddress, "start of the linear map of RAM"},
      {"TASK_SIZE", l.task_size.raw(), Kind::kAddress, "first address above user space"},
      {"high_memory", l.high_memory.raw(), Kind::kAddress, "first address behind the linear map of RAM"},
      {"VMALLOC_START", l.vmalloc_start.raw(), Kind::kAddress, "vmalloc, vmap, ioremap"},
      {"VMALLOC_END", l.vmalloc_end.raw(), Kind::kAddress, "their end"},
      {"MODULES_VADDR", l.modules_vaddr.raw(), Kind::kAddress, "kernel modules"},
      {"MODULES_END", l.modules_end.raw(), Kind::kAddress, "their end"},
      {"FIXADDR_START", l.fixaddr_start.raw(), Kind::kAddress, "permanent fixmap slots, numbered downward from FIXADDR_TOP"},
      {"FIXADDR_TOP", l.fixaddr_top.raw(), Kind::kAddress, "address of slot 0"},
      {"FIXADDR_SIZE", (l.fixaddr_top - l.fixaddr_start).raw(), Kind::kBytes, "size of the permanent slots"},
      {"__end_of_permanent_fixed_addresses", l.end_of_permanent_fixed_addresses, Kind::kCount, "fixmap slots that stay"},
      {"__end_of_fixed_addresses", l.end_of_fixed_addresses, Kind::kCount, "fixmap slots with those of early boot"},
      {"MAX_ARCH_PFN", l.max_arch_pfn.raw(), Kind::kPfn, "first frame number that the layout cannot have"},
      {"max_pfn", l.max_pfn.raw(), Kind::kPfn, "first frame behind RAM that is used"},
      {"max_low_pfn", l.max_low_pfn.raw(), Kind::kPfn, "first frame behind the linear map"},
  };
  if (l.is_x86()) {
    AddX86Values(l, out);
  } else {
    AddArm64Values(l, out);
  }
  return out;
}

std::vector<LayoutRegion> LayoutRegions(const KernelLayout& l) {
  std::vector<LayoutRegion> out;
  const auto add = [&](absl::string_view name, VirtAddr start, VirtAddr end, absl::string_view meaning) {
    if (start < end) out.push_back({std::string(name), start, VirtAddr(end.raw() - 1), std::string(meaning)});
  };
  const uint64_t page = l.config.page_size.bytes().raw();
  add("user", VirtAddr(0), l.task_size, "each process's own");
  if (l.is_x86()) {
    const uint64_t pmd = l.config.kind == LayoutKind::kX86_32Pae ? 2 << 20 : 4 << 20;
    add("lowmem", l.page_offset, l.high_memory, "linear map of RAM");
    add("vmalloc", l.vmalloc_start, l.vmalloc_end, "vmalloc, vmap, ioremap, modules");
    if (l.last_pkmap != 0) add("pkmap", l.pkmap_base, l.pkmap_base + Bytes(l.last_pkmap * page), "kmap()");
    add("LDT remap", l.ldt_base, l.ldt_base + Bytes(pmd), "local descriptor tables");
    add("cpu_entry", l.cpu_entry_area, VirtAddr(l.fixaddr_top.raw() - l.end_of_fixed_addresses * page), "GDT, TSS, entry stacks");
    add("fixmap", l.fixaddr_start, l.fixaddr_top, "fixed slots, kmap_local");
    return out;
  }
  add("linear map", l.page_offset, l.high_memory, "RAM");
  if (l.config.kasan) add("kasan shadow", l.kasan_shadow_start, l.kasan_shadow_end, "a byte for each 8 bytes");
  add("modules", l.modules_vaddr, l.modules_end, "kernel modules");
  add("vmalloc", l.vmalloc_start, l.vmalloc_end, "kernel image, vmalloc, vmap, ioremap");
  add("fixmap", l.fixaddr_start, l.fixaddr_top, "fixed slots, device tree");
  add("PCI I/O", l.pci_io_start, l.pci_io_end, "PCI I/O ports");
  add("vmemmap", l.vmemmap_start, l.vmemmap_end, "struct pages");
  return out;
}

}  // namespace mmlab

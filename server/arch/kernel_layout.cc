#include "server/arch/kernel_layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kX86Page = 4096;
constexpr uint64_t kX86FixaddrTop = 0xfffff000;
constexpr uint64_t kX86Cpus = 32;  // NR_CPUS of the kernels that are mirrored.

// Slots of the x86-32 fixmap (enum fixed_addresses): a hole, debug port, early console, local APIC, 64 IO APICs, then 16 for kmap_local on
// each CPU, one for PCI configuration, two for ACPI errors. 512 of early boot follow on a multiple of 512, and one to test write
// protection.
constexpr uint32_t kFixKmapBegin = 4 + 64;
constexpr uint32_t kFixKmapEnd = kFixKmapBegin + 16 * kX86Cpus - 1;
constexpr uint32_t kX86FixedPermanent = kFixKmapEnd + 1 + 3;
constexpr uint32_t kX86FixedAll = (kX86FixedPermanent + 511) / 512 * 512 + 512 + 1;
// struct cpu_entry_area: GDT, entry stack, five pages of TSS, a guard page and two of double-fault stack, 33 of debug store.
constexpr uint64_t kCpuEntryAreaPages = kX86Cpus * 43;

constexpr uint64_t kArm64ModulesSize = 128 * kMiB;
constexpr uint64_t kArm64PciIoSize = 16 * kMiB;
constexpr uint64_t kArm64FixFdtSize = 4 * kMiB;
constexpr int kArm64StructPageShift = 6;
constexpr int kKasanScaleShift = 3;

constexpr uint64_t RoundDown(uint64_t value, uint64_t step) { return value & ~(step - 1); }

absl::Status Invalid(absl::string_view field, absl::string_view rule) {
  return absl::InvalidArgumentError(absl::StrCat("spec.", field, ": ", rule));
}

// find_low_pfn_range(): which frames are lowmem and which HighMem, "highmem=" considered.
void FindLowPfnRange(KernelLayout& l) {
  const uint64_t most = l.maxmem_pfn.raw();
  const bool highmem = l.has_highmem_zone();
  std::optional<uint64_t> pages;
  if (l.config.highmem_arg) pages = l.config.highmem_arg->raw();
  uint64_t max_pfn = l.max_pfn.raw();
  uint64_t max_low = max_pfn;
  if (max_pfn <= most) {
    uint64_t wish = highmem ? pages.value_or(0) : 0;
    if (wish >= max_pfn || max_low - wish < 64 * kMiB / kX86Page) wish = 0;  // Too big, or too little lowmem left: ignored.
    max_low -= wish;
    l.highmem_pages = PageCount(wish);
  } else {
    max_low = most;
    uint64_t wish = pages.value_or(max_pfn - most);
    if (wish < max_pfn - most) max_pfn = most + wish;
    if (wish > max_pfn - most) wish = 0;
    l.highmem_pages = PageCount(wish);
    if (!highmem) {
      max_pfn = most;
    } else if (l.config.highmem_or_default() == Highmem::k4G) {
      max_pfn = std::min(max_pfn, (uint64_t{4096} << 20) / kX86Page);  // MAX_NONPAE_PFN
    }
  }
  l.max_pfn = Pfn(max_pfn);
  l.max_low_pfn = Pfn(max_low);
}

absl::StatusOr<KernelLayout> ComputeX86(const KernelLayoutConfig& config, absl::Span<const PfnRange> ram) {
  const bool pae = config.kind == LayoutKind::kX86_32Pae;
  const uint64_t pmd_size = pae ? 2 * kMiB : 4 * kMiB;
  if (PageOffsetOf(config.vmsplit) == VirtAddr(0)) return Invalid("vmsplit", "must be a value of VmSplit");
  if (pae && (config.vmsplit == VmSplit::k3GOpt || config.vmsplit == VmSplit::k2GOpt)) {
    return Invalid("vmsplit", "with PAE the kernel's part starts on a multiple of 1 GiB: VM_SPLIT_3G, _2G or _1G");
  }
  if (pae != (config.highmem_or_default() == Highmem::k64G)) {
    return Invalid("highmem", "HIGHMEM_64G is LAYOUT_X86_32_PAE, and only that");
  }
  KernelLayout l;
  l.config = config;
  const uint64_t page_offset = PageOffsetOf(config.vmsplit).raw();
  l.page_offset = l.task_size = VirtAddr(page_offset);
  l.fixaddr_top = VirtAddr(kX86FixaddrTop);
  l.fixaddr_start = VirtAddr(kX86FixaddrTop - kX86FixedPermanent * kX86Page);
  l.end_of_permanent_fixed_addresses = kX86FixedPermanent;
  l.end_of_fixed_addresses = kX86FixedAll;
  l.fix_kmap_begin = kFixKmapBegin;
  l.fix_kmap_end = kFixKmapEnd;
  const uint64_t fixed_all_start = kX86FixaddrTop - kX86FixedAll * kX86Page;
  const uint64_t entry_area = RoundDown(fixed_all_start - kX86Page * (kCpuEntryAreaPages + 1), pmd_size);
  const uint64_t ldt = RoundDown(entry_area - kX86Page, pmd_size);
  const uint64_t pkmap = RoundDown(ldt - kX86Page, pmd_size);
  l.cpu_entry_area = VirtAddr(entry_area);
  l.ldt_base = VirtAddr(ldt);
  l.pkmap_base = VirtAddr(pkmap);
  l.last_pkmap = l.has_highmem_zone() ? (pae ? 512 : 1024) : 0;
  const uint64_t vmalloc_end = (l.has_highmem_zone() ? pkmap : ldt) - 2 * kX86Page;
  l.vmalloc_end = l.modules_end = VirtAddr(vmalloc_end);
  l.vmalloc_offset = Bytes(kVmallocOffset);
  l.vmalloc_reserve = config.vmalloc_reserve;
  const uint64_t kernel_space = vmalloc_end - page_offset;
  if (config.vmalloc_reserve.raw() <= kVmallocOffset || config.vmalloc_reserve.raw() > kernel_space - 64 * kMiB) {
    return Invalid("command_line", absl::StrCat("vmalloc= must leave 64 MiB of ", kernel_space >> 20, " MiB to lowmem"));
  }
  l.maxmem = Bytes(kernel_space - config.vmalloc_reserve.raw());
  l.maxmem_pfn = Pfn(l.maxmem.raw() / kX86Page);
  l.max_arch_pfn = Pfn(uint64_t{1} << ((pae ? 36 : 32) - 12));
  l.firmware_end_pfn = ram.back().end;
  l.max_pfn = std::min(ram.back().end, l.max_arch_pfn);
  FindLowPfnRange(l);
  l.highend_pfn = l.max_pfn;
  l.highstart_pfn = std::min(l.max_low_pfn, l.max_pfn);
  l.high_memory = VirtAddr(page_offset + l.max_low_pfn.raw() * kX86Page);
  l.vmalloc_start = l.modules_vaddr = l.high_memory + l.vmalloc_offset;
  return l;
}

absl::Status CheckArm64(const KernelLayoutConfig& config) {
  const int shift = config.page_size.shift();
  const bool pairs = (shift == 12 && (config.va_bits == 39 || config.va_bits == 48)) ||
                     (shift == 14 && (config.va_bits == 36 || config.va_bits == 47 || config.va_bits == 48)) ||
                     (shift == 16 && (config.va_bits == 42 || config.va_bits == 48));
  if (!pairs) return Invalid("va_bits", "must be 39 or 48 with 4 KiB pages, 36, 47 or 48 with 16 KiB, 42 or 48 with 64 KiB");
  return absl::OkStatus();
}

// ARM64_MEMSTART_ALIGN: what the linear map can map in one piece, and at least a section of mem_map.
uint64_t MemstartAlign(int page_shift) {
  switch (page_shift) {
    case 12:
    case 14:  // 32 contiguous blocks of 32 MiB.
      return uint64_t{1} << 30;
    default:
      return uint64_t{1} << 29;
  }
}

absl::StatusOr<KernelLayout> ComputeArm64(const KernelLayoutConfig& config, absl::Span<const PfnRange> ram, PhysAddr image) {
  const absl::Status checked = CheckArm64(config);
  if (!checked.ok()) return checked;
  const int page_shift = config.page_size.shift();
  const int va_bits = config.va_bits;
  const auto below_top = [](int bits) { return -(uint64_t{1} << bits); };
  KernelLayout l;
  l.config = config;
  l.page_offset = VirtAddr(below_top(va_bits));
  l.task_size = VirtAddr(uint64_t{1} << va_bits);
  const uint64_t middle = below_top(va_bits - 1);
  uint64_t page_end = middle;
  if (config.kasan) {
    // The shadow of address A is at (A >> 3) + offset; the offset is chosen so that the shadow of the top ends in the middle.
    const uint64_t shadow_offset = middle - (uint64_t{1} << (64 - kKasanScaleShift));
    const uint64_t shadow_end = (uint64_t{1} << (64 - kKasanScaleShift)) + shadow_offset;
    page_end = shadow_end - (uint64_t{1} << (va_bits - kKasanScaleShift));
    l.kasan_shadow_start = VirtAddr(page_end);
    l.kasan_shadow_end = VirtAddr(shadow_end);
  }
  l.page_end = VirtAddr(page_end);
  l.modules_vaddr = VirtAddr(middle);
  l.modules_end = l.kimage_vaddr = l.vmalloc_start = VirtAddr(middle + kArm64ModulesSize);
  const int vmemmap_shift = page_shift - kArm64StructPageShift;
  const uint64_t vmemmap = below_top(va_bits - vmemmap_shift);
  l.vmemmap_start = VirtAddr(vmemmap);
  l.vmemmap_end = VirtAddr(vmemmap + ((middle - l.page_offset.raw()) >> vmemmap_shift));
  l.pci_io_end = VirtAddr(vmemmap - 8 * kMiB);
  l.pci_io_start = VirtAddr(vmemmap - 8 * kMiB - kArm64PciIoSize);
  l.fixaddr_top = VirtAddr(vmemmap - 32 * kMiB);
  // A hole, the device tree's window, early console, code patching, four of ACPI errors, four of the entry trampoline;
  // then seven windows of 256 KiB of early boot and a slot for each level of tables.
  l.end_of_permanent_fixed_addresses = static_cast<uint32_t>(kArm64FixFdtSize >> page_shift) + 11;
  l.end_of_fixed_addresses = l.end_of_permanent_fixed_addresses + 7 * ((256 << 10) >> page_shift) + 4;
  l.fixaddr_start = VirtAddr(l.fixaddr_top.raw() - (uint64_t{l.end_of_permanent_fixed_addresses} << page_shift));
  l.vmalloc_end = VirtAddr(vmemmap - 256 * kMiB);

  const uint64_t first = config.page_size.StartOf(ram.front().start).raw();
  l.max_arch_pfn = Pfn(uint64_t{1} << (48 - page_shift));
  l.firmware_end_pfn = ram.back().end;
  const uint64_t align = MemstartAlign(page_shift);
  const uint64_t linear_size = page_end - l.page_offset.raw();
  const uint64_t memstart = RoundDown(first, align);
  uint64_t end = 0;
  for (const PfnRange range : ram) {  // RAM beyond the linear map is lost.
    if (config.page_size.StartOf(range.start).raw() >= memstart + linear_size) break;
    end = std::min(config.page_size.StartOf(range.end).raw(), memstart + linear_size);
  }
  l.memstart_addr = PhysAddr(memstart);
  l.max_pfn = l.max_low_pfn = config.page_size.FrameHolding(PhysAddr(end));
  l.high_memory = VirtAddr(l.page_offset.raw() + (end - memstart));
  l.vmemmap = VirtAddr(vmemmap - ((memstart >> page_shift) << kArm64StructPageShift));
  l.kimage_voffset = l.kimage_vaddr.raw() - RoundDown(image.raw(), 2 * kMiB);
  return l;
}

}  // namespace

VirtAddr PageOffsetOf(VmSplit split) {
  switch (split) {
    case VmSplit::k3G:
      return VirtAddr(0xc0000000);
    case VmSplit::k3GOpt:
      return VirtAddr(0xb0000000);
    case VmSplit::k2G:
      return VirtAddr(0x80000000);
    case VmSplit::k2GOpt:
      return VirtAddr(0x78000000);
    case VmSplit::k1G:
      return VirtAddr(0x40000000);
  }
  return VirtAddr(0);
}

absl::StatusOr<KernelLayout> ComputeKernelLayout(const KernelLayoutConfig& config, absl::Span<const PfnRange> ram, PhysAddr image) {
  MMLAB_CHECK(!ram.empty());
  return config.kind == LayoutKind::kArm64 ? ComputeArm64(config, ram, image) : ComputeX86(config, ram);
}

std::optional<PhysAddr> KernelLayout::LinearPhysOf(VirtAddr address) const {
  if (address < page_offset || address >= high_memory) return std::nullopt;
  return PhysOf(address);
}

}  // namespace mmlab

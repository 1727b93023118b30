// What a kernel takes of memory before its page allocator exists, and where.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/files/hugetlb_pools.h"
#include "server/machine/board.h"
#include "server/machine/boot_tables.h"
#include "server/machine/early_memory.h"
#include "server/machine/hugetlb_boot.h"
#include "server/machine/memory_map.h"

namespace mmlab {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kPage = 4096;
constexpr absl::string_view kSmall = "boot structures";

constexpr uint64_t RoundUp(uint64_t value, uint64_t step) { return (value + step - 1) / step * step; }
constexpr uint64_t RoundDown(uint64_t value, uint64_t step) { return value / step * step; }

NamedRange Named(absl::string_view name, uint64_t start, uint64_t end) { return {{PhysAddr(start), PhysAddr(end)}, std::string(name)}; }

// Where the recorded kernels' images lie and how large their parts are.
struct Image {
  std::vector<NamedRange> sections;
  uint64_t start, end;            // All of it, early page tables (brk) included.
  uint64_t init_start, init_end;  // Freed late.
  uint64_t early_end;             // From init_end: SMP alternatives, free before the watermarks are computed.
};

Image ImageOf(LayoutKind layout, uint64_t ram_start) {
  switch (layout) {
    case LayoutKind::kX86_32:
      return {{Named("Kernel code", 0x1000000, 0x191bc80), Named("Kernel rodata", 0x191c000, 0x1c39000),
               Named("Kernel data", 0x1c39000, 0x1d70bc0), Named("Kernel bss", 0x1e72000, 0x1ee6000)},
              0x1000000,
              0x1ef6000,
              0x1d86000,
              0x1e6a000,
              0x1e72000};
    case LayoutKind::kX86_32Pae:
      return {{Named("Kernel code", 0x1000000, 0x1933f00), Named("Kernel rodata", 0x1934000, 0x1c51000),
               Named("Kernel data", 0x1c52000, 0x1d8e680), Named("Kernel bss", 0x1e94000, 0x1f0b000)},
              0x1000000,
              0x1f24000,
              0x1da4000,
              0x1e8c000,
              0x1e94000};
    case LayoutKind::kArm64: {
      const uint64_t base = RoundUp(ram_start, 2 * kMiB);
      return {{Named("Kernel code", base + 0x210000, base + 0x1860000), Named("Kernel data", base + 0x1eb0000, base + 0x2210000)},
              base + 0x210000,
              base + 0x220b000,
              base + 0x1860000,
              base + 0x1eb0000,
              base + 0x1eb0000};
    }
  }
  return {};
}

// Where the image of the description lies, when its sections say so. On ARM64 they end with early page tables that are given back.
Image ImageOf(const MachineSpec& spec, uint64_t ram_start) {
  Image image = ImageOf(spec.layout, ram_start);
  if (spec.layout != LayoutKind::kArm64 || spec.kernel_sections.size() != 2) return image;
  const PhysRange code = spec.kernel_sections[0].range;
  const PhysRange data = spec.kernel_sections[1].range;
  if (code.end > data.start || data.length() <= Bytes(5 * kPage)) return image;
  image.start = code.start.raw();
  image.init_start = code.end.raw();
  image.init_end = image.early_end = data.start.raw();
  image.end = data.end.raw() - 5 * kPage;
  return image;
}

class Planner {
 public:
  explicit Planner(MachineSpec& spec) : spec_(spec), layout_(GetLayout(spec.layout)) {}

  absl::Status Plan() {
    frames_ = RamFrames(layout_.page_size, KernelMemoryMap(spec_));
    if (frames_.empty()) return Error(absl::StrCat("no RAM that ", layout_.name, " can address"));
    MMLAB_ASSIGN_OR_RETURN(kernel_, KernelLayoutOf(spec_, frames_));
    frames_ = RamBelow(frames_, kernel_.max_pfn);
    for (PfnRange r : frames_) ram_.push_back({layout_.page_size.StartOf(r.start), layout_.page_size.StartOf(r.end)});
    const Image image = ImageOf(spec_, ram_.front().start.raw());
    const bool fits = std::any_of(ram_.begin(), ram_.end(), [&](PhysRange r) {
      return r.Contains(PhysRange{PhysAddr(image.start), PhysAddr(image.end)});
    });
    if (!fits) return Error("RAM must hold the kernel image");
    if (spec_.kernel_sections.empty()) spec_.kernel_sections = image.sections;
    Keep("kernel image", {PhysAddr(image.start), PhysAddr(image.init_start)});
    Keep("init sections", {PhysAddr(image.init_start), PhysAddr(image.init_end)}, true);
    Keep("kernel image", {PhysAddr(image.early_end), PhysAddr(image.end)});
    absl::Status planned = layout_.is_x86() ? PlanX86(image) : PlanArm64(image);
    JoinSmall();
    return planned;
  }

 private:
  static absl::Status Error(absl::string_view rule) { return absl::InvalidArgumentError(absl::StrCat("spec.firmware_ranges: ", rule)); }

  void Keep(absl::string_view purpose, PhysRange range, bool freed_late = false) {
    if (range.start < range.end) spec_.reserved_ranges.push_back({range, std::string(purpose), freed_late});
  }

  // Takes memory for good. Once it failed, the plan has failed.
  void Take(EarlyMemory& memory, absl::string_view purpose, uint64_t bytes, uint64_t align = 64, uint64_t limit = ~uint64_t{0}) {
    const std::optional<PhysRange> range = memory.Take(bytes, align, limit);
    failed_ = failed_ || !range;
    if (range) Keep(purpose, *range);
  }

  // Where the initramfs is when the page allocator starts: the loader puts it anywhere; on x86 it is moved when it does not lie in lowmem.
  void PlaceInitramfs(EarlyMemory& memory) {
    if (!spec_.initramfs) return;
    const PhysRange given{*spec_.initramfs};
    const uint64_t pages = RoundUp(given.end.raw(), kPage) - RoundDown(given.start.raw(), kPage);
    PhysRange place{PhysAddr(RoundDown(given.start.raw(), kPage)), PhysAddr(RoundUp(given.end.raw(), kPage))};
    if (layout_.is_x86() && place.end > layout_.page_size.StartOf(kernel_.max_low_pfn)) {
      const std::optional<PhysRange> moved = memory.Take(pages, kPage);
      failed_ = failed_ || !moved;
      if (moved) Keep("initramfs", *moved, true);
      return;
    }
    memory.Reserve(place);
    Keep("initramfs", place, true);
  }

  absl::Status PlanX86(const Image& image) {
    EarlyMemory memory(FreeBelow(image, layout_.page_size.StartOf(kernel_.max_low_pfn).raw()));
    Keep("low memory: real mode, BIOS", {PhysAddr(0), PhysAddr(kMiB)});
    PlaceInitramfs(memory);
    TakeMemoryMap(memory);
    TakeSetupArch(memory);
    TakePerCpu(memory);
    const uint64_t pages = X86KernelPages();
    Take(memory, "dentry hash table", HashTableBytes(pages, 13, 4, false));
    Take(memory, "inode hash table", HashTableBytes(pages, 14, 4, false));
    if (spec_.layout == LayoutKind::kX86_32Pae) {
      Take(memory, "page tables of cpu_entry_area", kPage, kPage);
      Take(memory, "page tables of cpu_entry_area", kPage, kPage);
    }
    if (ram_.back().end.raw() > 4 * kGiB) {  // Bounce buffers for devices that reach 4 GiB, and 16 bytes for each slot of 2 KiB.
      Take(memory, "software IO TLB", 64 * kMiB, kPage);
      Take(memory, "software IO TLB slots", 64 * kMiB / 2048 * 16, kPage);
    }
    return failed_ ? Error("RAM must hold the kernel's memory map and tables below the end of lowmem") : absl::OkStatus();
  }

  // alloc_node_mem_map(), setup_usemap(): 40 bytes a frame from frame 0 in whole blocks of the largest order; 4 bits a page block and zone.
  void TakeMemoryMap(EarlyMemory& memory) {
    Take(memory, "mem_map", RoundUp(kernel_.max_pfn.raw(), 1024) * 40);
    const uint64_t block = uint64_t{1} << layout_.pageblock_order;
    const uint64_t ends[] = {std::min<uint64_t>(4096, kernel_.max_low_pfn.raw()), kernel_.max_low_pfn.raw(), kernel_.max_pfn.raw()};
    uint64_t start = frames_.front().start.raw();
    for (const uint64_t end : ends) {
      if (end <= start) continue;
      const uint64_t blocks = (end - start + start % block + block - 1) / block;
      Take(memory, "page block types", (blocks * 4 + 31) / 32 * 4);
      start = end;
    }
  }

  // Resources of HPET, IO APIC and each range of the map, the firmware's map itself, ranges not to be saved in hibernation, the command
  // line.
  void TakeSetupArch(EarlyMemory& memory) {
    const uint64_t resource = spec_.layout == LayoutKind::kX86_32Pae ? 40 : 32;  // sizeof(struct resource)
    Take(memory, kSmall, resource + 9);
    Take(memory, kSmall, resource + 11);
    Take(memory, kSmall, KernelMemoryMap(spec_).size() * resource);
    for (size_t i = SanitizeFirmwareRanges(spec_.firmware_ranges).size(); i > 0; --i) Take(memory, kSmall, 64);
    Take(memory, kSmall, 16);
    Take(memory, kSmall, 16);
    const uint64_t command_line = spec_.command_line.size() + 1;
    Take(memory, kSmall, command_line);
    Take(memory, kSmall, command_line);
  }

  // setup_per_cpu_areas(): 33 pages a CPU, and what describes the first chunk. Two pages are only borrowed.
  void TakePerCpu(EarlyMemory& memory) {
    const auto cpus = static_cast<uint64_t>(spec_.cpus);
    const std::optional<PhysRange> info = memory.Take(kPage, kPage);
    const std::optional<PhysRange> areas = memory.Take(kPage, 64);
    Take(memory, "per-CPU areas", 33 * kPage * cpus, kPage);
    for (int i = 0; i < 4; ++i) Take(memory, kSmall, 4 * cpus);
    for (const uint64_t bytes : {152, 96, 1024, 1028, 256}) Take(memory, kSmall, bytes);
    if (info) memory.Release(*info);
    if (areas) memory.Release(*areas);
  }

  // nr_kernel_pages of free_area_init_core(): lowmem without its part of mem_map, and that of HighMem if it does not take half of it.
  uint64_t X86KernelPages() const {
    const uint64_t max_low = kernel_.max_low_pfn.raw();
    uint64_t kernel_pages = 0;
    for (PfnRange r : RamBelow(frames_, kernel_.max_low_pfn)) kernel_pages += r.length().raw();
    kernel_pages -= std::min(kernel_pages, RoundUp(max_low * 40, kPage) / kPage);
    const uint64_t high_map = RoundUp((kernel_.max_pfn.raw() - max_low) * 40, kPage) / kPage;
    return kernel_pages > 2 * high_map ? kernel_pages - high_map : kernel_pages;
  }

  absl::Status PlanArm64(const Image& image) {
    const uint64_t end = ram_.back().end.raw();
    EarlyMemory memory(FreeBelow(image, end));
    // The loader puts the device tree, 1 MiB, behind the place of an initramfs, not onto the image.
    const uint64_t first_bank = ram_.front().length().raw();
    const uint64_t initramfs = ram_.front().start.raw() + std::min(first_bank / 2, 128 * kMiB);
    const uint64_t tree = RoundUp(std::max(initramfs + 2 * kMiB, image.end), 2 * kMiB);
    memory.Reserve({PhysAddr(tree), PhysAddr(tree + kMiB)});
    Keep("device tree", {PhysAddr(tree), PhysAddr(tree + kMiB)});
    PlaceInitramfs(memory);
    uint64_t bytes = 0;
    uint64_t map_bytes = 0;  // 64 bytes a frame, mapped by 2 MiB blocks: one for each section of 128 MiB.
    for (PhysRange r : ram_) {
      bytes += r.length().raw();
      map_bytes += (RoundUp(r.end.raw(), 128 * kMiB) - RoundDown(r.start.raw(), 128 * kMiB)) / 64;
    }
    // And four tables of the identity map that the CPU runs on while it changes the others.
    const std::unique_ptr<BootPageTables> made = BootTablesOf(spec_, layout_, kernel_, frames_);
    if (made == nullptr) return Error("RAM must hold an image with the sections \"Kernel code\" and \"Kernel data\", in whole pages");
    Take(memory, kLinearMapTables, (made->tables() + 4) * kPage, kPage);
    Take(memory, "node and section structures", 49 * kPage, kPage);
    Take(memory, "mem_map", map_bytes, 2 * kMiB);
    TakeCma(memory);
    if (end > 4 * kGiB) Take(memory, "software IO TLB", 64 * kMiB, 2 * kMiB, 4 * kGiB);
    if (UseReservedResources(image, initramfs)) return absl::OkStatus();
    Take(memory, "per-CPU areas", 31 * kPage * static_cast<uint64_t>(spec_.cpus), kPage);
    const uint64_t kernel_pages = bytes / kPage - std::min(bytes / kPage, map_bytes / kPage);
    Take(memory, "dentry hash table", HashTableBytes(kernel_pages, 13, 8, true), kPage);
    Take(memory, "inode hash table", HashTableBytes(kernel_pages, 14, 8, true), kPage);
    return failed_ ? Error("RAM must hold the kernel's memory map and tables") : absl::OkStatus();
  }

  // dma_contiguous_reserve(): 64 MiB that devices can reach, or what cma= says; none where it does not fit.
  void TakeCma(EarlyMemory& memory) {
    if (!spec_.cma_areas.empty()) return;
    CmaArgument wish{64 * kMiB};
    if (const BootArguments arguments = ParseBootArguments(spec_.command_line); arguments.cma) wish = *arguments.cma;
    const uint64_t block = kPage << layout_.pageblock_order;
    if (wish.size == 0 || wish.size > ram_.back().end.raw()) return;
    const uint64_t size = RoundUp(wish.size, block);
    uint64_t limit = ram_.front().start.raw() >= 4 * kGiB ? ram_.back().end.raw() : 4 * kGiB;
    if (wish.limit != 0) limit = std::min(limit, wish.limit);
    const std::optional<PhysRange> range = memory.Take(size, 4 * kMiB, limit);
    if (!range) return;
    if (range->start.raw() < wish.base) {
      memory.Release(*range);
      return;
    }
    spec_.cma_areas.push_back({*range, "cma"});
  }

  // /proc/iomem of an ARM64 kernel shows what is reserved, in whole pages. Where the description has that, it is what counts: everything
  // but CMA, the init sections and the initramfs, whose last page, not being whole, stays. False: the description has none.
  bool UseReservedResources(const Image& image, uint64_t initramfs) {
    std::vector<PfnRange> reserved;
    Collect(spec_.iomem_resources, reserved);
    std::erase_if(reserved, [&](PfnRange r) { return Subtract(std::vector<PfnRange>{r}, frames_) == std::vector<PfnRange>{r}; });
    if (reserved.empty()) return false;
    spec_.reserved_ranges.clear();
    const auto frame = [&](uint64_t address) { return layout_.page_size.FrameHolding(PhysAddr(address)); };
    const bool tree_follows = std::any_of(reserved.begin(), reserved.end(), [&](PfnRange r) {
      return r.start > frame(initramfs) && r.start < frame(initramfs + kGiB) && r.start.raw() % 512 == 0 && r.length() == PageCount(256);
    });
    std::vector<PfnRange> cma;
    for (const NamedRange& area : spec_.cma_areas) cma.push_back({frame(area.range.start.raw()), frame(area.range.end.raw())});
    std::erase_if(cma, [&](PfnRange area) {  // Where the kernel did otherwise, its map is right.
      return std::none_of(reserved.begin(), reserved.end(), [&](PfnRange r) { return r.start <= area.start && area.end <= r.end; });
    });
    if (cma.empty()) spec_.cma_areas.clear();
    const auto keep = [&](absl::string_view purpose, Pfn start, Pfn stop, bool late = false) {
      Keep(purpose, {layout_.page_size.StartOf(start), layout_.page_size.StartOf(stop)}, late);
    };
    keep("kernel image", frame(image.start), frame(image.init_start));
    keep("kernel image", frame(image.init_end), frame(image.end));
    for (PfnRange r : Subtract(reserved, cma)) {
      if (r.start == frame(image.init_start) && r.end == frame(image.init_end)) {
        keep("init sections", r.start, r.end, true);
      } else if (r.start == frame(initramfs) && tree_follows && r.length() > PageCount(1)) {
        keep("initramfs", r.start, r.end - PageCount(1), true);
        keep("initramfs, last page", r.end - PageCount(1), r.end);
      } else {
        keep("reserved", r.start, r.end);
      }
    }
    return true;
  }

  // Leaves named "reserved", ascending as the tree is.
  void Collect(const std::vector<IomemResource>& nodes, std::vector<PfnRange>& out) const {
    for (const IomemResource& node : nodes) {
      if (node.name == "reserved") {
        const Pfn start = layout_.page_size.FrameHolding(node.start);
        const Pfn end = layout_.page_size.FrameHolding(PhysAddr(node.last.raw())) + PageCount(1);
        if (out.empty() || start >= out.back().end) out.push_back({start, end});
      }
      Collect(node.children, out);
    }
  }

  // Small neighbours on the same page become one range.
  void JoinSmall() {
    std::vector<BootReservation>& list = spec_.reserved_ranges;
    std::stable_sort(list.begin(), list.end(),
                     [](const BootReservation& a, const BootReservation& b) { return a.range.start < b.range.start; });
    std::vector<BootReservation> joined;
    for (BootReservation& r : list) {
      if (!joined.empty() && r.purpose == kSmall && joined.back().purpose == kSmall &&
          r.range.start.raw() / kPage == (joined.back().range.end.raw() - 1) / kPage) {
        joined.back().range.end = r.range.end;
      } else {
        joined.push_back(std::move(r));
      }
    }
    list = std::move(joined);
  }

  // RAM above the first MiB (x86) without the image, below `limit`.
  std::vector<PhysRange> FreeBelow(const Image& image, uint64_t limit) const {
    const uint64_t floor = layout_.is_x86() ? kMiB : 0;
    std::vector<PhysRange> free;
    const auto add = [&](uint64_t start, uint64_t end) {
      start = std::max(start, floor);
      end = std::min(end, limit);
      if (start < end) free.push_back({PhysAddr(start), PhysAddr(end)});
    };
    for (PhysRange r : ram_) {
      add(r.start.raw(), std::min(r.end.raw(), image.start));
      add(std::max(r.start.raw(), image.end), r.end.raw());
    }
    return free;
  }

  MachineSpec& spec_;
  const Layout& layout_;
  KernelLayout kernel_;
  std::vector<PhysRange> ram_;
  std::vector<PfnRange> frames_;
  bool failed_ = false;
};

}  // namespace

absl::Status PlanReservations(MachineSpec& spec) { return Planner(spec).Plan(); }

void ReserveHugePages(MachineSpec& spec) {
  const Layout& layout = GetLayout(spec.layout);
  const HugetlbPools::Sizes sizes = HugetlbPools::SizesOf(layout);
  const HugetlbPlan plan = PlanHugetlb(spec.command_line, layout);
  std::vector<PhysRange> ram;
  for (const PfnRange range : RamFrames(layout.page_size, KernelMemoryMap(spec))) {
    ram.push_back({layout.page_size.StartOf(range.start), layout.page_size.StartOf(range.end)});
  }
  EarlyMemory memory(ram);
  for (const BootReservation& kept : spec.reserved_ranges) {
    if (kept.purpose == kBootHugePage) return;  // The description says where they are.
    memory.Reserve(kept.range);
  }
  for (const NamedRange& area : spec.cma_areas) memory.Reserve(area.range);
  for (size_t pool = 0; pool < plan.counts.size(); ++pool) {
    const uint64_t bytes = kPage << sizes.orders[pool];
    for (uint64_t i = 0; sizes.orders[pool] > kMaxOrder && i < plan.counts[pool]; ++i) {
      const std::optional<PhysRange> range = memory.Take(bytes, bytes);
      if (!range) break;
      spec.reserved_ranges.push_back({*range, std::string(kBootHugePage), /*freed_late=*/false});
    }
  }
}

}  // namespace mmlab

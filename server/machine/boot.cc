#include "server/machine/boot.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/status_macros.h"
#include "server/kernel/boot_caches.h"
#include "server/machine/board.h"
#include "server/machine/memory_map.h"

namespace mmlab {
namespace {

constexpr size_t kMaxRanges = 4096;
constexpr int kMaxX86Cpus = 32;
constexpr uint64_t kMaxAddress = uint64_t{1} << 56;               // Of anything that a description may name.
constexpr uint64_t kMaxRamEnd = uint64_t{1} << 42;                // 4 TiB: frame numbers fit 32 bits with room to spare.
constexpr uint64_t kMinManagedPages = (uint64_t{4} << 20) >> 12;  // Below this no kernel comes up.
constexpr uint64_t kDmaEnd = 16 << 20;                            // MAX_DMA_PFN of x86.
constexpr uint64_t kArm64DmaEnd = uint64_t{1} << 32;              // zone_dma_bits 32: a device tree without dma-ranges.

absl::Status Invalid(absl::string_view field, absl::string_view rule) {
  return absl::InvalidArgumentError(absl::StrCat("spec.", field, ": ", rule));
}

std::string RangeText(PhysRange range) { return absl::StrFormat("[%#x, %#x)", range.start.raw(), range.end.raw()); }

template <typename Ranges, typename RangeOf>
absl::Status CheckRanges(absl::string_view field, const Ranges& ranges, RangeOf range_of) {
  if (ranges.size() > kMaxRanges) return Invalid(field, absl::StrCat("at most ", kMaxRanges, " entries"));
  for (size_t i = 0; i < ranges.size(); ++i) {
    const PhysRange range = range_of(ranges[i]);
    if (range.start >= range.end) {
      return Invalid(absl::StrCat(field, "[", i, "]"), absl::StrCat("end_address must be above start_address: ", RangeText(range)));
    }
    if (range.end.raw() > kMaxAddress) return Invalid(absl::StrCat(field, "[", i, "]"), "must lie below 2^56");
  }
  return absl::OkStatus();
}

absl::Status CheckNode(const IomemResource& node, int depth, size_t* count) {
  if (node.start > node.last) {
    return Invalid("iomem_resources", absl::StrFormat("'%s': last_address must not be below start_address", node.name));
  }
  if (node.last.raw() >= kMaxAddress) return Invalid("iomem_resources", absl::StrFormat("'%s' must lie below 2^56", node.name));
  if (++*count > kMaxRanges || depth > 16) return Invalid("iomem_resources", "at most 4096 nodes, 16 levels deep");
  for (const IomemResource& child : node.children) {
    if (child.start < node.start || node.last < child.last) {
      return Invalid("iomem_resources", absl::StrFormat("'%s' does not lie within '%s'", child.name, node.name));
    }
    MMLAB_RETURN_IF_ERROR(CheckNode(child, depth + 1, count));
  }
  return absl::OkStatus();
}

absl::Status CheckSpec(const MachineSpec& spec) {
  if (spec.cpus < 1 || spec.cpus > 64) return Invalid("cpus", "must be 1 .. 64");
  if (spec.layout != LayoutKind::kArm64 && spec.cpus > kMaxX86Cpus)
    return Invalid("cpus", "must be 1 .. 32 (NR_CPUS of the x86-32 kernels)");
  if (spec.no_hardware_access_flag && spec.layout != LayoutKind::kArm64) {
    return Invalid("no_hardware_access_flag", "only LAYOUT_ARM64 has such CPUs");
  }
  const bool x86 = spec.layout != LayoutKind::kArm64;
  if (!x86 && spec.vmsplit != VmSplit::k3G) return Invalid("vmsplit", "only x86-32 has it");
  if (!x86 && spec.highmem) return Invalid("highmem", "only x86-32 has it");
  if (x86 && (spec.va_bits != 48 || spec.kasan)) return Invalid(spec.kasan ? "kasan" : "va_bits", "only LAYOUT_ARM64 has it");
  if (spec.boot_time_seconds < 0 || spec.boot_time_seconds > 4'000'000'000) {
    return Invalid("boot_time_seconds", "must be 0 .. 4000000000");
  }
  if (spec.firmware_ranges.empty()) return Invalid("firmware_ranges", "must hold RAM (or give ram_bytes or a preset)");
  MMLAB_RETURN_IF_ERROR(CheckRanges("firmware_ranges", spec.firmware_ranges, [](const FirmwareRange& r) { return r.range; }));
  for (size_t i = 0; i < spec.firmware_ranges.size(); ++i) {
    const auto type = static_cast<int>(spec.firmware_ranges[i].type);
    if (type < 1 || type > 5) return Invalid(absl::StrCat("firmware_ranges[", i, "].type"), "must be set");
  }
  MMLAB_RETURN_IF_ERROR(CheckRanges("reserved_ranges", spec.reserved_ranges, [](const BootReservation& r) { return r.range; }));
  MMLAB_RETURN_IF_ERROR(CheckRanges("kernel_sections", spec.kernel_sections, [](const NamedRange& r) { return r.range; }));
  MMLAB_RETURN_IF_ERROR(CheckRanges("cma_areas", spec.cma_areas, [](const NamedRange& r) { return r.range; }));
  size_t nodes = 0;
  for (const IomemResource& node : spec.iomem_resources) MMLAB_RETURN_IF_ERROR(CheckNode(node, 0, &nodes));
  return absl::OkStatus();
}

std::vector<PfnRange> Joined(std::vector<PfnRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](PfnRange a, PfnRange b) { return a.start < b.start; });
  std::vector<PfnRange> out;
  for (PfnRange range : ranges) {
    if (!out.empty() && range.start <= out.back().end) {
      out.back().end = std::max(out.back().end, range.end);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

// Frames that a byte range touches.
PfnRange Touched(PageSize page_size, PhysRange range) {
  return {page_size.FrameHolding(range.start), page_size.FrameHolding(range.end + Bytes(page_size.mask()))};
}

// Reserved frames, each once, with the purpose of the first reservation that touches it.
void PlanReserved(const MachineSpec& spec, PageSize page_size, PhysicalConfig& config) {
  std::vector<ReservedRange> kept;
  std::vector<PfnRange> late;
  for (const BootReservation& r : spec.reserved_ranges) {
    const PfnRange frames = Touched(page_size, r.range);
    if (!r.freed_late) {
      kept.push_back({frames, r.purpose});
      continue;
    }
    // Freed are only whole frames; what they share with their neighbours stays.
    const PfnRange whole{page_size.FrameHolding(r.range.start + Bytes(page_size.mask())), page_size.FrameHolding(r.range.end)};
    if (whole.start >= whole.end) {
      kept.push_back({frames, r.purpose});
      continue;
    }
    late.push_back(whole);
    if (frames.start < whole.start) kept.push_back({{frames.start, whole.start}, r.purpose});
    if (whole.end < frames.end) kept.push_back({{whole.end, frames.end}, r.purpose});
  }
  std::stable_sort(kept.begin(), kept.end(), [](const ReservedRange& a, const ReservedRange& b) { return a.range.start < b.range.start; });
  Pfn covered(0);
  std::vector<PfnRange> all;
  for (ReservedRange& r : kept) {
    r.range.start = std::max(r.range.start, covered);
    if (r.range.start >= r.range.end) continue;
    covered = r.range.end;
    all.push_back(r.range);
    config.reserved.push_back(std::move(r));
  }
  // The allocator wants late ranges within RAM only.
  const std::vector<PfnRange> holes = Subtract(Joined(late), config.ram);
  config.late_freed = Subtract(Subtract(Joined(late), holes), all);
}

absl::Status PlanCma(const MachineSpec& spec, const Layout& layout, PhysicalConfig& config) {
  const uint64_t block = uint64_t{1} << (layout.page_size.shift() + layout.pageblock_order);
  std::vector<PfnRange> taken = config.late_freed;
  for (const ReservedRange& r : config.reserved) taken.push_back(r.range);
  taken = Joined(std::move(taken));
  for (size_t i = 0; i < spec.cma_areas.size(); ++i) {
    const PhysRange range = spec.cma_areas[i].range;
    const std::string field = absl::StrCat("cma_areas[", i, "]");
    if (range.start.raw() % block != 0 || range.end.raw() % block != 0) {
      return Invalid(field, absl::StrCat("must start and end on a multiple of a page block (", block, " bytes)"));
    }
    const PfnRange frames = Touched(layout.page_size, range);
    if (!Subtract({&frames, 1}, config.ram).empty()) return Invalid(field, "must lie within RAM");
    if (Subtract({&frames, 1}, taken) != std::vector<PfnRange>{frames}) return Invalid(field, "must not overlap reserved_ranges");
    config.cma.push_back(frames);
  }
  std::sort(config.cma.begin(), config.cma.end(), [](PfnRange a, PfnRange b) { return a.start < b.start; });
  for (size_t i = 1; i < config.cma.size(); ++i) {
    if (config.cma[i].start < config.cma[i - 1].end) return Invalid("cma_areas", "must not overlap each other");
  }
  return absl::OkStatus();
}

// First frame of ZONE_MOVABLE (kernelcore=, movablecore=); the end of RAM: there is none. `usable`: where it can start at the earliest.
// Linux: find_zone_movable_pfns_for_nodes(), one node.
Pfn MovableStart(absl::Span<const PfnRange> ram, Pfn usable, const BootArguments& arguments) {
  constexpr uint64_t kLargest = uint64_t{1} << kMaxOrder;
  const Pfn none = ram.back().end;
  uint64_t total = 0;
  for (PfnRange range : ram) total += range.length().raw();
  const auto pages = [&](const CoreSize& size) {
    return size.percent != 0 ? total * std::min<uint64_t>(size.percent, 100) / 100 : size.bytes >> 12;
  };
  uint64_t kernelcore = pages(arguments.kernelcore);
  if (uint64_t movable = pages(arguments.movablecore); movable != 0) {
    movable = std::min(total, (std::min(movable, total) + kLargest - 1) / kLargest * kLargest);
    kernelcore = std::max(kernelcore, total - movable);
  }
  if (kernelcore == 0 || kernelcore >= total) return none;
  Pfn start = none;
  for (PfnRange range : ram) {
    start = range.start;
    if (start < usable) {
      kernelcore -= std::min((std::min(range.end, usable) - start).raw(), kernelcore);
      start = std::min(range.end, usable);
      if (start == range.end) continue;
    }
    const uint64_t size = std::min((range.end - start).raw(), kernelcore);
    start += PageCount(size);
    kernelcore -= size;
    if (kernelcore == 0) break;
  }
  return std::min(none, Pfn((start.raw() + kLargest - 1) / kLargest * kLargest));
}

void PlanZones(const Layout& layout, const KernelLayout& kernel, const BootArguments& arguments, PhysicalConfig& config) {
  const PageSize page_size = layout.page_size;
  const Pfn end = config.ram.back().end;
  const auto at = [&](ZoneType type) -> Pfn& { return config.zone_end[static_cast<size_t>(type)]; };
  if (layout.is_x86()) {
    config.zones = kernel.has_highmem_zone() ? ZoneSet::kX86_32 : ZoneSet::kX86_32LowMem;
    const Pfn max_low = kernel.max_low_pfn;
    at(ZoneType::kDma) = std::min(page_size.FrameHolding(PhysAddr(kDmaEnd)), max_low);
    at(ZoneType::kDma32) = at(ZoneType::kDma);
    at(ZoneType::kNormal) = max_low;
  } else {
    config.zones = ZoneSet::kArm64;
    // RAM that starts above 4 GiB is all for DMA (max_zone_phys): nothing lies lower.
    const Pfn limit = page_size.FrameHolding(PhysAddr(kArm64DmaEnd));
    at(ZoneType::kDma) = config.ram.front().start >= limit ? end : std::min(limit, end);
    at(ZoneType::kDma32) = at(ZoneType::kDma);
    at(ZoneType::kNormal) = end;
    config.lowmem_reserve_ratio = {256, 256, 32, 0, 0};
  }
  at(ZoneType::kHighMem) = end;
  at(ZoneType::kMovable) = end;
  // ZONE_MOVABLE takes the top of the highest zone that has RAM.
  ZoneType highest = ZoneType::kDma;
  Pfn lowest(0);  // First frame of that zone.
  Pfn below(0);
  for (const ZoneType type : {ZoneType::kDma, ZoneType::kDma32, ZoneType::kNormal, ZoneType::kHighMem}) {
    if (type == ZoneType::kHighMem && config.zones != ZoneSet::kX86_32) continue;
    if (below < at(type)) {
      highest = type;
      lowest = below;
    }
    below = std::max(below, at(type));
  }
  const Pfn movable = MovableStart(config.ram, lowest, arguments);
  if (movable >= end) return;
  for (ZoneType type = highest; type < ZoneType::kMovable; type = static_cast<ZoneType>(static_cast<int>(type) + 1)) at(type) = movable;
}

// Where start-up's slabs lie: nobody recorded it, so in the lowest whole page blocks of the zone from which the kernel has its own memory.
// None at all where these are too few, or the allocator is another than the recorded one.
void PlanBootSlabs(const MachineSpec& spec, const Layout& layout, PhysicalConfig& config) {
  if (spec.slab_allocator != SlabAllocatorKind::kSlub) return;
  const SlabPlatform platform = SlabPlatformOf(layout, spec.cpus);
  uint64_t pages = spec.recorded_large_kmalloc_pages;
  uint64_t reclaimable = 0;
  for (const SlabinfoCounts& counts : spec.recorded_slabs) {
    const std::optional<SlabFlags> flags = FlagsOfBootCache(platform, layout.kind, counts.name);
    if (!flags.has_value()) continue;
    pages += uint64_t{counts.slabs} * counts.pages_per_slab;
    if ((*flags & kSlabReclaimAccount) != 0) reclaimable += uint64_t{counts.slabs} * counts.pages_per_slab;
  }
  const auto end_of = [&](ZoneType type) { return config.zone_end[static_cast<size_t>(type)]; };
  const bool normal = end_of(ZoneType::kDma32) < std::min(end_of(ZoneType::kNormal), config.ram.back().end);
  const PfnRange zone = normal ? PfnRange{end_of(ZoneType::kDma32), end_of(ZoneType::kNormal)} : PfnRange{Pfn(0), end_of(ZoneType::kDma)};
  std::vector<PfnRange> taken = config.late_freed;
  taken.insert(taken.end(), config.cma.begin(), config.cma.end());
  for (const ReservedRange& r : config.reserved) taken.push_back(r.range);
  const uint64_t block = uint64_t{1} << kMaxOrder;
  for (PfnRange free : Subtract(config.ram, Joined(std::move(taken)))) {
    free.start = Pfn((std::max(free.start, zone.start).raw() + block - 1) / block * block);
    free.end = std::min(free.end, zone.end);
    if (free.start >= free.end || pages == 0) continue;
    const uint64_t length = std::min(pages, free.length().raw() / block * block);
    if (length == 0) continue;
    config.boot_slabs.push_back({free.start, free.start + PageCount(length)});
    pages -= length;
  }
  config.boot_slab_reclaimable = reclaimable;
  if (pages == 0) return;
  config.boot_slabs.clear();
  config.boot_slab_reclaimable = 0;
}

}  // namespace

absl::Status CompleteSpec(MachineSpec& spec) {
  if (spec.cpus == 0) spec.cpus = 1;
  if (spec.boot_time_seconds == 0) spec.boot_time_seconds = MachineSpec().boot_time_seconds;
  MMLAB_RETURN_IF_ERROR(CheckSpec(spec));
  const DefaultKernel kernel = DefaultKernelOf(spec.layout);
  if (spec.kernel_release.empty()) {
    spec.kernel_release = kernel.release;
    if (spec.kernel_version.empty()) spec.kernel_version = kernel.version;
    if (spec.kernel_built_by.empty()) spec.kernel_built_by = kernel.built_by;
    if (spec.kernel_compiler.empty()) spec.kernel_compiler = kernel.compiler;
  }
  if (spec.kernel_machine.empty()) spec.kernel_machine = std::string(GetLayout(spec.layout).uname_machine);
  if (spec.reserved_ranges.empty()) MMLAB_RETURN_IF_ERROR(PlanReservations(spec));
  ReserveHugePages(spec);
  return absl::OkStatus();
}

absl::StatusOr<KernelLayout> PlanKernelLayout(const MachineSpec& spec) {
  const std::vector<PfnRange> ram = RamFrames(GetLayout(spec.layout).page_size, KernelMemoryMap(spec));
  if (ram.empty()) return Invalid("firmware_ranges", absl::StrCat("no RAM that ", GetLayout(spec.layout).name, " can address"));
  return KernelLayoutOf(spec, ram);
}

absl::StatusOr<PhysicalConfig> PlanPhysicalMemory(const MachineSpec& spec) {
  const Layout& layout = GetLayout(spec.layout);
  PhysicalConfig config;
  config.page_size = layout.page_size;
  config.pageblock_order = layout.pageblock_order;
  config.cpus = spec.cpus;
  config.transparent_hugepage = spec.transparent_hugepage != MachineSpec::TransparentHugepage::kNever;
  config.ram = RamFrames(layout.page_size, KernelMemoryMap(spec));
  if (config.ram.empty()) return Invalid("firmware_ranges", absl::StrCat("no RAM that ", layout.name, " can address"));
  if (layout.page_size.StartOf(config.ram.back().end).raw() > kMaxRamEnd) return Invalid("firmware_ranges", "RAM must end below 4 TiB");
  MMLAB_ASSIGN_OR_RETURN(const KernelLayout kernel, KernelLayoutOf(spec, config.ram));
  config.ram = RamBelow(config.ram, kernel.max_pfn);
  PlanZones(layout, kernel, ParseBootArguments(spec.command_line), config);
  PlanReserved(spec, layout.page_size, config);
  MMLAB_RETURN_IF_ERROR(PlanCma(spec, layout, config));

  std::vector<PfnRange> reserved;
  for (const ReservedRange& r : config.reserved) reserved.push_back(r.range);
  PlanBootSlabs(spec, layout, config);
  for (const PfnRange& range : config.boot_slabs) reserved.push_back(range);
  uint64_t managed = 0;
  for (PfnRange range : Subtract(config.ram, Joined(std::move(reserved)))) managed += range.length().raw();
  if (managed < kMinManagedPages) return Invalid("reserved_ranges", "must leave at least 4 MiB of RAM to the page allocator");
  return config;
}

}  // namespace mmlab

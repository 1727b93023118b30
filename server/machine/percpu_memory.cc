#include "server/machine/percpu_memory.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "server/base/check.h"
#include "server/kernel/kernel_page_tables.h"
#include "server/kernel/vmalloc.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr Gfp kPercpuGfp = kGfpKernel | kGfpZoneHighmem;  // pcpu_alloc_pages()
constexpr uint32_t kSecondChunkPages = 3;                 // Of a unit, on ARM64.
constexpr char kAreaCaller[] = "pcpu_get_vm_areas";

uint64_t PageEnd(uint64_t address) { return (address + kPage - 1) / kPage * kPage; }

// Where CPU 0's unit of the first chunk lies: where the description has so much memory for it.
std::optional<PhysAddr> FirstUnit(const MachineSpec& spec, uint64_t bytes) {
  for (const bool named : {true, false}) {
    for (const BootReservation& r : spec.reserved_ranges) {
      const uint64_t start = PageEnd(r.range.start.raw());
      const uint64_t end = r.range.end.raw();
      if (named ? r.purpose == "per-CPU areas" && start + bytes <= end : start + bytes == PageEnd(end)) return PhysAddr(start);
    }
  }
  return std::nullopt;
}

}  // namespace

PerCpuSizes PerCpuSizesOf(LayoutKind kind) {
  switch (kind) {
    case LayoutKind::kX86_32:
      return {103316, 0, 31852, 135168};
    case LayoutKind::kX86_32Pae:
      return {104276, 0, 30892, 135168};
    case LayoutKind::kArm64:
      break;
  }
  return {87208, 8192, 31576, 126976};
}

PercpuMemory::PercpuMemory(LayoutKind layout, PageSize page_size, Vmalloc& vmalloc, KernelPageTables& tables, BuddyMemory& memory)
    : layout_(layout), page_size_(page_size), vmalloc_(vmalloc), tables_(tables), memory_(memory) {}

std::optional<VirtAddr> PercpuMemory::GetArea(Bytes size) {
  const SysResult<VmallocOutcome> area =
      vmalloc_.GetPercpuArea(size, layout_ == LayoutKind::kArm64 ? "pcpu_get_vm_areas+0x0/0x1250" : kAreaCaller);
  if (!area.ok()) return std::nullopt;
  return area.value().address;
}

void PercpuMemory::FreeArea(VirtAddr start) { MMLAB_CHECK(vmalloc_.Unmap(start).ok()); }

bool PercpuMemory::Populate(VirtRange range) {
  for (VirtAddr at = range.start; at < range.end; at = at + page_size_.bytes()) {
    const std::optional<Pfn> pfn = memory_.AllocPages(kPercpuGfp, PageOrder(0));
    const bool mapped = pfn && tables_.MapPage(at, *pfn, KernelPageTables::Kind::kMemory);
    if (mapped) continue;
    if (pfn) memory_.FreePages(*pfn, PageOrder(0));
    Depopulate({range.start, at});
    return false;
  }
  return true;
}

// What boot populated has no entries here, and its frames are not told apart from others of boot.
void PercpuMemory::Depopulate(VirtRange range) {
  for (VirtAddr at = range.start; at < range.end; at = at + page_size_.bytes()) {
    const std::optional<PhysAddr> physical = tables_.Translate(at, nullptr);
    if (!physical) continue;
    tables_.Unmap({at, at + page_size_.bytes()});
    memory_.FreePages(page_size_.FrameHolding(*physical), PageOrder(0));
  }
}

std::optional<VirtAddr> BootPercpuArea(const MachineSpec& spec, const Layout& layout, PercpuMemory& memory, const Vmalloc& vmalloc) {
  const Bytes size(uint64_t{PerCpuSizesOf(layout.kind).unit} * static_cast<uint64_t>(spec.cpus));
  if (layout.kind != LayoutKind::kArm64 || !FirstUnit(spec, size.raw())) return std::nullopt;
  for (auto area = vmalloc.areas().rbegin(); area != vmalloc.areas().rend(); ++area) {
    if (absl::StartsWith(area->second.caller, kAreaCaller)) return VirtAddr(area->first);
  }
  return memory.GetArea(size);
}

std::unique_ptr<PercpuAllocator> MakePercpuAllocator(const MachineSpec& spec, const Layout& layout, const KernelLayout& kernel,
                                                     PercpuMemory& memory, std::optional<VirtAddr> area, Tracer& tracer) {
  const PerCpuSizes sizes = PerCpuSizesOf(layout.kind);
  const std::optional<PhysAddr> first = FirstUnit(spec, uint64_t{sizes.unit} * static_cast<uint64_t>(spec.cpus));
  if (!first) return nullptr;
  const bool arm64 = layout.kind == LayoutKind::kArm64;
  const auto page = static_cast<uint32_t>(layout.page_size.bytes().raw());
  PercpuBootChunk boot;
  boot.base = kernel.VirtOf(*first);
  boot.start = sizes.fixed + sizes.reserved;
  boot.end = boot.start + sizes.dynamic;
  boot.used = sizes.dynamic - (arm64 ? page : 3 * page);
  boot.populated = sizes.unit / page;
  boot.immutable = true;
  std::vector<PercpuBootChunk> chunks = {boot};
  if (area) chunks.push_back({*area, 0, sizes.unit, 0, kSecondChunkPages, false});
  return std::make_unique<PercpuAllocator>(PercpuConfig{spec.cpus, sizes.unit, layout.page_size}, chunks, memory, tracer);
}

uint64_t BootPercpuPages(LayoutKind kind, int cpus) {
  const uint64_t unit = PerCpuSizesOf(kind).unit / kPage;
  return (unit + (kind == LayoutKind::kArm64 ? kSecondChunkPages : 0)) * static_cast<uint64_t>(cpus);
}

}  // namespace mmlab

#include "server/machine/boot_explanation.h"

#include <algorithm>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "server/arch/kernel_layout.h"
#include "server/base/check.h"
#include "server/machine/boot.h"
#include "server/machine/boot_arguments.h"
#include "server/machine/memory_map.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

// Of memmap=, where 0 is any type.
absl::string_view TypeName(int type) {
  if (type == 0) return "anything";
  const absl::string_view name = E820TypeName(static_cast<FirmwareRange::Type>(type));
  return name.empty() ? "unknown" : name;
}

void AddRange(Explanation& why, StepKind kind, absl::string_view text, const FirmwareRange& range) {
  why.Add(kind, text)
      .Physical("start_address", range.range.start)
      .Physical("last_address", PhysAddr(range.range.end.raw() - 1))
      .Text("type", TypeName(static_cast<int>(range.type)));
}

// So that the steps behind are not lost: of many ranges only some are told one by one.
template <typename Items, typename Explain>
void EachOfFew(const Items& items, StepKind kind, Explanation& why, Explain explain) {
  constexpr size_t kMost = 250;
  for (size_t i = 0; i < items.size() && i < kMost; ++i) explain(items[i]);
  if (items.size() > kMost) why.Add(kind, "and so many more").Number("left_out", static_cast<int64_t>(items.size() - kMost));
}

void ExplainFirmware(const MachineSpec& spec, Explanation& why) {
  const std::vector<FirmwareRange>& given = spec.firmware_ranges;
  std::vector<FirmwareRange> sorted = given;
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.range.start < b.range.start; });
  int64_t overlaps = 0;
  PhysAddr covered(0);
  for (const FirmwareRange& range : sorted) {
    overlaps += range.range.start < covered;
    covered = std::max(covered, range.range.end);
  }
  const bool in_order =
      std::is_sorted(given.begin(), given.end(), [](const auto& a, const auto& b) { return a.range.start < b.range.start; });
  const std::vector<FirmwareRange> map = SanitizeFirmwareRanges(given);
  why.Add(StepKind::kFirmwareMap,
          "firmware's ranges are sorted; where they overlap the higher type wins; neighbours of one type are joined")
      .Number("ranges", static_cast<int64_t>(given.size()))
      .Truth("in_order", in_order)
      .Number("overlaps", overlaps)
      .Number("ranges_after", static_cast<int64_t>(map.size()));
  EachOfFew(map, StepKind::kFirmwareMap, why,
            [&](const FirmwareRange& range) { AddRange(why, StepKind::kFirmwareMap, "a range of the map in order", range); });
}

void ExplainEdit(const MemoryEdit& edit, Explanation& why) {
  switch (edit.kind) {
    case MemoryEdit::Kind::kExactMap:
      why.Add(StepKind::kMapEdit, "memmap=exactmap forgets what firmware said");
      return;
    case MemoryEdit::Kind::kLimit:
      why.Add(StepKind::kMapEdit, "no RAM beyond this much is used")
          .Text("argument", edit.memmap ? "memmap=" : "mem=")
          .Size("size", Bytes(edit.size));
      return;
    case MemoryEdit::Kind::kAdd:
      why.Add(StepKind::kMapEdit, "memmap= adds a range")
          .Physical("start_address", PhysAddr(edit.start))
          .Size("size", Bytes(edit.size))
          .Text("type", TypeName(edit.to));
      return;
    case MemoryEdit::Kind::kChange:
      why.Add(StepKind::kMapEdit, edit.to == 0 ? "memmap= takes a range away" : "memmap= gives a range another type")
          .Physical("start_address", PhysAddr(edit.start))
          .Size("size", Bytes(edit.size))
          .Text("from", TypeName(edit.from))
          .Text("to", edit.to == 0 ? "nothing" : TypeName(edit.to));
      return;
  }
}

void ExplainRam(const MachineSpec& spec, const KernelLayout& kernel, Explanation& why) {
  const BootArguments arguments = ParseBootArguments(spec.command_line);
  EachOfFew(arguments.edits, StepKind::kMapEdit, why, [&](const MemoryEdit& edit) {
    if (kernel.is_x86() || !edit.memmap) ExplainEdit(edit, why);
  });
  if (kernel.is_x86()) {
    why.Add(StepKind::kMapEdit, "the BIOS keeps its data in the first page: reserved")
        .Physical("start_address", PhysAddr(0))
        .Physical("last_address", PhysAddr(0xfff));
    why.Add(StepKind::kMapEdit, "video memory and ROMs lie here: no RAM is believed")
        .Physical("start_address", PhysAddr(0xa0000))
        .Physical("last_address", PhysAddr(0xfffff));
  }
  const bool lost = kernel.firmware_end_pfn > kernel.max_pfn;
  why.Add(StepKind::kRamLimit, lost ? "RAM goes on beyond what this kernel can use: the rest is lost" : "the kernel can use RAM to its end")
      .Frame("firmware_end_pfn", kernel.firmware_end_pfn)
      .Frame("max_arch_pfn", kernel.max_arch_pfn)
      .Frame("max_pfn", kernel.max_pfn);
}

void ExplainSplit(const KernelLayout& kernel, Explanation& why) {
  if (!kernel.is_x86()) {
    why.Add(StepKind::kAddressSplit, "all of RAM lies in the linear map, which starts at PAGE_OFFSET with PHYS_OFFSET")
        .Address("PAGE_OFFSET", kernel.page_offset)
        .Address("PAGE_END", kernel.page_end)
        .Physical("PHYS_OFFSET", kernel.memstart_addr)
        .Number("VA_BITS", kernel.config.va_bits)
        .Frame("max_low_pfn", kernel.max_low_pfn);
    return;
  }
  why.Add(StepKind::kAddressSplit, "MAXMEM = VMALLOC_END - PAGE_OFFSET - __VMALLOC_RESERVE: so much RAM can be mapped for good")
      .Address("PAGE_OFFSET", kernel.page_offset)
      .Address("VMALLOC_END", kernel.vmalloc_end)
      .Size("__VMALLOC_RESERVE", kernel.vmalloc_reserve)
      .Size("MAXMEM", kernel.maxmem)
      .Frame("max_low_pfn", kernel.max_low_pfn);
  if (!kernel.has_highmem_zone()) {
    why.Add(StepKind::kAddressSplit, "without CONFIG_HIGHMEM what lies beyond lowmem cannot be used")
        .Frame("max_pfn", kernel.max_pfn)
        .Frame("firmware_end_pfn", kernel.firmware_end_pfn);
    return;
  }
  why.Add(StepKind::kAddressSplit, "RAM beyond lowmem is HighMem, mapped page by page when it is needed")
      .Frame("highstart_pfn", kernel.highstart_pfn)
      .Frame("highend_pfn", kernel.highend_pfn)
      .Pages("highmem_pages", kernel.highmem_pages);
}

void ExplainReservations(const MachineSpec& spec, Explanation& why) {
  EachOfFew(spec.reserved_ranges, StepKind::kBootReservation, why, [&](const BootReservation& r) {
    why.Add(StepKind::kBootReservation,
            r.freed_late ? "needed until boot is done, freed after the watermarks were computed" : "taken for good")
        .Text("purpose", r.purpose)
        .Physical("start_address", r.range.start)
        .Size("size", r.range.length());
  });
  EachOfFew(spec.cma_areas, StepKind::kBootReservation, why, [&](const NamedRange& area) {
    why.Add(StepKind::kBootReservation, "kept contiguous for devices; movable pages may use it meanwhile")
        .Text("purpose", area.name)
        .Physical("start_address", area.range.start)
        .Size("size", area.range.length());
  });
}

}  // namespace

Explanation ExplainBoot(const MachineSpec& spec) {
  Explanation why;
  const absl::StatusOr<KernelLayout> kernel = PlanKernelLayout(spec);
  const absl::StatusOr<PhysicalConfig> config = PlanPhysicalMemory(spec);
  MMLAB_CHECK(kernel.ok() && config.ok());
  ExplainFirmware(spec, why);
  ExplainRam(spec, *kernel, why);
  ExplainSplit(*kernel, why);
  ExplainReservations(spec, why);
  Tracer tracer;
  tracer.Explain(&why);
  const BuddyMemory memory(*config, tracer);  // Says the rest.
  return why;
}

}  // namespace mmlab

#include "server/procfs/kernel_layout.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/machine/machine.h"

namespace mmlab {
namespace {

std::string SizeText(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (unit < 4 && bytes >= 10240) {
    bytes >>= 10;
    ++unit;
  }
  return absl::StrFormat("%5d %s", bytes, kUnits[unit]);
}

std::string ValueText(const LayoutValue& value, int digits) {
  using Kind = LayoutValue::Kind;
  switch (value.kind) {
    case Kind::kPages:
      return absl::StrCat(value.value, " pages");
    case Kind::kBytes:
      return absl::StrFormat("0x%x", value.value);
    case Kind::kCount:
      return value.value < 1 << 20 ? absl::StrCat(value.value) : absl::StrFormat("0x%x", value.value);
    case Kind::kPfn:
    case Kind::kPhysical:
      return absl::StrFormat("0x%x", value.value);
    case Kind::kAddress:
      break;
  }
  return absl::StrFormat("0x%0*x", digits, value.value);
}

}  // namespace

std::vector<LayoutRegion> MachineRegions(const Machine& machine, const KernelLayout& layout) {
  std::vector<LayoutRegion> regions = LayoutRegions(layout);
  const auto mapped = [&](PhysAddr address) {
    return VirtAddr(layout.is_x86() ? layout.page_offset.raw() + address.raw() : layout.kimage_voffset + address.raw());
  };
  const auto add = [&](const char* name, PhysRange range, const char* meaning) {
    regions.push_back({name, mapped(range.start), VirtAddr(mapped(range.end).raw() - 1), meaning});
  };
  for (const NamedRange& section : machine.spec().kernel_sections) {
    if (section.name == "Kernel code") add(".text", section.range, layout.is_x86() ? "kernel code" : "kernel code and read-only data");
    if (section.name == "Kernel rodata") add(".rodata", section.range, "read-only data");
    if (section.name == "Kernel data") add(".data", section.range, layout.is_x86() ? "kernel data" : "kernel data and .bss");
    if (section.name == "Kernel bss") add(".bss", section.range, "zeroed data");
  }
  for (const BootReservation& r : machine.spec().reserved_ranges) {
    if (r.purpose == "init sections") add(".init", r.range, "freed when init starts");
  }
  return regions;
}

std::string KernelLayoutText(const Machine& machine, const KernelLayout& layout) {
  const int digits = machine.layout().is_x86() ? 8 : 16;
  std::string text = "virtual kernel memory layout:\n";
  const std::vector<LayoutRegion> regions = MachineRegions(machine, layout);
  for (auto region = regions.rbegin(); region != regions.rend(); ++region) {
    const uint64_t bytes = region->last.raw() - region->start.raw() + 1;
    absl::StrAppend(&text, absl::StrFormat("  %12s : 0x%0*x - 0x%0*x   (%s)  %s\n", region->name, digits, region->start.raw(), digits,
                                           region->last.raw(), SizeText(bytes), region->meaning));
  }
  text += "values:\n";
  for (const LayoutValue& value : LayoutValues(layout)) {
    absl::StrAppend(&text, absl::StrFormat("  %-34s %-20s %s\n", value.name, ValueText(value, digits), value.meaning));
  }
  return text;
}

}  // namespace mmlab

#include "server/machine/boot_tables.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "server/machine/boot_arguments.h"
#include "server/machine/memory_map.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
// Of the recorded ARM64 kernel, where nothing tells: _etext - _stext, __inittext_end - __inittext_begin.
constexpr uint64_t kArm64Text = uint64_t{13248} << 10;
constexpr uint64_t kArm64InitText = uint64_t{896} << 10;

const PhysRange* SectionOf(const MachineSpec& spec, absl::string_view name) {
  const auto found =
      std::find_if(spec.kernel_sections.begin(), spec.kernel_sections.end(), [&](const NamedRange& s) { return s.name == name; });
  return found == spec.kernel_sections.end() ? nullptr : &found->range;
}

const PhysRange* ReservedFor(const MachineSpec& spec, absl::string_view purpose) {
  const auto found = std::find_if(spec.reserved_ranges.begin(), spec.reserved_ranges.end(),
                                  [&](const BootReservation& r) { return r.purpose == purpose; });
  return found == spec.reserved_ranges.end() ? nullptr : &found->range;
}

PhysAddr PageEnd(PhysAddr address) { return PhysAddr((address.raw() + kPage - 1) / kPage * kPage); }

std::unique_ptr<BootPageTables> X86Tables(const MachineSpec& spec, const Layout& layout, const KernelLayout& kernel,
                                          absl::Span<const PhysRange> ram) {
  const PhysRange* text = SectionOf(spec, "Kernel code");
  const PhysRange* rodata = SectionOf(spec, "Kernel rodata");
  const PhysRange* bss = SectionOf(spec, "Kernel bss");
  const PhysRange* init = ReservedFor(spec, "init sections");
  if (text == nullptr || rodata == nullptr || bss == nullptr || init == nullptr) return nullptr;
  const PhysAddr brk = PageEnd(bss->end);
  const auto rest = std::find_if(spec.reserved_ranges.begin(), spec.reserved_ranges.end(),
                                 [&](const BootReservation& r) { return r.range.Contains(bss->start) && r.range.end > brk; });
  if (rest == spec.reserved_ranges.end() || init->start > bss->start) return nullptr;
  const X86KernelImage image{*text, PageEnd(rodata->end), {init->start, bss->start}, init->end, bss->start, {brk, rest->range.end}};
  return MakeX86BootTables(layout, kernel, ram, image, ParseBootArguments(spec.command_line).rodata != "off");
}

// map_kernel() leaves an area for each segment, which recordings show; else by the sizes of the recorded kernel.
std::vector<Arm64Segment> SegmentsOf(const MachineSpec& spec, PhysRange code, PhysRange data) {
  using Kind = Arm64Segment::Kind;
  PhysAddr text_end = code.start + std::min(Bytes(kArm64Text), code.length());
  PhysAddr init_text_end = code.end + std::min(Bytes(kArm64InitText), data.start - code.end);
  for (const KernelArea& area : spec.recorded_areas) {
    if (!area.physical.has_value() || !absl::StartsWith(area.caller, "paging_init")) continue;
    const PhysAddr end = *area.physical + Bytes(area.end - area.start);
    if (*area.physical == code.start && end <= code.end) text_end = end;
    if (*area.physical == code.end && end <= data.start) init_text_end = end;
  }
  std::vector<Arm64Segment> segments;
  const auto add = [&](PhysAddr start, PhysAddr end, Kind kind) {
    if (start < end) segments.push_back({{start, end}, kind});
  };
  add(code.start, text_end, Kind::kText);
  add(text_end, code.end, Kind::kRodata);
  add(code.end, init_text_end, Kind::kInitText);
  add(init_text_end, data.start, Kind::kData);
  add(data.start, data.end, Kind::kData);
  return segments;
}

std::unique_ptr<BootPageTables> Arm64Tables(const MachineSpec& spec, const Layout& layout, const KernelLayout& kernel,
                                            absl::Span<const PhysRange> ram) {
  const PhysRange* code = SectionOf(spec, "Kernel code");
  const PhysRange* data = SectionOf(spec, "Kernel data");
  if (code == nullptr || data == nullptr || code->end > data->start || code->empty()) return nullptr;
  for (const PhysRange* section : {code, data}) {
    if (section->start.raw() % kPage != 0 || section->end.raw() % kPage != 0) return nullptr;
  }
  const PhysRange* tables = ReservedFor(spec, kLinearMapTables);
  Layout built = layout;
  built.table_levels = kernel.config.va_bits == 39 ? 3 : 4;
  const Arm64KernelImage image{SegmentsOf(spec, *code, *data), *code,
                               // The last of four directories before the init sections, which start on a multiple of 64 KiB.
                               Pfn(code->end.raw() / kPage - 1), Pfn((tables != nullptr ? tables->end : ram.back().end).raw() / kPage)};
  const std::string rodata = ParseBootArguments(spec.command_line).rodata;
  return MakeArm64BootTables(built, kernel, ram, image,
                             rodata == "off"  ? Arm64Rodata::kOff
                             : rodata == "on" ? Arm64Rodata::kOn
                                              : Arm64Rodata::kFull);
}

}  // namespace

std::unique_ptr<BootPageTables> BootTablesOf(const MachineSpec& spec, const Layout& layout, const KernelLayout& kernel,
                                             absl::Span<const PfnRange> ram) {
  if (ram.empty()) return nullptr;
  std::vector<PhysRange> bytes;
  for (const PfnRange r : ram) bytes.push_back({layout.page_size.StartOf(r.start), layout.page_size.StartOf(r.end)});
  return layout.is_x86() ? X86Tables(spec, layout, kernel, bytes) : Arm64Tables(spec, layout, kernel, bytes);
}

std::unique_ptr<BootPageTables> BootTablesOf(const MachineSpec& spec, const Layout& layout, const KernelLayout& kernel) {
  return BootTablesOf(spec, layout, kernel, RamBelow(RamFrames(layout.page_size, KernelMemoryMap(spec)), kernel.max_pfn));
}

}  // namespace mmlab

#include "server/machine/memory_map.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"

namespace mmlab {
namespace {

constexpr uint64_t kBiosStart = 0xa0000;  // BIOS_BEGIN: video memory and ROMs up to 1 MiB.
constexpr uint64_t kBiosEnd = 0x100000;
constexpr uint64_t kNoEnd = ~uint64_t{0};

void Append(std::vector<FirmwareRange>& out, uint64_t start, uint64_t end, FirmwareRange::Type type) {
  if (start >= end) return;
  if (!out.empty() && out.back().type == type && out.back().range.end == PhysAddr(start)) {
    out.back().range.end = PhysAddr(end);
    return;
  }
  out.push_back({{PhysAddr(start), PhysAddr(end)}, type});
}

// What has type `from` (0: any) between start and end becomes `to`; 0: nothing.
std::vector<FirmwareRange> Retype(absl::Span<const FirmwareRange> map, uint64_t start, uint64_t end, int from_type, int to_type) {
  std::vector<FirmwareRange> out;
  for (const FirmwareRange& r : map) {
    const uint64_t from = r.range.start.raw();
    const uint64_t to = r.range.end.raw();
    if ((from_type != 0 && static_cast<int>(r.type) != from_type) || to <= start || end <= from) {
      Append(out, from, to, r.type);
      continue;
    }
    Append(out, from, std::min(start, to), r.type);
    if (to_type != 0) Append(out, std::max(start, from), std::min(end, to), static_cast<FirmwareRange::Type>(to_type));
    Append(out, std::max(end, from), to, r.type);
  }
  return out;
}

// Keeps the lowest `bytes` of RAM.
void LimitRam(uint64_t bytes, std::vector<FirmwareRange>& map) {
  std::vector<FirmwareRange> out;
  for (FirmwareRange r : map) {
    if (r.type == FirmwareRange::Type::kRam) {
      const uint64_t taken = std::min(bytes, r.range.length().raw());
      bytes -= taken;
      r.range.end = r.range.start + Bytes(taken);
    }
    if (r.range.start < r.range.end) out.push_back(r);
  }
  map = std::move(out);
}

}  // namespace

std::vector<FirmwareRange> SanitizeFirmwareRanges(absl::Span<const FirmwareRange> ranges) {
  // A sweep over all ends: how many ranges of each type cover the stretch between two of them.
  struct Change {
    uint64_t address;
    int type;
    int delta;
  };
  std::vector<Change> changes;
  changes.reserve(2 * ranges.size());
  for (const FirmwareRange& r : ranges) {
    if (r.range.start >= r.range.end) continue;
    changes.push_back({r.range.start.raw(), static_cast<int>(r.type), 1});
    changes.push_back({r.range.end.raw(), static_cast<int>(r.type), -1});
  }
  std::sort(changes.begin(), changes.end(), [](const Change& a, const Change& b) { return a.address < b.address; });
  std::array<int, 6> covering{};
  std::vector<FirmwareRange> out;
  for (size_t i = 0; i < changes.size(); ++i) {
    covering[static_cast<size_t>(changes[i].type)] += changes[i].delta;
    if (i + 1 == changes.size() || changes[i + 1].address == changes[i].address) continue;
    for (size_t type = covering.size(); type-- > 1;) {
      if (covering[type] == 0) continue;
      Append(out, changes[i].address, changes[i + 1].address, static_cast<FirmwareRange::Type>(type));
      break;
    }
  }
  return out;
}

uint64_t ResourceEnd(const Layout& layout) { return layout.kind == LayoutKind::kX86_32 ? uint64_t{1} << 32 : ~uint64_t{0}; }

std::vector<FirmwareRange> EditFirmwareRanges(LayoutKind layout, absl::Span<const FirmwareRange> ranges,
                                              absl::Span<const MemoryEdit> edits) {
  using Kind = MemoryEdit::Kind;
  std::vector<FirmwareRange> map = SanitizeFirmwareRanges(ranges);
  const bool x86 = layout != LayoutKind::kArm64;
  for (const MemoryEdit& edit : edits) {
    if (!x86) {
      if (!edit.memmap) LimitRam(edit.size & ~uint64_t{0xfff}, map);
      continue;
    }
    const uint64_t end = edit.start + std::min(edit.size, kNoEnd - edit.start);
    switch (edit.kind) {
      case Kind::kExactMap:
        map.clear();
        break;
      case Kind::kLimit:
        map = Retype(map, edit.size, kNoEnd, 1, 0);
        break;
      case Kind::kAdd:
        if (edit.start < end) map.push_back({{PhysAddr(edit.start), PhysAddr(end)}, static_cast<FirmwareRange::Type>(edit.to)});
        break;
      case Kind::kChange:
        if (edit.from == 0 && edit.to != 0) {
          map.push_back({{PhysAddr(edit.start), PhysAddr(end)}, static_cast<FirmwareRange::Type>(edit.to)});
        } else {
          map = Retype(map, edit.start, end, edit.from, edit.to);
        }
        break;
    }
  }
  return SanitizeFirmwareRanges(map);
}

absl::string_view E820TypeName(FirmwareRange::Type type) {
  switch (type) {
    case FirmwareRange::Type::kRam:
      return "usable";
    case FirmwareRange::Type::kReserved:
      return "reserved";
    case FirmwareRange::Type::kAcpi:
      return "ACPI data";
    case FirmwareRange::Type::kNvs:
      return "ACPI NVS";
    case FirmwareRange::Type::kUnusable:
      return "unusable";
  }
  return "";
}

std::vector<FirmwareRange> KernelMemoryMap(const MachineSpec& spec) {
  const Layout& layout = GetLayout(spec.layout);
  std::vector<FirmwareRange> map = EditFirmwareRanges(spec.layout, spec.firmware_ranges, ParseBootArguments(spec.command_line).edits);
  std::erase_if(map, [&](const FirmwareRange& r) {
    if (r.type != FirmwareRange::Type::kRam) return r.range.end.raw() > ResourceEnd(layout);
    // With PAE, a range may go on beyond MAX_ARCH_PFN; only frames end there.
    return (layout.kind == LayoutKind::kX86_32Pae ? r.range.start : r.range.end - Bytes(1)).raw() >= layout.max_phys_addr;
  });
  if (!layout.is_x86()) return map;
  map = Retype(map, 0, layout.page_size.bytes().raw(), 1, 2);
  return Retype(map, kBiosStart, kBiosEnd, 1, 0);
}

std::vector<PfnRange> RamFrames(PageSize page_size, absl::Span<const FirmwareRange> map) {
  std::vector<PfnRange> ram;
  for (const FirmwareRange& r : map) {
    if (r.type != FirmwareRange::Type::kRam) continue;
    const Pfn start = page_size.FrameHolding(r.range.start + Bytes(page_size.mask()));
    const Pfn end = page_size.FrameHolding(r.range.end);
    if (start < end) ram.push_back({start, end});
  }
  return ram;
}

static KernelLayoutConfig LayoutConfigOf(const MachineSpec& spec) {
  KernelLayoutConfig config;
  config.kind = spec.layout;
  config.vmsplit = spec.vmsplit;
  config.highmem = spec.highmem;
  config.va_bits = spec.va_bits;
  config.kasan = spec.kasan;
  config.page_size = GetLayout(spec.layout).page_size;
  const BootArguments arguments = ParseBootArguments(spec.command_line);
  if (arguments.vmalloc) config.vmalloc_reserve = Bytes(*arguments.vmalloc + kVmallocOffset);
  if (arguments.highmem) config.highmem_arg = config.page_size.WholePagesIn(Bytes(*arguments.highmem));
  return config;
}

static absl::StatusOr<KernelLayout> LayoutWith(const MachineSpec& spec, const KernelLayoutConfig& config, absl::Span<const PfnRange> ram) {
  PhysAddr image = config.page_size.StartOf(ram.front().start);
  if (!spec.kernel_sections.empty()) image = spec.kernel_sections.front().range.start;
  return ComputeKernelLayout(config, ram, image);
}

absl::StatusOr<KernelLayout> KernelLayoutOf(const MachineSpec& spec, absl::Span<const PfnRange> ram) {
  return LayoutWith(spec, LayoutConfigOf(spec), ram);
}

absl::StatusOr<KernelLayout> BuiltOtherwise(const MachineSpec& spec, uint64_t page_size_bytes, int va_bits) {
  KernelLayoutConfig config = LayoutConfigOf(spec);
  if (spec.layout != LayoutKind::kArm64) {
    return absl::InvalidArgumentError(
        absl::StrCat(page_size_bytes != 0 ? "page_size_bytes" : "va_bits", ": only LAYOUT_ARM64 has a choice"));
  }
  if (page_size_bytes != 0 && page_size_bytes != 4096 && page_size_bytes != 16384 && page_size_bytes != 65536) {
    return absl::InvalidArgumentError("page_size_bytes: must be 4096, 16384 or 65536");
  }
  if (page_size_bytes != 0) config.page_size = PageSize(std::countr_zero(page_size_bytes));
  if (va_bits != 0) config.va_bits = va_bits;
  return LayoutWith(spec, config, RamFrames(config.page_size, KernelMemoryMap(spec)));
}

std::vector<PfnRange> RamBelow(absl::Span<const PfnRange> ram, Pfn end) {
  std::vector<PfnRange> out;
  for (PfnRange range : ram) {
    range.end = std::min(range.end, end);
    if (range.start < range.end) out.push_back(range);
  }
  return out;
}

std::vector<PfnRange> Subtract(absl::Span<const PfnRange> from, absl::Span<const PfnRange> cut) {
  std::vector<PfnRange> out;
  size_t first = 0;
  for (PfnRange range : from) {
    while (first < cut.size() && cut[first].end <= range.start) ++first;
    for (size_t i = first; i < cut.size() && cut[i].start < range.end; ++i) {
      if (range.start < cut[i].start) out.push_back({range.start, cut[i].start});
      range.start = std::min(range.end, std::max(range.start, cut[i].end));
    }
    if (range.start < range.end) out.push_back(range);
  }
  return out;
}

}  // namespace mmlab

#include "server/machine/memory_map.h"

#include <algorithm>
#include <array>
#include <optional>

namespace mmlab {
namespace {

constexpr uint64_t kBiosStart = 0xa0000;  // BIOS_BEGIN: video memory and ROMs up to 1 MiB.
constexpr uint64_t kBiosEnd = 0x100000;
// VMALLOC_END of the i386 kernels recorded, which have CONFIG_HIGHMEM and 32 CPUs; 128 MiB below it (__VMALLOC_RESERVE) lowmem ends.
constexpr uint64_t kVmallocEnd = 0xfebfe000;
constexpr uint64_t kVmallocEndPae = 0xfeffe000;
constexpr uint64_t kVmallocReserve = 128 << 20;
constexpr uint64_t kVmallocOffset = 8 << 20;
constexpr uint64_t kPageOffset = 0xc0000000;
// VMALLOC_END - VMALLOC_START of an ARM64 kernel with 48-bit addresses and 4 KiB pages.
constexpr uint64_t kArm64VmallocTotal = uint64_t{133143592960} << 10;

uint64_t VmallocEnd(const Layout& layout) { return layout.kind == LayoutKind::kX86_32Pae ? kVmallocEndPae : kVmallocEnd; }

void Append(std::vector<FirmwareRange>& out, uint64_t start, uint64_t end, FirmwareRange::Type type) {
  if (start >= end) return;
  if (!out.empty() && out.back().type == type && out.back().range.end == PhysAddr(start)) {
    out.back().range.end = PhysAddr(end);
    return;
  }
  out.push_back({{PhysAddr(start), PhysAddr(end)}, type});
}

// Keeps the RAM of [start, end) from use: as `instead`, or not at all.
std::vector<FirmwareRange> TakeRam(absl::Span<const FirmwareRange> map, uint64_t start, uint64_t end,
                                   std::optional<FirmwareRange::Type> instead) {
  std::vector<FirmwareRange> out;
  for (const FirmwareRange& r : map) {
    const uint64_t from = r.range.start.raw();
    const uint64_t to = r.range.end.raw();
    if (r.type != FirmwareRange::Type::kRam || to <= start || end <= from) {
      Append(out, from, to, r.type);
      continue;
    }
    Append(out, from, std::min(start, to), r.type);
    if (instead) Append(out, std::max(start, from), std::min(end, to), *instead);
    Append(out, std::max(end, from), to, r.type);
  }
  return out;
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

std::vector<FirmwareRange> KernelMemoryMap(const Layout& layout, absl::Span<const FirmwareRange> ranges) {
  std::vector<FirmwareRange> map = SanitizeFirmwareRanges(ranges);
  std::erase_if(map, [&](const FirmwareRange& r) {
    if (r.type == FirmwareRange::Type::kRam) return r.range.end.raw() > layout.max_phys_addr;
    return r.range.end.raw() > ResourceEnd(layout);
  });
  if (!layout.is_x86()) return map;
  map = TakeRam(map, 0, layout.page_size.bytes().raw(), FirmwareRange::Type::kReserved);
  return TakeRam(map, kBiosStart, kBiosEnd, std::nullopt);
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

Pfn MaxLowPfn(const Layout& layout, absl::Span<const PfnRange> ram) {
  const Pfn end = ram.empty() ? Pfn(0) : ram.back().end;
  if (!layout.is_x86()) return end;
  const uint64_t max_memory = VmallocEnd(layout) - kPageOffset - kVmallocReserve;  // MAXMEM
  return std::min(end, layout.page_size.FrameHolding(PhysAddr(max_memory)));
}

Bytes VmallocTotal(const Layout& layout, Pfn max_low_pfn) {
  if (!layout.is_x86()) return Bytes(kArm64VmallocTotal);
  const uint64_t high_memory = kPageOffset + layout.page_size.StartOf(max_low_pfn).raw();
  return Bytes(VmallocEnd(layout) - (high_memory + kVmallocOffset));
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

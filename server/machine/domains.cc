#include "server/machine/domains.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/machine/memory_map.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr uint64_t k4GiB = uint64_t{1} << 32;

// Ranges of the CPU domain that memory chips answer, ascending.
std::vector<PhysRange> ChipRanges(const Machine& machine) {
  std::vector<PhysRange> ranges;
  const std::vector<FirmwareRange> map = SanitizeFirmwareRanges(machine.spec().firmware_ranges);
  if (!machine.layout().is_x86()) {
    for (const FirmwareRange& r : map) {
      if (r.type == FirmwareRange::Type::kRam) ranges.push_back(r.range);
    }
    return ranges;
  }
  uint64_t low = 0;
  for (const FirmwareRange& r : map) {
    const uint64_t start = r.range.start.raw();
    if (r.type == FirmwareRange::Type::kRam && start >= k4GiB) ranges.push_back(r.range);
    if (start >= k4GiB) continue;
    if (r.type == FirmwareRange::Type::kRam || start == low) low = r.range.end.raw();
  }
  if (low != 0) ranges.insert(ranges.begin(), {PhysAddr(0), PhysAddr(low)});
  return ranges;
}

void CollectBuses(const std::vector<IomemResource>& nodes, std::vector<AddressWindow>& out) {
  for (const IomemResource& node : nodes) {
    if (absl::StartsWith(node.name, "PCI Bus ") || absl::StartsWith(node.name, "pcie@")) {
      out.push_back({AddressDomain::kPci, node.name, {node.start, node.last + Bytes(1)}, node.start.raw()});
    } else {
      CollectBuses(node.children, out);
    }
  }
}

}  // namespace

AddressDomains DomainsOf(const Machine& machine) {
  std::vector<AddressWindow> buses;
  CollectBuses(machine.spec().iomem_resources, buses);
  std::sort(buses.begin(), buses.end(), [](const AddressWindow& a, const AddressWindow& b) { return a.cpu.start < b.cpu.start; });
  std::vector<AddressWindow> windows;
  PhysAddr claimed(0);
  for (AddressWindow& bus : buses) {
    if (bus.cpu.start < claimed) continue;
    claimed = bus.cpu.end;
    windows.push_back(std::move(bus));
  }
  const size_t bus_count = windows.size();
  uint64_t offset = 0;
  for (const PhysRange chips : ChipRanges(machine)) {
    PhysRange left = chips;
    const auto add = [&](PhysAddr end) {
      if (left.start < end) windows.push_back({AddressDomain::kDram, "RAM", {left.start, end}, offset + (left.start - chips.start).raw()});
    };
    for (size_t i = 0; i < bus_count; ++i) {
      const PhysRange bus = windows[i].cpu;
      if (!bus.Overlaps(left)) continue;
      add(std::max(bus.start, left.start));
      left.start = std::min(bus.end, left.end);
    }
    add(left.end);
    offset += chips.length().raw();
  }
  return AddressDomains(std::move(windows));
}

DmaMaskEffect EffectOfDmaMask(const Machine& machine, int bits) {
  const PageSize page_size = machine.layout().page_size;
  const uint64_t limit = bits >= 64 ? ~uint64_t{0} : uint64_t{1} << bits;
  DmaMaskEffect effect{bits, Bytes(0), {}, {}};
  bool all = true;
  for (const FirmwareRange& r : KernelMemoryMap(machine.spec())) {
    if (r.type != FirmwareRange::Type::kRam) continue;
    const uint64_t end = std::min(r.range.end.raw(), limit);
    if (end > r.range.start.raw()) effect.reachable += Bytes(end - r.range.start.raw());
    all = all && r.range.end.raw() <= limit;
  }
  for (const Zone& zone : machine.memory().zones()) {
    if (zone.populated() && page_size.StartOf(Pfn(zone.end_pfn())).raw() <= limit) effect.zones.emplace_back(zone.name());
  }
  const int dma_bits = machine.layout().is_x86() ? 24 : 32;  // zone_dma_bits
  if (all) {
    effect.advice = "reaches all RAM: any page will do";
  } else if (effect.zones.empty()) {
    effect.advice = "no zone lies below it: allocations fail unless a page of DMA happens to lie low enough";
  } else {
    effect.advice = absl::StrCat(bits <= dma_bits            ? "GFP_DMA"
                                 : machine.layout().is_x86() ? "GFP_KERNEL (lowmem)"
                                                             : "GFP_DMA32",
                                 ": pages of ", absl::StrJoin(effect.zones, ", "), "; others go through bounce buffers (software IO TLB)");
  }
  return effect;
}

}  // namespace mmlab

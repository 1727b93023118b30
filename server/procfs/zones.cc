#include "server/procfs/zones.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "server/machine/machine.h"
#include "server/physical/fragmentation.h"
#include "server/physical/page_allocator.h"
#include "server/procfs/text.h"
#include "server/reclaim/reclaim.h"

namespace mmlab {
namespace {

uint8_t Availability(const Machine& machine) { return machine.layout().is_x86() ? kStatOnX86 : kStatOnArm64; }

// Calls visit(item) for each item of an enumeration that this machine's kernel has.
template <typename Item, typename Visit>
void ForEachItem(int count, uint8_t where, Visit visit) {
  for (int i = 0; i < count; ++i) {
    const auto item = static_cast<Item>(i);
    if ((StatAvailabilityOf(item) & where) != 0) visit(item);
  }
}

void AppendZoneHead(std::string& out, const Zone& zone) {  // The kernel numbers nodes; there is one.
  out += "Node 0, zone ";
  AppendRight(out, zone.name(), 8);
}

void AppendStatLine(std::string& out, absl::string_view name, uint64_t value) {
  out += "\n      ";
  AppendLeft(out, name, 12);
  out.push_back(' ');
  AppendDecimal(out, static_cast<int64_t>(value), 0);
}

void AppendField(std::string& out, absl::string_view label, uint64_t value) {
  AppendText(out, label);
  AppendDecimal(out, static_cast<int64_t>(value), 0);
}

void AppendZone(std::string& out, const Machine& machine, const Zone& zone, bool first_populated) {
  const uint8_t where = Availability(machine);
  const VmStat& stat = machine.vm_stat();
  AppendZoneHead(out, zone);
  if (first_populated) {
    out += "\n  per-node stats";
    ForEachItem<NodeStat>(kNodeStats, where,
                          [&](NodeStat item) { AppendStatLine(out, StatName(item), ShownStat(machine.layout(), stat, item)); });
  }
  AppendField(out, "\n  pages free     ", zone.free_pages());
  AppendField(out, "\n        boost    ", zone.watermark_boost);
  AppendField(out, "\n        min      ", zone.wmark_min + zone.watermark_boost);
  AppendField(out, "\n        low      ", zone.wmark_low + zone.watermark_boost);
  AppendField(out, "\n        high     ", zone.wmark_high + zone.watermark_boost);
  AppendField(out, "\n        spanned  ", zone.spanned);
  AppendField(out, "\n        present  ", zone.present);
  AppendField(out, "\n        managed  ", zone.managed);
  AppendField(out, "\n        cma      ", zone.cma_pages);
  out += "\n        protection: (";
  for (size_t i = 0; i < zone.lowmem_reserve.size(); ++i) AppendField(out, i == 0 ? "" : ", ", zone.lowmem_reserve[i]);
  out.push_back(')');
  if (!zone.populated()) {
    out.push_back('\n');
    return;
  }
  ForEachItem<ZoneStat>(kZoneStats, where, [&](ZoneStat item) { AppendStatLine(out, StatName(item), zone.stat(item)); });
  ForEachItem<NumaStat>(kNumaStats, where, [&](NumaStat item) { AppendStatLine(out, StatName(item), zone.stat(item)); });
  out += "\n  pagesets";
  for (size_t cpu = 0; cpu < zone.pcp.size(); ++cpu) {
    AppendField(out, "\n    cpu: ", cpu);
    AppendField(out, "\n              count: ", zone.pcp[cpu].count);
    AppendField(out, "\n              high:  ", zone.pcp[cpu].high);
    AppendField(out, "\n              batch: ", zone.pcp[cpu].batch);
    AppendField(out, "\n  vm stats threshold: ", static_cast<uint64_t>(zone.stat_threshold));
  }
  AppendField(out, "\n  node_unreclaimable:  ", machine.reclaim().hopeless() ? 1 : 0);
  AppendField(out, "\n  start_pfn:           ", zone.start_pfn);
  out.push_back('\n');
}

}  // namespace

std::string ZoneinfoText(const Machine& machine) {
  std::string out;
  out.reserve(8192);
  bool first = true;
  for (const Zone& zone : machine.memory().zones()) {
    AppendZone(out, machine, zone, first && zone.populated());
    first = first && !zone.populated();
  }
  return out;
}

std::string BuddyinfoText(const Machine& machine) {
  std::string out;
  out.reserve(512);
  for (const Zone& zone : machine.memory().zones()) {
    if (!zone.populated()) continue;
    AppendZoneHead(out, zone);
    out.push_back(' ');
    for (const FreeArea& area : zone.free_area) {
      AppendDecimal(out, area.nr_free, 6);
      out.push_back(' ');
    }
    out.push_back('\n');
  }
  return out;
}

namespace {

// Thousandths as the kernel prints them: "%*d.%03d" of the whole part and the rest, each with its own sign.
void AppendThousandths(std::string& out, int64_t value, size_t width) {
  AppendDecimal(out, value / 1000, width);
  const int64_t rest = value % 1000;
  out += rest < 0 ? ".-" : ".";
  const std::string digits = absl::StrCat(rest < 0 ? -rest : rest);
  const size_t least = rest < 0 ? 2 : 3;
  if (digits.size() < least) out.append(least - digits.size(), '0');
  out += digits;
}

std::string IndexText(const Machine& machine, int64_t (*index_of)(absl::Span<const uint64_t> free_blocks, int order), size_t width) {
  std::string out;
  for (const Zone& zone : machine.memory().zones()) {
    if (!zone.populated()) continue;
    std::array<uint64_t, kOrders> free_blocks{};
    for (size_t order = 0; order < free_blocks.size(); ++order) free_blocks[order] = zone.free_area[order].nr_free;
    AppendZoneHead(out, zone);
    out.push_back(' ');
    for (int order = 0; order < kOrders; ++order) {
      AppendThousandths(out, index_of(free_blocks, order), width);
      out.push_back(' ');
    }
    out.push_back('\n');
  }
  return out;
}

}  // namespace

std::string UnusableIndexText(const Machine& machine) { return IndexText(machine, UnusableIndex, 0); }
std::string ExtfragIndexText(const Machine& machine) { return IndexText(machine, FragmentationIndex, 2); }

std::string PagetypeinfoText(const Machine& machine) {
  constexpr uint32_t kMostCounted = 100000;  // The kernel stops counting a list here.
  const bool has_cma = !machine.layout().is_x86();
  const auto has = [&](int type) { return type != kMigrateCma || has_cma; };
  std::string out;
  out.reserve(4096);
  const int order = machine.memory().pageblock_order();
  AppendField(out, "Page block order: ", static_cast<uint64_t>(order));
  AppendField(out, "\nPages per block:  ", uint64_t{1} << order);
  out += "\n\n";
  AppendLeft(out, "Free pages count per migrate type at order", 43);
  out.push_back(' ');
  for (int i = 0; i < kOrders; ++i) {
    AppendDecimal(out, i, 6);
    out.push_back(' ');
  }
  out.push_back('\n');
  for (const Zone& zone : machine.memory().zones()) {
    if (!zone.populated()) continue;
    for (int type = 0; type < kMigrateTypes; ++type) {
      if (!has(type)) continue;
      out += "Node    0, zone ";
      AppendRight(out, zone.name(), 8);
      out += ", type ";
      AppendRight(out, MigrateTypeName(type), 12);
      out.push_back(' ');
      for (const FreeArea& area : zone.free_area) {
        const uint32_t count = area.lists[static_cast<size_t>(type)].count;
        if (count >= kMostCounted) out.push_back('>');
        AppendDecimal(out, std::min(count, kMostCounted), 6);
        out.push_back(' ');
      }
      out.push_back('\n');
    }
  }
  out.push_back('\n');
  AppendLeft(out, "Number of blocks type ", 23);
  for (int type = 0; type < kMigrateTypes; ++type) {
    if (!has(type)) continue;
    AppendRight(out, MigrateTypeName(type), 12);
    out.push_back(' ');
  }
  out.push_back('\n');
  for (const Zone& zone : machine.memory().zones()) {
    if (!zone.populated()) continue;
    AppendZoneHead(out, zone);
    out.push_back(' ');
    const std::array<uint32_t, kMigrateTypes> counts = machine.memory().PageblockCounts(zone);
    for (int type = 0; type < kMigrateTypes; ++type) {
      if (!has(type)) continue;
      AppendDecimal(out, counts[static_cast<size_t>(type)], 12);
      out.push_back(' ');
    }
    out.push_back('\n');
  }
  return out;
}

uint64_t ShownStat(const Layout& layout, const VmStat& stat, NodeStat item) {
  const auto pages = static_cast<uint64_t>(stat.Get(item));
  switch (item) {
    case NodeStat::kNrAnonTransparentHugepages:
    case NodeStat::kNrFileHugepages:
    case NodeStat::kNrShmemHugepages:
    case NodeStat::kNrShmemPmdmapped:
    case NodeStat::kNrFilePmdmapped:
      return pages >> layout.pageblock_order;  // A page block is as large as a huge page.
    default:
      return pages;
  }
}

std::vector<VmstatField> VmstatFields(const Machine& machine) {
  const uint8_t where = Availability(machine);
  const VmStat& stat = machine.vm_stat();
  std::vector<VmstatField> fields;
  fields.reserve(kZoneStats + kNumaStats + kNodeStats + kVmEvents + 3);
  ForEachItem<ZoneStat>(kZoneStats, where, [&](ZoneStat item) {
    uint64_t sum = 0;
    for (const Zone& zone : machine.memory().zones()) sum += zone.stat(item);
    fields.push_back({StatName(item), sum});
  });
  ForEachItem<NumaStat>(kNumaStats, where, [&](NumaStat item) {
    uint64_t sum = 0;
    for (const Zone& zone : machine.memory().zones()) sum += zone.stat(item);
    fields.push_back({StatName(item), sum});
  });
  ForEachItem<NodeStat>(kNodeStats, where, [&](NodeStat item) {
    fields.push_back({StatName(item), ShownStat(machine.layout(), stat, item)});
  });
  const DirtyLimits dirty = machine.dirty_limits();
  fields.push_back({"nr_dirty_threshold", dirty.threshold});
  fields.push_back({"nr_dirty_background_threshold", dirty.background});
  ForEachItem<VmEvent>(kVmEvents, where, [&](VmEvent item) { fields.push_back({StatName(item), stat.Get(item)}); });
  fields.push_back({"nr_unstable", 0});  // Kept by the kernel for old readers.
  return fields;
}

std::string VmstatText(const Machine& machine) {
  std::string out;
  out.reserve(4096);
  for (const VmstatField& field : VmstatFields(machine)) {
    AppendText(out, field.name);
    out.push_back(' ');
    AppendDecimal(out, static_cast<int64_t>(field.value), 0);
    out.push_back('\n');
  }
  return out;
}

}  // namespace mmlab

// node_exporter's collector zoneinfo: names, types and HELP of its release 1.5.0.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/metrics/collector.h"
#include "server/procfs/zones.h"

namespace mmlab {
namespace {

using prometheus::MetricFamily;

struct NodeMetric {
  NodeStat item;
  const char* name;
  const char* help;
};

struct NumaMetric {
  NumaStat item;
  const char* name;
  const char* help;
};

// The node's statistics, which the kernel prints once, under the node's first populated zone.
constexpr NodeMetric kNodeGauges[] = {
    {NodeStat::kNrActiveAnon, "node_zoneinfo_nr_active_anon_pages", "Number of anonymous pages recently more used"},
    {NodeStat::kNrInactiveAnon, "node_zoneinfo_nr_inactive_anon_pages", "Number of anonymous pages recently less used"},
    {NodeStat::kNrActiveFile, "node_zoneinfo_nr_active_file_pages", "Number of active pages with file-backing"},
    {NodeStat::kNrInactiveFile, "node_zoneinfo_nr_inactive_file_pages", "Number of inactive pages with file-backing"},
    {NodeStat::kNrIsolatedAnon, "node_zoneinfo_nr_isolated_anon_pages", "Temporary isolated pages from anon lru"},
    {NodeStat::kNrIsolatedFile, "node_zoneinfo_nr_isolated_file_pages", "Temporary isolated pages from file lru"},
    {NodeStat::kNrUnevictable, "node_zoneinfo_nr_unevictable_pages", "Number of unevictable pages"},
    {NodeStat::kNrAnonPages, "node_zoneinfo_nr_anon_pages", "Number of anonymous pages currently used by the system"},
    {NodeStat::kNrAnonTransparentHugepages, "node_zoneinfo_nr_anon_transparent_hugepages",
     "Number of anonymous transparent huge pages currently used by the system"},
    {NodeStat::kNrFilePages, "node_zoneinfo_nr_file_pages", "Number of file pages"},
    {NodeStat::kNrMapped, "node_zoneinfo_nr_mapped_pages", "Number of mapped pages"},
    {NodeStat::kNrShmem, "node_zoneinfo_nr_shmem_pages", "Number of shmem pages (included tmpfs/GEM pages)"},
    {NodeStat::kNrDirty, "node_zoneinfo_nr_dirty_pages", "Number of dirty pages"},
    {NodeStat::kNrWriteback, "node_zoneinfo_nr_writeback_pages", "Number of writeback pages"},
    {NodeStat::kNrSlabReclaimable, "node_zoneinfo_nr_slab_reclaimable_pages", "Number of reclaimable slab pages"},
    {NodeStat::kNrSlabUnreclaimable, "node_zoneinfo_nr_slab_unreclaimable_pages", "Number of unreclaimable slab pages"},
    {NodeStat::kNrKernelStack, "node_zoneinfo_nr_kernel_stacks", "Number of kernel stacks"},
};
constexpr NodeMetric kNodeCounters[] = {
    {NodeStat::kNrDirtied, "node_zoneinfo_nr_dirtied_total", "Page dirtyings since bootup"},
    {NodeStat::kNrWritten, "node_zoneinfo_nr_written_total", "Page writings since bootup"},
};

constexpr NumaMetric kNumaCounters[] = {
    {NumaStat::kNumaHit, "node_zoneinfo_numa_hit_total", "Allocated in intended node"},
    {NumaStat::kNumaMiss, "node_zoneinfo_numa_miss_total", "Allocated in non intended node"},
    {NumaStat::kNumaForeign, "node_zoneinfo_numa_foreign_total", "Was intended here, hit elsewhere"},
    {NumaStat::kNumaInterleave, "node_zoneinfo_numa_interleave_total", "Interleaver preferred this zone"},
    {NumaStat::kNumaLocal, "node_zoneinfo_numa_local_total", "Allocation from local node"},
    {NumaStat::kNumaOther, "node_zoneinfo_numa_other_total", "Allocation from other node"},
};

void AddZoneSample(MetricFamily& family, const Zone& zone, double value) {
  AddSample(family, {{"node", "0"}, {"zone", zone.name()}}, value);
}

// One gauge for all zones, or for those with RAM.
template <typename Value>
MetricFamily ZoneGauge(const MachineSnapshot& snapshot, absl::string_view name, absl::string_view help, bool only_populated, Value value) {
  MetricFamily family = GaugeFamily(name, help);
  family.metric.reserve(snapshot.zones.size());
  for (const Zone& zone : snapshot.zones) {
    if (zone.populated() || !only_populated) AddZoneSample(family, zone, static_cast<double>(value(zone)));
  }
  return family;
}

void AddZoneGauges(const MachineSnapshot& snapshot, Families& families) {
  const auto add = [&](const char* name, const char* help, auto value) {
    families.push_back(ZoneGauge(snapshot, name, help, /*only_populated=*/false, value));
  };
  families.push_back(ZoneGauge(snapshot, "node_zoneinfo_nr_free_pages", "Total number of free pages in the zone", /*only_populated=*/true,
                               [](const Zone& zone) { return zone.free_pages(); }));
  // The kernel prints the marks as they are checked, with the boost.
  add("node_zoneinfo_min_pages", "Zone watermark pages_min", [](const Zone& zone) { return zone.wmark_min + zone.watermark_boost; });
  add("node_zoneinfo_low_pages", "Zone watermark pages_low", [](const Zone& zone) { return zone.wmark_low + zone.watermark_boost; });
  add("node_zoneinfo_high_pages", "Zone watermark pages_high", [](const Zone& zone) { return zone.wmark_high + zone.watermark_boost; });
  add("node_zoneinfo_spanned_pages", "Total pages spanned by the zone, including holes", [](const Zone& zone) { return zone.spanned; });
  add("node_zoneinfo_present_pages", "Physical pages existing within the zone", [](const Zone& zone) { return zone.present; });
  add("node_zoneinfo_managed_pages", "Present pages managed by the buddy system", [](const Zone& zone) { return zone.managed; });
  for (size_t i = 0; i < snapshot.zones.size(); ++i) {
    families.push_back(ZoneGauge(snapshot, absl::StrCat("node_zoneinfo_protection_", i), absl::StrCat("Protection array ", i, ". field"),
                                 /*only_populated=*/false, [i](const Zone& zone) { return zone.lowmem_reserve[i]; }));
  }
}

void AddNodeStats(const MachineSnapshot& snapshot, const Zone& first, Families& families) {
  for (const NodeMetric& metric : kNodeGauges) {
    MetricFamily family = GaugeFamily(metric.name, metric.help);
    AddZoneSample(family, first, static_cast<double>(ShownStat(*snapshot.layout, snapshot.vm_stat, metric.item)));
    families.push_back(std::move(family));
  }
  for (const NodeMetric& metric : kNodeCounters) {
    MetricFamily family = CounterFamily(metric.name, metric.help);
    AddZoneSample(family, first, static_cast<double>(ShownStat(*snapshot.layout, snapshot.vm_stat, metric.item)));
    families.push_back(std::move(family));
  }
}

void AddNumaStats(const std::vector<const Zone*>& zones, Families& families) {
  for (const NumaMetric& metric : kNumaCounters) {
    MetricFamily family = CounterFamily(metric.name, metric.help);
    for (const Zone* zone : zones) AddZoneSample(family, *zone, static_cast<double>(zone->stat(metric.item)));
    families.push_back(std::move(family));
  }
}

}  // namespace

Families CollectZoneinfo(const MachineSnapshot& snapshot) {
  Families families;
  AddZoneGauges(snapshot, families);
  std::vector<const Zone*> populated;
  for (const Zone& zone : snapshot.zones) {
    if (zone.populated()) populated.push_back(&zone);
  }
  if (!populated.empty()) AddNodeStats(snapshot, *populated[0], families);
  if (snapshot.has_numa) AddNumaStats(populated, families);
  return families;
}

}  // namespace mmlab

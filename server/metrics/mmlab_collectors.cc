// mmlab_*: what no exporter has. The labels node, zone and size mean the same as in node_buddyinfo_blocks.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/metrics/collector.h"
#include "server/physical/fragmentation.h"

namespace mmlab {
namespace {

void AddFragmentation(const MachineSnapshot& snapshot, Families& families) {
  auto unusable = GaugeFamily("mmlab_zone_unusable_index", "Part of the free memory that lies in blocks too small for an order, 0..1.");
  auto extfrag = GaugeFamily(
      "mmlab_zone_extfrag_index",
      "Fragmentation index of an order: -1 when an allocation would succeed, else towards 0 lack of memory, towards 1 fragmentation.");
  unusable.metric.reserve(snapshot.zones.size() * kOrders);
  extfrag.metric.reserve(snapshot.zones.size() * kOrders);
  for (const Zone& zone : snapshot.zones) {
    if (!zone.populated()) continue;
    std::vector<uint64_t> free_blocks;
    for (const FreeArea& area : zone.free_area) free_blocks.push_back(area.nr_free);
    for (int order = 0; order < kOrders; ++order) {
      const std::string size = absl::StrCat(order);
      AddSample(unusable, {{"node", "0"}, {"size", size}, {"zone", zone.name()}},
                static_cast<double>(UnusableIndex(free_blocks, order)) / 1000);
      AddSample(extfrag, {{"node", "0"}, {"size", size}, {"zone", zone.name()}},
                static_cast<double>(FragmentationIndex(free_blocks, order)) / 1000);
    }
  }
  families.push_back(std::move(unusable));
  families.push_back(std::move(extfrag));
}

void AddZones(const MachineSnapshot& snapshot, Families& families) {
  auto boost = GaugeFamily("mmlab_zone_watermark_boost_pages", "Pages by which the zone's watermarks are raised for now.");
  auto pcp = GaugeFamily("mmlab_zone_pcp_pages", "Free pages that a CPU keeps to itself.");
  for (const Zone& zone : snapshot.zones) {
    if (!zone.populated()) continue;
    AddSample(boost, {{"node", "0"}, {"zone", zone.name()}}, static_cast<double>(zone.watermark_boost));
    for (size_t cpu = 0; cpu < zone.pcp.size(); ++cpu) {
      AddSample(pcp, {{"cpu", absl::StrCat(cpu)}, {"node", "0"}, {"zone", zone.name()}}, zone.pcp[cpu].count);
    }
  }
  families.push_back(std::move(boost));
  families.push_back(std::move(pcp));
}

}  // namespace

Families CollectMmlab(const MachineSnapshot& snapshot) {
  Families families;
  auto info = GaugeFamily("mmlab_machine_info", "Constant 1, labelled with what the machine was configured as.");
  AddSample(info,
            {{"arch", snapshot.layout->arch_label},
             {"kernel", snapshot.kernel_release},
             {"page_size", absl::StrCat(snapshot.layout->page_size.bytes().raw())},
             {"preset", snapshot.preset},
             {"slab", snapshot.slab}},
            1);
  families.push_back(std::move(info));
  AddFragmentation(snapshot, families);
  AddZones(snapshot, families);
  auto page_tables = GaugeFamily("mmlab_page_table_pages", "Page-table pages of processes, by level.");
  for (const auto& [level, pages] : snapshot.page_tables) AddSample(page_tables, {{"level", level}}, static_cast<double>(pages));
  families.push_back(std::move(page_tables));
  families.push_back(Gauge("mmlab_vmalloc_areas", "Areas of the kernel's vmalloc space, as lines of /proc/vmallocinfo.",
                           static_cast<double>(snapshot.vmalloc_areas)));
  families.push_back(Gauge("mmlab_vmas", "Virtual memory areas of all processes.", static_cast<double>(snapshot.vma_count)));
  families.push_back(Counter("mmlab_operations_applied_total", "Operations that this machine has executed since its boot.",
                             static_cast<double>(snapshot.operations_applied)));
  return families;
}

Families CollectPagetypeinfo(const MachineSnapshot& snapshot) {
  auto blocks = GaugeFamily("mmlab_pagetypeinfo_blocks", "Count of free blocks according to migrate type and size.");
  auto pageblocks = GaugeFamily("mmlab_pagetypeinfo_pageblocks", "Page blocks of a migrate type.");
  for (size_t i = 0; i < snapshot.zones.size(); ++i) {
    const Zone& zone = snapshot.zones[i];
    if (!zone.populated()) continue;
    for (int type = 0; type < kMigrateTypes; ++type) {
      if (type == kMigrateCma && !snapshot.has_cma) continue;  // The kernel does not know it.
      const absl::string_view type_name = MigrateTypeName(type);
      const absl::string_view zone_name = zone.name();
      for (int order = 0; order < kOrders; ++order) {
        AddSample(blocks, {{"migratetype", type_name}, {"node", "0"}, {"size", absl::StrCat(order)}, {"zone", zone_name}},
                  zone.free_area[static_cast<size_t>(order)].lists[static_cast<size_t>(type)].count);
      }
      AddSample(pageblocks, {{"migratetype", type_name}, {"node", "0"}, {"zone", zone_name}},
                snapshot.pageblocks[i][static_cast<size_t>(type)]);
    }
  }
  Families families;
  families.push_back(std::move(blocks));
  families.push_back(std::move(pageblocks));
  return families;
}

}  // namespace mmlab

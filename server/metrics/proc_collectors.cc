// node_exporter's collectors meminfo, vmstat and buddyinfo: names, types and HELP of its release 1.5.0.
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/metrics/collector.h"

namespace mmlab {
namespace {

// "Active(anon)" is Active_anon.
void SetMeminfoName(const MeminfoField& field, std::string& name) {
  name.clear();
  for (const char c : field.name) {
    if (c == ')') continue;
    name += c == '(' ? '_' : c;
  }
}

double MeminfoValue(const MeminfoField& field) { return static_cast<double>(field.kilobytes ? field.value * 1024 : field.value); }

prometheus::MetricFamily VmstatFamily(const VmstatField& field) {
  return Untyped(absl::StrCat("node_vmstat_", field.name), absl::StrCat("/proc/vmstat information field ", field.name, "."),
                 static_cast<double>(field.value));
}

// node_exporter's default: ^(oom_kill|pgpg|pswp|pg.*fault).*
bool IsDefaultVmstatField(absl::string_view name) {
  return absl::StartsWith(name, "oom_kill") || absl::StartsWith(name, "pgpg") || absl::StartsWith(name, "pswp") ||
         (absl::StartsWith(name, "pg") && absl::StrContains(name, "fault"));
}

}  // namespace

Families CollectMeminfo(const MachineSnapshot& snapshot) {
  Families families;
  families.reserve(snapshot.meminfo.size());
  std::string field_name, name, help;
  for (const MeminfoField& field : snapshot.meminfo) {
    SetMeminfoName(field, field_name);
    if (field.kilobytes) field_name += "_bytes";
    name = "node_memory_";
    name += field_name;
    help = "Memory information field ";
    help += field_name;
    help += '.';
    families.push_back(Gauge(name, help, MeminfoValue(field)));
  }
  return families;
}

// node_exporter gives these no suffix.
Families CollectMeminfoNuma(const MachineSnapshot& snapshot) {
  Families families;
  const auto add = [&](prometheus::MetricFamily family, double value) {
    AddSample(family, {{"node", "0"}}, value);
    families.push_back(std::move(family));
  };
  std::string field_name;
  for (const MeminfoField& field : snapshot.node_meminfo) {
    SetMeminfoName(field, field_name);
    add(GaugeFamily(absl::StrCat("node_memory_numa_", field_name), absl::StrCat("Memory information field ", field_name, ".")),
        MeminfoValue(field));
  }
  for (const auto& [field, value] : snapshot.numastat) {
    const std::string name = absl::StrCat(field, "_total");
    add(CounterFamily(absl::StrCat("node_memory_numa_", name), absl::StrCat("Memory information field ", name, ".")),
        static_cast<double>(value));
  }
  return families;
}

Families CollectVmstat(const MachineSnapshot& snapshot) {
  Families families;
  for (const VmstatField& field : snapshot.vmstat) {
    if (IsDefaultVmstatField(field.name)) families.push_back(VmstatFamily(field));
  }
  return families;
}

Families CollectVmstatAll(const MachineSnapshot& snapshot) {
  Families families;
  for (const VmstatField& field : snapshot.vmstat) families.push_back(VmstatFamily(field));
  return families;
}

Families CollectBuddyinfo(const MachineSnapshot& snapshot) {
  auto blocks = GaugeFamily("node_buddyinfo_blocks", "Count of free blocks according to size.");
  blocks.metric.reserve(snapshot.zones.size() * kOrders);
  for (const Zone& zone : snapshot.zones) {
    if (!zone.populated()) continue;
    for (int order = 0; order < kOrders; ++order) {
      AddSample(blocks, {{"node", "0"}, {"size", absl::StrCat(order)}, {"zone", zone.name()}},
                zone.free_area[static_cast<size_t>(order)].nr_free);
    }
  }
  Families families;
  families.push_back(std::move(blocks));
  return families;
}

}  // namespace mmlab

#include "server/procfs/node_files.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/physical/vm_stat.h"
#include "server/procfs/text.h"

namespace mmlab {
namespace {

// Those that the node has in common with the machine, which has no other.
constexpr absl::string_view kFields[] = {
    "MemTotal",       "MemFree",        "MemUsed",       "SwapCached",      "Active",         "Inactive",
    "Active(anon)",   "Inactive(anon)", "Active(file)",  "Inactive(file)",  "Unevictable",    "Mlocked",
    "Dirty",          "Writeback",      "FilePages",     "Mapped",          "AnonPages",      "Shmem",
    "KernelStack",    "PageTables",     "SecPageTables", "NFS_Unstable",    "Bounce",         "WritebackTmp",
    "KReclaimable",   "Slab",           "SReclaimable",  "SUnreclaim",      "AnonHugePages",  "ShmemHugePages",
    "ShmemPmdMapped", "FileHugePages",  "FilePmdMapped", "HugePages_Total", "HugePages_Free", "HugePages_Surp"};

}  // namespace

std::vector<MeminfoField> NodeMeminfoFields(const Machine& machine) {
  const std::vector<MeminfoField> all = MeminfoFields(machine);
  const auto find = [&](absl::string_view name) {
    return std::find_if(all.begin(), all.end(), [&](const MeminfoField& field) { return field.name == name; });
  };
  std::vector<MeminfoField> fields;
  for (const absl::string_view name : kFields) {
    if (name == "MemUsed") {
      fields.push_back({name, find("MemTotal")->value - find("MemFree")->value, true});
    } else if (name == "FilePages") {
      const auto pages = static_cast<uint64_t>(machine.vm_stat().Get(NodeStat::kNrFilePages));
      fields.push_back({name, machine.layout().page_size.BytesOf(PageCount(pages)).raw() >> 10, true});
    } else if (const auto field = find(name); field != all.end()) {
      fields.push_back(*field);
    }
  }
  return fields;
}

std::string NodeMeminfoText(const Machine& machine) {
  std::string out;
  for (const MeminfoField& field : NodeMeminfoFields(machine)) {
    const std::string label = absl::StrCat(field.name, ":");
    // The kernel's columns are one off for huge pages of files.
    const size_t column = absl::StartsWith(field.name, "File") && field.name != "FilePages" ? 15 : 16;
    absl::StrAppend(&out, "Node 0 ", label, std::string(label.size() < column ? column - label.size() : 0, ' '));
    AppendDecimal(out, static_cast<int64_t>(field.value), field.kilobytes ? 8 : 6);
    out += field.kilobytes ? " kB\n" : "\n";
  }
  return out;
}

NumastatFields NodeNumastatFields(const Machine& machine) {
  NumastatFields fields = {
      {{"numa_hit", 0}, {"numa_miss", 0}, {"numa_foreign", 0}, {"interleave_hit", 0}, {"local_node", 0}, {"other_node", 0}}};
  for (const Zone& zone : machine.memory().zones()) {
    for (size_t i = 0; i < fields.size(); ++i) fields[i].second += zone.stat(static_cast<NumaStat>(i));
  }
  return fields;
}

std::string NodeNumastatText(const Machine& machine) {
  std::string out;
  for (const auto& [name, value] : NodeNumastatFields(machine)) absl::StrAppend(&out, name, " ", value, "\n");
  return out;
}

}  // namespace mmlab

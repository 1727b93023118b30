#include "server/procfs/iomem.h"

#include <algorithm>
#include <utility>

#include "server/machine/machine.h"
#include "server/machine/memory_map.h"
#include "server/procfs/text.h"

namespace mmlab {
namespace {

constexpr int kMaxLevel = 5;  // MAX_IORES_LEVEL: deeper ones are not indented further.

absl::string_view FirmwareName(FirmwareRange::Type type) {
  switch (type) {
    case FirmwareRange::Type::kRam:
      return "System RAM";
    case FirmwareRange::Type::kReserved:
      return "Reserved";
    case FirmwareRange::Type::kAcpi:
      return "ACPI Tables";
    case FirmwareRange::Type::kNvs:
      return "ACPI Non-volatile Storage";
    case FirmwareRange::Type::kUnusable:
      return "Unusable memory";
  }
  return "";
}

void Insert(std::vector<IomemResource>& siblings, IomemResource node) {
  for (IomemResource& other : siblings) {
    if (other.start <= node.start && node.last <= other.last) {
      Insert(other.children, std::move(node));
      return;
    }
  }
  std::vector<IomemResource> inside;
  std::vector<IomemResource> beside;
  for (IomemResource& other : siblings) {
    if (other.last < node.start || node.last < other.start) {
      beside.push_back(std::move(other));
    } else if (node.start <= other.start && other.last <= node.last) {
      inside.push_back(std::move(other));
    } else {
      // It would cut `other`. Nothing of this node; what was moved goes back to its place.
      for (IomemResource& moved : inside) beside.push_back(std::move(moved));
      beside.insert(beside.end(), std::make_move_iterator(&other), std::make_move_iterator(siblings.data() + siblings.size()));
      siblings = std::move(beside);
      std::sort(siblings.begin(), siblings.end(), [](const IomemResource& a, const IomemResource& b) { return a.start < b.start; });
      return;
    }
  }
  std::vector<IomemResource> own = std::move(node.children);
  node.children = std::move(inside);
  for (IomemResource& child : own) Insert(node.children, std::move(child));
  beside.push_back(std::move(node));
  std::sort(beside.begin(), beside.end(), [](const IomemResource& a, const IomemResource& b) { return a.start < b.start; });
  siblings = std::move(beside);
}

void Append(std::string& out, const std::vector<IomemResource>& nodes, int level) {
  for (const IomemResource& node : nodes) {
    out.append(2 * static_cast<size_t>(std::min(level, kMaxLevel)), ' ');
    AppendHex(out, node.start.raw(), 8);
    out.push_back('-');
    AppendHex(out, node.last.raw(), 8);
    out += " : ";
    out += node.name;
    out.push_back('\n');
    Append(out, node.children, level + 1);
  }
}

}  // namespace

std::vector<IomemResource> IomemTree(const Machine& machine) {
  const MachineSpec& spec = machine.spec();
  std::vector<IomemResource> tree;
  const auto last = [](PhysRange range) { return PhysAddr(range.end.raw() - 1); };
  for (FirmwareRange r : KernelMemoryMap(spec)) {
    // arm64_memblock_init() takes away what the linear map cannot hold.
    if (!machine.layout().is_x86() && r.type == FirmwareRange::Type::kRam) {
      r.range.end = std::min(r.range.end, machine.layout().page_size.StartOf(machine.kernel_layout().max_pfn));
      if (r.range.start >= r.range.end) continue;
    }
    Insert(tree, {r.range.start, last(r.range), std::string(FirmwareName(r.type)), {}});
  }
  for (const NamedRange& section : spec.kernel_sections) Insert(tree, {section.range.start, last(section.range), section.name, {}});
  for (const IomemResource& device : spec.iomem_resources) {
    if (device.last.raw() < ResourceEnd(machine.layout())) Insert(tree, device);
  }
  return tree;
}

std::string IomemText(const Machine& machine) {
  std::string out;
  Append(out, IomemTree(machine), 0);
  return out;
}

}  // namespace mmlab

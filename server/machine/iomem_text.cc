#include "server/machine/iomem_text.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

constexpr size_t kMaxLines = 4096;
constexpr size_t kMaxLevel = 16;
constexpr size_t kMaxName = 256;

absl::Status Error(absl::string_view rule) { return absl::InvalidArgumentError(absl::StrCat("spec.iomem_text: ", rule)); }

bool ParseHex(absl::string_view text, uint64_t* value) {
  return !text.empty() && text.size() <= 16 && std::all_of(text.begin(), text.end(), absl::ascii_isxdigit) &&
         absl::numbers_internal::safe_strtou64_base(text, value, 16);
}

struct Line {
  size_t level;
  IomemResource node;
};

// Nothing: not of the form.
std::optional<Line> ParseLine(absl::string_view text) {
  const size_t indent = text.find_first_not_of(' ');
  if (indent == absl::string_view::npos || indent % 2 != 0) return std::nullopt;
  text.remove_prefix(indent);
  const size_t colon = text.find(" : ");
  const size_t dash = text.find('-');
  if (colon == absl::string_view::npos || dash > colon) return std::nullopt;
  uint64_t start = 0;
  uint64_t last = 0;
  if (!ParseHex(text.substr(0, dash), &start) || !ParseHex(text.substr(dash + 1, colon - dash - 1), &last)) return std::nullopt;
  const absl::string_view name = text.substr(colon + 3);
  if (name.size() > kMaxName || std::any_of(name.begin(), name.end(), absl::ascii_iscntrl)) return std::nullopt;
  return Line{indent / 2, {PhysAddr(start), PhysAddr(last), std::string(name), {}}};
}

std::optional<FirmwareRange::Type> FirmwareType(absl::string_view name) {
  if (name == "System RAM") return FirmwareRange::Type::kRam;
  if (name == "Reserved") return FirmwareRange::Type::kReserved;
  if (name == "ACPI Tables") return FirmwareRange::Type::kAcpi;
  if (name == "ACPI Non-volatile Storage") return FirmwareRange::Type::kNvs;
  if (name == "Unusable memory") return FirmwareRange::Type::kUnusable;
  return std::nullopt;
}

struct Sorted {
  std::vector<FirmwareRange> firmware;
  std::vector<NamedRange> sections;
  std::vector<IomemResource> devices;
};

void Sort(const std::vector<IomemResource>& nodes, bool in_firmware, Sorted& out) {
  for (const IomemResource& node : nodes) {
    const PhysRange range{node.start, PhysAddr(node.last.raw() + 1)};
    const std::optional<FirmwareRange::Type> type = FirmwareType(node.name);
    if (type && !in_firmware) {
      out.firmware.push_back({range, *type});
      Sort(node.children, true, out);
    } else if (absl::StartsWith(node.name, "Kernel ")) {
      out.sections.push_back({range, node.name});
    } else {
      out.devices.push_back(node);
    }
  }
}

}  // namespace

absl::StatusOr<std::vector<IomemResource>> ParseIomemText(absl::string_view text) {
  std::vector<IomemResource> tree;
  std::vector<IomemResource*> path;  // The last node of each level. Stable: only the last node of a list has children that grow.
  size_t number = 0;
  bool zeros = true;
  for (absl::string_view raw : absl::StrSplit(text, '\n')) {
    ++number;
    if (number > kMaxLines) return Error(absl::StrCat("must have at most ", kMaxLines, " lines"));
    const absl::string_view stripped = absl::StripTrailingAsciiWhitespace(raw);
    if (stripped.empty()) continue;
    std::optional<Line> line = ParseLine(stripped);
    const auto at = [&](absl::string_view rule) { return Error(absl::StrCat("line ", number, ": ", rule)); };
    if (!line) return at("must be START-LAST : NAME in hexadecimal, two spaces before it for each level");
    if (line->level > path.size() || line->level > kMaxLevel) return at("must be at most one level below the line before it");
    path.resize(line->level);
    const IomemResource& node = line->node;
    if (node.last < node.start) return at("the last address must not be below the first");
    if (node.last.raw() >= uint64_t{1} << 56) return at("must lie below 2^56");
    zeros = zeros && node.last.raw() == 0;
    if (!path.empty() && !zeros && (node.start < path.back()->start || path.back()->last < node.last)) {
      return at(absl::StrCat("must lie within '", path.back()->name, "'"));
    }
    std::vector<IomemResource>& siblings = path.empty() ? tree : path.back()->children;
    if (!siblings.empty() && !zeros && node.start <= siblings.back().last) {
      return at(absl::StrCat("must lie behind '", siblings.back().name, "'"));
    }
    siblings.push_back(std::move(line->node));
    path.push_back(&siblings.back());
  }
  if (tree.empty()) return Error("must have a line");
  if (zeros) return Error("has addresses of zero only: /proc/iomem was read without CAP_SYS_ADMIN");
  return tree;
}

absl::Status DescribeFromIomemText(absl::string_view text, MachineSpec& spec) {
  MMLAB_ASSIGN_OR_RETURN(const std::vector<IomemResource> tree, ParseIomemText(text));
  Sorted sorted;
  Sort(tree, false, sorted);
  const Layout& layout = GetLayout(spec.layout);
  if (spec.firmware_ranges.empty()) {
    bool ram = false;
    for (const FirmwareRange& range : sorted.firmware) {
      if (range.type != FirmwareRange::Type::kRam) continue;
      ram = true;
      if (range.range.end.raw() > layout.max_phys_addr) {
        return Error(absl::StrCat("System RAM at 0x", absl::Hex(range.range.start.raw()), "-0x", absl::Hex(range.range.end.raw() - 1), ": ",
                                  layout.name, " addresses memory below 0x", absl::Hex(layout.max_phys_addr), " only"));
      }
    }
    if (!ram) return Error("must have System RAM");
    spec.firmware_ranges = std::move(sorted.firmware);
  }
  // A kernel of another layout lies elsewhere: what such a tree says of its image would only be in the way.
  if (spec.kernel_sections.empty() && (sorted.sections.size() == 2) == !layout.is_x86()) spec.kernel_sections = std::move(sorted.sections);
  for (IomemResource& device : sorted.devices) spec.iomem_resources.push_back(std::move(device));
  return absl::OkStatus();
}

}  // namespace mmlab

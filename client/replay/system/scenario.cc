#include "client/replay/system/scenario.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/replay/recording.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kScript[] = "script.jsonl";
constexpr uint64_t kPage = 4096;
constexpr uint64_t kMostPages = uint64_t{1} << 26;

v1::Layout LayoutOf(const std::string& flavour) {
  if (absl::StartsWith(flavour, "arm64")) return v1::LAYOUT_ARM64;
  return absl::StartsWith(flavour, "686-pae") ? v1::LAYOUT_X86_32_PAE : v1::LAYOUT_X86_32;
}

// "96M" -> bytes; 0 when it is not such a size.
int64_t RamBytes(absl::string_view text) {
  const bool giga = absl::ConsumeSuffix(&text, "G");
  if (!giga && !absl::ConsumeSuffix(&text, "M")) return 0;
  int64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number <= 0 || number > 1 << 20) return 0;
  return number << (giga ? 30 : 20);
}

void AddRam(v1::MachineSpec& spec, uint64_t start, uint64_t end) {
  v1::FirmwareRange& range = *spec.add_firmware_ranges();
  range.set_start_address(start);
  range.set_end_address(end);
  range.set_type(v1::FirmwareRange::TYPE_RAM);
}

void AddReserved(v1::MachineSpec& spec, uint64_t start, uint64_t end, const std::string& purpose) {
  if (start >= end) return;
  v1::ReservedRange& range = *spec.add_reserved_ranges();
  range.set_start_address(start);
  range.set_end_address(end);
  range.set_purpose(purpose);
}

struct ZoneShape {
  uint64_t start = 0, spanned = 0, present = 0, managed = 0, cma = 0, min = 0;  // Pages.
  std::string name;
};

absl::StatusOr<std::vector<ZoneShape>> ZonesOf(const Json& header) {
  std::vector<ZoneShape> zones;
  for (const Json& zone : header.value("zones", Json::array())) {
    ZoneShape shape{
        zone.at("start_pfn"),           zone.at("spanned"), zone.at("present"), zone.at("managed"), zone.value("cma", uint64_t{0}),
        zone.value("min", uint64_t{0}), zone.at("name")};
    if (shape.start > kMostPages || shape.spanned > kMostPages || shape.present > shape.spanned || shape.managed > shape.present ||
        shape.cma > shape.managed) {
      return absl::InvalidArgumentError(absl::StrCat("zone ", shape.name, ": its pages do not add up"));
    }
    if (shape.spanned > 0) zones.push_back(std::move(shape));
  }
  return zones;
}

void ReserveKernel(const ZoneShape& zone, uint64_t late, v1::MachineSpec& spec) {
  const uint64_t kept_end = (zone.start + zone.present - zone.managed) * kPage;
  AddReserved(spec, zone.start * kPage, kept_end, "kernel image and what it took at boot");
  AddReserved(spec, kept_end, kept_end + late * kPage, "init sections, initramfs");
  if (late > 0) spec.mutable_reserved_ranges()->rbegin()->set_freed_late(true);
}

uint64_t SquareRoot(uint64_t value) {
  auto root = static_cast<uint64_t>(std::sqrt(static_cast<double>(value)));
  while (root * root > value) --root;
  while ((root + 1) * (root + 1) <= value) ++root;
  return root;
}

// Whether the zones' min watermarks are those of a kernel that had so many pages fewer when it computed them: min_free_kbytes is the root
// of 16 times the low memory in KiB, from 512 MiB on of that beyond the high watermarks that this gives, and every zone has its share of
// it.
bool ComputedWithout(const std::vector<ZoneShape>& zones, uint64_t late) {
  constexpr uint64_t kLeastForHugePages = (512 << 20) / kPage;
  uint64_t low = 0, all = 0;
  std::vector<uint64_t> own;
  for (const ZoneShape& zone : zones) {
    // The late pages belong to the zone that the kernel's image is in.
    const bool has_image = zone.name == (zones.size() > 1 && zones[0].managed < zones[1].managed ? zones[1].name : zones[0].name);
    own.push_back(has_image ? zone.managed - std::min(zone.managed, late) : zone.managed);
    all += own.back();
    if (zone.name != "HighMem") low += own.back();
  }
  if (low == 0) return false;
  uint64_t min_pages = SquareRoot(low * 64) / 4;
  if (all >= kLeastForHugePages) {
    uint64_t beyond = low;
    for (size_t i = 0; i < zones.size(); ++i) {
      if (zones[i].name == "HighMem") continue;
      const uint64_t min = min_pages * own[i] / low;
      beyond -= std::min(own[i], min + 2 * std::max(min / 4, own[i] / 1000));
    }
    min_pages = SquareRoot(beyond * 64) / 4;
  }
  for (size_t i = 0; i < zones.size(); ++i) {
    if (zones[i].name != "HighMem" && min_pages * own[i] / low != zones[i].min) return false;
  }
  return true;
}

// How many pages the kernel gave back after it had computed the watermarks: the most that explains them. 0: they were written.
uint64_t LateFreed(const std::vector<ZoneShape>& zones) {
  uint64_t low = 0;
  for (const ZoneShape& zone : zones) low += zone.name == "HighMem" ? 0 : zone.managed;
  for (uint64_t late = low / 2; late > 0; --late) {
    if (ComputedWithout(zones, late)) return late;
  }
  return 0;
}

// A PC keeps its first MiB for itself; what the kernel keeps lies where its image is, at the start of the zone above.
void DescribePc(const std::vector<ZoneShape>& zones, v1::MachineSpec& spec) {
  constexpr uint64_t kMiB = 1 << 20;
  AddRam(spec, 0, 0x9fc00);
  // The hole for devices, when there is one, ends at 4 GiB.
  constexpr uint64_t kDevicesEnd = uint64_t{1} << 32;
  const uint64_t end = (zones.back().start + zones.back().spanned) * kPage;
  const uint64_t hole = (zones.back().spanned - zones.back().present) * kPage;
  if (hole > 0 && hole < kDevicesEnd - kMiB && end > kDevicesEnd) {
    AddRam(spec, kMiB, kDevicesEnd - hole);
    AddRam(spec, kDevicesEnd, end);
  } else {
    AddRam(spec, kMiB, end);
  }
  AddReserved(spec, 0, kMiB, "low memory: real mode, BIOS");
  for (const ZoneShape& zone : zones) {
    if (zone.name != "DMA") ReserveKernel(zone, zone.name == "Normal" ? LateFreed(zones) : 0, spec);
  }
}

void DescribeBoard(const std::vector<ZoneShape>& zones, v1::MachineSpec& spec) {
  const uint64_t end = (zones.back().start + zones.back().spanned) * kPage;
  AddRam(spec, zones.front().start * kPage, end);
  uint64_t cma = 0;
  for (size_t i = 0; i < zones.size(); ++i) {
    cma += zones[i].cma;
    ReserveKernel(zones[i], i == 0 ? LateFreed(zones) : 0, spec);
  }
  if (cma == 0) return;
  v1::PhysicalRange& range = *spec.add_cma_areas();
  range.set_start_address(end - cma * kPage);
  range.set_end_address(end);
  range.set_name("reserved");
}

}  // namespace

bool IsScenario(const std::string& folder) {
  std::error_code error;
  return std::filesystem::is_regular_file(std::filesystem::path(folder) / kScript, error);
}

std::vector<std::string> FindScenarios(const std::string& path) {
  std::error_code error;
  std::vector<std::string> found;
  if (!std::filesystem::is_directory(path, error)) return found;
  if (IsScenario(path)) return {path};
  for (std::filesystem::recursive_directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename() == kScript) found.push_back(it->path().parent_path().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

absl::StatusOr<Scenario> ReadScenario(const std::string& folder) {
  MMLAB_ASSIGN_OR_RETURN(Recording script, ReadRecording((std::filesystem::path(folder) / kScript).string()));
  if (script.records[0].value("format", "") != "system-script") {
    return absl::InvalidArgumentError(absl::StrCat(folder, ": not a script of format system-script"));
  }
  Scenario scenario;
  scenario.folder = folder;
  scenario.header = std::move(script.records[0]);
  for (Json& record : script.records) {
    if (record.is_object() && record.value("kind", "") == "op") scenario.operations.push_back(std::move(record));
  }
  return scenario;
}

absl::StatusOr<v1::MachineSpec> SpecOfScenario(const Json& header) {
  v1::MachineSpec spec;
  spec.set_layout(LayoutOf(header.at("flavour")));
  spec.set_transparent_hugepage(v1::TRANSPARENT_HUGEPAGE_NEVER);
  MMLAB_ASSIGN_OR_RETURN(const std::vector<ZoneShape> zones, ZonesOf(header));
  if (zones.empty()) {
    const int64_t ram = RamBytes(header.at("ram").get<std::string>());
    if (ram == 0) return absl::InvalidArgumentError("ram: not a size");
    spec.set_ram_bytes(ram);
    return spec;
  }
  if (spec.layout() == v1::LAYOUT_ARM64) {
    DescribeBoard(zones, spec);
  } else {
    DescribePc(zones, spec);
  }
  return spec;
}

}  // namespace mmlab

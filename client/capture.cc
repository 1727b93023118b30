#include "client/capture.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "re2/re2.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMaxFile = 16 << 20;  // No log or table of a capture is larger.

absl::Status Bad(const std::string& file, absl::string_view rule) { return absl::InvalidArgumentError(absl::StrCat(file, ": ", rule)); }

std::optional<std::string> ReadIfThere(const fs::path& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  if (error || size > kMaxFile) return std::nullopt;
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

absl::StatusOr<std::string> Read(const fs::path& path) {
  std::optional<std::string> text = ReadIfThere(path);
  if (!text) return absl::NotFoundError(absl::StrCat(path.string(), ": can't be read"));
  return *std::move(text);
}

struct Span {
  uint64_t start = 0;
  uint64_t end = 0;
};

// "0x..-0x.." or "0x..\t0x.." with an inclusive end.
std::optional<Span> ParseSpan(absl::string_view start, absl::string_view last) {
  Span span;
  absl::ConsumePrefix(&start, "0x");
  absl::ConsumePrefix(&last, "0x");
  if (!absl::SimpleHexAtoi(start, &span.start) || !absl::SimpleHexAtoi(last, &span.end)) return std::nullopt;
  if (span.end == ~uint64_t{0} || span.end < span.start) return std::nullopt;
  ++span.end;
  return span;
}

// The first "[mem A-B]" of a line.
std::optional<Span> SpanOf(absl::string_view line) {
  const size_t open = line.find("[mem ");
  if (open == absl::string_view::npos) return std::nullopt;
  const size_t dash = line.find('-', open);
  const size_t close = line.find(']', open);
  if (dash == absl::string_view::npos || close == absl::string_view::npos || dash > close) return std::nullopt;
  return ParseSpan(line.substr(open + 5, dash - open - 5), line.substr(dash + 1, close - dash - 1));
}

std::optional<v1::FirmwareRange::Type> TypeOf(absl::string_view name) {
  if (name == "System RAM" || name == "usable") return v1::FirmwareRange::TYPE_RAM;
  if (name == "Reserved" || name == "reserved" || name == "Unknown E820 type" || name == "device reserved" || name == "Soft Reserved") {
    return v1::FirmwareRange::TYPE_RESERVED;
  }
  if (name == "ACPI Tables" || name == "ACPI data") return v1::FirmwareRange::TYPE_ACPI;
  if (name == "ACPI Non-volatile Storage" || name == "ACPI NVS") return v1::FirmwareRange::TYPE_NVS;
  if (name == "Unusable memory" || name == "unusable") return v1::FirmwareRange::TYPE_UNUSABLE;
  return std::nullopt;
}

void AddRange(Span span, v1::FirmwareRange::Type type, v1::MachineSpec& spec) {
  v1::FirmwareRange* range = spec.add_firmware_ranges();
  range->set_start_address(span.start);
  range->set_end_address(span.end);
  range->set_type(type);
}

// "Linux version RELEASE (BUILT BY) (COMPILER) VERSION"
absl::Status ParseVersion(const std::string& text, v1::MachineSpec& spec) {
  v1::KernelVersion& kernel = *spec.mutable_kernel();
  if (!RE2::PartialMatch(text.substr(0, text.find('\n')), R"(Linux version (\S+) \((\S*)\) \((.*)\) (#.*?)\s*$)", kernel.mutable_release(),
                         kernel.mutable_built_by(), kernel.mutable_compiler(), kernel.mutable_version())) {
    return Bad("version", "must be 'Linux version RELEASE (BUILT BY) (COMPILER) VERSION'");
  }
  if (absl::StrContains(kernel.release(), "arm64") || absl::StrContains(kernel.release(), "aarch64")) {
    spec.set_layout(v1::LAYOUT_ARM64);
  } else {
    spec.set_layout(absl::StrContains(kernel.release(), "pae") ? v1::LAYOUT_X86_32_PAE : v1::LAYOUT_X86_32);
  }
  return absl::OkStatus();
}

absl::Status ParseFirmwareTable(const std::string& text, v1::MachineSpec& spec) {
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.empty()) continue;
    const std::vector<absl::string_view> parts = absl::StrSplit(line, '\t');
    const auto span = parts.size() == 3 ? ParseSpan(parts[0], parts[1]) : std::nullopt;
    if (!span) return Bad("firmware_memmap.tsv", absl::StrCat("line ", number, ": must be START, LAST and TYPE, separated by tabs"));
    const auto type = TypeOf(parts[2]);
    if (!type) return Bad("firmware_memmap.tsv", absl::StrCat("line ", number, ": unknown type '", parts[2], "'"));
    AddRange(*span, *type, spec);
  }
  return absl::OkStatus();
}

// What firmware and loader say in the kernel's log.
void ParseDmesg(const std::string& text, v1::MachineSpec& spec) {
  const bool table = spec.firmware_ranges_size() != 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const auto span = SpanOf(line);
    if (!span) continue;
    if (!table && absl::StrContains(line, "BIOS-e820: ")) {
      if (const auto type = TypeOf(line.substr(line.rfind("] ") + 2))) AddRange(*span, *type, spec);
    } else if (spec.layout() == v1::LAYOUT_ARM64 && absl::StrContains(line, "  node   ")) {
      AddRange(*span, v1::FirmwareRange::TYPE_RAM, spec);
    } else if (absl::StrContains(line, "] RAMDISK: ") || absl::StrContains(line, "Move RAMDISK from ")) {
      spec.mutable_initramfs()->set_start_address(span->start);
      spec.mutable_initramfs()->set_end_address(span->end);
    }
  }
}

}  // namespace

absl::StatusOr<v1::MachineSpec> SpecFromCapture(const std::string& folder) {
  const fs::path root(folder);
  std::error_code error;
  if (!fs::is_directory(root, error)) return absl::NotFoundError(absl::StrCat(folder, ": not a folder"));
  v1::MachineSpec spec;
  MMLAB_ASSIGN_OR_RETURN(const std::string dmesg, Read(root / "dmesg"));
  MMLAB_ASSIGN_OR_RETURN(*spec.mutable_iomem_text(), Read(root / "iomem"));
  std::string version = ReadIfThere(root / "version").value_or("");
  if (version.empty()) {
    const size_t at = dmesg.find("Linux version ");
    if (at == std::string::npos) return Bad("version", "must be there, or a log with its first lines");
    version = dmesg.substr(at, dmesg.find('\n', at) - at);
  }
  MMLAB_RETURN_IF_ERROR(ParseVersion(version, spec));
  if (const auto table = ReadIfThere(root / "firmware_memmap.tsv"); table && spec.layout() != v1::LAYOUT_ARM64) {
    MMLAB_RETURN_IF_ERROR(ParseFirmwareTable(*table, spec));
  }
  ParseDmesg(dmesg, spec);
  MMLAB_ASSIGN_OR_RETURN(std::string command_line, Read(root / "cmdline"));
  spec.set_command_line(command_line.substr(0, command_line.find('\n')));
  const std::string cpuinfo = ReadIfThere(root / "cpuinfo").value_or("");
  const std::vector<absl::string_view> lines = absl::StrSplit(cpuinfo, '\n');
  spec.set_cpus(std::max<int>(1, static_cast<int>(std::count_if(lines.begin(), lines.end(),
                                                                [](absl::string_view l) { return absl::StartsWith(l, "processor"); }))));
  return spec;
}

absl::Status AddFirmwareRanges(const std::string& text, v1::MachineSpec& spec) {
  if (!absl::StrContains(text, "[mem ")) return ParseFirmwareTable(text, spec);
  v1::MachineSpec found;
  found.set_layout(spec.layout());
  ParseDmesg(text, found);
  if (found.firmware_ranges_size() == 0) {
    return absl::InvalidArgumentError(spec.layout() == v1::LAYOUT_ARM64 ? "has no lines of memory banks, 'node   0: [mem ...]'"
                                                                        : "has no lines 'BIOS-e820: [mem ...] usable'");
  }
  *spec.mutable_firmware_ranges() = found.firmware_ranges();
  return absl::OkStatus();
}

std::string CaptureFileName(const std::string& proc_path) {
  if (absl::StartsWith(proc_path, "sys/vm/")) return "sys_vm/" + proc_path.substr(7);
  return absl::StrReplaceAll(proc_path, {{"/", "_"}});
}

}  // namespace mmlab

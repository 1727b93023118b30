#include "client/cli/output.h"

#include <fmt/core.h>
#include <google/protobuf/util/json_util.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace mmlab {

std::string TableText(const std::vector<std::string>& headings, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const std::string& heading : headings) widths.push_back(heading.size());
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  const auto add = [&](const std::vector<std::string>& row) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text.append(widths[i] - row[i].size() + 2, ' ');
    }
    text += '\n';
  };
  add(headings);
  for (const auto& row : rows) add(row);
  return text;
}

std::string JsonText(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) return "{}\n";
  return json;
}

static std::string YamlFromJson(const std::string& json) {
  YAML::Node node = YAML::Load(json);
  // JSON's flow style goes away, node by node.
  const auto to_block = [](auto&& self, YAML::Node part) -> void {
    if (!part.IsMap() && !part.IsSequence()) return;
    part.SetStyle(part.size() == 0 ? YAML::EmitterStyle::Flow : YAML::EmitterStyle::Block);
    for (auto child : part) self(self, part.IsMap() ? child.second : YAML::Node(child));
  };
  to_block(to_block, node);
  YAML::Emitter emitter;
  emitter << node;
  return absl::StrCat(emitter.c_str(), "\n");
}

std::string YamlText(const google::protobuf::Message& message) { return YamlFromJson(JsonText(message)); }

bool PrintStructured(const GlobalOptions& options, const google::protobuf::Message& message) {
  if (options.output != OutputFormat::kJson && options.output != OutputFormat::kYaml) return false;
  return PrintJson(options, JsonText(message));
}

bool PrintJson(const GlobalOptions& options, const std::string& json) {
  if (options.output != OutputFormat::kJson && options.output != OutputFormat::kYaml) return false;
  fmt::print("{}", options.output == OutputFormat::kJson ? json : YamlFromJson(json));
  return true;
}

namespace {

std::string ValueText(const std::string& verb, const v1::Outcome& outcome) {
  if (outcome.has_access()) {
    const v1::AccessResult& access = outcome.access();
    std::string text =
        fmt::format("done={} value={} faults={}+{}", access.done(), HexText(access.value()), access.minor_faults(), access.major_faults());
    if (access.fnv1a64() != 0) text += " fnv1a64=" + HexText(access.fnv1a64());
    return text;
  }
  if (verb == "create_process" || verb == "fork") return fmt::format("pid {}", outcome.value());
  if (verb == "open" || verb == "pipe" || verb == "memfd_create") return fmt::format("fd {}", outcome.value());
  if (verb == "alloc_pages" || verb == "alloc_pages_exact") return fmt::format("pfn {}", HexText(outcome.value()));
  static const auto* const kAnswerAddresses = new std::set<std::string>{
      "mmap",        "mremap",           "brk",     "sbrk", "shmat",       "exec",    "switch_to",  "get_free_pages", "kmalloc",
      "krealloc",    "kmem_cache_alloc", "vmalloc", "vmap", "get_vm_area", "ioremap", "vm_map_ram", "kmap",           "kmap_local",
      "alloc_percpu"};
  if (kAnswerAddresses->contains(verb)) return HexText(outcome.value());
  return absl::StrCat(outcome.value());
}

}  // namespace

std::string OutcomeText(const std::string& verb, const v1::Outcome& outcome) {
  std::string text;
  if (outcome.error_number() != 0) {
    text = fmt::format("-1 {} (errno {})\n", outcome.error_name(), outcome.error_number());
  } else {
    text = ValueText(verb, outcome) + "\n";
  }
  if (verb == "mincore" && outcome.error_number() == 0) {
    for (const char byte : outcome.data()) text += (byte & 1) != 0 ? '1' : '0';
    text += '\n';
  } else if (outcome.pfns_size() > 0) {
    text += absl::StrCat("pfns ", absl::StrJoin(outcome.pfns(), " ", [](std::string* out, uint64_t pfn) { *out += HexText(pfn); }), "\n");
  } else if (outcome.addresses_size() > 0) {
    text += absl::StrJoin(outcome.addresses(), "\n", [](std::string* out, uint64_t address) { *out += HexText(address); }) + "\n";
  } else if (!outcome.data().empty()) {
    text += outcome.data() + "\n";
  }
  if (outcome.has_signal()) {
    text += fmt::format("{} ({}) at {}\n", outcome.signal().name(), outcome.signal().code_name(), HexText(outcome.signal().address()));
  }
  return text + outcome.explanation().text();
}

std::optional<uint64_t> ParseSize(const std::string& text) {
  if (absl::StartsWith(text, "0x")) {
    uint64_t value = 0;
    return absl::SimpleHexAtoi(text, &value) ? std::optional(value) : std::nullopt;
  }
  constexpr char kUnits[] = "KMGT";
  absl::string_view digits = text;
  int shift = 0;
  for (int i = 0; i < 4; ++i) {
    if (absl::ConsumeSuffix(&digits, std::string(1, kUnits[i]))) shift = 10 * (i + 1);
  }
  uint64_t value = 0;
  if (!absl::SimpleAtoi(digits, &value) || (value << shift) >> shift != value) return std::nullopt;
  return value << shift;
}

std::string BytesText(int64_t bytes) {
  constexpr const char* kUnits[] = {"", "Ki", "Mi", "Gi", "Ti"};
  size_t unit = 0;
  while (unit + 1 < std::size(kUnits) && bytes >= 10 * 1024) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrCat(bytes, kUnits[unit]);
}

std::string AgeText(int64_t seconds) {
  if (seconds < 120) return absl::StrCat(std::max<int64_t>(seconds, 0), "s");
  if (seconds < 2 * 3600) return absl::StrCat(seconds / 60, "m");
  if (seconds < 2 * 86400) return absl::StrCat(seconds / 3600, "h");
  return absl::StrCat(seconds / 86400, "d");
}

std::string HexText(uint64_t value) { return fmt::format("{:#x}", value); }

std::string LastPart(const std::string& name) { return name.substr(name.rfind('/') + 1); }

}  // namespace mmlab

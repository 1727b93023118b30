#include "server/kernel/vmallocinfo.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace mmlab {
namespace {

struct FlagName {
  absl::string_view name;
  uint32_t flag;
};
// In the order in which they are printed.
constexpr FlagName kFlagNames[] = {
    {"ioremap", kVmIoremap}, {"vmalloc", kVmAlloc}, {"vmap", kVmMap}, {"user", kVmUsermap}, {"dma-coherent", kVmDmaCoherent},
};

bool ParseFlag(absl::string_view word, KernelArea& area) {
  for (const FlagName& flag : kFlagNames) {
    if (word == flag.name) area.flags |= flag.flag;
    if (word == flag.name) return true;
  }
  return false;
}

}  // namespace

std::string VmallocinfoText(const Vmalloc& vmalloc, const Layout& layout) {
  const int digits = 2 * layout.word_bytes;
  const int physical_digits = layout.kind == LayoutKind::kX86_32 ? 8 : 16;
  std::string text;
  for (const auto& [start, area] : vmalloc.areas()) {
    absl::StrAppendFormat(&text, "0x%0*x-0x%0*x %7d", digits, start, digits, area.end, area.end - start);
    if (!area.has_vm) {
      text += " vm_map_ram\n";
      continue;
    }
    if (!area.caller.empty()) absl::StrAppendFormat(&text, " %s", area.caller);
    if (area.nr_pages != 0) absl::StrAppendFormat(&text, " pages=%d", area.nr_pages);
    if (area.physical && area.physical->raw() != 0) absl::StrAppendFormat(&text, " phys=0x%0*x", physical_digits, area.physical->raw());
    for (const FlagName& flag : kFlagNames) {
      if ((area.flags & flag.flag) != 0) absl::StrAppendFormat(&text, " %s", flag.name);
    }
    if (area.page_array != 0) text += " vpages";
    // The ARM64 kernel is built for NUMA and has one node.
    if (area.nr_pages != 0 && layout.kind == LayoutKind::kArm64) absl::StrAppendFormat(&text, " N0=%d", area.nr_pages);
    text += '\n';
  }
  if (vmalloc.areas().empty()) return text;
  for (const auto& [start, end] : vmalloc.lazy_ranges()) {
    absl::StrAppendFormat(&text, "0x%0*x-0x%0*x %7d unpurged vm_area\n", digits, start, digits, end, end - start);
  }
  return text;
}

std::optional<VmallocinfoLine> ParseVmallocinfoLine(absl::string_view line) {
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
  if (words.size() < 2) return std::nullopt;
  const std::vector<absl::string_view> range = absl::StrSplit(words[0], '-');
  KernelArea area;
  uint64_t size = 0;
  if (range.size() != 2 || !absl::SimpleHexAtoi(range[0], &area.start) || !absl::SimpleHexAtoi(range[1], &area.end) ||
      !absl::SimpleAtoi(words[1], &size) || area.start >= area.end || area.end - area.start != size || (size | area.start) % 4096 != 0) {
    return std::nullopt;
  }
  if (words.size() == 4 && words[2] == "unpurged" && words[3] == "vm_area") return VmallocinfoLine{std::move(area), true};
  for (size_t i = 2; i < words.size(); ++i) {
    absl::string_view word = words[i];
    uint64_t physical = 0;
    if (word == "vm_map_ram") {
      area.has_vm = false;
    } else if (absl::ConsumePrefix(&word, "pages=")) {
      if (!absl::SimpleAtoi(word, &area.nr_pages)) return std::nullopt;
    } else if (absl::ConsumePrefix(&word, "phys=")) {
      if (!absl::SimpleHexAtoi(word, &physical)) return std::nullopt;
      area.physical = PhysAddr(physical);
    } else if (i == 2 && absl::StrContains(word, "+0x")) {
      area.caller = std::string(word);
    } else if (!ParseFlag(word, area) && !absl::StartsWith(word, "N0=")) {
      return std::nullopt;
    }
  }
  if (uint64_t{area.nr_pages} * 4096 > size) return std::nullopt;
  return VmallocinfoLine{std::move(area), false};
}

}  // namespace mmlab

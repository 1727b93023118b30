#include "server/machine/boot_arguments.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace mmlab {
namespace {

int Digit(char c, int base) {
  int digit = -1;
  if (absl::ascii_isdigit(c)) digit = c - '0';
  if (absl::ascii_isxdigit(c) && !absl::ascii_isdigit(c)) digit = absl::ascii_tolower(c) - 'a' + 10;
  return digit < base ? digit : -1;
}

uint64_t ParseNumber(absl::string_view& text) {
  int base = 10;
  if (text.size() > 2 && text[0] == '0' && absl::ascii_tolower(text[1]) == 'x' && absl::ascii_isxdigit(text[2])) {
    base = 16;
    text.remove_prefix(2);
  } else if (text.size() > 1 && text[0] == '0') {
    base = 8;
  }
  uint64_t value = 0;  // Wraps on overflow, as the kernel's.
  while (!text.empty() && Digit(text[0], base) >= 0) {
    value = value * static_cast<uint64_t>(base) + static_cast<uint64_t>(Digit(text[0], base));
    text.remove_prefix(1);
  }
  return value;
}

void ParseMemmapOne(absl::string_view text, std::vector<MemoryEdit>& edits) {
  using Kind = MemoryEdit::Kind;
  if (absl::StartsWith(text, "exactmap")) {
    edits.push_back({Kind::kExactMap, true});
    return;
  }
  const size_t before = text.size();
  MemoryEdit edit{Kind::kLimit, true};
  edit.size = ParseMemory(text);
  if (text.size() == before) return;
  const char sign = text.empty() ? 0 : text[0];
  if (sign == '@' || sign == '#' || sign == '$' || sign == '!') {
    text.remove_prefix(1);
    edit.kind = Kind::kAdd;
    edit.start = ParseMemory(text);
    edit.to = sign == '@' ? 1 : sign == '#' ? 3 : 2;  // '!' is persistent memory: no RAM, kept from use.
  } else if (sign == '%') {
    text.remove_prefix(1);
    edit.kind = Kind::kChange;
    edit.start = ParseMemory(text);
    if (absl::ConsumePrefix(&text, "-")) edit.from = static_cast<int>(ParseNumber(text) & 0xff);
    if (absl::ConsumePrefix(&text, "+")) edit.to = static_cast<int>(ParseNumber(text) & 0xff);
    if (!text.empty() || edit.to > 5) return;
  }
  edits.push_back(edit);
}

CoreSize ParseCore(absl::string_view text) {
  CoreSize core;
  absl::string_view number = text;
  const uint64_t percent = ParseNumber(number);
  if (absl::StartsWith(number, "%")) {
    core.percent = percent;
  } else {
    core.bytes = ParseMemory(text);
  }
  return core;
}

CmaArgument ParseCma(absl::string_view text) {
  CmaArgument cma;
  cma.size = ParseMemory(text);
  if (!absl::ConsumePrefix(&text, "@")) return cma;
  cma.base = ParseMemory(text);
  cma.limit = absl::ConsumePrefix(&text, "-") ? ParseMemory(text) : cma.base + cma.size;
  return cma;
}

}  // namespace

uint64_t ParseMemory(absl::string_view& text) {
  uint64_t value = ParseNumber(text);
  if (text.empty()) return value;
  static constexpr absl::string_view kSuffixes = "KMGTPE";
  const size_t power = kSuffixes.find(absl::ascii_toupper(text[0]));
  if (power == absl::string_view::npos) return value;
  text.remove_prefix(1);
  return value << (10 * (power + 1));
}

BootArguments ParseBootArguments(absl::string_view command_line) {
  BootArguments arguments;
  for (absl::string_view word : absl::StrSplit(command_line, absl::ByAnyChar(" \t\n"), absl::SkipEmpty())) {
    if (word == "--") break;  // What follows is for init.
    const size_t equals = word.find('=');
    if (equals == absl::string_view::npos) continue;
    const absl::string_view key = word.substr(0, equals);
    absl::string_view value = word.substr(equals + 1);
    if (key == "mem") {
      const uint64_t size = ParseMemory(value);
      if (size != 0) arguments.edits.push_back({MemoryEdit::Kind::kLimit, false, 0, size});
    } else if (key == "memmap") {
      for (absl::string_view one : absl::StrSplit(value, ',')) ParseMemmapOne(one, arguments.edits);
    } else if (key == "kernelcore") {
      arguments.kernelcore = ParseCore(value);
    } else if (key == "movablecore") {
      arguments.movablecore = ParseCore(value);
    } else if (key == "cma") {
      arguments.cma = ParseCma(value);
    } else if (key == "vmalloc") {
      arguments.vmalloc = ParseMemory(value);
    } else if (key == "highmem") {
      arguments.highmem = ParseMemory(value);
    } else if (key == "rodata" && (value == "off" || value == "on" || value == "full")) {
      arguments.rodata = std::string(value);
    } else if (key == "hugepages") {
      uint64_t pages = 0;
      if (absl::SimpleAtoi(value, &pages)) arguments.hugetlb.push_back({HugetlbArgument::Kind::kPages, pages});
    } else if (key == "hugepagesz") {
      arguments.hugetlb.push_back({HugetlbArgument::Kind::kSize, ParseMemory(value)});
    } else if (key == "default_hugepagesz") {
      arguments.hugetlb.push_back({HugetlbArgument::Kind::kDefaultSize, ParseMemory(value)});
    }
  }
  return arguments;
}

}  // namespace mmlab

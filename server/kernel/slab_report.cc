#include "server/kernel/slab_report.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace mmlab {
namespace {

constexpr size_t kPerLine = 16;
constexpr size_t kMostBytes = 4096;

}  // namespace

std::string HexLine(absl::string_view bytes) {
  std::string hex;
  std::string characters;
  for (size_t i = 0; i < kPerLine; ++i) {
    if (i >= bytes.size()) {
      hex += "   ";
      continue;
    }
    const auto byte = static_cast<unsigned char>(bytes[i]);
    absl::StrAppendFormat(&hex, "%02x ", byte);
    characters += absl::ascii_isprint(byte) ? bytes[i] : '.';
  }
  return absl::StrCat(hex, " ", characters);
}

void AppendHexDump(std::string* text, absl::string_view prefix, uint64_t address, absl::string_view bytes, int digits) {
  for (size_t at = 0; at < std::min(bytes.size(), kMostBytes); at += kPerLine) {
    absl::StrAppendFormat(text, "%s%0*x: %s\n", prefix, digits, address + at, HexLine(bytes.substr(at, kPerLine)));
  }
}

}  // namespace mmlab

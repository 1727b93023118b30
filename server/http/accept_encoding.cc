#include "server/http/accept_encoding.h"

#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace mmlab {
namespace {

bool IsRefused(absl::string_view parameters) {
  for (const absl::string_view parameter : absl::StrSplit(parameters, ';')) {
    const absl::string_view trimmed = absl::StripAsciiWhitespace(parameter);
    double weight = 0;
    if (absl::StartsWithIgnoreCase(trimmed, "q=") && (!absl::SimpleAtod(trimmed.substr(2), &weight) || weight <= 0)) return true;
  }
  return false;
}

}  // namespace

bool AcceptsGzip(absl::string_view accept_encoding) {
  std::optional<bool> any;
  for (const absl::string_view item : absl::StrSplit(accept_encoding, ',')) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(item, absl::MaxSplits(';', 1));
    const absl::string_view coding = absl::StripAsciiWhitespace(parts.first);
    if (absl::EqualsIgnoreCase(coding, "gzip") || absl::EqualsIgnoreCase(coding, "x-gzip")) return !IsRefused(parts.second);
    if (coding == "*") any = !IsRefused(parts.second);
  }
  return any.value_or(false);
}

}  // namespace mmlab

#include "server/service/page_token.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/hash.h"
#include "server/host/errors.h"

namespace mmlab {
namespace {

constexpr size_t kCheckDigits = 16;

std::string Check(absl::string_view list, absl::string_view last) {
  StateHasher hasher;
  hasher.AddBytes(list.data(), list.size());
  hasher.AddBytes(last.data(), last.size());
  return absl::StrFormat("%016x", hasher.value());
}

}  // namespace

std::string MakePageToken(absl::string_view list, absl::string_view last) {
  return absl::WebSafeBase64Escape(absl::StrCat(Check(list, last), last));
}

absl::StatusOr<std::string> ParsePageToken(absl::string_view list, absl::string_view token) {
  if (token.empty()) return std::string();
  std::string text;
  if (!absl::WebSafeBase64Unescape(token, &text) || text.size() < kCheckDigits ||
      text.substr(0, kCheckDigits) != Check(list, absl::string_view(text).substr(kCheckDigits))) {
    return InvalidField("page_token", "must be the next_page_token of an answer to the same request");
  }
  return text.substr(kCheckDigits);
}

absl::StatusOr<size_t> PageSizeFrom(int32_t page_size, size_t default_size, size_t max_size) {
  if (page_size < 0) return InvalidField("page_size", "must not be negative");
  if (page_size == 0) return default_size;
  return std::min(static_cast<size_t>(page_size), max_size);
}

}  // namespace mmlab

#ifndef MMLAB_SERVER_HTTP_GZIP_H_
#define MMLAB_SERVER_HTTP_GZIP_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace mmlab {

// The text in gzip format (RFC 1952).
std::string Gzip(absl::string_view text);

// Back from it. Nothing: it is no gzip, not whole, or the text would be longer than `max_bytes`.
std::optional<std::string> Gunzip(absl::string_view packed, size_t max_bytes);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HTTP_GZIP_H_

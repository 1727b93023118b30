#ifndef MMLAB_SERVER_HTTP_GZIP_H_
#define MMLAB_SERVER_HTTP_GZIP_H_

#include <string>

#include "absl/strings/string_view.h"

namespace mmlab {

// The text in gzip format (RFC 1952).
std::string Gzip(absl::string_view text);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HTTP_GZIP_H_

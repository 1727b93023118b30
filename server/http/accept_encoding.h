#ifndef MMLAB_SERVER_HTTP_ACCEPT_ENCODING_H_
#define MMLAB_SERVER_HTTP_ACCEPT_ENCODING_H_

#include "absl/strings/string_view.h"

namespace mmlab {

// Whether a client that sent this Accept-Encoding takes gzip (RFC 9110, 12.5.3): named, or covered by '*', and not with q=0.
bool AcceptsGzip(absl::string_view accept_encoding);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HTTP_ACCEPT_ENCODING_H_

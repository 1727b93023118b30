#ifndef MMLAB_SERVER_SERVICE_PAGE_TOKEN_H_
#define MMLAB_SERVER_SERVICE_PAGE_TOKEN_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mmlab {

// Paging after AIP-158. A token says behind which element to go on; it belongs to one list with its parameters ("ListMachines",
// "ListProcesses machines/a view 2") and means nothing to clients. It does not expire: a list may change between two pages.
std::string MakePageToken(absl::string_view list, absl::string_view last);
// The element behind which to go on; empty for an empty token (the first page). INVALID_ARGUMENT: not a token of this list.
absl::StatusOr<std::string> ParsePageToken(absl::string_view list, absl::string_view token);

// 0 becomes `default_size`, more than `max_size` becomes that; negative is INVALID_ARGUMENT.
absl::StatusOr<size_t> PageSizeFrom(int32_t page_size, size_t default_size = 100, size_t max_size = 1000);

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_PAGE_TOKEN_H_

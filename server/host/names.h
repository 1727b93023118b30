#ifndef MMLAB_SERVER_HOST_NAMES_H_
#define MMLAB_SERVER_HOST_NAMES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mmlab {

// Resource names: "machines/{machine}" and "machines/{machine}/processes/{pid}".
struct ProcessName {
  absl::string_view machine;  // The id; views into the parsed name.
  int32_t pid = 0;
};

// 1 to 63 of a-z, 0-9 and '-', first a letter, last no '-'.
bool IsMachineId(absl::string_view id);

// INVALID_ARGUMENT names `field` when the name does not have the form.
absl::StatusOr<absl::string_view> ParseMachineName(absl::string_view field, absl::string_view name);
absl::StatusOr<ProcessName> ParseProcessName(absl::string_view field, absl::string_view name);

std::string MachineName(absl::string_view id);
std::string ProcessNameOf(absl::string_view machine_id, int32_t pid);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_NAMES_H_

#ifndef MMLAB_SERVER_MACHINE_IOMEM_TEXT_H_
#define MMLAB_SERVER_MACHINE_IOMEM_TEXT_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/machine/machine_spec.h"

namespace mmlab {

// Reads the text of a /proc/iomem: "start-last : name" in hexadecimal, two more spaces for each level. INVALID_ARGUMENT names the line and
// what is wrong with it: not of this form, last below start, outside the line that it stands under, overlapping the one before, a text of
// zeros only (read without privilege).
absl::StatusOr<std::vector<IomemResource>> ParseIomemText(absl::string_view text);

// Takes a machine's physical memory from such a text: RAM and what firmware keeps become firmware_ranges (unless some are given), the
// kernel's sections kernel_sections (likewise), everything else iomem_resources. INVALID_ARGUMENT as ParseIomemText, and RAM that the
// layout cannot address.
absl::Status DescribeFromIomemText(absl::string_view text, MachineSpec& spec);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_IOMEM_TEXT_H_

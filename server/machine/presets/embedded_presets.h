#ifndef MMLAB_SERVER_MACHINE_PRESETS_EMBEDDED_PRESETS_H_
#define MMLAB_SERVER_MACHINE_PRESETS_EMBEDDED_PRESETS_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace mmlab {

// A machine description of server/machine/presets, built into the binary.
struct EmbeddedPreset {
  absl::string_view name;  // "arm64-1G"
  absl::string_view text;  // v1::MachineSpec in protobuf's text format.
};

// All presets, by name.
absl::Span<const EmbeddedPreset> EmbeddedPresets();

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PRESETS_EMBEDDED_PRESETS_H_

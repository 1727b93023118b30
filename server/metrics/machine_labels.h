#ifndef MMLAB_SERVER_METRICS_MACHINE_LABELS_H_
#define MMLAB_SERVER_METRICS_MACHINE_LABELS_H_

#include <array>

#include "absl/strings/string_view.h"
#include "server/host/hosted_machine.h"

namespace mmlab {

// The values of the labels `arch` and `state`, all of them.
inline constexpr std::array<absl::string_view, 2> kArchLabels = {"arm64", "x86_32"};
inline constexpr std::array<absl::string_view, 2> kStateLabels = {"running", "quarantined"};

inline absl::string_view ArchLabel(LayoutKind layout) { return GetLayout(layout).arch_label; }

inline absl::string_view StateLabel(HostedMachine::State state) { return kStateLabels[state == HostedMachine::State::kRunning ? 0 : 1]; }

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_MACHINE_LABELS_H_

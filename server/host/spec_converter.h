#ifndef MMLAB_SERVER_HOST_SPEC_CONVERTER_H_
#define MMLAB_SERVER_HOST_SPEC_CONVERTER_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmlab/v1/machine.pb.h"
#include "server/host/presets.h"
#include "server/machine/machine_spec.h"

namespace mmlab {

// A description with its preset filled in: each field that is set in `spec` replaces the preset's. What says where things lie in the
// preset's RAM goes with that RAM when `spec` brings its own (firmware_ranges or ram_bytes). NOT_FOUND: no such preset; INVALID_ARGUMENT:
// fields that exclude each other.
absl::StatusOr<v1::MachineSpec> MergePreset(const Presets& presets, const v1::MachineSpec& spec);

// The engine's form of a merged description. INVALID_ARGUMENT names the field ("firmware_ranges[2].type") where the message itself is
// malformed; what a kernel could not boot on is for Machine::Boot to refuse.
absl::StatusOr<MachineSpec> MachineSpecFromProto(const v1::MachineSpec& spec);

// A refusal of Machine::Boot ("spec.cpus: must be 1 .. 64") with the details that clients read, fields as in v1::MachineSpec.
absl::Status DetailedBootError(const absl::Status& status);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_SPEC_CONVERTER_H_

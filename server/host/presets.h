#ifndef MMLAB_SERVER_HOST_PRESETS_H_
#define MMLAB_SERVER_HOST_PRESETS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "mmlab/v1/machine.pb.h"

namespace mmlab {

// A preset as it is kept: a v1::MachineSpec in protobuf's text format. Views into memory that lives as long as the process.
struct PresetText {
  absl::string_view name;
  absl::string_view text;
};

// The machines of recorded boots by name. Never changes; thread-safe.
class Presets {
 public:
  // INVALID_ARGUMENT says which text cannot be read and why.
  static absl::StatusOr<Presets> Parse(absl::Span<const PresetText> texts);
  // Those that are built into the program; read at the first call.
  static const Presets& BuiltIn();

  // Null: no such preset.
  const v1::MachineSpec* Find(absl::string_view name) const;
  const std::map<std::string, v1::MachineSpec>& all() const { return specs_; }

 private:
  std::map<std::string, v1::MachineSpec> specs_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_PRESETS_H_

#include "tests/unit/machine/preset_specs.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "gtest/gtest.h"
#include "server/host/presets.h"
#include "server/host/spec_converter.h"

namespace mmlab {

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const auto& [name, spec] : Presets::BuiltIn().all()) names.push_back(name);
  return names;
}

MachineSpec PresetSpec(const std::string& name) {
  const v1::MachineSpec* proto = Presets::BuiltIn().Find(name);
  if (proto == nullptr) {
    ADD_FAILURE() << "no preset " << name;
    return {};
  }
  absl::StatusOr<MachineSpec> spec = MachineSpecFromProto(*proto);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *std::move(spec) : MachineSpec();
}

std::string RecordedFile(const std::string& name, const std::string& file) {
  const std::string path = "tests/conformance/data/boot/" + name + "/" + file;
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::ostringstream content;
  content << in.rdbuf();
  return content.str();
}

std::string CaseName(const std::string& preset) {
  std::string name = preset;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

}  // namespace mmlab

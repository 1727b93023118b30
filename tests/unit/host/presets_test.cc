#include "server/host/presets.h"

#include <memory>

#include "gtest/gtest.h"
#include "server/host/spec_converter.h"
#include "server/machine/machine.h"

namespace mmlab {
namespace {

TEST(PresetsTest, AreTheRecordedMachines) {
  std::vector<std::string> names;
  for (const auto& [name, spec] : Presets::BuiltIn().all()) names.push_back(name);
  EXPECT_EQ(names.size(), 15u);
  for (const char* name : {"686-1G", "686-pae-4G", "arm64-1G"}) EXPECT_NE(Presets::BuiltIn().Find(name), nullptr) << name;
  EXPECT_EQ(Presets::BuiltIn().Find("686-2G"), nullptr);
}

TEST(PresetsTest, AllBoot) {
  for (const auto& [name, preset] : Presets::BuiltIn().all()) {
    SCOPED_TRACE(name);
    v1::MachineSpec wish;
    wish.set_preset(name);
    const absl::StatusOr<v1::MachineSpec> merged = MergePreset(Presets::BuiltIn(), wish);
    ASSERT_TRUE(merged.ok()) << merged.status();
    const absl::StatusOr<MachineSpec> native = MachineSpecFromProto(*merged);
    ASSERT_TRUE(native.ok()) << native.status();
    const absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Boot(*native);
    ASSERT_TRUE(machine.ok()) << machine.status();
    EXPECT_TRUE((*machine)->CheckInvariants().empty());
  }
}

TEST(PresetsTest, SayWhichTextIsWrong) {
  const PresetText texts[] = {{"good", "cpus: 1"}, {"bad", "cpus: 1\nwheels: 4"}};
  const absl::StatusOr<Presets> presets = Presets::Parse(texts);
  ASSERT_EQ(presets.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(presets.status().message().find("preset bad: line 2"), absl::string_view::npos) << presets.status();
}

}  // namespace
}  // namespace mmlab

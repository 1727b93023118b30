#include "server/host/spec_converter.h"

#include <functional>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"

namespace mmlab {
namespace {

const Presets& TestPresets() {
  static const auto* const presets = [] {
    const PresetText texts[] = {{"base", R"(
      layout: LAYOUT_ARM64 cpus: 4 seed: 7 command_line: "quiet"
      kernel { release: "6.1.0" machine: "aarch64" }
      firmware_ranges { start_address: 0x40000000 end_address: 0x80000000 type: TYPE_RAM }
      reserved_ranges { start_address: 0x40000000 end_address: 0x40200000 purpose: "kernel image" }
      cma_areas { start_address: 0x70000000 end_address: 0x72000000 name: "cma" }
      sysctls { key: "vm.swappiness" value: "10" }
      recorded { how: "ram 1G" })"}};
    return new Presets(*Presets::Parse(texts));
  }();
  return *presets;
}

v1::MachineSpec Base() {
  v1::MachineSpec spec;
  spec.set_preset("base");
  return spec;
}

TEST(MergePresetTest, TakesThePresetWhole) {
  const absl::StatusOr<v1::MachineSpec> merged = MergePreset(TestPresets(), Base());
  ASSERT_TRUE(merged.ok());
  EXPECT_EQ(merged->SerializeAsString().size(), TestPresets().Find("base")->SerializeAsString().size());
  EXPECT_EQ(merged->preset(), "base");
}

TEST(MergePresetTest, SetFieldsReplace) {
  v1::MachineSpec spec = Base();
  spec.set_cpus(2);
  spec.mutable_kernel()->set_release("6.1.9");
  (*spec.mutable_sysctls())["vm.overcommit_memory"] = "2";
  const absl::StatusOr<v1::MachineSpec> merged = MergePreset(TestPresets(), spec);
  ASSERT_TRUE(merged.ok());
  EXPECT_EQ(merged->cpus(), 2);
  EXPECT_EQ(merged->seed(), 7u);
  EXPECT_EQ(merged->kernel().release(), "6.1.9");
  EXPECT_EQ(merged->kernel().machine(), "");  // The field as a whole.
  EXPECT_EQ(merged->sysctls_size(), 1);
  EXPECT_EQ(merged->reserved_ranges_size(), 1);
}

TEST(MergePresetTest, OwnRamReplacesWhatLiesInThePresets) {
  v1::MachineSpec spec = Base();
  spec.set_ram_bytes(int64_t{2} << 30);
  const absl::StatusOr<v1::MachineSpec> merged = MergePreset(TestPresets(), spec);
  ASSERT_TRUE(merged.ok());
  EXPECT_EQ(merged->firmware_ranges_size(), 0);
  EXPECT_EQ(merged->reserved_ranges_size(), 0);
  EXPECT_EQ(merged->cma_areas_size(), 0);
  EXPECT_FALSE(merged->has_recorded());
  EXPECT_EQ(merged->cpus(), 4);
}

TEST(MergePresetTest, RefusesTwoDescriptionsOfRam) {
  v1::MachineSpec spec = Base();
  spec.set_ram_bytes(int64_t{2} << 30);
  spec.add_firmware_ranges();
  EXPECT_EQ(MergePreset(TestPresets(), spec).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(MergePresetTest, UnknownPresetIsNotFound) {
  v1::MachineSpec spec;
  spec.set_preset("vax-1G");
  EXPECT_EQ(MergePreset(TestPresets(), spec).status().code(), absl::StatusCode::kNotFound);
}

TEST(MachineSpecFromProtoTest, CarriesEveryField) {
  const absl::StatusOr<MachineSpec> native = MachineSpecFromProto(*MergePreset(TestPresets(), Base()));
  ASSERT_TRUE(native.ok()) << native.status();
  EXPECT_EQ(native->layout, LayoutKind::kArm64);
  EXPECT_EQ(native->cpus, 4);
  EXPECT_EQ(native->seed, 7u);
  EXPECT_EQ(native->command_line, "quiet");
  EXPECT_EQ(native->kernel_release, "6.1.0");
  EXPECT_EQ(native->boot_time_seconds, 1700000000);
  ASSERT_EQ(native->firmware_ranges.size(), 1u);
  EXPECT_EQ(native->firmware_ranges[0].range.end, PhysAddr(0x80000000));
  ASSERT_EQ(native->reserved_ranges.size(), 1u);
  EXPECT_EQ(native->reserved_ranges[0].purpose, "kernel image");
  ASSERT_EQ(native->cma_areas.size(), 1u);
  EXPECT_EQ(native->cma_areas[0].name, "cma");
  EXPECT_EQ(native->sysctls.at("vm.swappiness"), "10");
}

struct BadSpecCase {
  const char* name;
  std::function<void(v1::MachineSpec&)> spoil;
  const char* field;
};
class BadSpecTest : public testing::TestWithParam<BadSpecCase> {};

TEST_P(BadSpecTest, NamesTheField) {
  v1::MachineSpec spec = *MergePreset(TestPresets(), Base());
  GetParam().spoil(spec);
  const absl::Status status = MachineSpecFromProto(spec).status();
  ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  google::rpc::BadRequest bad;
  const auto payload = status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  ASSERT_TRUE(payload.has_value());
  ASSERT_TRUE(bad.ParseFromString(std::string(*payload)));
  ASSERT_EQ(bad.field_violations_size(), 1);
  EXPECT_EQ(bad.field_violations(0).field(), GetParam().field);
}

v1::IomemResource Deep(int levels) {
  v1::IomemResource resource;
  resource.set_last_address(1);
  if (levels > 0) *resource.add_children() = Deep(levels - 1);
  return resource;
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadSpecTest,
    testing::Values(
        BadSpecCase{"NoLayout", [](auto& s) { s.clear_layout(); }, "layout"},
        BadSpecCase{"UnknownLayout", [](auto& s) { s.set_layout(static_cast<v1::Layout>(9)); }, "layout"},
        BadSpecCase{"NegativeCpus", [](auto& s) { s.set_cpus(-1); }, "cpus"},
        BadSpecCase{"TooManyCpus", [](auto& s) { s.set_cpus(65); }, "cpus"},
        BadSpecCase{"NegativeTime", [](auto& s) { s.set_boot_time_seconds(-1); }, "boot_time_seconds"},
        BadSpecCase{"NegativeRam", [](auto& s) { s.set_ram_bytes(-1); }, "ram_bytes"},
        BadSpecCase{"OddRam", [](auto& s) { s.set_ram_bytes((int64_t{1} << 30) + 1); }, "ram_bytes"},
        BadSpecCase{"UnknownThp", [](auto& s) { s.set_transparent_hugepage(static_cast<v1::TransparentHugepage>(9)); },
                    "transparent_hugepage"},
        BadSpecCase{"FirmwareTypeNotSet", [](auto& s) { s.mutable_firmware_ranges(0)->clear_type(); }, "firmware_ranges[0].type"},
        BadSpecCase{"FirmwareEmpty", [](auto& s) { s.mutable_firmware_ranges(0)->set_end_address(0x40000000); },
                    "firmware_ranges[0].end_address"},
        BadSpecCase{"ReservationBackwards", [](auto& s) { s.mutable_reserved_ranges(0)->set_end_address(1); },
                    "reserved_ranges[0].end_address"},
        BadSpecCase{"PurposeWithNewline", [](auto& s) { s.mutable_reserved_ranges(0)->set_purpose("a\nb"); }, "reserved_ranges[0].purpose"},
        BadSpecCase{"CmaBackwards", [](auto& s) { s.mutable_cma_areas(0)->set_end_address(0); }, "cma_areas[0].end_address"},
        BadSpecCase{"SectionEmpty", [](auto& s) { s.add_kernel_sections(); }, "kernel_sections[0].end_address"},
        BadSpecCase{"IomemBackwards", [](auto& s) { s.add_iomem_resources()->set_start_address(5); }, "iomem_resources[0].last_address"},
        BadSpecCase{"CommandLineWithNewline", [](auto& s) { s.set_command_line("a\nb"); }, "command_line"},
        BadSpecCase{"LongHostname", [](auto& s) { s.set_hostname(std::string(5000, 'x')); }, "hostname"},
        BadSpecCase{"LongSysctl", [](auto& s) { (*s.mutable_sysctls())["vm.x"] = std::string(5000, '1'); }, "sysctls[\"vm.x\"]"}),
    [](const auto& tested) { return tested.param.name; });

TEST(MachineSpecFromProtoTest, RefusesBottomlessTrees) {
  v1::MachineSpec spec = *MergePreset(TestPresets(), Base());
  *spec.add_iomem_resources() = Deep(40);
  EXPECT_EQ(MachineSpecFromProto(spec).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmlab

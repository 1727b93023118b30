#include "server/arch/kernel_layout.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "server/machine/board.h"
#include "server/machine/boot.h"
#include "server/machine/memory_map.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

namespace fs = std::filesystem;

uint64_t Number(const nlohmann::json& value) {
  return value.is_string() ? std::stoull(value.get<std::string>(), nullptr, 0) : value.get<uint64_t>();
}

std::vector<std::string> Recorded() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator("tests/conformance/data/layout")) names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

std::map<std::string, uint64_t> Values(const KernelLayout& layout) {
  std::map<std::string, uint64_t> values;
  for (const LayoutValue& value : LayoutValues(layout)) values.emplace(value.name, value.value);
  return values;
}

class RecordedLayoutTest : public testing::TestWithParam<std::string> {};

// Every constant that a running kernel told and that has a rule.
TEST_P(RecordedLayoutTest, IsThatOfTheRunningKernel) {
  std::ifstream in("tests/conformance/data/layout/" + GetParam() + ".json");
  const nlohmann::json recorded = nlohmann::json::parse(in);
  MachineSpec spec;
  const std::string flavour = recorded["flavour"];
  spec.layout = flavour == "arm64" ? LayoutKind::kArm64 : flavour == "686" ? LayoutKind::kX86_32 : LayoutKind::kX86_32Pae;
  ASSERT_TRUE(DescribeUsualBoard(Bytes(recorded["ram_mb"].get<uint64_t>() << 20), spec).ok());
  ASSERT_TRUE(CompleteSpec(spec).ok());
  const auto layout = PlanKernelLayout(spec);
  ASSERT_TRUE(layout.ok()) << layout.status();
  size_t compared = 0;
  for (const auto& [name, value] : Values(*layout)) {
    const auto want = recorded.find(name == "memstart_addr" ? "PHYS_OFFSET" : name);
    if (want == recorded.end()) continue;
    EXPECT_EQ(value, Number(*want)) << name;
    ++compared;
  }
  EXPECT_GE(compared, 19u);
  if (layout->is_x86()) {
    EXPECT_EQ(layout->FixToVirt(layout->fix_kmap_begin), VirtAddr(Number(recorded["fix_kmap_first"])));
  }
}
INSTANTIATE_TEST_SUITE_P(Machines, RecordedLayoutTest, testing::ValuesIn(Recorded()), [](const auto& test) {
  return absl::StrReplaceAll(test.param, {{"-", "_"}});
});

struct LayoutCase {
  const char* name;
  KernelLayoutConfig config;
  uint64_t ram_mib;  // From 0, on ARM64 from 1 GiB.
  std::map<std::string, uint64_t> want;
};
class LayoutTest : public testing::TestWithParam<LayoutCase> {};

TEST_P(LayoutTest, FollowsFromItsConfiguration) {
  const LayoutCase& c = GetParam();
  const uint64_t first = c.config.kind == LayoutKind::kArm64 ? uint64_t{1} << (30 - c.config.page_size.shift()) : 1;
  const std::vector<PfnRange> ram = {
      {Pfn(first), Pfn((c.config.kind == LayoutKind::kArm64 ? first : 0) + ((c.ram_mib << 20) >> c.config.page_size.shift()))}};
  const auto layout = ComputeKernelLayout(c.config, ram, PhysAddr(0x40210000));
  ASSERT_TRUE(layout.ok()) << layout.status();
  const auto values = Values(*layout);
  for (const auto& [name, value] : c.want) EXPECT_EQ(values.at(name), value) << name;
  VirtAddr last(0);
  for (const LayoutRegion& region : LayoutRegions(*layout)) {
    EXPECT_LE(region.start, region.last) << region.name;
    if (region.start != VirtAddr(0)) {
      EXPECT_LT(last, region.start) << region.name;
    }
    last = region.last;
  }
}

KernelLayoutConfig X86(LayoutKind kind, VmSplit split, std::optional<Highmem> highmem = {}, uint64_t vmalloc_mib = 128) {
  KernelLayoutConfig config;
  config.kind = kind;
  config.vmsplit = split;
  config.highmem = highmem;
  config.vmalloc_reserve = Bytes(vmalloc_mib << 20);
  return config;
}
KernelLayoutConfig WithHighmem(uint64_t pages) {
  KernelLayoutConfig config;
  config.highmem_arg = PageCount(pages);
  return config;
}
KernelLayoutConfig Arm64(int va_bits, int page_shift, bool kasan = false) {
  KernelLayoutConfig config;
  config.kind = LayoutKind::kArm64;
  config.va_bits = va_bits;
  config.page_size = PageSize(page_shift);
  config.kasan = kasan;
  return config;
}

constexpr auto k32 = LayoutKind::kX86_32;
constexpr auto kPae = LayoutKind::kX86_32Pae;
INSTANTIATE_TEST_SUITE_P(
    Configurations, LayoutTest,
    testing::Values(
        LayoutCase{"Split3GOpt",
                   X86(k32, VmSplit::k3GOpt),
                   1024,
                   {{"PAGE_OFFSET", 0xb0000000}, {"MAXMEM", 0x46bfe000}, {"max_low_pfn", 0x40000}, {"highmem_pages", 0}}},
        LayoutCase{"Split2G",
                   X86(k32, VmSplit::k2G),
                   2048,
                   {{"PAGE_OFFSET", 0x80000000}, {"TASK_SIZE", 0x80000000}, {"max_low_pfn", 0x76bfe}, {"highmem_pages", 0x9402}}},
        LayoutCase{"Split2GOpt", X86(k32, VmSplit::k2GOpt), 2030, {{"max_low_pfn", 0x7ebfe}, {"highmem_pages", 0x202}}},
        LayoutCase{"Split1GPae", X86(kPae, VmSplit::k1G), 4096, {{"PAGE_OFFSET", 0x40000000}, {"max_low_pfn", 0xb6ffe}}},
        LayoutCase{"NoHighmemLosesTheRest",
                   X86(k32, VmSplit::k3G, Highmem::kOff),
                   2048,
                   {{"max_pfn", 0x36ffe}, {"LAST_PKMAP", 0}, {"VMALLOC_END", 0xfeffe000}}},
        LayoutCase{"WideVmalloc",
                   X86(k32, VmSplit::k3G, {}, 256 + 8),
                   1024,
                   {{"__VMALLOC_RESERVE", 264 << 20}, {"MAXMEM", 0x2e3fe000}, {"max_low_pfn", 0x2e3fe}, {"VMALLOC_START", 0xeebfe000}}},
        LayoutCase{
            "HighmemArgument", WithHighmem(0x4000), 512, {{"max_low_pfn", 0x1c000}, {"highmem_pages", 0x4000}, {"highstart_pfn", 0x1c000}}},
        LayoutCase{"HighmemArgumentTooBig", WithHighmem(0x20000), 512, {{"max_low_pfn", 0x20000}, {"highmem_pages", 0}}},
        LayoutCase{"HighmemArgumentCapsRam", WithHighmem(0x1000), 2048, {{"max_low_pfn", 0x36bfe}, {"max_pfn", 0x37bfe}}},
        LayoutCase{"NonPaeEndsAt4G", X86(k32, VmSplit::k3G), 8192, {{"max_pfn", 0x100000}}},
        LayoutCase{"Arm64Bits39",
                   Arm64(39, 12),
                   1024,
                   {{"PAGE_OFFSET", 0xffffff8000000000},
                    {"PAGE_END", 0xffffffc000000000},
                    {"VMALLOC_START", 0xffffffc008000000},
                    {"VMEMMAP_START", 0xfffffffe00000000},
                    {"VMALLOC_END", 0xfffffffdf0000000},
                    {"TASK_SIZE", 0x8000000000}}},
        LayoutCase{"Arm64Bits39LosesRam", Arm64(39, 12), 512 << 10, {{"max_pfn", 0x40000 + (256 << 18)}}},
        LayoutCase{
            "Arm64Kasan",
            Arm64(48, 12, true),
            1024,
            {{"KASAN_SHADOW_START", 0xffff600000000000}, {"KASAN_SHADOW_END", 0xffff800000000000}, {"PAGE_END", 0xffff600000000000}}},
        LayoutCase{"Arm64Pages16K", Arm64(47, 14), 1024, {{"PAGE_OFFSET", 0xffff800000000000}, {"VMEMMAP_START", 0xffffff8000000000}}},
        LayoutCase{"Arm64Pages64K", Arm64(42, 16), 1024, {{"PAGE_OFFSET", 0xfffffc0000000000}, {"VMEMMAP_START", 0xffffffff00000000}}}),
    [](const auto& test) { return test.param.name; });

struct RefusedCase {
  const char* name;
  KernelLayoutConfig config;
  const char* field;
};
class RefusedLayoutTest : public testing::TestWithParam<RefusedCase> {};

TEST_P(RefusedLayoutTest, NamesTheField) {
  const auto layout = ComputeKernelLayout(GetParam().config, std::vector<PfnRange>{{Pfn(1), Pfn(0x40000)}}, PhysAddr(0));
  ASSERT_EQ(layout.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StartsWith(layout.status().message(), std::string("spec.") + GetParam().field + ": ")) << layout.status();
}
INSTANTIATE_TEST_SUITE_P(Configurations, RefusedLayoutTest,
                         testing::Values(RefusedCase{"PaeWithOptSplit", X86(kPae, VmSplit::k3GOpt), "vmsplit"},
                                         RefusedCase{"NoSuchSplit", X86(k32, static_cast<VmSplit>(9)), "vmsplit"},
                                         RefusedCase{"PaeWithout64G", X86(kPae, VmSplit::k3G, Highmem::k4G), "highmem"},
                                         RefusedCase{"Highmem64GWithoutPae", X86(k32, VmSplit::k3G, Highmem::k64G), "highmem"},
                                         RefusedCase{"VmallocTakesAll", X86(k32, VmSplit::k3G, {}, 1000), "command_line"},
                                         RefusedCase{"VmallocIsEndless", X86(k32, VmSplit::k3G, {}, uint64_t{1} << 40), "command_line"},
                                         RefusedCase{"NoVmalloc", X86(k32, VmSplit::k3G, {}, 8), "command_line"},
                                         RefusedCase{"Bits42With4K", Arm64(42, 12), "va_bits"},
                                         RefusedCase{"Bits0", Arm64(0, 12), "va_bits"}),
                         [](const auto& test) { return test.param.name; });

TEST(BuiltOtherwiseTest, OtherPagesAndAddressesOnTheSameRam) {
  const MachineSpec spec = PresetSpec("arm64-1G");
  const auto layout = BuiltOtherwise(spec, 65536, 42);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->page_offset, VirtAddr(0xfffffc0000000000));
  EXPECT_EQ(layout->task_size, VirtAddr(uint64_t{1} << 42));
  EXPECT_EQ(layout->max_pfn, Pfn((uint64_t{0x40000000} + (uint64_t{1} << 30)) >> 16));
  EXPECT_EQ(BuiltOtherwise(spec, 16384, 47)->page_offset, VirtAddr(0xffff800000000000));
  EXPECT_FALSE(BuiltOtherwise(spec, 16384, 39).ok());
  EXPECT_FALSE(BuiltOtherwise(spec, 8192, 0).ok());
  EXPECT_FALSE(BuiltOtherwise(PresetSpec("686-64M"), 65536, 0).ok());
}

}  // namespace
}  // namespace mmlab

#include "server/machine/domains.h"

#include <optional>
#include <string>

#include "gtest/gtest.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

constexpr auto kCpu = AddressDomain::kCpu;
constexpr auto kDram = AddressDomain::kDram;
constexpr auto kPci = AddressDomain::kPci;

struct TranslateCase {
  const char* name;
  const char* preset;
  AddressDomain from, to;
  uint64_t address;
  std::optional<uint64_t> want;
};
class TranslateTest : public testing::TestWithParam<TranslateCase> {};

TEST_P(TranslateTest, FollowsTheWindows) {
  const TranslateCase& c = GetParam();
  const auto machine = Machine::Boot(PresetSpec(c.preset));
  ASSERT_TRUE(machine.ok()) << machine.status();
  const AddressDomains domains = DomainsOf(**machine);
  const auto got = domains.Translate(c.from, c.to, c.address);
  EXPECT_EQ(got.address, c.want);
  EXPECT_FALSE(got.steps.empty());
  if (got.address) {
    EXPECT_EQ(domains.Translate(c.to, c.from, *got.address).address, c.address);
  }
}
INSTANTIATE_TEST_SUITE_P(Domains, TranslateTest,
                         testing::Values(TranslateCase{"LowRam", "686-pae-4G", kCpu, kDram, 0x1234000, 0x1234000},
                                         TranslateCase{"RamAbove4GIsTheRestOfTheChips", "686-pae-4G", kCpu, kDram, 0x100000000, 0xc0000000},
                                         TranslateCase{"ChipsBack", "686-pae-4G", kDram, kCpu, 0xffffffff, 0x13fffffff},
                                         TranslateCase{"BeyondTheChips", "686-pae-4G", kDram, kCpu, 0x100000000, std::nullopt},
                                         TranslateCase{"DeviceInTheWindow", "686-1G", kCpu, kPci, 0xfebff000, 0xfebff000},
                                         TranslateCase{"DeviceIsNoRam", "686-1G", kCpu, kDram, 0xfebff000, std::nullopt},
                                         TranslateCase{"VideoMemoryHidesChips", "686-1G", kCpu, kDram, 0xa0000, std::nullopt},
                                         TranslateCase{"Dma", "686-pae-4G", kPci, kDram, 0x100001000, 0xc0001000},
                                         TranslateCase{"Nobody", "686-1G", kCpu, kDram, 0xfee00000, std::nullopt},
                                         TranslateCase{"Top", "686-1G", kCpu, kDram, ~uint64_t{0}, std::nullopt},
                                         TranslateCase{"Arm64Bank", "arm64-1G", kCpu, kDram, 0x40000000, 0},
                                         TranslateCase{"Arm64Window", "arm64-1G", kCpu, kPci, 0x8000000000, 0x8000000000},
                                         TranslateCase{"Arm64NoRamAtZero", "arm64-1G", kCpu, kDram, 0, std::nullopt}),
                         [](const auto& test) { return test.param.name; });

TEST(DmaMaskTest, SaysWhichZonesADeviceReaches) {
  const auto machine = Machine::Boot(PresetSpec("686-pae-4G"));
  ASSERT_TRUE(machine.ok());
  EXPECT_EQ(EffectOfDmaMask(**machine, 24).zones, std::vector<std::string>({"DMA"}));
  EXPECT_EQ(EffectOfDmaMask(**machine, 32).zones, std::vector<std::string>({"DMA", "Normal"}));
  EXPECT_EQ(EffectOfDmaMask(**machine, 36).zones, std::vector<std::string>({"DMA", "Normal", "HighMem"}));
  EXPECT_EQ(EffectOfDmaMask(**machine, 64).advice, "reaches all RAM: any page will do");
  EXPECT_EQ(EffectOfDmaMask(**machine, 32).reachable, Bytes(0x9fc00 - 0x1000 + 0xbffdd000 - 0x100000));
}

}  // namespace
}  // namespace mmlab

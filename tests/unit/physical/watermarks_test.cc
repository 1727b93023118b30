// The derived settings of zones against what real kernels show in /proc/zoneinfo, given the managed pages of each zone.

#include "server/physical/watermarks.h"

#include <array>
#include <cstdint>

#include "gtest/gtest.h"

namespace mmlab {
namespace {

struct CapturedZone {
  uint32_t present;
  uint32_t managed;
  uint64_t min, low, high;
  std::array<uint64_t, kZones> protection;
  uint32_t pcp_high, pcp_batch;
  int32_t threshold;
};

struct Capture {
  const char* name;
  ZoneSet zones;
  int pageblock_order;
  int cpus;
  bool hugepages;
  uint32_t late;             // Pages freed after the settings were computed (initramfs, init sections)...
  int late_zone;             // ... into this zone.
  uint32_t min_free_kbytes;  // 0: not captured.
  std::array<CapturedZone, kZones> zone;
};

class WatermarksTest : public testing::TestWithParam<Capture> {};

TEST_P(WatermarksTest, AreThoseOfTheKernel) {
  const Capture& capture = GetParam();
  std::array<Zone, kZones> zones;
  const std::vector<ZoneType> types = ZoneTypesOf(capture.zones);
  for (size_t i = 0; i < zones.size(); ++i) {
    zones[i].index = static_cast<int>(i);
    zones[i].type = types[i];
    zones[i].present = zones[i].spanned = capture.zone[i].present;
    zones[i].managed = capture.zone[i].managed - (static_cast<int>(i) == capture.late_zone ? capture.late : 0);
    if (zones[i].populated()) zones[i].pcp.resize(static_cast<size_t>(capture.cpus));
  }
  for (Zone& zone : zones) {
    zone.highmem =
        zone.type == ZoneType::kHighMem || (zone.type == ZoneType::kMovable && zones[2].type == ZoneType::kHighMem && zones[2].populated());
  }
  BootSettings settings;
  settings.pageblock_order = capture.pageblock_order;
  settings.cpus = capture.cpus;
  settings.transparent_hugepage = capture.hugepages;
  settings.lowmem_reserve_ratio = {256, 256, 32, 0, 0};
  const uint32_t min_free_kbytes = ComputeBootSettings(absl::MakeSpan(zones), settings);
  if (capture.min_free_kbytes != 0) {
    EXPECT_EQ(min_free_kbytes, capture.min_free_kbytes);
  }
  for (size_t i = 0; i < zones.size(); ++i) {
    SCOPED_TRACE(zones[i].name());
    EXPECT_EQ(zones[i].wmark_min, capture.zone[i].min);
    EXPECT_EQ(zones[i].wmark_low, capture.zone[i].low);
    EXPECT_EQ(zones[i].wmark_high, capture.zone[i].high);
    EXPECT_EQ(zones[i].lowmem_reserve, capture.zone[i].protection);
    if (!zones[i].populated()) continue;
    EXPECT_EQ(zones[i].pcp[0].high, capture.zone[i].pcp_high);
    EXPECT_EQ(zones[i].pcp[0].batch, capture.zone[i].pcp_batch);
    EXPECT_EQ(zones[i].stat_threshold, capture.zone[i].threshold);
  }
}

// Generated from zoneinfo, sys_vm/min_free_kbytes and the "Freeing ... memory" lines of dmesg of recorded machines. Those
// named kernel_* had huge pages enabled; what they freed late is not recorded, so `late` is one of the few numbers with which all others
// fit.
// clang-format off
INSTANTIATE_TEST_SUITE_P(Captures, WatermarksTest, testing::Values(
    Capture{"686_1G",ZoneSet::kX86_32,10,1,false,476,1,3715,{{{3998,3840,16,20,24,{0,833,981,981},20,1,2},{220158,213777,911,1138,1365,{0,0,1182,1182},1138,63,8},{37855,37855,36,76,116,{0,0,0,0},76,7,4},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"686_1G_memblock_debug",ZoneSet::kX86_32,10,1,false,476,1,3715,{{{3998,3840,16,20,24,{0,833,981,981},20,1,2},{220158,213777,911,1138,1365,{0,0,1182,1182},1138,63,8},{37855,37855,36,76,116,{0,0,0,0},76,7,4},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"686_1G_smp4",ZoneSet::kX86_32,10,4,false,476,1,3715,{{{3998,3840,16,20,24,{0,832,980,980},5,1,6},{220158,213678,911,1138,1365,{0,0,1182,1182},284,63,24},{37855,37855,36,76,116,{0,0,0,0},28,7,12},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"686_3584M",ZoneSet::kX86_32,10,1,false,476,1,3671,{{{3998,3840,16,20,24,{0,813,3009,3009},20,1,2},{220158,208657,900,1125,1350,{0,0,17566,17566},1125,63,8},{562143,562143,128,735,1342,{0,0,0,0},735,63,12},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"686_512M",ZoneSet::kX86_32,10,1,false,476,1,2831,{{{3998,3840,21,26,31,{0,474,474,474},26,1,2},{126941,121936,685,856,1027,{0,0,0,0},856,31,6},{0,0,32,32,32,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"686_64M",ZoneSet::kX86_32,10,1,false,476,1,869,{{{3998,3840,70,87,104,{0,31,31,31},87,1,2},{12253,8452,146,182,218,{0,0,0,0},182,1,2},{0,0,32,32,32,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"686_pae_1G",ZoneSet::kX86_32,9,1,false,480,1,3724,{{{3998,3840,16,20,24,{0,837,980,980},20,1,2},{221182,214757,914,1142,1370,{0,0,1150,1150},1142,63,8},{36831,36831,35,74,113,{0,0,0,0},74,7,4},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"686_pae_1G_memblock_debug",ZoneSet::kX86_32,9,1,false,480,1,3724,{{{3998,3840,16,20,24,{0,837,980,980},20,1,2},{221182,214757,914,1142,1370,{0,0,1150,1150},1142,63,8},{36831,36831,35,74,113,{0,0,0,0},74,7,4},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"686_pae_1G_smp4",ZoneSet::kX86_32,9,4,false,480,1,3723,{{{3998,3840,16,20,24,{0,836,980,980},5,1,6},{221182,214658,913,1141,1369,{0,0,1150,1150},285,63,24},{36831,36831,35,74,113,{0,0,0,0},28,7,12},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"686_pae_4G",ZoneSet::kX86_32,9,1,false,480,1,3487,{{{3998,3840,17,21,25,{0,732,3948,3948},21,1,2},{221182,188005,853,1066,1279,{0,0,25726,25726},1066,63,8},{823263,823263,128,1064,2000,{0,0,0,0},1064,63,12},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"arm64_128M",ZoneSet::kArm64,9,1,false,1826,0,1223,{{{32768,25233,305,381,457,{0,0,0,0},381,3,2},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"arm64_1G",ZoneSet::kArm64,9,1,false,1826,0,3975,{{{262144,250241,993,1241,1489,{0,0,0,0},1241,63,8},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"arm64_1G_memblock_debug",ZoneSet::kArm64,9,1,false,1826,0,3975,{{{262144,250241,993,1241,1489,{0,0,0,0},1241,63,8},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"arm64_1G_smp4",ZoneSet::kArm64,9,4,false,1826,0,3974,{{{262144,250147,993,1241,1489,{0,0,0,0},310,63,24},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"arm64_4G",ZoneSet::kArm64,9,1,false,1826,0,7997,{{{786432,763220,1517,2278,3039,{0,0,944,944},2278,63,12},{0,0,0,0,0,{0,0,0,0},0,0,0},{262144,241897,481,722,963,{0,0,0,0},722,63,8},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_686_1G",ZoneSet::kX86_32,10,1,true,513,1,0,{{{3998,3840,190,237,284,{0,833,980,980},237,1,2},{220158,213777,10594,13242,15890,{0,0,1182,1182},13242,63,8},{37855,37855,36,506,976,{0,0,0,0},506,7,4},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_686_128M",ZoneSet::kX86_32,10,1,true,520,1,0,{{{3998,3840,45,56,67,{0,94,94,94},56,1,2},{28637,24664,288,360,432,{0,0,0,0},360,3,2},{0,0,32,32,32,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_686_512M",ZoneSet::kX86_32,10,1,true,520,1,0,{{{3998,3840,21,26,31,{0,474,474,474},26,1,2},{126941,121936,685,856,1027,{0,0,0,0},856,31,6},{0,0,32,32,32,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_686_2G",ZoneSet::kX86_32,10,1,true,480,1,0,{{{3998,3840,190,237,284,{0,823,1995,1995},237,1,2},{220158,211217,10468,13085,15702,{0,0,9374,9374},13085,63,8},{299999,299999,128,3853,7578,{0,0,0,0},3853,63,10},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_686_pae_4G",ZoneSet::kX86_32,9,1,true,472,1,0,{{{3998,3840,190,237,284,{0,732,3948,3948},237,1,2},{221182,188005,9312,11640,13968,{0,0,25726,25726},11640,63,8},{823263,823263,128,10348,20568,{0,0,0,0},10348,63,12},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_686_pae_1G",ZoneSet::kX86_32,9,1,true,509,1,0,{{{3998,3840,190,237,284,{0,836,980,980},237,1,2},{221182,214757,10643,13303,15963,{0,0,1150,1150},13303,63,8},{36831,36831,35,492,949,{0,0,0,0},492,7,4},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_arm64_4G",ZoneSet::kArm64,9,1,true,1826,0,0,{{{786432,763220,8548,10685,12822,{0,0,944,944},10685,63,12},{0,0,0,0,0,{0,0,0,0},0,0,0},{262144,241897,2715,3393,4071,{0,0,0,0},3393,63,8},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_arm64_128M",ZoneSet::kArm64,9,1,true,1900,0,0,{{{32768,25233,305,381,457,{0,0,0,0},381,3,2},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_arm64_1G",ZoneSet::kArm64,9,1,true,1826,0,0,{{{262144,250241,5632,7040,8448,{0,0,0,0},7040,63,8},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_686_1G_smp2",ZoneSet::kX86_32,10,2,true,493,1,0,{{{3998,3840,190,237,284,{0,833,980,980},118,1,4},{220158,213744,10593,13241,15889,{0,0,1182,1182},6620,63,16},{37855,37855,36,506,976,{0,0,0,0},253,7,8},{0,0,32,32,32,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_arm64_128M_smp2",ZoneSet::kArm64,9,2,true,1860,0,0,{{{32768,25201,305,381,457,{0,0,0,0},190,3,4},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}},
    Capture{"kernel_686_128M_smp2",ZoneSet::kX86_32,10,2,true,490,1,0,{{{3998,3840,45,56,67,{0,94,94,94},28,1,4},{28637,24631,288,360,432,{0,0,0,0},180,3,4},{0,0,32,32,32,{0,0,0,0},0,0,0},{0,0,0,0,0,{0,0,0,0},0,0,0}}}}),
    [](const auto& test) { return test.param.name; });
// clang-format on

}  // namespace
}  // namespace mmlab

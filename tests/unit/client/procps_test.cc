#include <gtest/gtest.h>

#include <string>

#include "client/procps/proc_text.h"
#include "client/procps/top.h"
#include "client/procps/vmstat.h"

// The texts below were taken from vmstat and top of procps-ng 4.0.2 on a host whose /proc said the same.

namespace mmlab {
namespace {

constexpr char kStat[] =
    "cpu  1124228 106423 143462 1178928 965 0 653 642 0 0\n"
    "cpu0 574596 43041 68951 590110 193 0 181 321 0 0\n"
    "intr 6631753 0 0\n"
    "ctxt 23921984\n"
    "btime 1795604783\n"
    "processes 166476\n"
    "procs_running 3\n"
    "procs_blocked 0\n";
constexpr char kMeminfo[] =
    "MemTotal:       24684100 kB\n"
    "MemFree:        18717068 kB\n"
    "MemAvailable:   22671284 kB\n"
    "Buffers:           43188 kB\n"
    "Cached:          4100000 kB\n"
    "Active:          1987536 kB\n"
    "Inactive:        3207764 kB\n"
    "SReclaimable:     149168 kB\n"
    "SwapTotal:             0 kB\n"
    "SwapFree:              0 kB\n";
constexpr char kVmstat[] = "pgpgin 5772357\npgpgout 30325844\npswpin 0\npswpout 0\n";

VmstatSample Sample() {
  VmstatSample sample;
  sample.stat = ParseProcStat(kStat);
  sample.meminfo = ParseProcNumbers(kMeminfo);
  sample.vmstat = ParseProcNumbers(kVmstat);
  sample.time_seconds = 1795617576;
  return sample;
}

std::string Screen(const VmstatLayout& layout) { return VmstatHeader(layout) + VmstatRow(layout, VmstatSample(), Sample()); }

TEST(VmstatTest, Default) {
  EXPECT_EQ(Screen({}),
            "procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----\n"
            " r  b   swpd   free   buff  cache   si   so    bi    bo   in   cs us sy id wa st\n"
            " 3  0      0 18717068  43188 4249168    0    0   226  1187  260  936 48  6 46  0  0\n");
}

TEST(VmstatTest, ActiveMemory) {
  EXPECT_EQ(Screen({.active = true}),
            "procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----\n"
            " r  b   swpd   free  inact active   si   so    bi    bo   in   cs us sy id wa st\n"
            " 3  0      0 18717068 3207764 1987536    0    0   226  1187  260  936 48  6 46  0  0\n");
}

TEST(VmstatTest, WideInMebibytesWithTheClock) {
  EXPECT_EQ(Screen({.wide = true, .timestamp = true, .unit = 1048576}),
            "--procs-- -----------------------memory---------------------- ---swap-- -----io---- -system-- ----------cpu---------- "
            "-----timestamp-----\n"
            "   r    b         swpd         free         buff        cache   si   so    bi    bo   in   cs  us  sy  id  wa  st  gu       "
            "          UTC\n"
            "   3    0            0        18278           42         4149    0    0   226  1187  260  936  48   6  46   0   0   0 "
            "2026-11-25 14:39:36\n");
}

TEST(VmstatTest, TheNextLineIsTheDifference) {
  VmstatSample later = Sample();
  later.stat.idle += 100;
  later.stat.user += 100;
  later.stat.switches += 50;
  EXPECT_EQ(VmstatRow({}, Sample(), later), " 3  0      0 18717068  43188 4249168    0    0     0     0    0   25 50  0 50  0  0\n");
  // No time has passed: nothing happened.
  EXPECT_EQ(VmstatRow({}, later, later), " 3  0      0 18717068  43188 4249168    0    0     0     0    0    0  0  0 100  0  0\n");
}

TEST(VmstatTest, Sums) {
  const std::string text = VmstatSums({}, Sample());
  EXPECT_EQ(text.substr(0, 57), "     24684100 K total memory\n      2012816 K used memory\n");
  EXPECT_NE(text.find("\n      4249168 K swap cache\n"), std::string::npos);
  EXPECT_NE(text.find("\n      1124228 non-nice user cpu ticks\n"), std::string::npos);
  EXPECT_NE(text.find("\n   1795604783 boot time\n       166476 forks\n"), std::string::npos);
}

TEST(VmstatTest, Forks) { EXPECT_EQ(VmstatForks(ParseProcStat(kStat)), "       166476 forks\n"); }

TEST(VmstatTest, SlabsByName) {
  const auto slabs = ParseSlabinfo(
      "slabinfo - version: 2.1\n"
      "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n"
      "MPTCP                  0      0   1984   16    8 : tunables    0    0    0 : slabdata      0      0      0\n"
      "AF_VSOCK              48     48   1280   12    4 : tunables    0    0    0 : slabdata      4      4      0\n");
  EXPECT_EQ(VmstatSlabs(slabs, 21),
            "Cache                       Num  Total   Size  Pages\n"
            "AF_VSOCK                     48     48   1280     12\n"
            "MPTCP                         0      0   1984     16\n");
  EXPECT_EQ(VmstatSlabs(slabs, 1),
            "Cache                       Num  Total   Size  Pages\n"
            "AF_VSOCK                     48     48   1280     12\n"
            "Cache                       Num  Total   Size  Pages\n"
            "MPTCP                         0      0   1984     16\n");
}

TEST(VmstatTest, Disks) {
  const auto disks = ParseDiskstats(
      " 254 0 vda 268012 23817 11544714 143060 242475 226512 60651688 243191 0 83000 502\n 254 1 vda1 9 0 72 1 0 0 0 0 0 0 0\n");
  EXPECT_EQ(VmstatDisks({}, disks),
            "disk- ------------reads------------ ------------writes----------- -----IO------\n"
            "       total merged sectors      ms  total merged sectors      ms    cur    sec\n"
            "vda   268012  23817 11544714  143060 242475 226512 60651688  243191      0     83\n");
  EXPECT_EQ(VmstatDiskSums(disks).substr(0, 71), "            1 disks\n            1 partitions\n       268012 total reads\n");
}

TEST(TopTest, Screen) {
  TopSample now;
  now.stat = ParseProcStat("cpu  250 0 50 700 0 0 0 0 0 0\n");
  now.meminfo = ParseProcNumbers(kMeminfo);
  now.loadavg = "2.22 2.28 2.38 1/3 7\n";
  now.time_seconds = 1795617576;
  now.uptime_seconds = 3 * 3600 + 33 * 60;
  now.uptime_ticks = 1000;
  const auto sleeper = ParseTopTask("1 (init) S 0 0 0 0 -1 0 10 0 0 0 0 0 0 0 20 0 1 0 0 55189504 5932 0", "13474 5932 1562 1 0 1 0", 1000);
  const auto hog =
      ParseTopTask("4023 (a (strange) b) R 1 0 0 0 -1 0 10 0 0 0 250 50 0 0 20 0 1 0 500 1314004992 320000 0", "1 320000 6657 1 0 1 0", 0);
  ASSERT_TRUE(sleeper.has_value() && hog.has_value());
  now.tasks = {*sleeper, *hog};
  EXPECT_EQ(TopText(nullptr, now, 0),
            "top - 14:39:36 up  3:33,  0 user,  load average: 2.22, 2.28, 2.38\n"
            "Tasks:   2 total,   1 running,   1 sleeping,   0 stopped,   0 zombie\n"
            "%Cpu(s): 25.0 us,  5.0 sy,  0.0 ni, 70.0 id,  0.0 wa,  0.0 hi,  0.0 si,  0.0 st \n"
            "MiB Mem :  24105.6 total,  18278.4 free,   1965.6 used,   4191.8 buff/cache     \n"
            "MiB Swap:      0.0 total,      0.0 free,      0.0 used.  22139.9 avail Mem \n"
            "\n"
            "  PID USER      PR  NI    VIRT    RES    SHR S  %CPU  %MEM     TIME+ COMMAND\n"
            " 4023 root      20   0 1283208   1.2g  26628 R  60.0   5.2   0:03.00 a (strange) b\n"
            "    1 1000      20   0   53896  23728   6248 S   0.0   0.1   0:00.00 init\n");
  // Since an earlier look only what happened in between counts.
  TopSample before = now;
  before.uptime_ticks = 900;
  before.tasks[1].ticks -= 100;
  EXPECT_NE(TopText(&before, now, 1).find(" R 100.0 "), std::string::npos);
  EXPECT_EQ(TopText(&before, now, 1).find("init"), std::string::npos);
}

TEST(TopTest, WhatIsNoProcessIsRefused) {
  for (const char* stat : {"", "1", "1 (x", "1 )x( S", "1 (x) S 0 0"}) EXPECT_FALSE(ParseTopTask(stat, "1 2 3", 0).has_value()) << stat;
}

}  // namespace
}  // namespace mmlab

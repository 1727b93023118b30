#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/metrics/collector.h"

namespace mmlab {
namespace {

using testing::HasSubstr;
using testing::Not;

Zone MakeZone(ZoneType type, uint32_t present) {
  Zone zone;
  zone.type = type;
  zone.spanned = present == 0 ? 0 : present + 5;
  zone.present = present;
  zone.managed = present == 0 ? 0 : present - 10;
  zone.wmark_min = 10;
  zone.wmark_low = 12;
  zone.wmark_high = 14;
  zone.lowmem_reserve = {0, 7, 8, 9};
  zone.pcp.resize(2);
  zone.stats[static_cast<size_t>(ZoneStat::kNrFreePages)] = present / 2;
  return zone;
}

MachineSnapshot MakeSnapshot() {
  MachineSnapshot snapshot;
  snapshot.layout = &GetLayout(LayoutKind::kX86_32);
  snapshot.zones = {MakeZone(ZoneType::kDma, 0), MakeZone(ZoneType::kNormal, 1000), MakeZone(ZoneType::kHighMem, 500),
                    MakeZone(ZoneType::kMovable, 0)};
  return snapshot;
}

TEST(MeminfoCollector, NamesFieldsAsNodeExporterDoes) {
  MachineSnapshot snapshot;
  snapshot.meminfo = {{"MemTotal", 4, true}, {"Active(anon)", 0, true}, {"HugePages_Total", 3, false}, {"Committed_AS", 1, true}};
  const std::string text = Exposition(CollectMeminfo(snapshot));
  EXPECT_THAT(text, HasSubstr("# HELP node_memory_MemTotal_bytes Memory information field MemTotal_bytes.\n"
                              "# TYPE node_memory_MemTotal_bytes gauge\nnode_memory_MemTotal_bytes 4096\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_memory_Active_anon_bytes 0\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_memory_HugePages_Total 3\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_memory_Committed_AS_bytes 1024\n"));
}

TEST(VmstatCollector, HasNodeExportersFieldsByDefaultAndAllOnRequest) {
  MachineSnapshot snapshot;
  for (const char* name : {"nr_free_pages", "pgpgin", "pswpout", "pgfault", "pgmajfault", "pgfree", "oom_kill", "numa_hint_faults"}) {
    snapshot.vmstat.push_back({name, 5});
  }
  const std::string some = Exposition(CollectVmstat(snapshot));
  for (const char* name : {"pgpgin", "pswpout", "pgfault", "pgmajfault", "oom_kill"}) {
    EXPECT_THAT(some, HasSubstr(std::string("# TYPE node_vmstat_") + name + " untyped\nnode_vmstat_" + name + " 5\n"));
  }
  for (const char* name : {"nr_free_pages", "pgfree", "numa_hint_faults"}) EXPECT_THAT(some, Not(HasSubstr(name)));
  EXPECT_EQ(CollectVmstatAll(snapshot).size(), 8u);
}

TEST(BuddyinfoCollector, HasElevenOrdersOfEachPopulatedZone) {
  MachineSnapshot snapshot = MakeSnapshot();
  snapshot.zones[1].free_area[10].nr_free = 17;
  const Families families = CollectBuddyinfo(snapshot);
  ASSERT_EQ(families.size(), 1u);
  EXPECT_EQ(families[0].metric.size(), 22u);
  EXPECT_THAT(Exposition(families), HasSubstr("\nnode_buddyinfo_blocks{node=\"0\",size=\"10\",zone=\"Normal\"} 17\n"));
}

TEST(ZoneinfoCollector, MarksAreOfAllZonesAndFreePagesOfPopulatedOnes) {
  MachineSnapshot snapshot = MakeSnapshot();
  snapshot.zones[2].watermark_boost = 100;
  const std::string text = Exposition(CollectZoneinfo(snapshot));
  EXPECT_THAT(text, HasSubstr("\nnode_zoneinfo_min_pages{node=\"0\",zone=\"Movable\"} 10\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_zoneinfo_min_pages{node=\"0\",zone=\"HighMem\"} 110\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_zoneinfo_spanned_pages{node=\"0\",zone=\"Normal\"} 1005\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_zoneinfo_protection_3{node=\"0\",zone=\"DMA\"} 9\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_zoneinfo_nr_free_pages{node=\"0\",zone=\"Normal\"} 500\n"));
  EXPECT_THAT(text, Not(HasSubstr("nr_free_pages{node=\"0\",zone=\"Movable\"}")));
}

TEST(ZoneinfoCollector, NodeStatisticsAreUnderTheFirstPopulatedZone) {
  MachineSnapshot snapshot = MakeSnapshot();
  snapshot.vm_stat.Add(NodeStat::kNrAnonPages, 42);
  const std::string text = Exposition(CollectZoneinfo(snapshot));
  EXPECT_THAT(text, HasSubstr("\nnode_zoneinfo_nr_anon_pages{node=\"0\",zone=\"Normal\"} 42\n"));
  EXPECT_THAT(text, Not(HasSubstr("nr_anon_pages{node=\"0\",zone=\"HighMem\"}")));
  EXPECT_THAT(text, HasSubstr("# TYPE node_zoneinfo_nr_dirtied_total counter\n"));
}

TEST(ZoneinfoCollector, NumaCountersNeedTheConfigurationAndAreOfEachPopulatedZone) {
  MachineSnapshot snapshot = MakeSnapshot();
  EXPECT_THAT(Exposition(CollectZoneinfo(snapshot)), Not(HasSubstr("numa_hit")));
  snapshot.has_numa = true;
  snapshot.zones[1].numa_hits = 3;
  const std::string text = Exposition(CollectZoneinfo(snapshot));
  EXPECT_THAT(text, HasSubstr("\nnode_zoneinfo_numa_hit_total{node=\"0\",zone=\"Normal\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_zoneinfo_numa_hit_total{node=\"0\",zone=\"HighMem\"} 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("numa_hit_total{node=\"0\",zone=\"Movable\"}")));
}

TEST(MeminfoNumaCollector, HasTheExportersNames) {
  MachineSnapshot snapshot;
  snapshot.node_meminfo = {{"MemTotal", 4, true}, {"Active(anon)", 0, true}, {"HugePages_Total", 3, false}};
  snapshot.numastat = {
      {{"numa_hit", 5}, {"numa_miss", 0}, {"numa_foreign", 0}, {"interleave_hit", 0}, {"local_node", 5}, {"other_node", 0}}};
  const std::string text = Exposition(CollectMeminfoNuma(snapshot));
  EXPECT_THAT(text, HasSubstr("# HELP node_memory_numa_MemTotal Memory information field MemTotal.\n"
                              "# TYPE node_memory_numa_MemTotal gauge\nnode_memory_numa_MemTotal{node=\"0\"} 4096\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_memory_numa_Active_anon{node=\"0\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_memory_numa_HugePages_Total{node=\"0\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE node_memory_numa_numa_hit_total counter\nnode_memory_numa_numa_hit_total{node=\"0\"} 5\n"));
}

TEST(KsmdCollector, HasTheExportersNames) {
  MachineSnapshot snapshot;
  snapshot.ksm = {{"full_scans", "3\n"}, {"pages_sharing", "6\n"}, {"run", "1\n"}, {"sleep_millisecs", "20\n"}};
  const std::string text = Exposition(CollectKsmd(snapshot));
  EXPECT_THAT(text, HasSubstr("# TYPE node_ksmd_full_scans_total counter\nnode_ksmd_full_scans_total 3\n"));
  EXPECT_THAT(text, HasSubstr("# HELP node_ksmd_pages_sharing ksmd 'pages_sharing' file.\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_ksmd_run 1\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_ksmd_sleep_seconds 0.02\n"));
}

TEST(SystemCollectors, SayWhatUnameAndTheClockSay) {
  MachineSnapshot snapshot = MakeSnapshot();
  snapshot.kernel_release = "6.1.0-50-686";
  snapshot.kernel_version = "#1 SMP";
  snapshot.uname_machine = "i686";
  snapshot.hostname = "box";
  snapshot.now_nanoseconds = 1700000000500000000;
  EXPECT_THAT(
      Exposition(CollectUname(snapshot)),
      HasSubstr("\nnode_uname_info{domainname=\"(none)\",machine=\"i686\",nodename=\"box\",release=\"6.1.0-50-686\",sysname=\"Linux\","
                "version=\"#1 SMP\"} 1\n"));
  EXPECT_THAT(Exposition(CollectTime(snapshot)), HasSubstr("\nnode_time_seconds 1700000000.5\n"));
}

TEST(MmlabCollector, HasIndexesBoostAndCpuLists) {
  MachineSnapshot snapshot = MakeSnapshot();
  snapshot.preset = "686-1G";
  snapshot.zones[1].free_area[0].nr_free = 4;
  snapshot.zones[1].pcp[1].count = 31;
  snapshot.operations_applied = 12;
  const std::string text = Exposition(CollectMmlab(snapshot));
  EXPECT_THAT(text, HasSubstr("\nmmlab_machine_info{arch=\"x86_32\",kernel=\"\",page_size=\"4096\",preset=\"686-1G\",slab=\"slub\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\nmmlab_zone_unusable_index{node=\"0\",size=\"1\",zone=\"Normal\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\nmmlab_zone_extfrag_index{node=\"0\",size=\"0\",zone=\"Normal\"} -1\n"));
  EXPECT_THAT(text, HasSubstr("\nmmlab_zone_extfrag_index{node=\"0\",size=\"1\",zone=\"Normal\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("\nmmlab_zone_pcp_pages{cpu=\"1\",node=\"0\",zone=\"Normal\"} 31\n"));
  EXPECT_THAT(text, HasSubstr("\nmmlab_operations_applied_total 12\n"));
}

TEST(MmlabCollector, CountsPageTablesByLevelAndVmallocAreas) {
  MachineSnapshot snapshot = MakeSnapshot();
  snapshot.page_tables = {{"pte", 7}, {"pgd", 2}};
  snapshot.vmalloc_areas = 31;
  const std::string text = Exposition(CollectMmlab(snapshot));
  EXPECT_THAT(text, HasSubstr("\nmmlab_page_table_pages{level=\"pte\"} 7\nmmlab_page_table_pages{level=\"pgd\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("\nmmlab_vmalloc_areas 31\n"));
}

// Texts as a recorded kernel printed them, cut.
TEST(TextCollectors, ReadWhatTheKernelPrints) {
  MachineSnapshot snapshot;
  snapshot.stat =
      "cpu  1 0 335 787 0 0 3 0 0 0\ncpu0 0 0 78 235 0 0 0 0 0 0\ncpu1 1 2 51 221 4 5 1 6 0 0\nintr 3379 48 9 0 0\nctxt 1351\n"
      "btime 1795312792\nprocesses 99\nprocs_running 1\nprocs_blocked 3\nsoftirq 1281 0 107\n";
  const std::string cpu = Exposition(CollectCpu(snapshot));
  EXPECT_THAT(cpu, HasSubstr("# TYPE node_cpu_seconds_total counter\nnode_cpu_seconds_total{cpu=\"0\",mode=\"user\"} 0\n"));
  EXPECT_THAT(cpu, HasSubstr("\nnode_cpu_seconds_total{cpu=\"1\",mode=\"idle\"} 2.21\n"));
  EXPECT_THAT(cpu, HasSubstr("\nnode_cpu_seconds_total{cpu=\"1\",mode=\"steal\"} 0.06\n"));
  EXPECT_EQ(CollectCpu(snapshot)[0].metric.size(), 16u);
  const std::string stat = Exposition(CollectStat(snapshot));
  for (const char* line : {"\nnode_boot_time_seconds 1795312792\n", "\nnode_forks_total 99\n", "\nnode_intr_total 3379\n",
                           "\nnode_context_switches_total 1351\n", "\nnode_procs_running 1\n", "\nnode_procs_blocked 3\n"}) {
    EXPECT_THAT(stat, HasSubstr(line));
  }
  snapshot.loadavg = "0.15 0.07 0.02 1/63 96\n";
  EXPECT_THAT(Exposition(CollectLoadavg(snapshot)), HasSubstr("\nnode_load1 0.15\n"));
  snapshot.pressure_memory = "some avg10=1.00 avg60=0.50 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
  const std::string pressure = Exposition(CollectPressure(snapshot));
  EXPECT_THAT(pressure, HasSubstr("\nnode_pressure_memory_waiting_seconds_total 1.5\n"));
  EXPECT_THAT(pressure, HasSubstr("node_pressure_memory_stalled_seconds_total 7e-06\n"));
  EXPECT_THAT(pressure, Not(HasSubstr("_io_")));
}

TEST(TextCollectors, SwapsAndSlabs) {
  MachineSnapshot snapshot;
  snapshot.swaps =
      "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/vda                                partition\t65532\t\t1024\t\t-2\n";
  const std::string swap = Exposition(CollectSwap(snapshot));
  EXPECT_THAT(swap, HasSubstr("\nnode_swap_size_bytes{device=\"/dev/vda\",swap_type=\"partition\"} 67104768\n"));
  EXPECT_THAT(swap, HasSubstr("\nnode_swap_used_bytes{device=\"/dev/vda\",swap_type=\"partition\"} 1048576\n"));
  EXPECT_THAT(swap, HasSubstr("\nnode_swap_priority{device=\"/dev/vda\",swap_type=\"partition\"} -2\n"));
  snapshot.swaps.resize(snapshot.swaps.find('\n') + 1);
  EXPECT_EQ(Exposition(CollectSwap(snapshot)), "");
  snapshot.slabinfo =
      "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n"
      "kmalloc-8           2540   2560      8  512    1 : tunables    0    0    0 : slabdata      5      5      0\n";
  const std::string slabs = Exposition(CollectSlabinfo(snapshot));
  for (const char* sample :
       {"active_objects{slab=\"kmalloc-8\"} 2540", "objects{slab=\"kmalloc-8\"} 2560", "object_size_bytes{slab=\"kmalloc-8\"} 8",
        "objects_per_slab{slab=\"kmalloc-8\"} 512", "pages_per_slab{slab=\"kmalloc-8\"} 1"}) {
    EXPECT_THAT(slabs, HasSubstr(std::string("\nnode_slabinfo_") + sample + "\n"));
  }
}

TEST(ProcessCollector, GroupsByNameAndSumsTheSmallOnes) {
  MachineSnapshot snapshot;
  for (int i = 0; i < 60; ++i) {
    ProcessSample& task = snapshot.tasks.emplace_back();
    task.comm = "p" + std::to_string(i);
    task.leads = true;
    task.memory.vm_rss = Bytes(static_cast<uint64_t>(i) * 4096);
  }
  snapshot.boot_time_seconds = 1700000000;
  snapshot.tasks[58].stat = "59 (a) b) R 1 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 250 0 0\n";
  ProcessSample thread = snapshot.tasks.back();
  thread.leads = false;
  thread.memory = {};
  snapshot.tasks.push_back(thread);
  const std::string text = Exposition(CollectProcess(snapshot));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_num_procs{groupname=\"p59\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_num_threads{groupname=\"p59\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_memory_bytes{groupname=\"p59\",memtype=\"resident\"} 241664\n"));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_num_procs{groupname=\"_other\"} 10\n"));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_memory_bytes{groupname=\"_other\",memtype=\"resident\"} 184320\n"));
  EXPECT_THAT(text, Not(HasSubstr("groupname=\"p9\"")));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_oldest_start_time_seconds{groupname=\"p58\"} 1700000002.5\n"));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_states{groupname=\"p58\",state=\"Running\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_states{groupname=\"p58\",state=\"Sleeping\"} 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("states{groupname=\"p59\"")));  // It has no file.
}

TEST(ProcessCollector, FaultsStayWithTheNameWhenItsProcessesEnd) {
  MachineSnapshot snapshot;
  ProcessSample& shell = snapshot.tasks.emplace_back();
  shell.comm = "sh";
  shell.leads = true;
  shell.faults = {5, 2};
  snapshot.former_faults = {{"sh", {10, 1}}, {"gone", {7, 0}}};
  const std::string text = Exposition(CollectProcess(snapshot));
  EXPECT_THAT(text, HasSubstr("# TYPE namedprocess_namegroup_minor_page_faults_total counter\n"));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_minor_page_faults_total{groupname=\"sh\"} 15\n"));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_major_page_faults_total{groupname=\"sh\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_minor_page_faults_total{groupname=\"gone\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("\nnamedprocess_namegroup_num_procs{groupname=\"gone\"} 0\n"));
}

TEST(CgroupCollector, SaysWhatCadvisorWould) {
  MachineSnapshot snapshot;
  CgroupSample& root = snapshot.cgroups.emplace_back();
  root.path = "/";
  root.files = {{"cgroup.procs", "1\n2\n"}};
  CgroupSample& web = snapshot.cgroups.emplace_back();
  web.path = "/web";
  web.files = {
      {"cgroup.procs", ""},
      {"memory.current", "8192\n"},
      {"memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n"},
      {"memory.max", "max\n"},
      {"memory.min", "4096\n"},
      {"memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"},
      {"memory.stat", "anon 100\nfile 200\ninactive_anon 7\ninactive_file 10000\npgfault 9\npgmajfault 1\n"}};
  const std::string text = Exposition(CollectCgroup(snapshot));
  for (const char* sample :
       {"processes{id=\"/\",image=\"\",name=\"\"} 2", "processes{id=\"/web\",image=\"\",name=\"\"} 0",
        "memory_usage_bytes{id=\"/web\",image=\"\",name=\"\"} 8192", "memory_working_set_bytes{id=\"/web\",image=\"\",name=\"\"} 0",
        "memory_rss{id=\"/web\",image=\"\",name=\"\"} 100", "memory_failcnt{id=\"/web\",image=\"\",name=\"\"} 2",
        "oom_events_total{id=\"/web\",image=\"\",name=\"\"} 4", "spec_memory_limit_bytes{id=\"/web\",image=\"\",name=\"\"} 0",
        "spec_memory_reservation_limit_bytes{id=\"/web\",image=\"\",name=\"\"} 4096",
        "pressure_memory_waiting_seconds_total{id=\"/web\",image=\"\",name=\"\"} 2.5",
        "memory_failures_total{failure_type=\"pgmajfault\",id=\"/web\",image=\"\",name=\"\",scope=\"hierarchy\"} 1"}) {
    EXPECT_THAT(text, HasSubstr(std::string("\ncontainer_") + sample + "\n"));
  }
  EXPECT_THAT(text, Not(HasSubstr("container_memory_swap")));
}

TEST(PagetypeinfoCollector, HasTheMigrateTypesOfTheKernel) {
  MachineSnapshot snapshot = MakeSnapshot();
  snapshot.pageblocks.resize(snapshot.zones.size());
  EXPECT_THAT(Exposition(CollectPagetypeinfo(snapshot)), Not(HasSubstr("CMA")));
  snapshot.has_cma = true;
  snapshot.zones[1].free_area[3].lists[kMigrateMovable].count = 9;
  snapshot.pageblocks[1][kMigrateCma] = 32;
  const std::string text = Exposition(CollectPagetypeinfo(snapshot));
  EXPECT_THAT(text, HasSubstr("\nmmlab_pagetypeinfo_blocks{migratetype=\"Movable\",node=\"0\",size=\"3\",zone=\"Normal\"} 9\n"));
  EXPECT_THAT(text, HasSubstr("\nmmlab_pagetypeinfo_pageblocks{migratetype=\"CMA\",node=\"0\",zone=\"Normal\"} 32\n"));
}

}  // namespace
}  // namespace mmlab

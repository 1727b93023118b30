#include "server/reclaim/oom_report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/kernel_logger.h"
#include "server/cgroup/cgroups.h"
#include "server/files/hugetlb_pools.h"
#include "server/physical/page_allocator.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

class MemoryReport {
 public:
  MemoryReport(const BuddyMemory& memory, const Processes& processes, bool hopeless, KernelLogger& log)
      : memory_(memory),
        stat_(memory.vm_stat()),
        processes_(processes),
        log_(log),
        hopeless_(hopeless),
        numa_(memory.zone_set() == ZoneSet::kArm64) {}

  void All() {
    log_.Log(LogLevel::kWarning, "Mem-Info:");
    Sums();
    Node();
    for (const Zone& zone : memory_.zones()) {
      if (zone.populated()) ZoneState(zone);
    }
    for (const Zone& zone : memory_.zones()) {
      if (zone.populated()) ZoneBlocks(zone);
    }
    Rest();
  }

 private:
  uint64_t Pages(NodeStat item) const { return static_cast<uint64_t>(stat_.Get(item)); }
  uint64_t Kb(uint64_t pages) const { return pages << (memory_.page_size().shift() - 10); }
  uint64_t Kb(NodeStat item) const { return Kb(Pages(item)); }
  std::string ZonePrefix(const Zone& zone) const { return absl::StrCat(numa_ ? "Node 0 " : "", zone.name()); }
  static uint64_t OnCpus(const Zone& zone) {
    uint64_t pages = 0;
    for (const PerCpuPages& cpu : zone.pcp) pages += cpu.count;
    return pages;
  }

  void Sums() {
    uint64_t free = 0, pcp = 0, cma = 0;
    for (const Zone& zone : memory_.zones()) {
      free += zone.free_pages();
      pcp += OnCpus(zone);
      cma += zone.stat(ZoneStat::kNrFreeCma);
    }
    log_.Log(LogLevel::kWarning,
             absl::StrFormat("active_anon:%d inactive_anon:%d isolated_anon:%d\n active_file:%d inactive_file:%d isolated_file:%d\n"
                             " unevictable:%d dirty:%d writeback:%d\n slab_reclaimable:%d slab_unreclaimable:%d\n"
                             " mapped:%d shmem:%d pagetables:%d\n sec_pagetables:%d bounce:%d\n kernel_misc_reclaimable:%d\n"
                             " free:%d free_pcp:%d free_cma:%d",
                             Pages(NodeStat::kNrActiveAnon), Pages(NodeStat::kNrInactiveAnon), Pages(NodeStat::kNrIsolatedAnon),
                             Pages(NodeStat::kNrActiveFile), Pages(NodeStat::kNrInactiveFile), Pages(NodeStat::kNrIsolatedFile),
                             Pages(NodeStat::kNrUnevictable), Pages(NodeStat::kNrDirty), Pages(NodeStat::kNrWriteback),
                             Pages(NodeStat::kNrSlabReclaimable), Pages(NodeStat::kNrSlabUnreclaimable), Pages(NodeStat::kNrMapped),
                             Pages(NodeStat::kNrShmem), Pages(NodeStat::kNrPageTablePages), Pages(NodeStat::kNrSecPageTablePages), 0,
                             Pages(NodeStat::kNrKernelMiscReclaimable), free, pcp, cma));
  }

  void Node() {
    log_.Log(
        LogLevel::kWarning,
        absl::StrFormat(
            "Node 0 active_anon:%dkB inactive_anon:%dkB active_file:%dkB inactive_file:%dkB unevictable:%dkB isolated(anon):%dkB "
            "isolated(file):%dkB mapped:%dkB dirty:%dkB writeback:%dkB shmem:%dkB shmem_thp: %dkB shmem_pmdmapped: %dkB anon_thp: %dkB "
            "writeback_tmp:%dkB kernel_stack:%dkB pagetables:%dkB sec_pagetables:%dkB all_unreclaimable? %s",
            Kb(NodeStat::kNrActiveAnon), Kb(NodeStat::kNrInactiveAnon), Kb(NodeStat::kNrActiveFile), Kb(NodeStat::kNrInactiveFile),
            Kb(NodeStat::kNrUnevictable), Kb(NodeStat::kNrIsolatedAnon), Kb(NodeStat::kNrIsolatedFile), Kb(NodeStat::kNrMapped),
            Kb(NodeStat::kNrDirty), Kb(NodeStat::kNrWriteback), Kb(NodeStat::kNrShmem), Kb(NodeStat::kNrShmemHugepages),
            Kb(NodeStat::kNrShmemPmdmapped), Kb(NodeStat::kNrAnonTransparentHugepages), Kb(NodeStat::kNrWritebackTemp),
            Pages(NodeStat::kNrKernelStack), Kb(NodeStat::kNrPageTablePages), Kb(NodeStat::kNrSecPageTablePages),
            hopeless_ ? "yes" : "no"));
  }

  void ZoneState(const Zone& zone) {
    const auto kb = [&](ZoneStat item) { return Kb(zone.stat(item)); };
    log_.Log(
        LogLevel::kWarning,
        absl::StrFormat(
            "%s free:%dkB boost:%dkB min:%dkB low:%dkB high:%dkB reserved_highatomic:%dKB active_anon:%dkB inactive_anon:%dkB "
            "active_file:%dkB inactive_file:%dkB unevictable:%dkB writepending:%dkB present:%dkB managed:%dkB mlocked:%dkB bounce:%dkB "
            "free_pcp:%dkB local_pcp:%dkB free_cma:%dkB",
            ZonePrefix(zone), Kb(zone.free_pages()), Kb(zone.watermark_boost), Kb(zone.wmark_min + zone.watermark_boost),
            Kb(zone.wmark_low + zone.watermark_boost), Kb(zone.wmark_high + zone.watermark_boost), Kb(zone.nr_reserved_highatomic),
            kb(ZoneStat::kNrZoneActiveAnon), kb(ZoneStat::kNrZoneInactiveAnon), kb(ZoneStat::kNrZoneActiveFile),
            kb(ZoneStat::kNrZoneInactiveFile), kb(ZoneStat::kNrZoneUnevictable), kb(ZoneStat::kNrZoneWritePending), Kb(zone.present),
            Kb(zone.managed), kb(ZoneStat::kNrMlock), kb(ZoneStat::kNrBounce), Kb(OnCpus(zone)),
            Kb(zone.pcp[static_cast<size_t>(memory_.current_cpu())].count), kb(ZoneStat::kNrFreeCma)));
    std::string reserve = "lowmem_reserve[]:";
    for (const Zone& other : memory_.zones()) absl::StrAppend(&reserve, " ", zone.lowmem_reserve[static_cast<size_t>(other.index)]);
    log_.Log(LogLevel::kWarning, reserve);
  }

  // Which kinds of pages stand on the free list of an order, by letter (show_migration_types).
  static std::string Kinds(const FreeArea& area) {
    constexpr char kLetters[kMigrateTypes + 1] = "UMEHCI";
    std::string kinds;
    for (int type = 0; type < kMigrateTypes; ++type) {
      if (!area.lists[static_cast<size_t>(type)].empty()) kinds += kLetters[type];
    }
    return absl::StrCat(" (", kinds, ")");
  }

  void ZoneBlocks(const Zone& zone) {
    std::string line = absl::StrCat(ZonePrefix(zone), ": ");
    uint64_t total = 0;
    for (size_t order = 0; order < zone.free_area.size(); ++order) {
      const FreeArea& area = zone.free_area[order];
      total += uint64_t{area.nr_free} << order;
      absl::StrAppend(&line, area.nr_free, "*", Kb(uint64_t{1} << order), "kB", area.nr_free > 0 ? Kinds(area) : "", " ");
    }
    log_.Log(LogLevel::kWarning, absl::StrCat(line, "= ", Kb(total), "kB"));
  }

  void Rest() {
    uint64_t present = 0, managed = 0, high = 0;
    for (const Zone& zone : memory_.zones()) {
      present += zone.present;
      managed += zone.managed;
      if (zone.highmem) high += zone.managed;
    }
    // hugetlb_show_meminfo_node()
    for (const HugetlbPool& pool : processes_.hugetlb().pools()) {
      log_.Log(LogLevel::kWarning, absl::StrFormat("Node 0 hugepages_total=%d hugepages_free=%d hugepages_surp=%d hugepages_size=%dkB",
                                                   pool.total, pool.free.size(), pool.surplus, Kb(pool.pages())));
    }
    const uint64_t swap = Kb(processes_.limits().total_swap.raw());
    for (const std::string& line : {
             absl::StrCat(Pages(NodeStat::kNrFilePages), " total pagecache pages"),
             absl::StrCat(Pages(NodeStat::kNrSwapcached), " pages in swap cache"),
             absl::StrCat("Free swap  = ", Kb(processes_.free_swap().raw()), "kB"),
             absl::StrCat("Total swap = ", swap, "kB"),
             absl::StrCat(present, " pages RAM"),
             absl::StrCat(high, " pages HighMem/MovableOnly"),
             absl::StrCat(present - managed, " pages reserved"),
         }) {
      log_.Log(LogLevel::kWarning, line);
    }
    if (numa_) log_.Log(LogLevel::kWarning, absl::StrCat(CmaPages(), " pages cma reserved"));
    log_.Log(LogLevel::kWarning, "0 pages hwpoisoned");
  }

  uint64_t CmaPages() const {
    uint64_t pages = 0;
    for (const Zone& zone : memory_.zones()) pages += zone.cma_pages;
    return pages;
  }

  const BuddyMemory& memory_;
  const VmStat& stat_;
  const Processes& processes_;
  KernelLogger& log_;
  const bool hopeless_;
  const bool numa_;
};

}  // namespace

void ReportMemory(const BuddyMemory& memory, const Processes& processes, bool hopeless, KernelLogger& log) {
  MemoryReport(memory, processes, hopeless, log).All();
}

void ReportCgroup(const Cgroups& cgroups, uint16_t memcg, PageSize page_size, KernelLogger& log) {
  const Memcg& limited = cgroups.memcg(memcg);
  const auto counter = [&](const char* name, const PageCounter& of) {
    const int shift = page_size.shift() - 10;
    log.Log(LogLevel::kInfo,
            absl::StrFormat("%s: usage %dkB, limit %dkB, failcnt %d", name, of.usage << shift, of.max << shift, of.failures));
  };
  counter("memory", limited.memory);
  counter("swap", limited.swap);
  log.Log(LogLevel::kInfo, absl::StrCat("Memory cgroup stats for ", limited.path, ":"));
  std::string stats = cgroups.StatText(memcg);
  stats.pop_back();
  log.Log(LogLevel::kInfo, stats);
}

}  // namespace mmlab

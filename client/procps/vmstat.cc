#include "client/procps/vmstat.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "absl/time/time.h"

namespace mmlab {
namespace {

constexpr uint64_t kTicksPerSecond = 100;
constexpr uint64_t kPageKib = 4;  // Of every layout.

uint64_t InUnit(const VmstatLayout& layout, uint64_t kib) { return kib * 1024 / layout.unit; }

// What procps calls cache: pages of files and slabs that can be given back.
uint64_t CacheKib(const ProcNumbers& meminfo) { return NumberOf(meminfo, "Cached") + NumberOf(meminfo, "SReclaimable"); }
uint64_t UsedSwapKib(const ProcNumbers& meminfo) { return NumberOf(meminfo, "SwapTotal") - NumberOf(meminfo, "SwapFree"); }

std::string ClockText(int64_t seconds) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixSeconds(seconds), absl::UTCTimeZone());
}

bool IsPartition(const std::string& name) { return !name.empty() && std::isdigit(static_cast<unsigned char>(name.back())) != 0; }

}  // namespace

std::string VmstatHeader(const VmstatLayout& layout) {
  const char* const groups =
      layout.wide ? "--procs-- -----------------------memory---------------------- ---swap-- -----io---- -system-- ----------cpu----------"
                  : "procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----";
  const char* const memory = layout.active ? (layout.wide ? "       inact       active" : " inact active")
                                           : (layout.wide ? "        buff        cache" : "  buff  cache");
  std::string text = fmt::format("{}{}\n", groups, layout.timestamp ? " -----timestamp-----" : "");
  if (layout.wide) {
    text += fmt::format("   r    b         swpd         free {}   si   so    bi    bo   in   cs  us  sy  id  wa  st  gu", memory);
  } else {
    text += fmt::format(" r  b   swpd   free {}   si   so    bi    bo   in   cs us sy id wa st", memory);
  }
  if (layout.timestamp) text += fmt::format(" {:>19}", "UTC");
  return text + "\n";
}

std::string VmstatRow(const VmstatLayout& layout, const VmstatSample& before, const VmstatSample& now) {
  const auto since = [&](uint64_t ProcStat::*time) { return now.stat.*time - before.stat.*time; };
  const uint64_t user = since(&ProcStat::user) + since(&ProcStat::nice);
  const uint64_t system = since(&ProcStat::system) + since(&ProcStat::irq) + since(&ProcStat::softirq);
  uint64_t idle = since(&ProcStat::idle);
  const uint64_t iowait = since(&ProcStat::iowait);
  const uint64_t steal = since(&ProcStat::steal);
  const uint64_t guest = since(&ProcStat::guest) + since(&ProcStat::guest_nice);
  uint64_t ticks = user + system + idle + iowait + steal;
  if (ticks == 0) ticks = idle = 1;
  const auto rate = [&](uint64_t count) { return (count * kTicksPerSecond + ticks / 2) / ticks; };
  const auto counted = [&](const char* name) { return NumberOf(now.vmstat, name) - NumberOf(before.vmstat, name); };
  const auto percent = [&](uint64_t time) { return (100 * time + ticks / 2) / ticks; };
  const uint64_t third = layout.active ? NumberOf(now.meminfo, "Inactive") : NumberOf(now.meminfo, "Buffers");
  const uint64_t fourth = layout.active ? NumberOf(now.meminfo, "Active") : CacheKib(now.meminfo);
  const uint64_t amounts[] = {InUnit(layout, UsedSwapKib(now.meminfo)), InUnit(layout, NumberOf(now.meminfo, "MemFree")),
                              InUnit(layout, third), InUnit(layout, fourth)};
  const uint64_t swapped_in = rate(InUnit(layout, counted("pswpin") * kPageKib));
  const uint64_t swapped_out = rate(InUnit(layout, counted("pswpout") * kPageKib));
  std::string text;
  if (layout.wide) {
    text = fmt::format("{:4} {:4} {:12} {:12} {:12} {:12} {:4} {:4} {:5} {:5} {:4} {:4} {:3} {:3} {:3} {:3} {:3} {:3}", now.stat.running,
                       now.stat.blocked, amounts[0], amounts[1], amounts[2], amounts[3], swapped_in, swapped_out, rate(counted("pgpgin")),
                       rate(counted("pgpgout")), rate(since(&ProcStat::interrupts)), rate(since(&ProcStat::switches)), percent(user),
                       percent(system), percent(idle), percent(iowait), percent(steal), percent(guest));
  } else {
    text = fmt::format("{:2} {:2} {:6} {:6} {:6} {:6} {:4} {:4} {:5} {:5} {:4} {:4} {:2} {:2} {:2} {:2} {:2}", now.stat.running,
                       now.stat.blocked, amounts[0], amounts[1], amounts[2], amounts[3], swapped_in, swapped_out, rate(counted("pgpgin")),
                       rate(counted("pgpgout")), rate(since(&ProcStat::interrupts)), rate(since(&ProcStat::switches)), percent(user),
                       percent(system), percent(idle), percent(iowait), percent(steal));
  }
  if (layout.timestamp) text += " " + ClockText(now.time_seconds);
  return text + "\n";
}

std::string VmstatForks(const ProcStat& stat) { return fmt::format("{:13} forks\n", stat.forks); }

std::string VmstatSlabs(std::vector<SlabinfoLine> slabs, size_t rows_of_header) {
  std::sort(slabs.begin(), slabs.end(), [](const SlabinfoLine& a, const SlabinfoLine& b) { return a.name < b.name; });
  std::string text;
  size_t line = 0;
  for (const SlabinfoLine& slab : slabs) {
    if (line % rows_of_header == 0) text += fmt::format("{:<24} {:>6} {:>6} {:>6} {:>6}\n", "Cache", "Num", "Total", "Size", "Pages");
    ++line;
    text += fmt::format("{:<24.24} {:6} {:6} {:6} {:6}\n", slab.name, slab.active_objects, slab.objects, slab.object_size,
                        slab.objects_per_slab);
  }
  return text;
}

std::string VmstatSums(const VmstatLayout& layout, const VmstatSample& now) {
  const char unit = layout.unit == 1000 ? 'k' : layout.unit == 1024 ? 'K' : layout.unit == 1000000 ? 'm' : 'M';
  std::string text;
  const auto memory = [&](uint64_t kib, const char* what) { text += fmt::format("{:13} {} {}\n", InUnit(layout, kib), unit, what); };
  const auto count = [&](uint64_t value, const char* what) { text += fmt::format("{:13} {}\n", value, what); };
  const ProcNumbers& meminfo = now.meminfo;
  const uint64_t total = NumberOf(meminfo, "MemTotal");
  memory(total, "total memory");
  memory(total - std::min(total, NumberOf(meminfo, "MemAvailable")), "used memory");
  memory(NumberOf(meminfo, "Active"), "active memory");
  memory(NumberOf(meminfo, "Inactive"), "inactive memory");
  memory(NumberOf(meminfo, "MemFree"), "free memory");
  memory(NumberOf(meminfo, "Buffers"), "buffer memory");
  memory(CacheKib(meminfo), "swap cache");
  memory(NumberOf(meminfo, "SwapTotal"), "total swap");
  memory(UsedSwapKib(meminfo), "used swap");
  memory(NumberOf(meminfo, "SwapFree"), "free swap");
  const ProcStat& stat = now.stat;
  count(stat.user, "non-nice user cpu ticks");
  count(stat.nice, "nice user cpu ticks");
  count(stat.system, "system cpu ticks");
  count(stat.idle, "idle cpu ticks");
  count(stat.iowait, "IO-wait cpu ticks");
  count(stat.irq, "IRQ cpu ticks");
  count(stat.softirq, "softirq cpu ticks");
  count(stat.steal, "stolen cpu ticks");
  count(stat.guest, "non-nice guest cpu ticks");
  count(stat.guest_nice, "nice guest cpu ticks");
  // In KiB, whatever -S says.
  text += fmt::format("{:13} K paged in\n{:13} K paged out\n", NumberOf(now.vmstat, "pgpgin"), NumberOf(now.vmstat, "pgpgout"));
  count(NumberOf(now.vmstat, "pswpin"), "pages swapped in");
  count(NumberOf(now.vmstat, "pswpout"), "pages swapped out");
  count(stat.interrupts, "interrupts");
  count(stat.switches, "CPU context switches");
  count(stat.boot_time, "boot time");
  count(stat.forks, "forks");
  return text;
}

std::string VmstatDisks(const VmstatLayout& layout, const std::vector<DiskstatsLine>& disks) {
  std::string text = layout.wide
                         ? "disk- -------------------reads------------------- -------------------writes------------------ ------IO-------\n"
                           "          total    merged     sectors          ms     total    merged     sectors          ms     cur     sec\n"
                         : "disk- ------------reads------------ ------------writes----------- -----IO------\n"
                           "       total merged sectors      ms  total merged sectors      ms    cur    sec\n";
  for (const DiskstatsLine& disk : disks) {
    if (IsPartition(disk.name)) continue;
    text += layout.wide ? fmt::format("{:<5} {:9} {:9} {:11} {:11} {:9} {:9} {:11} {:11} {:7} {:7}\n", disk.name, disk.reads,
                                      disk.merged_reads, disk.read_sectors, disk.read_ms, disk.writes, disk.merged_writes,
                                      disk.written_sectors, disk.write_ms, disk.in_progress, disk.io_ms / 1000)
                        : fmt::format("{:<5} {:6} {:6} {:7} {:7} {:6} {:6} {:7} {:7} {:6} {:6}\n", disk.name, disk.reads, disk.merged_reads,
                                      disk.read_sectors, disk.read_ms, disk.writes, disk.merged_writes, disk.written_sectors, disk.write_ms,
                                      disk.in_progress, disk.io_ms / 1000);
  }
  return text;
}

std::string VmstatDiskSums(const std::vector<DiskstatsLine>& disks) {
  DiskstatsLine sum;
  uint64_t count = 0, partitions = 0;
  for (const DiskstatsLine& disk : disks) {
    if (IsPartition(disk.name)) {
      ++partitions;
      continue;
    }
    ++count;
    for (uint64_t DiskstatsLine::*field :
         {&DiskstatsLine::reads, &DiskstatsLine::merged_reads, &DiskstatsLine::read_sectors, &DiskstatsLine::read_ms,
          &DiskstatsLine::writes, &DiskstatsLine::merged_writes, &DiskstatsLine::written_sectors, &DiskstatsLine::write_ms,
          &DiskstatsLine::in_progress, &DiskstatsLine::io_ms, &DiskstatsLine::weighted_ms}) {
      sum.*field += disk.*field;
    }
  }
  std::string text;
  for (const auto& [value, what] :
       {std::pair(count, "disks"), std::pair(partitions, "partitions"), std::pair(sum.reads, "total reads"),
        std::pair(sum.merged_reads, "merged reads"), std::pair(sum.read_sectors, "read sectors"), std::pair(sum.read_ms, "milli reading"),
        std::pair(sum.writes, "writes"), std::pair(sum.merged_writes, "merged writes"), std::pair(sum.written_sectors, "written sectors"),
        std::pair(sum.write_ms, "milli writing"), std::pair(sum.in_progress, "inprogress IO"), std::pair(sum.io_ms, "milli spent IO"),
        std::pair(sum.weighted_ms, "milli weighted IO")}) {
    text += fmt::format("{:13} {}\n", value, what);
  }
  return text;
}

std::string VmstatPartition(const DiskstatsLine& partition) {
  return fmt::format("{:<10} {:>10}  {:>16}  {:>10}  {:>16}\n{:21}  {:16}  {:10}  {:16}\n", partition.name, "reads", "read sectors",
                     "writes", "requested writes", partition.reads, partition.read_sectors, partition.writes, partition.written_sectors);
}

}  // namespace mmlab

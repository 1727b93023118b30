#ifndef MMLAB_CLIENT_PROCPS_PROC_TEXT_H_
#define MMLAB_CLIENT_PROCPS_PROC_TEXT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace mmlab {

// What the tools of procps take from the texts of /proc.

// "MemFree:  123 kB" and "pgfault 123" by name; the unit is left out.
using ProcNumbers = std::map<std::string, uint64_t>;
ProcNumbers ParseProcNumbers(const std::string& text);
// The number, or 0 where the file has no such line.
uint64_t NumberOf(const ProcNumbers& numbers, const std::string& name);

// /proc/stat: times in ticks of 10 ms, summed over CPUs, and counts since boot.
struct ProcStat {
  uint64_t user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0, guest = 0, guest_nice = 0;
  uint64_t interrupts = 0, switches = 0, boot_time = 0, forks = 0, running = 0, blocked = 0;
};
ProcStat ParseProcStat(const std::string& text);

// A caches' line of /proc/slabinfo.
struct SlabinfoLine {
  std::string name;
  uint64_t active_objects = 0, objects = 0, object_size = 0, objects_per_slab = 0;
};
std::vector<SlabinfoLine> ParseSlabinfo(const std::string& text);

// A line of /proc/diskstats: reads, writes, what is under way.
struct DiskstatsLine {
  std::string name;
  uint64_t reads = 0, merged_reads = 0, read_sectors = 0, read_ms = 0;
  uint64_t writes = 0, merged_writes = 0, written_sectors = 0, write_ms = 0;
  uint64_t in_progress = 0, io_ms = 0, weighted_ms = 0;
};
std::vector<DiskstatsLine> ParseDiskstats(const std::string& text);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_PROCPS_PROC_TEXT_H_

#ifndef MMLAB_CLIENT_PROCPS_VMSTAT_H_
#define MMLAB_CLIENT_PROCPS_VMSTAT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/procps/proc_text.h"

namespace mmlab {

// How vmstat(8) of procps 4.0 shows things.
struct VmstatLayout {
  bool active = false;     // -a: inactive and active memory instead of buffers and cache.
  bool wide = false;       // -w
  bool timestamp = false;  // -t
  uint64_t unit = 1024;    // -S: bytes of a unit of memory: 1000, 1024, 1000000 or 1048576.
};

// A look at a machine.
struct VmstatSample {
  ProcStat stat;
  ProcNumbers meminfo;
  ProcNumbers vmstat;
  int64_t time_seconds = 0;  // The machine's clock, Unix time.
};

// The two lines above the columns.
std::string VmstatHeader(const VmstatLayout& layout);
// A line: what happened since `before`, on average over the machine's time between the two; a sample of nothing stands for boot.
std::string VmstatRow(const VmstatLayout& layout, const VmstatSample& before, const VmstatSample& now);

std::string VmstatForks(const ProcStat& stat);                                                 // -f
std::string VmstatSlabs(std::vector<SlabinfoLine> slabs, size_t rows_of_header);               // -m: a header above each so many rows.
std::string VmstatSums(const VmstatLayout& layout, const VmstatSample& now);                   // -s
std::string VmstatDisks(const VmstatLayout& layout, const std::vector<DiskstatsLine>& disks);  // -d
std::string VmstatDiskSums(const std::vector<DiskstatsLine>& disks);                           // -D
std::string VmstatPartition(const DiskstatsLine& partition);                                   // -p

}  // namespace mmlab

#endif  // MMLAB_CLIENT_PROCPS_VMSTAT_H_

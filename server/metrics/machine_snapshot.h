#ifndef MMLAB_SERVER_METRICS_MACHINE_SNAPSHOT_H_
#define MMLAB_SERVER_METRICS_MACHINE_SNAPSHOT_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "server/arch/layout.h"
#include "server/physical/vm_stat.h"
#include "server/physical/zone.h"
#include "server/process/views.h"
#include "server/procfs/meminfo.h"
#include "server/procfs/node_files.h"
#include "server/procfs/zones.h"

namespace mmlab {

// The files of a memory cgroup.
struct CgroupSample {
  std::string path;                          // "/" for the root.
  std::map<std::string, std::string> files;  // By name: "memory.current", ... Those that it has.
};

// What process-exporter reads of a task.
struct ProcessSample {
  std::string comm;
  bool leads = false;  // The first thread of its process; only this one tells of the memory.
  FaultCounts faults;  // Under this comm.
  MemoryStatus memory;
  Bytes pss;
  Bytes swap_pss;
  std::string stat;  // Text of /proc/PID/stat; empty where the machine has none.
};

// What the collectors of one answer work on: copies of a machine's plain data, taken in one hold of its lane, so that all samples of the
// answer are of one moment and nothing is computed or written while the machine waits. A part that no chosen collector reads stays empty.
struct MachineSnapshot {
  std::vector<Zone> zones;                                      // As BuddyMemory::zones(): empty ones too.
  const Layout* layout = nullptr;                               // With `zones`.
  std::vector<std::array<uint32_t, kMigrateTypes>> pageblocks;  // Of each zone, by migrate type.
  VmStat vm_stat;
  bool has_numa = false;  // The kernel is built with CONFIG_NUMA.
  bool has_cma = false;   // With CONFIG_CMA.
  std::vector<MeminfoField> meminfo;
  std::vector<MeminfoField> node_meminfo;  // Of node 0, as the next; empty without CONFIG_NUMA.
  NumastatFields numastat;
  std::vector<VmstatField> vmstat;

  // Texts of files below /proc; empty where the machine has none.
  std::string loadavg;
  std::string pressure_cpu, pressure_io, pressure_memory, pressure_irq;
  std::string slabinfo;
  std::string stat;
  std::string swaps;
  std::vector<std::pair<const char*, std::string>> ksm;  // By file of /sys/kernel/mm/ksm.

  std::string preset;
  const char* slab = "slub";  // The slab allocator.
  std::string kernel_release;
  std::string kernel_version;
  std::string uname_machine;
  std::string hostname;
  int64_t now_nanoseconds = 0;
  int64_t boot_time_seconds = 0;

  uint64_t operations_applied = 0;
  uint64_t vma_count = 0;
  uint64_t vmalloc_areas = 0;
  std::vector<std::pair<const char*, uint64_t>> page_tables;  // Of all address spaces, by the levels that the layout has.
  uint64_t processes = 0;
  uint64_t threads = 0;
  std::map<char, uint64_t> process_states;  // By the letter of /proc/PID/stat.
  std::vector<ProcessSample> tasks;
  std::map<std::string, FaultCounts> former_faults;  // By comm: of tasks that have ended, or have another comm now.
  std::vector<CgroupSample> cgroups;
  uint64_t pid_max = 0;
  uint64_t threads_max = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_MACHINE_SNAPSHOT_H_

#include "server/machine/memory_limits.h"

#include <algorithm>

#include "server/machine/sysctls.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

DirtyLimits MemoryLimits::Limits() const {
  const uint64_t page = memory_.page_size().bytes().raw();
  // global_dirtyable_memory(): what is free beyond the reserves, and the pages of files.
  uint64_t dirtyable = memory_.free_pages().raw();
  dirtyable -= std::min(dirtyable, memory_.total_reserve_pages());
  const VmStat& stat = memory_.vm_stat();
  dirtyable += static_cast<uint64_t>(stat.Get(NodeStat::kNrInactiveFile) + stat.Get(NodeStat::kNrActiveFile));
  if (x86_ && sysctls_.value(Sysctl::kVmHighmemIsDirtyable) == 0) {
    uint64_t high = 0;
    for (const Zone& zone : memory_.zones()) {
      if (!zone.highmem || !zone.populated()) continue;
      high += zone.free_pages() - std::min(zone.free_pages(), zone.wmark_high + zone.watermark_boost);
      high += zone.stat(ZoneStat::kNrZoneInactiveFile) + zone.stat(ZoneStat::kNrZoneActiveFile);
    }
    dirtyable -= std::min(dirtyable, high);
  }
  dirtyable += 1;
  const auto limit = [&](Sysctl bytes, Sysctl ratio) {
    if (const uint64_t set = sysctls_.value(bytes); set != 0) return (set + page - 1) / page;
    return sysctls_.value(ratio) * page / 100 * dirtyable / page;
  };
  DirtyLimits limits;
  limits.threshold = std::min<uint64_t>(limit(Sysctl::kVmDirtyBytes, Sysctl::kVmDirtyRatio), 0xffffffff);
  limits.background = limit(Sysctl::kVmDirtyBackgroundBytes, Sysctl::kVmDirtyBackgroundRatio);
  if (limits.background >= limits.threshold) limits.background = limits.threshold / 2;
  return limits;
}

}  // namespace mmlab

#include "server/procfs/meminfo.h"

#include <algorithm>

#include "server/files/files.h"
#include "server/kernel/vmalloc.h"
#include "server/machine/machine.h"
#include "server/machine/memory_map.h"
#include "server/physical/page_allocator.h"
#include "server/process/processes.h"
#include "server/procfs/direct_map.h"
#include "server/procfs/text.h"

namespace mmlab {
namespace {

struct ZoneSums {
  uint64_t managed = 0, free = 0, high_managed = 0, high_free = 0, cma = 0, free_cma = 0, low_marks = 0;
};

ZoneSums SumsOf(const Machine& machine) {
  ZoneSums sums;
  for (const Zone& zone : machine.memory().zones()) {
    sums.managed += zone.managed;
    sums.free += zone.free_pages();
    if (zone.highmem) {
      sums.high_managed += zone.managed;
      sums.high_free += zone.free_pages();
    }
    sums.cma += zone.cma_pages;
    sums.free_cma += zone.stat(ZoneStat::kNrFreeCma);
    sums.low_marks += zone.wmark_low;
  }
  return sums;
}

uint64_t Available(const Machine& machine, const ZoneSums& sums) {
  const VmStat& stat = machine.vm_stat();
  int64_t available = static_cast<int64_t>(sums.free) - static_cast<int64_t>(machine.memory().total_reserve_pages());
  // Half of the pages of files, at least down to the low watermarks, can go.
  const int64_t cache = stat.Get(NodeStat::kNrActiveFile) + stat.Get(NodeStat::kNrInactiveFile);
  available += cache - std::min(cache / 2, static_cast<int64_t>(sums.low_marks));
  const int64_t slab = stat.Get(NodeStat::kNrSlabReclaimable);
  available += slab - std::min(slab / 2, static_cast<int64_t>(sums.low_marks));
  return static_cast<uint64_t>(std::max<int64_t>(available, 0));
}

class Fields {
 public:
  Fields(std::vector<MeminfoField>& out, int page_shift) : out_(out), to_kilobytes_(page_shift - 10) {}
  void Pages(absl::string_view name, uint64_t pages) { Kilobytes(name, pages << to_kilobytes_); }
  void Pages(absl::string_view name, int64_t pages) { Pages(name, static_cast<uint64_t>(pages)); }
  void Kilobytes(absl::string_view name, uint64_t value) { out_.push_back({name, value, true}); }
  void Count(absl::string_view name, uint64_t value) { out_.push_back({name, value, false}); }

 private:
  std::vector<MeminfoField>& out_;
  int to_kilobytes_;
};

}  // namespace

PageCount AvailablePages(const Machine& machine) { return PageCount(Available(machine, SumsOf(machine))); }

std::vector<MeminfoField> MeminfoFields(const Machine& machine) {
  std::vector<MeminfoField> out;
  out.reserve(64);
  Fields fields(out, machine.layout().page_size.shift());
  const VmStat& stat = machine.vm_stat();
  const ZoneSums sums = SumsOf(machine);
  const bool x86 = machine.layout().is_x86();

  fields.Pages("MemTotal", sums.managed);
  fields.Pages("MemFree", sums.free);
  fields.Pages("MemAvailable", Available(machine, sums));
  const Files& files = machine.files();
  const auto buffers = static_cast<int64_t>(files.buffer_pages());
  const int64_t swap_cached = stat.Get(NodeStat::kNrSwapcached);
  fields.Pages("Buffers", buffers);
  fields.Pages("Cached", std::max<int64_t>(0, stat.Get(NodeStat::kNrFilePages) - swap_cached - buffers));
  fields.Pages("SwapCached", swap_cached);
  const int64_t active_anon = stat.Get(NodeStat::kNrActiveAnon);
  const int64_t inactive_anon = stat.Get(NodeStat::kNrInactiveAnon);
  const int64_t active_file = stat.Get(NodeStat::kNrActiveFile);
  const int64_t inactive_file = stat.Get(NodeStat::kNrInactiveFile);
  fields.Pages("Active", active_anon + active_file);
  fields.Pages("Inactive", inactive_anon + inactive_file);
  fields.Pages("Active(anon)", active_anon);
  fields.Pages("Inactive(anon)", inactive_anon);
  fields.Pages("Active(file)", active_file);
  fields.Pages("Inactive(file)", inactive_file);
  fields.Pages("Unevictable", stat.Get(NodeStat::kNrUnevictable));
  fields.Pages("Mlocked", machine.processes().mlocked_pages().raw());
  if (x86) {
    fields.Pages("HighTotal", sums.high_managed);
    fields.Pages("HighFree", sums.high_free);
    fields.Pages("LowTotal", sums.managed - sums.high_managed);
    fields.Pages("LowFree", sums.free - sums.high_free);
  }
  fields.Pages("SwapTotal", files.swap().total_pages());
  fields.Pages("SwapFree", files.swap().free_pages());
  fields.Pages("Zswap", uint64_t{0});
  fields.Pages("Zswapped", uint64_t{0});
  fields.Pages("Dirty", stat.Get(NodeStat::kNrDirty));
  fields.Pages("Writeback", stat.Get(NodeStat::kNrWriteback));
  fields.Pages("AnonPages", stat.Get(NodeStat::kNrAnonPages));
  fields.Pages("Mapped", stat.Get(NodeStat::kNrMapped));
  fields.Pages("Shmem", stat.Get(NodeStat::kNrShmem));
  // What slab objects take that somebody asked for; what the kernel took while it started is part of the reserved and used memory.
  const int64_t reclaimable = stat.Get(NodeStat::kNrSlabReclaimable);
  const int64_t unreclaimable = stat.Get(NodeStat::kNrSlabUnreclaimable);
  fields.Pages("KReclaimable", reclaimable);
  fields.Pages("Slab", reclaimable + unreclaimable);
  fields.Pages("SReclaimable", reclaimable);
  fields.Pages("SUnreclaim", unreclaimable);
  fields.Kilobytes("KernelStack", static_cast<uint64_t>(stat.Get(NodeStat::kNrKernelStack)));
  fields.Pages("PageTables", stat.Get(NodeStat::kNrPageTablePages));
  fields.Pages("SecPageTables", uint64_t{0});
  fields.Pages("NFS_Unstable", uint64_t{0});
  fields.Pages("Bounce", uint64_t{0});
  fields.Pages("WritebackTmp", uint64_t{0});
  fields.Pages("CommitLimit", machine.processes().commit_limit().raw());
  fields.Pages("Committed_AS", machine.processes().committed().raw());
  const KernelLayout& kernel = machine.kernel_layout();
  fields.Kilobytes("VmallocTotal", (kernel.vmalloc_end - kernel.vmalloc_start).raw() >> 10);
  uint64_t vmalloc_used = 0;
  machine.ReadVmalloc([&](const Vmalloc& vmalloc) { vmalloc_used = vmalloc.nr_vmalloc_pages(); });
  fields.Pages("VmallocUsed", vmalloc_used);
  fields.Pages("VmallocChunk", uint64_t{0});
  fields.Pages("Percpu", machine.percpu_pages());
  fields.Pages("HardwareCorrupted", uint64_t{0});
  fields.Pages("AnonHugePages", stat.Get(NodeStat::kNrAnonTransparentHugepages));
  fields.Pages("ShmemHugePages", stat.Get(NodeStat::kNrShmemHugepages));
  fields.Pages("ShmemPmdMapped", stat.Get(NodeStat::kNrShmemPmdmapped));
  for (absl::string_view name : {"FileHugePages", "FilePmdMapped"}) fields.Pages(name, uint64_t{0});
  if (!x86) {
    fields.Pages("CmaTotal", sums.cma);
    fields.Pages("CmaFree", sums.free_cma);
  }
  const HugetlbPools& hugetlb = files.hugetlb();
  const HugetlbPool& pool = hugetlb.pool(hugetlb.default_pool());
  fields.Count("HugePages_Total", pool.total);
  fields.Count("HugePages_Free", pool.free.size());
  fields.Count("HugePages_Rsvd", pool.reserved);
  fields.Count("HugePages_Surp", pool.surplus);
  fields.Pages("Hugepagesize", pool.pages());
  fields.Pages("Hugetlb", hugetlb.total_pages());
  for (const MeminfoField& field : DirectMapFields(machine)) out.push_back(field);
  return out;
}

std::string MeminfoText(const Machine& machine) {
  std::string out;
  out.reserve(2048);
  for (const MeminfoField& field : MeminfoFields(machine)) {
    const size_t start = out.size();
    AppendText(out, field.name);
    out.push_back(':');
    if (const size_t label = out.size() - start; label < 16) out.append(16 - label, ' ');
    AppendDecimal(out, static_cast<int64_t>(field.value), 24 - (out.size() - start));
    out += field.kilobytes ? " kB\n" : "\n";
  }
  return out;
}

}  // namespace mmlab

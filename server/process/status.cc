#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/arch/layout.h"
#include "server/base/hash.h"
#include "server/files/open_file.h"
#include "server/physical/contents.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/commit_account.h"
#include "server/process/paging.h"
#include "server/process/processes.h"

// What /proc shows of a process: fs/proc/task_mmu.c, fs/proc/base.c, oom_badness() of mm/oom_kill.c.

namespace mmlab {
namespace {

struct FlagName {
  uint64_t flag;
  const char* name;
};
// In the order of the bits; a flag without a name of its own shows as "??".
constexpr FlagName kFlagNames[] = {
    {kVmRead, "rd"},      {kVmWrite, "wr"},      {kVmExec, "ex"},      {kVmShared, "sh"},     {kVmMayRead, "mr"},     {kVmMayWrite, "mw"},
    {kVmMayExec, "me"},   {kVmMayShare, "ms"},   {kVmGrowsDown, "gd"}, {kVmPfnMap, "pf"},     {kVmLocked, "lo"},      {kVmIo, "io"},
    {kVmSeqRead, "sr"},   {kVmRandRead, "rr"},   {kVmDontCopy, "dc"},  {kVmDontExpand, "de"}, {kVmLockOnFault, "??"}, {kVmAccount, "ac"},
    {kVmNoReserve, "nr"}, {kVmHugetlb, "ht"},    {kVmSync, "sf"},      {kVmWipeOnFork, "wf"}, {kVmDontDump, "dd"},    {kVmMixedMap, "mm"},
    {kVmHugePage, "hg"},  {kVmNoHugePage, "nh"}, {kVmMergeable, "mg"},
};

std::string FlagNames(uint64_t flags) {
  std::string names;
  for (const FlagName& entry : kFlagNames) {
    if ((flags & entry.flag) == 0) continue;
    if (!names.empty()) names += ' ';
    names += entry.name;
  }
  return names;
}

// The last column of maps.
std::string BackingName(const AddressSpace& mm, const VmArea& vma) {
  if (vma.file != nullptr) return vma.file->inode->path;
  if (vma.backing == VmaBacking::kVvar) return "[vvar]";
  if (vma.backing == VmaBacking::kVdso) return "[vdso]";
  if (vma.backing == VmaBacking::kVectors) return "[vectors]";
  if (vma.backing == VmaBacking::kSigpage) return "[sigpage]";
  if (vma.start <= mm.brk && vma.end >= mm.start_brk) return "[heap]";
  if (vma.start <= mm.start_stack && vma.end >= mm.start_stack) return "[stack]";
  return vma.name.get() == nullptr ? "" : absl::StrCat("[anon:", *vma.name.get(), "]");
}

uint64_t Counter(const AddressSpace& mm, RssKind kind) {
  return static_cast<uint64_t>(std::max<int64_t>(0, mm.rss[static_cast<int>(kind)]));
}

}  // namespace

MemoryStatus Processes::Status(const Process& process) const {
  MemoryStatus status;
  if (process.mm == nullptr) return status;
  const AddressSpace& mm = *process.mm;
  const PageSize page = layout_.page_size;
  status.vm_peak = page.BytesOf(std::max(mm.total_vm, mm.hiwater_vm));
  status.vm_size = page.BytesOf(mm.total_vm);
  status.vm_lck = page.BytesOf(mm.locked_vm);
  status.vm_pin = page.BytesOf(mm.pinned_vm);
  status.rss_anon = page.BytesOf(PageCount(Counter(mm, RssKind::kAnon)));
  status.rss_file = page.BytesOf(PageCount(Counter(mm, RssKind::kFile)));
  status.rss_shmem = page.BytesOf(PageCount(Counter(mm, RssKind::kShmem)));
  status.vm_rss = status.rss_anon + status.rss_file + status.rss_shmem;
  status.vm_hwm = std::max(status.vm_rss, page.BytesOf(mm.hiwater_rss));
  status.vm_data = page.BytesOf(mm.data_vm);
  status.vm_stk = page.BytesOf(mm.stack_vm);
  const Bytes executable = page.BytesOf(mm.exec_vm);
  const uint64_t text = page.BytesOf(page.PagesHolding(Bytes(mm.end_code.raw()))).raw() - page.RoundDown(mm.start_code).raw();
  status.vm_exe = std::min(executable, Bytes(text));
  status.vm_lib = executable - status.vm_exe;
  status.vm_pte = page.BytesOf(PageCount(mm.table_pages[1] + mm.table_pages[2] + mm.table_pages[3]));
  status.hugetlb = page.BytesOf(PageCount(mm.hugetlb_pages));
  status.vm_swap = page.BytesOf(PageCount(Counter(mm, RssKind::kSwap)));
  return status;
}

ResidentBytes Processes::Resident(const Process& process) const {
  ResidentBytes resident;
  if (process.mm == nullptr) return resident;
  const std::array<int64_t, kRssKinds> pages = paging_->CountRss(*process.mm);
  auto bytes = [&](RssKind kind) { return layout_.page_size.BytesOf(PageCount(static_cast<uint64_t>(pages[static_cast<int>(kind)]))); };
  resident.anon = bytes(RssKind::kAnon);
  resident.file = bytes(RssKind::kFile);
  resident.shmem = bytes(RssKind::kShmem);
  return resident;
}

int64_t Processes::OomScore(const Process& process) const {
  constexpr int32_t kOomScoreAdjMin = -1000;
  if (process.mm == nullptr || process.oom_score_adj == kOomScoreAdjMin) return 0;
  const AddressSpace& mm = *process.mm;
  const auto total = static_cast<int64_t>((limits_.total_ram + limits_.total_swap).raw());
  if (total == 0) return 0;
  int64_t badness =
      static_cast<int64_t>(mm.rss_total().raw() + Counter(mm, RssKind::kSwap) + mm.table_pages[1] + mm.table_pages[2] + mm.table_pages[3]);
  badness += process.oom_score_adj * (total / 1000);
  return std::max<int64_t>(0, (1000 + badness * 1000 / total) * 2 / 3);
}

std::vector<VmAreaView> Processes::VmAreas(const Process& process) const {
  std::vector<VmAreaView> views;
  if (process.mm == nullptr) return views;
  const AddressSpace& mm = *process.mm;
  views.reserve(mm.vmas.size());
  for (const VmArea* vma = mm.vmas.First(); vma != nullptr; vma = mm.vmas.Next(*vma)) {
    VmAreaView& view = views.emplace_back();
    view.start = vma->start;
    view.end = vma->end;
    view.permissions = {vma->is(kVmRead) ? 'r' : '-', vma->is(kVmWrite) ? 'w' : '-', vma->is(kVmExec) ? 'x' : '-',
                        vma->is(kVmMayShare) ? 's' : 'p'};
    if (vma->file != nullptr) {
      const Inode& inode = *vma->file->inode;
      view.offset = Bytes(vma->pgoff.raw() << layout_.page_size.shift());
      view.inode = inode.number;
      view.device_major = inode.device_major;
      view.device_minor = inode.device_minor;
    }
    view.backing = BackingName(mm, *vma);
    view.vm_flags = FlagNames(vma->flags);
    view.page_size = paging_->KernelPageSize(*vma);
  }
  return views;
}

SmapsRollup Processes::Rollup(const Process& process) const { return paging_->MeasureAll(*process.mm); }

std::vector<VmaPages> Processes::AllVmaPages(const Process& process) const {
  std::vector<VmaPages> all;
  for (const VmArea* vma = process.mm->vmas.First(); vma != nullptr; vma = process.mm->vmas.Next(*vma)) {
    all.push_back(paging_->CountPages(*vma));
  }
  return all;
}

std::string Processes::PeekMemory(const Process& process, VirtAddr start, VirtAddr end) const {
  std::string bytes;
  const AddressSpace& mm = *process.mm;
  while (start < end) {
    const VmArea* vma = mm.vmas.Lookup(start);
    if (vma == nullptr || !vma->anonymous()) break;
    const uint64_t offset = start.raw() & layout_.page_size.mask();
    const uint64_t count = std::min((end - start).raw(), layout_.page_size.bytes().raw() - offset);
    const size_t before = bytes.size();
    bytes.resize(before + count);
    if (const std::optional<PhysAddr> there = paging_->Translate(mm, start)) {
      memory_.contents().Read(layout_.page_size.FrameHolding(*there), offset, bytes.data() + before, count);
    }
    start += Bytes(count);
  }
  return bytes;
}

std::vector<Smaps> Processes::AllSmaps(const Process& process) const {
  std::vector<Smaps> all;
  if (process.mm == nullptr) return all;
  for (const VmArea* vma = process.mm->vmas.First(); vma != nullptr; vma = process.mm->vmas.Next(*vma)) {
    all.push_back(paging_->MeasureVma(*vma));
  }
  return all;
}

}  // namespace mmlab

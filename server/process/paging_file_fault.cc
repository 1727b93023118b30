// Faults on pages that come from somewhere: files, shmem, vdso and vvar. Linux: mm/memory.c (do_fault), mm/filemap.c (filemap_map_pages).
#include <algorithm>

#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/anon_vma.h"
#include "server/process/paging_fault_state.h"

namespace mmlab {
namespace {

constexpr uint64_t kFaultAroundPages = 16;  // fault_around_bytes, 64 KiB.

}  // namespace

FaultOutcome Paging::FileFault(Fault& fault) {
  if (fault.vma.backing == VmaBacking::kVvar) return SpecialFault(fault);
  if (!fault.access.write) return ReadFileFault(fault);
  return fault.vma.shared() ? SharedFileFault(fault) : CowFileFault(fault);
}

FaultOutcome Paging::ReadFileFault(Fault& fault) {
  // The mappings of SysV segments have no map_pages().
  // Where resident pages are bounded, each is brought in for its own sake.
  if (fault.vma.backing == VmaBacking::kFile && fault.vma.file->inode->kind != FileKind::kSysvShm && fault.mm.replacement == nullptr) {
    bool out_of_memory = false;
    if (FaultAround(fault, &out_of_memory)) return FaultOutcome::kMinor;
    if (out_of_memory) return FaultOutcome::kOom;
  }
  const BackingPage page = GetBackingPage(fault);
  if (page.outcome > FaultOutcome::kMajor) return page.outcome;
  const FaultOutcome finished = FinishFault(fault, page.pfn);
  return finished == FaultOutcome::kMinor ? page.outcome : finished;
}

// do_fault_around(): maps what the page cache holds of the 16 pages from the start of the aligned window (or of the VMA, when that begins
// inside it). True when the faulting page was among them.
bool Paging::FaultAround(Fault& fault, bool* out_of_memory) {
  const VmArea& vma = fault.vma;
  const PageSize page_size = layout_.page_size;
  const uint64_t window = page_size.BytesOf(PageCount(kFaultAroundPages)).raw();
  const uint64_t table_pages = format_.entries(1);
  const VirtAddr start = std::max(VirtAddr(fault.address.raw() & ~(window - 1)), vma.start);
  const uint64_t before = (fault.address - start).raw() >> page_size.shift();
  const PageIndex first = vma.IndexOf(fault.address, page_size) - PageCount(before);
  // Not beyond the page table, the VMA or the window.
  const uint64_t in_table = table_pages - 1 - format_.IndexOf(start, 1);
  const uint64_t in_vma = ((vma.end - start).raw() >> page_size.shift()) - 1;
  const PageIndex last = first + PageCount(std::min({in_table, in_vma, kFaultAroundPages - 1}));

  const Inode& inode = *vma.file->inode;
  const PageIndex end = std::min(last + PageCount(1), PageIndex() + page_size.PagesHolding(Bytes(inode.size)));
  const auto cached = inode.pages.Pages(first, end);
  if (cached.empty()) return false;
  if (MapHugeFile(fault, (*cached.begin()).value)) return true;  // filemap_map_pmd()
  if (!PrepareTable(fault)) {
    *out_of_memory = true;
    return false;
  }
  bool mapped = false;
  int64_t count = 0;
  for (const auto& [index, pfn] : cached) {  // Looked up anew: the table may have cost pages of this file.
    const VirtAddr address = start + page_size.BytesOf(index - first);
    // A page that marks where to read on is left to a fault of its own.
    if (inode.on_disk() && (memory_.frame(pfn).flags & (kPgReclaim | kPgDirty)) == kPgReclaim) continue;
    if (!format_.None(format_.Load(fault.table, format_.IndexOf(address, 1)))) continue;
    mapped = mapped || address == fault.address;
    SetPte(fault, pfn, address);
    ++count;
  }
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFaultDecision, "pages of the file that are in the page cache are mapped around the fault")
        .Address("window_start", start)
        .Number("first_index", static_cast<int64_t>(first.raw()))
        .Pages("mapped", count)
        .Truth("fault_served", mapped);
  }
  return mapped;
}

// do_set_pte()
void Paging::SetPte(Fault& fault, Pfn pfn, VirtAddr address) {
  VmArea& vma = fault.vma;
  const bool prefault = address != fault.address;
  Pte pte = format_.Make(pfn, PageProtection(vma));
  // arch_wants_old_prefaulted_pte(): ARM64 with hardware access flag learns for free whether a page that was mapped in passing is used.
  const bool old = prefault && layout_.kind == LayoutKind::kArm64 && hardware_access_flag_;
  pte = old ? format_.MkOld(pte) : format_.MkYoung(pte);
  if (fault.access.write) pte = MaybeWritable(format_.MkDirty(pte), vma);
  Frame& frame = memory_.frame(pfn);
  if (fault.access.write && !vma.shared()) {
    CountRssFast(fault.task, fault.mm, RssKind::kAnon, 1);
    AddNewAnonRmap(pfn, frame, vma, address);
  } else {
    CountRssFast(fault.task, fault.mm, KindOf(frame), 1);
    AddFileRmap(pfn, frame, vma);
  }
  format_.Store(fault.table, format_.IndexOf(address, 1), pte);
}

Paging::BackingPage Paging::GetBackingPage(Fault& fault) {
  const PageIndex index = fault.vma.IndexOf(fault.address, layout_.page_size);
  if (fault.vma.special_mapping()) {
    const std::optional<Pfn> pfn = SpecialPage(fault.vma, index);
    if (!pfn.has_value()) return {FaultOutcome::kSigBus, Pfn()};
    return {FaultOutcome::kMinor, *pfn};
  }
  Inode& inode = *fault.vma.file->inode;
  const bool cold = inode.on_disk() && !files_.FindPage(inode, index).has_value();
  files_.ReadAround(*fault.vma.file, index,
                    fault.vma.is(kVmRandRead)  ? Files::MapAdvice::kRandom
                    : fault.vma.is(kVmSeqRead) ? Files::MapAdvice::kSequential
                                               : Files::MapAdvice::kNormal);
  const SysResult<CachedPage> page = files_.PageForFault(inode, index, AdviceOf(fault.vma));
  if (page.ok() && (cold || page.value().major)) memory_.WaitForRead(page.value().pfn);
  if (page.ok()) return {cold || page.value().major ? FaultOutcome::kMajor : FaultOutcome::kMinor, page.value().pfn};
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFileLookup, page.error() == Errno::kEINVAL ? "the page lies beyond the end of the file" : "no page can be made")
        .Text("file", inode.path)
        .Number("index", static_cast<int64_t>(index.raw()))
        .Size("file_size", Bytes(inode.size))
        .Error(page.error());
  }
  return {page.error() == Errno::kENOMEM ? FaultOutcome::kOom : FaultOutcome::kSigBus, Pfn()};
}

// Makes the table, while the page that it is for is held, so that reclaim does not take it.
bool Paging::PrepareTableFor(Fault& fault, Pfn pfn) {
  Frame& frame = HeadOf(pfn, memory_.frame(pfn));
  ++frame.refcount;
  const bool made = PrepareTable(fault);
  --frame.refcount;
  return made;
}

FaultOutcome Paging::FinishFault(Fault& fault, Pfn pfn) {
  if (MapHugeFile(fault, pfn)) return FaultOutcome::kMinor;
  if (!PrepareTableFor(fault, pfn)) return FaultOutcome::kOom;
  SetPte(fault, pfn, fault.address);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFaultDecision, "the page is mapped")
        .Address("address", fault.address)
        .Frame("pfn", pfn)
        .Bits("entry", format_.Load(fault.table, fault.index));
  }
  return FaultOutcome::kMinor;
}

FaultOutcome Paging::CowFileFault(Fault& fault) {
  AnonVmaPrepare(fault.vma);
  const std::optional<Pfn> copy = memory_.AllocCharged(kGfpHighuserMovable);
  if (!copy.has_value()) return FaultOutcome::kOom;
  const BackingPage page = GetBackingPage(fault);
  if (page.outcome > FaultOutcome::kMajor || !PrepareTableFor(fault, page.pfn)) {
    memory_.FreePages(*copy, PageOrder(0));
    return page.outcome > FaultOutcome::kMajor ? page.outcome : FaultOutcome::kOom;
  }
  memory_.contents().Copy(page.pfn, *copy);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kCopyOnWrite, "a private mapping writes a page of its file for the first time: it is copied")
        .Frame("from", page.pfn)
        .Frame("to", *copy);
  }
  const FaultOutcome finished = FinishFault(fault, *copy);
  return finished == FaultOutcome::kMinor ? page.outcome : finished;
}

FaultOutcome Paging::SharedFileFault(Fault& fault) {
  const BackingPage page = GetBackingPage(fault);
  if (page.outcome > FaultOutcome::kMajor) return page.outcome;
  const FaultOutcome finished = FinishFault(fault, page.pfn);
  if (finished != FaultOutcome::kMinor) return finished;
  if (fault.vma.file != nullptr) {
    files_.MarkDirty(*fault.vma.file->inode, page.pfn);
    files_.BalanceDirty();
  }
  return page.outcome;
}

// vvar_fault(): of the pages of vvar only the first exists, the others are for hypervisors' clocks and time namespaces.
FaultOutcome Paging::SpecialFault(Fault& fault) {
  if (fault.vma.IndexOf(fault.address, layout_.page_size) != PageIndex()) return FaultOutcome::kSigBus;
  const std::optional<Pfn> pfn = VvarPage();
  if (!pfn.has_value() || !PrepareTable(fault)) return FaultOutcome::kOom;
  const Pte pte = format_.MkYoung(format_.MkSpecial(format_.Make(*pfn, PageProtection(fault.vma))));
  format_.Store(fault.table, fault.index, pte);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFaultDecision, "the kernel's clock page is mapped; it belongs to no process's rss")
        .Frame("pfn", *pfn)
        .Bits("entry", pte);
  }
  return FaultOutcome::kMinor;
}

// special_mapping_fault(): the pages that all processes share.
std::optional<Pfn> Paging::SpecialPage(const VmArea& vma, PageIndex index) {
  if (vma.mm->compat) {
    if (index != PageIndex()) return std::nullopt;
    std::optional<Pfn>& page = compat_pages_[static_cast<size_t>(vma.backing) - static_cast<size_t>(VmaBacking::kVdso)];
    if (!page.has_value()) {
      page = memory_.AllocPages(kGfpKernel | kGfpZero, PageOrder(0));
      if (page.has_value()) memory_.frame(*page).flags |= kPgUptodate;
    }
    return page;
  }
  const uint64_t pages = layout_.is_x86() ? 2 : 1;
  if (index.raw() >= pages) return std::nullopt;
  while (vdso_pages_.size() < pages) {
    const std::optional<Pfn> pfn = memory_.AllocPages(kGfpKernel | kGfpZero, PageOrder(0));
    if (!pfn.has_value()) return std::nullopt;
    Frame& frame = memory_.frame(*pfn);
    frame.flags |= kPgUptodate;
    if (vdso_pages_.empty()) {
      // The first process of every machine, init, has used the first page of its vdso and so maps it too.
      frame.mapcount = 1;
      ++frame.refcount;
      memory_.contents().Write(*pfn, 0, "\177ELF", 4);
    }
    vdso_pages_.push_back(*pfn);
  }
  return vdso_pages_[index.raw()];
}

std::optional<Pfn> Paging::VvarPage() {
  if (!vvar_page_.has_value()) vvar_page_ = memory_.AllocPages(kGfpKernel | kGfpZero, PageOrder(0));
  return vvar_page_;
}

}  // namespace mmlab

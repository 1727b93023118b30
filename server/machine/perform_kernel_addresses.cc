#include "server/machine/perform_kernel_addresses.h"

#include <vector>

#include "server/machine/answer.h"

namespace mmlab {
namespace {

Outcome Address(const SysResult<VmallocOutcome>& result) {
  return result.ok() ? Value(result.value().address.raw()) : Answer(result.error());
}

Outcome Address(const SysResult<VirtAddr>& result) { return result.ok() ? Value(result.value().raw()) : Answer(result.error()); }

// The frames of a request: those that it names, or the zero page so many times. Nothing: one does not exist.
std::vector<Pfn> FramesOf(const std::vector<uint64_t>& pfns, uint64_t page_count, const BuddyMemory& memory) {
  if (pfns.empty()) return std::vector<Pfn>(page_count, memory.zero_frame());
  std::vector<Pfn> frames;
  frames.reserve(pfns.size());
  for (const uint64_t pfn : pfns) {
    if (Pfn(pfn) >= memory.end_pfn()) return {};
    frames.emplace_back(pfn);
  }
  return frames;
}

}  // namespace

Outcome PerformVmalloc(const op::Vmalloc& o, Gfp gfp, Vmalloc& vmalloc) {
  VmallocRequest request;
  request.size = Bytes(o.size);
  request.align = o.align == 0 ? 1 : o.align;
  request.start = VirtAddr(o.start);
  request.end = VirtAddr(o.end);
  request.gfp = gfp;
  request.flags = o.flags & (kVmUsermap | kVmNoGuard | kVmFlushResetPerms);
  request.caller = o.caller;
  return Address(vmalloc.Alloc(request));
}
Outcome PerformVmalloc(const op::Vfree& o, Vmalloc& vmalloc) { return Answer(vmalloc.Free(VirtAddr(o.address)).error()); }
Outcome PerformVmalloc(const op::Vmap& o, const BuddyMemory& memory, Vmalloc& vmalloc) {
  return Address(vmalloc.Map(FramesOf(o.pfns, o.page_count, memory), kVmMap, o.caller));
}
Outcome PerformVmalloc(const op::Vunmap& o, Vmalloc& vmalloc) { return Answer(vmalloc.Unmap(VirtAddr(o.address)).error()); }
Outcome PerformVmalloc(const op::GetVmArea& o, Vmalloc& vmalloc) {
  return Address(vmalloc.GetArea(Bytes(o.size), o.flags & kVmAreaFlags, o.caller));
}
Outcome PerformVmalloc(const op::Ioremap& o, Vmalloc& vmalloc) {
  return Address(vmalloc.Ioremap(PhysAddr(o.physical), Bytes(o.size), o.caller));
}
Outcome PerformVmalloc(const op::Iounmap& o, Vmalloc& vmalloc) { return Answer(vmalloc.Iounmap(VirtAddr(o.address)).error()); }
Outcome PerformVmalloc(const op::VmMapRam& o, const BuddyMemory& memory, Vmalloc& vmalloc) {
  return Address(vmalloc.MapRam(FramesOf(o.pfns, o.page_count, memory), o.cpu));
}
Outcome PerformVmalloc(const op::VmUnmapRam& o, Vmalloc& vmalloc) {
  return Answer(vmalloc.UnmapRam(VirtAddr(o.address), PageCount(o.page_count)).error());
}
Outcome PerformVmalloc(const op::VmUnmapAliases&, Vmalloc& vmalloc) {
  vmalloc.UnmapAliases();
  return Answer(Errno::kOk);
}

Outcome PerformKmap(const op::Kmap& o, Kmap& kmap) { return Address(kmap.Map(Pfn(o.pfn))); }
Outcome PerformKmap(const op::Kunmap& o, Kmap& kmap) { return Answer(kmap.Unmap(Pfn(o.pfn))); }
Outcome PerformKmap(const op::KmapLocal& o, Kmap& kmap) { return Address(kmap.MapLocal(Pfn(o.pfn), o.cpu)); }
Outcome PerformKmap(const op::KunmapLocal& o, Kmap& kmap) { return Answer(kmap.UnmapLocal(VirtAddr(o.address), o.cpu)); }
Outcome PerformKmap(const op::KmapFlushUnused&, Kmap& kmap) {
  kmap.FlushUnused();
  return Answer(Errno::kOk);
}

Outcome PerformPercpu(const op::AllocPercpu& o, int cpus, PercpuAllocator& percpu) {
  const SysResult<VirtAddr> address = percpu.Alloc(o.size, o.align, o.atomic);
  Outcome outcome = Address(address);
  for (int cpu = 0; address.ok() && cpu < cpus; ++cpu) outcome.addresses.push_back(percpu.Of(address.value(), cpu).raw());
  return outcome;
}
Outcome PerformPercpu(const op::FreePercpu& o, PercpuAllocator& percpu) { return Answer(percpu.Free(VirtAddr(o.address))); }

}  // namespace mmlab

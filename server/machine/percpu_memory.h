#ifndef MMLAB_SERVER_MACHINE_PERCPU_MEMORY_H_
#define MMLAB_SERVER_MACHINE_PERCPU_MEMORY_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "server/arch/kernel_layout.h"
#include "server/arch/layout.h"
#include "server/kernel/percpu_allocator.h"
#include "server/machine/machine_spec.h"

namespace mmlab {

class BuddyMemory;
class KernelPageTables;
class Vmalloc;

// How the recorded kernels cut a unit of the first chunk: "percpu: Embedded 33 pages/cpu s103316 r0 d31852 u135168". Bytes.
struct PerCpuSizes {
  uint32_t fixed, reserved, dynamic, unit;
};
PerCpuSizes PerCpuSizesOf(LayoutKind kind);

// Chunks of the per-CPU allocator in the vmalloc area, from its top down; frames and entries for their pages.
class PercpuMemory final : public PercpuPages {
 public:
  // All outlive this.
  PercpuMemory(LayoutKind layout, PageSize page_size, Vmalloc& vmalloc, KernelPageTables& tables, BuddyMemory& memory);

  std::optional<VirtAddr> GetArea(Bytes size) override;
  void FreeArea(VirtAddr start) override;
  bool Populate(VirtRange range) override;
  void Depopulate(VirtRange range) override;

 private:
  LayoutKind layout_;
  PageSize page_size_;
  Vmalloc& vmalloc_;
  KernelPageTables& tables_;
  BuddyMemory& memory_;
};

// Where boot's second chunk lies, which only ARM64 has: the area that the description names, or the one that the allocator takes. Nothing:
// no such chunk.
std::optional<VirtAddr> BootPercpuArea(const MachineSpec& spec, const Layout& layout, PercpuMemory& memory, const Vmalloc& vmalloc);

// The allocator as boot leaves it, its second chunk at `area`. What boot itself allocated is not known one by one, only how many pages it
// made: on x86-32 the first chunk was enough for it and left three pages of a unit; on ARM64 it left one, so that a second chunk has three
// pages. Null: the description does not say where the first chunk lies.
std::unique_ptr<PercpuAllocator> MakePercpuAllocator(const MachineSpec& spec, const Layout& layout, const KernelLayout& kernel,
                                                     PercpuMemory& memory, std::optional<VirtAddr> area, Tracer& tracer);

// pcpu_nr_pages() as boot leaves it.
uint64_t BootPercpuPages(LayoutKind kind, int cpus);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PERCPU_MEMORY_H_

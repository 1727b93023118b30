#include "server/machine/board.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/machine/memory_map.h"

namespace mmlab {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kPage = 4096;

constexpr uint64_t RoundUp(uint64_t value, uint64_t step) { return (value + step - 1) / step * step; }
constexpr uint64_t RoundDown(uint64_t value, uint64_t step) { return value / step * step; }

NamedRange Named(absl::string_view name, uint64_t start, uint64_t end) { return {{PhysAddr(start), PhysAddr(end)}, std::string(name)}; }
BootReservation Reserved(absl::string_view purpose, uint64_t start, uint64_t end, bool freed_late = false) {
  return {{PhysAddr(start), PhysAddr(end)}, std::string(purpose), freed_late};
}
FirmwareRange Firmware(uint64_t start, uint64_t end, FirmwareRange::Type type) { return {{PhysAddr(start), PhysAddr(end)}, type}; }
IomemResource Node(absl::string_view name, uint64_t start, uint64_t last, std::vector<IomemResource> children = {}) {
  return {PhysAddr(start), PhysAddr(last), std::string(name), std::move(children)};
}

// Where the recorded kernels' images lie and how large their parts are.
struct Image {
  std::vector<NamedRange> sections;
  uint64_t start, end;            // All of it, early page tables (brk) included.
  uint64_t init_start, init_end;  // Freed late.
  uint64_t early_end;             // From init_end: SMP alternatives, free before the watermarks are computed.
};

Image ImageOf(LayoutKind layout, uint64_t ram_start) {
  switch (layout) {
    case LayoutKind::kX86_32:
      return {{Named("Kernel code", 0x1000000, 0x191bc80), Named("Kernel rodata", 0x191c000, 0x1c39000),
               Named("Kernel data", 0x1c39000, 0x1d70bc0), Named("Kernel bss", 0x1e72000, 0x1ee6000)},
              0x1000000,
              0x1ef6000,
              0x1d86000,
              0x1e6a000,
              0x1e72000};
    case LayoutKind::kX86_32Pae:
      return {{Named("Kernel code", 0x1000000, 0x1933f00), Named("Kernel rodata", 0x1934000, 0x1c51000),
               Named("Kernel data", 0x1c52000, 0x1d8e680), Named("Kernel bss", 0x1e94000, 0x1f0b000)},
              0x1000000,
              0x1f24000,
              0x1da4000,
              0x1e8c000,
              0x1e94000};
    case LayoutKind::kArm64: {
      const uint64_t base = RoundUp(ram_start, 2 * kMiB);
      return {{Named("Kernel code", base + 0x210000, base + 0x1860000), Named("Kernel data", base + 0x1eb0000, base + 0x2210000)},
              base + 0x210000,
              base + 0x220b000,
              base + 0x1860000,
              base + 0x1eb0000,
              base + 0x1eb0000};
    }
  }
  return {};
}

// Takes memory from the top of the free ranges downward, as memblock does.
class TopDown {
 public:
  explicit TopDown(std::vector<PhysRange> free) : free_(std::move(free)) {}

  void Remove(PhysRange range) {
    std::vector<PhysRange> left;
    for (PhysRange r : free_) {
      if (!r.Overlaps(range)) {
        left.push_back(r);
        continue;
      }
      if (r.start < range.start) left.push_back({r.start, range.start});
      if (range.end < r.end) left.push_back({range.end, r.end});
    }
    free_ = std::move(left);
  }

  // False: no range is large enough.
  bool Take(uint64_t bytes, uint64_t align, uint64_t limit, PhysRange* out) {
    for (size_t i = free_.size(); i-- > 0;) {
      const uint64_t low = free_[i].start.raw();
      const uint64_t top = std::min(free_[i].end.raw(), limit);
      if (top < low || top - low < bytes) continue;
      const uint64_t start = RoundDown(top - bytes, align);
      if (start < low) continue;
      *out = {PhysAddr(start), PhysAddr(start + bytes)};
      Remove(*out);
      return true;
    }
    return false;
  }

 private:
  std::vector<PhysRange> free_;  // Ascending.
};

// Bytes of a boot-time hash table. Linux: alloc_large_system_hash(), mm/page_alloc.c.
uint64_t HashTableBytes(uint64_t kernel_pages, int scale, uint64_t bucket_bytes, bool wide) {
  uint64_t entries = RoundUp(kernel_pages, kMiB / kPage);
  if (wide) {  // From 64 GiB on the tables grow more slowly.
    for (uint64_t adapt = 64 * kGiB / kPage; adapt < entries; adapt <<= 2) ++scale;
  }
  entries >>= scale - 12;
  uint64_t rounded = 1;
  while (rounded < entries) rounded <<= 1;
  const uint64_t most = RoundDown(kernel_pages * kPage / 16 / bucket_bytes, 1);
  while (rounded > most && rounded > 1) rounded >>= 1;
  return RoundUp(rounded * bucket_bytes, kPage);
}

class Planner {
 public:
  explicit Planner(MachineSpec& spec) : spec_(spec), layout_(GetLayout(spec.layout)) {
    for (PfnRange r : RamFrames(layout_.page_size, KernelMemoryMap(spec))) {
      ram_.push_back({layout_.page_size.StartOf(r.start), layout_.page_size.StartOf(r.end)});
      frames_.push_back(r);
    }
  }

  absl::Status Plan() {
    if (ram_.empty()) return Error(absl::StrCat("no RAM that ", layout_.name, " can address"));
    MMLAB_ASSIGN_OR_RETURN(const KernelLayout kernel, KernelLayoutOf(spec_, frames_));
    frames_ = RamBelow(frames_, kernel.max_pfn);
    ram_.clear();
    for (PfnRange r : frames_) ram_.push_back({layout_.page_size.StartOf(r.start), layout_.page_size.StartOf(r.end)});
    max_low_pfn_ = kernel.max_low_pfn;
    const Image image = ImageOf(spec_.layout, ram_.front().start.raw());
    const bool fits = std::any_of(ram_.begin(), ram_.end(), [&](PhysRange r) {
      return r.Contains(PhysRange{PhysAddr(image.start), PhysAddr(image.end)});
    });
    if (!fits) return Error("RAM must hold the kernel image");
    if (spec_.kernel_sections.empty()) spec_.kernel_sections = image.sections;
    Keep("kernel image", image.start, image.init_start);
    spec_.reserved_ranges.push_back(Reserved("init sections", image.init_start, image.init_end, true));
    Keep("kernel image", image.early_end, image.end);
    return layout_.is_x86() ? PlanX86(image) : PlanArm64(image);
  }

 private:
  static absl::Status Error(absl::string_view rule) { return absl::InvalidArgumentError(absl::StrCat("spec.firmware_ranges: ", rule)); }

  void Keep(absl::string_view purpose, uint64_t start, uint64_t end) {
    if (start < end) spec_.reserved_ranges.push_back(Reserved(purpose, start, end));
  }

  bool Take(TopDown& memory, absl::string_view purpose, uint64_t bytes, uint64_t align, uint64_t limit) {
    PhysRange range{};
    if (!memory.Take(bytes, align, limit, &range)) return false;
    Keep(purpose, range.start.raw(), range.end.raw());
    return true;
  }

  absl::Status PlanX86(const Image& image) {
    const uint64_t low_end = layout_.page_size.StartOf(max_low_pfn_).raw();
    Keep("low memory", 0, kMiB);
    TopDown memory(FreeBelow(image, low_end));
    // The memory map covers whole blocks of the largest order from frame 0: 40 bytes a frame.
    const uint64_t map_frames = RoundUp(frames_.back().end.raw(), 1024);
    bool ok = Take(memory, "mem_map", RoundUp(map_frames * 40, kPage), kPage, low_end);
    ok = ok && Take(memory, "boot structures", kPage, kPage, low_end);
    ok = ok && Take(memory, "per-CPU areas", 33 * kPage * static_cast<uint64_t>(spec_.cpus), kPage, low_end);
    uint64_t low_frames = 0;
    for (PfnRange r : frames_) {
      const Pfn end = std::min(r.end, max_low_pfn_);
      if (r.start < end) low_frames += (end - r.start).raw();
    }
    low_frames -= std::min(low_frames, map_frames * 40 / kPage);
    ok = ok && Take(memory, "dentry hash table", HashTableBytes(low_frames, 13, 4, false), kPage, low_end);
    ok = ok && Take(memory, "inode hash table", HashTableBytes(low_frames, 14, 4, false), kPage, low_end);
    if (ram_.back().end.raw() > 4 * kGiB) {  // Bounce buffers for devices that reach 4 GiB, and 16 bytes for each slot of 2 KiB.
      ok = ok && Take(memory, "software IO TLB", 64 * kMiB, kPage, low_end);
      ok = ok && Take(memory, "software IO TLB slots", 64 * kMiB / 2048 * 16, kPage, low_end);
    }
    return ok ? absl::OkStatus() : Error("RAM must hold the kernel's memory map and tables below the end of lowmem");
  }

  absl::Status PlanArm64(const Image& image) {
    const uint64_t end = ram_.back().end.raw();
    TopDown memory(FreeBelow(image, end));
    // The loader puts the device tree, 1 MiB, behind the place of an initramfs, not onto the image.
    const uint64_t first_bank = ram_.front().length().raw();
    const uint64_t after_initramfs = ram_.front().start.raw() + std::min(first_bank / 2, 128 * kMiB) + 2 * kMiB;
    const uint64_t tree = RoundUp(std::max(after_initramfs, image.end), 2 * kMiB);
    memory.Remove({PhysAddr(tree), PhysAddr(tree + kMiB)});
    Keep("device tree", tree, tree + kMiB);
    uint64_t bytes = 0;
    uint64_t map_bytes = 0;  // 64 bytes a frame, mapped by 2 MiB blocks: one for each section of 128 MiB.
    for (PhysRange r : ram_) {
      bytes += r.length().raw();
      map_bytes += (RoundUp(r.end.raw(), 128 * kMiB) - RoundDown(r.start.raw(), 128 * kMiB)) / 64;
    }
    // The linear map is made of pages, so that single ones can be made read-only: a table for each 2 MiB and each 1 GiB.
    const uint64_t tables = RoundUp(bytes, 2 * kMiB) / (2 * kMiB) + RoundUp(bytes, kGiB) / kGiB + 2;
    bool ok = Take(memory, "page tables of the linear map", tables * kPage, kPage, end);
    ok = ok && Take(memory, "node and section structures", 49 * kPage, kPage, end);
    ok = ok && Take(memory, "mem_map", map_bytes, 2 * kMiB, end);
    if (spec_.cma_areas.empty()) {
      PhysRange cma{};
      if (memory.Take(64 * kMiB, 4 * kMiB, 4 * kGiB, &cma)) spec_.cma_areas.push_back({cma, "cma"});
    }
    if (end > 4 * kGiB) ok = ok && Take(memory, "software IO TLB", 64 * kMiB, 2 * kMiB, 4 * kGiB);
    ok = ok && Take(memory, "per-CPU areas", 31 * kPage * static_cast<uint64_t>(spec_.cpus), kPage, end);
    const uint64_t kernel_pages = bytes / kPage - std::min(bytes / kPage, map_bytes / kPage);
    ok = ok && Take(memory, "dentry hash table", HashTableBytes(kernel_pages, 13, 8, true), kPage, end);
    ok = ok && Take(memory, "inode hash table", HashTableBytes(kernel_pages, 14, 8, true), kPage, end);
    return ok ? absl::OkStatus() : Error("RAM must hold the kernel's memory map and tables");
  }

  // RAM above the first MiB (x86) without the image, below `limit`.
  std::vector<PhysRange> FreeBelow(const Image& image, uint64_t limit) const {
    const uint64_t floor = layout_.is_x86() ? kMiB : 0;
    std::vector<PhysRange> free;
    const auto add = [&](uint64_t start, uint64_t end) {
      start = std::max(start, floor);
      end = std::min(end, limit);
      if (start < end) free.push_back({PhysAddr(start), PhysAddr(end)});
    };
    for (PhysRange r : ram_) {
      add(r.start.raw(), std::min(r.end.raw(), image.start));
      add(std::max(r.start.raw(), image.end), r.end.raw());
    }
    return free;
  }

  MachineSpec& spec_;
  const Layout& layout_;
  std::vector<PhysRange> ram_;
  std::vector<PfnRange> frames_;
  Pfn max_low_pfn_;
};

// QEMU's "pc" (i440FX): 64-bit RAM from 4 GiB on when there is more than 3.5 GiB; tables of ACPI in the last 140 KiB below.
void DescribePc(uint64_t ram, MachineSpec& spec) {
  const uint64_t low = ram >= 0xe0000000 ? 0xc0000000 : ram;
  const auto usable = FirmwareRange::Type::kRam;
  const auto reserved = FirmwareRange::Type::kReserved;
  spec.firmware_ranges = {
      Firmware(0, 0x9fc00, usable),          Firmware(0x9fc00, 0xa0000, reserved),   Firmware(0xf0000, kMiB, reserved),
      Firmware(kMiB, low - 0x23000, usable), Firmware(low - 0x23000, low, reserved), Firmware(0xfffc0000, 4 * kGiB, reserved),
  };
  if (ram > low) spec.firmware_ranges.push_back(Firmware(4 * kGiB, 4 * kGiB + (ram - low), usable));
  spec.firmware_ranges.push_back(Firmware(0xfd00000000, 0x10000000000, reserved));
  spec.iomem_resources = {
      Node("PCI Bus 0000:00", 0xa0000, 0xbffff, {Node("Video RAM area", 0xa0000, 0xbffff)}),
      Node("Video ROM", 0xc0000, 0xc05ff),
      Node("System ROM", 0xf0000, 0xfffff),
      Node("PCI Bus 0000:00", low, 0xfebfffff,
           {Node("0000:00:02.0", 0xfebf8000, 0xfebfbfff), Node("0000:00:02.0", 0xfebff000, 0xfebfffff)}),
      Node("IOAPIC 0", 0xfec00000, 0xfec003ff),
      Node("HPET 0", 0xfed00000, 0xfed003ff, {Node("PNP0103:00", 0xfed00000, 0xfed003ff)}),
      Node("Local APIC", 0xfee00000, 0xfee00fff),
  };
}

// QEMU's "virt": one bank from 1 GiB.
void DescribeVirt(uint64_t ram, MachineSpec& spec) {
  spec.firmware_ranges = {Firmware(kGiB, kGiB + ram, FirmwareRange::Type::kRam)};
  spec.iomem_resources = {
      Node("pl011@9000000", 0x9000000, 0x9000fff, {Node("9000000.pl011 pl011@9000000", 0x9000000, 0x9000fff)}),
      Node("pl031@9010000", 0x9010000, 0x9010fff, {Node("rtc-pl031", 0x9010000, 0x9010fff)}),
      Node("pl061@9030000", 0x9030000, 0x9030fff, {Node("9030000.pl061 pl061@9030000", 0x9030000, 0x9030fff)}),
      Node("pcie@10000000", 0x10000000, 0x3efeffff),
      Node("PCI ECAM", 0x4010000000, 0x401fffffff),
      Node("pcie@10000000", 0x8000000000, 0xffffffffff),
  };
}

}  // namespace

DefaultKernel DefaultKernelOf(LayoutKind layout) {
  DefaultKernel kernel;
  kernel.built_by = "debian-kernel@lists.debian.org";
  kernel.compiler = "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40";
  kernel.version = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-02)";
  switch (layout) {
    case LayoutKind::kX86_32:
      kernel.release = "6.1.0-50-686";
      break;
    case LayoutKind::kX86_32Pae:
      kernel.release = "6.1.0-50-686-pae";
      break;
    case LayoutKind::kArm64:
      kernel.release = "6.1.0-50-arm64";
      kernel.version = "#1 SMP Debian 6.1.176-1 (2026-07-02)";
      break;
  }
  return kernel;
}

absl::Status DescribeUsualBoard(Bytes ram, MachineSpec& spec) {
  const bool x86 = spec.layout != LayoutKind::kArm64;
  const uint64_t least = (x86 ? 48 : 64) * kMiB;
  uint64_t most = kGiB * 1024;
  if (spec.layout == LayoutKind::kX86_32) most = 0xe0000000 - kMiB;
  // The last GiB below 4 GiB belongs to devices, and the memory map has to fit into lowmem.
  if (spec.layout == LayoutKind::kX86_32Pae) most = 64 * kGiB - kGiB;
  const uint64_t bytes = ram.raw();
  if (bytes % kMiB != 0 || bytes < least || bytes > most) {
    return absl::InvalidArgumentError(absl::StrCat("spec.ram_bytes: on ", GetLayout(spec.layout).name, " a multiple of 1 MiB, ",
                                                   least / kMiB, " MiB to ", most / kMiB, " MiB"));
  }
  spec.kernel_sections.clear();
  spec.reserved_ranges.clear();
  spec.cma_areas.clear();
  spec.recorded_sysctls.clear();
  if (x86) {
    DescribePc(bytes, spec);
  } else {
    DescribeVirt(bytes, spec);
  }
  return absl::OkStatus();
}

absl::Status PlanReservations(MachineSpec& spec) { return Planner(spec).Plan(); }

}  // namespace mmlab

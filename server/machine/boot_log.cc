#include "server/machine/boot_log.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/machine/boot_arguments.h"
#include "server/machine/early_memory.h"
#include "server/machine/memory_map.h"
#include "server/machine/percpu_memory.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr int kError = 3, kWarning = 4, kNotice = 5, kInfo = 6, kDebug = 7;
constexpr uint64_t kAlternativesPages = 8;  // "Freeing SMP alternatives memory", x86: freed between mem_init() and the watermarks.

// Sizes that the build of the recorded kernels fixed.
struct BuildSizes {
  PerCpuSizes per_cpu;
  int nr_cpus;
  uint64_t struct_page;
};
BuildSizes BuildSizesOf(LayoutKind kind) {
  const bool arm64 = kind == LayoutKind::kArm64;
  return {PerCpuSizesOf(kind), arm64 ? 256 : 32, arm64 ? uint64_t{64} : uint64_t{40}};
}

std::string Mem(uint64_t start, uint64_t end) { return absl::StrFormat("[mem 0x%016x-0x%016x]", start, end - 1); }
std::string Mem32(uint64_t start, uint64_t end) { return absl::StrFormat("[mem 0x%08x-0x%08x]", start, end - 1); }

class Writer {
 public:
  explicit Writer(const Machine& machine)
      : spec_(machine.spec()),
        layout_(machine.layout()),
        kernel_(machine.kernel_layout()),
        zones_(machine.memory().zones()),
        sizes_(BuildSizesOf(spec_.layout)),
        map_(KernelMemoryMap(spec_)),
        frames_(RamBelow(RamFrames(layout_.page_size, map_), kernel_.max_pfn)) {}

  std::vector<BootLogLine> Write() {
    Firmware();
    if (layout_.is_x86()) {
      X86MemoryMap();
      X86AddressSpace();
    } else {
      Arm64AddressSpace();
    }
    Zones();
    EarlyAreas();
    PageAllocator();
    Freeing();
    return std::move(lines_);
  }

 private:
  void Add(int level, std::string text, absl::string_view why) { lines_.push_back({stage_, level, std::move(text), std::string(why)}); }
  uint64_t Address(uint64_t frame) const { return frame << layout_.page_size.shift(); }
  uint64_t Kib(uint64_t pages) const { return pages << (layout_.page_size.shift() - 10); }

  void Firmware() {
    stage_ = BootStage::kFirmware;
    Add(kNotice,
        absl::StrCat("Linux version ", spec_.kernel_release, " (", spec_.kernel_built_by, ") (", spec_.kernel_compiler, ") ",
                     spec_.kernel_version),
        "the kernel's build");
    if (!layout_.is_x86()) return;
    Add(kInfo, "BIOS-provided physical RAM map:", "firmware's e820 table, sorted, overlaps given to the higher type");
    for (const FirmwareRange& r : SanitizeFirmwareRanges(spec_.firmware_ranges)) {
      Add(kInfo, absl::StrCat("BIOS-e820: ", Mem(r.range.start.raw(), r.range.end.raw()), " ", E820TypeName(r.type)),
          "an entry of that table");
    }
    EarlyArguments();
    if (spec_.layout == LayoutKind::kX86_32Pae) {
      Add(kInfo, "NX (Execute Disable) protection: active", "entries of 64 bits have room for the bit");
    } else {
      Add(kNotice, "Notice: NX (Execute Disable) protection cannot be enabled: non-PAE kernel!", "entries of 32 bits have no bit for it");
    }
  }

  // What parse_early_param() says of mem= and memmap= as it comes upon them.
  void EarlyArguments() {
    constexpr uint64_t kEnd = ~uint64_t{0};
    for (const MemoryEdit& edit : ParseBootArguments(spec_.command_line).edits) {
      if (edit.kind == MemoryEdit::Kind::kLimit) {
        Add(kDebug, absl::StrFormat("e820: remove [mem %#010x-%#010x] usable", edit.size, kEnd - 1), "mem= or memmap= of the command line");
      } else if (edit.kind == MemoryEdit::Kind::kChange && (edit.from != 0 || edit.to == 0)) {
        const std::string range = absl::StrFormat("[mem %#010x-%#010x]", edit.start, edit.start + edit.size - 1);
        std::string text = absl::StrCat("e820: ", edit.to == 0 ? "remove " : "update ", range);
        if (edit.from != 0) absl::StrAppend(&text, " ", E820TypeName(static_cast<FirmwareRange::Type>(edit.from)));
        if (edit.to != 0) absl::StrAppend(&text, " ==> ", E820TypeName(static_cast<FirmwareRange::Type>(edit.to)));
        Add(kDebug, std::move(text), "memmap= of the command line");
      }
    }
  }

  void X86MemoryMap() {
    stage_ = BootStage::kMemoryMap;
    const BootArguments arguments = ParseBootArguments(spec_.command_line);
    if (!arguments.edits.empty()) {
      Add(kInfo, "user-defined physical RAM map:", "mem= and memmap= of the command line change the table");
      for (const FirmwareRange& r : EditFirmwareRanges(spec_.layout, spec_.firmware_ranges, arguments.edits)) {
        Add(kInfo, absl::StrCat("user: ", Mem(r.range.start.raw(), r.range.end.raw()), " ", E820TypeName(r.type)), "an entry after that");
      }
    }
    Add(kDebug, "e820: update [mem 0x00000000-0x00000fff] usable ==> reserved", "the BIOS keeps its data in the first page");
    Add(kDebug, "e820: remove [mem 0x000a0000-0x000fffff] usable", "video memory and ROMs: no RAM is believed there");
    Add(kInfo,
        absl::StrFormat("last_pfn = 0x%x max_arch_pfn = 0x%x", std::min(kernel_.firmware_end_pfn, kernel_.max_arch_pfn).raw(),
                        kernel_.max_arch_pfn.raw()),
        "end of RAM, and MAX_ARCH_PFN: what page tables of this layout can name");
    if (spec_.initramfs) Initramfs();
  }

  void Initramfs() {
    const PhysRange given = *spec_.initramfs;
    Add(kInfo, absl::StrCat("RAMDISK: ", Mem32(given.start.raw(), (given.end.raw() + 4095) / 4096 * 4096)), "where the loader put it");
    for (const BootReservation& r : spec_.reserved_ranges) {
      if (r.purpose != "initramfs" || r.range.start.raw() == given.start.raw() / 4096 * 4096) continue;
      const uint64_t start = r.range.start.raw();
      Add(kInfo, absl::StrCat("Allocated new RAMDISK: ", Mem32(start, start + given.length().raw())), "the old place is not in lowmem");
      Add(kInfo,
          absl::StrCat("Move RAMDISK from ", Mem32(given.start.raw(), given.end.raw()), " to ", Mem32(start, start + given.length().raw())),
          "the old place is RAM to use again");
    }
  }

  void X86AddressSpace() {
    stage_ = BootStage::kAddressSpace;
    if (!kernel_.has_highmem_zone() && kernel_.firmware_end_pfn > kernel_.maxmem_pfn) {
      Add(kWarning, absl::StrFormat("Warning only %dMB will be used.", kernel_.maxmem.raw() >> 20),
          "without CONFIG_HIGHMEM only the linear map's MAXMEM can be used; the rest is lost");
      const bool beyond = kernel_.firmware_end_pfn.raw() > (uint64_t{1} << 20);
      Add(kWarning, absl::StrCat("Use a HIGHMEM", beyond ? "64G" : "", " enabled kernel."), "what would use all of it");
    } else if (kernel_.has_highmem_zone() && kernel_.config.highmem_arg && kernel_.highmem_pages != *kernel_.config.highmem_arg) {
      Add(kError, absl::StrFormat("highmem size (%uMB) is ignored!", kernel_.config.highmem_arg->raw() >> 8),
          "highmem= must leave 64 MB of lowmem, and be RAM");
    }
    if (kernel_.has_highmem_zone()) {
      Add(kNotice, absl::StrFormat("%dMB HIGHMEM available.", (kernel_.highend_pfn - kernel_.highstart_pfn).raw() >> 8),
          "RAM above max_low_pfn, which the kernel maps page by page when it needs it");
    }
    Add(kNotice, absl::StrFormat("%dMB LOWMEM available.", kernel_.max_low_pfn.raw() >> 8),
        "RAM below MAXMEM = VMALLOC_END - PAGE_OFFSET - __VMALLOC_RESERVE is mapped for good");
    const uint64_t low = Address(kernel_.max_low_pfn.raw());
    Add(kInfo, absl::StrFormat("  mapped low ram: 0 - %08x", low), "the linear map");
    Add(kInfo, absl::StrFormat("  low ram: 0 - %08x", low), "max_low_pfn");
  }

  void Arm64AddressSpace() {
    stage_ = BootStage::kAddressSpace;
    const uint64_t start = Address(frames_.front().start.raw());
    const uint64_t end = Address(frames_.back().end.raw());
    for (const MemoryEdit& edit : ParseBootArguments(spec_.command_line).edits) {
      if (!edit.memmap) Add(kNotice, absl::StrFormat("Memory limited to %dMB", edit.size >> 20), "mem= of the command line");
    }
    if (kernel_.firmware_end_pfn > kernel_.max_pfn) {
      Add(kWarning, "Memory doesn't fit in the linear mapping, VA_BITS too small", "RAM goes on beyond the linear map: the rest is lost");
    }
    Add(kInfo, "NUMA: No NUMA configuration found", "the device tree names no nodes");
    Add(kInfo, absl::StrCat("NUMA: Faking a node at ", Mem(start, end)), "one node for all of RAM");
  }

  void Zones() {
    stage_ = BootStage::kZones;
    Add(kInfo, "Zone ranges:", "DMA: devices with short addresses; Normal: mapped for good; HighMem: not mapped");
    for (const Zone& zone : zones_) {
      if (zone.type == ZoneType::kMovable) continue;
      const std::string range = zone.spanned == 0 ? "empty" : Mem(Address(zone.start_pfn), Address(ZoneEnd(zone)));
      Add(kInfo, absl::StrFormat("  %-8s %s", zone.name(), range), ZoneReason(zone.type));
    }
    Add(kInfo, "Movable zone start for each node", "kernelcore= and movablecore= leave the top to pages that can move");
    for (const Zone& zone : zones_) {
      if (zone.type != ZoneType::kMovable || zone.spanned == 0) continue;
      Add(kInfo, absl::StrFormat("  Node 0: 0x%016x", Address(zone.start_pfn)), "rounded up to blocks of the largest order");
    }
    Add(kInfo, "Early memory node ranges", "memblock's RAM in whole pages");
    for (PfnRange r : frames_) Add(kInfo, absl::StrCat("  node   0: ", Mem(Address(r.start.raw()), Address(r.end.raw()))), "a bank of RAM");
    Add(kInfo, absl::StrCat("Initmem setup node 0 ", Mem(Address(frames_.front().start.raw()), Address(frames_.back().end.raw()))),
        "from the first frame to the last");
    Holes();
  }

  // With ZONE_MOVABLE, the zone that it was taken from is printed with its full range.
  uint64_t ZoneEnd(const Zone& zone) const {
    const Zone& movable = zones_.back();
    return movable.spanned != 0 && movable.start_pfn == zone.end_pfn() ? movable.end_pfn() : zone.end_pfn();
  }

  absl::string_view ZoneReason(ZoneType type) const {
    switch (type) {
      case ZoneType::kDma:
        return layout_.is_x86() ? "ISA devices reach 16 MiB" : "32-bit devices reach 4 GiB";
      case ZoneType::kDma32:
        return "empty: DMA already covers 4 GiB";
      case ZoneType::kNormal:
        return layout_.is_x86() ? "up to max_low_pfn" : "what 32-bit devices cannot reach";
      case ZoneType::kHighMem:
        return "from max_low_pfn to max_pfn";
      case ZoneType::kMovable:
        break;
    }
    return "";
  }

  // memmap_init(): frames with a struct page that are no RAM. ARM64 has struct pages for whole sections of 128 MiB that hold RAM.
  void Holes() {
    constexpr uint64_t kSection = 32768;
    uint64_t hole = 0;
    for (size_t i = 0; i < frames_.size(); ++i) {
      for (const Zone& zone : zones_) {
        const uint64_t start = std::max<uint64_t>(frames_[i].start.raw(), zone.start_pfn);
        const uint64_t end = std::min<uint64_t>(frames_[i].end.raw(), zone.end_pfn());
        if (zone.spanned == 0 || start >= end) continue;
        uint64_t from = hole;
        if (!layout_.is_x86()) {
          const uint64_t known = i == 0 ? 0 : (frames_[i - 1].end.raw() + kSection - 1) / kSection * kSection;
          from = std::max(from, std::min(start, start / kSection * kSection));
          if (hole < known) from = std::min(from, hole);
        }
        if (from < start) {
          Add(kInfo, absl::StrFormat("On node 0, zone %s: %d pages in unavailable ranges", zone.name(), start - from),
              "frames that have a struct page and are no RAM");
        }
        hole = end;
      }
    }
  }

  void EarlyAreas() {
    stage_ = BootStage::kEarlyAreas;
    if (!layout_.is_x86()) Cma();
    const int cpus = spec_.cpus;
    if (layout_.is_x86()) {
      PciGap();
      Add(kInfo, absl::StrFormat("setup_percpu: NR_CPUS:%d nr_cpumask_bits:%d nr_cpu_ids:%d nr_node_ids:1", sizes_.nr_cpus, cpus, cpus),
          "CPUs that the kernel was built for, and that there are");
    }
    Add(kInfo,
        absl::StrFormat("percpu: Embedded %d pages/cpu s%d r%d d%d u%d", sizes_.per_cpu.unit / 4096, sizes_.per_cpu.fixed,
                        sizes_.per_cpu.reserved, sizes_.per_cpu.dynamic, sizes_.per_cpu.unit),
        "static, reserved (modules) and dynamic per-CPU variables, one copy a CPU");
  }

  // e820__setup_pci_gap(): the largest hole of the map below 4 GiB, or a place to begin with.
  void PciGap() {
    uint64_t start = 0x10000000;
    uint64_t size = 0x400000;
    uint64_t above = uint64_t{1} << 32;
    for (auto it = map_.rbegin(); it != map_.rend(); ++it) {
      const uint64_t end = it->range.end.raw();
      if (above > end && above - end >= size) {
        start = end;
        size = above - end;
      }
      above = std::min(above, it->range.start.raw());
    }
    Add(kInfo, absl::StrCat(Mem32(start, start + size), " available for PCI devices"), "the largest hole of the map below 4 GiB");
  }

  void Cma() {
    const bool no_cma = ParseBootArguments(spec_.command_line).cma.value_or(CmaArgument{1}).size == 0;
    for (const NamedRange& area : spec_.cma_areas) {
      Add(kInfo, absl::StrFormat("cma: Reserved %d MiB at 0x%016x", area.range.length().raw() >> 20, area.range.start.raw()),
          "contiguous memory for devices; movable pages may use it meanwhile");
    }
    if (spec_.cma_areas.empty() && !no_cma) {
      const CmaArgument wish = ParseBootArguments(spec_.command_line).cma.value_or(CmaArgument{64 << 20});
      Add(kError, absl::StrFormat("cma: Failed to reserve %d MiB", wish.size >> 20), "no free range is large enough");
    }
  }

  // nr_all_pages, nr_kernel_pages: RAM without its part of mem_map.
  std::pair<uint64_t, uint64_t> KernelPages() const {
    uint64_t all = 0;
    uint64_t kernel = 0;
    for (const Zone& zone : zones_) {
      const uint64_t described = layout_.is_x86() || zone.spanned <= zone.present + zone.present / 16 ? zone.spanned : zone.present;
      const uint64_t map = (described * sizes_.struct_page + 4095) / 4096;
      if (zone.highmem) {
        all += zone.present;
        if (kernel > 2 * map) kernel -= map;
        continue;
      }
      all += zone.present - std::min<uint64_t>(map, zone.present);
      kernel += zone.present - std::min<uint64_t>(map, zone.present);
    }
    return {all, kernel};
  }

  void HashTable(absl::string_view name, uint64_t pages, int scale) {
    const uint64_t bucket = layout_.is_x86() ? 4 : 8;
    const uint64_t bytes = HashTableBytes(pages, scale, bucket, !layout_.is_x86());
    Add(kInfo,
        absl::StrFormat("%s hash table entries: %d (order: %d, %d bytes, linear)", name, bytes / bucket,
                        std::max(0, std::countr_zero(bytes) - 12), bytes),
        absl::StrCat("a bucket for each ", 1 << (scale - 10), " KiB of kernel memory, rounded up to a power of two"));
  }

  void PageAllocator() {
    stage_ = BootStage::kPageAllocator;
    const auto [all, kernel] = KernelPages();
    if (!layout_.is_x86()) Add(kInfo, "Fallback order for Node 0: 0 ", "one node");
    Add(kInfo, absl::StrFormat("Built 1 zonelists, mobility grouping on.  Total pages: %d", all), "RAM without what mem_map takes");
    if (!layout_.is_x86()) {
      absl::string_view policy;
      for (const Zone& zone : zones_) {
        if (zone.populated() && zone.type != ZoneType::kMovable) policy = zone.name();
      }
      Add(kInfo, absl::StrCat("Policy zone: ", policy), "the highest zone that has RAM");
    }
    Add(kNotice, absl::StrCat("Kernel command line: ", spec_.command_line), "as the loader gave it");
    stage_ = BootStage::kEarlyAreas;
    HashTable("Dentry cache", kernel, 13);
    HashTable("Inode-cache", kernel, 14);
    stage_ = BootStage::kPageAllocator;
    for (const Zone& zone : zones_) {
      if (!layout_.is_x86() || !kernel_.has_highmem_zone()) break;
      if (zone.type != ZoneType::kHighMem && zone.type != ZoneType::kMovable) continue;
      if (zone.type == ZoneType::kMovable && !zone.highmem) continue;
      Add(kInfo,
          absl::StrFormat("Initializing %s for node 0 (%08x:%08x)", zone.name(), zone.spanned == 0 ? 0 : zone.start_pfn,
                          zone.spanned == 0 ? 0 : zone.end_pfn()),
          "its frames are freed page by page");
    }
    MemoryLine();
    stage_ = BootStage::kSlab;
    Add(kInfo, absl::StrFormat("SLUB: HWalign=64, Order=0-3, MinObjects=0, CPUs=%d, Nodes=1", spec_.cpus), "the slab allocator starts");
  }

  uint64_t SectionKib(absl::string_view name) const {
    for (const NamedRange& section : spec_.kernel_sections) {
      if (section.name == name) return section.range.length().raw() >> 10;
    }
    return 0;
  }

  uint64_t LatePages(absl::string_view purpose) const {
    uint64_t pages = 0;
    for (const BootReservation& r : spec_.reserved_ranges) {
      if (r.freed_late && r.purpose == purpose) pages += r.range.length().raw() >> layout_.page_size.shift();
    }
    return pages;
  }

  void MemoryLine() {
    uint64_t present = 0, managed = 0, cma = 0, high = 0;
    for (const Zone& zone : zones_) {
      present += zone.present;
      managed += zone.managed;
      cma += zone.cma_pages;
      if (zone.highmem) high += zone.managed;
    }
    const uint64_t init = LatePages("init sections");
    const uint64_t later = init + LatePages("initramfs") + cma + (layout_.is_x86() ? kAlternativesPages : 0);
    const uint64_t free = managed - std::min(managed, later);
    std::string image;
    if (layout_.is_x86()) {
      image = absl::StrFormat("%dK kernel code, %dK rwdata, %dK rodata, %dK init, %dK bss", SectionKib("Kernel code"),
                              SectionKib("Kernel data"), SectionKib("Kernel rodata"), Kib(init), SectionKib("Kernel bss"));
    } else {  // iomem joins them: as the recorded build has them.
      image = absl::StrFormat("13248K kernel code, 2806K rwdata, 9504K rodata, %dK init, 627K bss", Kib(init));
    }
    Add(kInfo,
        absl::StrFormat("Memory: %dK/%dK available (%s, %dK reserved, %dK cma-reserved%s)", Kib(free), Kib(present), image,
                        Kib(present - free - cma), Kib(cma), kernel_.has_highmem_zone() ? absl::StrFormat(", %dK highmem", Kib(high)) : ""),
        "given to the page allocator by now, of all RAM");
  }

  void Freeing() {
    stage_ = BootStage::kFreeing;
    if (layout_.is_x86()) {
      Add(kInfo, absl::StrFormat("Freeing SMP alternatives memory: %dK", Kib(kAlternativesPages)), "instructions are patched");
    }
    if (const uint64_t pages = LatePages("initramfs"); pages != 0) {
      Add(kInfo, absl::StrFormat("Freeing initrd memory: %dK", Kib(pages)), "it is unpacked; after the watermarks were computed");
    }
    Add(kInfo,
        absl::StrFormat("Freeing unused kernel %s: %dK", layout_.is_x86() ? "image (initmem) memory" : "memory",
                        Kib(LatePages("init sections"))),
        "code and data of boot; after the watermarks were computed");
  }

  const MachineSpec& spec_;
  const Layout& layout_;
  const KernelLayout& kernel_;
  const absl::Span<const Zone> zones_;
  const BuildSizes sizes_;
  const std::vector<FirmwareRange> map_;
  const std::vector<PfnRange> frames_;
  BootStage stage_ = BootStage::kFirmware;
  std::vector<BootLogLine> lines_;
};

}  // namespace

std::vector<BootLogLine> BootLog(const Machine& machine) { return Writer(machine).Write(); }

std::string BootLogText(const Machine& machine) {
  std::string text;
  for (const BootLogLine& line : BootLog(machine)) absl::StrAppend(&text, "<", line.level, ">[    0.000000] ", line.text, "\n");
  return text;
}

}  // namespace mmlab

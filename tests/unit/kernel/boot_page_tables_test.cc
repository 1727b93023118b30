// The tables that boot leaves, against what recorded kernels tell of theirs: DirectMap* of /proc/meminfo, early_pgtable_alloc of
// memblock=debug.
#include "server/kernel/boot_page_tables.h"

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "server/arch/page_table_format.h"
#include "server/hardware/page_walk.h"

namespace mmlab {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kPage = 4096;

PhysRange Range(uint64_t start, uint64_t end) { return {PhysAddr(start), PhysAddr(end)}; }

struct Kernel {
  Layout layout;
  KernelLayout addresses;
  std::vector<PhysRange> ram;
  std::unique_ptr<BootPageTables> tables;

  PageWalk Walk(uint64_t address) const {
    const auto read = [this](Pfn frame, size_t offset, void* out, size_t size) {
      const uint64_t entry = tables->Entry(frame, static_cast<uint32_t>(offset / size));
      std::memcpy(out, &entry, size);
    };
    return WalkPageTables(PageTableFormat(layout), read, tables->root(), VirtAddr(address));
  }
  uint64_t Leaf(uint64_t address) const {
    const PageWalk walk = Walk(address);
    return walk.physical ? walk.steps[static_cast<size_t>(walk.count) - 1].entry : 0;
  }
  // Bytes of the linear map by the size of the pages that map them.
  std::map<uint64_t, uint64_t> MappedBySize() const {
    const PageTableFormat format(layout);
    std::map<uint64_t, uint64_t> bytes;
    for (uint64_t at = addresses.page_offset.raw(); at < addresses.high_memory.raw();) {
      const PageWalk walk = Walk(at);
      const uint64_t size = format.coverage(walk.steps[static_cast<size_t>(walk.count) - 1].level);
      if (walk.physical) bytes[size] += size;
      at += size;
    }
    return bytes;
  }
};

KernelLayout LayoutOf(LayoutKind kind, const std::vector<PhysRange>& ram, uint64_t image, VmSplit split, int va_bits) {
  KernelLayoutConfig config;
  config.kind = kind;
  config.vmsplit = split;
  config.va_bits = va_bits;
  std::vector<PfnRange> frames;
  for (const PhysRange& r : ram) {
    frames.push_back({Pfn((r.start.raw() + kPage - 1) / kPage), Pfn(r.end.raw() / kPage)});
  }
  return ComputeKernelLayout(config, frames, PhysAddr(image)).value();
}

Kernel X86(LayoutKind kind, uint64_t ram_end, VmSplit split = VmSplit::k3G, bool rodata = true) {
  const bool pae = kind == LayoutKind::kX86_32Pae;
  Kernel kernel{GetLayout(kind), {}, {Range(kPage, 0x9f000), Range(kMiB, ram_end)}, nullptr};
  kernel.addresses = LayoutOf(kind, kernel.ram, 0, split, 48);
  const X86KernelImage image = pae ? X86KernelImage{Range(0x1000000, 0x1933f00), PhysAddr(0x1c51000), Range(0x1da4000, 0x1e94000),
                                                    PhysAddr(0x1e8c000),         PhysAddr(0x1e94000), Range(0x1f0b000, 0x1f24000)}
                                   : X86KernelImage{Range(0x1000000, 0x191bc80), PhysAddr(0x1c39000), Range(0x1d86000, 0x1e72000),
                                                    PhysAddr(0x1e6a000),         PhysAddr(0x1e72000), Range(0x1ee6000, 0x1ef6000)};
  kernel.tables = MakeX86BootTables(kernel.layout, kernel.addresses, kernel.ram, image, rodata);
  return kernel;
}

Kernel Arm64(uint64_t ram_bytes, Arm64Rodata rodata = Arm64Rodata::kFull, int va_bits = 48) {
  const uint64_t base = 0x40000000;
  Kernel kernel{GetLayout(LayoutKind::kArm64), {}, {Range(base, base + ram_bytes)}, nullptr};
  kernel.layout.table_levels = va_bits == 48 ? 4 : 3;
  kernel.addresses = LayoutOf(LayoutKind::kArm64, kernel.ram, 0x40210000, VmSplit::k3G, va_bits);
  const Arm64KernelImage image{{{Range(0x40210000, 0x40f00000), Arm64Segment::Kind::kText},
                                {Range(0x40f00000, 0x41860000), Arm64Segment::Kind::kRodata},
                                {Range(0x41860000, 0x41940000), Arm64Segment::Kind::kInitText},
                                {Range(0x41940000, 0x41eb0000), Arm64Segment::Kind::kData},
                                {Range(0x41eb0000, 0x42210000), Arm64Segment::Kind::kData}},
                               Range(0x40210000, 0x41860000),
                               Pfn(0x4185f),
                               Pfn((base + ram_bytes) / kPage)};
  kernel.tables = MakeArm64BootTables(kernel.layout, kernel.addresses, kernel.ram, image, rodata);
  return kernel;
}

// DirectMap4k, DirectMap4M and DirectMap2M of the recorded machines with 1 GiB and more.
TEST(BootPageTablesTest, X86MapsAsMuchBySmallAndLargePagesAsRecorded) {
  using Sizes = std::map<uint64_t, uint64_t>;
  const Sizes two_levels = X86(LayoutKind::kX86_32, 0x3ffdd000).MappedBySize();
  // The hole between 640 KiB and 1 MiB is mapped, and counted, too.
  EXPECT_EQ(two_levels, (Sizes{{kPage, uint64_t{12280} << 10}, {4 * kMiB, uint64_t{884736} << 10}}));
  EXPECT_EQ(X86(LayoutKind::kX86_32, 0xbffdd000).MappedBySize(), two_levels);
  const Sizes pae{{kPage, uint64_t{10232} << 10}, {2 * kMiB, uint64_t{890880} << 10}};
  EXPECT_EQ(X86(LayoutKind::kX86_32Pae, 0x3ffdd000).MappedBySize(), pae);
}

struct EntryCase {
  const char* name;
  uint64_t physical;
  uint64_t entry;
};

TEST(BootPageTablesTest, X86EntriesSayWhatIsText) {
  const Kernel two_levels = X86(LayoutKind::kX86_32, 0x3ffdd000);
  EXPECT_EQ(two_levels.tables->root(), Pfn(0x1e74)) << "behind initial_page_table and initial_pg_fixmap";
  for (const EntryCase& c :
       {EntryCase{"first page", 0x5000, 0x5163}, EntryCase{"text", 0x1000000, 0x10001e1}, EntryCase{"constants", 0x1c38000, 0x1c38161},
        EntryCase{"data", 0x1c39000, 0x1c39163}, EntryCase{"large", 0x2400000, 0x24001e3}, EntryCase{"last", 0x36bfd000, 0x36bfd163}}) {
    EXPECT_EQ(two_levels.Leaf(0xc0000000 + c.physical), c.entry) << c.name;
  }
  EXPECT_FALSE(two_levels.Walk(two_levels.addresses.high_memory.raw()).physical);
  EXPECT_EQ(two_levels.Walk(0xc0000000).steps[0].entry, 0x1ee6063u);

  const Kernel pae = X86(LayoutKind::kX86_32Pae, 0x3ffdd000);
  constexpr uint64_t kNx = uint64_t{1} << 63;
  EXPECT_EQ(pae.tables->root(), Pfn(0x1e98));
  EXPECT_EQ(pae.Walk(0xc0000000).steps[0].entry, 0x1e94001u);
  for (const EntryCase& c : {EntryCase{"first page", 0x5000, kNx | 0x5163}, EntryCase{"text", 0x1000000, 0x10001e1},
                             EntryCase{"end of text", 0x1933000, 0x1933161}, EntryCase{"constants", 0x1934000, kNx | 0x1934161},
                             EntryCase{"large constants", 0x1a00000, kNx | 0x1a001e1}, EntryCase{"data", 0x1c51000, kNx | 0x1c51163},
                             EntryCase{"freed", 0x1da4000, kNx | 0x1da4163}, EntryCase{"large", 0x2400000, kNx | 0x24001e3}}) {
    EXPECT_EQ(pae.Leaf(0xc0000000 + c.physical), c.entry) << c.name;
  }
  EXPECT_EQ(X86(LayoutKind::kX86_32, 0x3ffdd000, VmSplit::k3G, false).Leaf(0xc1c38000), 0x1c001e3u) << "rodata=off";
}

TEST(BootPageTablesTest, EverySplitMapsTheSameMemory) {
  for (const VmSplit split : {VmSplit::k3G, VmSplit::k2G, VmSplit::k1G}) {
    for (const LayoutKind kind : {LayoutKind::kX86_32, LayoutKind::kX86_32Pae}) {
      const Kernel kernel = X86(kind, 0x3ffdd000, split);
      for (uint64_t at = 0; at < 0x30000000; at += 0x3ff000) {
        const auto physical = kernel.Walk(kernel.addresses.page_offset.raw() + at).physical;
        EXPECT_EQ(physical.has_value() ? physical->raw() : ~uint64_t{0}, at);
      }
    }
  }
}

// early_pgtable_alloc() took the frames from 0x7ffff000 down to 0x7fe01000 for these before it made the identity map.
TEST(BootPageTablesTest, Arm64TakesAsManyTablesAsRecorded) {
  EXPECT_EQ(Arm64(1024 * kMiB).tables->tables(), 511u);
  EXPECT_EQ(Arm64(128 * kMiB).tables->tables(), 63u);
  EXPECT_EQ(Arm64(4096 * kMiB).tables->tables(), 2050u);
}

TEST(BootPageTablesTest, Arm64EntriesAreThoseOfTheirSegments) {
  const Kernel kernel = Arm64(1024 * kMiB);
  const uint64_t image = kernel.addresses.kimage_voffset;
  const uint64_t linear = kernel.addresses.page_offset.raw() - 0x40000000;
  constexpr uint64_t kCont = uint64_t{1} << 52;
  const auto leaf = [&](uint64_t base, uint64_t physical) { return kernel.Leaf(base + physical) & ~uint64_t{0x0000'ffff'ffff'f000}; };
  EXPECT_EQ(leaf(image, 0x40210000), 0x00c0000000000783 | kCont) << "text: pages up to the first 2 MiB border";
  EXPECT_EQ(leaf(image, 0x40400000), 0x00c0000000000781u) << "text: blocks";
  EXPECT_EQ(leaf(image, 0x40f00000), 0x00e0000000000783u) << "constants: no contiguous run";
  EXPECT_EQ(leaf(image, 0x41eb0000), 0x00e8000000000703 | kCont) << "data";
  EXPECT_EQ(leaf(linear, 0x40000000), 0x00e8000000000707u) << "memory: single pages";
  EXPECT_EQ(leaf(linear, 0x40400000), 0x00e0000000000781u) << "the image as memory: read only";
  EXPECT_EQ(leaf(linear, 0x7ffff000), 0x00e8000000000707u);
  EXPECT_FALSE(kernel.Walk(linear + 0x80000000).physical);
  // The first tables of all: those of the image, the last ones those of the end of the linear map.
  EXPECT_EQ(kernel.Walk(image + 0x40210000).steps[1].table, Pfn(0x7ffff));
  EXPECT_EQ(kernel.Walk(linear + 0x7ffff000).steps[3].table, Pfn(0x7fe01));
  EXPECT_EQ(kernel.Walk(linear + 0x7ffff000).steps[0].entry, 0x180000007fff8003u);

  const Kernel blocks = Arm64(4096 * kMiB, Arm64Rodata::kOn);
  EXPECT_LT(blocks.tables->tables(), 20u);
  EXPECT_EQ(blocks.Leaf(linear + 0x80000000), 0x00e8000080000705u) << "1 GiB";
  EXPECT_EQ(blocks.Leaf(linear + 0x44000000), 0x00e8000044000705 | kCont) << "2 MiB of 32";
  EXPECT_EQ(blocks.Leaf(linear + 0x42000000) & kCont, kCont);
  EXPECT_EQ(blocks.Leaf(linear + 0x41860000), 0x00e8000041860707 | kCont);
}

// Each table that an entry points at is one that can be asked for its entries, and no two entries point at the same.
TEST(BootPageTablesTest, EachTableIsPointedAtOnce) {
  std::vector<Kernel> kernels;
  kernels.push_back(Arm64(1024 * kMiB));
  kernels.push_back(Arm64(4096 * kMiB, Arm64Rodata::kOff));
  kernels.push_back(Arm64(1024 * kMiB, Arm64Rodata::kFull, 39));
  kernels.push_back(X86(LayoutKind::kX86_32, 0x3ffdd000));
  kernels.push_back(X86(LayoutKind::kX86_32Pae, 0x3ffdd000, VmSplit::k1G));
  for (const Kernel& kernel : kernels) {
    const PageTableFormat format(kernel.layout);
    std::set<Pfn> seen;
    std::vector<std::pair<Pfn, int>> open = {{kernel.tables->root(), format.levels()}};
    while (!open.empty()) {
      const auto [table, level] = open.back();
      open.pop_back();
      EXPECT_TRUE(kernel.tables->Has(table)) << table.raw();
      for (uint32_t i = 0; level > 1 && i < format.entries(level); ++i) {
        const uint64_t entry = kernel.tables->Entry(table, i);
        if (entry == 0 || format.IsBlock(entry, level)) continue;
        EXPECT_TRUE(seen.insert(format.TableOf(entry)).second) << format.TableOf(entry).raw();
        open.emplace_back(format.TableOf(entry), level - 1);
      }
    }
    EXPECT_EQ(seen.size(), kernel.tables->tables());
  }
}

}  // namespace
}  // namespace mmlab

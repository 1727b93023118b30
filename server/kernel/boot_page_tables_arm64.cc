#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "server/arch/page_table_format.h"
#include "server/base/check.h"
#include "server/kernel/boot_page_tables.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kContiguousPages = 16 * kPage;                 // CONT_PTE_SIZE
constexpr uint64_t kContiguousBlocks = 16 * (uint64_t{2} << 20);  // CONT_PMD_SIZE
constexpr int kLargestBlock = 3;                                  // 1 GiB; blocks of the level above do not exist.

// Entries: a page, inner shareable, accessed; UXN, PXN, PTE_WRITE, PTE_DIRTY as the name says.
constexpr uint64_t kPageKernel = 0x00e8000000000703;      // PAGE_KERNEL
constexpr uint64_t kPageKernelRo = 0x00e0000000000783;    // PAGE_KERNEL_RO
constexpr uint64_t kPageKernelRox = 0x00c0000000000783;   // PAGE_KERNEL_ROX
constexpr uint64_t kPageKernelExec = 0x00c8000000000703;  // PAGE_KERNEL_EXEC
constexpr uint64_t kTagged = 0x4;                         // MT_NORMAL_TAGGED (pgprot_tagged)
constexpr uint64_t kPageBit = 0x2;                        // Clear in a block.
constexpr uint64_t kContiguous = uint64_t{1} << 52;
constexpr uint64_t kTable = (uint64_t{1} << 60) | 3;  // With UXNTable.
constexpr uint64_t kPxnTable = uint64_t{1} << 59;

// Numbers of tables' worth of addresses, from first to last.
struct Interval {
  uint64_t first;
  uint64_t last;
};
using Intervals = std::vector<Interval>;

Intervals Without(const Intervals& from, const Intervals& cut) {
  Intervals left = from;
  for (const Interval& c : cut) {
    Intervals next;
    for (const Interval& f : left) {
      if (c.last < f.first || f.last < c.first) {
        next.push_back(f);
        continue;
      }
      if (f.first < c.first) next.push_back({f.first, c.first - 1});
      if (c.last < f.last) next.push_back({c.last + 1, f.last});
    }
    left = std::move(next);
  }
  return left;
}

uint64_t CountUpTo(const Intervals& intervals, uint64_t last) {
  uint64_t count = 0;
  for (const Interval& i : intervals) {
    if (i.first <= last) count += std::min(i.last, last) - i.first + 1;
  }
  return count;
}

bool Holds(const Intervals& intervals, uint64_t number) {
  return std::any_of(intervals.begin(), intervals.end(), [&](const Interval& i) { return i.first <= number && number <= i.last; });
}

class Arm64BootTables final : public BootPageTables {
 public:
  Arm64BootTables(const Layout& layout, const KernelLayout& kernel, absl::Span<const PhysRange> ram, const Arm64KernelImage& image,
                  Arm64Rodata rodata)
      : format_(layout), base_(kernel.page_offset.raw()), root_(image.swapper_pg_dir), end_(image.tables_end) {
    MapKernel(kernel, image, rodata);
    MapMemory(kernel, ram, image, rodata);
  }

  Pfn root() const override { return root_; }
  uint64_t tables() const override { return tables_; }
  bool Has(Pfn frame) const override { return frame == root_ || (frame < end_ && (end_ - frame).raw() <= tables_); }

  uint64_t Entry(Pfn table, uint32_t index) const override {
    if (table == root_) return EntryAt(base_ + (uint64_t{index} << format_.shift(format_.levels())), format_.levels());
    if (!Has(table)) return 0;
    const Place place = PlaceOf((end_ - table).raw() - 1);
    return EntryAt(place.start + (uint64_t{index} << format_.shift(place.level)), place.level);
  }

 private:
  // One call of __create_pgd_mapping().
  struct Mapping {
    uint64_t start;
    uint64_t end;
    uint64_t offset;  // Physical minus virtual address, modulo 2^64.
    uint64_t entry;
    bool blocks;
    bool contiguous;
    uint64_t table;                 // Entry that points at a table which it made, without the address.
    uint64_t first_table = 0;       // Tables before those that it made,
    uint64_t tables = 0;            // and how many it made:
    std::array<Intervals, 4> made;  // by level.
  };
  struct Place {
    uint64_t start;  // First address that a table covers.
    int level;
  };

  void MapKernel(const KernelLayout& kernel, const Arm64KernelImage& image, Arm64Rodata rodata) {
    const uint64_t text = rodata == Arm64Rodata::kOff ? kPageKernelExec : kPageKernelRox;
    for (const Arm64Segment& segment : image.segments) {
      const bool constants = segment.kind == Arm64Segment::Kind::kRodata;
      const bool code = segment.kind == Arm64Segment::Kind::kText || segment.kind == Arm64Segment::Kind::kInitText;
      const uint64_t entry = code ? text : constants && rodata != Arm64Rodata::kOff ? kPageKernelRo : kPageKernel;
      Map(segment.range, kernel.kimage_voffset, entry, true, !constants, kTable);
    }
  }

  void MapMemory(const KernelLayout& kernel, absl::Span<const PhysRange> ram, const Arm64KernelImage& image, Arm64Rodata rodata) {
    const uint64_t voffset = kernel.page_offset.raw() - kernel.memstart_addr.raw();
    const bool blocks = rodata != Arm64Rodata::kFull;
    const auto map = [&](uint64_t start, uint64_t end) {
      if (start < end) Map({PhysAddr(start), PhysAddr(end)}, voffset, kPageKernel | kTagged, blocks, blocks, kTable | kPxnTable);
    };
    const PhysRange apart = image.read_only;
    for (const PhysRange range : ram) {
      map(range.start.raw(), std::min(range.end.raw(), apart.start.raw()));
      map(std::max(range.start.raw(), apart.end.raw()), range.end.raw());
    }
    if (!apart.empty()) Map(apart, voffset, kPageKernelRo, true, false, kTable);  // mark_linear_text_alias_ro()
  }

  void Map(PhysRange range, uint64_t voffset, uint64_t entry, bool blocks, bool contiguous, uint64_t table) {
    if (range.empty()) return;
    Mapping mapping{range.start.raw() + voffset, range.end.raw() + voffset, 0 - voffset, entry, blocks, contiguous, table, tables_, 0, {}};
    for (int level = 1; level < format_.levels(); ++level) {
      Intervals made = Needed(mapping, level);
      for (const Mapping& earlier : mappings_) made = Without(made, earlier.made[static_cast<size_t>(level)]);
      for (const Interval& i : made) mapping.tables += i.last - i.first + 1;
      mapping.made[static_cast<size_t>(level)] = std::move(made);
    }
    tables_ += mapping.tables;
    mappings_.push_back(std::move(mapping));
  }

  // Whether an entry of that level maps the addresses from `start` on itself.
  bool IsBlock(const Mapping& m, uint64_t start, int level) const {
    const uint64_t size = format_.coverage(level);
    return m.blocks && level > 1 && level <= kLargestBlock && start % size == 0 && m.offset % size == 0 && start >= m.start &&
           m.end - start >= size && start < m.end;
  }

  // The tables of a level that a mapping needs: all in which it has addresses, but for those whose place a block takes.
  Intervals Needed(const Mapping& m, int level) const {
    const int shift = format_.shift(level + 1);
    const uint64_t size = uint64_t{1} << shift;
    const Interval all{m.start >> shift, (m.end - 1) >> shift};
    const uint64_t first_block = (m.start + size - 1) >> shift;
    const uint64_t blocks_end = m.end >> shift;
    if (first_block >= blocks_end || !IsBlock(m, first_block << shift, level + 1)) return {all};
    Intervals needed;
    if (all.first < first_block) needed.push_back({all.first, first_block - 1});
    if (blocks_end <= all.last) needed.push_back({blocks_end, all.last});
    return needed;
  }

  // Tables that the mapping made before it reached `address`.
  uint64_t MadeBefore(const Mapping& m, uint64_t address) const {
    if (address <= m.start) return 0;
    uint64_t count = 0;
    for (int level = 1; level < format_.levels(); ++level) {
      count += CountUpTo(m.made[static_cast<size_t>(level)], (address - 1) >> format_.shift(level + 1));
    }
    return count;
  }
  // Whether it made a table of that level when it reached `address`.
  bool MadeAt(const Mapping& m, uint64_t address, int level) const {
    const int shift = format_.shift(level + 1);
    if (address != m.start && (address & ((uint64_t{1} << shift) - 1)) != 0) return false;
    return Holds(m.made[static_cast<size_t>(level)], address >> shift);
  }

  // The table of a level that covers `address`; nothing: there is none.
  struct Made {
    Pfn frame;
    const Mapping* by;
  };
  std::optional<Made> TableFor(uint64_t address, int level) const {
    const int shift = format_.shift(level + 1);
    for (const Mapping& m : mappings_) {
      if (!Holds(m.made[static_cast<size_t>(level)], address >> shift)) continue;
      const uint64_t reached = std::max(m.start, address >> shift << shift);
      uint64_t number = m.first_table + MadeBefore(m, reached);
      for (int above = format_.levels() - 1; above > level; --above) number += MadeAt(m, reached, above) ? 1 : 0;
      return Made{end_ - PageCount(number + 1), &m};
    }
    return std::nullopt;
  }

  // What the table covers that was made as the `number`th.
  Place PlaceOf(uint64_t number) const {
    const auto after =
        std::find_if(mappings_.rbegin(), mappings_.rend(), [&](const Mapping& m) { return m.first_table <= number && m.tables != 0; });
    MMLAB_CHECK(after != mappings_.rend());
    const Mapping& m = *after;
    const uint64_t wanted = number - m.first_table;
    const int shift = format_.shift(2);
    // The last place among starts of tables of the lowest level before which not more than `wanted` were made.
    uint64_t low = m.start >> shift;
    uint64_t high = (m.end - 1) >> shift;
    const auto reached = [&](uint64_t chunk) { return std::max(m.start, chunk << shift); };
    while (low < high) {
      const uint64_t middle = low + (high - low + 1) / 2;
      if (MadeBefore(m, reached(middle)) <= wanted) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    uint64_t left = wanted - MadeBefore(m, reached(low));
    for (int level = format_.levels() - 1; level >= 1; --level) {
      if (!MadeAt(m, reached(low), level)) continue;
      if (left == 0) {
        const int covered = format_.shift(level + 1);
        return {reached(low) >> covered << covered, level};
      }
      --left;
    }
    MMLAB_CHECK(false);
    return {};
  }

  uint64_t EntryAt(uint64_t address, int level) const {
    if (level > 1) {
      if (const auto below = TableFor(address, level - 1)) return (below->frame.raw() * kPage) | below->by->table;
    }
    for (const Mapping& m : mappings_) {
      if (address < m.start || address >= m.end) continue;
      if (level == 1) return Leaf(m, address, kContiguousPages);
      if (IsBlock(m, address, level)) return Leaf(m, address, level == 2 ? kContiguousBlocks : 0) & ~kPageBit;
    }
    return 0;
  }
  // `run`: size of what PTE_CONT joins, when the whole of it belongs to the mapping; 0: nothing.
  static uint64_t Leaf(const Mapping& m, uint64_t address, uint64_t run) {
    uint64_t entry = (address + m.offset) | m.entry;
    if (m.contiguous && run != 0 && m.offset % run == 0) {
      const uint64_t start = address & ~(run - 1);
      if (start >= m.start && m.end - start >= run) entry |= kContiguous;
    }
    return entry;
  }

  PageTableFormat format_;
  uint64_t base_;  // First address of the root's first entry.
  Pfn root_;
  Pfn end_;
  std::vector<Mapping> mappings_;
  uint64_t tables_ = 0;
};

}  // namespace

std::unique_ptr<BootPageTables> MakeArm64BootTables(const Layout& layout, const KernelLayout& kernel, absl::Span<const PhysRange> ram,
                                                    const Arm64KernelImage& image, Arm64Rodata rodata) {
  return std::make_unique<Arm64BootTables>(layout, kernel, ram, image, rodata);
}

}  // namespace mmlab

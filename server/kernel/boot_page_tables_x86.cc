#include <algorithm>
#include <vector>

#include "server/arch/page_table_format.h"
#include "server/kernel/boot_page_tables.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kIsaEnd = uint64_t{1} << 20;  // ISA_END_ADDRESS
constexpr uint64_t kKernelPage = 0x163;          // __PAGE_KERNEL: present, writable, accessed, dirty, global.
constexpr uint64_t kLarge = 0x80;                // _PAGE_PSE
constexpr uint64_t kWritable = 0x2;
constexpr uint64_t kNoExecute = uint64_t{1} << 63;
constexpr uint64_t kHeadTable = 0x63;    // PDE_IDENT_ATTR, and _KERNPG_TABLE of a split page.
constexpr uint64_t kKernelTable = 0x67;  // _PAGE_TABLE
constexpr uint64_t kDirectoryPointer = 0x1;
constexpr uint64_t kEarlyTables = 6;  // INIT_PGT_BUF_SIZE in pages.

constexpr uint64_t RoundUp(uint64_t value, uint64_t step) { return (value + step - 1) / step * step; }

class X86BootTables final : public BootPageTables {
 public:
  X86BootTables(const Layout& layout, const KernelLayout& kernel, absl::Span<const PhysRange> ram, const X86KernelImage& image, bool rodata)
      : format_(layout),
        pae_(layout.kind == LayoutKind::kX86_32Pae),
        chunk_(format_.coverage(2)),
        page_offset_(kernel.page_offset.raw()),
        low_end_(kernel.max_low_pfn.raw() * kPage),
        ram_(ram.begin(), ram.end()),
        image_(image),
        rodata_(rodata) {
    PlaceRoot();
    PlaceTables();
  }

  Pfn root() const override { return root_; }
  uint64_t tables() const override { return tables_.size() + directories_; }

  bool Has(Pfn frame) const override { return frame == root_ || DirectoryAt(frame) != nullptr || TableAt(frame) != nullptr; }

  uint64_t Entry(Pfn table, uint32_t index) const override {
    if (table == root_) return pae_ ? DirectoryPointer(index) : ChunkEntry(index * chunk_);
    if (const uint64_t* start = DirectoryAt(table)) return ChunkEntry(*start + index * chunk_);
    if (const Table* pages = TableAt(table)) return PageEntry(pages->chunk * chunk_ + index * kPage);
    return 0;
  }

 private:
  struct Table {
    uint64_t chunk;  // Which large page's worth of physical memory it maps.
    Pfn frame;
    uint64_t bits;  // Of the entry that points at it.
  };

  // head_32.S: the first pages of .bss. With PAE the kernel's page directories come first, and page tables for user mode, which
  // isolation would need, leave every second page to them.
  void PlaceRoot() {
    const Pfn bss(image_.bss.raw() / kPage);
    directories_ = pae_ ? 4 - (page_offset_ >> format_.shift(3)) : 0;
    const uint64_t first = pae_ ? RoundUp(directories_, 2) : 1;  // initial_pg_pmd, or initial_page_table.
    root_ = bss + PageCount(first + (pae_ ? 2 : 1));             // Behind initial_pg_fixmap.
    for (uint64_t i = 0; i < directories_; ++i) directory_starts_.push_back((((page_offset_ >> 30) + i) << 30));
  }

  // init_mem_mapping(): 4 KiB pages for what is RAM in part; then what changes of protection split.
  void PlaceTables() {
    const Pfn brk(image_.brk.start.raw() / kPage);
    const uint64_t pages = image_.brk.length().raw() / kPage;
    const uint64_t early = pages < kEarlyTables ? 0 : pages - kEarlyTables;
    uint64_t low_page = 1;  // Page 0 is firmware's.
    tables_.push_back({0, brk, kHeadTable});
    uint64_t taken = 0;
    for (const uint64_t chunk : ChunksInPart()) {
      const Pfn frame = taken < kEarlyTables && pages != 0 ? brk + PageCount(early + taken) : Pfn(low_page++);
      ++taken;
      tables_.push_back({chunk, frame, kKernelTable});
    }
    for (const uint64_t chunk : SplitChunks()) {
      tables_.push_back({chunk, chunk < early ? brk + PageCount(chunk) : Pfn(low_page++), kHeadTable});
    }
    std::sort(tables_.begin(), tables_.end(), [](const Table& a, const Table& b) { return a.chunk < b.chunk; });
  }

  // From the top down, as memory_map_top_down() goes.
  std::vector<uint64_t> ChunksInPart() const {
    std::vector<uint64_t> chunks;
    const auto add = [&](uint64_t address) {
      const uint64_t chunk = address / chunk_;
      if (address % chunk_ != 0 && chunk != 0 && (chunks.empty() || chunks.back() != chunk)) chunks.push_back(chunk);
    };
    for (auto range = ram_.rbegin(); range != ram_.rend(); ++range) {
      if (range->start.raw() >= low_end_) continue;
      add(std::min(range->end.raw(), low_end_));
      add(range->start.raw());
    }
    return chunks;
  }

  // Those with a border inside: set_memory_nx() of the freed init sections, set_pages_ro() and set_memory_nx() of mark_rodata_ro().
  std::vector<uint64_t> SplitChunks() const {
    std::vector<uint64_t> borders;
    if (pae_) borders = {image_.init.start.raw(), image_.init.end.raw()};
    if (rodata_) {
      borders.push_back(image_.text.start.raw());
      borders.push_back(image_.ro_end.raw());
      if (pae_) borders.push_back(RoundUp(image_.text.end.raw(), kPage));
    }
    std::sort(borders.begin(), borders.end());
    std::vector<uint64_t> chunks;
    for (const uint64_t border : borders) {
      const uint64_t chunk = border / chunk_;
      if (border % chunk_ == 0 || !AllRam(chunk) || chunk == 0 || (!chunks.empty() && chunks.back() == chunk)) continue;
      chunks.push_back(chunk);
    }
    return chunks;
  }

  bool AllRam(uint64_t chunk) const {
    const uint64_t start = chunk * chunk_;
    if (start + chunk_ > low_end_) return false;
    return std::any_of(ram_.begin(), ram_.end(), [&](PhysRange r) { return r.start.raw() <= start && start + chunk_ <= r.end.raw(); });
  }
  bool Mapped(uint64_t physical) const {
    if (physical >= low_end_) return false;
    return physical < kIsaEnd || std::any_of(ram_.begin(), ram_.end(), [&](PhysRange r) { return r.Contains(PhysAddr(physical)); });
  }

  // is_x86_32_kernel_text()
  bool IsText(uint64_t physical) const { return image_.text.start.raw() <= physical && physical <= image_.init_end.raw(); }
  bool Executable(uint64_t physical, uint64_t size) const {
    const uint64_t last = physical + size - 1;
    if (!IsText(physical) && !IsText(last)) return false;
    if (image_.init.Contains(PhysAddr(physical))) return false;
    return !rodata_ || physical < RoundUp(image_.text.end.raw(), kPage);
  }
  uint64_t Protection(uint64_t physical, uint64_t size) const {
    uint64_t bits = kKernelPage;
    if (rodata_ && image_.text.start.raw() <= physical && physical < image_.ro_end.raw()) bits &= ~kWritable;
    if (pae_ && !Executable(physical, size)) bits |= kNoExecute;
    return bits;
  }

  uint64_t DirectoryPointer(uint32_t index) const {
    const uint64_t first = page_offset_ >> 30;
    if (index < first || index >= first + directories_) return 0;
    return ((image_.bss.raw() / kPage + index - first) * kPage) | kDirectoryPointer;
  }

  // `start`: a virtual address.
  uint64_t ChunkEntry(uint64_t start) const {
    if (start < page_offset_) return 0;
    const uint64_t chunk = (start - page_offset_) / chunk_;
    const auto table = std::find_if(tables_.begin(), tables_.end(), [&](const Table& t) { return t.chunk == chunk; });
    if (table != tables_.end()) return (table->frame.raw() * kPage) | table->bits;
    return AllRam(chunk) ? (chunk * chunk_) | kLarge | Protection(chunk * chunk_, chunk_) : 0;
  }
  uint64_t PageEntry(uint64_t physical) const { return Mapped(physical) ? physical | Protection(physical, kPage) : 0; }

  // Where the addresses start that a page directory (PAE) covers; null: it is none.
  const uint64_t* DirectoryAt(Pfn frame) const {
    const uint64_t first = image_.bss.raw() / kPage;
    if (frame.raw() < first || frame.raw() - first >= directories_) return nullptr;
    return &directory_starts_[frame.raw() - first];
  }
  const Table* TableAt(Pfn frame) const {
    const auto table = std::find_if(tables_.begin(), tables_.end(), [&](const Table& t) { return t.frame == frame; });
    return table == tables_.end() ? nullptr : &*table;
  }

  PageTableFormat format_;
  bool pae_;
  uint64_t chunk_;  // Bytes of a large page.
  uint64_t page_offset_;
  uint64_t low_end_;
  std::vector<PhysRange> ram_;
  X86KernelImage image_;
  bool rodata_;
  Pfn root_;
  uint64_t directories_ = 0;
  std::vector<uint64_t> directory_starts_;
  std::vector<Table> tables_;  // Of 4 KiB pages, by place.
};

}  // namespace

std::unique_ptr<BootPageTables> MakeX86BootTables(const Layout& layout, const KernelLayout& kernel, absl::Span<const PhysRange> ram,
                                                  const X86KernelImage& image, bool rodata) {
  return std::make_unique<X86BootTables>(layout, kernel, ram, image, rodata);
}

}  // namespace mmlab

#include "server/kernel/kernel_page_tables.h"

#include <algorithm>
#include <cstring>

#include "server/kernel/boot_page_tables.h"
#include "server/physical/contents.h"

namespace mmlab {
namespace {

constexpr Gfp kTableGfp = kGfpKernel | kGfpZero;  // GFP_PGTABLE_KERNEL
constexpr uint64_t kX86Kernel = 0x163;            // Present, writable, accessed, dirty, global.
constexpr uint64_t kX86CacheDisable = 0x10;
constexpr uint64_t kX86LargePage = 0x80;
constexpr uint64_t kX86NoExecute = uint64_t{1} << 63;
constexpr uint64_t kArm64Kernel = 0x00e8000000000703;  // Page, inner shareable, accessed, writable, dirty, executable nowhere.
constexpr uint64_t kArm64Device = 0x0068000000000713;  // The same for a device: MT_DEVICE_nGnRE, not dirty.
constexpr uint64_t kArm64TableBit = 2;                 // In upper levels: points at a table, not at a block.
constexpr uint64_t kArm64KernelTable = (uint64_t{1} << 60) | 3;

}  // namespace

KernelPageTables::KernelPageTables(const Layout& layout, PhysicalMemory& memory, const BootPageTables* boot)
    : format_(layout),
      memory_(memory),
      boot_(boot),
      arm64_(layout.kind == LayoutKind::kArm64),
      no_execute_(layout.kind == LayoutKind::kX86_32Pae),
      root_(boot == nullptr ? std::nullopt : std::optional<Pfn>(boot->root())) {}

bool KernelPageTables::IsLeaf(uint64_t entry, int level) const { return level == 1 || format_.IsBlock(entry, level); }

uint64_t KernelPageTables::LeafEntry(Pfn pfn, int level, Kind kind) const {
  const bool device = kind == Kind::kDevice;
  if (arm64_) {
    const uint64_t entry = (pfn.raw() << 12) | (device ? kArm64Device : kArm64Kernel);
    return level == 1 ? entry : entry & ~kArm64TableBit;
  }
  return (pfn.raw() << 12) | kX86Kernel | (device ? kX86CacheDisable : 0) | (level == 1 ? 0 : kX86LargePage) |
         (no_execute_ ? kX86NoExecute : 0);
}

uint64_t KernelPageTables::Load(Pfn table, uint32_t index) const {
  const auto width = static_cast<size_t>(format_.entry_bytes());
  uint8_t bytes[8] = {};
  memory_.contents().Read(table, index * width, bytes, width);
  const uint64_t entry = format_.Load(bytes, 0);
  return entry == 0 && boot_ != nullptr ? boot_->Entry(table, index) : entry;
}

void KernelPageTables::Store(Pfn table, uint32_t index, uint64_t entry) {
  const auto width = static_cast<size_t>(format_.entry_bytes());
  uint8_t bytes[8] = {};
  format_.Store(bytes, 0, entry);
  memory_.contents().Write(table, index * width, bytes, width);
}

std::optional<Pfn> KernelPageTables::NewTable() {
  const std::optional<Pfn> frame = memory_.AllocPages(kTableGfp, PageOrder(0));
  if (frame) table_frames_.push_back(*frame);
  return frame;
}

bool KernelPageTables::MapAt(VirtAddr address, Pfn pfn, int level, Kind kind) {
  const uint64_t covered = address.raw() >> format_.shift(2);
  if (level == 1 && covered == last_covered_) {
    Store(last_table_, format_.IndexOf(address, 1), LeafEntry(pfn, 1, kind));
    return true;
  }
  if (!root_ && !(root_ = NewTable())) return false;
  Pfn table = *root_;
  for (int at = format_.levels(); at > level; --at) {
    const uint32_t index = format_.IndexOf(address, at);
    const uint64_t entry = Load(table, index);
    if (format_.Valid(entry)) {
      table = format_.TableOf(entry);
      continue;
    }
    const std::optional<Pfn> next = NewTable();
    if (!next) return false;
    Store(table, index, arm64_ ? (next->raw() << 12) | kArm64KernelTable : format_.TableEntry(*next, at));
    table = *next;
  }
  Store(table, format_.IndexOf(address, level), LeafEntry(pfn, level, kind));
  if (level == 1) {
    last_covered_ = covered;
    last_table_ = table;
  }
  return true;
}

bool KernelPageTables::HasTable(VirtAddr address, int level) const {
  if (!root_) return false;
  Pfn table = *root_;
  for (int at = format_.levels(); at >= level; --at) {
    const uint64_t entry = Load(table, format_.IndexOf(address, at));
    if (!format_.Valid(entry) || IsLeaf(entry, at)) return false;
    table = format_.TableOf(entry);
  }
  return true;
}

bool KernelPageTables::MapPage(VirtAddr address, Pfn pfn, Kind kind) { return MapAt(address, pfn, 1, kind); }

bool KernelPageTables::MapRange(VirtAddr address, PhysAddr physical, Bytes size, Kind kind) {
  const int largest = arm64_ ? 3 : 2;
  for (uint64_t done = 0; done < size.raw();) {
    const uint64_t at = address.raw() + done;
    const uint64_t from = physical.raw() + done;
    int level = largest;
    while (level > 1 && (((at | from) & (format_.coverage(level) - 1)) != 0 || size.raw() - done < format_.coverage(level))) --level;
    while (level > 1 && HasTable(VirtAddr(at), level)) --level;  // A table that exists stays.
    if (!MapAt(VirtAddr(at), Pfn(from >> 12), level, kind)) return false;
    done += format_.coverage(level);
  }
  return true;
}

void KernelPageTables::Unmap(VirtRange range) {
  if (root_ && !range.empty()) UnmapIn(*root_, format_.levels(), range.start.raw(), range.end.raw() - 1);
}

// From `start` to the byte `last`, inside what one table covers.
void KernelPageTables::UnmapIn(Pfn table, int level, uint64_t start, uint64_t last) {
  const uint64_t step = format_.coverage(level);
  for (uint64_t at = start;;) {
    const uint64_t end = std::min(last, at | (step - 1));
    const uint32_t index = format_.IndexOf(VirtAddr(at), level);
    if (const uint64_t entry = Load(table, index); format_.Valid(entry)) {
      if (IsLeaf(entry, level)) {
        Store(table, index, 0);
      } else {
        UnmapIn(format_.TableOf(entry), level - 1, at, end);
      }
    }
    if (end == last) return;
    at = end + 1;
  }
}

bool KernelPageTables::Has(Pfn frame) const {
  if (boot_ != nullptr && boot_->Has(frame)) return true;
  return root_ == frame || std::find(table_frames_.begin(), table_frames_.end(), frame) != table_frames_.end();
}

std::optional<PhysAddr> KernelPageTables::Translate(VirtAddr address, Explanation* why) const {
  if (!root_) return std::nullopt;
  const auto read = [this](Pfn frame, size_t offset, void* out, size_t size) {
    const uint64_t entry = Load(frame, static_cast<uint32_t>(offset / size));
    std::memcpy(out, &entry, size);
  };
  const PageWalk walk = WalkPageTables(format_, read, *root_, address);
  if (why != nullptr) ExplainWalk(format_, walk, *why);
  return walk.physical;
}

}  // namespace mmlab

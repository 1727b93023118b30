#include "server/kernel/vmalloc.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/kernel_logger.h"
#include "server/kernel/kernel_page_tables.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr size_t kBulkPages = 100;                       // vm_area_alloc_pages() asks for at most so many at a time.
constexpr uint64_t kMaxDevicePages = uint64_t{1} << 20;  // Small pages of one ioremap.

uint64_t RoundUpPowerOfTwo(uint64_t value) {
  uint64_t power = 1;
  while (power < value) power <<= 1;
  return power;
}

int CeilLog2(uint64_t value) {
  int log = 0;
  while (log < 63 && (uint64_t{1} << log) < value) ++log;
  return log;
}

// VMAP_BBMAP_BITS: small enough for 16 blocks a CPU in a guessed size of the space.
uint32_t BlockPages(const VmallocConfig& config) {
  const uint64_t space_pages = (config.word_bytes == 4 ? uint64_t{128} << 20 : uint64_t{128} << 30) >> config.page_size.shift();
  const uint64_t least = uint64_t{16} * static_cast<uint64_t>(config.word_bytes);  // 2 * BITS_PER_LONG
  const uint64_t wanted = space_pages / RoundUpPowerOfTwo(static_cast<uint64_t>(config.max_cpus)) / 16;
  return static_cast<uint32_t>(std::min<uint64_t>(1024, std::max(least, wanted)));
}

}  // namespace

Vmalloc::Vmalloc(VmallocConfig config, BuddyMemory* memory, KernelPageTables* tables, Tracer& tracer)
    : config_(std::move(config)),
      memory_(memory),
      tables_(tables),
      tracer_(tracer),
      block_pages_(BlockPages(config_)),
      block_queues_(static_cast<size_t>(config_.cpus)) {
  MMLAB_CHECK((memory_ == nullptr) == (tables_ == nullptr));
  free_.Release(1, config_.last_address);
}

PageCount Vmalloc::lazy_max_pages() const {
  int log = 0;
  while ((config_.cpus >> log) != 0) ++log;
  return PageCount(static_cast<uint64_t>(log) * ((uint64_t{32} << 20) >> config_.page_size.shift()));
}

bool Vmalloc::AddBootAreas(absl::Span<const KernelArea> areas, absl::Span<const FreeAreaTree::Area> lazy) {
  for (const KernelArea& area : areas) {
    if (area.start >= area.end || !free_.TakeExactly(area.start, area.end)) return false;
    areas_[area.start] = area;
    nr_vmalloc_pages_ += area.nr_pages;
  }
  for (const FreeAreaTree::Area& range : lazy) {
    if (range.start >= range.end || !free_.TakeExactly(range.start, range.end)) return false;
    AddLazy(range.start, range.end);
  }
  return true;
}

bool Vmalloc::Load(absl::Span<const KernelArea> areas, absl::Span<const FreeAreaTree::Area> lazy,
                   absl::Span<const FreeAreaTree::RecordedNode> free_tree) {
  if (!free_.Load(free_tree)) return false;
  areas_.clear();
  lazy_.clear();
  blocks_.clear();
  for (std::vector<uint64_t>& queue : block_queues_) queue.clear();
  nr_vmalloc_pages_ = lazy_pages_ = 0;
  for (const KernelArea& area : areas) {
    if (area.start >= area.end || !areas_.emplace(area.start, area).second) return false;
    nr_vmalloc_pages_ += area.nr_pages;
    // A block of vm_map_ram(): what is in it is not recorded; nothing is held.
    if (!area.has_vm && area.end - area.start == Bytes_(block_pages_)) {
      blocks_[area.start] = {1, block_pages_ - 1, 0};
      block_queues_[0].push_back(area.start);
    }
  }
  for (const FreeAreaTree::Area& range : lazy) AddLazy(range.start, range.end);
  std::vector<std::string> problems;
  CheckInvariants(&problems);
  return problems.empty();
}

SysResult<uint64_t> Vmalloc::AllocRange(uint64_t size, uint64_t align, uint64_t low, uint64_t high) {
  for (const bool purged : {false, true}) {
    FreeAreaTree::Search search;
    const std::optional<uint64_t> at = free_.Take(size, align, low, high, config_.page_size.bytes().raw(), &search);
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kVmapAreaSearch, at ? "the first free range of the tree's search that fits" : "no free range fits")
          .Size("size", Bytes(size))
          .Size("align", Bytes(align))
          .Address("low", VirtAddr(low))
          .Address("high", VirtAddr(high))
          .Size("length_searched", Bytes(search.length))
          .Number("nodes_visited", search.nodes_visited)
          .Number("free_ranges", static_cast<int64_t>(free_.size()))
          .Address("range_start", VirtAddr(search.found.start))
          .Address("range_end", VirtAddr(search.found.end))
          .Address("address", VirtAddr(at.value_or(0)));
    }
    if (at) return *at;
    if (purged) break;
    PurgeBlocks();
    PurgeLazy("nothing fits");
  }
  if (log_ != nullptr && log_->Allows(LimitedMessage::kAllocVmapArea)) {
    log_->Log(LogLevel::kWarning, absl::StrCat("vmap allocation for size ", size, " failed: use vmalloc=<size> to increase size"));
  }
  return Errno::kENOMEM;
}

SysResult<KernelArea*> Vmalloc::NewArea(uint64_t size, uint64_t align, uint32_t flags, uint64_t low, uint64_t high,
                                        const std::string& caller) {
  if (size == 0) return Errno::kEINVAL;
  if (size > config_.last_address - 2 * config_.page_size.bytes().raw()) return Errno::kENOMEM;
  size = (size + config_.page_size.mask()) & ~config_.page_size.mask();
  if ((flags & kVmIoremap) != 0) {
    align = uint64_t{1} << std::clamp(CeilLog2(size), config_.page_size.shift(), config_.ioremap_max_order);
  }
  if ((flags & kVmNoGuard) == 0) size += config_.page_size.bytes().raw();
  MMLAB_TRY_ASSIGN(const uint64_t start, AllocRange(size, align, low, high));
  KernelArea& area = areas_[start];
  area.start = start;
  area.end = start + size;
  area.flags = flags;
  area.caller = caller;
  return &area;
}

bool Vmalloc::FillPages(KernelArea& area, Gfp gfp) {
  const uint32_t wanted = area.nr_pages;
  area.pages.assign(wanted, Pfn());
  size_t got = 0;
  while (got < wanted) {
    const size_t request = std::min(kBulkPages, wanted - got);
    const size_t bulk = memory_->AllocPagesBulk(gfp | kGfpNoWarn, absl::MakeSpan(area.pages).subspan(got, request));
    got += bulk;
    if (bulk != request) break;
  }
  for (; got < wanted; ++got) {
    const std::optional<Pfn> pfn = memory_->AllocPages(gfp | kGfpNoWarn, PageOrder(0));
    if (!pfn) break;
    area.pages[got] = *pfn;
  }
  area.pages.resize(got);
  area.nr_pages = static_cast<uint32_t>(got);
  for (const Pfn pfn : area.pages) memory_->frame(pfn).state = FrameState::kVmalloc;
  return got == wanted;
}

bool Vmalloc::MapPages(uint64_t start, absl::Span<const Pfn> pages) {
  if (tables_ == nullptr) return true;
  for (const Pfn pfn : pages) {
    if (!tables_->MapPage(VirtAddr(start), pfn, KernelPageTables::Kind::kMemory)) return false;
    start += config_.page_size.bytes().raw();
  }
  return true;
}

VmallocOutcome Vmalloc::Done(VirtAddr address, const KernelArea* area) {
  VmallocOutcome outcome;
  outcome.address = address;
  if (area != nullptr) {
    outcome.area = {VirtAddr(area->start), VirtAddr(area->end)};
    outcome.nr_pages = area->nr_pages;
  }
  if (lazy_pages_ > lazy_max_pages().raw()) {
    outcome.lazy_before_purge = PageCount(lazy_pages_);
    PurgeLazy("the worker runs: more is lazily free than the limit");
  }
  outcome.lazy = PageCount(lazy_pages_);
  return outcome;
}

SysResult<VmallocOutcome> Vmalloc::Alloc(const VmallocRequest& request) {
  const uint64_t size = request.size.raw();
  const bool whole = request.start.raw() == 0 && request.end.raw() == 0;
  const uint64_t low = whole ? config_.start.raw() : request.start.raw();
  const uint64_t high = whole ? config_.end.raw() : request.end.raw();
  const uint64_t align = request.align;
  if (size == 0 || align == 0 || (align & (align - 1)) != 0 || low == 0 || low >= high || high > config_.last_address)
    return Errno::kEINVAL;
  if (((low | high) & config_.page_size.mask()) != 0) return Errno::kEINVAL;
  if ((size >> config_.page_size.shift()) > config_.total_ram.raw()) return Errno::kENOMEM;
  MMLAB_TRY_ASSIGN(KernelArea * area, NewArea(size, align, kVmAlloc | request.flags, low, high, request.caller));
  const uint64_t start = area->start;
  area->nr_pages = static_cast<uint32_t>(config_.page_size.PagesHolding(request.size).raw());
  const uint64_t array_bytes = uint64_t{area->nr_pages} * static_cast<uint64_t>(config_.word_bytes);
  if (array_bytes > config_.page_size.bytes().raw()) {
    VmallocRequest array;
    array.size = Bytes(array_bytes);
    array.gfp = (request.gfp & (kGfpReclaim | kGfpIo | kGfpFs)) | kGfpZero;
    array.caller = request.caller;
    const SysResult<VmallocOutcome> nested = Alloc(array);
    area = &areas_.at(start);
    if (!nested.ok()) {
      area->nr_pages = 0;
      FreeArea(start, false);
      return nested.error();
    }
    area->page_array = nested.value().address.raw();
  }
  Gfp gfp = request.gfp;
  if ((gfp & (kGfpZoneDma | kGfpZoneDma32)) == 0) gfp |= kGfpZoneHighmem;
  const bool filled = memory_ == nullptr || FillPages(*area, gfp);
  nr_vmalloc_pages_ += area->nr_pages;
  if (!filled || !MapPages(start, area->pages)) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kAllocationFailure, "vmalloc error: failed to allocate pages").Pages("allocated", area->nr_pages);
    }
    FreeArea(start, true);
    return Errno::kENOMEM;
  }
  return Done(VirtAddr(start), area);
}

SysResult<VmallocOutcome> Vmalloc::Map(absl::Span<const Pfn> pages, uint32_t flags, const std::string& caller) {
  if (pages.empty()) return Errno::kEINVAL;
  if (pages.size() > config_.total_ram.raw()) return Errno::kENOMEM;
  MMLAB_TRY_ASSIGN(KernelArea * area,
                   NewArea(Bytes_(pages.size()), 1, (flags | kVmMap) & ~kVmNoGuard, config_.start.raw(), config_.end.raw(), caller));
  if (!MapPages(area->start, pages)) {
    FreeArea(area->start, false);
    return Errno::kENOMEM;
  }
  return Done(VirtAddr(area->start), area);
}

SysResult<VmallocOutcome> Vmalloc::GetArea(Bytes size, uint32_t flags, const std::string& caller) {
  MMLAB_TRY_ASSIGN(const KernelArea* area, NewArea(size.raw(), 1, flags, config_.start.raw(), config_.end.raw(), caller));
  return Done(VirtAddr(area->start), area);
}

SysResult<VmallocOutcome> Vmalloc::GetPercpuArea(Bytes size, const std::string& caller) {
  const uint64_t bytes = config_.page_size.BytesOf(config_.page_size.PagesHolding(size)).raw();
  std::optional<uint64_t> highest;
  free_.ForEach([&](FreeAreaTree::Area area) {
    const uint64_t start = std::max(area.start, config_.start.raw());
    const uint64_t end = std::min(area.end, config_.end.raw()) & ~config_.page_size.mask();
    if (end > start && end - start >= bytes) highest = end - bytes;
  });
  if (bytes == 0 || !highest || !free_.TakeExactly(*highest, *highest + bytes)) return Errno::kENOMEM;
  KernelArea& area = areas_[*highest];
  area.start = *highest;
  area.end = *highest + bytes;
  area.flags = kVmAlloc | kVmNoGuard;
  area.caller = caller;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kVmapAreaSearch, "the highest free addresses of the vmalloc area serve a chunk of the per-CPU allocator")
        .Address("start", VirtAddr(area.start))
        .Size("size", Bytes(bytes));
  }
  return Done(VirtAddr(area.start), &area);
}

SysResult<VmallocOutcome> Vmalloc::Ioremap(PhysAddr physical, Bytes size, const std::string& caller) {
  uint64_t end = 0;
  if (size.raw() == 0 || __builtin_add_overflow(physical.raw(), size.raw(), &end) || end > UINT64_MAX - config_.page_size.mask()) {
    return Errno::kEINVAL;
  }
  const uint64_t offset = physical.raw() & config_.page_size.mask();
  const uint64_t first = physical.raw() - offset;
  const uint64_t bytes = ((end + config_.page_size.mask()) & ~config_.page_size.mask()) - first;
  const PfnRange frames{Pfn(first >> config_.page_size.shift()), Pfn((first + bytes) >> config_.page_size.shift())};
  if ((bytes >> config_.page_size.shift()) > kMaxDevicePages) return Errno::kEINVAL;
  for (const PfnRange& ram : config_.system_ram) {
    if (!ram.Overlaps(frames)) continue;
    if (Explanation* why = tracer_.explanation())
      why->Add(StepKind::kVmapAreaSearch, "ioremap on RAM is refused").Physical("physical", physical);
    return Errno::kEINVAL;
  }
  MMLAB_TRY_ASSIGN(KernelArea * area, NewArea(bytes, 1, kVmIoremap, config_.start.raw(), config_.end.raw(), caller));
  area->physical = PhysAddr(first);
  if (tables_ != nullptr && !tables_->MapRange(VirtAddr(area->start), PhysAddr(first), Bytes(bytes), KernelPageTables::Kind::kDevice)) {
    FreeArea(area->start, false);
    return Errno::kENOMEM;
  }
  return Done(VirtAddr(area->start + offset), area);
}

KernelArea* Vmalloc::Find(uint64_t address) {
  auto next = areas_.upper_bound(address);
  if (next == areas_.begin()) return nullptr;
  KernelArea& area = std::prev(next)->second;
  return address < area.end ? &area : nullptr;
}

void Vmalloc::AddLazy(uint64_t start, uint64_t end) {
  lazy_pages_ += (end - start) >> config_.page_size.shift();
  auto next = lazy_.lower_bound(start);
  if (next != lazy_.end() && next->first == end) {
    end = next->second;
    next = lazy_.erase(next);
  }
  if (next != lazy_.begin() && std::prev(next)->second == start) {
    std::prev(next)->second = end;
    return;
  }
  lazy_.emplace_hint(next, start, end);
}

void Vmalloc::Remove(uint64_t start, bool unmap) {
  const auto at = areas_.find(start);
  const uint64_t end = at->second.end;
  if (unmap && tables_ != nullptr) tables_->Unmap({VirtAddr(start), VirtAddr(end)});
  areas_.erase(at);
  AddLazy(start, end);
}

void Vmalloc::FreeArea(uint64_t start, bool free_pages) {
  const KernelArea area = std::move(areas_.at(start));
  areas_.at(start).end = area.end;
  Remove(start, true);
  if ((area.flags & kVmFlushResetPerms) != 0) {
    PurgeBlocks();
    PurgeLazy("memory that was executable must not be reachable any more");
  }
  if (!free_pages) {
    lost_pages_ += area.pages.size();
    return;
  }
  if (memory_ != nullptr) {
    for (const Pfn pfn : area.pages) memory_->FreePages(pfn, PageOrder(0));
  }
  nr_vmalloc_pages_ -= area.nr_pages;
  if (area.page_array != 0) FreeArea(area.page_array, true);
}

SysResult<VmallocOutcome> Vmalloc::Release(VirtAddr address, bool free_pages, uint32_t wanted_flag) {
  if ((address.raw() & config_.page_size.mask()) != 0) return Errno::kEINVAL;
  const KernelArea* area = Find(address.raw());
  if (area == nullptr || !area->has_vm || (area->flags & wanted_flag) != wanted_flag) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kVmapAreaSearch, "trying to vfree() nonexistent vm area").Address("address", address);
    }
    return Errno::kEINVAL;
  }
  FreeArea(area->start, free_pages);
  return Done(address, nullptr);
}

SysResult<VmallocOutcome> Vmalloc::Free(VirtAddr address) { return Release(address, true, 0); }
SysResult<VmallocOutcome> Vmalloc::Unmap(VirtAddr address) { return Release(address, false, 0); }
SysResult<VmallocOutcome> Vmalloc::Iounmap(VirtAddr address) {
  MMLAB_TRY_ASSIGN(VmallocOutcome outcome, Release(config_.page_size.RoundDown(address), false, kVmIoremap));
  outcome.address = address;
  return outcome;
}

// A power of two of pages, as get_order() has it.
uint32_t Vmalloc::RoundedUp(uint64_t pages) const { return static_cast<uint32_t>(RoundUpPowerOfTwo(pages)); }

SysResult<uint64_t> Vmalloc::BlockAlloc(uint32_t pages, int cpu) {
  std::vector<uint64_t>& queue = block_queues_[static_cast<size_t>(cpu)];
  for (size_t i = 0; i < queue.size(); ++i) {
    Block& block = blocks_.at(queue[i]);
    if (block.free < pages) continue;
    const uint64_t address = queue[i] + Bytes_(block_pages_ - block.free);
    block.free -= pages;
    if (block.free == 0) queue.erase(queue.begin() + static_cast<ptrdiff_t>(i));
    return address;
  }
  const uint64_t size = Bytes_(block_pages_);
  MMLAB_TRY_ASSIGN(const uint64_t start, AllocRange(size, size, config_.start.raw(), config_.end.raw()));
  KernelArea& area = areas_[start];
  area.start = start;
  area.end = start + size;
  area.has_vm = false;
  blocks_[start] = {block_pages_ - pages, 0, cpu};
  queue.push_back(start);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kVmapBlock, "a new block for small requests of this CPU")
        .Address("start", VirtAddr(start))
        .Pages("pages", block_pages_)
        .Number("cpu", cpu);
  }
  return start;
}

SysResult<VmallocOutcome> Vmalloc::MapRam(absl::Span<const Pfn> pages, int cpu) {
  if (pages.empty()) return Errno::kEINVAL;
  if (pages.size() > config_.total_ram.raw()) return Errno::kENOMEM;
  const auto largest_small = static_cast<uint64_t>(config_.word_bytes) * 8;  // VMAP_MAX_ALLOC
  uint64_t address = 0;
  if (pages.size() <= largest_small) {
    MMLAB_TRY_ASSIGN(address, BlockAlloc(RoundedUp(pages.size()), cpu));
  } else {
    const uint64_t size = Bytes_(pages.size());
    MMLAB_TRY_ASSIGN(address, AllocRange(size, config_.page_size.bytes().raw(), config_.start.raw(), config_.end.raw()));
    KernelArea& area = areas_[address];
    area.start = address;
    area.end = address + size;
    area.has_vm = false;
  }
  if (!MapPages(address, pages)) {
    MMLAB_TRY(UnmapRam(VirtAddr(address), PageCount(pages.size())).error());
    return Errno::kENOMEM;
  }
  return Done(VirtAddr(address), nullptr);
}

SysResult<VmallocOutcome> Vmalloc::UnmapRam(VirtAddr address, PageCount count) {
  const uint64_t at = address.raw();
  if (count.raw() == 0 || count.raw() > config_.total_ram.raw() || (at & config_.page_size.mask()) != 0) return Errno::kEINVAL;
  const KernelArea* area = Find(at);
  if (area == nullptr || area->has_vm) return Errno::kEINVAL;
  const bool small = count.raw() <= static_cast<uint64_t>(config_.word_bytes) * 8;
  const auto found = blocks_.find(area->start);
  if (small != (found != blocks_.end())) return Errno::kEINVAL;
  if (!small) {
    if (area->start != at || area->end != at + Bytes_(count.raw())) return Errno::kEINVAL;
    Remove(at, true);
    return Done(address, nullptr);
  }
  Block& block = found->second;
  const uint32_t pages = RoundedUp(count.raw());
  const uint64_t first = (at - area->start) >> config_.page_size.shift();
  if (first + pages > block_pages_ - block.free || block.dirty + pages > block_pages_ - block.free) return Errno::kEINVAL;
  if (tables_ != nullptr) tables_->Unmap({address, VirtAddr(at + Bytes_(count.raw()))});
  block.dirty += pages;
  if (block.dirty == block_pages_) {
    const uint64_t start = area->start;
    blocks_.erase(found);
    Remove(start, false);
  }
  return Done(address, nullptr);
}

void Vmalloc::PurgeBlocks() {
  for (std::vector<uint64_t>& queue : block_queues_) {
    std::vector<uint64_t> kept;
    for (const uint64_t start : queue) {
      const Block& block = blocks_.at(start);
      if (block.free + block.dirty != block_pages_ || block.dirty == block_pages_) {
        kept.push_back(start);
        continue;
      }
      blocks_.erase(start);
      Remove(start, false);
    }
    queue = std::move(kept);
  }
}

void Vmalloc::PurgeLazy(const char* reason) {
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kVmapPurge, absl::StrCat("lazily freed ranges become free: ", reason))
        .Pages("lazy", PageCount(lazy_pages_))
        .Pages("limit", lazy_max_pages())
        .Number("ranges", static_cast<int64_t>(lazy_.size()));
  }
  for (const auto& [start, end] : lazy_) free_.Release(start, end);
  lazy_.clear();
  lazy_pages_ = 0;
}

VmallocOutcome Vmalloc::UnmapAliases() {
  PurgeBlocks();
  PurgeLazy("vm_unmap_aliases()");
  return Done(VirtAddr(), nullptr);
}

uint64_t Vmalloc::HostMemory() const {
  uint64_t bytes = sizeof(Vmalloc) + free_.HostMemory() + areas_.size() * sizeof(KernelArea) * 3 / 2 + lazy_.size() * 24 +
                   blocks_.size() * 32 + config_.system_ram.capacity() * sizeof(PfnRange);
  for (const auto& [start, area] : areas_)
    bytes += area.pages.capacity() * sizeof(Pfn) + (area.caller.size() > 15 ? area.caller.capacity() : 0);
  return bytes;
}

void Vmalloc::AddToHash(StateHasher& hasher) const {
  free_.AddToHash(hasher);
  for (const auto& [start, area] : areas_) {
    for (const uint64_t value : {start, area.end, uint64_t{area.flags}, uint64_t{area.nr_pages}, area.page_array}) hasher.Add(value);
    hasher.AddBytes(area.caller.data(), area.caller.size());
    hasher.Add(area.has_vm ? 1 : 0);
    hasher.Add(area.physical ? area.physical->raw() : UINT64_MAX);
    for (const Pfn pfn : area.pages) hasher.Add(pfn.raw());
  }
  for (const auto& [start, end] : lazy_) {
    hasher.Add(start);
    hasher.Add(end);
  }
  for (const auto& [start, block] : blocks_) {
    for (const uint64_t value : {start, uint64_t{block.free}, uint64_t{block.dirty}, static_cast<uint64_t>(block.cpu)}) hasher.Add(value);
  }
  for (const std::vector<uint64_t>& queue : block_queues_) {
    for (const uint64_t start : queue) hasher.Add(start);
  }
  hasher.Add(lost_pages_);
}

void Vmalloc::CheckInvariants(std::vector<std::string>* problems) const {
  const auto problem = [&](const auto&... parts) { problems->push_back(absl::StrCat("vmalloc: ", parts...)); };
  free_.CheckInvariants(problems);
  std::vector<FreeAreaTree::Area> all;
  free_.ForEach([&](FreeAreaTree::Area area) { all.push_back(area); });
  uint64_t lazy = 0;
  for (const auto& [start, end] : lazy_) {
    all.push_back({start, end});
    lazy += (end - start) >> config_.page_size.shift();
  }
  if (lazy != lazy_pages_) problem(lazy_pages_, " lazy pages are counted, the ranges have ", lazy);
  uint64_t pages = 0;
  for (const auto& [start, area] : areas_) {
    all.push_back({start, area.end});
    pages += area.nr_pages;
    if (memory_ == nullptr || area.pages.empty()) continue;
    if (area.pages.size() != area.nr_pages) problem("area at 0x", absl::Hex(start), " owns ", area.pages.size(), " of ", area.nr_pages);
    for (size_t i = 0; i < area.pages.size(); ++i) {
      const Pfn pfn = area.pages[i];
      if (memory_->PeekFrame(pfn).state != FrameState::kVmalloc) problem("frame ", pfn.raw(), " of an area is something else");
      const std::optional<PhysAddr> mapped = tables_->Translate(VirtAddr(start + Bytes_(i)), nullptr);
      if (mapped != config_.page_size.StartOf(pfn)) problem("page ", i, " of the area at 0x", absl::Hex(start), " is not mapped");
    }
  }
  if (pages + lost_pages_ != nr_vmalloc_pages_) problem("VmallocUsed is ", nr_vmalloc_pages_, " pages, the areas have ", pages);
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.start < b.start; });
  uint64_t at = 1;
  for (const FreeAreaTree::Area& area : all) {
    if (area.start != at) problem("0x", absl::Hex(at), " is followed by 0x", absl::Hex(area.start));
    at = area.end;
  }
  if (at != config_.last_address) problem("addresses end at 0x", absl::Hex(at));
  for (const auto& [start, block] : blocks_) {
    const auto area = areas_.find(start);
    if (area == areas_.end() || area->second.has_vm) problem("block at 0x", absl::Hex(start), " has no area");
    if (block.free + block.dirty > block_pages_) problem("block at 0x", absl::Hex(start), " has too many pages");
  }
}

}  // namespace mmlab

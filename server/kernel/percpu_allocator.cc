#include "server/kernel/percpu_allocator.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

constexpr uint32_t kMinAlloc = 4;         // PCPU_MIN_ALLOC_SIZE
constexpr uint32_t kMaxAlloc = 32 << 10;  // PCPU_MIN_UNIT_SIZE
constexpr int kSlotBaseShift = 5;         // PCPU_SLOT_BASE_SHIFT
constexpr int kSlotFailThreshold = 3;     // PCPU_SLOT_FAIL_THRESHOLD
constexpr uint32_t kEmptyPagesLow = 2;    // PCPU_EMPTY_POP_PAGES_LOW
constexpr uint32_t kEmptyPagesHigh = 4;   // PCPU_EMPTY_POP_PAGES_HIGH

constexpr uint32_t RoundUp(uint32_t value, uint32_t step) { return (value + step - 1) / step * step; }

int PlainSlot(uint32_t size) { return std::max(static_cast<int>(std::bit_width(size)) - kSlotBaseShift + 2, 1); }

}  // namespace

PercpuAllocator::PercpuAllocator(const PercpuConfig& config, const std::vector<PercpuBootChunk>& boot, PercpuPages& pages, Tracer& tracer)
    : config_(config),
      pages_(pages),
      tracer_(tracer),
      sidelined_slot_(PlainSlot(config.unit_size) + 1),
      free_slot_(sidelined_slot_ + 1),
      depopulate_slot_(free_slot_ + 1) {
  lists_.resize(static_cast<size_t>(depopulate_slot_) + 1);
  for (const PercpuBootChunk& from : boot) {
    auto chunk = std::make_unique<Chunk>();
    chunk->base = from.base;
    chunk->immutable = from.immutable;
    chunk->populated.assign(unit_pages(), false);
    std::fill_n(chunk->populated.begin(), from.populated, true);
    chunk->nr_populated = from.populated;
    if (from.start + from.used < from.end) chunk->free[from.start + from.used] = from.end;
    chunk->free_bytes = from.end - from.start - from.used;
    populated_ += from.populated;
    CountEmpty(*chunk);
    lists_[0].push_back(std::move(chunk));
    Relocate(std::prev(lists_[0].end()));
  }
}

int PercpuAllocator::SlotOfSize(uint32_t size) const { return size == config_.unit_size ? free_slot_ : PlainSlot(size); }

uint32_t PercpuAllocator::LargestFree(const Chunk& chunk) {
  uint32_t largest = 0;
  for (const auto& [start, end] : chunk.free) largest = std::max(largest, end - start);
  return largest;
}

int PercpuAllocator::SlotOf(const Chunk& chunk) const {
  const uint32_t largest = LargestFree(chunk);
  return largest < kMinAlloc ? 0 : SlotOfSize(largest);
}

PercpuAllocator::ChunkList::iterator PercpuAllocator::Move(ChunkList::iterator chunk, int slot, bool front) {
  ChunkList& from = lists_[static_cast<size_t>(std::max((*chunk)->slot, 0))];
  ChunkList& to = lists_[static_cast<size_t>(slot)];
  (*chunk)->slot = slot;
  to.splice(front ? to.begin() : to.end(), from, chunk);
  return chunk;
}

// pcpu_chunk_relocate(): to the front of a list of larger runs, to the end of one of smaller ones.
void PercpuAllocator::Relocate(ChunkList::iterator chunk) {
  if ((*chunk)->isolated) return;
  const int slot = SlotOf(**chunk);
  if (slot != (*chunk)->slot) Move(chunk, slot, (*chunk)->slot < slot);
}

void PercpuAllocator::Reintegrate(ChunkList::iterator chunk) {
  if (!(*chunk)->isolated) return;
  (*chunk)->isolated = false;
  empty_populated_ += (*chunk)->nr_empty;
  Move(chunk, SlotOf(**chunk), true);
}

bool PercpuAllocator::PageIsFree(const Chunk& chunk, uint32_t page) const {
  auto after = chunk.free.upper_bound(page * page_bytes());
  return after != chunk.free.begin() && std::prev(after)->second >= (page + 1) * page_bytes();
}

// Brings the count of empty pages, its own and that of all, up to date.
void PercpuAllocator::CountEmpty(Chunk& chunk) {
  uint32_t empty = 0;
  for (uint32_t page = 0; page < unit_pages(); ++page) empty += chunk.populated[page] && PageIsFree(chunk, page) ? 1 : 0;
  if (!chunk.isolated) empty_populated_ = empty_populated_ + empty - chunk.nr_empty;
  chunk.nr_empty = empty;
}

// pcpu_find_block_fit(), pcpu_alloc_area(): the first place that fits; for an atomic request where all pages exist. A chunk whose largest
// run does not fit, aligned, is not looked at closer.
std::optional<uint32_t> PercpuAllocator::FindPlace(const Chunk& chunk, uint32_t size, uint32_t align, bool atomic) const {
  const uint32_t largest = LargestFree(chunk);
  bool promising = false;
  for (const auto& [start, end] : chunk.free) {
    promising = promising || (end - start == largest && RoundUp(start, align) + size <= end);
  }
  if (!promising) return std::nullopt;
  for (const auto& [start, end] : chunk.free) {
    for (uint32_t at = RoundUp(start, align); at + size <= end;) {
      if (!atomic) return at;
      uint32_t missing = at / page_bytes();
      while (missing * page_bytes() < at + size && chunk.populated[missing]) ++missing;
      if (missing * page_bytes() >= at + size) return at;
      while (missing < unit_pages() && !chunk.populated[missing]) ++missing;
      at = RoundUp(missing * page_bytes(), align);
    }
  }
  return std::nullopt;
}

void PercpuAllocator::Take(Chunk& chunk, uint32_t start, uint32_t size) {
  const auto range = std::prev(chunk.free.upper_bound(start));
  const auto [free_start, free_end] = *range;
  MMLAB_CHECK(free_start <= start && start + size <= free_end);
  chunk.free.erase(range);
  if (free_start < start) chunk.free[free_start] = start;
  if (start + size < free_end) chunk.free[start + size] = free_end;
  chunk.allocated[start] = start + size;
  chunk.free_bytes -= size;
}

bool PercpuAllocator::Populate(Chunk& chunk, uint32_t first, uint32_t end) {
  const auto range = [&](int cpu) {
    const VirtAddr unit = Of(chunk.base, cpu);
    return VirtRange{unit + Bytes(uint64_t{first} * page_bytes()), unit + Bytes(uint64_t{end} * page_bytes())};
  };
  for (int cpu = 0; cpu < config_.cpus; ++cpu) {
    if (pages_.Populate(range(cpu))) continue;
    while (cpu-- > 0) pages_.Depopulate(range(cpu));
    return false;
  }
  std::fill(chunk.populated.begin() + first, chunk.populated.begin() + end, true);
  chunk.nr_populated += end - first;
  populated_ += end - first;
  CountEmpty(chunk);
  Explain("pages of each CPU's unit were made", chunk);
  return true;
}

void PercpuAllocator::Depopulate(Chunk& chunk, uint32_t first, uint32_t end) {
  for (int cpu = 0; cpu < config_.cpus; ++cpu) {
    const VirtAddr unit = Of(chunk.base, cpu);
    pages_.Depopulate({unit + Bytes(uint64_t{first} * page_bytes()), unit + Bytes(uint64_t{end} * page_bytes())});
  }
  std::fill(chunk.populated.begin() + first, chunk.populated.begin() + end, false);
  chunk.nr_populated -= end - first;
  populated_ -= end - first;
  CountEmpty(chunk);
  Explain("empty pages of each CPU's unit were given back", chunk);
}

bool PercpuAllocator::CreateChunk() {
  const std::optional<VirtAddr> base = pages_.GetArea(Bytes(uint64_t{config_.unit_size} * static_cast<uint64_t>(config_.cpus)));
  if (!base) return false;
  auto chunk = std::make_unique<Chunk>();
  chunk->base = *base;
  chunk->populated.assign(unit_pages(), false);
  chunk->free[0] = config_.unit_size;
  chunk->free_bytes = config_.unit_size;
  lists_[0].push_back(std::move(chunk));
  Relocate(std::prev(lists_[0].end()));
  Explain("a new chunk, without any pages yet", *lists_[static_cast<size_t>(free_slot_)].front());
  return true;
}

SysResult<VirtAddr> PercpuAllocator::Alloc(uint64_t wished, uint64_t wished_align, bool atomic) {
  const auto refuse = [this](Errno error, const char* rule) {
    if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kPercpuArea, rule).Error(error);
    return error;
  };
  if (wished == 0 || wished > kMaxAlloc) return refuse(Errno::kEINVAL, "no bytes, or more than PCPU_MIN_UNIT_SIZE");
  const uint64_t raw_align = std::max<uint64_t>(wished_align, kMinAlloc);
  if (!std::has_single_bit(raw_align) || raw_align > page_bytes()) return refuse(Errno::kEINVAL, "no power of two, or more than a page");
  const auto align = static_cast<uint32_t>(raw_align);
  const uint32_t size = RoundUp(static_cast<uint32_t>(wished), kMinAlloc);
  while (true) {
    for (int slot = SlotOfSize(size); slot <= free_slot_; ++slot) {
      ChunkList& list = lists_[static_cast<size_t>(slot)];
      for (auto at = list.begin(); at != list.end();) {
        const auto chunk = at++;
        const std::optional<uint32_t> place = FindPlace(**chunk, size, align, atomic);
        if (place) return Serve(chunk, *place, size, atomic);
        Explain("no run of the chunk fits", **chunk);
        if (slot < kSlotFailThreshold) Move(chunk, 0, true);
      }
    }
    if (atomic) {
      atomic_failed_ = true;
      Balance();
      return refuse(Errno::kENOMEM, "an atomic request makes no pages and no chunk; the worker made some for the next one");
    }
    if (lists_[static_cast<size_t>(free_slot_)].empty() && !CreateChunk()) return refuse(Errno::kENOMEM, "no addresses for a chunk");
  }
}

SysResult<VirtAddr> PercpuAllocator::Serve(ChunkList::iterator at, uint32_t place, uint32_t size, bool atomic) {
  Chunk& chunk = **at;
  Take(chunk, place, size);
  CountEmpty(chunk);
  Relocate(at);
  Reintegrate(at);
  const uint32_t end = (place + size + page_bytes() - 1) / page_bytes();
  for (uint32_t page = place / page_bytes(); !atomic && page < end; ++page) {
    if (chunk.populated[page]) continue;
    uint32_t stop = page;
    while (stop < end && !chunk.populated[stop]) ++stop;
    if (Populate(chunk, page, stop)) continue;
    static_cast<void>(Free(chunk.base + Bytes(place)));
    return Errno::kENOMEM;
  }
  const VirtAddr address = chunk.base + Bytes(place);
  Explain("the first run of free bytes that fits", chunk);
  if (empty_populated_ < kEmptyPagesLow) Balance();
  return address;
}

Errno PercpuAllocator::Free(VirtAddr address) {
  for (ChunkList& list : lists_) {
    for (auto at = list.begin(); at != list.end(); ++at) {
      Chunk& chunk = **at;
      if (address < chunk.base || (address - chunk.base).raw() >= config_.unit_size) continue;
      const auto start = static_cast<uint32_t>((address - chunk.base).raw());
      const auto found = chunk.allocated.find(start);
      if (found == chunk.allocated.end()) return Errno::kEINVAL;
      uint32_t end = found->second;
      chunk.free_bytes += end - start;
      chunk.allocated.erase(found);
      uint32_t first = start;
      auto after = chunk.free.lower_bound(start);
      if (after != chunk.free.end() && after->first == end) {
        end = after->second;
        after = chunk.free.erase(after);
      }
      if (after != chunk.free.begin() && std::prev(after)->second == start) {
        first = std::prev(after)->first;
        chunk.free.erase(std::prev(after));
      }
      chunk.free[first] = end;
      CountEmpty(chunk);
      Relocate(at);
      Explain("given back, and joined with what is free beside it", chunk);
      if (!chunk.isolated && chunk.free_bytes == config_.unit_size) {
        if (lists_[static_cast<size_t>(free_slot_)].size() > 1) Balance();
      } else if (ShouldReclaim(chunk)) {
        if (!chunk.isolated) {
          chunk.isolated = true;
          empty_populated_ -= chunk.nr_empty;
        }
        Move(at, depopulate_slot_, true);
        Balance();
      }
      return Errno::kOk;
    }
  }
  return Errno::kEINVAL;
}

bool PercpuAllocator::ShouldReclaim(const Chunk& chunk) const {
  if (chunk.immutable) return false;
  return (chunk.isolated && chunk.nr_empty != 0) ||
         (empty_populated_ > kEmptyPagesHigh + chunk.nr_empty && chunk.nr_empty >= unit_pages() / 4);
}

// pcpu_balance_workfn(), which a worker does soon after it was asked to.
void PercpuAllocator::Balance() {
  FreeEmptyChunks(false);
  ReclaimPages();
  FillUp();
  FreeEmptyChunks(true);
}

// All chunks that are wholly free but one.
void PercpuAllocator::FreeEmptyChunks(bool without_pages) {
  ChunkList& list = lists_[static_cast<size_t>(free_slot_)];
  for (auto at = list.begin(); at != list.end();) {
    Chunk& chunk = **at;
    if (at == list.begin() || (without_pages && chunk.nr_empty != 0)) {
      ++at;
      continue;
    }
    for (uint32_t page = 0; page < unit_pages(); ++page) {
      if (chunk.populated[page]) Depopulate(chunk, page, page + 1);
    }
    Explain("a chunk that nobody uses goes", chunk);
    pages_.FreeArea(chunk.base);
    at = list.erase(at);
  }
}

// Empty pages of isolated chunks go, the last ones first, as long as enough of them stay elsewhere.
void PercpuAllocator::ReclaimPages() {
  ChunkList& list = lists_[static_cast<size_t>(depopulate_slot_)];
  while (!list.empty()) {
    const auto at = list.begin();
    Chunk& chunk = **at;
    bool reintegrate = false;
    for (uint32_t page = unit_pages(); page-- > 0 && chunk.nr_empty != 0;) {
      if (empty_populated_ < kEmptyPagesHigh) {
        reintegrate = true;
        break;
      }
      if (chunk.populated[page] && PageIsFree(chunk, page)) Depopulate(chunk, page, page + 1);
    }
    if (reintegrate || chunk.free_bytes == config_.unit_size) {
      Reintegrate(at);
    } else {
      Move(at, sidelined_slot_, false);
    }
  }
}

// pcpu_balance_populated(): so many empty pages that atomic requests find some.
void PercpuAllocator::FillUp() {
  uint64_t wanted = atomic_failed_ ? kEmptyPagesHigh : kEmptyPagesHigh - std::min<uint64_t>(kEmptyPagesHigh, empty_populated_);
  atomic_failed_ = false;
  while (wanted != 0) {
    for (int slot = SlotOfSize(page_bytes()); slot <= free_slot_ && wanted != 0; ++slot) {
      ChunkList& list = lists_[static_cast<size_t>(slot)];
      const auto at =
          std::find_if(list.begin(), list.end(), [&](const auto& c) { return !c->immutable && c->nr_populated < unit_pages(); });
      if (at == list.end()) continue;
      Chunk& chunk = **at;
      for (uint32_t page = 0; page < unit_pages() && wanted != 0; ++page) {
        if (chunk.populated[page]) continue;
        if (!Populate(chunk, page, page + 1)) return;
        --wanted;
      }
    }
    if (wanted != 0 && !CreateChunk()) return;
  }
}

bool PercpuAllocator::OwnsArea(VirtAddr address) const {
  const Bytes size(uint64_t{config_.unit_size} * static_cast<uint64_t>(config_.cpus));
  for (const ChunkList& list : lists_) {
    for (const auto& chunk : list) {
      if (!chunk->immutable && VirtRange{chunk->base, chunk->base + size}.Contains(address)) return true;
    }
  }
  return false;
}

uint64_t PercpuAllocator::pages() const { return populated_ * static_cast<uint64_t>(config_.cpus); }

std::vector<PercpuAllocator::ChunkView> PercpuAllocator::Chunks() const {
  std::vector<ChunkView> views;
  for (const ChunkList& list : lists_) {
    for (const auto& chunk : list) {
      views.push_back({chunk->base, unit_pages(), chunk->nr_populated, chunk->nr_empty, chunk->free_bytes, LargestFree(*chunk),
                       static_cast<uint32_t>(chunk->allocated.size()), chunk->slot, chunk->immutable, chunk->isolated});
    }
  }
  return views;
}

void PercpuAllocator::Explain(const char* text, const Chunk& chunk) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  why->Add(StepKind::kPercpuArea, text)
      .Address("chunk", chunk.base)
      .Number("slot", chunk.slot)
      .Size("free", Bytes(chunk.free_bytes))
      .Size("largest_free", Bytes(LargestFree(chunk)))
      .Pages("populated", PageCount(chunk.nr_populated))
      .Pages("empty_populated", PageCount(empty_populated_));
}

uint64_t PercpuAllocator::HostMemory() const {
  uint64_t bytes = lists_.capacity() * sizeof(ChunkList);
  for (const ChunkList& list : lists_) {
    for (const auto& chunk : list) {
      bytes += sizeof(Chunk) + 3 * sizeof(void*) + chunk->populated.capacity() / 8 + 10 * (chunk->free.size() + chunk->allocated.size());
    }
  }
  return bytes;
}

void PercpuAllocator::AddToHash(StateHasher& hasher) const {
  for (const ChunkList& list : lists_) {
    hasher.Add(list.size());
    for (const auto& chunk : list) {
      hasher.Add(chunk->base.raw());
      hasher.Add(chunk->isolated ? 1 : 0);
      for (const auto& [start, end] : chunk->free) hasher.Add(uint64_t{start} << 32 | end);
      for (const auto& [start, end] : chunk->allocated) hasher.Add(uint64_t{start} << 32 | end);
      for (const bool populated : chunk->populated) hasher.Add(populated ? 1 : 0);
    }
  }
  hasher.Add(atomic_failed_ ? 1 : 0);
}

void PercpuAllocator::CheckInvariants(std::vector<std::string>* problems) const {
  uint64_t populated = 0;
  uint64_t empty = 0;
  for (size_t slot = 0; slot < lists_.size(); ++slot) {
    for (const auto& chunk : lists_[slot]) {
      const auto complain = [&](absl::string_view what) {
        problems->push_back(absl::StrCat("percpu chunk 0x", absl::Hex(chunk->base.raw()), ": ", what));
      };
      if (chunk->slot != static_cast<int>(slot)) complain("is on a list that it does not know");
      uint32_t free_bytes = 0;
      uint32_t last = 0;
      for (const auto& [start, end] : chunk->free) {
        free_bytes += end - start;
        if (start >= end || (last != 0 && start <= last)) complain("free runs touch or overlap");
        last = end;
      }
      if (free_bytes != chunk->free_bytes) complain("free bytes are miscounted");
      for (const auto& [start, end] : chunk->allocated) {
        const auto after = chunk->free.lower_bound(start);
        const bool above = after != chunk->free.end() && after->first < end;
        if (above || (after != chunk->free.begin() && std::prev(after)->second > start)) complain("something is free and allocated");
        for (uint32_t page = start / page_bytes(); page * page_bytes() < end; ++page) {
          if (!chunk->populated[page]) complain("something allocated has no page");
        }
      }
      uint32_t empty_pages = 0;
      for (uint32_t page = 0; page < unit_pages(); ++page) empty_pages += chunk->populated[page] && PageIsFree(*chunk, page) ? 1 : 0;
      if (empty_pages != chunk->nr_empty) complain("empty pages are miscounted");
      populated += chunk->nr_populated;
      if (!chunk->isolated) empty += chunk->nr_empty;
      const bool ordinary = !chunk->isolated && slot != 0;
      if (ordinary && SlotOf(*chunk) != chunk->slot) complain("stands on the wrong list");
    }
  }
  if (populated != populated_ || empty != empty_populated_) problems->push_back("percpu: pages are miscounted");
}

}  // namespace mmlab

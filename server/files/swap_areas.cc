#include "server/files/swap_areas.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/physical/memory_controller.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

SwapAreas::SwapAreas(PhysicalMemory& memory, VmStat& vm_stat, Tracer& tracer) : memory_(memory), vm_stat_(vm_stat), tracer_(tracer) {}
SwapAreas::~SwapAreas() = default;

// --- Areas ---

Errno SwapAreas::Add(const std::string& path, bool file, uint64_t pages, uint64_t most_slots, std::optional<int> priority) {
  if (Find(path).has_value()) return Errno::kEBUSY;
  pages = std::min(pages, most_slots);
  if (pages < 2) return Errno::kEINVAL;
  size_t number = 0;
  while (number < areas_.size() && areas_[number] != nullptr) ++number;
  if (number == kMaxAreas) return Errno::kEPERM;
  if (number == areas_.size()) areas_.emplace_back();
  areas_[number] = std::make_unique<Area>();
  Area& area = *areas_[number];
  area.path = path;
  area.file = file;
  area.pages = static_cast<uint32_t>(pages);
  area.priority = priority.has_value() ? *priority : --least_priority_;
  area.clusters.resize((pages + kCluster - 1) / kCluster);
  area.traffic = &traffic_[path];
  total_ += pages - 1;
  free_ += pages - 1;
  InsertByPriority(static_cast<uint32_t>(number));
  return Errno::kOk;
}

void SwapAreas::InsertByPriority(uint32_t number) {
  const auto at = std::find_if(by_priority_.begin(), by_priority_.end(),
                               [&](uint32_t other) { return areas_[other]->priority < areas_[number]->priority; });
  by_priority_.insert(at, number);
}

std::optional<uint32_t> SwapAreas::Find(absl::string_view path) const {
  for (size_t i = 0; i < areas_.size(); ++i) {
    if (areas_[i] != nullptr && areas_[i]->path == path) return static_cast<uint32_t>(i);
  }
  return std::nullopt;
}

void SwapAreas::Stop(uint32_t number) {
  // drain_slots_cache_cpu()
  FlushReturned();
  for (const SwapEntry entry : to_give_) {
    areas_[entry.area]->Give(entry.offset);
    ++free_;
  }
  to_give_.clear();
  emptying_ = true;
  Area& area = *areas_[number];
  area.writable = false;
  total_ -= area.pages - 1;
  free_ -= area.pages - 1 - area.used;
  std::erase(by_priority_, number);
  if (area.priority >= 0) return;
  // Areas without a priority of their own move up.
  for (const std::unique_ptr<Area>& other : areas_) {
    if (other != nullptr && other.get() != &area && other->priority < area.priority) ++other->priority;
  }
  ++least_priority_;
}

void SwapAreas::Resume(uint32_t number) {
  FlushReturned();
  emptying_ = false;
  Area& area = *areas_[number];
  area.writable = true;
  total_ += area.pages - 1;
  free_ += area.pages - 1 - area.used;
  if (area.priority < 0) area.priority = --least_priority_;
  InsertByPriority(number);
}

void SwapAreas::Remove(uint32_t number) {
  FlushReturned();
  MMLAB_CHECK(!areas_[number]->writable && areas_[number]->used == 0);
  emptying_ = false;
  areas_[number].reset();
}

std::vector<SwapAreaView> SwapAreas::Views() const {
  std::vector<SwapAreaView> views;
  for (const std::unique_ptr<Area>& area : areas_) {
    if (area == nullptr) continue;
    views.push_back({area->path, area->file, PageCount(area->pages - 1), PageCount(area->used), area->priority});
  }
  return views;
}

std::vector<Pfn> SwapAreas::CachedPagesOf(uint32_t area) const {
  std::vector<Pfn> pages;
  for (const std::unique_ptr<Cluster>& cluster : areas_[area]->clusters) {
    if (cluster == nullptr) continue;
    for (const Slot& slot : cluster->slots) {
      if (slot.cached != kNoFrame) pages.emplace_back(slot.cached);
    }
  }
  return pages;
}

// --- Slots ---

uint32_t SwapAreas::Area::NextFree(uint32_t offset) const {
  while (offset < pages) {
    const Cluster* cluster = clusters[offset / kCluster].get();
    if (cluster == nullptr) return offset;
    const uint64_t free = ~cluster->taken[offset % kCluster / 64] >> (offset % 64);
    if (cluster->used < kCluster && free != 0) return std::min(pages, offset + static_cast<uint32_t>(std::countr_zero(free)));
    offset = cluster->used == kCluster ? (offset / kCluster + 1) * kCluster : (offset / 64 + 1) * 64;
  }
  return pages;
}

uint32_t SwapAreas::Area::FreeRun(uint32_t offset) const {
  uint32_t start = NextFree(offset);
  for (uint32_t at = start; start + kCluster <= pages;) {
    if (at - start >= kCluster) return start;
    const Cluster* cluster = clusters[at / kCluster].get();
    if (cluster == nullptr) {
      at = (at / kCluster + 1) * kCluster;
      continue;
    }
    const uint64_t taken = cluster->taken[at % kCluster / 64] >> (at % 64);
    if (taken == 0) {
      at = (at / 64 + 1) * 64;
      continue;
    }
    const uint32_t free_until = at + static_cast<uint32_t>(std::countr_zero(taken));
    if (free_until - start >= kCluster) return start;
    at = start = NextFree(free_until);
  }
  return pages;
}

void SwapAreas::Area::Take(uint32_t offset) {
  std::unique_ptr<Cluster>& cluster = clusters[offset / kCluster];
  if (cluster == nullptr) cluster = std::make_unique<Cluster>();
  cluster->taken[offset % kCluster / 64] |= uint64_t{1} << (offset % 64);
  ++cluster->used;
  ++used;
  if (offset == lowest) ++lowest;
}

void SwapAreas::Area::Give(uint32_t offset) {
  std::unique_ptr<Cluster>& cluster = clusters[offset / kCluster];
  cluster->taken[offset % kCluster / 64] &= ~(uint64_t{1} << (offset % 64));
  cluster->slots[offset % kCluster] = Slot();
  --used;
  lowest = std::min(lowest, offset);
  if (--cluster->used == 0) cluster.reset();
}

// scan_swap_map_slots() for disks that turn: slots one behind the other, for as many as a run has; then the first run of free ones from the
// start of the area, and where there is none the first free slot behind the last one.
size_t SwapAreas::TakeSlots(uint32_t number, size_t wanted) {
  Area& area = *areas_[number];
  size_t taken = 0;
  while (taken < wanted) {
    uint32_t offset = area.next;
    if (area.left_in_run == 0) {
      area.left_in_run = kCluster;
      if (area.pages - 1 - area.used >= kCluster) {
        const uint32_t run = area.FreeRun(area.lowest);
        offset = run < area.pages ? run : area.lowest;
      }
    }
    --area.left_in_run;
    if (offset >= area.pages) offset = area.lowest;
    offset = area.NextFree(offset);
    if (offset >= area.pages) offset = area.NextFree(area.lowest);
    if (offset >= area.pages) break;
    area.Take(offset);
    area.next = offset + 1;
    to_give_.push_back({number, offset});
    ++taken;
  }
  return taken;
}

// get_swap_pages(): a batch of slots of one area.
bool SwapAreas::Refill() {
  if (free_ == 0) FlushReturned();
  const size_t wanted = std::min<uint64_t>(kBatch, free_);
  for (size_t i = 0; wanted > 0 && i < by_priority_.size(); ++i) {
    const uint32_t number = by_priority_[i];
    // Areas of one priority take turns.
    size_t last = i;
    while (last + 1 < by_priority_.size() && areas_[by_priority_[last + 1]]->priority == areas_[number]->priority) ++last;
    if (TakeSlots(number, wanted) == 0) continue;
    std::rotate(by_priority_.begin() + static_cast<ptrdiff_t>(i), by_priority_.begin() + static_cast<ptrdiff_t>(i) + 1,
                by_priority_.begin() + static_cast<ptrdiff_t>(last) + 1);
    free_ -= to_give_.size();
    std::reverse(to_give_.begin(), to_give_.end());
    return true;
  }
  return false;
}

std::optional<SwapEntry> SwapAreas::Allocate(uint16_t memcg) {
  if (to_give_.empty() && !Refill()) return std::nullopt;
  const SwapEntry entry = to_give_.back();
  if (memcg != 0) {
    const std::optional<uint16_t> charged = memory_.charger()->ChargeSwap(memcg, 1);
    if (!charged.has_value()) return std::nullopt;
    SlotOf(entry).memcg = *charged;
  }
  to_give_.pop_back();
  return entry;
}

uint16_t SwapAreas::MemcgOf(SwapEntry entry) const {
  const Slot* slot = FindSlot(entry);
  return slot == nullptr ? 0 : slot->memcg;
}

void SwapAreas::FlushReturned() {
  for (const SwapEntry entry : returned_) {
    areas_[entry.area]->Give(entry.offset);
    if (areas_[entry.area]->writable) ++free_;
  }
  returned_.clear();
}

// free_swap_slot()
void SwapAreas::Return(SwapEntry entry) {
  Slot& slot = SlotOf(entry);
  slot.bytes.Clear();
  slot.shadow = 0;
  if (const uint16_t memcg = std::exchange(slot.memcg, uint16_t{0}); memcg != 0) memory_.charger()->UnchargeSwap(memcg, 1);
  if (returned_.size() >= kBatch) FlushReturned();
  returned_.push_back(entry);
}

SwapAreas::Slot& SwapAreas::SlotOf(SwapEntry entry) {
  MMLAB_CHECK(areas_[entry.area]->Taken(entry.offset));
  return areas_[entry.area]->clusters[entry.offset / kCluster]->slots[entry.offset % kCluster];
}

const SwapAreas::Slot* SwapAreas::FindSlot(SwapEntry entry) const {
  if (entry.area >= areas_.size() || areas_[entry.area] == nullptr) return nullptr;
  const Area& area = *areas_[entry.area];
  if (entry.offset >= area.pages || !area.Taken(entry.offset)) return nullptr;
  return &area.clusters[entry.offset / kCluster]->slots[entry.offset % kCluster];
}

uint32_t SwapAreas::CountOf(SwapEntry entry) const {
  const Slot* slot = FindSlot(entry);
  return slot == nullptr ? 0 : slot->count;
}

bool SwapAreas::InUse(SwapEntry entry) const {
  const Slot* slot = FindSlot(entry);
  return slot != nullptr && (slot->count > 0 || slot->cached != kNoFrame);
}

void SwapAreas::DropIfUnused(SwapEntry entry) {
  const Slot& slot = SlotOf(entry);
  if (slot.count == 0 && slot.cached == kNoFrame) Return(entry);
}

void SwapAreas::Free(SwapEntry entry) {
  Slot& slot = SlotOf(entry);
  MMLAB_CHECK(slot.count > 0);
  --slot.count;
  DropIfUnused(entry);
}

void SwapAreas::FreeWithCache(SwapEntry entry) {
  Free(entry);
  const Slot& slot = SlotOf(entry);
  if (slot.count > 0 || slot.cached == kNoFrame) return;
  // __try_to_reclaim_swap(): the last who could want the page is gone, unless somebody maps it.
  const Pfn pfn(slot.cached);
  Frame& frame = memory_.frame(pfn);
  if (frame.mapcount > 0 && !full()) return;
  ++frame.refcount;
  TryToFree(pfn);
  if (--frame.refcount == 0) memory_.FreePages(pfn, PageOrder(0));
}

// --- The swap cache ---

void SwapAreas::AddToCache(Pfn pfn, SwapEntry entry) {
  Frame& frame = memory_.frame(pfn);
  Slot& slot = SlotOf(entry);
  MMLAB_CHECK(slot.cached == kNoFrame && (frame.flags & kPgSwapCache) == 0);
  slot.cached = static_cast<uint32_t>(pfn.raw());
  cached_[slot.cached] = entry;
  frame.flags |= kPgSwapCache;
  ++frame.refcount;
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrSwapcached, 1);
  memory_.CountPage(vm_stat_, frame, NodeStat::kNrFilePages, 1);
}

void SwapAreas::RemoveFromCache(Pfn pfn) {
  const auto it = cached_.find(static_cast<uint32_t>(pfn.raw()));
  MMLAB_CHECK(it != cached_.end());
  const SwapEntry entry = it->second;
  cached_.erase(it);
  memory_.frame(pfn).flags &= ~uint32_t{kPgSwapCache};
  SlotOf(entry).cached = kNoFrame;
  memory_.CountPage(vm_stat_, memory_.frame(pfn), NodeStat::kNrSwapcached, -1);
  memory_.CountPage(vm_stat_, memory_.frame(pfn), NodeStat::kNrFilePages, -1);
  DropIfUnused(entry);
}

void SwapAreas::ReplacePage(Pfn from, Pfn to) {
  const SwapEntry entry = EntryOf(from);
  cached_.erase(static_cast<uint32_t>(from.raw()));
  SlotOf(entry).cached = static_cast<uint32_t>(to.raw());
  cached_[SlotOf(entry).cached] = entry;
}

std::optional<Pfn> SwapAreas::CachedPage(SwapEntry entry) const {
  const Slot* slot = FindSlot(entry);
  if (slot == nullptr || slot->cached == kNoFrame) return std::nullopt;
  return Pfn(slot->cached);
}

bool SwapAreas::TryToFree(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  if ((frame.flags & (kPgSwapCache | kPgWriteback)) != kPgSwapCache || SlotOf(EntryOf(pfn)).count > 0) return false;
  RemoveFromCache(pfn);
  MMLAB_CHECK(frame.refcount > 1);
  --frame.refcount;
  frame.flags |= kPgDirty;
  return true;
}

void SwapAreas::Evict(Pfn pfn, uint64_t shadow) {
  SlotOf(EntryOf(pfn)).shadow = shadow;
  RemoveFromCache(pfn);
  --memory_.frame(pfn).refcount;
}

void SwapAreas::Write(Pfn pfn) {
  const SwapEntry entry = EntryOf(pfn);
  SlotOf(entry).bytes = memory_.contents().Save(pfn);
  memory_.frame(pfn).flags &= ~uint32_t{kPgDirty};
  const uint64_t kib = memory_.page_size().bytes().raw() >> 10;
  vm_stat_.Count(VmEvent::kPswpout);
  vm_stat_.Count(VmEvent::kPgpgout, kib);
  // Slots that lie next to each other are one request.
  Area& area = *areas_[entry.area];
  area.after_write == entry.offset ? area.traffic->Merge(area.traffic->writes, kib) : area.traffic->Write(kib);
  area.after_write = entry.offset + 1;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kSwapOut, "the page is written to its slot")
        .Frame("pfn", pfn)
        .Text("area", areas_[entry.area]->path)
        .Number("slot", entry.offset);
  }
}

void SwapAreas::Read(SwapEntry entry, Pfn pfn) {
  memory_.contents().Restore(pfn, SlotOf(entry).bytes);
  const uint64_t kib = memory_.page_size().bytes().raw() >> 10;
  vm_stat_.Count(VmEvent::kPswpin);
  vm_stat_.Count(VmEvent::kPgpgin, kib);
  Area& area = *areas_[entry.area];
  area.after_read == entry.offset ? area.traffic->Merge(area.traffic->reads, kib) : area.traffic->Read(kib);
  area.after_read = entry.offset + 1;
}

uint32_t SwapAreas::ReadaheadWindow(SwapEntry entry, int page_cluster) {
  const uint32_t most = uint32_t{1} << std::clamp(page_cluster, 0, 31);
  if (most <= 1) return 1;
  const uint32_t hits = std::exchange(readahead_hits_, 0);
  uint32_t pages = hits + 2;
  if (hits == 0) {
    // Nothing to judge by: neighbours are worth it when the last fault was one.
    if (entry.offset != last_offset_ + 1 && entry.offset + 1 != last_offset_) pages = 1;
    last_offset_ = entry.offset;
  } else {
    pages = std::max<uint32_t>(4, std::bit_ceil(pages));
  }
  last_window_ = std::max(std::min(pages, most), last_window_ / 2);
  return last_window_;
}

// --- What is always true ---

void SwapAreas::CheckInvariants(const SwapCounts& counts, std::vector<std::string>* violations) const {
  uint64_t cached = 0;
  uint64_t referred = 0;
  uint64_t idle = 0;
  uint64_t free = 0;
  for (size_t number = 0; number < areas_.size(); ++number) {
    if (areas_[number] == nullptr) continue;
    const Area& area = *areas_[number];
    uint64_t used = 0;
    for (uint32_t offset = 1; offset < area.pages; ++offset) {
      if (area.clusters[offset / kCluster] == nullptr) {
        offset |= kCluster - 1;
        continue;
      }
      if (!area.Taken(offset)) continue;
      ++used;
      const Slot& slot = area.clusters[offset / kCluster]->slots[offset % kCluster];
      const auto it = counts.find({static_cast<uint32_t>(number), offset});
      const uint32_t counted = it == counts.end() ? 0 : it->second;
      referred += it == counts.end() ? 0 : 1;
      if (counted != slot.count) {
        violations->push_back(
            absl::StrCat("slot ", offset, " of ", area.path, " is counted ", slot.count, " times, referred to by ", counted));
      }
      if (slot.cached != kNoFrame) ++cached;
      if (slot.count == 0 && slot.cached == kNoFrame) ++idle;
    }
    if (used != area.used)
      violations->push_back(absl::StrCat("swap area ", area.path, " counts ", area.used, " slots, ", used, " are taken"));
    if (area.writable) free += area.pages - 1 - used;
  }
  if (cached != cached_.size() || referred != counts.size() || idle != to_give_.size() + returned_.size() || free != free_ ||
      vm_stat_.Get(NodeStat::kNrSwapcached) != static_cast<int64_t>(cached)) {
    violations->push_back(absl::StrCat("swap: ", free, " slots are free (", free_, "), ", cached, " cached (", cached_.size(), "), ",
                                       referred, " referred to (", counts.size(), "), ", idle, " in no use (",
                                       to_give_.size() + returned_.size(), ")"));
  }
}

void SwapAreas::AddToHash(StateHasher& hasher) const {
  for (size_t number = 0; number < areas_.size(); ++number) {
    if (areas_[number] == nullptr) continue;
    const Area& area = *areas_[number];
    hasher.Add(number);
    hasher.AddBytes(area.path.data(), area.path.size());
    for (const uint64_t value :
         {uint64_t{area.pages}, static_cast<uint64_t>(area.priority), uint64_t{area.next}, uint64_t{area.left_in_run}}) {
      hasher.Add(value);
    }
    for (size_t c = 0; c < area.clusters.size(); ++c) {
      if (area.clusters[c] == nullptr) continue;
      hasher.Add(c);
      for (const uint64_t word : area.clusters[c]->taken) hasher.Add(word);
      for (const Slot& slot : area.clusters[c]->slots) {
        hasher.Add(uint64_t{slot.count} << 32 | slot.cached);
        hasher.Add(slot.shadow);
        hasher.Add(slot.memcg);
        slot.bytes.AddToHash(memory_.page_size(), hasher);
      }
    }
  }
  for (const uint32_t number : by_priority_) hasher.Add(number);
  for (const std::vector<SwapEntry>* list : {&to_give_, &returned_}) {
    for (const SwapEntry entry : *list) hasher.Add(entry.raw());
  }
  for (const uint64_t value : {free_, static_cast<uint64_t>(least_priority_), uint64_t{readahead_hits_}, uint64_t{last_offset_},
                               uint64_t{last_window_}, vma_readahead_ ? uint64_t{1} : 0}) {
    hasher.Add(value);
  }
}

uint64_t SwapAreas::HostMemory() const {
  uint64_t bytes = (areas_.capacity() + to_give_.capacity() + returned_.capacity()) * sizeof(void*) + cached_.capacity() * 16;
  for (const std::unique_ptr<Area>& area : areas_) {
    if (area == nullptr) continue;
    bytes += sizeof(Area) + area->clusters.capacity() * sizeof(void*);
    for (const std::unique_ptr<Cluster>& cluster : area->clusters) {
      if (cluster == nullptr) continue;
      bytes += sizeof(Cluster);
      for (const Slot& slot : cluster->slots) bytes += slot.bytes.HostMemory(memory_.page_size());
    }
  }
  return bytes;
}

}  // namespace mmlab

#include "server/physical/lru_lists.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/explanation.h"

namespace mmlab {
namespace {

constexpr uint32_t kListFlags = kPgUnevictable | kPgActive | kPgSwapBacked;

}  // namespace

uint64_t Lruvec::Pages(LruKind kind, int highest_zone) const {
  uint64_t pages = 0;
  for (int zone = 0; zone <= highest_zone; ++zone) pages += zone_pages[static_cast<size_t>(kind)][static_cast<size_t>(zone)];
  return pages;
}

LruLists::LruLists(FreeLists& frames, VmStat& vm_stat, const Tracer* tracer) : frames_(frames), vm_stat_(vm_stat), tracer_(tracer) {
  made_.emplace_back();
  lruvecs_.push_back(&root_);
}

void LruLists::LinkTail(FrameList& list, uint32_t pfn, Frame& frame) {
  frame.next = kNoFrame;
  frame.prev = list.tail;
  (list.tail == kNoFrame ? list.head : frames_.table().At(list.tail).next) = pfn;
  list.tail = pfn;
  ++list.count;
}

void LruLists::Add(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  MMLAB_CHECK((frame.flags & kPgLru) == 0);
  frame.flags |= kPgLru;
  if (generations_enabled_ && (frame.flags & kPgUnevictable) == 0) [[unlikely]]
    return AddToGeneration(*lruvecs_[frame.memcg], pfn, false);
  const LruKind kind = KindOf(frame);
  if (kind != LruKind::kUnevictable) LinkHead(lruvecs_[frame.memcg]->list(kind), static_cast<uint32_t>(pfn.raw()), frame);
  Count(frame, kind, 1);
}

void LruLists::AddTail(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  if (generations_enabled_ && (frame.flags & kPgUnevictable) == 0) {
    frame.flags |= kPgLru;
    return AddToGeneration(*lruvecs_[frame.memcg], pfn, true);
  }
  Add(pfn);
  RotateToTail(pfn);
}

void LruLists::Remove(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  MMLAB_CHECK((frame.flags & kPgLru) != 0);
  if (GenerationOf(frame) >= 0) [[unlikely]]
    return RemoveFromGeneration(pfn, false);
  const LruKind kind = KindOf(frame);
  if (kind != LruKind::kUnevictable) Unlink(lruvecs_[frame.memcg]->list(kind), static_cast<uint32_t>(pfn.raw()), frame);
  Count(frame, kind, -1);
  frame.flags &= ~uint32_t{kPgLru};
}

uint64_t LruLists::Isolate(Lruvec& lruvec, LruKind kind, uint64_t pages, int highest_zone, std::vector<Pfn>& taken) {
  FrameList& list = lruvec.list(kind);
  const uint32_t all = list.count;
  uint64_t skipped = 0;
  std::array<int64_t, kZones> of_zone{};
  for (uint32_t looked = 0; looked < all && taken.size() < pages; ++looked) {
    const uint32_t pfn = list.tail;
    Frame& frame = frames_.table().At(pfn);
    if (frame.zone > highest_zone) [[unlikely]] {
      constexpr auto kFirst = static_cast<int>(VmEvent::kPgskipDma);
      vm_stat_.Count(static_cast<VmEvent>(kFirst + static_cast<int>(frames_.zones()[frame.zone].type)));
      RotateToHead(Pfn(pfn));
      ++skipped;
      continue;
    }
    Unlink(list, pfn, frame);
    of_zone[frame.zone] += CompoundPages(frame);
    frame.flags &= ~uint32_t{kPgLru};
    ++frame.refcount;
    taken.push_back(Pfn(pfn));
  }
  for (size_t zone = 0; zone < kZones; ++zone) {
    if (of_zone[zone] > 0) CountPages(lruvec, kind, zone, -of_zone[zone]);
  }
  return skipped;
}

void LruLists::ChangeFlags(Pfn pfn, uint32_t set, uint32_t clear) {
  Frame& frame = this->frame(pfn);
  // A page of a young generation counts as active, though it does not say so.
  const bool moves =
      (((frame.flags | set) & ~clear) & kListFlags) != (frame.flags & kListFlags) || (GenerationOf(frame) >= 0 && (clear & kPgActive) != 0);
  const bool listed = (frame.flags & kPgLru) != 0 && moves;
  if (listed) Remove(pfn);
  frame.flags = (frame.flags | set) & ~clear;
  if (listed) Add(pfn);
}

void LruLists::SplitCompound(Pfn head, uint32_t pages) {
  const auto first = static_cast<uint32_t>(head.raw());
  Frame& whole = frame(head);
  const LruKind kind = KindOf(whole);
  Lruvec& lruvec = *lruvecs_[whole.memcg];
  const int place = GenerationOf(whole);
  const size_t of_file = IsFile(kind) ? 1 : 0;
  FrameList& list = place >= 0 ? lruvec.generations->lists[static_cast<size_t>(place)][of_file][whole.zone] : lruvec.list(kind);
  // Each tail goes directly before the head, from the last one on: the counts stay what they were.
  for (uint32_t i = pages - 1; i > 0; --i) {
    Frame& tail = frame(Pfn(first + i));
    tail.flags |= kPgLru | (whole.flags & (kPgGenerationMask | kPgRefsMask));
    if (kind == LruKind::kUnevictable) continue;
    tail.prev = whole.prev;
    tail.next = first;
    (whole.prev == kNoFrame ? list.head : frames_.table().At(whole.prev).next) = first + i;
    whole.prev = first + i;
    ++list.count;
  }
}

void LruLists::MarkAccessed(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  if ((frame.flags & kPgReferenced) == 0) {
    frame.flags |= kPgReferenced;
    return;
  }
  if (generations_enabled_ && (frame.flags & kPgUnevictable) == 0) {
    // folio_inc_refs()
    if ((frame.flags & kPgWorkingset) == 0) {
      frame.flags |= kPgWorkingset;
    } else if ((frame.flags & kPgRefsMask) != kPgRefsMask) {
      frame.flags += 1u << kPgRefsShift;
    }
    return;
  }
  if ((frame.flags & (kPgUnevictable | kPgActive)) != 0) return;
  if ((frame.flags & kPgLru) != 0) Count(frame.memcg, VmEvent::kPgactivate);
  AgeNonresident(frame.memcg);
  ChangeFlags(pfn, kPgActive, kPgReferenced);
}

void LruLists::RotateToHead(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  FrameList& list = lruvecs_[frame.memcg]->list(KindOf(frame));
  Unlink(list, static_cast<uint32_t>(pfn.raw()), frame);
  LinkHead(list, static_cast<uint32_t>(pfn.raw()), frame);
}

void LruLists::RotateToTail(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  if (GenerationOf(frame) >= 0) {
    RemoveFromGeneration(pfn, true);
    return AddTail(pfn);
  }
  const LruKind kind = KindOf(frame);
  if (kind == LruKind::kUnevictable) return;
  FrameList& list = lruvecs_[frame.memcg]->list(kind);
  Unlink(list, static_cast<uint32_t>(pfn.raw()), frame);
  LinkTail(list, static_cast<uint32_t>(pfn.raw()), frame);
}

void LruLists::RotateReclaimable(Pfn pfn) {
  const Frame& frame = this->frame(pfn);
  if ((frame.flags & (kPgLru | kPgDirty | kPgUnevictable)) != kPgLru) return;
  ChangeFlags(pfn, 0, kPgActive);
  RotateToTail(pfn);
  vm_stat_.Count(VmEvent::kPgrotated);
}

std::vector<uint16_t> LruLists::Numbers() const {
  std::vector<uint16_t> numbers;
  for (size_t i = 0; i < lruvecs_.size(); ++i) {
    if (lruvecs_[i] != nullptr) numbers.push_back(static_cast<uint16_t>(i));
  }
  return numbers;
}

void LruLists::Make(uint16_t memcg, uint16_t parent) {
  if (memcg >= lruvecs_.size()) {
    lruvecs_.resize(size_t{memcg} + 1, nullptr);
    made_.resize(lruvecs_.size());
  }
  MMLAB_CHECK(lruvecs_[memcg] == nullptr);
  made_[memcg] = std::make_unique<Made>();
  made_[memcg]->kernel_owner = memcg;
  Lruvec& lruvec = made_[memcg]->lruvec;
  lruvec.memcg = memcg;
  lruvec.parent = parent;
  lruvec.made = now();
  lruvecs_[memcg] = &lruvec;
  lruvecs_[parent]->children.push_back(memcg);
  if (generations_enabled_) FillGenerations(lruvec);
}

uint64_t LruLists::TreePages(uint16_t memcg, LruKind kind) const {
  if (memcg == 0) return static_cast<uint64_t>(vm_stat_.Get(NodeStatOf(kind)));
  uint64_t pages = lruvecs_[memcg]->Pages(kind);
  for (const uint16_t child : lruvecs_[memcg]->children) pages += TreePages(child, kind);
  return pages;
}

void LruLists::Drop(uint16_t memcg) {
  MMLAB_CHECK(memcg != 0 && memcg < lruvecs_.size() && lruvecs_[memcg] != nullptr && lruvecs_[memcg]->children.empty());
  for (int kind = 0; kind < kLruKinds; ++kind) MMLAB_CHECK(lruvecs_[memcg]->Pages(static_cast<LruKind>(kind)) == 0);
  std::vector<uint16_t>& siblings = lruvecs_[lruvecs_[memcg]->parent]->children;
  siblings.erase(std::find(siblings.begin(), siblings.end(), memcg));
  lruvecs_[memcg] = nullptr;
  made_[memcg].reset();
}

void LruLists::MoveKernelStats(uint16_t from, uint16_t to) {
  constexpr NodeStat kOfKernel[] = {NodeStat::kNrPageTablePages, NodeStat::kNrKernelStack, NodeStat::kNrSlabReclaimable,
                                    NodeStat::kNrSlabUnreclaimable};
  for (const NodeStat item : kOfKernel) {
    const int64_t pages = made_[from]->stat.Get(item);
    made_[from]->stat.Add(item, -pages);
    if (to != 0) made_[to]->stat.Add(item, pages);
  }
  for (const std::unique_ptr<Made>& made : made_) {
    if (made != nullptr && made->kernel_owner == from) made->kernel_owner = to;
  }
}

void LruLists::Recharge(Pfn pfn, uint16_t memcg) {
  Frame& frame = this->frame(pfn);
  const bool listed = (frame.flags & kPgLru) != 0;
  const uint32_t locks = frame.prev;
  if (listed) Remove(pfn);
  frame.memcg = memcg;
  if (listed) Add(pfn);
  if ((frame.flags & kPgUnevictable) != 0) frame.prev = locks;
}

uint64_t LruLists::SumOfZones(ZoneStat item) const {
  uint64_t sum = 0;
  for (const Zone& zone : frames_.zones()) sum += zone.stat(item);
  return sum;
}

void LruLists::CheckInvariants(std::vector<std::string>* problems) const {
  std::array<std::array<int64_t, kZones>, kLruKinds> sums{};
  for (size_t number = 0; number < lruvecs_.size(); ++number) {
    if (lruvecs_[number] == nullptr) continue;
    const Lruvec& lruvec = *lruvecs_[number];
    if ((lruvec.generations != nullptr) != generations_enabled_) problems->push_back(absl::StrCat("generations of ", number, " differ"));
    if (lruvec.generations != nullptr) CheckGenerations(lruvec, problems);
    for (size_t kind = 0; kind < kLruKinds; ++kind) {
      std::array<uint32_t, kZones> counted{};
      uint32_t before = kNoFrame;
      uint32_t count = 0;
      for (uint32_t pfn = lruvec.lists[kind].head; pfn != kNoFrame && count <= lruvec.lists[kind].count; ++count) {
        const Frame frame = frames_.Peek(pfn);
        if ((frame.flags & kPgLru) == 0 || KindOf(frame) != static_cast<LruKind>(kind) || frame.memcg != number || frame.prev != before ||
            frame.state <= FrameState::kPcp) {
          problems->push_back(absl::StrCat("frame ", pfn, " does not belong on LRU list ", kind, " of ", number));
        }
        counted[frame.zone] += CompoundPages(frame);
        before = pfn;
        pfn = frame.next;
      }
      if (generations_enabled_ && count > 0)
        problems->push_back(absl::StrCat("LRU list ", kind, " of ", number, " is used beside generations"));
      if (count != lruvec.lists[kind].count || before != lruvec.lists[kind].tail) {
        problems->push_back(absl::StrCat("LRU list ", kind, " of ", number, " does not have the length it says"));
      }
      for (size_t zone = 0; zone < kZones; ++zone) {
        sums[kind][zone] += lruvec.zone_pages[kind][zone];
        const bool listed = kind != static_cast<size_t>(LruKind::kUnevictable) && !generations_enabled_;
        if (listed && counted[zone] != lruvec.zone_pages[kind][zone]) {
          problems->push_back(absl::StrCat("LRU list ", kind, " of ", number, " has a wrong count for zone ", zone));
        }
      }
    }
  }
  for (size_t kind = 0; kind < kLruKinds; ++kind) {
    int64_t node = 0;
    for (size_t zone = 0; zone < kZones; ++zone) {
      node += sums[kind][zone];
      if (frames_.zones()[zone].stats[static_cast<size_t>(ZoneStatOf(static_cast<LruKind>(kind)))] != sums[kind][zone]) {
        problems->push_back(absl::StrCat("zone ", zone, ": its counter of LRU list ", kind, " is wrong"));
      }
    }
    if (vm_stat_.Get(NodeStatOf(static_cast<LruKind>(kind))) != node)
      problems->push_back(absl::StrCat("the counter of LRU list ", kind, " is wrong"));
  }
}

void LruLists::StateHash(StateHasher& hasher) const {
  for (size_t number = 0; number < lruvecs_.size(); ++number) {
    if (lruvecs_[number] == nullptr) continue;
    const Lruvec& lruvec = *lruvecs_[number];
    hasher.Add(number);
    for (const FrameList& list : lruvec.lists) hasher.Add(uint64_t{list.head} << 32 | list.tail);
    for (const uint64_t value : {lruvec.nonresident_age, lruvec.anon_cost, lruvec.file_cost, lruvec.activations[0], lruvec.activations[1],
                                 lruvec.refaults[0], lruvec.refaults[1]}) {
      hasher.Add(value);
    }
    if (lruvec.generations != nullptr) HashGenerations(*lruvec.generations, hasher);
    if (number == 0) continue;
    made_[number]->stat.StateHash(hasher);
    hasher.Add(made_[number]->kernel_owner);
  }
}

uint64_t LruLists::HostMemory() const {
  const size_t number = Numbers().size();
  return lruvecs_.capacity() * sizeof(void*) + made_.capacity() * sizeof(void*) + (number - 1) * (sizeof(Made) + sizeof(uint16_t)) +
         (generations_enabled_ ? number * sizeof(LruGenerations) : 0);
}

}  // namespace mmlab

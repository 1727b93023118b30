#include "server/physical/lru_lists.h"

#include "absl/strings/str_cat.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

// The counters of a zone and of the node stand in the order of LruKind.
ZoneStat ZoneStatOf(LruKind kind) {
  return static_cast<ZoneStat>(static_cast<uint8_t>(ZoneStat::kNrZoneInactiveAnon) + static_cast<uint8_t>(kind));
}
NodeStat NodeStatOf(LruKind kind) {
  return static_cast<NodeStat>(static_cast<uint8_t>(NodeStat::kNrInactiveAnon) + static_cast<uint8_t>(kind));
}
constexpr uint32_t kListFlags = kPgUnevictable | kPgActive | kPgSwapBacked;

}  // namespace

uint64_t Lruvec::Pages(LruKind kind, int highest_zone) const {
  uint64_t pages = 0;
  for (int zone = 0; zone <= highest_zone; ++zone) pages += zone_pages[static_cast<size_t>(kind)][static_cast<size_t>(zone)];
  return pages;
}

LruLists::LruLists(FreeLists& frames, VmStat& vm_stat) : frames_(frames), vm_stat_(vm_stat) {
  made_.emplace_back();
  lruvecs_.push_back(&root_);
}

LruKind LruLists::KindOf(const Frame& frame) {
  if ((frame.flags & kPgUnevictable) != 0) return LruKind::kUnevictable;
  const bool active = (frame.flags & kPgActive) != 0;
  if ((frame.flags & kPgSwapBacked) != 0) return active ? LruKind::kActiveAnon : LruKind::kInactiveAnon;
  return active ? LruKind::kActiveFile : LruKind::kInactiveFile;
}

void LruLists::Count(const Frame& frame, LruKind kind, int sign) {
  const int delta = sign * static_cast<int>(CompoundPages(frame));
  lruvecs_[frame.memcg]->zone_pages[static_cast<size_t>(kind)][frame.zone] += static_cast<uint32_t>(delta);
  frames_.zones()[frame.zone].stats[static_cast<size_t>(ZoneStatOf(kind))] += delta;
  vm_stat_.Add(NodeStatOf(kind), delta);
}

void LruLists::LinkHead(FrameList& list, uint32_t pfn, Frame& frame) {
  frame.prev = kNoFrame;
  frame.next = list.head;
  (list.head == kNoFrame ? list.tail : frames_.table().At(list.head).prev) = pfn;
  list.head = pfn;
  ++list.count;
}

void LruLists::LinkTail(FrameList& list, uint32_t pfn, Frame& frame) {
  frame.next = kNoFrame;
  frame.prev = list.tail;
  (list.tail == kNoFrame ? list.head : frames_.table().At(list.tail).next) = pfn;
  list.tail = pfn;
  ++list.count;
}

void LruLists::Unlink(FrameList& list, uint32_t pfn, Frame& frame) {
  MMLAB_CHECK(list.count > 0 && (frame.prev != kNoFrame || list.head == pfn));
  (frame.prev == kNoFrame ? list.head : frames_.table().At(frame.prev).next) = frame.next;
  (frame.next == kNoFrame ? list.tail : frames_.table().At(frame.next).prev) = frame.prev;
  frame.next = frame.prev = kNoFrame;
  --list.count;
}

void LruLists::Add(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  MMLAB_CHECK((frame.flags & kPgLru) == 0);
  frame.flags |= kPgLru;
  const LruKind kind = KindOf(frame);
  if (kind != LruKind::kUnevictable) LinkHead(lruvecs_[frame.memcg]->list(kind), static_cast<uint32_t>(pfn.raw()), frame);
  Count(frame, kind, 1);
}

void LruLists::AddTail(Pfn pfn) {
  Add(pfn);
  RotateToTail(pfn);
}

void LruLists::Remove(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  MMLAB_CHECK((frame.flags & kPgLru) != 0);
  const LruKind kind = KindOf(frame);
  if (kind != LruKind::kUnevictable) Unlink(lruvecs_[frame.memcg]->list(kind), static_cast<uint32_t>(pfn.raw()), frame);
  Count(frame, kind, -1);
  frame.flags &= ~uint32_t{kPgLru};
}

void LruLists::ChangeFlags(Pfn pfn, uint32_t set, uint32_t clear) {
  Frame& frame = this->frame(pfn);
  const bool listed = (frame.flags & kPgLru) != 0 && (((frame.flags | set) & ~clear) & kListFlags) != (frame.flags & kListFlags);
  if (listed) Remove(pfn);
  frame.flags = (frame.flags | set) & ~clear;
  if (listed) Add(pfn);
}

void LruLists::SplitCompound(Pfn head, uint32_t pages) {
  const auto first = static_cast<uint32_t>(head.raw());
  Frame& whole = frame(head);
  const LruKind kind = KindOf(whole);
  FrameList& list = lruvecs_[whole.memcg]->list(kind);
  // Each tail goes directly before the head, from the last one on: the counts stay what they were.
  for (uint32_t i = pages - 1; i > 0; --i) {
    Frame& tail = frame(Pfn(first + i));
    tail.flags |= kPgLru;
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
  if ((frame.flags & (kPgUnevictable | kPgActive)) != 0) return;
  if ((frame.flags & kPgLru) != 0) vm_stat_.Count(VmEvent::kPgactivate);
  ++lruvecs_[frame.memcg]->nonresident_age;
  ChangeFlags(pfn, kPgActive, kPgReferenced);
}

uint64_t LruLists::NoteEviction(Pfn pfn) {
  const Frame& frame = this->frame(pfn);
  Lruvec& lruvec = *lruvecs_[frame.memcg];
  // The clock of the cgroup that was charged, its number, and whether the page had once been active.
  return ++lruvec.nonresident_age << 17 | uint64_t{frame.memcg} << 1 | ((frame.flags & kPgWorkingset) != 0 ? 1 : 0);
}

void LruLists::NoteRefault(Pfn pfn, uint64_t shadow, bool swap_space) {
  Frame& frame = this->frame(pfn);
  const bool file = (frame.flags & kPgSwapBacked) == 0;
  const auto of_file = [file](NodeStat anon) { return static_cast<NodeStat>(static_cast<uint8_t>(anon) + (file ? 1 : 0)); };
  const auto evicted_of = static_cast<size_t>(shadow >> 1 & 0xffff);
  if (evicted_of >= lruvecs_.size() || lruvecs_[evicted_of] == nullptr) return;
  const Lruvec& evicted = *lruvecs_[evicted_of];
  vm_stat_.Add(of_file(NodeStat::kWorkingsetRefaultAnon), 1);
  uint64_t workingset = evicted.Pages(LruKind::kActiveFile);
  if (!file) workingset += evicted.Pages(LruKind::kInactiveFile);
  if (swap_space) {
    workingset += evicted.Pages(LruKind::kActiveAnon);
    if (file) workingset += evicted.Pages(LruKind::kInactiveAnon);
  }
  if (evicted.nonresident_age - (shadow >> 17) > workingset) return;
  frame.flags |= kPgActive;
  ++lruvecs_[frame.memcg]->nonresident_age;
  vm_stat_.Add(of_file(NodeStat::kWorkingsetActivateAnon), 1);
  if ((shadow & 1) == 0) return;
  frame.flags |= kPgWorkingset;
  vm_stat_.Add(of_file(NodeStat::kWorkingsetRestoreAnon), 1);
}

void LruLists::RotateToHead(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  FrameList& list = lruvecs_[frame.memcg]->list(KindOf(frame));
  Unlink(list, static_cast<uint32_t>(pfn.raw()), frame);
  LinkHead(list, static_cast<uint32_t>(pfn.raw()), frame);
}

void LruLists::RotateToTail(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  const LruKind kind = KindOf(frame);
  if (kind == LruKind::kUnevictable) return;
  FrameList& list = lruvecs_[frame.memcg]->list(kind);
  Unlink(list, static_cast<uint32_t>(pfn.raw()), frame);
  LinkTail(list, static_cast<uint32_t>(pfn.raw()), frame);
}

std::vector<uint16_t> LruLists::Numbers() const {
  std::vector<uint16_t> numbers;
  for (size_t i = 0; i < lruvecs_.size(); ++i) {
    if (lruvecs_[i] != nullptr) numbers.push_back(static_cast<uint16_t>(i));
  }
  return numbers;
}

void LruLists::Make(uint16_t memcg) {
  if (memcg >= lruvecs_.size()) {
    lruvecs_.resize(size_t{memcg} + 1, nullptr);
    made_.resize(lruvecs_.size());
  }
  MMLAB_CHECK(lruvecs_[memcg] == nullptr);
  made_[memcg] = std::make_unique<Lruvec>();
  lruvecs_[memcg] = made_[memcg].get();
}

void LruLists::Drop(uint16_t memcg) {
  MMLAB_CHECK(memcg != 0 && memcg < lruvecs_.size() && lruvecs_[memcg] != nullptr);
  for (int kind = 0; kind < kLruKinds; ++kind) MMLAB_CHECK(lruvecs_[memcg]->Pages(static_cast<LruKind>(kind)) == 0);
  lruvecs_[memcg] = nullptr;
  made_[memcg].reset();
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

void LruLists::CheckInvariants(std::vector<std::string>* problems) const {
  std::array<std::array<int64_t, kZones>, kLruKinds> sums{};
  for (size_t number = 0; number < lruvecs_.size(); ++number) {
    if (lruvecs_[number] == nullptr) continue;
    const Lruvec& lruvec = *lruvecs_[number];
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
      if (count != lruvec.lists[kind].count || before != lruvec.lists[kind].tail) {
        problems->push_back(absl::StrCat("LRU list ", kind, " of ", number, " does not have the length it says"));
      }
      for (size_t zone = 0; zone < kZones; ++zone) {
        sums[kind][zone] += lruvec.zone_pages[kind][zone];
        if (kind != static_cast<size_t>(LruKind::kUnevictable) && counted[zone] != lruvec.zone_pages[kind][zone]) {
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
    hasher.Add(lruvec.nonresident_age);
  }
}

uint64_t LruLists::HostMemory() const {
  return lruvecs_.capacity() * sizeof(void*) + made_.capacity() * sizeof(void*) + (Numbers().size() - 1) * sizeof(Lruvec);
}

}  // namespace mmlab

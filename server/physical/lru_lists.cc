#include "server/physical/lru_lists.h"

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/explanation.h"

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

LruLists::LruLists(FreeLists& frames, VmStat& vm_stat, const Tracer* tracer) : frames_(frames), vm_stat_(vm_stat), tracer_(tracer) {
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
  if ((frame.flags & kPgLru) != 0) Count(frame.memcg, VmEvent::kPgactivate);
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
  AddStat(frame, of_file(NodeStat::kWorkingsetRefaultAnon), 1);
  if (evicted_of >= lruvecs_.size() || lruvecs_[evicted_of] == nullptr) return;
  const Lruvec& evicted = *lruvecs_[evicted_of];
  // What it had to fit in: pages whose place it could have taken, had it stayed.
  uint64_t workingset = evicted.Pages(LruKind::kActiveFile);
  if (!file) workingset += evicted.Pages(LruKind::kInactiveFile);
  if (swap_space) {
    workingset += evicted.Pages(LruKind::kActiveAnon);
    if (file) workingset += evicted.Pages(LruKind::kInactiveAnon);
  }
  const uint64_t distance = evicted.nonresident_age - (shadow >> 17);
  const bool activated = distance <= workingset;
  if (Explanation* why = tracer_ == nullptr ? nullptr : tracer_->explanation()) {
    why->Add(StepKind::kRefault, activated ? "the page came back within the working set: it is active at once"
                                           : "the page was away for longer than the working set could have held it: it starts inactive")
        .Frame("pfn", pfn)
        .Pages("distance", static_cast<int64_t>(distance))
        .Pages("workingset", static_cast<int64_t>(workingset))
        .Truth("activated", activated);
  }
  if (!activated) return;
  frame.flags |= kPgActive;
  Lruvec& lruvec = *lruvecs_[frame.memcg];
  ++lruvec.nonresident_age;
  ++lruvec.activations[file ? 1 : 0];
  if (&lruvec != &root_) ++root_.activations[file ? 1 : 0];
  AddStat(frame, of_file(NodeStat::kWorkingsetActivateAnon), 1);
  if ((shadow & 1) == 0) return;
  frame.flags |= kPgWorkingset;
  NoteCost(frame.memcg, file, 1);
  AddStat(frame, of_file(NodeStat::kWorkingsetRestoreAnon), 1);
}

void LruLists::NoteCost(uint16_t memcg, bool file, uint64_t pages) {
  const auto note = [&](Lruvec& lruvec) {
    (file ? lruvec.file_cost : lruvec.anon_cost) += pages;
    uint64_t size = 0;
    for (const LruKind kind : {LruKind::kInactiveAnon, LruKind::kActiveAnon, LruKind::kInactiveFile, LruKind::kActiveFile}) {
      size += lruvec.Pages(kind);
    }
    // What is long ago counts for less and less.
    if (lruvec.file_cost + lruvec.anon_cost <= size / 4) return;
    lruvec.file_cost /= 2;
    lruvec.anon_cost /= 2;
  };
  note(*lruvecs_[memcg]);
  if (memcg != 0) note(root_);
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

void LruLists::Make(uint16_t memcg) {
  if (memcg >= lruvecs_.size()) {
    lruvecs_.resize(size_t{memcg} + 1, nullptr);
    made_.resize(lruvecs_.size());
  }
  MMLAB_CHECK(lruvecs_[memcg] == nullptr);
  made_[memcg] = std::make_unique<Made>();
  made_[memcg]->kernel_owner = memcg;
  made_[memcg]->lruvec.memcg = memcg;
  lruvecs_[memcg] = &made_[memcg]->lruvec;
}

void LruLists::Drop(uint16_t memcg) {
  MMLAB_CHECK(memcg != 0 && memcg < lruvecs_.size() && lruvecs_[memcg] != nullptr);
  for (int kind = 0; kind < kLruKinds; ++kind) MMLAB_CHECK(lruvecs_[memcg]->Pages(static_cast<LruKind>(kind)) == 0);
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
    for (const uint64_t value : {lruvec.nonresident_age, lruvec.anon_cost, lruvec.file_cost, lruvec.activations[0], lruvec.activations[1],
                                 lruvec.refaults[0], lruvec.refaults[1]}) {
      hasher.Add(value);
    }
    if (number == 0) continue;
    made_[number]->stat.StateHash(hasher);
    hasher.Add(made_[number]->kernel_owner);
  }
}

uint64_t LruLists::HostMemory() const {
  return lruvecs_.capacity() * sizeof(void*) + made_.capacity() * sizeof(void*) + (Numbers().size() - 1) * sizeof(Made);
}

}  // namespace mmlab

// Generations of pages, kept. Linux: the MGLRU parts of mm/vmscan.c and include/linux/mm_inline.h.
#include "server/physical/lru_generations.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/physical/lru_lists.h"

namespace mmlab {
namespace {

size_t KindOfPage(const Frame& frame) { return (frame.flags & kPgSwapBacked) != 0 ? 0 : 1; }

void SetGeneration(Frame& frame, size_t place) {
  frame.flags = (frame.flags & ~kPgGenerationMask) | static_cast<uint32_t>(place + 1) << kPgGenerationShift;
}

}  // namespace

uint64_t LruGenerations::Pages(uint64_t seq, int kind) const {
  uint64_t sum = 0;
  for (const uint32_t of_zone : pages[PlaceOf(seq)][static_cast<size_t>(kind)]) sum += of_zone;
  return sum;
}

LruKind LruLists::CountedAs(const Frame& frame) const {
  const bool active = lruvecs_[frame.memcg]->generations->IsActive(static_cast<size_t>(GenerationOf(frame)));
  if (KindOfPage(frame) == 0) return active ? LruKind::kActiveAnon : LruKind::kInactiveAnon;
  return active ? LruKind::kActiveFile : LruKind::kInactiveFile;
}

// lru_gen_add_folio(). What is hot is young; what cannot go yet is in the second youngest generation; what is to go next in the oldest.
void LruLists::AddToGeneration(Lruvec& lruvec, Pfn pfn, bool reclaiming) {
  Frame& frame = this->frame(pfn);
  MMLAB_CHECK(GenerationOf(frame) < 0);
  LruGenerations& generations = *lruvec.generations;
  const size_t kind = KindOfPage(frame);
  const bool waits = (frame.flags & kPgReclaim) != 0 && (frame.flags & (kPgDirty | kPgWriteback)) != 0;
  uint64_t seq = generations.min_seq[kind];
  if ((frame.flags & kPgActive) != 0) {
    seq = generations.max_seq;
  } else if ((kind == 0 && (frame.flags & kPgSwapCache) == 0) || waits) {
    seq = generations.max_seq - 1;
  } else if (!reclaiming && generations.min_seq[kind] + kMinGenerations < generations.max_seq) {
    ++seq;
  }
  const size_t place = LruGenerations::PlaceOf(seq);
  frame.flags &= ~uint32_t{kPgActive};
  SetGeneration(frame, place);
  generations.pages[place][kind][frame.zone] += CompoundPages(frame);
  FrameList& list = generations.lists[place][kind][frame.zone];
  const auto raw = static_cast<uint32_t>(pfn.raw());
  reclaiming ? LinkTail(list, raw, frame) : LinkHead(list, raw, frame);
  Count(frame, CountedAs(frame), 1);
}

// lru_gen_del_folio(). A page that counted as active says so, unless reclaim takes it.
void LruLists::RemoveFromGeneration(Pfn pfn, bool reclaiming) {
  Frame& frame = this->frame(pfn);
  LruGenerations& generations = *lruvecs_[frame.memcg]->generations;
  const auto place = static_cast<size_t>(GenerationOf(frame));
  const size_t kind = KindOfPage(frame);
  Count(frame, CountedAs(frame), -1);
  generations.pages[place][kind][frame.zone] -= CompoundPages(frame);
  Unlink(generations.lists[place][kind][frame.zone], static_cast<uint32_t>(pfn.raw()), frame);
  frame.flags &= ~uint32_t{kPgGenerationMask | kPgLru};
  if (!reclaiming && generations.IsActive(place)) frame.flags |= kPgActive;
}

void LruLists::RemoveForReclaim(Pfn pfn) { RemoveFromGeneration(pfn, true); }

void LruLists::MoveToGeneration(Pfn pfn, size_t place, bool tail) {
  Frame& frame = this->frame(pfn);
  LruGenerations& generations = *lruvecs_[frame.memcg]->generations;
  const size_t kind = KindOfPage(frame);
  const auto old = static_cast<size_t>(GenerationOf(frame));
  const auto raw = static_cast<uint32_t>(pfn.raw());
  Unlink(generations.lists[old][kind][frame.zone], raw, frame);
  generations.pages[old][kind][frame.zone] -= CompoundPages(frame);
  Count(frame, CountedAs(frame), -1);
  SetGeneration(frame, place);
  Count(frame, CountedAs(frame), 1);
  generations.pages[place][kind][frame.zone] += CompoundPages(frame);
  FrameList& list = generations.lists[place][kind][frame.zone];
  tail ? LinkTail(list, raw, frame) : LinkHead(list, raw, frame);
}

// The kernel moves a promoted page when it meets it in its old place.
void LruLists::Promote(Pfn pfn) {
  Frame& frame = this->frame(pfn);
  if (GenerationOf(frame) < 0) {
    frame.flags |= kPgReferenced;
    return;
  }
  const size_t place = LruGenerations::PlaceOf(lruvecs_[frame.memcg]->generations->max_seq);
  frame.flags &= ~uint32_t{kPgRefsMask | kPgReferenced | kPgWorkingset};
  if (static_cast<size_t>(GenerationOf(frame)) != place) MoveToGeneration(pfn, place, false);
}

void LruLists::MoveToNextGeneration(Pfn pfn, bool reclaiming, bool tail) {
  Frame& frame = this->frame(pfn);
  frame.flags &= ~uint32_t{kPgRefsMask | kPgReferenced | kPgWorkingset};
  if (reclaiming) frame.flags |= kPgReclaim;
  MoveToGeneration(pfn, (static_cast<size_t>(GenerationOf(frame)) + 1) % kMaxGenerations, tail);
}

// reset_ctrl_pos(): the oldest generation ends; what was seen of it goes into the averages.
void LruLists::EndOldest(LruGenerations& generations, size_t kind) {
  for (size_t tier = 0; tier < kTiers; ++tier) {
    uint64_t& refaulted = generations.average_refaulted[kind][tier];
    uint64_t& total = generations.average_total[kind][tier];
    refaulted = (refaulted + generations.refaulted[kind][tier]) / 2;
    total = (total + generations.evicted[kind][tier] + generations.kept[kind][tier]) / 2;
    generations.refaulted[kind][tier] = generations.evicted[kind][tier] = generations.kept[kind][tier] = 0;
  }
}

// inc_min_seq(): the pages of the oldest generation join the next, ahead of what is there as it is older.
void LruLists::MergeOldest(Lruvec& lruvec, size_t kind, bool can_swap) {
  LruGenerations& generations = *lruvec.generations;
  const size_t place = LruGenerations::PlaceOf(generations.min_seq[kind]);
  if (kind == 1 || can_swap) {
    for (FrameList& list : generations.lists[place][kind]) {
      while (!list.empty()) MoveToNextGeneration(Pfn(list.tail), false, true);
    }
  }
  EndOldest(generations, kind);
  ++generations.min_seq[kind];
}

bool LruLists::DropEmptyGenerations(Lruvec& lruvec, bool can_swap) {
  LruGenerations& generations = *lruvec.generations;
  std::array<uint64_t, 2> oldest = generations.min_seq;
  const size_t first = can_swap ? 0 : 1;
  for (size_t kind = first; kind < 2; ++kind) {
    const auto empty = [&](uint64_t seq) {
      const auto& lists = generations.lists[LruGenerations::PlaceOf(seq)][kind];
      return std::all_of(lists.begin(), lists.end(), [](const FrameList& list) { return list.empty(); });
    };
    while (oldest[kind] + kMinGenerations <= generations.max_seq && empty(oldest[kind])) ++oldest[kind];
  }
  if (can_swap) {
    oldest[0] = std::min(oldest[0], oldest[1]);
    oldest[1] = std::max(oldest[0], generations.min_seq[1]);
  }
  bool dropped = false;
  for (size_t kind = first; kind < 2; ++kind) {
    if (oldest[kind] == generations.min_seq[kind]) continue;
    EndOldest(generations, kind);
    generations.min_seq[kind] = oldest[kind];
    dropped = true;
  }
  return dropped;
}

void LruLists::AddGeneration(Lruvec& lruvec, bool can_swap) {
  LruGenerations& generations = *lruvec.generations;
  for (const size_t kind : {size_t{1}, size_t{0}}) {
    if (generations.generations(static_cast<int>(kind)) == kMaxGenerations) MergeOldest(lruvec, kind, can_swap);
  }
  // What was the second youngest does not count as active any more; what has its place in the ring will.
  const size_t leaves = LruGenerations::PlaceOf(generations.max_seq - 1);
  const size_t next = LruGenerations::PlaceOf(generations.max_seq + 1);
  const auto count = [&](size_t place, int sign, bool active) {
    for (size_t kind = 0; kind < 2; ++kind) {
      for (size_t zone = 0; zone < kZones; ++zone) {
        const int64_t pages = sign * int64_t{generations.pages[place][kind][zone]};
        if (pages == 0) continue;
        CountPages(lruvec, static_cast<LruKind>(2 * kind + (active ? 1 : 0)), zone, pages);
      }
    }
  };
  count(leaves, -1, true);
  count(leaves, 1, false);
  count(next, -1, false);
  count(next, 1, true);
  generations.born[next] = now();
  ++generations.max_seq;
}

// fill_evictable()
void LruLists::FillGenerations(Lruvec& lruvec) {
  std::array<std::vector<Pfn>, 4> pages;
  for (size_t kind = 0; kind < 4; ++kind) {
    for (FrameList& list = lruvec.lists[kind]; !list.empty();) {
      pages[kind].emplace_back(list.tail);
      Remove(pages[kind].back());
    }
  }
  lruvec.generations = std::make_unique<LruGenerations>();
  lruvec.generations->born.fill(now());
  for (const std::vector<Pfn>& of_kind : pages) {
    for (const Pfn pfn : of_kind) {
      frame(pfn).flags |= kPgLru;
      AddToGeneration(lruvec, pfn, false);
    }
  }
}

// drain_evictable()
void LruLists::DrainGenerations(Lruvec& lruvec) {
  std::vector<Pfn> pages;
  for (auto& of_place : lruvec.generations->lists) {
    for (auto& of_kind : of_place) {
      for (FrameList& list : of_kind) {
        while (!list.empty()) {
          pages.emplace_back(list.tail);
          RemoveFromGeneration(pages.back(), false);
        }
      }
    }
  }
  lruvec.generations.reset();
  for (const Pfn pfn : pages) Add(pfn);
}

void LruLists::EnableGenerations(bool enabled) {
  if (enabled == generations_enabled_) return;
  generations_enabled_ = enabled;
  for (Lruvec* lruvec : lruvecs_) {
    if (lruvec == nullptr) continue;
    enabled ? FillGenerations(*lruvec) : DrainGenerations(*lruvec);
  }
}

void LruLists::CheckGenerations(const Lruvec& lruvec, std::vector<std::string>* problems) const {
  const LruGenerations& generations = *lruvec.generations;
  if (generations.generations(1) < kMinGenerations || generations.generations(1) > generations.generations(0) ||
      generations.generations(0) > kMaxGenerations) {
    problems->push_back(absl::StrCat("generations of ", lruvec.memcg, " are numbered wrongly"));
  }
  std::array<std::array<uint32_t, kZones>, 4> counted{};
  for (size_t place = 0; place < kMaxGenerations; ++place) {
    for (size_t kind = 0; kind < 2; ++kind) {
      for (size_t zone = 0; zone < kZones; ++zone) {
        const FrameList& list = generations.lists[place][kind][zone];
        uint32_t pages = 0, count = 0;
        for (uint32_t pfn = list.head; pfn != kNoFrame && count <= list.count; ++count) {
          const Frame frame = frames_.Peek(pfn);
          if ((frame.flags & kPgLru) == 0 || GenerationOf(frame) != static_cast<int>(place) || KindOfPage(frame) != kind ||
              frame.zone != zone || frame.memcg != lruvec.memcg || (frame.flags & (kPgActive | kPgUnevictable)) != 0) {
            problems->push_back(absl::StrCat("frame ", pfn, " does not belong in generation ", place, " of ", lruvec.memcg));
          }
          pages += CompoundPages(frame);
          pfn = frame.next;
        }
        if (count != list.count || pages != generations.pages[place][kind][zone]) {
          problems->push_back(absl::StrCat("generation ", place, " of ", lruvec.memcg, " does not have the pages it says"));
        }
        counted[2 * kind + (generations.IsActive(place) ? 1 : 0)][zone] += pages;
      }
    }
  }
  for (size_t kind = 0; kind < 4; ++kind) {
    if (counted[kind] != lruvec.zone_pages[kind]) problems->push_back(absl::StrCat("generations of ", lruvec.memcg, " are miscounted"));
  }
}

void LruLists::HashGenerations(const LruGenerations& generations, StateHasher& hasher) const {
  hasher.Add(generations.max_seq);
  for (const uint64_t seq : generations.min_seq) hasher.Add(seq);
  for (const int64_t born : generations.born) hasher.Add(static_cast<uint64_t>(born));
  for (const auto& of_place : generations.lists) {
    for (const auto& of_kind : of_place) {
      for (const FrameList& list : of_kind) hasher.Add(uint64_t{list.head} << 32 | list.tail);
    }
  }
  for (const LruGenerations::ByTier* terms :
       {&generations.evicted, &generations.refaulted, &generations.kept, &generations.average_total, &generations.average_refaulted}) {
    for (const auto& of_kind : *terms) {
      for (const uint64_t value : of_kind) hasher.Add(value);
    }
  }
}

}  // namespace mmlab

// What is remembered of pages that were evicted, so that those that come back soon are not evicted again. Linux: mm/workingset.c and
// lru_note_cost() of mm/swap.c.
#include "server/base/explanation.h"
#include "server/physical/lru_lists.h"

namespace mmlab {
namespace {

// A shadow: a clock, the number of the cgroup for whose sake it went, and whether the page had once been active.
constexpr int kShadowClock = 17;
constexpr uint64_t PackShadow(uint64_t clock, uint16_t memcg, bool workingset) {
  return clock << kShadowClock | uint64_t{memcg} << 1 | (workingset ? 1 : 0);
}

// The counters of anonymous pages stand before those of files.
NodeStat OfKind(NodeStat anon, bool file) { return static_cast<NodeStat>(static_cast<uint8_t>(anon) + (file ? 1 : 0)); }

}  // namespace

// workingset_age_nonresident(): a cgroup's order of ages is made of those of the cgroups below it.
void LruLists::AgeNonresident(uint16_t memcg) {
  for (;; memcg = lruvecs_[memcg]->parent) {
    ++lruvecs_[memcg]->nonresident_age;
    if (memcg == 0) return;
  }
}

uint64_t LruLists::NoteEviction(Pfn pfn, uint16_t target) {
  const Frame& frame = this->frame(pfn);
  if (generations_enabled_) return NoteGenerationEviction(frame);
  AgeNonresident(target);
  return PackShadow(lruvecs_[target]->nonresident_age, target, (frame.flags & kPgWorkingset) != 0);
}

void LruLists::NoteRefault(Pfn pfn, uint64_t shadow, bool swap_space) {
  Frame& frame = this->frame(pfn);
  if (generations_enabled_) return NoteGenerationRefault(frame, shadow);
  const bool file = (frame.flags & kPgSwapBacked) == 0;
  const auto evicted_of = static_cast<uint16_t>(shadow >> 1);
  AddStat(frame, OfKind(NodeStat::kWorkingsetRefaultAnon, file), 1);
  if (evicted_of >= lruvecs_.size() || lruvecs_[evicted_of] == nullptr) return;
  // What it had to fit in: pages whose place it could have taken, had it stayed.
  uint64_t workingset = TreePages(evicted_of, LruKind::kActiveFile);
  if (!file) workingset += TreePages(evicted_of, LruKind::kInactiveFile);
  if (swap_space) {
    workingset += TreePages(evicted_of, LruKind::kActiveAnon);
    if (file) workingset += TreePages(evicted_of, LruKind::kInactiveAnon);
  }
  const uint64_t distance = lruvecs_[evicted_of]->nonresident_age - (shadow >> kShadowClock);
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
  AgeNonresident(frame.memcg);
  for (uint16_t at = frame.memcg;; at = lruvecs_[at]->parent) {
    ++lruvecs_[at]->activations[file ? 1 : 0];
    if (at == 0) break;
  }
  AddStat(frame, OfKind(NodeStat::kWorkingsetActivateAnon, file), 1);
  if ((shadow & 1) == 0) return;
  frame.flags |= kPgWorkingset;
  NoteCost(frame.memcg, file, 1);
  AddStat(frame, OfKind(NodeStat::kWorkingsetRestoreAnon, file), 1);
}

void LruLists::NoteCost(uint16_t memcg, bool file, uint64_t pages) {
  for (;; memcg = lruvecs_[memcg]->parent) {
    Lruvec& lruvec = *lruvecs_[memcg];
    (file ? lruvec.file_cost : lruvec.anon_cost) += pages;
    uint64_t size = 0;
    for (const LruKind kind : {LruKind::kInactiveAnon, LruKind::kActiveAnon, LruKind::kInactiveFile, LruKind::kActiveFile}) {
      size += TreePages(memcg, kind);
    }
    // What is long ago counts for less and less.
    if (lruvec.file_cost + lruvec.anon_cost > size / 4) {
      lruvec.file_cost /= 2;
      lruvec.anon_cost /= 2;
    }
    if (memcg == 0) return;
  }
}

// lru_gen_eviction(): the clock is the oldest generation, and the page's uses tell its tier.
uint64_t LruLists::NoteGenerationEviction(const Frame& frame) {
  LruGenerations& generations = *lruvecs_[frame.memcg]->generations;
  const size_t kind = (frame.flags & kPgSwapBacked) != 0 ? 0 : 1;
  const int refs = LruRefsOf(frame);
  ++generations.evicted[kind][static_cast<size_t>(LruTierOf(refs))];
  const uint64_t token = (generations.min_seq[kind] + 1) << kLruRefsWidth | static_cast<uint64_t>(refs > 0 ? refs - 1 : 0);
  return PackShadow(token, frame.memcg, refs > 0);
}

// lru_gen_refault(): only what was evicted from the generation that is still the oldest counts for the feedback.
void LruLists::NoteGenerationRefault(Frame& frame, uint64_t shadow) {
  const bool file = (frame.flags & kPgSwapBacked) == 0;
  if (static_cast<uint16_t>(shadow >> 1) != frame.memcg) return;
  LruGenerations& generations = *lruvecs_[frame.memcg]->generations;
  const size_t kind = file ? 1 : 0;
  const uint64_t token = shadow >> kShadowClock;
  const bool counts = token >> kLruRefsWidth == generations.min_seq[kind] + 1;
  const int refs = static_cast<int>(token & ((1u << kLruRefsWidth) - 1)) + static_cast<int>(shadow & 1);
  if (Explanation* why = tracer_ == nullptr ? nullptr : tracer_->explanation()) {
    why->Add(StepKind::kRefault, counts
                                     ? "the page came back while the generation it was evicted from is the oldest: its tier is to be kept"
                                     : "the page came back after the generation it was evicted from had ended")
        .Number("generation", static_cast<int64_t>(token >> kLruRefsWidth) - 1)
        .Number("oldest", static_cast<int64_t>(generations.min_seq[kind]))
        .Number("tier", LruTierOf(refs));
  }
  if (!counts) return;
  ++generations.refaulted[kind][static_cast<size_t>(LruTierOf(refs))];
  AddStat(frame, OfKind(NodeStat::kWorkingsetRefaultAnon, file), 1);
  // A process waits for it, or it was read so often that it should have been kept.
  if (!in_fault_ && refs < (1 << kLruRefsWidth) - 1) return;
  frame.flags |= kPgRefsMask | kPgWorkingset;
  AddStat(frame, OfKind(NodeStat::kWorkingsetRestoreAnon, file), 1);
}

}  // namespace mmlab

#ifndef MMLAB_SERVER_PHYSICAL_LRU_GENERATIONS_H_
#define MMLAB_SERVER_PHYSICAL_LRU_GENERATIONS_H_

#include <array>
#include <cstdint>

#include "server/physical/frame.h"
#include "server/physical/zone.h"

namespace mmlab {

inline constexpr int kMaxGenerations = 4;    // MAX_NR_GENS
inline constexpr int kMinGenerations = 2;    // MIN_NR_GENS: the youngest ones, which count as active and are not evicted from.
inline constexpr int kTiers = 4;             // MAX_NR_TIERS
inline constexpr int kLruRefsWidth = 2;      // LRU_REFS_WIDTH
inline constexpr uint64_t kLruBatches = 64;  // MAX_LRU_BATCH / MIN_LRU_BATCH

// Which pages of a kind (0: anonymous, 1: of files) a cgroup used last when, instead of active and inactive lists. Linux: struct
// lru_gen_struct, include/linux/mmzone.h.
//
// Generations are numbered upward in time; number n lives at place n % kMaxGenerations. Pages that are used through page tables move to
// the youngest when the tables are walked; pages that are read through file descriptors have tiers by how often.
// Always true: kMinGenerations <= generations(1) <= generations(0) <= kMaxGenerations.
struct LruGenerations {
  template <typename T>
  using ByPlace = std::array<std::array<std::array<T, kZones>, 2>, kMaxGenerations>;  // [place][kind][zone]
  using ByTier = std::array<std::array<uint64_t, kTiers>, 2>;                         // [kind][tier]

  uint64_t max_seq = kMinGenerations + 1;       // The youngest generation,
  std::array<uint64_t, 2> min_seq{};            // and the oldest one of each kind.
  std::array<int64_t, kMaxGenerations> born{};  // Machine time, ns.
  ByPlace<FrameList> lists;                     // Newest first.
  ByPlace<uint32_t> pages{};
  // Of the oldest generation, the terms of the feedback: what was evicted, what of that came back, what was kept as its tier came back too
  // often (never of tier 0); and the averages of the generations before.
  ByTier evicted{}, refaulted{}, kept{};
  ByTier average_total{}, average_refaulted{};

  static size_t PlaceOf(uint64_t seq) { return seq % kMaxGenerations; }
  uint64_t generations(int kind) const { return max_seq - min_seq[static_cast<size_t>(kind)] + 1; }
  // lru_gen_is_active()
  bool IsActive(size_t place) const { return place == PlaceOf(max_seq) || place == PlaceOf(max_seq - 1); }
  uint64_t Pages(uint64_t seq, int kind) const;
};

// folio_lru_gen(): the place of the generation that a frame is in; -1: in none.
inline int GenerationOf(const Frame& frame) { return static_cast<int>((frame.flags & kPgGenerationMask) >> kPgGenerationShift) - 1; }
// folio_lru_refs(): uses through file descriptors beyond the first two.
inline int LruRefsOf(const Frame& frame) {
  return static_cast<int>((frame.flags & kPgRefsMask) >> kPgRefsShift) + ((frame.flags & kPgWorkingset) != 0 ? 1 : 0);
}
// lru_tier_from_refs()
inline int LruTierOf(int refs) {
  int tier = 0;
  while ((1 << tier) < refs + 1) ++tier;
  return tier;
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_LRU_GENERATIONS_H_

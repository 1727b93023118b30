#include "server/cgroup/psi_group.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/load_average.h"

namespace mmlab {
namespace {

// EXP_10s, EXP_60s, EXP_300s: one period by the span of the average.
constexpr std::array<uint64_t, 3> kFades = {1677, 1981, 2034};

std::string Line(const char* which, const std::array<uint64_t, 3>& averages, int64_t total) {
  return absl::StrFormat("%s avg10=%d.%02d avg60=%d.%02d avg300=%d.%02d total=%d\n", which, LoadWhole(averages[0]),
                         LoadHundredths(averages[0]), LoadWhole(averages[1]), LoadHundredths(averages[1]), LoadWhole(averages[2]),
                         LoadHundredths(averages[2]), total);
}

}  // namespace

void PsiGroup::Advance(int64_t now) {
  if (now < next_update_) return;
  const int64_t periods = 1 + (now - next_update_) / kPeriod;
  // The clock stops in the year 2262; so far ahead nothing is planned any more.
  if (__builtin_add_overflow(next_update_, periods * kPeriod, &next_update_)) next_update_ = std::numeric_limits<int64_t>::max();
  for (Resource& resource : resources_) {
    int64_t left = periods;
    // A period holds no more waiting than itself: what is above goes to the next.
    for (; left > 0 && resource.total > resource.sampled; --left) {
      const int64_t waited = std::min(resource.total - resource.sampled, kPeriod);
      resource.sampled += waited;
      const auto percent = static_cast<uint64_t>(waited * 100 / kPeriod);
      for (size_t i = 0; i < kFades.size(); ++i) resource.averages[i] = FadeLoad(resource.averages[i], kFades[i], percent * kLoadOne);
    }
    if (left == 0) continue;
    for (size_t i = 0; i < kFades.size(); ++i) {
      resource.averages[i] = FadeLoadBy(static_cast<uint64_t>(left), resource.averages[i], kFades[i], 0);
    }
  }
}

std::string PsiGroup::Text(StallKind kind) const {
  const Resource& resource = resources_[static_cast<size_t>(kind)];
  return absl::StrCat(Line("some", resource.averages, total(kind)), Line("full", resource.averages, total(kind)));
}

std::string PsiGroup::CpuText() { return absl::StrCat(Line("some", {}, 0), Line("full", {}, 0)); }

void PsiGroup::AddToHash(StateHasher& hasher) const {
  hasher.Add(static_cast<uint64_t>(next_update_));
  for (const Resource& resource : resources_) {
    hasher.Add(static_cast<uint64_t>(resource.total));
    hasher.Add(static_cast<uint64_t>(resource.sampled));
    for (const uint64_t average : resource.averages) hasher.Add(average);
  }
}

}  // namespace mmlab

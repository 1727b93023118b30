#ifndef MMLAB_TESTS_UNIT_PROCESS_REFERENCE_STRINGS_H_
#define MMLAB_TESTS_UNIT_PROCESS_REFERENCE_STRINGS_H_

#include <cstdint>
#include <ostream>
#include <vector>

#include "server/process/replacement_policy.h"

namespace mmlab {

using References = std::vector<uint64_t>;

// Operating System Concepts (Silberschatz, Galvin, Gagne), "Page Replacement".
inline const References kSilberschatz = {7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1};
// Operating Systems: Internals and Design Principles (Stallings), "Replacement Policy". It counts faults once the frames are full: three
// fewer.
inline const References kStallings = {2, 3, 2, 1, 5, 2, 4, 5, 3, 2, 5, 2};
// Belady, Nelson, Shedler: An anomaly in space-time characteristics of certain programs running in a paging machine (1969).
inline const References kBelady = {1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5};

struct TextbookCase {
  const char* name;
  const References* references;
  ReplacementPolicy policy;
  uint32_t frames;
  uint64_t faults;
};
inline void PrintTo(const TextbookCase& test, std::ostream* os) { *os << test.name; }
inline const TextbookCase kTextbookCases[] = {
    {"SilberschatzFifo", &kSilberschatz, ReplacementPolicy::kFifo, 3, 15},
    {"SilberschatzOptimal", &kSilberschatz, ReplacementPolicy::kOptimal, 3, 9},
    {"SilberschatzLru", &kSilberschatz, ReplacementPolicy::kLru, 3, 12},
    {"StallingsOptimal", &kStallings, ReplacementPolicy::kOptimal, 3, 6},
    {"StallingsLru", &kStallings, ReplacementPolicy::kLru, 3, 7},
    {"StallingsFifo", &kStallings, ReplacementPolicy::kFifo, 3, 9},
    {"StallingsClock", &kStallings, ReplacementPolicy::kClock, 3, 8},
    {"BeladyFifoThree", &kBelady, ReplacementPolicy::kFifo, 3, 9},
    {"BeladyFifoFour", &kBelady, ReplacementPolicy::kFifo, 4, 10},
    {"BeladyLruThree", &kBelady, ReplacementPolicy::kLru, 3, 10},
    {"BeladyLruFour", &kBelady, ReplacementPolicy::kLru, 4, 8},
    {"BeladyOptimalThree", &kBelady, ReplacementPolicy::kOptimal, 3, 7},
    {"BeladyOptimalFour", &kBelady, ReplacementPolicy::kOptimal, 4, 6},
};

}  // namespace mmlab

#endif  // MMLAB_TESTS_UNIT_PROCESS_REFERENCE_STRINGS_H_

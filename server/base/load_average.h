#ifndef MMLAB_SERVER_BASE_LOAD_AVERAGE_H_
#define MMLAB_SERVER_BASE_LOAD_AVERAGE_H_

#include <cstdint>

namespace mmlab {

// Averages that fade exponentially, in fixed-point numbers of the kernel. Linux: include/linux/sched/loadavg.h.
inline constexpr int kLoadShift = 11;  // FSHIFT
inline constexpr uint64_t kLoadOne = uint64_t{1} << kLoadShift;

// calc_load(): one step towards `active`; `fade` is 1/e to the power of step by span.
inline constexpr uint64_t FadeLoad(uint64_t load, uint64_t fade, uint64_t active) {
  uint64_t faded = load * fade + active * (kLoadOne - fade);
  if (active >= load) faded += kLoadOne - 1;
  return faded / kLoadOne;
}

// calc_load_n(): as many steps at once.
inline constexpr uint64_t FadeLoadBy(uint64_t steps, uint64_t load, uint64_t fade, uint64_t active) {
  uint64_t power = kLoadOne;
  for (uint64_t base = fade; steps > 0; steps >>= 1) {
    if ((steps & 1) != 0) power = (power * base + kLoadOne / 2) >> kLoadShift;
    base = (base * base + kLoadOne / 2) >> kLoadShift;
  }
  return FadeLoad(load, power, active);
}

// The two parts of "0.25".
inline constexpr uint64_t LoadWhole(uint64_t load) { return load >> kLoadShift; }
inline constexpr uint64_t LoadHundredths(uint64_t load) { return ((load & (kLoadOne - 1)) * 100) >> kLoadShift; }

}  // namespace mmlab

#endif  // MMLAB_SERVER_BASE_LOAD_AVERAGE_H_

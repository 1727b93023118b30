#ifndef MMLAB_SERVER_PROCESS_PID_H_
#define MMLAB_SERVER_PROCESS_PID_H_

#include <compare>
#include <cstdint>
#include <utility>

namespace mmlab {

// Number of a simulated process, as ps shows it. Positive; 0 = none.
class Pid {
 public:
  constexpr Pid() = default;
  constexpr explicit Pid(int32_t raw) : raw_(raw) {}
  constexpr int32_t raw() const { return raw_; }
  friend constexpr auto operator<=>(Pid, Pid) = default;
  template <typename H>
  friend H AbslHashValue(H h, Pid pid) {
    return H::combine(std::move(h), pid.raw_);
  }

 private:
  int32_t raw_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PID_H_

#ifndef MMLAB_CLIENT_CLI_PROGRESS_BAR_H_
#define MMLAB_CLIENT_CLI_PROGRESS_BAR_H_

#include <chrono>
#include <cstddef>
#include <string>

namespace mmlab {

// A bar on stderr while something takes longer than a second; nothing where stderr is no terminal, TERM is dumb, or NO_COLOR asks for plain
// output.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar() { Clear(); }

  void Show(size_t done, size_t all);
  void Clear();  // Takes the bar away, so that a line can be printed.

 private:
  const std::string label_;
  const bool enabled_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_shown_{};
  bool shown_ = false;
};

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_PROGRESS_BAR_H_

#include "client/cli/progress_bar.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/string_view.h"

namespace mmlab {
namespace {

bool AnimationWanted() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr && term != nullptr && absl::string_view(term) != "dumb";
}

}  // namespace

ProgressBar::ProgressBar(std::string label) : label_(std::move(label)), enabled_(AnimationWanted()) {}

void ProgressBar::Show(size_t done, size_t all) {
  constexpr size_t kWidth = 30;
  const auto now = std::chrono::steady_clock::now();
  if (!enabled_ || now - start_ < std::chrono::seconds(1) || now - last_shown_ < std::chrono::milliseconds(100)) return;
  last_shown_ = now;
  shown_ = true;
  const size_t filled = all == 0 ? kWidth : kWidth * done / all;
  fmt::print(stderr, "\r{} [{:<{}}] {}/{}", label_, std::string(filled, '#'), kWidth, done, all);
  std::fflush(stderr);
}

void ProgressBar::Clear() {
  if (shown_) fmt::print(stderr, "\r\033[K");
  shown_ = false;
}

}  // namespace mmlab

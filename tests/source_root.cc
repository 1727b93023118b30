// Linked into every test: it runs in the root of the source tree, from where its data is named, wherever it was started.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace mmlab {
namespace {

[[maybe_unused]] const bool kInSourceRoot = [] {
  if (chdir(MMLAB_SOURCE_ROOT) == 0) return true;
  std::perror(MMLAB_SOURCE_ROOT);
  std::abort();
}();

}  // namespace
}  // namespace mmlab

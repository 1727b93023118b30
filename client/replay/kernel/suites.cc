#include "client/replay/kernel/buddy_suite.h"
#include "client/replay/kernel/suite_replayer.h"

namespace mmlab {

std::unique_ptr<KernelSuiteReplayer> MakeKernelSuiteReplayer(absl::string_view suite) {
  if (suite == "buddy") return std::make_unique<BuddySuite>();
  return nullptr;
}

}  // namespace mmlab

#include "client/replay/kernel/buddy_suite.h"
#include "client/replay/kernel/kmap_suite.h"
#include "client/replay/kernel/slab_suite.h"
#include "client/replay/kernel/suite_replayer.h"
#include "client/replay/kernel/vmalloc_suite.h"

namespace mmlab {

std::unique_ptr<KernelSuiteReplayer> MakeKernelSuiteReplayer(absl::string_view suite) {
  if (suite == "buddy") return std::make_unique<BuddySuite>();
  if (suite == "kmap") return std::make_unique<KmapSuite>();
  if (suite == "slab") return std::make_unique<SlabSuite>();
  if (suite == "vmalloc") return std::make_unique<VmallocSuite>();
  return nullptr;
}

}  // namespace mmlab

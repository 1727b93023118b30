#ifndef MMLAB_SERVER_MACHINE_PAGE_OPERATION_H_
#define MMLAB_SERVER_MACHINE_PAGE_OPERATION_H_

#include <cstdint>
#include <vector>

namespace mmlab {
namespace op {

// What kind of caller asks for pages (GFP_* of include/linux/gfp_types.h); the same names and numbers as v1::GfpClass.
enum class GfpClass : uint8_t {
  kKernel = 1,
  kAtomic = 2,
  kNowait = 3,
  kUser = 4,
  kHighuser = 5,
  kHighuserMovable = 6,
  kDma = 7,
  kDma32 = 8,
  kReclaimable = 9,
  kUserMovable = 10,
  kMemalloc = 11,
  kAccount = 12,
};

struct AllocPages {
  GfpClass gfp = GfpClass::kKernel;
  int32_t order = 0;
  int32_t cpu = 0;
  bool zero = false;
  uint64_t movable_id = 0;
};
struct FreePages {
  uint64_t pfn = 0;
  int32_t order = 0;
  int32_t cpu = 0;
  uint64_t movable_id = 0;
};
struct GetFreePages {
  GfpClass gfp = GfpClass::kKernel;
  int32_t order = 0;
  int32_t cpu = 0;
  bool zero = false;
};
struct AllocPagesExact {
  GfpClass gfp = GfpClass::kKernel;
  uint64_t bytes = 0;
  int32_t cpu = 0;
  bool zero = false;
};
struct FreePagesExact {
  uint64_t pfn = 0;
  uint64_t bytes = 0;
  int32_t cpu = 0;
};
struct AllocPagesBulk {
  GfpClass gfp = GfpClass::kKernel;
  uint32_t count = 0;
  int32_t cpu = 0;
};
struct FreePageList {
  std::vector<uint64_t> pfns;
  int32_t cpu = 0;
};
struct SplitPage {
  uint64_t pfn = 0;
  int32_t order = 0;
};
struct DrainPages {
  int32_t cpu = 0;
  bool all = false;
};
struct CompactMemory {};

}  // namespace op
}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PAGE_OPERATION_H_

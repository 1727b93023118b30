#ifndef MMLAB_SERVER_PROCESS_HUGE_SHRINKERS_H_
#define MMLAB_SERVER_PROCESS_HUGE_SHRINKERS_H_

#include <cstdint>

#include "server/physical/shrinker.h"
#include "server/process/paging.h"

namespace mmlab {

// "thp-zero": the huge zero page goes when no address space uses it. Linux: huge_zero_page_shrinker of mm/huge_memory.c.
class HugeZeroShrinker final : public Shrinker {
 public:
  explicit HugeZeroShrinker(Paging& paging) : paging_(paging) {}
  uint64_t CountObjects() const override { return paging_.HugeZeroIsIdle() ? paging_.huge_pages() : 0; }
  uint64_t ScanObjects(uint64_t objects) override {
    paging_.ShrinkHugeZero();
    return objects;
  }

 private:
  Paging& paging_;
};

// "thp-deferred_split": huge pages of which parts are not mapped any more are split, so that those parts are free. Linux:
// deferred_split_shrinker.
class DeferredSplitShrinker final : public Shrinker {
 public:
  explicit DeferredSplitShrinker(Paging& paging) : paging_(paging) {}
  uint64_t CountObjects() const override { return paging_.deferred_splits(); }
  uint64_t ScanObjects(uint64_t objects) override { return paging_.ShrinkDeferredSplits(objects); }

 private:
  Paging& paging_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_HUGE_SHRINKERS_H_

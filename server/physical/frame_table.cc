#include "server/physical/frame_table.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace mmlab {

FrameTable::FrameTable(uint32_t end_pfn)
    : end_pfn_(end_pfn),
      slots_((end_pfn >> FrameBlock::kShift) + 1),
      blocks_(static_cast<FrameBlock**>(std::calloc(slots_, sizeof(FrameBlock*)))) {
  if (blocks_ == nullptr) throw std::bad_alloc();
}

FrameTable::~FrameTable() {
  for (uint32_t i = 0; made_ > 0 && i < slots_; ++i) {
    if (blocks_[i] == nullptr) continue;
    delete blocks_[i];
    --made_;
  }
  std::free(blocks_);
}

FrameBlock& FrameTable::Make(uint32_t pfn) {
  MMLAB_CHECK(pfn < end_pfn_);
  FrameBlock*& slot = blocks_[pfn >> FrameBlock::kShift];
  MMLAB_CHECK(slot == nullptr);
  slot = new FrameBlock;
  ++made_;
  return *slot;
}

uint64_t FrameTable::HostMemory() const {
  constexpr uint64_t kHostPage = 4096;
  const uint64_t array = slots_ * sizeof(FrameBlock*);
  return std::min(array, (uint64_t{made_} + 1) * kHostPage) + made_ * sizeof(FrameBlock);
}

}  // namespace mmlab

#ifndef MMLAB_SERVER_PHYSICAL_FRAME_TABLE_H_
#define MMLAB_SERVER_PHYSICAL_FRAME_TABLE_H_

#include <array>
#include <cstdint>
#include <memory>

#include "server/base/check.h"
#include "server/physical/frame.h"

namespace mmlab {

// Frame::order of a frame that is not the first of its block, whether that block is free, on a per-CPU list or allocated.
// Only the first frame of a block says what the block is.
inline constexpr uint8_t kTailOrder = 0xff;

// The metadata of 1024 frames, as many as a block of the largest order has, and the migrate types of its page blocks. Aligned so that no
// frame lies on two cache lines.
struct alignas(64) FrameBlock {
  static constexpr int kShift = 10;
  static constexpr uint32_t kFrames = 1u << kShift;
  std::array<Frame, kFrames> frames;
  // Where the next zone begins, if it does so within this block: page blocks that two zones share have a type in each (on kernels with
  // CONFIG_FLATMEM, whose zones keep a bitmap each; with SPARSEMEM no zone begins within a block).
  uint16_t zone_split = kFrames;
  struct Pageblock {
    uint8_t type = 0;
    uint8_t zone = 0;  // Of its frames, said once more where a look at a cold frame would be waited for.
    friend bool operator==(Pageblock, Pageblock) = default;
  };
  std::array<Pageblock, 4> pageblocks{};

  // What is known of the page block of the frame at an offset in this block.
  Pageblock& PageblockAt(uint32_t offset, int pageblock_order) {
    return pageblocks[(offset >> pageblock_order) + (offset >= zone_split ? 2 : 0)];
  }
};

// Where the metadata of frames is, made block by block. An array of pointers: a lookup is two loads.
class FrameTable {
 public:
  explicit FrameTable(uint32_t end_pfn);
  ~FrameTable();
  FrameTable(const FrameTable&) = delete;
  FrameTable& operator=(const FrameTable&) = delete;

  uint32_t end_pfn() const { return end_pfn_; }
  uint32_t block_slots() const { return slots_; }
  uint32_t blocks_made() const { return made_; }

  // Null: not made. REQUIRES: pfn < end_pfn(), rounded up to a whole block.
  FrameBlock* BlockOf(uint32_t pfn) const { return blocks_[pfn >> FrameBlock::kShift]; }
  Frame* Find(uint32_t pfn) const {
    FrameBlock* block = BlockOf(pfn);
    return block == nullptr ? nullptr : &block->frames[pfn & (FrameBlock::kFrames - 1)];
  }
  // REQUIRES: the block was made.
  Frame& At(uint32_t pfn) const { return BlockOf(pfn)->frames[pfn & (FrameBlock::kFrames - 1)]; }

  // REQUIRES: not made yet.
  FrameBlock& Make(uint32_t pfn);

  // Bytes on the host, counting of the pointer array only the pages in use.
  uint64_t HostMemory() const;

 private:
  uint32_t end_pfn_;
  uint32_t slots_;
  uint32_t made_ = 0;
  FrameBlock** blocks_;  // calloc: the host gives memory only to the parts that are used.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_FRAME_TABLE_H_

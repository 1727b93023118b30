#ifndef MMLAB_SERVER_PHYSICAL_PAGE_CONTENTS_H_
#define MMLAB_SERVER_PHYSICAL_PAGE_CONTENTS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "server/base/address.h"
#include "server/base/check.h"
#include "server/base/hash.h"
#include "server/physical/contents.h"

namespace mmlab {

// The bytes in physical memory, as FrameContents promises, in four sizes: an all-zero page costs nothing; a page whose bytes other than
// zero lie within six neighbouring bytes (somebody touched it) costs the eight bytes of its slot; within twelve, a record of 16 bytes
// more; any other page costs a page.
class PageContents final : public FrameContents {
 public:
  PageContents(uint32_t end_pfn, PageSize page_size);
  ~PageContents() override;
  PageContents(const PageContents&) = delete;
  PageContents& operator=(const PageContents&) = delete;

  void Read(Pfn pfn, size_t offset, void* out, size_t size) const override {
    MMLAB_CHECK(offset + size <= page_size_.bytes().raw());
    const Slot slot = SlotOf(static_cast<uint32_t>(pfn.raw()));
    if (IsPage(slot)) [[likely]] {
      std::memcpy(out, PageOf(slot) + offset, size);
    } else {
      ReadWindow(slot, offset, out, size);
    }
  }
  void Write(Pfn pfn, size_t offset, const void* data, size_t size) override;
  void Copy(Pfn from, Pfn to) override;
  void Clear(Pfn pfn) override {
    Slot* slots = slots_[pfn.raw() >> kChunkShift];
    if (slots == nullptr) return;
    if (Slot& slot = slots[pfn.raw() & kChunkMask]; slot != 0) ClearSlots(&slot, 1);
  }
  SavedPage Save(Pfn pfn) const override;
  void Restore(Pfn pfn, const SavedPage& saved) override;
  uint8_t* Bytes(Pfn pfn) override {
    MMLAB_CHECK((pfn.raw() >> kChunkShift) < chunk_count_);
    Slot* slots = slots_[pfn.raw() >> kChunkShift];
    if (slots != nullptr) [[likely]] {
      const Slot slot = slots[pfn.raw() & kChunkMask];
      if (IsPage(slot)) [[likely]]
        return PageOf(slot);
    }
    return MakePage(pfn);
  }
  bool Empty(Pfn pfn) const { return SlotOf(static_cast<uint32_t>(pfn.raw())) == 0; }  // All zero, and nothing kept.
  // A page that only holds an inline record is given its page, so that there is something to point at.
  const uint8_t* BytesIfAny(Pfn pfn) const override;

  // Whether a frame and those beside it are all zero, at the cost of one look; false says nothing. REQUIRES: pfn < end_pfn.
  bool NoneNear(Pfn pfn) const { return slots_[pfn.raw() >> kChunkShift] == nullptr; }

  // All zero from now on. REQUIRES: count frames lie within one block of 1024.
  void ClearRange(uint32_t pfn, uint32_t count) {
    if (Slot* slots = slots_[pfn >> kChunkShift]; slots != nullptr) ClearSlots(slots + (pfn & kChunkMask), count);
  }

  uint64_t pages_in_use() const { return pages_; }  // Pages that take a page on the host.
  uint64_t HostMemory() const;
  void StateHash(StateHasher& hasher) const;  // Of the bytes, however they are kept.

 private:
  friend class SavedPage;

  // 0: all zero. Bit 0 set: an inline record: 15 bits of offset, 48 bits with the bytes from there. Bit 1 set: pointer (plus 2) to a
  // SmallRecord. Else: pointer to a page.
  using Slot = uint64_t;
  static constexpr int kChunkShift = 10;
  static constexpr uint32_t kChunkSlots = 1u << kChunkShift;
  static constexpr uint32_t kChunkMask = kChunkSlots - 1;
  static constexpr size_t kInlineBytes = 6;
  static constexpr size_t kInlineOffsets = 1 << 15;
  static constexpr size_t kSmallBytes = 12;

  struct SmallRecord {
    uint32_t offset;
    uint8_t bytes[kSmallBytes];
  };
  // What a page holds that has no page of its own: all bytes but these are zero.
  struct Window {
    size_t offset = 0;
    size_t size = 0;
    uint8_t bytes[kSmallBytes] = {};
  };

  static bool IsPage(Slot slot) { return slot != 0 && (slot & 3) == 0; }
  static uint8_t* PageOf(Slot slot) { return reinterpret_cast<uint8_t*>(slot); }
  static bool IsSmall(Slot slot) { return (slot & 3) == 2; }
  static SmallRecord* SmallOf(Slot slot) { return reinterpret_cast<SmallRecord*>(slot - 2); }
  static Window WindowOf(Slot slot);  // REQUIRES: not a page.

  Slot SlotOf(uint32_t pfn) const {
    MMLAB_CHECK((pfn >> kChunkShift) < chunk_count_);
    const Slot* slots = slots_[pfn >> kChunkShift];
    return slots == nullptr ? 0 : slots[pfn & kChunkMask];
  }
  static void ReadWindow(Slot slot, size_t offset, void* out, size_t size);  // REQUIRES: not a page.
  Slot& MakeSlot(uint32_t pfn);
  static Slot Duplicate(Slot slot, uint64_t page_bytes);
  static void FreeSlot(Slot slot);
  uint8_t* MakePage(Pfn pfn) const;
  bool WriteWindow(Slot& slot, size_t offset, const uint8_t* data, size_t size);
  void StoreWindow(Slot& slot, size_t offset, const uint8_t* bytes, size_t size);
  void ClearSlots(Slot* slots, uint32_t count);

  PageSize page_size_;
  uint32_t chunk_count_;
  mutable uint64_t pages_ = 0;
  mutable uint64_t smalls_ = 0;
  uint32_t chunks_ = 0;
  Slot** slots_;  // calloc: the host gives memory only to the parts that are used.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_PAGE_CONTENTS_H_

#include "server/physical/page_contents.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <new>

#include "server/base/check.h"

namespace mmlab {

PageContents::PageContents(uint32_t end_pfn, PageSize page_size)
    : page_size_(page_size),
      chunk_count_((end_pfn >> kChunkShift) + 1),
      slots_(static_cast<Slot**>(std::calloc(chunk_count_, sizeof(Slot*)))) {
  if (slots_ == nullptr) throw std::bad_alloc();
}

PageContents::~PageContents() {
  for (uint32_t i = 0; chunks_ > 0 && i < chunk_count_; ++i) {
    if (slots_[i] == nullptr) continue;
    ClearSlots(slots_[i], kChunkSlots);
    std::free(slots_[i]);
    --chunks_;
  }
  std::free(slots_);
}

void PageContents::ClearSlots(Slot* slots, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    if (IsPage(slots[i])) {
      std::free(PageOf(slots[i]));
      --pages_;
    }
    slots[i] = 0;
  }
}

PageContents::Slot& PageContents::MakeSlot(uint32_t pfn) {
  MMLAB_CHECK((pfn >> kChunkShift) < chunk_count_);
  Slot*& slots = slots_[pfn >> kChunkShift];
  if (slots == nullptr) {
    slots = static_cast<Slot*>(std::calloc(kChunkSlots, sizeof(Slot)));
    if (slots == nullptr) throw std::bad_alloc();
    ++chunks_;
  }
  return slots[pfn & kChunkMask];
}

uint8_t* PageContents::MakePage(Pfn pfn) const {
  // Const, because making the page exist does not change what it reads as.
  Slot& slot = const_cast<PageContents*>(this)->MakeSlot(static_cast<uint32_t>(pfn.raw()));
  if (IsPage(slot)) return PageOf(slot);
  auto* page = static_cast<uint8_t*>(std::calloc(1, page_size_.bytes().raw()));
  if (page == nullptr) throw std::bad_alloc();
  ++pages_;
  if (IsInline(slot)) {
    const uint64_t value = InlineValue(slot);
    for (size_t i = 0; i < kInlineBytes; ++i) {
      if (const auto byte = static_cast<uint8_t>(value >> (8 * i)); byte != 0) page[InlineOffset(slot) + i] = byte;
    }
  }
  slot = reinterpret_cast<Slot>(page);
  return page;
}

const uint8_t* PageContents::BytesIfAny(Pfn pfn) const {
  const Slot slot = SlotOf(static_cast<uint32_t>(pfn.raw()));
  if (slot == 0) return nullptr;
  return IsPage(slot) ? PageOf(slot) : MakePage(pfn);
}

void PageContents::Read(Pfn pfn, size_t offset, void* out, size_t size) const {
  MMLAB_CHECK(offset + size <= page_size_.bytes().raw());
  const Slot slot = SlotOf(static_cast<uint32_t>(pfn.raw()));
  if (IsPage(slot)) {
    std::memcpy(out, PageOf(slot) + offset, size);
    return;
  }
  std::memset(out, 0, size);
  if (slot == 0) return;
  const size_t start = InlineOffset(slot);
  for (size_t i = 0; i < kInlineBytes; ++i) {
    const size_t at = start + i;
    if (at >= offset && at < offset + size) static_cast<uint8_t*>(out)[at - offset] = static_cast<uint8_t>(InlineValue(slot) >> (8 * i));
  }
}

// Whether the bytes other than zero, after this write, lie within one inline record; then it is written.
bool PageContents::WriteInline(Slot& slot, size_t offset, const uint8_t* data, size_t size) const {
  if (size > 2 * kInlineBytes) return false;
  // The window that may hold something: that of the old record and of the new data, without the zeros at both ends.
  std::array<uint8_t, 6 * kInlineBytes> window{};
  size_t base = offset;
  size_t end = offset + size;
  if (IsInline(slot)) {
    base = std::min(base, InlineOffset(slot));
    end = std::max(end, InlineOffset(slot) + kInlineBytes);
    if (end - base > window.size()) return false;
    for (size_t i = 0; i < kInlineBytes; ++i) window[InlineOffset(slot) - base + i] = static_cast<uint8_t>(InlineValue(slot) >> (8 * i));
  }
  std::memcpy(window.data() + (offset - base), data, size);
  size_t first = 0;
  size_t last = end - base;
  while (first < last && window[first] == 0) ++first;
  while (last > first && window[last - 1] == 0) --last;
  if (last - first > kInlineBytes || base + first > 0x7fff) return false;
  if (first == last) {
    slot = 0;
    return true;
  }
  uint64_t value = 0;
  for (size_t i = first; i < last; ++i) value |= uint64_t{window[i]} << (8 * (i - first));
  slot = value << 16 | (base + first) << 1 | 1;
  return true;
}

void PageContents::Write(Pfn pfn, size_t offset, const void* data, size_t size) {
  MMLAB_CHECK(offset + size <= page_size_.bytes().raw());
  const auto* bytes = static_cast<const uint8_t*>(data);
  const auto number = static_cast<uint32_t>(pfn.raw());
  const Slot slot = SlotOf(number);
  if (IsPage(slot)) {
    std::memcpy(PageOf(slot) + offset, data, size);
    return;
  }
  if (slot == 0 && std::all_of(bytes, bytes + size, [](uint8_t byte) { return byte == 0; })) return;
  if (WriteInline(MakeSlot(number), offset, bytes, size)) return;
  std::memcpy(MakePage(pfn) + offset, data, size);
}

void PageContents::Copy(Pfn from, Pfn to) {
  if (from == to) return;
  const Slot source = SlotOf(static_cast<uint32_t>(from.raw()));
  if (IsPage(source)) {
    std::memcpy(Bytes(to), PageOf(source), page_size_.bytes().raw());
    return;
  }
  if (source == 0 && SlotOf(static_cast<uint32_t>(to.raw())) == 0) return;
  Clear(to);
  if (source != 0) MakeSlot(static_cast<uint32_t>(to.raw())) = source;
}

uint64_t PageContents::HostMemory() const {
  constexpr uint64_t kHostPage = 4096;
  constexpr uint64_t kHeapOverhead = 16;
  const uint64_t array = std::min<uint64_t>(chunk_count_ * sizeof(Slot*), (uint64_t{chunks_} + 1) * kHostPage);
  return array + chunks_ * kChunkSlots * sizeof(Slot) + pages_ * (page_size_.bytes().raw() + kHeapOverhead);
}

void PageContents::StateHash(StateHasher& hasher) const {
  const size_t words = page_size_.bytes().raw() / sizeof(uint64_t);
  for (uint32_t chunk = 0; chunk < chunk_count_; ++chunk) {
    if (slots_[chunk] == nullptr) continue;
    for (uint32_t i = 0; i < kChunkSlots; ++i) {
      if (slots_[chunk][i] == 0) continue;
      const Pfn pfn(uint64_t{chunk} * kChunkSlots + i);
      for (size_t word = 0; word < words; ++word) {
        uint64_t value = 0;
        Read(pfn, word * sizeof(value), &value, sizeof(value));
        if (value == 0) continue;
        hasher.Add(pfn.raw() * words + word);
        hasher.Add(value);
      }
    }
  }
}

}  // namespace mmlab

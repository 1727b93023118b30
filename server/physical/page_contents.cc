#include "server/physical/page_contents.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

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

void PageContents::FreeSlot(Slot slot) {
  if (IsPage(slot)) {
    std::free(PageOf(slot));
  } else if (IsSmall(slot)) {
    delete SmallOf(slot);
  }
}

void PageContents::ClearSlots(Slot* slots, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    if (IsPage(slots[i])) {
      --pages_;
    } else if (IsSmall(slots[i])) {
      --smalls_;
    }
    FreeSlot(slots[i]);
    slots[i] = 0;
  }
}

PageContents::Slot PageContents::Duplicate(Slot slot, uint64_t page_bytes) {
  if (IsPage(slot)) {
    void* page = std::malloc(page_bytes);
    if (page == nullptr) throw std::bad_alloc();
    std::memcpy(page, PageOf(slot), page_bytes);
    return reinterpret_cast<Slot>(page);
  }
  return IsSmall(slot) ? reinterpret_cast<Slot>(new SmallRecord(*SmallOf(slot))) + 2 : slot;
}

SavedPage PageContents::Save(Pfn pfn) const {
  return SavedPage(Duplicate(SlotOf(static_cast<uint32_t>(pfn.raw())), page_size_.bytes().raw()));
}

void PageContents::Restore(Pfn pfn, const SavedPage& saved) {
  Clear(pfn);
  if (saved.slot() == 0) return;
  MakeSlot(static_cast<uint32_t>(pfn.raw())) = Duplicate(saved.slot(), page_size_.bytes().raw());
  if (IsPage(saved.slot())) {
    ++pages_;
  } else if (IsSmall(saved.slot())) {
    ++smalls_;
  }
}

void SavedPage::Free() {
  PageContents::FreeSlot(slot_);
  slot_ = 0;
}

void SavedPage::AddToHash(PageSize page_size, StateHasher& hasher) const {
  if (slot_ == 0) return;
  std::vector<uint64_t> words(page_size.bytes().raw() / sizeof(uint64_t));
  if (PageContents::IsPage(slot_)) {
    std::memcpy(words.data(), PageContents::PageOf(slot_), page_size.bytes().raw());
  } else {
    const PageContents::Window window = PageContents::WindowOf(slot_);
    const size_t room = page_size.bytes().raw() - window.offset;
    std::memcpy(reinterpret_cast<uint8_t*>(words.data()) + window.offset, window.bytes, std::min(window.size, room));
  }
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == 0) continue;
    hasher.Add(i);
    hasher.Add(words[i]);
  }
}

uint64_t SavedPage::HostMemory(PageSize page_size) const {
  if (PageContents::IsPage(slot_)) return page_size.bytes().raw();
  return PageContents::IsSmall(slot_) ? sizeof(PageContents::SmallRecord) : 0;
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

PageContents::Window PageContents::WindowOf(Slot slot) {
  Window window;
  if (slot == 0) return window;
  if (IsSmall(slot)) {
    window.offset = SmallOf(slot)->offset;
    window.size = kSmallBytes;
    std::memcpy(window.bytes, SmallOf(slot)->bytes, kSmallBytes);
  } else {
    window.offset = (slot >> 1) & (kInlineOffsets - 1);
    window.size = kInlineBytes;
    for (size_t i = 0; i < kInlineBytes; ++i) window.bytes[i] = static_cast<uint8_t>(slot >> (16 + 8 * i));
  }
  return window;
}

uint8_t* PageContents::MakePage(Pfn pfn) const {
  // Const, because making the page exist does not change what it reads as.
  auto& self = const_cast<PageContents&>(*this);
  Slot& slot = self.MakeSlot(static_cast<uint32_t>(pfn.raw()));
  if (IsPage(slot)) return PageOf(slot);
  auto* page = static_cast<uint8_t*>(std::calloc(1, page_size_.bytes().raw()));
  if (page == nullptr) throw std::bad_alloc();
  const Window window = WindowOf(slot);
  std::memcpy(page + window.offset, window.bytes, std::min(window.size, page_size_.bytes().raw() - window.offset));
  self.ClearSlots(&slot, 1);
  ++pages_;
  slot = reinterpret_cast<Slot>(page);
  return page;
}

const uint8_t* PageContents::BytesIfAny(Pfn pfn) const {
  const Slot slot = SlotOf(static_cast<uint32_t>(pfn.raw()));
  if (slot == 0) return nullptr;
  return IsPage(slot) ? PageOf(slot) : MakePage(pfn);
}

void PageContents::ReadWindow(Slot slot, size_t offset, void* out, size_t size) {
  std::memset(out, 0, size);
  const Window window = WindowOf(slot);
  const size_t from = std::max(offset, window.offset);
  const size_t to = std::min(offset + size, window.offset + window.size);
  if (from < to) std::memcpy(static_cast<uint8_t*>(out) + (from - offset), window.bytes + (from - window.offset), to - from);
}

// Makes a slot without a page hold these bytes. REQUIRES: size <= kSmallBytes.
void PageContents::StoreWindow(Slot& slot, size_t offset, const uint8_t* bytes, size_t size) {
  if (size <= kInlineBytes && offset < kInlineOffsets) {
    ClearSlots(&slot, 1);
    if (size == 0) return;
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) value |= uint64_t{bytes[i]} << (8 * i);
    slot = value << 16 | offset << 1 | 1;
    return;
  }
  if (!IsSmall(slot)) {
    slot = reinterpret_cast<Slot>(new SmallRecord()) + 2;
    ++smalls_;
  }
  SmallRecord* record = SmallOf(slot);
  *record = SmallRecord();
  record->offset = static_cast<uint32_t>(offset);
  std::memcpy(record->bytes, bytes, size);
}

// Whether the bytes other than zero, after this write, lie within one record; then it is written.
bool PageContents::WriteWindow(Slot& slot, size_t offset, const uint8_t* data, size_t size) {
  if (size > kSmallBytes) return false;
  std::array<uint8_t, 3 * kSmallBytes> together{};
  const Window old = WindowOf(slot);
  size_t base = offset;
  size_t end = offset + size;
  if (old.size != 0) {
    base = std::min(base, old.offset);
    end = std::max(end, old.offset + old.size);
    if (end - base > together.size()) return false;
    std::memcpy(together.data() + (old.offset - base), old.bytes, old.size);
  }
  std::memcpy(together.data() + (offset - base), data, size);
  size_t first = 0;
  size_t last = end - base;
  while (first < last && together[first] == 0) ++first;
  while (last > first && together[last - 1] == 0) --last;
  if (last - first > kSmallBytes) return false;
  StoreWindow(slot, base + first, together.data() + first, last - first);
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
  if (WriteWindow(MakeSlot(number), offset, bytes, size)) return;
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
  if (source == 0) return;
  const Window window = WindowOf(source);
  StoreWindow(MakeSlot(static_cast<uint32_t>(to.raw())), window.offset, window.bytes, window.size);
}

uint64_t PageContents::HostMemory() const {
  constexpr uint64_t kHostPage = 4096;
  constexpr uint64_t kHeapOverhead = 16;
  const uint64_t array = std::min<uint64_t>(chunk_count_ * sizeof(Slot*), (uint64_t{chunks_} + 1) * kHostPage);
  return array + uint64_t{chunks_} * kChunkSlots * sizeof(Slot) + smalls_ * (sizeof(SmallRecord) + kHeapOverhead) +
         pages_ * (page_size_.bytes().raw() + kHeapOverhead);
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

#ifndef MMLAB_SERVER_FILES_PAGE_SLOTS_H_
#define MMLAB_SERVER_FILES_PAGE_SLOTS_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "server/base/address.h"
#include "server/base/hash.h"
#include "server/files/swap_entry.h"
#include "server/kernel/kernel_objects.h"

namespace mmlab {

// What a file has at each of its pages: the page in memory, its place on a swap area, or what reclaim left behind of it. All three are
// entries of one tree, so that evicting a page stores one word over another. Linux: the xarray i_pages of struct address_space,
// lib/xarray.c.
//
// Always true: the tree has the nodes that the kernel's would have, of 64 entries each and never empty; a single entry at index 0 needs
// none. Each node is an object of radix_tree_node.
class PageSlots {
 public:
  enum class Kind : uint8_t { kPage = 0, kShadow = 1, kSwapped = 2 };
  static constexpr size_t kKinds = 3;

  PageSlots() = default;
  ~PageSlots() { Free(root_); }
  PageSlots(const PageSlots&) = delete;
  PageSlots& operator=(const PageSlots&) = delete;

  // Where nodes are accounted from now on; it outlives this. Null: nowhere.
  void SetKernelObjects(KernelObjects* objects) { objects_ = objects; }

  std::optional<Pfn> Find(PageIndex index) const {
    const uint64_t* page = Entry(index, Kind::kPage);
    return page == nullptr ? std::nullopt : std::optional<Pfn>(Pfn(*page));
  }
  std::optional<SwapEntry> FindSwapped(PageIndex index) const {
    const uint64_t* swapped = Entry(index, Kind::kSwapped);
    return swapped == nullptr ? std::nullopt : std::optional<SwapEntry>(SwapEntry::FromRaw(*swapped));
  }
  // Puts a page in the place of whatever was there; the shadow that it had left behind, 0 for none.
  uint64_t Insert(PageIndex index, Pfn pfn);
  // REQUIRES: a page is there.
  void Replace(PageIndex index, Pfn pfn);
  void Evict(PageIndex index, uint64_t shadow) { Store(index, Kind::kShadow, shadow); }
  void MoveToSwap(PageIndex index, SwapEntry entry) { Store(index, Kind::kSwapped, entry.raw()); }
  void Erase(PageIndex index);
  void EraseShadows(PageIndex first, PageIndex end);

  uint64_t pages() const { return counts_[0]; }
  uint64_t shadows() const { return counts_[1]; }
  uint64_t swapped() const { return counts_[2]; }
  uint64_t nodes() const { return nodes_; }

  // Those of one kind with first <= index < end, ascending. What is there may change meanwhile: the next one is looked for when it is asked
  // for.
  template <Kind kKind, typename Value>
  class Entries {
   public:
    struct Item {
      PageIndex index;
      Value value;
    };
    class Iterator {
     public:
      Iterator(const PageSlots& slots, uint64_t at, uint64_t end) : slots_(slots), end_(end) { Seek(at); }
      Item operator*() const {
        if constexpr (kKind == Kind::kSwapped) {
          return {PageIndex(at_), SwapEntry::FromRaw(value_)};
        } else {
          return {PageIndex(at_), Value(value_)};
        }
      }
      Iterator& operator++() {
        Seek(at_ + 1);
        return *this;
      }
      bool operator!=(std::nullptr_t) const { return found_; }

     private:
      void Seek(uint64_t at) { found_ = at < end_ && slots_.Next(at, kKind, &at_, &value_) && at_ < end_; }

      const PageSlots& slots_;
      uint64_t end_;
      uint64_t at_ = 0;
      uint64_t value_ = 0;
      bool found_ = false;
    };

    Entries(const PageSlots& slots, PageIndex first, PageIndex end) : slots_(slots), first_(first.raw()), end_(end.raw()) {}
    Iterator begin() const { return Iterator(slots_, first_, end_); }
    std::nullptr_t end() const { return nullptr; }
    bool empty() const { return !(begin() != nullptr); }

   private:
    const PageSlots& slots_;
    uint64_t first_;
    uint64_t end_;
  };
  static constexpr PageIndex kEnd{~uint64_t{0}};
  Entries<Kind::kPage, Pfn> Pages(PageIndex first = PageIndex(), PageIndex end = kEnd) const { return {*this, first, end}; }
  Entries<Kind::kShadow, uint64_t> Shadows(PageIndex first = PageIndex(), PageIndex end = kEnd) const { return {*this, first, end}; }
  Entries<Kind::kSwapped, SwapEntry> Swapped(PageIndex first = PageIndex(), PageIndex end = kEnd) const { return {*this, first, end}; }

  void AddToHash(StateHasher& hasher) const;
  uint64_t HostMemory() const { return nodes_ * sizeof(Node); }

 private:
  static constexpr unsigned kShift = 6;  // XA_CHUNK_SHIFT
  static constexpr unsigned kEntries = 1u << kShift;

  // Linux: struct xa_node.
  struct Node {
    Node* parent = nullptr;
    uint8_t shift = 0;                       // Of an index, to get an entry's place here; 0: a leaf.
    uint8_t offset = 0;                      // Place in the parent.
    std::array<uint64_t, kKinds> of_kind{};  // Of a leaf: which entries are of which kind. Of others: [0], which children there are.
    KernelObjectRef object;
    union {
      std::array<uint64_t, kEntries> entries{};
      std::array<Node*, kEntries> children;
    };
    bool empty() const { return (of_kind[0] | of_kind[1] | of_kind[2]) == 0; }
  };

  const uint64_t* Entry(PageIndex index, Kind kind) const {
    const uint64_t raw = index.raw();
    const Node* leaf = LeafOf(raw);
    if (leaf == nullptr) return raw == 0 && head_kind_ == kind ? &head_ : nullptr;
    const uint64_t at = raw % kEntries;
    return (leaf->of_kind[static_cast<size_t>(kind)] >> at & 1) != 0 ? &leaf->entries[at] : nullptr;
  }
  Node* LeafOf(uint64_t index) const { return last_ != nullptr && index >> kShift == last_block_ ? last_ : FindLeaf(index); }
  Node* FindLeaf(uint64_t index) const;
  Node* MakeLeaf(uint64_t index);
  Node* NewNode(Node* parent, unsigned shift, unsigned offset);
  void Delete(Node* node);
  void Free(Node* node);
  void Shrink();
  void Store(PageIndex index, Kind kind, uint64_t value);
  std::optional<Kind> KindAt(uint64_t index) const;
  bool Next(uint64_t from, Kind kind, uint64_t* index, uint64_t* value) const;

  KernelObjects* objects_ = nullptr;
  Node* root_ = nullptr;
  std::optional<Kind> head_kind_;  // Without a root: what is at index 0,
  uint64_t head_ = 0;              // and its value.
  std::array<uint64_t, kKinds> counts_{};
  uint64_t nodes_ = 0;
  mutable Node* last_ = nullptr;     // The leaf that was used last,
  mutable uint64_t last_block_ = 0;  // and which one it is.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_PAGE_SLOTS_H_

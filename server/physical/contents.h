#ifndef MMLAB_SERVER_PHYSICAL_CONTENTS_H_
#define MMLAB_SERVER_PHYSICAL_CONTENTS_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "server/base/address.h"

namespace mmlab {

class StateHasher;

// The bytes of a page that is not in any frame: on a swap area. Takes host memory only where they are not zero.
class SavedPage {
 public:
  SavedPage() = default;
  explicit SavedPage(uint64_t slot) : slot_(slot) {}
  SavedPage(SavedPage&& other) noexcept : slot_(std::exchange(other.slot_, 0)) {}
  SavedPage& operator=(SavedPage&& other) noexcept {
    if (this != &other) {
      Clear();
      slot_ = std::exchange(other.slot_, 0);
    }
    return *this;
  }
  ~SavedPage() { Clear(); }

  void Clear() {
    if (slot_ != 0) Free();
  }
  uint64_t slot() const { return slot_; }
  uint64_t HostMemory(PageSize page_size) const;
  void AddToHash(PageSize page_size, StateHasher& hasher) const;

 private:
  void Free();
  uint64_t slot_ = 0;  // As PageContents keeps a page.
};

// The bytes in physical memory. Host memory is used only for frames in which somebody wrote something other than zero.
// An interface: PhysicalMemory implements it next to the frame blocks.
//
// Always true: a frame whose bytes were never written since Clear() reads as zero.
class FrameContents {
 public:
  virtual ~FrameContents() = default;

  // REQUIRES: offset + size <= page size.
  virtual void Read(Pfn pfn, size_t offset, void* out, size_t size) const = 0;
  virtual void Write(Pfn pfn, size_t offset, const void* data, size_t size) = 0;
  virtual void Copy(Pfn from, Pfn to) = 0;  // The whole page (copy_user_highpage).
  virtual void Clear(Pfn pfn) = 0;          // All zero, and the host memory given back (clear_highpage).
  // A copy of the page to keep elsewhere, and back into a frame.
  virtual SavedPage Save(Pfn pfn) const = 0;
  virtual void Restore(Pfn pfn, const SavedPage& saved) = 0;

  // The page as it lies in host memory, for page tables: page-size bytes, stable until Clear(pfn) or the frame is freed.
  // Makes it exist if it does not.
  virtual uint8_t* Bytes(Pfn pfn) = 0;
  // Null when the whole page is zero and takes no host memory.
  virtual const uint8_t* BytesIfAny(Pfn pfn) const = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_CONTENTS_H_

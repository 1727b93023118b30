#ifndef MMLAB_SERVER_PROCESS_ANON_VMA_CHAIN_H_
#define MMLAB_SERVER_PROCESS_ANON_VMA_CHAIN_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace mmlab {

class AnonVma;

// The AnonVmas that a VMA is linked to, newest first. Nearly always none or one, so it is as large as one pointer: to that one, or, with
// its lowest bit set, to a list. Linux: vm_area_struct.anon_vma_chain.
class AnonVmaChain {
 public:
  AnonVmaChain() = default;
  AnonVmaChain(const AnonVmaChain& other) : value_(other.many() ? Tagged(new List(*other.list())) : other.value_) {}
  AnonVmaChain(AnonVmaChain&& other) noexcept : value_(std::exchange(other.value_, nullptr)) {}
  AnonVmaChain& operator=(AnonVmaChain other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~AnonVmaChain() { clear(); }

  AnonVma* const* begin() const { return many() ? list()->data() : &value_; }
  AnonVma* const* end() const { return begin() + size(); }
  size_t size() const { return many() ? list()->size() : value_ != nullptr ? 1 : 0; }

  void PushFront(AnonVma* anon_vma) {
    if (value_ == nullptr) {
      value_ = anon_vma;
      return;
    }
    if (!many()) value_ = Tagged(new List{value_});
    list()->insert(list()->begin(), anon_vma);
  }
  void clear() {
    if (many()) delete list();
    value_ = nullptr;
  }
  // Of a list, beside the pointer itself.
  size_t HostMemory() const { return many() ? sizeof(List) + list()->capacity() * sizeof(AnonVma*) : 0; }

 private:
  using List = std::vector<AnonVma*>;
  static AnonVma* Tagged(List* list) { return reinterpret_cast<AnonVma*>(reinterpret_cast<uintptr_t>(list) | 1); }
  bool many() const { return (reinterpret_cast<uintptr_t>(value_) & 1) != 0; }
  List* list() const { return reinterpret_cast<List*>(reinterpret_cast<uintptr_t>(value_) & ~uintptr_t{1}); }

  AnonVma* value_ = nullptr;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_ANON_VMA_CHAIN_H_

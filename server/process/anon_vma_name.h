#ifndef MMLAB_SERVER_PROCESS_ANON_VMA_NAME_H_
#define MMLAB_SERVER_PROCESS_ANON_VMA_NAME_H_

#include <cstdint>
#include <string>
#include <utility>

namespace mmlab {

// The name of anonymous memory, shared by the VMAs that have it, or none. As large as one pointer. Linux: struct anon_vma_name,
// include/linux/mm_types.h. Not thread-safe: the machine's lane.
class AnonVmaName {
 public:
  AnonVmaName() = default;
  explicit AnonVmaName(std::string text) : shared_(new Shared{1, std::move(text)}) {}
  AnonVmaName(const AnonVmaName& other) : shared_(other.shared_) {
    if (shared_ != nullptr) ++shared_->references;
  }
  AnonVmaName(AnonVmaName&& other) noexcept : shared_(std::exchange(other.shared_, nullptr)) {}
  AnonVmaName& operator=(AnonVmaName other) noexcept {
    std::swap(shared_, other.shared_);
    return *this;
  }
  ~AnonVmaName() {
    if (shared_ != nullptr && --shared_->references == 0) delete shared_;
  }

  const std::string* get() const { return shared_ == nullptr ? nullptr : &shared_->text; }  // Null: none.

 private:
  struct Shared {
    uint32_t references;
    std::string text;
  };
  Shared* shared_ = nullptr;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_ANON_VMA_NAME_H_

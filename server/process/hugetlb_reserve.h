#ifndef MMLAB_SERVER_PROCESS_HUGETLB_RESERVE_H_
#define MMLAB_SERVER_PROCESS_HUGETLB_RESERVE_H_

#include <cstdint>
#include <utility>

#include "server/files/reserve_map.h"

namespace mmlab {

// Which of the huge pages that a private mapping reserved were taken; shared by the VMAs that the mapping was cut into, or none. As large
// as one pointer. Linux: vma_resv_map() with HPAGE_RESV_OWNER, mm/hugetlb.c. Not thread-safe: the machine's lane.
class HugetlbReserve {
 public:
  HugetlbReserve() = default;
  HugetlbReserve(const HugetlbReserve& other) : shared_(other.shared_) {
    if (shared_ != nullptr) ++shared_->references;
  }
  HugetlbReserve(HugetlbReserve&& other) noexcept : shared_(std::exchange(other.shared_, nullptr)) {}
  HugetlbReserve& operator=(HugetlbReserve other) noexcept {
    std::swap(shared_, other.shared_);
    return *this;
  }
  ~HugetlbReserve() {
    if (shared_ != nullptr && --shared_->references == 0) delete shared_;
  }
  static HugetlbReserve Make() {
    HugetlbReserve made;
    made.shared_ = new Shared;
    return made;
  }

  ReserveMap* get() const { return shared_ == nullptr ? nullptr : &shared_->taken; }  // Null: nothing is reserved.

 private:
  struct Shared {
    uint32_t references = 1;
    ReserveMap taken;
  };
  Shared* shared_ = nullptr;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_HUGETLB_RESERVE_H_

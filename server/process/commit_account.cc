#include "server/process/commit_account.h"

#include <algorithm>

#include "server/files/hugetlb_pools.h"
#include "server/process/address_space.h"
#include "server/process/process.h"

namespace mmlab {
namespace {

constexpr int kPagesShift = 2;  // KiB to pages.

}  // namespace

int64_t CommitAccount::limit() const {
  int64_t allowed = limits_.overcommit_kbytes >> kPagesShift;
  if (limits_.overcommit_kbytes == 0) {
    const auto ram = static_cast<int64_t>(limits_.total_ram.raw()) - static_cast<int64_t>(hugetlb_.total_pages());
    allowed = ram * limits_.overcommit_ratio / 100;
  }
  return allowed + static_cast<int64_t>(limits_.total_swap.raw());
}

// __vm_enough_memory() after the pages were added to the charge.
bool CommitAccount::Enough(int64_t pages) const {
  Explanation* why = tracer_.explanation();
  if (limits_.overcommit_memory == 1) {
    if (why != nullptr) why->Add(StepKind::kOvercommit, "vm.overcommit_memory = 1: always granted").Pages("pages", pages);
    return true;
  }
  if (limits_.overcommit_memory == 0) {
    const auto total = static_cast<int64_t>(limits_.total_ram.raw() + limits_.total_swap.raw());
    if (why != nullptr) {
      why->Add(StepKind::kOvercommit, "vm.overcommit_memory = 0: refused only when one request exceeds RAM and swap together")
          .Pages("pages", pages)
          .Pages("ram_and_swap", total)
          .Truth("granted", pages <= total);
    }
    return pages <= total;
  }
  int64_t allowed = limit();
  const int64_t admin_reserve = current_ != nullptr && current_->capable() ? 0 : limits_.admin_reserve_kbytes >> kPagesShift;
  int64_t user_reserve = 0;
  if (current_ != nullptr && current_->mm != nullptr) {
    user_reserve = std::min(static_cast<int64_t>(current_->mm->total_vm.raw()) / 32, limits_.user_reserve_kbytes >> kPagesShift);
  }
  allowed -= admin_reserve + user_reserve;
  const bool granted = std::max<int64_t>(committed_, 0) < allowed;
  if (why != nullptr) {
    why->Add(StepKind::kOvercommit, "vm.overcommit_memory = 2: the charge must stay below the limit less reserves")
        .Pages("pages", pages)
        .Pages("charge_with_them", committed_)
        .Pages("commit_limit", limit())
        .Pages("admin_reserve", admin_reserve)
        .Pages("user_reserve", user_reserve)
        .Truth("granted", granted);
  }
  return granted;
}

bool CommitAccount::Charge(int64_t pages) {
  committed_ += pages;
  if (Enough(pages)) return true;
  committed_ -= pages;
  return false;
}

}  // namespace mmlab

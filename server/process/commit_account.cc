#include "server/process/commit_account.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/base/kernel_logger.h"
#include "server/files/hugetlb_pools.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/process.h"

namespace mmlab {
namespace {

constexpr int kPagesShift = 2;  // KiB to pages.

}  // namespace

CommitAccount::CommitAccount(const ProcessLimits& limits, const PhysicalMemory& memory, const HugetlbPools& hugetlb, const Tracer& tracer)
    : limits_(limits), memory_(memory), hugetlb_(hugetlb), tracer_(tracer), committed_(0, memory.cpus()) {}

// mm_compute_batch(): 0.4 % of what RAM there is for each CPU where the limit is to hold, a quarter of it elsewhere.
int32_t CommitAccount::batch() const {
  const auto cpus = static_cast<uint64_t>(memory_.cpus());
  const uint64_t of_memory = limits_.total_ram.raw() / cpus / (limits_.overcommit_memory == 2 ? 256 : 4);
  const auto most = static_cast<uint64_t>(std::numeric_limits<int32_t>::max());
  return std::max(PercpuCounter::DefaultBatch(memory_.cpus()), static_cast<int32_t>(std::min(of_memory, most)));
}

void CommitAccount::Add(int64_t pages) { committed_.Add(memory_.current_cpu(), pages, batch()); }

void CommitAccount::Sync() {
  for (int cpu = 0; cpu < committed_.cpus(); ++cpu) committed_.Sync(cpu);
}

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
  const bool granted = approximately() < allowed;
  if (why != nullptr) {
    why->Add(StepKind::kOvercommit, "vm.overcommit_memory = 2: the charge must stay below the limit less reserves")
        .Pages("pages", pages)
        .Pages("charge_with_them", committed())
        .Pages("known_of_it", approximately())
        .Pages("batch", batch())
        .Pages("commit_limit", limit())
        .Pages("admin_reserve", admin_reserve)
        .Pages("user_reserve", user_reserve)
        .Truth("granted", granted);
  }
  return granted;
}

bool CommitAccount::Charge(int64_t pages) {
  Add(pages);
  if (Enough(pages)) return true;
  if (log_ != nullptr && log_->Allows(LimitedMessage::kVmEnoughMemory)) {
    log_->Log(LogLevel::kWarning,
              absl::StrCat("__vm_enough_memory: pid: ", current_ == nullptr ? 0 : current_->pid.raw(),
                           ", comm: ", current_ == nullptr ? "swapper/0" : current_->comm, ", no enough memory for the allocation"));
  }
  Add(-pages);
  return false;
}

}  // namespace mmlab

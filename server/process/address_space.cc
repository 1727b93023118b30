#include "server/process/address_space.h"

#include <algorithm>

namespace mmlab {
namespace {

PageCount Add(PageCount count, int64_t pages) {
  return pages >= 0 ? count + PageCount(static_cast<uint64_t>(pages)) : count - PageCount(static_cast<uint64_t>(-pages));
}

}  // namespace

PageCount AddressSpace::rss_total() const {
  uint64_t sum = 0;
  for (RssKind kind : {RssKind::kFile, RssKind::kAnon, RssKind::kShmem}) {
    sum += static_cast<uint64_t>(std::max<int64_t>(0, rss[static_cast<int>(kind)]));
  }
  return PageCount(sum);
}

void AddressSpace::UpdateHiwaterVm() { hiwater_vm = std::max(hiwater_vm, total_vm); }

void AddressSpace::UpdateHiwaterRss() { hiwater_rss = std::max(hiwater_rss, rss_total()); }

void AddressSpace::Account(uint64_t vm_flags, int64_t pages) {
  total_vm = Add(total_vm, pages);
  if ((vm_flags & (kVmWrite | kVmExec | kVmGrowsDown)) == kVmExec) {
    exec_vm = Add(exec_vm, pages);
  } else if ((vm_flags & kVmGrowsDown) != 0) {
    stack_vm = Add(stack_vm, pages);
  } else if ((vm_flags & (kVmWrite | kVmShared)) == kVmWrite) {
    data_vm = Add(data_vm, pages);
  }
}

}  // namespace mmlab

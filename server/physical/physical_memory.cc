#include "server/physical/physical_memory.h"

#include "server/physical/lru_lists.h"
#include "server/physical/memory_controller.h"

namespace mmlab {
namespace {

// A machine's operations take none of its time, so how long a read takes is a figure: that of a disk which is quick.
constexpr int64_t kReadNanoseconds = 100'000;

}  // namespace

std::optional<Pfn> PhysicalMemory::Charged(Pfn pfn) {
  if (charger_->ChargePage(pfn, PageOrder(0), kGfpKernel)) return pfn;
  FreePages(pfn, PageOrder(0));
  return std::nullopt;
}

void PhysicalMemory::WaitForRead(Pfn pfn) {
  if (controller_ == nullptr) return;
  controller_->Stall(StallKind::kIo, kReadNanoseconds);
  if ((frame(pfn).flags & kPgWorkingset) != 0) controller_->Stall(StallKind::kMemory, kReadNanoseconds);
}

void PhysicalMemory::CountCharged(const Frame& frame, NodeStat item, int64_t delta) { lru().AddStat(frame, item, delta); }

}  // namespace mmlab

// Who is charged for a page, and what happens when a limit is reached. Linux: mm/memcontrol.c (try_charge_memcg() and its neighbours).
#include <algorithm>
#include <utility>

#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/cgroup/cgroup_pressure.h"
#include "server/cgroup/cgroups.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr int kReclaimRetries = 16;  // MAX_RECLAIM_RETRIES
constexpr uint64_t kSwapClusterMax = 32;

// memory.high: how long a process that allocates too much sleeps.
constexpr uint64_t kTicksPerSecond = 250;  // CONFIG_HZ
constexpr int64_t kTickNanoseconds = 4'000'000;
constexpr uint64_t kMostDelayTicks = 2 * kTicksPerSecond;  // MEMCG_MAX_HIGH_DELAY_JIFFIES
constexpr int kOveragePrecision = 20;                      // MEMCG_DELAY_PRECISION_SHIFT
constexpr int kDelayScaling = 14;                          // MEMCG_DELAY_SCALING_SHIFT

// calculate_overage(): by how much, of the limit, in fixed point.
uint64_t Overage(const PageCounter& counter) {
  if (counter.usage <= counter.high) return 0;
  return ((counter.usage - counter.high) << kOveragePrecision) / std::max<uint64_t>(counter.high, 1);
}

// calculate_high_delay(), in ticks.
uint64_t DelayOf(uint64_t overage, uint64_t pages) {
  const uint64_t ticks = (overage * overage * kTicksPerSecond) >> kOveragePrecision >> kDelayScaling;
  return ticks * pages / Cgroups::kChargeBatch;
}

}  // namespace

Cgroups::Stock& Cgroups::stock() { return stocks_[static_cast<size_t>(memory_.current_cpu())]; }

Memcg* Cgroups::ChargeCounters(uint16_t number, uint64_t pages) {
  for (uint16_t at = number; at != 0; at = of(at).parent) {
    PageCounter& counter = of(at).memory;
    if (counter.usage + pages > counter.max) {
      ++counter.failures;
      for (uint16_t below = number; below != at; below = of(below).parent) of(below).memory.usage -= pages;
      return &of(at);
    }
    counter.usage += pages;
    counter.watermark = std::max(counter.watermark, counter.usage);
  }
  return nullptr;
}

// page_counter_charge()
void Cgroups::ForceCharge(uint16_t number, uint64_t pages, bool raise_peak) {
  for (uint16_t at = number; at != 0; at = of(at).parent) {
    PageCounter& counter = of(at).memory;
    counter.usage += pages;
    if (raise_peak) counter.watermark = std::max(counter.watermark, counter.usage);
  }
}

void Cgroups::UnchargeCounters(uint16_t number, uint64_t pages) {
  for (uint16_t at = number; at != 0; at = of(at).parent) {
    MMLAB_CHECK(of(at).memory.usage >= pages);
    of(at).memory.usage -= pages;
  }
}

bool Cgroups::ConsumeStock(uint16_t number, uint64_t pages) {
  Stock& stock = this->stock();
  if (stock.memcg != number || stock.pages < pages) return false;
  stock.pages -= pages;
  return true;
}

void Cgroups::DrainStock(Stock& stock) {
  if (const uint64_t pages = std::exchange(stock.pages, 0); pages > 0) UnchargeCounters(stock.memcg, pages);
  stock.memcg = 0;
}

void Cgroups::RefillStock(Stock& stock, uint16_t number, uint64_t pages) {
  if (number == 0) return;
  if (stock.memcg != number) {
    DrainStock(stock);
    stock.memcg = number;
  }
  stock.pages += pages;
  if (stock.pages <= kChargeBatch) return;
  DrainStock(stock);
}

void Cgroups::DrainAllStock(uint16_t root) {
  for (Stock& stock : stocks_) {
    const uint16_t objects_of = stock.objects_of == 0 ? uint16_t{0} : memory_.lru().kernel_owner(stock.objects_of);
    const bool pages = stock.pages > 0 && IsWithin(stock.memcg, root);
    if (!pages && (objects_of == 0 || !IsWithin(objects_of, root))) continue;
    DrainObjectStock(stock);
    DrainStock(stock);
  }
}

void Cgroups::Refused(const Memcg& over, uint64_t pages) const {
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kCgroupCharge, "the charge would go above memory.max: pages of this cgroup have to be freed first")
        .Text("cgroup", over.path)
        .Pages("usage", PageCount(over.memory.usage))
        .Pages("max", PageCount(over.memory.max))
        .Pages("charge", PageCount(pages));
  }
}

uint64_t Cgroups::ReclaimFrom(uint16_t number, uint64_t pages) {
  if (pressure_ == nullptr) return 0;
  reclaiming_ = true;
  const uint64_t freed = pressure_->ReclaimCgroup(number, pages);
  reclaiming_ = false;
  return freed;
}

uint64_t Cgroups::StallInReclaim(uint16_t number, uint64_t pages) {
  const uint64_t freed = ReclaimFrom(number, pages);
  Stall(StallKind::kMemory, static_cast<int64_t>(freed) * kReclaimNanosecondsPerPage);
  return freed;
}

bool Cgroups::TryCharge(uint16_t number, uint64_t pages, Gfp gfp) {
  uint64_t batch = std::max(kChargeBatch, pages);
  int retries = kReclaimRetries;
  bool drained = false;
  bool killed = false;
  while (true) {
    if (ConsumeStock(number, pages)) return true;
    Memcg* const over = ChargeCounters(number, batch);
    if (over == nullptr) break;
    if (batch > pages) {
      batch = pages;
      continue;
    }
    const uint16_t limited = over->number;
    const bool blocks = (gfp & kGfpDirectReclaim) != 0;
    if (reclaiming_ || (!blocks && (gfp & (kGfpNoFail | kGfpHigh)) != 0)) {
      // It has to go on: the limit is overrun for a while.
      CountMemcgEvent(limited, MemcgEvent::kMax);
      ForceCharge(number, pages);
      return true;
    }
    if (!blocks) return false;
    CountMemcgEvent(limited, MemcgEvent::kMax);
    Refused(*over, pages);
    const uint64_t freed = StallInReclaim(limited, pages);
    const PageCounter& counter = of(limited).memory;
    if (counter.usage + pages <= counter.max) continue;
    if (!drained) {
      DrainAllStock(limited);
      drained = true;
      continue;
    }
    if ((gfp & kGfpNoRetry) != 0) return false;
    if (freed > 0 && pages <= uint64_t{1} << kCostlyOrder) continue;
    if (retries-- > 0) continue;
    if ((gfp & kGfpRetryMayFail) != 0 || pressure_ == nullptr) return false;
    if (killed && pressure_->ActingProcessDies()) return false;
    int order = 0;
    while (uint64_t{1} << order < pages) ++order;
    if (order > kCostlyOrder) return false;
    CountMemcgEvent(limited, MemcgEvent::kOom);
    if (!pressure_->CgroupOutOfMemory(limited, gfp, order)) return false;
    killed = true;
    retries = kReclaimRetries;
  }
  if (batch > pages) RefillStock(stock(), number, batch - pages);
  NoteOverHigh(number, batch);
  return true;
}

void Cgroups::NoteOverHigh(uint16_t number, uint64_t pages) {
  for (uint16_t at = number; at != 0; at = of(at).parent) {
    const Memcg& memcg = of(at);
    if (memcg.memory.usage <= memcg.memory.high && memcg.swap.usage <= memcg.swap.high) continue;
    over_high_ += pages;
    return;
  }
}

bool Cgroups::CommitCharge(Pfn head, int order, uint16_t number, bool kernel, Gfp gfp) {
  const uint64_t pages = uint64_t{1} << order;
  if (number == 0) return true;
  if (!TryCharge(number, pages, gfp)) return false;
  Frame& frame = memory_.frame(head);
  frame.memcg = number;
  of(number).frames += pages;
  if (kernel) {
    frame.flags |= kPgKernelCharge;
    of(number).kernel_pages += pages;
    of(number).kernel_frames += pages;
  }
  return true;
}

bool Cgroups::ChargePage(Pfn head, PageOrder order, Gfp gfp) {
  return CommitCharge(head, order.raw(), cgroups_[current_]->memcg, false, gfp);
}

bool Cgroups::ChargeAgain(Pfn head, PageOrder order, uint16_t memcg, Gfp gfp) {
  const bool there = memcg != 0 && Exists(memcg) && memcgs_[memcg]->online;
  return CommitCharge(head, order.raw(), there ? memcg : cgroups_[current_]->memcg, false, gfp);
}

bool Cgroups::ChargeKernelPages(Pfn head, int order, Gfp gfp) { return CommitCharge(head, order, cgroups_[current_]->memcg, true, gfp); }

void Cgroups::Uncharge(Pfn head, int order) {
  const uint64_t pages = uint64_t{1} << order;
  Frame& frame = memory_.frame(head);
  const uint16_t number = std::exchange(frame.memcg, uint16_t{0});
  Memcg& memcg = of(number);
  MMLAB_CHECK(memcg.frames >= pages);
  memcg.frames -= pages;
  if ((frame.flags & kPgKernelCharge) != 0) {
    memcg.kernel_frames -= pages;
    if (const uint16_t owner = memory_.lru().kernel_owner(number); owner != 0) {
      of(owner).kernel_pages -= pages;
      RefillStock(stock(), owner, pages);
    }
  } else {
    UnchargeCounters(number, pages);
  }
  if (!memcg.online) ReleaseIfUnused(number);
}

void Cgroups::CountEvent(VmEvent item) { memory_.lru().CountOnly(cgroups_[current_]->memcg, item); }

void Cgroups::ReturnToUser() {
  if (over_high_ > 0) HandleOverHigh();
}

uint64_t Cgroups::ReclaimHigh(uint16_t number, uint64_t pages) {
  uint64_t freed = 0;
  for (uint16_t at = number; at != 0; at = of(at).parent) {
    if (of(at).memory.usage <= of(at).memory.high) continue;
    CountMemcgEvent(at, MemcgEvent::kHigh);
    freed += StallInReclaim(at, pages);
  }
  return freed;
}

// mem_find_max_overage() and swap_find_max_overage(), and the delay that follows.
uint64_t Cgroups::HighDelay(uint16_t number, uint64_t pages) {
  uint64_t memory = 0;
  uint64_t swap = 0;
  for (uint16_t at = number; at != 0; at = of(at).parent) {
    memory = std::max(memory, Overage(of(at).memory));
    const uint64_t of_swap = Overage(of(at).swap);
    if (of_swap > 0) CountMemcgEvent(at, MemcgEvent::kSwapHigh);
    swap = std::max(swap, of_swap);
  }
  return std::min(DelayOf(memory, pages) + DelayOf(swap, pages), kMostDelayTicks);
}

void Cgroups::HandleOverHigh() {
  const uint16_t number = cgroups_[current_]->memcg;
  const uint64_t pages = std::exchange(over_high_, 0);
  uint64_t wanted = pages;
  int retries = kReclaimRetries;
  while (true) {
    const uint64_t freed = ReclaimHigh(number, wanted);
    const uint64_t ticks = HighDelay(number, pages);
    if (ticks <= kTicksPerSecond / 100) {
      over_high_ = 0;
      return;
    }
    if (freed > 0 || retries-- > 0) {
      wanted = kSwapClusterMax;
      continue;
    }
    if (Explanation* why = tracer_.explanation(); why != nullptr && number != 0) {
      const Memcg& memcg = of(number);
      why->Add(StepKind::kCgroupThrottle, "the cgroup is above memory.high and nothing more can be freed: the process sleeps")
          .Text("cgroup", memcg.path)
          .Pages("usage", PageCount(memcg.memory.usage))
          .Pages("high", PageCount(memcg.memory.high))
          .Pages("charged", PageCount(pages))
          .Number("overage_1048576ths", static_cast<int64_t>(Overage(memcg.memory)))
          .Number("milliseconds", static_cast<int64_t>(ticks) * kTickNanoseconds / 1'000'000);
    }
    Stall(StallKind::kMemory, static_cast<int64_t>(ticks) * kTickNanoseconds);
    over_high_ = 0;
    return;
  }
}

std::optional<uint16_t> Cgroups::ChargeSwap(uint16_t memcg, uint64_t pages) {
  // mem_cgroup_id_get_online(): what a removed cgroup was charged for counts for the next above it.
  while (memcg != 0 && !of(memcg).online && of(memcg).swapped == 0) memcg = of(memcg).parent;
  for (uint16_t at = memcg; at != 0; at = of(at).parent) {
    PageCounter& counter = of(at).swap;
    if (counter.usage + pages > counter.max) {
      ++counter.failures;
      for (uint16_t below = memcg; below != at; below = of(below).parent) of(below).swap.usage -= pages;
      CountMemcgEvent(memcg, MemcgEvent::kSwapMax);
      CountMemcgEvent(memcg, MemcgEvent::kSwapFail);
      return std::nullopt;
    }
    counter.usage += pages;
    counter.watermark = std::max(counter.watermark, counter.usage);
  }
  if (memcg != 0) of(memcg).swapped += pages;
  return memcg;
}

void Cgroups::UnchargeSwap(uint16_t memcg, uint64_t pages) {
  if (memcg == 0) return;
  for (uint16_t at = memcg; at != 0; at = of(at).parent) {
    MMLAB_CHECK(of(at).swap.usage >= pages);
    of(at).swap.usage -= pages;
  }
  of(memcg).swapped -= pages;
  if (!of(memcg).online) ReleaseIfUnused(memcg);
}

uint64_t Cgroups::SwapRoom(uint16_t memcg, uint64_t free) const {
  for (uint16_t at = memcg; at != 0; at = memcgs_[at]->parent) {
    const PageCounter& counter = memcgs_[at]->swap;
    free = std::min(free, counter.max > counter.usage ? counter.max - counter.usage : 0);
  }
  return free;
}

void Cgroups::Stall(StallKind kind, int64_t nanoseconds) {
  if (nanoseconds <= 0) return;
  for (uint32_t at = current_;; at = cgroups_[at]->parent) {
    cgroups_[at]->psi.Stall(kind, nanoseconds);
    if (at == 0) return;
  }
}

}  // namespace mmlab

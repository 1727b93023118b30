#include "server/machine/perform_pages.h"

#include <algorithm>

#include "server/machine/answer.h"

namespace mmlab {
namespace {

// Frame::mapping of frames that were handed out. Frames in state kKernel have no mapping of their own; those that a machine took for itself
// keep 0, so that giving back can tell.
constexpr uint32_t kHandedOut = 1;

Gfp GfpOf(op::GfpClass gfp, bool zero) { return mmlab::GfpOf(gfp) | (zero ? kGfpZero : 0); }

bool IsOrder(int32_t order) { return order >= 0 && order <= kMaxOrder; }

}  // namespace

Gfp GfpOf(op::GfpClass gfp) {
  switch (gfp) {
    case op::GfpClass::kKernel:
      return kGfpKernel;
    case op::GfpClass::kAtomic:
      return kGfpAtomic;
    case op::GfpClass::kNowait:
      return kGfpNowait;
    case op::GfpClass::kUser:
      return kGfpUser;
    case op::GfpClass::kHighuser:
      return kGfpHighuser;
    case op::GfpClass::kHighuserMovable:
      return kGfpHighuserMovable;
    case op::GfpClass::kDma:
      return kGfpKernel | kGfpZoneDma;
    case op::GfpClass::kDma32:
      return kGfpKernel | kGfpZoneDma32;
    case op::GfpClass::kReclaimable:
      return kGfpKernel | kGfpReclaimable;
    case op::GfpClass::kUserMovable:
      return kGfpUser | kGfpMovable;
    case op::GfpClass::kMemalloc:
      return kGfpKernel | kGfpMemalloc;
    case op::GfpClass::kAccount:
      return kGfpKernelAccount;
  }
  return kGfpKernel;
}

bool PagePerformer::Holds(uint64_t pfn, int order) const {
  if (Pfn(pfn) >= memory_.end_pfn()) return false;
  const Frame frame = memory_.PeekFrame(Pfn(pfn));
  return frame.state == FrameState::kKernel && frame.mapping == kHandedOut && frame.order == order;
}

void PagePerformer::HandOut(Pfn first, uint64_t blocks) {
  for (uint64_t i = 0; i < blocks; ++i) memory_.frame(first + PageCount(i)).mapping = kHandedOut;
}

Outcome PagePerformer::Perform(const op::AllocPages& o) {
  if (!IsOrder(o.order)) return Answer(Errno::kEINVAL);
  // Only single pages can have movable_operations.
  if (o.movable_id != 0 && (o.order != 0 || o.movable_id > MovablePages::kMaxId)) return Answer(Errno::kEINVAL);
  if (o.movable_id != 0 && movable_.Find(o.movable_id)) return Answer(Errno::kEEXIST);
  const std::optional<Pfn> pfn = memory_.AllocPages(GfpOf(o.gfp, o.zero), PageOrder(o.order));
  if (!pfn) return Answer(Errno::kENOMEM);
  HandOut(*pfn, 1);
  if (o.movable_id != 0) movable_.Add(o.movable_id, *pfn);
  return Value(pfn->raw());
}

Outcome PagePerformer::Perform(const op::FreePages& o) {
  uint64_t pfn = o.pfn;
  if (o.movable_id != 0) {
    const std::optional<Pfn> now = movable_.Find(o.movable_id);
    if (!now || o.pfn != 0 || o.order != 0) return Answer(Errno::kEINVAL);
    pfn = now->raw();
  }
  if (!IsOrder(o.order) || !Holds(pfn, o.order)) return Answer(Errno::kEINVAL);
  movable_.Forget(Pfn(pfn));
  memory_.FreePages(Pfn(pfn), PageOrder(o.order));
  return Answer(Errno::kOk);
}

// __get_free_pages(): never from HighMem, which has no address.
Outcome PagePerformer::Perform(const op::GetFreePages& o) {
  if (!IsOrder(o.order)) return Answer(Errno::kEINVAL);
  const std::optional<Pfn> pfn = memory_.AllocPages(GfpOf(o.gfp, o.zero) & ~kGfpZoneHighmem, PageOrder(o.order));
  if (!pfn) return Answer(Errno::kENOMEM);
  HandOut(*pfn, 1);
  return Value(layout_.VirtOf(memory_.page_size().StartOf(*pfn)).raw());
}

Outcome PagePerformer::Perform(const op::AllocPagesExact& o) {
  if (o.bytes == 0) return Answer(Errno::kEINVAL);
  const std::optional<Pfn> first = memory_.AllocPagesExact(Bytes(o.bytes), GfpOf(o.gfp, o.zero));
  if (!first) return Answer(Errno::kENOMEM);
  HandOut(*first, memory_.page_size().PagesHolding(Bytes(o.bytes)).raw());
  return Value(first->raw());
}

Outcome PagePerformer::Perform(const op::FreePagesExact& o) {
  if (o.bytes == 0 || o.bytes > PageOrder(kMaxOrder).pages().raw() << memory_.page_size().shift()) return Answer(Errno::kEINVAL);
  const uint64_t pages = memory_.page_size().PagesHolding(Bytes(o.bytes)).raw();
  for (uint64_t i = 0; i < pages; ++i) {
    if (o.pfn >= memory_.end_pfn().raw() || !Holds(o.pfn + i, 0)) return Answer(Errno::kEINVAL);
  }
  for (uint64_t i = 0; i < pages; ++i) movable_.Forget(Pfn(o.pfn + i));
  memory_.FreePagesExact(Pfn(o.pfn), Bytes(o.bytes));
  return Answer(Errno::kOk);
}

Outcome PagePerformer::Perform(const op::AllocPagesBulk& o) {
  Outcome outcome;
  outcome.pfns.resize(o.count);
  outcome.value = memory_.AllocPagesBulk(GfpOf(o.gfp), absl::MakeSpan(outcome.pfns));
  outcome.pfns.resize(outcome.value);
  for (const Pfn pfn : outcome.pfns) HandOut(pfn, 1);
  return outcome;
}

Outcome PagePerformer::Perform(const op::FreePageList& o) {
  std::vector<uint64_t> sorted = o.pfns;
  std::sort(sorted.begin(), sorted.end());
  const bool twice = std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end();
  const bool held = std::all_of(sorted.begin(), sorted.end(), [this](uint64_t pfn) { return Holds(pfn, 0); });
  if (twice || !held) return Answer(Errno::kEINVAL);
  std::vector<Pfn> pages;
  for (const uint64_t pfn : o.pfns) movable_.Forget(pages.emplace_back(pfn));
  memory_.FreePageList(pages);
  return Answer(Errno::kOk);
}

Outcome PagePerformer::Perform(const op::SplitPage& o) {
  if (!IsOrder(o.order) || !Holds(o.pfn, o.order)) return Answer(Errno::kEINVAL);
  memory_.SplitPage(Pfn(o.pfn), PageOrder(o.order));
  HandOut(Pfn(o.pfn), uint64_t{1} << o.order);
  return Answer(Errno::kOk);
}

Outcome PagePerformer::Perform(const op::DrainPages& o) {
  if (o.all) {
    memory_.DrainAllPages();
  } else {
    memory_.DrainLocalPages();
  }
  return Answer(Errno::kOk);
}

Outcome PagePerformer::Perform(const op::CompactMemory& /*o*/) { return Value(compaction_.CompactAll()); }

}  // namespace mmlab

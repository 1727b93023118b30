#include "server/machine/object_source.h"

#include "server/base/check.h"
#include "server/machine/kernel_addresses.h"
#include "server/physical/lru_lists.h"
#include "server/physical/memory_controller.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr int kX86StackOrder = 1;

}  // namespace

std::optional<VirtAddr> Machine::ObjectSource::AllocStack() {
  BuddyMemory& memory = *machine_.memory_;
  if (machine_.layout_->is_x86()) {
    const std::optional<Pfn> pfn = memory.AllocPages(kGfpKernelAccount | kGfpZero, PageOrder(kX86StackOrder));
    if (!pfn) return std::nullopt;
    memory.frame(*pfn).state = FrameState::kKernelStack;
    const VirtAddr stack = machine_.MakeSlab().AddressOfPage(*pfn);
    Account(stack, 1);
    return stack;
  }
  cached_.resize(static_cast<size_t>(machine_.spec_.cpus));
  for (uint64_t& kept : cached_[static_cast<size_t>(memory.current_cpu())]) {
    if (kept == 0) continue;
    const VirtAddr stack(kept);
    kept = 0;
    if (!Charge(stack)) {
      areas_.erase(stack.raw());
      MMLAB_CHECK(machine_.MakeKernelAddresses().vmalloc.Free(stack).ok());
      return std::nullopt;
    }
    Account(stack, 1);
    return stack;
  }
  VmallocRequest request;
  request.size = Bytes(StackBytes());
  request.align = 2 * StackBytes();  // THREAD_ALIGN
  request.gfp = kGfpKernel | kGfpZero;
  request.caller = "kernel_clone+0xa0/0x4b0";
  const SysResult<VmallocOutcome> area = machine_.MakeKernelAddresses().vmalloc.Alloc(request);
  if (!area.ok()) return std::nullopt;
  const VirtAddr stack = area.value().address;
  if (!Charge(stack)) {
    MMLAB_CHECK(machine_.MakeKernelAddresses().vmalloc.Free(stack).ok());
    return std::nullopt;
  }
  areas_.insert(stack.raw());
  Account(stack, 1);
  return stack;
}

void Machine::ObjectSource::FreeStack(VirtAddr stack) {
  BuddyMemory& memory = *machine_.memory_;
  Account(stack, -1);
  if (machine_.layout_->is_x86()) {
    const Pfn pfn((stack - machine_.MakeSlab().AddressOfPage(Pfn(0))).raw() >> machine_.layout_->page_size.shift());
    memory.FreePages(pfn, PageOrder(kX86StackOrder));
    return;
  }
  Uncharge(stack);
  for (uint64_t& kept : cached_[static_cast<size_t>(memory.current_cpu())]) {
    if (kept != 0) continue;
    kept = stack.raw();
    return;
  }
  areas_.erase(stack.raw());
  MMLAB_CHECK(machine_.MakeKernelAddresses().vmalloc.Free(stack).ok());
}

MemoryController* Machine::ObjectSource::Charger() const { return machine_.memory_->charger(); }

std::vector<Pfn> Machine::ObjectSource::PagesOf(VirtAddr stack) const {
  if (!machine_.layout_->is_x86()) return machine_.MakeKernelAddresses().vmalloc.areas().at(stack.raw()).pages;
  return {Pfn((stack - machine_.MakeSlab().AddressOfPage(Pfn(0))).raw() >> machine_.layout_->page_size.shift())};
}

bool Machine::ObjectSource::Charge(VirtAddr stack) {
  MemoryController* charger = Charger();
  if (charger == nullptr) return true;
  for (const Pfn pfn : PagesOf(stack)) {
    if (charger->ChargeKernelPages(pfn, 0, kGfpKernel)) continue;
    Uncharge(stack);
    return false;
  }
  return true;
}

void Machine::ObjectSource::Uncharge(VirtAddr stack) {
  MemoryController* charger = Charger();
  if (charger == nullptr) return;
  for (const Pfn pfn : PagesOf(stack)) {
    Frame& frame = machine_.memory_->frame(pfn);
    if (frame.memcg != 0) charger->Uncharge(pfn, 0);
    frame.flags &= ~uint32_t{kPgKernelCharge};
  }
}

void Machine::ObjectSource::Account(VirtAddr stack, int sign) {
  stacks_ += static_cast<uint64_t>(sign);
  const auto kib = sign * static_cast<int64_t>(StackBytes() >> 10);
  if (Charger() == nullptr) return machine_.memory_->vm_stat().Add(NodeStat::kNrKernelStack, kib);
  const std::vector<Pfn> pages = PagesOf(stack);
  for (const Pfn pfn : pages) {
    machine_.memory_->lru().AddKernelStat(machine_.memory_->frame(pfn), NodeStat::kNrKernelStack, kib / static_cast<int64_t>(pages.size()));
  }
}

void Machine::ObjectSource::AddToHash(StateHasher& hasher) const {
  hasher.Add(stacks_);
  for (const uint64_t area : areas_) hasher.Add(area);
  for (const auto& kept : cached_) {
    for (const uint64_t stack : kept) hasher.Add(stack);
  }
}

void Machine::ObjectSource::CheckInvariants(std::vector<std::string>* problems) const {
  const int64_t counted = machine_.memory_->vm_stat().Get(NodeStat::kNrKernelStack);
  const auto expected = static_cast<int64_t>(stacks_ * (StackBytes() >> 10));
  if (counted != expected) problems->push_back("nr_kernel_stack is not that of the stacks");
  if (stacks_ != machine_.kernel_objects_->held(KernelObject::kKernelStack)) problems->push_back("a kernel stack without a task");
}

}  // namespace mmlab

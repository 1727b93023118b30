#ifndef MMLAB_SERVER_MACHINE_OBJECT_SOURCE_H_
#define MMLAB_SERVER_MACHINE_OBJECT_SOURCE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_set.h"
#include "server/base/hash.h"
#include "server/kernel/kernel_objects.h"
#include "server/machine/machine.h"

namespace mmlab {

// Where a machine's kernel objects come from: its slab allocator, and its ways to kernel stacks. Linux: kernel/fork.c. On x86-32 a stack is
// a block of two pages; on ARM64 (CONFIG_VMAP_STACK) a vmalloc area of four, of which each CPU keeps two that were freed.
class Machine::ObjectSource final : public KernelObjectSource {
 public:
  explicit ObjectSource(Machine& machine) : machine_(machine) {}

  SlabAllocator& Slab() override { return machine_.MakeSlab(); }
  std::optional<VirtAddr> AllocStack() override;
  void FreeStack(VirtAddr stack) override;
  MemoryController* Charger() const override;

  // Whether the vmalloc area of that address is a stack, so that nobody else may free it.
  bool IsStack(uint64_t address) const { return areas_.contains(address); }
  uint64_t stacks() const { return stacks_; }  // In use.

  void AddToHash(StateHasher& hasher) const;
  void CheckInvariants(std::vector<std::string>* problems) const;

 private:
  static constexpr size_t kCachedStacks = 2;  // NR_CACHED_STACKS
  uint64_t StackBytes() const { return machine_.layout_->is_x86() ? 8192 : 16384; }
  // account_kernel_stack() and memcg_charge_kernel_stack(): by the pages that a stack consists of. False: a limit refuses them.
  bool Charge(VirtAddr stack);
  void Uncharge(VirtAddr stack);
  std::vector<Pfn> PagesOf(VirtAddr stack) const;
  void Account(VirtAddr stack, int sign);

  Machine& machine_;
  absl::btree_set<uint64_t> areas_;                          // ARM64: all stacks, those kept too.
  std::vector<std::array<uint64_t, kCachedStacks>> cached_;  // By CPU; 0 = none.
  uint64_t stacks_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_OBJECT_SOURCE_H_

#ifndef MMLAB_SERVER_PHYSICAL_MEMORY_CONTROLLER_H_
#define MMLAB_SERVER_PHYSICAL_MEMORY_CONTROLLER_H_

#include <cstdint>
#include <optional>

#include "server/base/address.h"
#include "server/physical/frame.h"
#include "server/physical/gfp.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

// What a task waits for that counts as pressure (enum psi_res).
enum class StallKind : uint8_t { kIo = 0, kMemory = 1 };

// Who is charged for pages, and whom their lack keeps waiting: what the rooms that take and give pages ask of memory cgroups. Done by
// cgroup, wired by machine. Linux: include/linux/memcontrol.h, include/linux/psi.h.
//
// Everything is on behalf of the process that acts (SetCurrent). Pages of the root are not charged: their Frame::memcg is 0.
class MemoryController {
 public:
  virtual ~MemoryController() = default;

  // The cgroup of the process that acts from now on; 0, the root's, when nobody does.
  virtual void SetCurrent(uint32_t cgroup) = 0;

  // mem_cgroup_charge(): charges a fresh page of a process or a file, a huge one as a whole. False: the limit of its cgroup or of one above
  // it is reached and nothing could be freed; then nothing is charged.
  [[nodiscard]] virtual bool ChargePage(Pfn head, PageOrder order, Gfp gfp) = 0;
  // mem_cgroup_swapin_charge_folio() and its like: the same for a cgroup that was charged before: for the swap entry, or for the small
  // pages that a huge one replaces. 0, or one that is gone: for the process that acts.
  [[nodiscard]] virtual bool ChargeAgain(Pfn head, PageOrder order, uint16_t memcg, Gfp gfp) = 0;
  // __memcg_kmem_charge_page(): a block that the kernel itself needs (kGfpAccount).
  [[nodiscard]] virtual bool ChargeKernelPages(Pfn head, int order, Gfp gfp) = 0;
  // The cgroup that is charged for the kernel's objects that it makes for the process that acts; 0: nobody.
  virtual uint16_t ObjectOwner() const = 0;
  // obj_cgroup_charge() and mod_objcg_state(): an object of so many bytes, its place in the slab's list of owners included. False: as
  // above.
  [[nodiscard]] virtual bool ChargeObject(uint16_t owner, uint32_t bytes, bool reclaimable, Gfp gfp) = 0;
  virtual void UnchargeObject(uint16_t owner, uint32_t bytes, bool reclaimable) = 0;
  // A charged block is about to be free; its metadata is still what it was.
  virtual void Uncharge(Pfn head, int order) = 0;
  // mem_cgroup_handle_over_high(): what memory.high asks of a process on its way back to user mode.
  virtual void ReturnToUser() = 0;
  // count_memcg_event_mm()
  virtual void CountEvent(VmEvent item) = 0;

  // __mem_cgroup_try_charge_swap(): charges the cgroup that a page is charged to for its place in swap space. The number to be uncharged;
  // nothing: memory.swap.max is reached.
  [[nodiscard]] virtual std::optional<uint16_t> ChargeSwap(uint16_t memcg, uint64_t pages) = 0;
  virtual void UnchargeSwap(uint16_t memcg, uint64_t pages) = 0;
  // mem_cgroup_get_nr_swap_pages(): how much of `free` pages of swap space this cgroup may still use.
  virtual uint64_t SwapRoom(uint16_t memcg, uint64_t free) const = 0;

  // The acting process stood still for so long (psi_memstall_enter() to psi_memstall_leave(), or waiting for a disk).
  virtual void Stall(StallKind kind, int64_t nanoseconds) = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_MEMORY_CONTROLLER_H_

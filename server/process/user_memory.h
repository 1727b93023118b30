#ifndef MMLAB_SERVER_PROCESS_USER_MEMORY_H_
#define MMLAB_SERVER_PROCESS_USER_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "server/arch/layout.h"
#include "server/base/address.h"
#include "server/base/errno.h"
#include "server/process/access.h"
#include "server/process/address_space.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/process.h"

namespace mmlab {

class PageReplacement;
class PhysicalMemory;

// User memory as a task's instructions reach it, and as the kernel reaches it for the task: through the page tables, with every fault that
// they take on the way. Linux: arch/x86/mm/fault.c, arch/arm64/mm/fault.c, lib/usercopy.c.
class UserMemory {
 public:
  UserMemory(const ProcessCore& core, PhysicalMemory& memory, Process& task);

  // The task's own instructions. kOk also when a signal stopped them; kENOMEM when a fault found no memory (there is no OOM killer yet):
  // `result` says how far it came. kEINVAL: a size that no instruction has.
  Errno Access(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal, std::string& data);

  // copy_to_user(), copy_from_user(), clear_user(): how many bytes were copied before a fault could not be served.
  uint64_t CopyTo(uint64_t address, const void* data, uint64_t size);
  uint64_t CopyFrom(uint64_t address, void* out, uint64_t size);
  uint64_t Clear(uint64_t address, uint64_t size);
  // fault_in_readable(): touches every page; how many bytes from the start are readable.
  uint64_t FaultInReadable(uint64_t address, uint64_t size);
  // Whether a fault failed for want of memory.
  bool out_of_memory() const { return out_of_memory_; }

 private:
  enum class Reach : uint8_t { kOk, kSignal, kNoMemory };

  // Makes the page of the address usable, by as many faults as it takes. The frame is in frame_.
  Reach Touch(uint64_t address, FaultAccess access);
  void NoteReference(uint64_t address);
  Reach ServeFault(uint64_t address, FaultAccess access, PteVerdict verdict);
  int32_t X86ErrorCode(FaultAccess access, PteVerdict verdict) const;
  uint64_t Arm64Syndrome(uint64_t address, FaultAccess access, PteVerdict verdict) const;
  void EmitFault(uint64_t address, FaultAccess access, PteVerdict verdict) const;  // page_fault_user.
  bool MayAccess(const VmArea& vma, FaultAccess access, PteVerdict verdict) const;
  Reach Fail(SignalNumber number, int32_t code, uint64_t address, FaultAccess access, PteVerdict verdict);
  Errno Answer(Reach reach, uint64_t address, AccessResult& result, std::optional<Signal>& signal) const;

  Errno LoadOrStore(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal);
  Errno TouchPages(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal);
  Errno ReadAll(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal, std::string& data);
  Errno WriteAll(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal);
  Errno Execute(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal);

  uint64_t Wrap(uint64_t address) const { return layout_.word_bytes == 4 || mm_.compat ? address & 0xffffffff : address; }
  uint64_t RoomInPage(uint64_t address) const { return page_bytes_ - (address & (page_bytes_ - 1)); }

  const ProcessCore core_;
  const Layout& layout_;
  PhysicalMemory& memory_;
  Process& task_;
  AddressSpace& mm_;
  const uint64_t page_bytes_;
  const uint64_t table_bytes_;  // Covered by one lowest table.
  uint8_t* table_ = nullptr;    // The lowest table used last, of the addresses from table_start_.
  uint64_t table_start_ = 0;
  PageReplacement* const replacement_;  // Wants to hear of every access; null: nobody does.
  VmArea* vma_ = nullptr;               // The VMA used last; no call here removes one.
  Pfn frame_;
  Signal signal_;
  bool out_of_memory_ = false;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_USER_MEMORY_H_

#ifndef MMLAB_SERVER_MACHINE_VIRTUAL_TRANSLATION_H_
#define MMLAB_SERVER_MACHINE_VIRTUAL_TRANSLATION_H_

#include <cstdint>
#include <optional>
#include <string>

#include "server/hardware/page_walk.h"
#include "server/hardware/translation_fault.h"
#include "server/machine/machine.h"

namespace mmlab {

class Process;

// Where a virtual address leads in a machine, and how; documented at v1::TranslateVirtualAddressResponse.
struct VirtualTranslation {
  std::string region;
  std::string base_register;  // Empty: no walk is made.
  PhysAddr base;
  uint32_t asid = 0;
  PageWalk walk;
  std::optional<PhysAddr> physical;
  Bytes page_bytes;  // 0 where no walk is made.
  std::optional<TranslationFault> fault;
  std::string note;
};

// As a CPU that runs `process` (null: nobody's tables are loaded) translates it. REQUIRES: the address fits into the layout's words; the
// process has an address space.
VirtualTranslation TranslateVirtual(const Machine& machine, const Process* process, VirtAddr address, const ProcessorAccess& access);

// Appends the bytes from a virtual address on, as far as the kernel could read them without a fault; how many. `reason` says why it ended
// early.
uint64_t ReadVirtual(const Machine& machine, const Process* process, VirtAddr address, uint64_t length, std::string* data,
                     std::string* reason);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_VIRTUAL_TRANSLATION_H_

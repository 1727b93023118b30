#ifndef MMLAB_SERVER_HARDWARE_TRANSLATION_FAULT_H_
#define MMLAB_SERVER_HARDWARE_TRANSLATION_FAULT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "server/arch/layout.h"
#include "server/hardware/page_walk.h"

namespace mmlab {

// Which access a processor is about to make.
struct ProcessorAccess {
  bool write = false;
  bool execute = false;
  bool user = true;  // In user mode; false: in the kernel's.
};

// A fault that the processor raises instead.
struct TranslationFault {
  enum class Kind : uint8_t { kTranslation, kAccessFlag, kPermission };
  Kind kind = Kind::kTranslation;
  int level = 0;                // Of the entry, 1 = pte; 0: no table was looked at.
  uint32_t x86_error_code = 0;  // x86-32: what #PF pushes.
  uint64_t esr = 0;             // ARM64: ESR_EL1.
  std::string reason;
};
const char* TranslationFaultName(TranslationFault::Kind kind);  // "access flag"

// The fault that an access raises after this walk; nothing: it goes through. A walk without steps is an address of neither of ARM64's two
// ranges. `hardware_flags`: the processor sets accessed and dirty bits itself (ARM64: FEAT_HAFDBS; x86-32: always).
std::optional<TranslationFault> FaultOf(const Layout& layout, const PageWalk& walk, const ProcessorAccess& access, bool hardware_flags);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HARDWARE_TRANSLATION_FAULT_H_

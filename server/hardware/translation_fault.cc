#include "server/hardware/translation_fault.h"

#include "absl/strings/str_cat.h"

namespace mmlab {
namespace {

constexpr uint64_t kX86Rw = 1 << 1;
constexpr uint64_t kX86User = 1 << 2;
constexpr uint64_t kX86ExecuteDisable = uint64_t{1} << 63;

constexpr uint64_t kArmUser = 1 << 6;      // AP[1]
constexpr uint64_t kArmReadOnly = 1 << 7;  // AP[2]
constexpr uint64_t kArmAccessed = 1 << 10;
constexpr uint64_t kArmDbm = uint64_t{1} << 51;
constexpr uint64_t kArmPxn = uint64_t{1} << 53;
constexpr uint64_t kArmUxn = uint64_t{1} << 54;
constexpr uint64_t kArmPxnTable = uint64_t{1} << 59;
constexpr uint64_t kArmUxnTable = uint64_t{1} << 60;
constexpr uint64_t kArmNoUserTable = uint64_t{1} << 61;   // APTable[0]
constexpr uint64_t kArmNoWriteTable = uint64_t{1} << 62;  // APTable[1]

using Kind = TranslationFault::Kind;

// Which bit of an entry forbids the access; null: none does.
const char* ForbiddenByX86(uint64_t entry, const ProcessorAccess& access, bool pae) {
  if (access.user && (entry & kX86User) == 0) return "US is clear: the memory is the kernel's";
  if (access.write && (entry & kX86Rw) == 0) return "RW is clear: read only";
  if (access.execute && pae && (entry & kX86ExecuteDisable) != 0) return "XD is set: nothing is fetched from here";
  return nullptr;
}

const char* ForbiddenByArmTable(uint64_t entry, const ProcessorAccess& access) {
  if (access.user && (entry & kArmNoUserTable) != 0) return "APTable keeps user mode out";
  if (access.write && (entry & kArmNoWriteTable) != 0) return "APTable allows no writing";
  if (access.execute && (entry & (access.user ? kArmUxnTable : kArmPxnTable)) != 0) {
    return access.user ? "UXNTable is set: user mode fetches nothing below" : "PXNTable is set: the kernel fetches nothing below";
  }
  return nullptr;
}

const char* ForbiddenByArmPage(uint64_t entry, const ProcessorAccess& access, bool hardware_flags) {
  if (access.user && (entry & kArmUser) == 0) return "AP[1] is clear: the memory is the kernel's";
  if (access.write && (entry & kArmReadOnly) != 0 && !(hardware_flags && (entry & kArmDbm) != 0)) {
    return (entry & kArmDbm) != 0 ? "AP[2] is set: clean, and this processor leaves it to the kernel to note the first write"
                                  : "AP[2] is set: read only";
  }
  if (access.execute && (entry & (access.user ? kArmUxn : kArmPxn)) != 0) {
    return access.user ? "UXN is set: user mode fetches nothing from here" : "PXN is set: the kernel fetches nothing from here";
  }
  return nullptr;
}

uint32_t X86ErrorCode(Kind kind, const ProcessorAccess& access, bool pae) {
  return (kind == Kind::kPermission ? 1u : 0u) | (access.write ? 2u : 0u) | (access.user ? 4u : 0u) | (access.execute && pae ? 16u : 0u);
}

// ESR_EL1 of a data or instruction abort. ARM64 counts levels from the top: 0 is the pgd, 3 the pte.
uint64_t ArmSyndrome(Kind kind, int level, const ProcessorAccess& access) {
  const uint64_t exception_class = (access.execute ? 0x20u : 0x24u) + (access.user ? 0u : 1u);
  const uint64_t status = kind == Kind::kTranslation ? 0x04 : kind == Kind::kAccessFlag ? 0x08 : 0x0c;
  const uint64_t from_top = level == 0 ? 0 : static_cast<uint64_t>(4 - level);
  return exception_class << 26 | uint64_t{1} << 25 | (access.write ? 0x40 : 0) | status | from_top;
}

}  // namespace

const char* TranslationFaultName(Kind kind) {
  switch (kind) {
    case Kind::kTranslation:
      return "translation";
    case Kind::kAccessFlag:
      return "access flag";
    case Kind::kPermission:
      return "permission";
  }
  return "";
}

std::optional<TranslationFault> FaultOf(const Layout& layout, const PageWalk& walk, const ProcessorAccess& access, bool hardware_flags) {
  const PageTableFormat format(layout);
  const bool pae = layout.kind == LayoutKind::kX86_32Pae;
  const auto fault = [&](Kind kind, int level, absl::string_view reason) {
    TranslationFault found{kind, level, 0, 0, std::string(reason)};
    if (layout.is_x86()) {
      found.x86_error_code = X86ErrorCode(kind, access, pae);
    } else {
      found.esr = ArmSyndrome(kind, level, access);
    }
    return found;
  };
  if (walk.count == 0) return fault(Kind::kTranslation, 0, "the address belongs to neither of the two ranges that have tables");
  const WalkStep& last = walk.steps[walk.count - 1];
  if (!walk.physical.has_value()) {
    const bool nobody = last.level <= 2 && format.Present(last.entry);
    return fault(Kind::kTranslation, last.level,
                 nobody ? absl::StrCat("the ", LevelName(format, last.level), " entry is not valid: the page is PROT_NONE")
                        : absl::StrCat("the ", LevelName(format, last.level), " entry is not valid"));
  }
  if (!layout.is_x86() && !hardware_flags && (last.entry & kArmAccessed) == 0) {
    return fault(Kind::kAccessFlag, last.level, "AF is clear, and this processor does not set it itself");
  }
  for (int i = 0; i < walk.count; ++i) {
    const WalkStep& step = walk.steps[i];
    if (pae && step.level == 3) continue;  // Entries of the page directory pointer table have no protection.
    const char* forbidden = layout.is_x86()  ? ForbiddenByX86(step.entry, access, pae)
                            : &step != &last ? ForbiddenByArmTable(step.entry, access)
                                             : ForbiddenByArmPage(step.entry, access, hardware_flags);
    // The processor reports the level of the page, wherever the bit was.
    if (forbidden != nullptr) return fault(Kind::kPermission, last.level, forbidden);
  }
  return std::nullopt;
}

}  // namespace mmlab

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "server/arch/layout.h"
#include "server/base/explanation.h"
#include "server/files/open_file.h"
#include "server/process/address_space.h"
#include "server/process/mm_call.h"
#include "server/process/process.h"
#include "server/process/process_limits.h"
#include "server/process/processes.h"
#include "server/process/user_memory.h"

// prctl(): what concerns memory in kernel/sys.c.

namespace mmlab {
namespace {

// Numbers of include/uapi/linux/prctl.h.
enum Option : int32_t {
  kSetPdeathsig = 1,
  kGetDumpable = 3,
  kSetDumpable = 4,
  kGetUnalign = 5,
  kSetUnalign = 6,
  kGetFpemu = 9,
  kSetFpexc = 12,
  kSetName = 15,
  kGetName = 16,
  kGetEndian = 19,
  kSetEndian = 20,
  kSetMm = 35,
  kSetThpDisable = 41,
  kGetThpDisable = 42,
  kMpxEnableManagement = 43,
  kSetFpMode = 45,
  kGetFpMode = 46,
  kLastKnown = 64,
  kSetPtracer = 0x59616d61,
  kSetVma = 0x53564d41,
};

constexpr uint64_t kSetMmExeFile = 13;
constexpr uint64_t kSetMmAuxv = 12;
constexpr uint64_t kSetMmMap = 14;
constexpr uint64_t kSetMmMapSize = 15;
constexpr size_t kMaxVmaName = 80;    // ANON_VMA_NAME_MAX_LEN, with its NUL.
constexpr size_t kMapAddresses = 11;  // The 64-bit addresses that struct prctl_mm_map begins with.

// Options that Linux has and neither architecture supports.
bool IsForOtherArchitectures(int32_t option) {
  return option == kGetUnalign || option == kSetUnalign || (option >= kGetFpemu && option <= kSetFpexc) || option == kGetEndian ||
         option == kSetEndian || (option >= kMpxEnableManagement && option <= kGetFpMode);
}

// The addresses of an address space that PR_SET_MM may change, in the order of struct prctl_mm_map.
using MmAddresses = std::array<uint64_t, kMapAddresses>;
constexpr VirtAddr AddressSpace::*kAddressFields[kMapAddresses] = {
    &AddressSpace::start_code, &AddressSpace::end_code,  &AddressSpace::start_data,  &AddressSpace::end_data,
    &AddressSpace::start_brk,  &AddressSpace::brk,       &AddressSpace::start_stack, &AddressSpace::arg_start,
    &AddressSpace::arg_end,    &AddressSpace::env_start, &AddressSpace::env_end};
enum AddressIndex : size_t {
  kStartCode,
  kEndCode,
  kStartData,
  kEndData,
  kStartBrk,
  kBrk,
  kStartStack,
  kArgStart,
  kArgEnd,
  kEnvStart,
  kEnvEnd
};
// PR_SET_MM_START_CODE (1) and so on: which of them it sets.
constexpr AddressIndex kOfSetMm[] = {kStartCode, kEndCode,  kStartData, kEndData,  kStartStack, kStartBrk,
                                     kBrk,       kArgStart, kArgEnd,    kEnvStart, kEnvEnd};

// One prctl() of one task.
class PrctlCall {
 public:
  PrctlCall(const ProcessCore& core, PhysicalMemory& memory, Process& task)
      : core_(core), task_(task), mm_(*task.mm), call_(core, task), user_(core, memory, task) {}

  SysResult<uint64_t> Perform(int32_t option, uint64_t arg2, uint64_t arg3, uint64_t arg4, uint64_t arg5);

  // A step for an option that succeeded.
  SysResult<uint64_t> Explained(SysResult<uint64_t> answer, int32_t option) const;

 private:
  Errno Refuse(Errno error, const char* rule) const {
    if (Explanation* why = core_.tracer.explanation()) why->Add(StepKind::kSystemCallCheck, rule).Error(error);
    return error;
  }
  SysResult<std::string> ReadString(uint64_t address, size_t most);
  SysResult<uint64_t> SetName(uint64_t address);
  SysResult<uint64_t> GetName(uint64_t address);
  SysResult<uint64_t> SetVma(uint64_t what, uint64_t start, uint64_t length, uint64_t name);
  SysResult<uint64_t> SetMm(uint64_t what, uint64_t address, uint64_t arg4, uint64_t arg5);
  SysResult<uint64_t> SetMmMap(uint64_t what, uint64_t address, uint64_t size);
  SysResult<uint64_t> SetExeFile(int32_t fd);
  SysResult<uint64_t> SetAuxv(uint64_t address, uint64_t length);
  Errno Validate(const MmAddresses& addresses) const;
  MmAddresses Addresses() const;
  void Store(const MmAddresses& addresses);
  // sizeof(mm->saved_auxv).
  uint64_t AuxvBytes() const { return core_.layout.is_x86() ? 48 * 4 : 46 * 8; }
  SysResult<std::vector<std::pair<uint64_t, uint64_t>>> ReadAuxv(uint64_t address, uint64_t length);

  const ProcessCore core_;
  Process& task_;
  AddressSpace& mm_;
  MmCall call_;
  UserMemory user_;
};

SysResult<uint64_t> PrctlCall::Explained(SysResult<uint64_t> answer, int32_t option) const {
  if (Explanation* why = core_.tracer.explanation(); why != nullptr && answer.ok()) {
    why->Add(StepKind::kSystemCallCheck, "the option was carried out")
        .Number("option", option)
        .Number("answer", static_cast<int64_t>(answer.value()));
  }
  return answer;
}

SysResult<uint64_t> PrctlCall::Perform(int32_t option, uint64_t arg2, uint64_t arg3, uint64_t arg4, uint64_t arg5) {
  switch (option) {
    case kGetDumpable:
      return static_cast<uint64_t>(mm_.dumpable);
    case kSetDumpable:
      if (arg2 > 1) return Refuse(Errno::kEINVAL, "PR_SET_DUMPABLE takes 0 or 1");
      mm_.dumpable = static_cast<int>(arg2);
      return uint64_t{0};
    case kSetName:
      return SetName(arg2);
    case kGetName:
      return GetName(arg2);
    case kSetMm:
      return SetMm(arg2, arg3, arg4, arg5);
    case kGetThpDisable:
      if ((arg2 | arg3 | arg4 | arg5) != 0) return Refuse(Errno::kEINVAL, "PR_GET_THP_DISABLE takes no arguments");
      return uint64_t{mm_.thp_disabled};
    case kSetThpDisable:
      if ((arg3 | arg4 | arg5) != 0) return Refuse(Errno::kEINVAL, "PR_SET_THP_DISABLE takes one argument");
      mm_.thp_disabled = arg2 != 0;
      return uint64_t{0};
    case kSetVma:
      return SetVma(arg2, arg3, arg4, arg5);
    default:
      break;
  }
  const bool known = (option >= kSetPdeathsig && option <= kLastKnown) || option == kSetPtracer;
  if (!known) return Refuse(Errno::kEINVAL, "no such option");
  if (IsForOtherArchitectures(option)) return Refuse(Errno::kEINVAL, "an option of other architectures");
  return Errno::kENOSYS;
}

// strncpy_from_user(): at most `most` characters, less where a NUL ends them.
SysResult<std::string> PrctlCall::ReadString(uint64_t address, size_t most) {
  std::string text;
  while (text.size() < most) {
    char byte = 0;
    if (!call_.AccessOk(address, 1) || user_.CopyFrom(address, &byte, 1) != 1) return Refuse(Errno::kEFAULT, "the string can't be read");
    if (byte == '\0') break;
    text.push_back(byte);
    ++address;
  }
  return text;
}

SysResult<uint64_t> PrctlCall::SetName(uint64_t address) {
  MMLAB_TRY_ASSIGN(task_.comm, ReadString(address, kCommBytes - 1));
  // Names travel in messages and metrics, which hold text.
  for (char& c : task_.comm) c = c >= ' ' && c <= '~' ? c : '?';
  return uint64_t{0};
}

SysResult<uint64_t> PrctlCall::GetName(uint64_t address) {
  char comm[kCommBytes] = {};
  std::memcpy(comm, task_.comm.data(), std::min(task_.comm.size(), kCommBytes - 1));
  if (!call_.AccessOk(address, sizeof(comm)) || user_.CopyTo(address, comm, sizeof(comm)) != sizeof(comm)) {
    return Refuse(Errno::kEFAULT, "the name can't be written there");
  }
  return uint64_t{0};
}

SysResult<uint64_t> PrctlCall::SetVma(uint64_t what, uint64_t start, uint64_t length, uint64_t name) {
  if (!core_.limits.anon_vma_name) return Refuse(Errno::kEINVAL, "the kernel is built without CONFIG_ANON_VMA_NAME");
  if (what != 0) return Refuse(Errno::kEINVAL, "PR_SET_VMA knows PR_SET_VMA_ANON_NAME (0) only");
  std::string text;
  if (name != 0) {
    MMLAB_TRY_ASSIGN(text, ReadString(name, kMaxVmaName));
    if (text.size() == kMaxVmaName) return Refuse(Errno::kEINVAL, "longer than 79 characters");
  }
  MMLAB_TRY(call_.SetVmaName(start, length, text));
  return uint64_t{0};
}

MmAddresses PrctlCall::Addresses() const {
  MmAddresses addresses;
  for (size_t i = 0; i < kMapAddresses; ++i) addresses[i] = (mm_.*kAddressFields[i]).raw();
  return addresses;
}

void PrctlCall::Store(const MmAddresses& addresses) {
  for (size_t i = 0; i < kMapAddresses; ++i) mm_.*kAddressFields[i] = VirtAddr(call_.Wrap(addresses[i]));
}

// validate_prctl_map_addr()
Errno PrctlCall::Validate(const MmAddresses& addresses) const {
  const auto at = [&](AddressIndex index) { return call_.Wrap(addresses[index]); };
  for (const uint64_t address : addresses) {
    if (call_.Wrap(address) >= mm_.task_size.raw() || call_.Wrap(address) < call_.MmapMinAddr()) {
      return Refuse(Errno::kEINVAL, "an address of the process's map lies outside user space");
    }
  }
  if (at(kStartCode) >= at(kEndCode) || at(kStartData) > at(kEndData) || at(kStartBrk) > at(kBrk) || at(kArgStart) > at(kArgEnd) ||
      at(kEnvStart) > at(kEnvEnd)) {
    return Refuse(Errno::kEINVAL, "an end of the process's map would lie before its start");
  }
  const uint64_t limit = call_.Wrap(task_.rlimit(RlimitKind::kData).current);
  const uint64_t data = call_.Wrap((at(kBrk) - at(kStartBrk)) + (at(kEndData) - at(kStartData)));
  if (limit < call_.word_mask() && data > limit)
    return Refuse(Errno::kEINVAL, "RLIMIT_DATA: heap and data segment together would exceed it");
  return Errno::kOk;
}

SysResult<uint64_t> PrctlCall::SetMm(uint64_t what, uint64_t address, uint64_t arg4, uint64_t arg5) {
  const bool sized = what == kSetMmAuxv || what == kSetMmMap || what == kSetMmMapSize;
  if (arg5 != 0 || (arg4 != 0 && !sized)) return Refuse(Errno::kEINVAL, "arguments that this PR_SET_MM does not take");
  if (what == kSetMmMap || what == kSetMmMapSize) return SetMmMap(what, address, arg4);
  if (!task_.capable()) return Refuse(Errno::kEPERM, "PR_SET_MM needs CAP_SYS_RESOURCE");
  if (what == kSetMmExeFile) return SetExeFile(static_cast<int32_t>(address));
  if (what == kSetMmAuxv) return SetAuxv(address, arg4);
  if (address >= mm_.task_size.raw() || address < call_.MmapMinAddr()) return Refuse(Errno::kEINVAL, "the address lies outside user space");
  if (what < 1 || what > std::size(kOfSetMm)) return Refuse(Errno::kEINVAL, "no such PR_SET_MM");
  const AddressIndex index = kOfSetMm[what - 1];
  MmAddresses addresses = Addresses();
  addresses[index] = address;
  MMLAB_TRY(Validate(addresses));
  if (index >= kStartStack && mm_.vmas.Find(VirtAddr(address)) == nullptr)
    return Refuse(Errno::kEFAULT, "nothing is mapped at or above it");
  Store(addresses);
  return uint64_t{0};
}

SysResult<uint64_t> PrctlCall::SetMmMap(uint64_t what, uint64_t address, uint64_t size) {
  // struct prctl_mm_map: the addresses, a pointer to an auxiliary vector, its size, a descriptor.
  const size_t word = static_cast<size_t>(core_.layout.word_bytes);
  const size_t map_size = kMapAddresses * 8 + word + 8;
  if (what == kSetMmMapSize) {
    const auto answer = static_cast<uint32_t>(map_size);
    if (!call_.AccessOk(address, 4) || user_.CopyTo(address, &answer, 4) != 4)
      return Refuse(Errno::kEFAULT, "the size can't be written there");
    return uint64_t{0};
  }
  if (size != map_size) return Refuse(Errno::kEINVAL, "not the size of struct prctl_mm_map");
  uint8_t bytes[kMapAddresses * 8 + 16] = {};
  if (!call_.AccessOk(address, map_size) || user_.CopyFrom(address, bytes, map_size) != map_size) {
    return Refuse(Errno::kEFAULT, "the map can't be read");
  }
  MmAddresses addresses;
  std::memcpy(addresses.data(), bytes, kMapAddresses * 8);
  uint64_t auxv = 0;
  uint32_t auxv_size = 0;
  uint32_t exe_fd = 0;
  std::memcpy(&auxv, bytes + kMapAddresses * 8, word);
  std::memcpy(&auxv_size, bytes + kMapAddresses * 8 + word, 4);
  std::memcpy(&exe_fd, bytes + kMapAddresses * 8 + word + 4, 4);
  MMLAB_TRY(Validate(addresses));
  std::vector<std::pair<uint64_t, uint64_t>> vector;
  if (auxv_size != 0) {
    if (auxv == 0) return Refuse(Errno::kEINVAL, "an auxiliary vector without an address");
    MMLAB_TRY_ASSIGN(vector, ReadAuxv(auxv, auxv_size));
  }
  if (exe_fd != ~uint32_t{0}) {
    if (!task_.capable()) return Refuse(Errno::kEPERM, "a new executable needs CAP_CHECKPOINT_RESTORE");
    const SysResult<uint64_t> replaced = SetExeFile(static_cast<int32_t>(exe_fd));
    if (!replaced.ok()) return replaced.error();
  }
  Store(addresses);
  if (auxv_size != 0) mm_.saved_auxv = std::move(vector);
  return uint64_t{0};
}

SysResult<uint64_t> PrctlCall::SetExeFile(int32_t fd) {
  const auto it = task_.files->find(fd);
  if (it == task_.files->end()) return Refuse(Errno::kEBADF, "not an open descriptor");
  const FileKind kind = it->second->inode->kind;
  if (kind == FileKind::kPipe || kind == FileKind::kDevZero) return Refuse(Errno::kEACCES, "not a regular file");
  if (mm_.exe_file != nullptr) {
    for (const VmArea* vma = mm_.vmas.First(); vma != nullptr; vma = mm_.vmas.Next(*vma)) {
      if (vma->file != nullptr && vma->file->inode == mm_.exe_file->inode) {
        return Refuse(Errno::kEBUSY, "the present executable is still mapped");
      }
    }
  }
  mm_.exe_file = it->second;
  return uint64_t{0};
}

// The vector as pairs of words, up to AT_NULL; the last pair always is one.
SysResult<std::vector<std::pair<uint64_t, uint64_t>>> PrctlCall::ReadAuxv(uint64_t address, uint64_t length) {
  if (length > AuxvBytes()) return Refuse(Errno::kEINVAL, "longer than an auxiliary vector");
  std::vector<uint8_t> bytes(AuxvBytes());
  if (!call_.AccessOk(address, length) || user_.CopyFrom(address, bytes.data(), length) != length) {
    return Refuse(Errno::kEFAULT, "the auxiliary vector can't be read");
  }
  const size_t word = static_cast<size_t>(core_.layout.word_bytes);
  std::vector<std::pair<uint64_t, uint64_t>> vector;
  for (size_t at = 0; at + 4 * word <= bytes.size(); at += 2 * word) {
    std::pair<uint64_t, uint64_t> entry;
    std::memcpy(&entry.first, &bytes[at], word);
    std::memcpy(&entry.second, &bytes[at + word], word);
    if (entry.first == 0) break;
    vector.push_back(entry);
  }
  vector.emplace_back(0, 0);
  return vector;
}

SysResult<uint64_t> PrctlCall::SetAuxv(uint64_t address, uint64_t length) {
  MMLAB_TRY_ASSIGN(mm_.saved_auxv, ReadAuxv(address, length));
  return uint64_t{0};
}

}  // namespace

SysResult<uint64_t> Processes::Prctl(Pid pid, int32_t option, uint64_t arg2, uint64_t arg3, uint64_t arg4, uint64_t arg5) {
  Process* process = Enter(pid);
  if (process == nullptr || process->mm == nullptr) return Errno::kESRCH;
  const MmCall call(Core(), *process);
  PrctlCall prctl(Core(), memory_, *process);
  const std::string comm = process->comm;
  SysResult<uint64_t> answer = prctl.Perform(option, call.Argument(arg2), call.Argument(arg3), call.Argument(arg4), call.Argument(arg5));
  if (process->comm != comm) LeaveComm(*process, comm);
  return prctl.Explained(std::move(answer), option);
}

}  // namespace mmlab

#include "server/process/user_memory.h"

#include <algorithm>

#include "server/arch/layout.h"
#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/hardware/page_walk.h"
#include "server/physical/contents.h"
#include "server/physical/memory_controller.h"
#include "server/physical/physical_memory.h"
#include "server/process/page_replacement.h"
#include "server/process/paging.h"

namespace mmlab {
namespace {

constexpr int32_t kPageFaultTrap = 14;
// Page-fault error code of x86.
constexpr int32_t kErrorProtection = 1;
constexpr int32_t kErrorWrite = 2;
constexpr int32_t kErrorUser = 4;
constexpr int32_t kErrorFetch = 16;

// Exception syndrome of ARM64 (arch/arm64/include/asm/esr.h): class, fault status, whether it was a write.
constexpr uint64_t kClassInstructionAbort = 0x20;
constexpr uint64_t kClassDataAbort = 0x24;
constexpr uint64_t kLongInstruction = uint64_t{1} << 25;
constexpr uint64_t kWriteNotRead = uint64_t{1} << 6;
constexpr uint64_t kStatusTranslation = 0x04;
constexpr uint64_t kStatusAccessFlag = 0x08;
constexpr uint64_t kStatusPermission = 0x0c;

constexpr int32_t kBusAdraln = 1;

constexpr uint64_t kFnvOffset = 0xcbf29ce484222325;
constexpr uint64_t kFnvPrime = 0x100000001b3;

}  // namespace

UserMemory::UserMemory(const ProcessCore& core, PhysicalMemory& memory, Process& task)
    : core_(core),
      layout_(core.layout),
      memory_(memory),
      task_(task),
      mm_(*task.mm),
      page_bytes_(core.layout.page_size.bytes().raw()),
      table_bytes_(core.paging.format().coverage(2)),
      replacement_(mm_.replacement.get()) {}

UserMemory::Reach UserMemory::Touch(uint64_t address, FaultAccess access) {
  // A fault brings the page in and the access is tried again; each round either gets further or ends.
  while (true) {
    if (address >= mm_.task_size.raw()) {
      if (core_.tracer.events() != nullptr) EmitFault(address, access, PteVerdict::kPermission);
      return Fail(SignalNumber::kSigSegv, kSegvMaperr, address, access, PteVerdict::kPermission);
    }
    Paging::HardwareAccess found;
    if (table_ != nullptr && address - table_start_ < table_bytes_) {
      found = core_.paging.TryAccessIn(table_, VirtAddr(address), access.write, access.execute);
    } else {
      found = core_.paging.TryAccess(mm_, VirtAddr(address), access.write, access.execute);
      table_ = found.table;
      table_start_ = address & ~(table_bytes_ - 1);
    }
    if (found.verdict == PteVerdict::kAllowed) {
      frame_ = found.pfn;
      if (replacement_ != nullptr) [[unlikely]]
        NoteReference(address);
      return Reach::kOk;
    }
    if (const Reach reach = ServeFault(address, access, found.verdict); reach != Reach::kOk) return reach;
  }
}

void UserMemory::NoteReference(uint64_t address) {
  const uint64_t page = address >> layout_.page_size.shift();
  if (replacement_->Covers(page)) replacement_->Referenced(page);
}

int32_t UserMemory::X86ErrorCode(FaultAccess access, PteVerdict verdict) const {
  const bool no_execute = layout_.kind == LayoutKind::kX86_32Pae;  // Only then does the processor tell fetches apart.
  return kErrorUser | (verdict == PteVerdict::kPermission ? kErrorProtection : 0) | (access.write ? kErrorWrite : 0) |
         (access.execute && no_execute ? kErrorFetch : 0);
}

// ESR_EL1 of an abort taken from user mode.
uint64_t UserMemory::Arm64Syndrome(uint64_t address, FaultAccess access, PteVerdict verdict) const {
  uint64_t status = kStatusPermission;
  if (verdict == PteVerdict::kAccessFlag) status = kStatusAccessFlag;
  if (verdict == PteVerdict::kNotPresent) status = kStatusTranslation;
  // Where the walk ended; ARM64 counts levels from the top: 0 is the pgd, 3 the pte.
  if (address < mm_.task_size.raw()) status |= static_cast<uint64_t>(core_.paging.Walk(mm_, VirtAddr(address)).count - 1);
  return ((access.execute ? kClassInstructionAbort : kClassDataAbort) << 26) | kLongInstruction | (access.write ? kWriteNotRead : 0) |
         status;
}

void UserMemory::EmitFault(uint64_t address, FaultAccess access, PteVerdict verdict) const {
  EventSink* events = core_.tracer.events();
  if (events == nullptr || !access.user || !events->wants(EventKind::kPageFaultUser)) return;
  const uint64_t code = layout_.is_x86() ? static_cast<uint64_t>(X86ErrorCode(access, verdict)) : Arm64Syndrome(address, access, verdict);
  events->Emit(EventKind::kPageFaultUser, {address, access.execute ? address : 0, code});
}

UserMemory::Reach UserMemory::ServeFault(uint64_t address, FaultAccess access, PteVerdict verdict) {
  if (core_.tracer.events() != nullptr) EmitFault(address, access, verdict);
  if (Explanation* why = core_.tracer.explanation()) {
    ExplainWalk(core_.paging.format(), core_.paging.Walk(mm_, VirtAddr(address)), *why);
  }
  VmArea* vma = vma_;
  if (vma == nullptr || !vma->range().Contains(VirtAddr(address))) {
    vma = mm_.vmas.Find(VirtAddr(address));
    if (vma == nullptr || vma->start.raw() > address) vma = MmCall(core_, task_).ExpandStack(VirtAddr(address));
    vma_ = vma;
  }
  if (vma == nullptr) return Fail(SignalNumber::kSigSegv, kSegvMaperr, address, access, verdict);
  if (!MayAccess(*vma, access, verdict)) return Fail(SignalNumber::kSigSegv, kSegvAccerr, address, access, verdict);
  switch (core_.paging.HandleFault(task_, *vma, VirtAddr(address), access)) {
    case FaultOutcome::kMinor:
    case FaultOutcome::kMajor:
      if (!access.user) return Reach::kOk;
      if (MemoryController* charger = memory_.charger(); charger != nullptr) [[unlikely]]
        charger->ReturnToUser();
      // A task that was killed meanwhile takes the signal on its way back and does no more.
      if (!task_.killed) return Reach::kOk;
      break;
    case FaultOutcome::kSigBus:
      return Fail(SignalNumber::kSigBus, kBusAdrerr, address, access, verdict);
    case FaultOutcome::kSigSegv:
      return Fail(SignalNumber::kSigSegv, kSegvMaperr, address, access, verdict);
    case FaultOutcome::kOom:
      break;
  }
  out_of_memory_ = true;
  return Reach::kNoMemory;
}

// access_error() of x86, the vm_flags test in do_page_fault() of ARM64.
bool UserMemory::MayAccess(const VmArea& vma, FaultAccess access, PteVerdict verdict) const {
  bool allowed = false;
  if (layout_.is_x86()) {
    // What is not there may be fetched from anything accessible: the processor refuses by itself if it can.
    allowed = access.write ? vma.is(kVmWrite) : verdict != PteVerdict::kPermission && vma.is(kVmAccessFlags);
  } else if (access.execute) {
    allowed = vma.is(kVmExec);
  } else {
    // Write implies read; so does execute on processors that cannot tell them apart (no EPAN).
    allowed = vma.is(access.write ? uint64_t{kVmWrite} : kVmAccessFlags);
  }
  if (Explanation* why = core_.tracer.explanation()) {
    why->Add(StepKind::kPermissionCheck, allowed ? "vm_flags allow the access" : "vm_flags do not allow the access")
        .Address("vma_start", vma.start)
        .Address("vma_end", vma.end)
        .Bits("vm_flags", vma.flags)
        .Text("access", access.execute ? "execute"
                        : access.write ? "write"
                                       : "read")
        .Truth("entry_refused", verdict == PteVerdict::kPermission);
  }
  return allowed;
}

UserMemory::Reach UserMemory::Fail(SignalNumber number, int32_t code, uint64_t address, FaultAccess access, PteVerdict verdict) {
  signal_ = Signal{.number = number, .code = code, .address = address};
  if (layout_.is_x86()) {
    signal_.x86_trap = kPageFaultTrap;
    signal_.x86_error_code = X86ErrorCode(access, verdict);
  }
  if (Explanation* why = core_.tracer.explanation()) {
    const char* reason = number == SignalNumber::kSigBus ? "no page can stand behind the address"
                         : code == kSegvMaperr           ? "no VMA holds the address"
                                                         : "the VMA does not allow the access";
    why->Add(access.user ? StepKind::kSignal : StepKind::kFaultDecision, reason)
        .Text("signal", number == SignalNumber::kSigBus ? "SIGBUS" : "SIGSEGV")
        .Number("si_code", code)
        .Address("address", VirtAddr(address));
  }
  return Reach::kSignal;
}

Errno UserMemory::Answer(Reach reach, uint64_t address, AccessResult& result, std::optional<Signal>& signal) const {
  if (reach == Reach::kNoMemory) return Errno::kENOMEM;
  signal = signal_;
  result.failed_at = address;
  return Errno::kOk;
}

Errno UserMemory::Access(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal, std::string& data) {
  const uint64_t minor = task_.minor_faults;
  const uint64_t major = task_.major_faults;
  AccessRequest cut = request;
  cut.address = MmCall(core_, task_).UntagAddress(Wrap(request.address));
  Errno error = Errno::kEINVAL;
  switch (request.kind) {
    case AccessKind::kLoad:
    case AccessKind::kStore:
      error = LoadOrStore(cut, result, signal);
      break;
    case AccessKind::kTouchRead:
    case AccessKind::kTouchWrite:
      error = TouchPages(cut, result, signal);
      break;
    case AccessKind::kHash:
    case AccessKind::kReadBytes:
      error = ReadAll(cut, result, signal, data);
      break;
    case AccessKind::kWriteBytes:
      error = WriteAll(cut, result, signal);
      break;
    case AccessKind::kExecute:
      error = Execute(cut, result, signal);
      break;
  }
  result.minor_faults = task_.minor_faults - minor;
  result.major_faults = task_.major_faults - major;
  return error;
}

Errno UserMemory::LoadOrStore(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal) {
  const uint64_t size = request.length;
  if (size != 1 && size != 2 && size != 4 && size != 8) return Errno::kEINVAL;
  const FaultAccess access{.write = request.kind == AccessKind::kStore};
  // An access across two pages needs both before it does anything.
  const uint64_t first_size = std::min(size, RoomInPage(request.address));
  const uint64_t second = Wrap(request.address + first_size);
  Reach reach = Touch(request.address, access);
  if (reach != Reach::kOk) return Answer(reach, request.address, result, signal);
  Pfn first_frame = frame_;
  if (Explanation* why = core_.tracer.explanation(); why != nullptr && why->steps().empty()) {
    ExplainWalk(core_.paging.format(), core_.paging.Walk(mm_, VirtAddr(request.address)), *why);
    why->Add(StepKind::kPermissionCheck, "the page-table entry allows it: the processor asks nobody, there is no fault")
        .Frame("pfn", first_frame);
  }
  while (first_size < size) {
    reach = Touch(second, access);
    if (reach != Reach::kOk) return Answer(reach, request.address, result, signal);
    // To bring in the second page, reclaim may have taken the first: then the access starts again.
    const Pfn second_frame = frame_;
    const uint64_t faults = task_.minor_faults + task_.major_faults;
    reach = Touch(request.address, access);
    if (reach != Reach::kOk) return Answer(reach, request.address, result, signal);
    first_frame = frame_;
    frame_ = second_frame;
    if (task_.minor_faults + task_.major_faults == faults) break;
  }
  FrameContents& contents = memory_.contents();
  const size_t offset = request.address & (page_bytes_ - 1);
  uint8_t bytes[8] = {};
  if (access.write) {
    for (uint64_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(request.value >> (8 * i));
    contents.Write(first_frame, offset, bytes, first_size);
    if (first_size < size) contents.Write(frame_, 0, bytes + first_size, size - first_size);
  } else {
    contents.Read(first_frame, offset, bytes, first_size);
    if (first_size < size) contents.Read(frame_, 0, bytes + first_size, size - first_size);
    for (uint64_t i = 0; i < size; ++i) result.value |= uint64_t{bytes[i]} << (8 * i);
  }
  result.done = 1;
  return Errno::kOk;
}

Errno UserMemory::TouchPages(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal) {
  const uint64_t stride = request.stride == 0 ? page_bytes_ : request.stride;
  const FaultAccess access{.write = request.kind == AccessKind::kTouchWrite};
  const auto value = static_cast<uint8_t>(request.value);
  FrameContents& contents = memory_.contents();
  for (uint64_t offset = 0; offset < request.length; offset += stride) {
    const uint64_t address = Wrap(request.address + offset);
    const Reach reach = Touch(address, access);
    if (reach != Reach::kOk) return Answer(reach, address, result, signal);
    if (access.write) contents.Write(frame_, address & (page_bytes_ - 1), &value, 1);
    ++result.done;
    if (stride > request.length - offset) break;  // The next one is beyond the range; adding would wrap.
  }
  return Errno::kOk;
}

Errno UserMemory::ReadAll(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal, std::string& data) {
  uint64_t hash = kFnvOffset;
  uint64_t address = request.address;
  uint64_t left = request.length;
  std::string bytes;
  while (left > 0) {
    const Reach reach = Touch(address, FaultAccess{});
    if (reach != Reach::kOk) {
      result.fnv1a64 = hash;
      return Answer(reach, address, result, signal);
    }
    const uint64_t count = std::min(left, RoomInPage(address));
    bytes.resize(count);
    memory_.contents().Read(frame_, address & (page_bytes_ - 1), bytes.data(), count);
    if (request.kind == AccessKind::kHash) {
      for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * kFnvPrime;
    } else {
      data += bytes;
    }
    result.done += count;
    left -= count;
    address = Wrap(address + count);
  }
  if (request.kind == AccessKind::kHash) result.fnv1a64 = hash;
  return Errno::kOk;
}

Errno UserMemory::WriteAll(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal) {
  uint64_t address = request.address;
  size_t written = 0;
  while (written < request.data.size()) {
    const Reach reach = Touch(address, FaultAccess{.write = true});
    if (reach != Reach::kOk) return Answer(reach, address, result, signal);
    const size_t count = std::min<uint64_t>(request.data.size() - written, RoomInPage(address));
    memory_.contents().Write(frame_, address & (page_bytes_ - 1), request.data.data() + written, count);
    written += count;
    result.done = written;
    address = Wrap(address + count);
  }
  return Errno::kOk;
}

Errno UserMemory::Execute(const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal) {
  if (!layout_.is_x86() && !mm_.compat && (request.address & 3) != 0) {
    signal_ = Signal{.number = SignalNumber::kSigBus, .code = kBusAdraln, .address = request.address};
    return Answer(Reach::kSignal, request.address, result, signal);
  }
  const Reach reach = Touch(request.address, FaultAccess{.execute = true});
  if (reach != Reach::kOk) return Answer(reach, request.address, result, signal);
  result.done = 1;
  return Errno::kOk;
}

uint64_t UserMemory::CopyTo(uint64_t address, const void* data, uint64_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  uint64_t copied = 0;
  while (copied < size) {
    if (Touch(address + copied, FaultAccess{.write = true, .user = false}) != Reach::kOk) break;
    const uint64_t count = std::min(size - copied, RoomInPage(address + copied));
    memory_.contents().Write(frame_, (address + copied) & (page_bytes_ - 1), bytes + copied, count);
    copied += count;
  }
  return copied;
}

uint64_t UserMemory::CopyFrom(uint64_t address, void* out, uint64_t size) {
  auto* bytes = static_cast<uint8_t*>(out);
  uint64_t copied = 0;
  while (copied < size) {
    if (Touch(address + copied, FaultAccess{.user = false}) != Reach::kOk) break;
    const uint64_t count = std::min(size - copied, RoomInPage(address + copied));
    memory_.contents().Read(frame_, (address + copied) & (page_bytes_ - 1), bytes + copied, count);
    copied += count;
  }
  return copied;
}

uint64_t UserMemory::Clear(uint64_t address, uint64_t size) {
  const std::string zeros(std::min(size, page_bytes_), '\0');
  uint64_t cleared = 0;
  while (cleared < size) {
    const uint64_t count = std::min(size - cleared, page_bytes_);
    const uint64_t done = CopyTo(address + cleared, zeros.data(), count);
    cleared += done;
    if (done < count) break;
  }
  return cleared;
}

uint64_t UserMemory::FaultInReadable(uint64_t address, uint64_t size) {
  uint64_t readable = 0;
  while (readable < size) {
    if (Touch(address + readable, FaultAccess{.user = false}) != Reach::kOk) break;
    readable += std::min(size - readable, RoomInPage(address + readable));
  }
  return readable;
}

}  // namespace mmlab

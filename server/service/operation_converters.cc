#include "server/service/operation_converters.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"

namespace mmlab {
namespace {

constexpr size_t kMaxPath = 4095;                    // PATH_MAX without its NUL.
constexpr size_t kMaxTransfer = size_t{1} << 20;     // Bytes in one message field.
constexpr uint64_t kMaxMincore = uint64_t{1} << 30;  // Bytes of memory.
constexpr uint64_t kMaxHash = uint64_t{1} << 30;     // Bytes of memory.
constexpr uint64_t kMaxTouches = uint64_t{1} << 24;  // Accesses of one operation.
constexpr uint64_t kSmallestPage = 4096;
constexpr int kMaxProgramHeaders = 128;
constexpr size_t kMaxSysctlName = 255;
constexpr size_t kMaxSysctlValue = 4095;  // A page, with its NUL.
constexpr int64_t kMaxTimeStep = 1'000'000'000'000'000'000;
constexpr int kMaxCpus = 64;
constexpr int kMaxSwapPriority = 32767;  // SWAP_FLAG_PRIO_MASK

// A string that a process could pass: it ends at its first NUL, so it has none.
absl::Status CheckString(absl::string_view field, absl::string_view text, size_t max_size = kMaxPath) {
  if (text.size() > max_size) return InvalidField(field, absl::StrCat("must have at most ", max_size, " bytes"));
  if (text.find('\0') != absl::string_view::npos) return InvalidField(field, "must not have a NUL byte");
  return absl::OkStatus();
}

absl::Status CheckPath(absl::string_view field, absl::string_view path) {
  if (path.empty()) return InvalidField(field, "must be set");
  return CheckString(field, path);
}

absl::Status CheckImage(const v1::ElfImage& image) {
  MMLAB_RETURN_IF_ERROR(CheckPath("path", image.path()));
  if (image.program_headers_size() > kMaxProgramHeaders) {
    return InvalidField("program_headers", absl::StrCat("must be at most ", kMaxProgramHeaders));
  }
  for (int i = 0; i < image.program_headers_size(); ++i) {
    if (!v1::ProgramHeader::Type_IsValid(image.program_headers(i).type())) {
      return InvalidField(absl::StrCat("program_headers[", i, "].type"), "must be a value of ProgramHeader.Type");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStrings(absl::string_view list, const google::protobuf::RepeatedPtrField<std::string>& strings) {
  for (int i = 0; i < strings.size(); ++i) {
    if (strings[i].find('\0') != std::string::npos) {
      return InvalidField(absl::StrCat(list, "[", i, "]"), "must not have a NUL byte");
    }
  }
  return absl::OkStatus();
}

bool IsWidth(uint64_t length) { return length == 1 || length == 2 || length == 4 || length == 8; }

absl::Status CheckTouch(const v1::AccessMemoryRequest& request) {
  const uint64_t stride = request.stride_bytes() == 0 ? kSmallestPage : request.stride_bytes();
  if (request.length_bytes() / stride > kMaxTouches) {
    return FieldOutOfRange("length_bytes", absl::StrCat("must be at most ", kMaxTouches, " strides"));
  }
  if (request.kind() == v1::ACCESS_KIND_TOUCH_WRITE && request.value() > 0xff) return InvalidField("value", "must be a byte");
  return absl::OkStatus();
}

ElfImage ImageToNative(const v1::ElfImage& image) {
  ElfImage native{.path = image.path(),
                  .entry = image.entry_address(),
                  .position_independent = image.position_independent(),
                  .machine = image.elf_machine(),
                  .program_headers = {}};
  native.program_headers.reserve(image.program_headers_size());
  for (const v1::ProgramHeader& header : image.program_headers()) {
    native.program_headers.push_back(ProgramHeader{static_cast<ProgramHeader::Type>(header.type()), header.offset_bytes(),
                                                   header.virtual_address(), header.file_size_bytes(), header.memory_size_bytes(),
                                                   header.flags(), header.align_bytes()});
  }
  return native;
}

// 0 is what a message has where nobody wished for anything.
int32_t WishedFd(int32_t fd) { return fd == 0 ? -1 : fd; }

}  // namespace

absl::Status CheckFields(const v1::CreateProcessRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckString("comm", request.comm()));
  if (!std::all_of(request.comm().begin(), request.comm().end(), [](char c) { return absl::ascii_isprint(c); })) {
    return InvalidField("comm", "must have printable ASCII characters only");
  }
  return absl::OkStatus();
}

absl::Status CheckFields(const v1::ExecRequest& request) {
  if (const absl::Status image = CheckImage(request.image()); !image.ok()) return InField("image", image);
  if (request.has_interpreter()) {
    if (const absl::Status interpreter = CheckImage(request.interpreter()); !interpreter.ok()) return InField("interpreter", interpreter);
  }
  MMLAB_RETURN_IF_ERROR(CheckStrings("arguments", request.arguments()));
  return CheckStrings("environment", request.environment());
}

absl::Status CheckFields(const v1::MincoreRequest& request) {
  if (request.length_bytes() > kMaxMincore) return FieldOutOfRange("length_bytes", "must be at most 1 GiB");
  return absl::OkStatus();
}

absl::Status CheckFields(const v1::SetVmaNameRequest& request) { return CheckString("vma_name", request.vma_name()); }

absl::Status CheckFields(const v1::WritePhysicalMemoryRequest& request) {
  if (request.data().size() > kMaxTransfer) return FieldOutOfRange("data", "must have at most 1 MiB");
  return absl::OkStatus();
}

absl::Status CheckFields(const v1::AccessMemoryRequest& request) {
  switch (request.kind()) {
    case v1::ACCESS_KIND_LOAD:
    case v1::ACCESS_KIND_STORE:
      if (!IsWidth(request.length_bytes())) return InvalidField("length_bytes", "must be 1, 2, 4 or 8");
      return absl::OkStatus();
    case v1::ACCESS_KIND_TOUCH_READ:
    case v1::ACCESS_KIND_TOUCH_WRITE:
      return CheckTouch(request);
    case v1::ACCESS_KIND_HASH:
      if (request.length_bytes() > kMaxHash) return FieldOutOfRange("length_bytes", "must be at most 1 GiB");
      return absl::OkStatus();
    case v1::ACCESS_KIND_EXECUTE:
      return absl::OkStatus();
    case v1::ACCESS_KIND_READ_BYTES:
      if (request.length_bytes() > kMaxTransfer) return FieldOutOfRange("length_bytes", "must be at most 1 MiB");
      return absl::OkStatus();
    case v1::ACCESS_KIND_WRITE_BYTES:
      if (request.data().size() > kMaxTransfer) return FieldOutOfRange("data", "must have at most 1 MiB");
      return absl::OkStatus();
    default:
      return InvalidField("kind", "must be set to a value of AccessKind");
  }
}

absl::Status CheckFields(const v1::CreateFileRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckPath("path", request.path()));
  if (request.path().front() != '/') return InvalidField("path", "must be absolute");
  if (!v1::FileSystem_IsValid(request.file_system())) return InvalidField("file_system", "must be a value of FileSystem");
  if (!v1::TmpfsHuge_IsValid(request.tmpfs_huge())) return InvalidField("tmpfs_huge", "must be a value of TmpfsHuge");
  if (request.content().size() > kMaxTransfer) return FieldOutOfRange("content", "must have at most 1 MiB");
  if (request.size_bytes() < request.content().size()) return InvalidField("size_bytes", "must be at least the length of content");
  return absl::OkStatus();
}

absl::Status CheckFields(const v1::OpenRequest& request) { return CheckString("path", request.path()); }

absl::Status CheckFields(const v1::MemfdCreateRequest& request) { return CheckString("memfd_name", request.memfd_name()); }

absl::Status CheckFields(const v1::UnlinkRequest& request) { return CheckPath("path", request.path()); }

absl::Status CheckFields(const v1::SwaponRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckPath("path", request.path()));
  if (request.priority() < 0 || request.priority() > kMaxSwapPriority) return FieldOutOfRange("priority", "must be 0 to 32767");
  return absl::OkStatus();
}

absl::Status CheckFields(const v1::SwapoffRequest& request) { return CheckPath("path", request.path()); }

absl::Status CheckFields(const v1::WriteSysctlRequest& request) {
  if (request.sysctl().empty()) return InvalidField("sysctl", "must be set");
  MMLAB_RETURN_IF_ERROR(CheckString("sysctl", request.sysctl(), kMaxSysctlName));
  return CheckString("value", request.value(), kMaxSysctlValue);
}
absl::Status CheckFields(const v1::WriteSysfsRequest& request) {
  if (request.path().empty()) return InvalidField("path", "must be set");
  MMLAB_RETURN_IF_ERROR(CheckString("path", request.path(), kMaxSysctlName));
  return CheckString("value", request.value(), kMaxSysctlValue);
}

absl::Status CheckFields(const v1::AdvanceTimeRequest& request) {
  if (request.nanoseconds() < 0 || request.nanoseconds() > kMaxTimeStep) return InvalidField("nanoseconds", "must be 0 to 10^18");
  return absl::OkStatus();
}

absl::Status CheckCpu(int32_t cpu, int cpus) {
  if (cpu < 0 || cpu >= std::min(cpus, kMaxCpus)) return InvalidField("cpu", absl::StrCat("must be 0 to ", cpus - 1));
  return absl::OkStatus();
}

op::CreateProcess ToNative(const v1::CreateProcessRequest& request) { return {request.comm(), request.uid(), request.kernel_thread()}; }

op::Exec ToNative(const v1::ExecRequest& request) {
  op::Exec native{Pid(request.pid()), ImageToNative(request.image()), std::nullopt, {}, {}};
  if (request.has_interpreter()) native.interpreter = ImageToNative(request.interpreter());
  native.arguments.assign(request.arguments().begin(), request.arguments().end());
  native.environment.assign(request.environment().begin(), request.environment().end());
  return native;
}

op::Fork ToNative(const v1::ForkRequest& r) { return {Pid(r.pid()), r.clone_flags()}; }
op::Exit ToNative(const v1::ExitRequest& r) { return {Pid(r.pid()), r.code()}; }
op::Mmap ToNative(const v1::MmapRequest& r) {
  return {Pid(r.pid()), r.address(), r.length_bytes(), r.prot(), r.flags(), r.fd(), r.offset_bytes()};
}
op::Munmap ToNative(const v1::MunmapRequest& r) { return {Pid(r.pid()), r.address(), r.length_bytes()}; }
op::Mprotect ToNative(const v1::MprotectRequest& r) { return {Pid(r.pid()), r.address(), r.length_bytes(), r.prot()}; }
op::Mremap ToNative(const v1::MremapRequest& r) {
  return {Pid(r.pid()), r.old_address(), r.old_length_bytes(), r.new_length_bytes(), r.flags(), r.new_address()};
}
op::Madvise ToNative(const v1::MadviseRequest& r) { return {Pid(r.pid()), r.address(), r.length_bytes(), r.advice()}; }
op::Mlock ToNative(const v1::MlockRequest& r) { return {Pid(r.pid()), r.address(), r.length_bytes(), r.flags()}; }
op::Munlock ToNative(const v1::MunlockRequest& r) { return {Pid(r.pid()), r.address(), r.length_bytes()}; }
op::Mlockall ToNative(const v1::MlockallRequest& r) { return {Pid(r.pid()), r.flags()}; }
op::Munlockall ToNative(const v1::MunlockallRequest& r) { return {Pid(r.pid())}; }
op::Brk ToNative(const v1::BrkRequest& r) { return {Pid(r.pid()), r.address()}; }
op::Msync ToNative(const v1::MsyncRequest& r) { return {Pid(r.pid()), r.address(), r.length_bytes(), r.flags()}; }
op::Mincore ToNative(const v1::MincoreRequest& r) { return {Pid(r.pid()), r.address(), r.length_bytes()}; }
op::Setrlimit ToNative(const v1::SetrlimitRequest& r) { return {Pid(r.pid()), r.resource(), r.current_bytes(), r.maximum_bytes()}; }
op::WriteOomScoreAdj ToNative(const v1::WriteOomScoreAdjRequest& r) { return {Pid(r.pid()), r.oom_score_adj()}; }
op::SetVmaName ToNative(const v1::SetVmaNameRequest& r) { return {Pid(r.pid()), r.address(), r.length_bytes(), r.vma_name()}; }
op::AccessMemory ToNative(const v1::AccessMemoryRequest& r) {
  return {Pid(r.pid()),
          AccessRequest{static_cast<AccessKind>(r.kind()), r.address(), r.length_bytes(), r.stride_bytes(), r.value(), r.data()}};
}
op::WritePhysicalMemory ToNative(const v1::WritePhysicalMemoryRequest& r) { return {r.address(), r.data()}; }
op::SwitchTo ToNative(const v1::SwitchToRequest& r) { return {Pid(r.pid()), r.cpu()}; }
op::Prctl ToNative(const v1::PrctlRequest& r) { return {Pid(r.pid()), r.option(), r.arg2(), r.arg3(), r.arg4(), r.arg5()}; }
op::Sbrk ToNative(const v1::SbrkRequest& r) { return {Pid(r.pid()), r.increment_bytes()}; }

op::CreateFile ToNative(const v1::CreateFileRequest& r) {
  const auto kind = r.file_system() == v1::FILE_SYSTEM_EXT4           ? op::FileSystem::kExt4
                    : r.file_system() == v1::FILE_SYSTEM_BLOCK_DEVICE ? op::FileSystem::kBlockDevice
                    : r.file_system() == v1::FILE_SYSTEM_HUGETLBFS    ? op::FileSystem::kHugetlbfs
                                                                      : op::FileSystem::kTmpfs;
  const auto huge = r.tmpfs_huge() == v1::TMPFS_HUGE_ALWAYS        ? op::TmpfsHuge::kAlways
                    : r.tmpfs_huge() == v1::TMPFS_HUGE_WITHIN_SIZE ? op::TmpfsHuge::kWithinSize
                    : r.tmpfs_huge() == v1::TMPFS_HUGE_ADVISE      ? op::TmpfsHuge::kAdvise
                                                                   : op::TmpfsHuge::kNever;
  return {r.path(), kind, r.size_bytes(), r.content(), r.resident(), r.huge_page_size_bytes(), huge};
}
op::Open ToNative(const v1::OpenRequest& r) { return {Pid(r.pid()), r.path(), r.flags(), WishedFd(r.wished_fd())}; }
op::Pipe ToNative(const v1::PipeRequest& r) { return {Pid(r.pid()), WishedFd(r.wished_fd())}; }
op::Close ToNative(const v1::CloseRequest& r) { return {Pid(r.pid()), r.fd()}; }
op::MemfdCreate ToNative(const v1::MemfdCreateRequest& r) { return {Pid(r.pid()), r.memfd_name(), r.flags()}; }
op::Ftruncate ToNative(const v1::FtruncateRequest& r) { return {Pid(r.pid()), r.fd(), r.length_bytes()}; }
op::Pread ToNative(const v1::PreadRequest& r) { return {Pid(r.pid()), r.fd(), r.address(), r.length_bytes(), r.offset_bytes()}; }
op::Pwrite ToNative(const v1::PwriteRequest& r) { return {Pid(r.pid()), r.fd(), r.address(), r.length_bytes(), r.offset_bytes()}; }
op::Shmget ToNative(const v1::ShmgetRequest& r) { return {Pid(r.pid()), r.key(), r.size_bytes(), r.flags()}; }
op::Shmat ToNative(const v1::ShmatRequest& r) { return {Pid(r.pid()), r.shm_id(), r.address(), r.flags()}; }
op::Shmdt ToNative(const v1::ShmdtRequest& r) { return {Pid(r.pid()), r.address()}; }
op::ShmRemove ToNative(const v1::ShmRemoveRequest& r) { return {Pid(r.pid()), r.shm_id()}; }
op::Unlink ToNative(const v1::UnlinkRequest& r) { return {r.path()}; }
op::Sync ToNative(const v1::SyncRequest&) { return {}; }
op::Fsync ToNative(const v1::FsyncRequest& r) { return {Pid(r.pid()), r.fd()}; }
op::Swapon ToNative(const v1::SwaponRequest& r) {
  return {r.path(), r.has_priority() ? std::optional<int32_t>(r.priority()) : std::nullopt};
}
op::Swapoff ToNative(const v1::SwapoffRequest& r) { return {r.path()}; }

op::WriteSysctl ToNative(const v1::WriteSysctlRequest& r) {
  op::WriteSysctl native{r.sysctl(), r.value()};
  std::replace(native.name.begin(), native.name.end(), '/', '.');
  return native;
}
op::WriteSysfs ToNative(const v1::WriteSysfsRequest& r) { return {r.path(), r.value()}; }
op::AdvanceTime ToNative(const v1::AdvanceTimeRequest& r) { return {r.nanoseconds()}; }

bool IsShort(const v1::AccessMemoryRequest& request) {
  const bool touch = request.kind() == v1::ACCESS_KIND_TOUCH_READ || request.kind() == v1::ACCESS_KIND_TOUCH_WRITE;
  if (touch && request.stride_bytes() != 0 && request.stride_bytes() < kSmallestPage) {
    return request.length_bytes() / request.stride_bytes() <= kShortBytes / kSmallestPage;
  }
  return request.length_bytes() <= kShortBytes;
}

bool IsShort(const v1::MremapRequest& request) { return std::max(request.old_length_bytes(), request.new_length_bytes()) <= kShortBytes; }

uint64_t PromisedData(const v1::Operation& operation) {
  if (operation.has_mincore()) return operation.mincore().length_bytes() / kSmallestPage + 1;
  if (operation.has_access_memory() && operation.access_memory().kind() == v1::ACCESS_KIND_READ_BYTES) {
    return operation.access_memory().length_bytes();
  }
  if (operation.has_alloc_pages_bulk()) return uint64_t{operation.alloc_pages_bulk().count()} * sizeof(uint64_t);
  if (operation.has_kmem_cache_alloc_bulk()) return uint64_t{operation.kmem_cache_alloc_bulk().count()} * sizeof(uint64_t);
  return 0;
}

namespace {

template <typename Request>
absl::Status CheckMember(const Request& request, int cpus) {
  if (!request.machine().empty()) return InvalidField("machine", "must be empty inside a batch, whose machine it is");
  if (!request.request_id().empty()) return InvalidField("request_id", "must be empty inside a batch, which has one for all");
  if constexpr (requires { request.cpu(); }) MMLAB_RETURN_IF_ERROR(CheckCpu(request.cpu(), cpus));
  return CheckFields(request);
}

}  // namespace

absl::Status CheckOperation(const v1::Operation& operation, int cpus) {
  switch (operation.operation_case()) {
#define MMLAB_CASE(Name, field)                                       \
  case v1::Operation::k##Name: {                                      \
    const absl::Status status = CheckMember(operation.field(), cpus); \
    return status.ok() ? absl::OkStatus() : InField(#field, status);  \
  }
    MMLAB_OPERATIONS(MMLAB_CASE)
#undef MMLAB_CASE
    case v1::Operation::OPERATION_NOT_SET:
      break;
  }
  return InvalidField("operation", "must be set to an operation that this server knows");
}

Operation ToNative(const v1::Operation& operation) {
  switch (operation.operation_case()) {
#define MMLAB_CASE(Name, field) \
  case v1::Operation::k##Name:  \
    return Operation(std::in_place_type<op::Name>, ToNative(operation.field()));
    MMLAB_OPERATIONS(MMLAB_CASE)
#undef MMLAB_CASE
    case v1::Operation::OPERATION_NOT_SET:
      break;
  }
  FailCheck("the operation was checked", __FILE__, __LINE__);
}

bool IsShortOperation(const v1::Operation& operation) {
  switch (operation.operation_case()) {
#define MMLAB_CASE(Name, field) \
  case v1::Operation::k##Name:  \
    return IsShort(operation.field());
    MMLAB_OPERATIONS(MMLAB_CASE)
#undef MMLAB_CASE
    case v1::Operation::OPERATION_NOT_SET:
      break;
  }
  return false;
}

bool WantsExplanation(const v1::Operation& operation) {
  switch (operation.operation_case()) {
#define MMLAB_CASE(Name, field) \
  case v1::Operation::k##Name:  \
    return operation.field().explain();
    MMLAB_OPERATIONS(MMLAB_CASE)
#undef MMLAB_CASE
    case v1::Operation::OPERATION_NOT_SET:
      break;
  }
  return false;
}

}  // namespace mmlab

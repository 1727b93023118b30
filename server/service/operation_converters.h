#ifndef MMLAB_SERVER_SERVICE_OPERATION_CONVERTERS_H_
#define MMLAB_SERVER_SERVICE_OPERATION_CONVERTERS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmlab/v1/operation.pb.h"
#include "server/machine/operation.h"
#include "server/service/operation_list.h"

namespace mmlab {

// Between the request messages and the engine's operations. The same functions serve an operation that comes alone, in a batch or in a
// stream.

// What no system call could carry is refused with INVALID_ARGUMENT or OUT_OF_RANGE that names the field of the message. What a system call
// could carry passes, however wrong: the simulated kernel refuses it itself.
absl::Status CheckFields(const v1::CreateProcessRequest& request);
absl::Status CheckFields(const v1::ExecRequest& request);
absl::Status CheckFields(const v1::MincoreRequest& request);
absl::Status CheckFields(const v1::SetVmaNameRequest& request);
absl::Status CheckFields(const v1::AccessMemoryRequest& request);
absl::Status CheckFields(const v1::WritePhysicalMemoryRequest& request);
absl::Status CheckFields(const v1::CreateFileRequest& request);
absl::Status CheckFields(const v1::OpenRequest& request);
absl::Status CheckFields(const v1::MemfdCreateRequest& request);
absl::Status CheckFields(const v1::UnlinkRequest& request);
absl::Status CheckFields(const v1::WriteSlabinfoRequest& request);
absl::Status CheckFields(const v1::WriteSlabMemoryRequest& request);
absl::Status CheckFields(const v1::SwaponRequest& request);
absl::Status CheckFields(const v1::SwapoffRequest& request);
absl::Status CheckFields(const v1::SetPageReplacementRequest& request);
absl::Status CheckFields(const v1::AllocPagesRequest& request);
absl::Status CheckFields(const v1::FreePagesRequest& request);
absl::Status CheckFields(const v1::GetFreePagesRequest& request);
absl::Status CheckFields(const v1::AllocPagesExactRequest& request);
absl::Status CheckFields(const v1::AllocPagesBulkRequest& request);
absl::Status CheckFields(const v1::FreePageListRequest& request);
absl::Status CheckFields(const v1::SplitPageRequest& request);
absl::Status CheckFields(const v1::KmemCacheCreateRequest& request);
absl::Status CheckFields(const v1::KmemCacheDestroyRequest& request);
absl::Status CheckFields(const v1::KmemCacheShrinkRequest& request);
absl::Status CheckFields(const v1::KmemCacheAllocRequest& request);
absl::Status CheckFields(const v1::KmemCacheFreeRequest& request);
absl::Status CheckFields(const v1::KmemCacheAllocBulkRequest& request);
absl::Status CheckFields(const v1::KmemCacheFreeBulkRequest& request);
absl::Status CheckFields(const v1::KmallocRequest& request);
absl::Status CheckFields(const v1::KreallocRequest& request);
absl::Status CheckFields(const v1::VmallocRequest& request);
absl::Status CheckFields(const v1::VmapRequest& request);
absl::Status CheckFields(const v1::GetVmAreaRequest& request);
absl::Status CheckFields(const v1::IoremapRequest& request);
absl::Status CheckFields(const v1::VmMapRamRequest& request);
absl::Status CheckFields(const v1::CreateCgroupRequest& request);
absl::Status CheckFields(const v1::RemoveCgroupRequest& request);
absl::Status CheckFields(const v1::WriteCgroupFileRequest& request);
absl::Status CheckFields(const v1::WriteSysctlRequest& request);
absl::Status CheckFields(const v1::WriteSysfsRequest& request);
absl::Status CheckFields(const v1::AdvanceTimeRequest& request);
template <typename Request>
absl::Status CheckFields(const Request&) {  // All other requests hold numbers of which any could be passed.
  return absl::OkStatus();
}

// The engine's form. REQUIRES: CheckFields was OK.
#define MMLAB_DECLARE(Name, field) op::Name ToNative(const v1::Name##Request& request);
MMLAB_OPERATIONS(MMLAB_DECLARE)
#undef MMLAB_DECLARE

// Whether an operation takes microseconds at most whatever the machine's state, so that a thread of the network may carry it out itself.
inline constexpr uint64_t kShortBytes = uint64_t{1} << 20;  // Some hundred pages: tens of microseconds if each faults.
bool IsShort(const v1::AccessMemoryRequest& request);
bool IsShort(const v1::MremapRequest& request);
inline bool IsShort(const v1::ExecRequest&) { return false; }
inline bool IsShort(const v1::ForkRequest&) { return false; }
inline bool IsShort(const v1::ExitRequest&) { return false; }
inline bool IsShort(const v1::MlockallRequest&) { return false; }
inline bool IsShort(const v1::MunlockallRequest&) { return false; }
inline bool IsShort(const v1::CreateFileRequest&) { return false; }
inline bool IsShort(const v1::FtruncateRequest&) { return false; }
inline bool IsShort(const v1::ShmdtRequest&) { return false; }
inline bool IsShort(const v1::UnlinkRequest&) { return false; }
inline bool IsShort(const v1::SyncRequest&) { return false; }
inline bool IsShort(const v1::FsyncRequest&) { return false; }
inline bool IsShort(const v1::SwapoffRequest&) { return false; }
inline bool IsShort(const v1::SetPageReplacementRequest&) { return false; }
inline bool IsShort(const v1::WriteSysctlRequest&) { return false; }
inline bool IsShort(const v1::WriteCgroupFileRequest&) { return false; }
inline bool IsShort(const v1::CompactMemoryRequest&) { return false; }
inline bool IsShort(const v1::WriteSysfsRequest&) { return false; }
inline bool IsShort(const v1::AdvanceTimeRequest&) { return false; }
inline constexpr int kShortPages = 1024;
inline bool IsShort(const v1::AllocPagesBulkRequest& request) { return request.count() <= kShortPages; }
inline bool IsShort(const v1::FreePageListRequest& request) { return request.pfns_size() <= kShortPages; }
inline bool IsShort(const v1::KmemCacheAllocBulkRequest& request) { return request.count() <= kShortPages; }
inline bool IsShort(const v1::KmemCacheFreeBulkRequest& request) { return request.addresses_size() <= kShortPages; }
inline bool IsShort(const v1::VmallocRequest& request) { return request.size_bytes() <= kShortBytes; }
inline bool IsShort(const v1::VfreeRequest&) { return false; }
inline bool IsShort(const v1::VmapRequest&) { return false; }
inline bool IsShort(const v1::VunmapRequest&) { return false; }
inline bool IsShort(const v1::IoremapRequest&) { return false; }
inline bool IsShort(const v1::IounmapRequest&) { return false; }
inline bool IsShort(const v1::VmMapRamRequest&) { return false; }
inline bool IsShort(const v1::VmUnmapRamRequest&) { return false; }
inline bool IsShort(const v1::VmUnmapAliasesRequest&) { return false; }
template <typename Request>
bool IsShort(const Request& request) {
  if constexpr (requires { request.length_bytes(); }) return request.length_bytes() <= kShortBytes;
  return true;
}

// How many bytes of Outcome.data, Outcome.pfns and Outcome.addresses the operation can bring.
uint64_t PromisedData(const v1::Operation& operation);

// A member of a batch: its fields, its CPU against the machine's, and that `machine` and `request_id` are left to the batch. The names of
// fields start with that of the member: "mmap.request_id".
absl::Status CheckOperation(const v1::Operation& operation, int cpus);
Operation ToNative(const v1::Operation& operation);
bool IsShortOperation(const v1::Operation& operation);
bool WantsExplanation(const v1::Operation& operation);

// A CPU that a request names must be one of the machine's.
absl::Status CheckCpu(int32_t cpu, int cpus);

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_OPERATION_CONVERTERS_H_

#ifndef MMLAB_SERVER_MACHINE_OPERATION_H_
#define MMLAB_SERVER_MACHINE_OPERATION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "server/base/address.h"
#include "server/base/errno.h"
#include "server/machine/cgroup_operation.h"
#include "server/machine/page_operation.h"
#include "server/machine/replacement_operation.h"
#include "server/process/access.h"
#include "server/process/elf_image.h"
#include "server/process/pid.h"

namespace mmlab {

// The operations of a machine, one struct each, with system-call arguments as a process would pass them (any 64-bit value is allowed where
// a process could pass one). proto/mmlab/v1 documents each field at the request message of the same name.
namespace op {

struct CreateProcess {
  std::string comm;
  uint32_t uid = 0;
  bool kernel_thread = false;
};
struct Exec {
  Pid pid;
  ElfImage image;
  std::optional<ElfImage> interpreter;
  std::vector<std::string> arguments;
  std::vector<std::string> environment;
};
struct Fork {
  Pid pid;
  uint64_t clone_flags = 0;
};
struct Exit {
  Pid pid;
  int32_t code = 0;
};
struct Mmap {
  Pid pid;
  uint64_t address = 0;
  uint64_t length = 0;
  uint32_t prot = 0;
  uint32_t flags = 0;
  int32_t fd = -1;
  uint64_t offset = 0;
};
struct Munmap {
  Pid pid;
  uint64_t address = 0;
  uint64_t length = 0;
};
struct Mprotect {
  Pid pid;
  uint64_t address = 0;
  uint64_t length = 0;
  uint32_t prot = 0;
};
struct Mremap {
  Pid pid;
  uint64_t old_address = 0;
  uint64_t old_length = 0;
  uint64_t new_length = 0;
  uint32_t flags = 0;
  uint64_t new_address = 0;
};
struct Madvise {
  Pid pid;
  uint64_t address = 0;
  uint64_t length = 0;
  int32_t advice = 0;
};
struct Mlock {
  Pid pid;
  uint64_t address = 0;
  uint64_t length = 0;
  uint32_t flags = 0;
};
struct Munlock {
  Pid pid;
  uint64_t address = 0;
  uint64_t length = 0;
};
struct Mlockall {
  Pid pid;
  uint32_t flags = 0;
};
struct Munlockall {
  Pid pid;
};
struct Brk {
  Pid pid;
  uint64_t address = 0;
};
struct Msync {
  Pid pid;
  uint64_t address = 0;
  uint64_t length = 0;
  uint32_t flags = 0;
};
struct Mincore {
  Pid pid;
  uint64_t address = 0;
  uint64_t length = 0;
};
struct Setrlimit {
  Pid pid;
  uint32_t resource = 0;
  uint64_t current = 0;
  uint64_t maximum = 0;
};
struct SetVmaName {
  Pid pid;
  uint64_t address = 0;
  uint64_t length = 0;
  std::string name;
};
struct Prctl {
  Pid pid;
  int32_t option = 0;
  uint64_t arg2 = 0;
  uint64_t arg3 = 0;
  uint64_t arg4 = 0;
  uint64_t arg5 = 0;
};
struct Sbrk {
  Pid pid;
  int64_t increment = 0;
};
struct WriteOomScoreAdj {
  Pid pid;
  int64_t value = 0;
};
struct AccessMemory {
  Pid pid;
  AccessRequest access;
};
struct SwitchTo {
  Pid pid;
  int32_t cpu = 0;
};
struct WritePhysicalMemory {
  uint64_t address = 0;
  std::string data;
};

enum class FileSystem : uint8_t { kTmpfs, kExt4, kBlockDevice, kHugetlbfs };

enum class TmpfsHuge : uint8_t { kNever, kAlways, kWithinSize, kAdvise };

struct CreateFile {
  std::string path;
  FileSystem file_system = FileSystem::kTmpfs;
  uint64_t size = 0;
  std::string content;
  bool resident = false;
  uint64_t huge_page_size = 0;  // hugetlbfs: pagesize= of the mount, 0 the default size.
  TmpfsHuge tmpfs_huge = TmpfsHuge::kNever;
};
struct Open {
  Pid pid;
  std::string path;
  uint32_t flags = 0;
  int32_t wished_fd = -1;
};
struct Pipe {
  Pid pid;
  int32_t wished_fd = -1;
};
struct Close {
  Pid pid;
  int32_t fd = -1;
};
struct MemfdCreate {
  Pid pid;
  std::string name;
  uint32_t flags = 0;
};
struct Ftruncate {
  Pid pid;
  int32_t fd = -1;
  uint64_t length = 0;
};
struct Pread {
  Pid pid;
  int32_t fd = -1;
  uint64_t address = 0;
  uint64_t length = 0;
  uint64_t offset = 0;
};
struct Pwrite {
  Pid pid;
  int32_t fd = -1;
  uint64_t address = 0;
  uint64_t length = 0;
  uint64_t offset = 0;
};
struct Shmget {
  Pid pid;
  int32_t key = 0;
  uint64_t size = 0;
  uint32_t flags = 0;
};
struct Shmat {
  Pid pid;
  int32_t shm_id = 0;
  uint64_t address = 0;
  uint32_t flags = 0;
};
struct Shmdt {
  Pid pid;
  uint64_t address = 0;
};
struct ShmRemove {
  Pid pid;
  int32_t shm_id = 0;
};
struct Unlink {
  std::string path;
};
struct Sync {};
struct Fsync {
  Pid pid;
  int32_t fd = -1;
};
struct Swapon {
  std::string path;
  std::optional<int32_t> priority;
};
struct Swapoff {
  std::string path;
};

struct KmemCacheCreate {
  std::string cache;
  uint32_t object_size = 0;
  uint32_t align = 0;
  uint32_t flags = 0;
  bool constructor = false;
  uint32_t usersize = 0;
};
struct KmemCacheDestroy {
  std::string cache;
};
struct KmemCacheShrink {
  std::string cache;
};
struct KmemCacheAlloc {
  std::string cache;
  GfpClass gfp = GfpClass::kKernel;
  int32_t cpu = 0;
  bool zero = false;
};
struct KmemCacheFree {
  std::string cache;
  uint64_t address = 0;
  int32_t cpu = 0;
};
struct KmemCacheAllocBulk {
  std::string cache;
  uint32_t count = 0;
  GfpClass gfp = GfpClass::kKernel;
  int32_t cpu = 0;
};
struct KmemCacheFreeBulk {
  std::string cache;
  std::vector<uint64_t> addresses;
  int32_t cpu = 0;
};
struct Kmalloc {
  uint64_t size = 0;
  GfpClass gfp = GfpClass::kKernel;
  int32_t cpu = 0;
  bool zero = false;
};
struct Krealloc {
  uint64_t address = 0;
  uint64_t size = 0;
  GfpClass gfp = GfpClass::kKernel;
  int32_t cpu = 0;
};
struct Kfree {
  uint64_t address = 0;
  int32_t cpu = 0;
};
struct Ksize {
  uint64_t address = 0;
};
struct WriteSlabinfo {
  std::string line;
};
struct WriteSlabMemory {
  uint64_t address = 0;
  std::string data;
};

struct Vmalloc {
  uint64_t size = 0;
  uint64_t align = 0;
  uint64_t start = 0;
  uint64_t end = 0;
  GfpClass gfp = GfpClass::kKernel;
  uint32_t flags = 0;
  std::string caller;
  int32_t cpu = 0;
};
struct Vfree {
  uint64_t address = 0;
  int32_t cpu = 0;
};
struct Vmap {
  std::vector<uint64_t> pfns;
  uint64_t page_count = 0;
  std::string caller;
};
struct Vunmap {
  uint64_t address = 0;
};
struct GetVmArea {
  uint64_t size = 0;
  uint32_t flags = 0;
  std::string caller;
};
struct Ioremap {
  uint64_t physical = 0;
  uint64_t size = 0;
  std::string caller;
};
struct Iounmap {
  uint64_t address = 0;
};
struct VmMapRam {
  std::vector<uint64_t> pfns;
  uint64_t page_count = 0;
  int32_t cpu = 0;
};
struct VmUnmapRam {
  uint64_t address = 0;
  uint64_t page_count = 0;
};
struct VmUnmapAliases {};
struct Kmap {
  uint64_t pfn = 0;
};
struct Kunmap {
  uint64_t pfn = 0;
};
struct KmapLocal {
  uint64_t pfn = 0;
  int32_t cpu = 0;
};
struct KunmapLocal {
  uint64_t address = 0;
  int32_t cpu = 0;
};
struct KmapFlushUnused {};
struct AllocPercpu {
  uint64_t size = 0;
  uint64_t align = 0;
  bool atomic = false;
};
struct FreePercpu {
  uint64_t address = 0;
};

struct WriteSysctl {
  std::string name;  // With dots: "vm.overcommit_memory".
  std::string value;
};
struct WriteSysfs {
  std::string path;  // "/sys/kernel/mm/transparent_hugepage/enabled".
  std::string value;
};
struct AdvanceTime {
  int64_t nanoseconds = 0;
};

}  // namespace op

using Operation =
    std::variant<op::CreateProcess, op::Exec, op::Fork, op::Exit, op::Mmap, op::Munmap, op::Mprotect, op::Mremap, op::Madvise, op::Mlock,
                 op::Munlock, op::Mlockall, op::Munlockall, op::Brk, op::Msync, op::Mincore, op::Setrlimit, op::SetVmaName,
                 op::WriteOomScoreAdj, op::AccessMemory, op::SwitchTo, op::WritePhysicalMemory, op::Prctl, op::Sbrk, op::CreateFile,
                 op::Open, op::Pipe, op::Close, op::MemfdCreate, op::Ftruncate, op::Pread, op::Pwrite, op::Shmget, op::Shmat, op::Shmdt,
                 op::ShmRemove, op::Unlink, op::Sync, op::Fsync, op::Swapon, op::Swapoff, op::AllocPages, op::FreePages, op::GetFreePages,
                 op::AllocPagesExact, op::FreePagesExact, op::AllocPagesBulk, op::FreePageList, op::SplitPage, op::DrainPages,
                 op::CompactMemory, op::KmemCacheCreate, op::KmemCacheDestroy, op::KmemCacheShrink, op::KmemCacheAlloc, op::KmemCacheFree,
                 op::KmemCacheAllocBulk, op::KmemCacheFreeBulk, op::Kmalloc, op::Krealloc, op::Kfree, op::Ksize, op::WriteSlabinfo,
                 op::WriteSlabMemory, op::Vmalloc, op::Vfree, op::Vmap, op::Vunmap, op::GetVmArea, op::Ioremap, op::Iounmap, op::VmMapRam,
                 op::VmUnmapRam, op::VmUnmapAliases, op::Kmap, op::Kunmap, op::KmapLocal, op::KunmapLocal, op::KmapFlushUnused,
                 op::AllocPercpu, op::FreePercpu, op::CreateCgroup, op::RemoveCgroup, op::WriteCgroupFile, op::WriteSysctl, op::AdvanceTime,
                 op::WriteSysfs, op::SetPageReplacement>;

// "mmap", "alloc_pages": the operation's name as metrics and logs show it.
const char* OperationName(const Operation& operation);

// What a machine answered. A refusal or a signal of the simulated kernel is an outcome like any other.
struct Outcome {
  uint64_t value = 0;  // What the system call returned; meaningless when error is not kOk.
  Errno error = Errno::kOk;
  // Empty, or why nothing was done: an option that is not simulated. The service answers UNIMPLEMENTED with it.
  std::string unimplemented;
  // The process waits for the child of its vfork() and can't act: nothing was done. The service answers FAILED_PRECONDITION.
  bool held = false;
  std::optional<Signal> signal;
  std::optional<AccessResult> access;
  std::string data;                 // mincore's vector, bytes read, the kernel's log about a wrong free.
  std::vector<Pfn> pfns;            // Of op::AllocPagesBulk.
  std::vector<uint64_t> addresses;  // Of op::KmemCacheAllocBulk, op::AllocPercpu.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_OPERATION_H_

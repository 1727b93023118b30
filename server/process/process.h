#ifndef MMLAB_SERVER_PROCESS_PROCESS_H_
#define MMLAB_SERVER_PROCESS_PROCESS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/btree_map.h"
#include "server/process/pid.h"
#include "server/process/task_objects.h"
#include "server/process/views.h"

namespace mmlab {

class AddressSpace;
class OpenFile;

inline constexpr uint64_t kRlimInfinity = ~uint64_t{0};
// include/uapi/asm-generic/resource.h; those that decide something here, or are not unlimited in a new process.
enum class RlimitKind : uint8_t {
  kData = 2,
  kStack = 3,
  kCore = 4,
  kNproc = 6,
  kNofile = 7,
  kMemlock = 8,
  kAs = 9,
  kSigpending = 11,
  kMsgqueue = 12,
  kNice = 13,
  kRtprio = 14
};

struct Rlimit {
  uint64_t current = kRlimInfinity;  // Bytes.
  uint64_t maximum = kRlimInfinity;
};

using Rlimits = std::array<Rlimit, 16>;
using DescriptorTable = absl::btree_map<int32_t, std::shared_ptr<OpenFile>>;

// The kinds of resident pages that an address space counts (enum in include/linux/mm_types_task.h).
enum class RssKind : uint8_t { kFile = 0, kAnon = 1, kSwap = 2, kShmem = 3 };
inline constexpr int kRssKinds = 4;

// A task's own small resident counters that lag behind the address space's (struct task_rss_stat).
struct TaskRss {
  int events = 0;
  std::array<int64_t, kRssKinds> count{};
};

inline constexpr size_t kCommBytes = 16;  // TASK_COMM_LEN, with the 0 at the end.

// One task: a process or one of its further threads, with its address space and descriptors. Linux: struct task_struct.
class Process {
 public:
  Pid pid;
  Pid thread_group;  // tgid: the pid of the first thread; its own where it is that.
  Pid parent;
  Pid vfork_child;            // What it waits for: the child of its vfork(), until that execs or exits; 0 = nothing.
  Pid vfork_parent;           // Who waits for it that way; 0 = nobody.
  int64_t start_time_ns = 0;  // When it was made, since boot.
  std::string comm;           // Shorter than kCommBytes. From exec and prctl(PR_SET_NAME).
  TaskObjects objects;
  uint32_t uid = 0;
  uint32_t cgroup = 0;  // Cgroup::id; 0: the root.
  bool kernel_thread = false;
  std::shared_ptr<AddressSpace> mm;         // Null: kernel thread, or not exec'ed yet. Shared by CLONE_VM.
  std::shared_ptr<AddressSpace> active_mm;  // What it runs on: its own, or what a kernel thread borrows while a CPU runs it.
  // Open descriptors; shared by CLONE_FILES. Never null.
  std::shared_ptr<DescriptorTable> files = std::make_shared<DescriptorTable>();
  // By Linux's RLIMIT_* number; shared by the threads of a process (signal_struct). Never null.
  std::shared_ptr<Rlimits> rlimits = std::make_shared<Rlimits>();
  TaskRss rss;
  uint64_t minor_faults = 0;
  uint64_t major_faults = 0;
  FaultCounts faults_before_comm;  // Of these, what it had when it got its comm.
  int64_t run_nanoseconds = 0;     // How long it was on a CPU; of a kernel thread system time, else user time.
  uint64_t switches = 0;           // nvcsw: how often it left a CPU, which is to sleep.
  int32_t oom_score_adj = 0;       // -1000 .. 1000
  int32_t oom_score_adj_min = 0;   // Lowest value that it may set without privileges.
  bool killed = false;             // SIGKILL is pending: it ends when its operation does.
  bool read_implies_exec = false;  // personality(READ_IMPLIES_EXEC): PROT_READ brings PROT_EXEC with it.

  const Rlimit& rlimit(RlimitKind kind) const { return (*rlimits)[static_cast<size_t>(kind)]; }
  bool leads() const { return pid == thread_group; }  // thread_group_leader()
  bool capable() const { return uid == 0; }           // CAP_SYS_ADMIN, CAP_IPC_LOCK, ...: root has all, nobody else any.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PROCESS_H_

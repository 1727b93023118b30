#ifndef MMLAB_SERVER_PROCESS_PROCESSES_H_
#define MMLAB_SERVER_PROCESS_PROCESSES_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/functional/function_ref.h"
#include "server/base/address.h"
#include "server/base/random.h"
#include "server/base/result.h"
#include "server/physical/reverse_map.h"
#include "server/process/access.h"
#include "server/process/elf_image.h"
#include "server/process/pid.h"
#include "server/process/process.h"
#include "server/process/process_limits.h"
#include "server/process/replacement_policy.h"
#include "server/process/views.h"

namespace mmlab {

class AddressSpace;
class AnonVmaTable;
class CommitAccount;
class Files;
class HugetlbPools;
class KernelLogger;
class Ksm;
class KernelObjects;
class MmCall;
class OpenFile;
class PageOwner;
class PageReclaimer;
class Paging;
class PhysicalMemory;
class Process;
class ReverseMap;
class ShmTable;
class Shrinker;
class StateHasher;
class Tracer;
class VmStat;
struct ExecLayout;
struct Frame;
struct HugePageSettings;
struct Inode;
struct Layout;
struct PageWalk;
struct ProcessCore;
struct VmArea;

// How long a CPU ran processes and kernel threads; the rest of the time it was idle.
struct CpuTime {
  int64_t user_nanoseconds = 0;
  int64_t system_nanoseconds = 0;
};

// All processes of a machine and the system calls that they make on memory. Linux: kernel/fork.c, fs/exec.c, mm/mmap.c and its neighbours.
//
// Each call names the acting process; kESRCH when there is none. Arguments are what a process could pass: any 64-bit value on ARM64; on
// x86-32 only 32 bits exist, the upper ones are cut like the system-call entry does.
class Processes : public PageTableWalker {
 public:
  Processes(const Layout& layout, PhysicalMemory& memory, Files& files, VmStat& vm_stat, Tracer& tracer, bool hardware_access_flag,
            uint64_t seed);
  ~Processes() override;

  ProcessLimits& limits() { return limits_; }
  const ProcessLimits& limits() const { return limits_; }
  // PageTableWalker
  void PromoteUsed(absl::FunctionRef<bool(uint32_t)> in_cgroup, uint16_t memcg, bool can_swap) override;
  // Who gets transparent huge pages.
  HugePageSettings& huge_settings();
  const HugePageSettings& huge_settings() const;
  Ksm& ksm();
  const Ksm& ksm() const;
  const HugetlbPools& hugetlb() const;
  // What can give back memory of processes, beside their pages.
  std::vector<Shrinker*> shrinkers();
  // An attribute was written that makes khugepaged look around at once.
  void WakeKhugepaged();
  // The clock reads `now` (nanoseconds): the kernel threads that look after processes do what is due.
  void AdvanceBackground(int64_t now);
  // Where the kernel objects of processes are accounted; it outlives the processes. Before the first one is made.
  void SetKernelObjects(KernelObjects* objects);
  // Where it is said what the kernel would put into its log; null: nowhere. It outlives the processes.
  void SetKernelLog(KernelLogger* log);
  // vm.overcommit_memory has become 2: from here on the commit charge is known well enough for its limit.
  void SyncCommitted();
  // Who maps which page, for reclaim; and who takes pages away when a process asks for it.
  ReverseMap& reverse_map();
  void SetReclaimer(PageReclaimer* reclaimer);
  // The same, for moving pages.
  PageOwner& page_owner();

  SysResult<Pid> Create(const std::string& comm, uint32_t uid, bool kernel_thread);
  SysResult<uint64_t> Exec(Pid pid, const ElfImage& image, const ElfImage* interpreter, const std::vector<std::string>& arguments,
                           const std::vector<std::string>& environment);
  SysResult<Pid> Fork(Pid pid, uint64_t clone_flags);
  // The first thread of a process takes the others with it (exit_group()); another thread ends alone.
  Errno Exit(Pid pid, int32_t code);
  // SIGKILL. Whoever does not act is gone, with all its memory, when this returns: true. The acting process, and whoever shares its address
  // space, is marked and ends with ReapKilled(): false.
  bool Kill(Pid pid);
  // Ends those that were marked; true when there were any.
  bool ReapKilled();
  // The process on whose behalf the operation runs; null: nobody's.
  const Process* current() const { return current_; }
  // Whether the process waits for the child of its vfork(): it makes no system call until then.
  bool Held(Pid pid) const;
  bool any_held() const { return held_ > 0; }
  // An operation begins: until a call names a process, it is nobody's.
  void BeginOperation() {
    if (current_ != nullptr) SetCurrent(nullptr);
  }
  // Time passes: tasks that CPUs were switched to run so long, and load averages follow. REQUIRES: not negative.
  void PassTime(int64_t nanoseconds);
  // cgroup.procs: moves a process with all its threads. What it was charged for stays where it is. kESRCH.
  Errno SetCgroup(Pid pid, uint32_t cgroup);
  // /proc/PID/oom_score_adj: kEINVAL out of -1000 .. 1000; kEACCES when an unprivileged process lowers it below what it was given.
  Errno WriteOomScoreAdj(Pid pid, int64_t value);

  SysResult<uint64_t> Mmap(Pid pid, uint64_t address, uint64_t length, uint32_t prot, uint32_t flags, int32_t fd, uint64_t offset);
  Errno Munmap(Pid pid, uint64_t address, uint64_t length);
  Errno Mprotect(Pid pid, uint64_t address, uint64_t length, uint32_t prot);
  SysResult<uint64_t> Mremap(Pid pid, uint64_t old_address, uint64_t old_length, uint64_t new_length, uint32_t flags, uint64_t new_address);
  SysResult<uint64_t> Brk(Pid pid, uint64_t address);
  // sbrk() of the C library: the break before; kENOMEM.
  SysResult<uint64_t> Sbrk(Pid pid, int64_t increment);
  // prctl() (prctl.cc); kENOSYS, which Linux never answers, for options that it knows and this does not.
  SysResult<uint64_t> Prctl(Pid pid, int32_t option, uint64_t arg2, uint64_t arg3, uint64_t arg4, uint64_t arg5);
  Errno Madvise(Pid pid, uint64_t address, uint64_t length, int32_t advice);
  // Bounds the resident pages of a part of the address space (length 0: of all of it) to `frames`, with a policy of its own; kLinux: no
  // more. `references`: addresses of the accesses to come, for kOptimal. How many pages had to go at once. kEINVAL: not aligned, not within
  // user space, fewer frames than kMinFrames or more than kMaxFrames.
  SysResult<uint64_t> SetPageReplacement(Pid pid, ReplacementPolicy policy, uint32_t frames, uint64_t address, uint64_t length,
                                         const std::vector<uint64_t>& references);
  Errno Mlock(Pid pid, uint64_t address, uint64_t length, uint32_t flags);
  Errno Munlock(Pid pid, uint64_t address, uint64_t length);
  Errno Mlockall(Pid pid, uint32_t flags);
  Errno Munlockall(Pid pid);
  Errno Msync(Pid pid, uint64_t address, uint64_t length, uint32_t flags);
  SysResult<std::string> Mincore(Pid pid, uint64_t address, uint64_t length);
  Errno Setrlimit(Pid pid, uint32_t resource, uint64_t current, uint64_t maximum);
  Errno SetVmaName(Pid pid, uint64_t address, uint64_t length, const std::string& name);

  // Memory accesses of the process itself. The outcome is in `result`; a signal when one was sent.
  Errno Access(Pid pid, const AccessRequest& request, AccessResult& result, std::optional<Signal>& signal, std::string& data);
  // expand_stack(): the VMA that holds the address, after growing a VM_GROWSDOWN one down to it where that is allowed; null: SEGV_MAPERR.
  VmArea* ExpandStack(Process& task, VirtAddr address);
  // Lets a CPU run the task: loads its page-table base, or, for a kernel thread, goes on with the one loaded before (active_mm). The base's
  // physical address; kEINVAL: a kernel thread on a CPU where nothing was loaded yet.
  SysResult<uint64_t> SwitchTo(Pid pid, int cpu);

  SysResult<uint64_t> Open(Pid pid, const std::string& path, uint32_t flags, int32_t wished_fd);
  SysResult<uint64_t> Pipe(Pid pid, int32_t wished_fd);
  Errno Close(Pid pid, int32_t fd);
  SysResult<uint64_t> MemfdCreate(Pid pid, const std::string& name, uint32_t flags);
  Errno Ftruncate(Pid pid, int32_t fd, uint64_t length);
  SysResult<uint64_t> Pread(Pid pid, int32_t fd, uint64_t address, uint64_t length, uint64_t offset);
  SysResult<uint64_t> Pwrite(Pid pid, int32_t fd, uint64_t address, uint64_t length, uint64_t offset);
  Errno Fsync(Pid pid, int32_t fd);
  // As root, of no process. Swapoff: kENOENT, kEINVAL (not in use), kENOMEM (the commit charge would not fit any more, or no memory for
  // what is in the area; then it stays in use).
  Errno Swapon(const std::string& path, std::optional<int> priority);
  Errno Swapoff(const std::string& path);
  SysResult<uint64_t> Shmget(Pid pid, int32_t key, uint64_t size, uint32_t flags);
  SysResult<uint64_t> Shmat(Pid pid, int32_t shm_id, uint64_t address, uint32_t flags);
  Errno Shmdt(Pid pid, uint64_t address);
  Errno ShmRemove(Pid pid, int32_t shm_id);

  // Reading.
  const absl::btree_map<Pid, std::unique_ptr<Process>>& all() const { return processes_; }
  const Process* Find(Pid pid) const;
  MemoryStatus Status(const Process& process) const;
  ResidentBytes Resident(const Process& process) const;  // Walks the tables.
  int64_t OomScore(const Process& process) const;        // /proc/PID/oom_score
  std::vector<VmAreaView> VmAreas(const Process& process) const;
  std::vector<Smaps> AllSmaps(const Process& process) const;  // One for each of VmAreas(), same order.
  SmapsRollup Rollup(const Process& process) const;           // REQUIRES: it has an address space; so for the next two.
  std::vector<VmaPages> AllVmaPages(const Process& process) const;
  // access_remote_vm() on anonymous memory, as cmdline and environ read it: as many bytes as can be read, zeros where nothing was touched.
  std::string PeekMemory(const Process& process, VirtAddr start, VirtAddr end) const;
  // The CPU that it runs on; nothing: it sleeps.
  std::optional<int> RunsOn(Pid pid) const;
  int MmCount(const AddressSpace& mm) const;  // mm->mm_count: 1 for all users, and one for each CPU that borrows it.
  int ThreadCount(const Process& process) const;
  bool ThpEligible(const VmArea& vma) const;         // smaps' THPeligible
  uint64_t PageProtection(const VmArea& vma) const;  // vma->vm_page_prot: bits of its page-table entries.
  // The page-table walk that the processor makes for an address of the process, level by level. REQUIRES: it has an address space.
  PageWalk Walk(const Process& process, VirtAddr address) const;
  // The accessed bit of the entry that maps the address; nothing: none does.
  std::optional<bool> Accessed(const Process& process, VirtAddr address) const;
  int MapCount(Pfn pfn) const;  // page_mapcount(), of a page that is mapped.
  PageCount committed() const;  // vm_committed_as, exact sum.
  PageCount commit_limit() const;
  PageCount free_swap() const;  // get_nr_swap_pages()
  uint64_t forks() const { return forks_; }
  uint64_t tasks_made() const { return tasks_made_; }  // total_forks
  Pid last_pid() const { return Pid(last_pid_); }
  int64_t time() const { return now_ns_; }         // Nanoseconds since boot.
  uint64_t switches() const { return switches_; }  // nr_context_switches(): by SwitchTo.
  CpuTime cpu_time(int cpu) const;
  int running() const;                                                    // nr_running(): tasks that are on a CPU.
  const std::array<uint64_t, 3>& load_averages() const { return load_; }  // avenrun, as base/load_average.h has them.
  uint64_t vma_count() const;                                             // Of all processes.
  PageCount mlocked_pages() const;                                        // nr_mlock
  std::optional<Pfn> huge_zero_frame() const;                             // First frame of the huge zero page.

  // By comm: faults of tasks that had it and have ended, or have another one now. Of so many comms; of more, nothing is kept.
  static constexpr size_t kMaxFormerComms = 1024;
  const absl::btree_map<std::string, FaultCounts>& former_faults() const { return former_faults_; }

  void CheckInvariants(std::vector<std::string>* violations) const;
  void AddToHash(StateHasher& hasher) const;
  Bytes HostMemory() const;

 private:
  Process* FindMutable(Pid pid);
  // The process, made the one on whose behalf pages are charged and counted; null: there is none.
  Process* Enter(Pid pid);
  ProcessCore Core();
  void SetCurrent(Process* process);
  Process& NewProcess();
  Rlimits FirstLimits() const;
  Errno EmptySwapArea(uint32_t area);
  void DropMm(Process& process);  // exit_mm()
  // It ends, or has another comm now: its faults so far stay with this one.
  void LeaveComm(Process& process, const std::string& comm);
  void EndVfork(Process& child);                // complete_vfork_done()
  void Reap(Process& process);                  // Ends one task.
  Process& KillOtherThreads(Process& process);  // de_thread(): the one left, which is the process's first thread then.
  // What a CPU runs (context_switch()).
  struct CpuContext {
    Pid current;                       // 0: the idle task.
    std::shared_ptr<AddressSpace> mm;  // Loaded; borrowed unless it is current's own.
    CpuTime time;
  };
  bool Loaded(const AddressSpace& mm) const;
  void LoadMm(int number, CpuContext& cpu, std::shared_ptr<AddressSpace> mm);
  void GiveAsid(AddressSpace& mm);  // check_and_switch_context() of ARM64
  void ExplainSwitch(int cpu, Pid previous, const Process& next, const AddressSpace* loaded_before) const;
  // exec (exec.cc).
  struct ExecStack;
  // What decides where a file is loaded.
  struct LoadKind {
    bool program = true;  // Not the interpreter.
    bool with_interpreter = false;
    bool randomize = false;
    bool program_was_moved = false;  // Of the interpreter: its program is not at the addresses that its file names.
  };
  Errno Refuse(Errno error, const char* rule) const;
  // `moved` as it is, after a step that says what was moved.
  SysResult<uint64_t> Explained(SysResult<uint64_t> moved, const char* what) const;
  void PickMmapLayout(const Process& process, AddressSpace& mm, const ExecLayout& layout, bool randomize);
  uint64_t RandomPages(int bits);  // 2^bits possible numbers of whole pages, as bytes.
  Errno SetUpStack(Process& process, const ExecStack& stack);
  SysResult<uint64_t> ChooseLoadBias(MmCall& call, const std::shared_ptr<OpenFile>& file, const ElfImage& image, LoadKind kind,
                                     const ProgramHeader& first, const ExecLayout& layout, uint32_t* flags);
  Errno LoadImage(Process& process, const ElfImage& image, const LoadKind& kind, const ExecLayout& layout, uint64_t* load_bias,
                  uint64_t* elf_break);
  uint64_t ProgramHeaderAddress(const ElfImage& image, int word, uint64_t load_bias) const;
  Errno FinishStack(Process& process, const ElfImage& image, const ExecStack& stack, uint64_t load_bias, uint64_t interpreter_base);
  std::shared_ptr<AddressSpace> NewMm();
  SysResult<std::shared_ptr<AddressSpace>> DupMm(Process& parent, Process& child);
  Errno InstallVdso(Process& process);
  Errno WriteUser(Process& process, AddressSpace& mm, uint64_t address, const void* data, size_t size);
  SysResult<uint64_t> InstallFile(Process& process, std::shared_ptr<OpenFile> file, int32_t wished_fd);
  struct Transfer;
  SysResult<Transfer> CheckTransfer(Pid pid, int32_t fd, uint64_t address, uint64_t length, uint64_t offset, bool write);
  // Data movement of pread() and pwrite() after their checks (file_io.cc).
  SysResult<uint64_t> ReadFile(Process& process, OpenFile& file, uint64_t address, uint64_t length, uint64_t offset);
  SysResult<std::optional<Pfn>> CachedPage(OpenFile& file, PageIndex index, uint64_t wanted, bool first);
  std::optional<Pfn> HugetlbPage(const Inode& inode, PageIndex index) const;
  SysResult<uint64_t> WriteFile(Process& process, OpenFile& file, uint64_t address, uint64_t length, uint64_t offset);

  const Layout& layout_;
  PhysicalMemory& memory_;
  Files& files_;
  VmStat& vm_stat_;
  Tracer& tracer_;
  std::unique_ptr<AnonVmaTable> anon_vmas_;
  std::unique_ptr<Paging> paging_;
  ProcessLimits limits_;
  std::unique_ptr<CommitAccount> commit_;
  KernelLogger* log_ = nullptr;
  std::unique_ptr<ShmTable> shm_;
  Random random_;
  absl::btree_map<int, CpuContext> cpus_;  // Those that were switched at all.
  struct {
    uint64_t generation = uint64_t{1} << 16;
    uint32_t next = 1;
    absl::btree_set<uint32_t> kept;  // Numbers of older generations that go on: of what was loaded at the change or came back since.
  } asids_;
  absl::btree_map<Pid, std::unique_ptr<Process>> processes_;
  absl::btree_map<std::string, FaultCounts> former_faults_;
  Process* current_ = nullptr;
  bool any_killed_ = false;
  int held_ = 0;  // Processes with a vfork_child.
  int64_t now_ns_ = 0;
  int32_t last_pid_ = 0;
  uint64_t tasks_made_ = 0;
  uint64_t forks_ = 0;
  uint64_t switches_ = 0;
  int64_t next_load_update_ = 0;  // 0: no time has passed yet.
  std::array<uint64_t, 3> load_{};
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PROCESSES_H_

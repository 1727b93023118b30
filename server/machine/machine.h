#ifndef MMLAB_SERVER_MACHINE_MACHINE_H_
#define MMLAB_SERVER_MACHINE_MACHINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/base/address.h"
#include "server/files/dirty_limits.h"
#include "server/machine/machine_spec.h"
#include "server/machine/operation.h"
#include "server/process/pid.h"

namespace mmlab {

class BuddyMemory;
class Cgroups;
class Compaction;
class EventSink;
class Explanation;
class Files;
class Kmap;
class MemoryLimits;
class KernelLog;
class KernelObjects;
class MovablePages;
class KernelPageTables;
class OomKiller;
class PercpuAllocator;
class Processes;
class Reclaim;
class SlabAllocator;
class Sysctls;
class Tracer;
enum class Sysctl : uint8_t;
class Vmalloc;
class VmStat;

// One simulated computer: a deterministic state machine. The same description and the same operations give the same outcomes, counters and
// state hash on any host. No clock, thread, chance or input/output inside; time moves by op::AdvanceTime.
//
// Not thread-safe: the host runs one operation at a time; reading may run in parallel with reading.
class Machine {
 public:
  // Boots: memory map -> zones -> free lists -> first process. INVALID_ARGUMENT names the field of v1::MachineSpec and the rule.
  static absl::StatusOr<std::unique_ptr<Machine>> Boot(MachineSpec spec);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Applies one operation. An explanation gets the decisions, `events` are told what happens. Throws CheckFailure when an invariant turns
  // out broken; the machine must not be used for operations afterwards.
  Outcome Apply(const Operation& operation, Explanation* explanation = nullptr, EventSink* events = nullptr);

  // Reading. None of it changes anything.
  const MachineSpec& spec() const { return spec_; }
  const Layout& layout() const { return *layout_; }
  const BuddyMemory& memory() const { return *memory_; }
  const MovablePages& movable_pages() const { return *movable_pages_; }
  const VmStat& vm_stat() const;
  // Calls `read` with the slab allocator. It exists on the host once it was used; before, `read` sees what it will start as.
  void ReadSlab(absl::FunctionRef<void(const SlabAllocator&)> read) const;
  // The same for the kernel's address space and the mappings of high memory.
  void ReadVmalloc(absl::FunctionRef<void(const Vmalloc&)> read) const;
  // The same for the per-CPU allocator. False: the description does not say where its first chunk lies.
  bool ReadPercpu(absl::FunctionRef<void(const PercpuAllocator&)> read) const;
  uint64_t percpu_pages() const;  // pcpu_nr_pages()
  const Cgroups& cgroups() const { return *cgroups_; }
  // The page tables in which the kernel keeps what it maps page by page; null before it mapped anything.
  const KernelPageTables* kernel_tables() const;
  const Files& files() const { return *files_; }
  const Reclaim& reclaim() const { return *reclaim_; }
  DirtyLimits dirty_limits() const;  // global_dirty_limits(), now.
  const Processes& processes() const { return *processes_; }
  const Sysctls& sysctls() const { return *sysctls_; }
  // The attributes below /sys/kernel/mm, by their full path. Nothing: there is no such.
  std::optional<std::string> SysfsText(absl::string_view path) const;
  std::vector<std::string> SysfsPaths() const;
  const KernelLog& kernel_log() const { return *log_; }
  const KernelObjects& kernel_objects() const { return *kernel_objects_; }
  int64_t now_nanoseconds() const { return now_nanoseconds_; }  // Unix time of the machine's clock.
  const KernelLayout& kernel_layout() const { return kernel_layout_; }
  uint64_t operations_applied() const { return operations_applied_; }

  // One line for each broken invariant; empty when memory, page tables, VMAs and counters agree.
  std::vector<std::string> CheckInvariants() const;
  // Fingerprint of everything that later operations could depend on.
  uint64_t StateHash() const;
  // Host memory that the machine's state takes.
  Bytes HostMemory() const;

 private:
  class Performer;  // One function for each operation; perform.cc.

  explicit Machine(MachineSpec spec);
  void SetComputedSysctls();
  absl::Status ApplySpecSysctls();
  // What follows from a changed sysctl.
  void Follow(Sysctl id);
  void UpdateProcessLimits();
  void SetUpHugetlb();
  void ShowHugetlbSysctls();
  Outcome WriteHugepages(absl::string_view path, absl::string_view value);
  void AdvanceClock(int64_t nanoseconds);
  Outcome WriteSysfs(absl::string_view path, absl::string_view value);
  void RunFlusher();
  void PlanFlusher();
  std::unique_ptr<SlabAllocator> FreshSlab() const;
  SlabAllocator& MakeSlab();
  void ReapSlabs(int64_t until);
  // Accounts what the operation made and ended.
  void SettleKernelObjects();
  void UpdateOomSettings();
  void ForgetEndedProcesses();
  struct KernelAddresses;  // kernel_addresses.h
  // As it is when it is first used; without what only operations need, if just the areas are to be read.
  std::unique_ptr<KernelAddresses> FreshKernelAddresses(bool for_areas_only) const;
  KernelAddresses& MakeKernelAddresses();
  class ObjectSource;  // object_source.h

  MachineSpec spec_;
  std::unique_ptr<const Layout> layout_;  // Its own: where user space ends depends on the split.
  KernelLayout kernel_layout_;
  std::unique_ptr<Tracer> tracer_;
  std::unique_ptr<Sysctls> sysctls_;
  std::unique_ptr<BuddyMemory> memory_;
  std::unique_ptr<SlabAllocator> slab_;                // Null until it is used.
  std::unique_ptr<KernelAddresses> kernel_addresses_;  // Likewise.
  std::unique_ptr<Cgroups> cgroups_;
  std::unique_ptr<MemoryLimits> limits_;
  std::unique_ptr<ObjectSource> object_source_;
  std::unique_ptr<KernelObjects> kernel_objects_;
  std::unique_ptr<Files> files_;
  std::unique_ptr<Processes> processes_;
  std::unique_ptr<KernelLog> log_;
  std::unique_ptr<OomKiller> oom_;
  std::unique_ptr<Reclaim> reclaim_;
  std::unique_ptr<MovablePages> movable_pages_;
  std::unique_ptr<Compaction> compaction_;
  absl::btree_map<Pid, int> cpu_of_;  // Where a process was switched to; CPU 0 when it is not here.
  int64_t now_nanoseconds_;
  int64_t next_writeback_;      // When the flusher next looks for what has been dirty for long (vm.dirty_writeback_centisecs).
  int64_t next_stat_update_;    // When the counters of the CPUs are next added up (vm.stat_interval).
  int64_t next_slab_reap_;      // When the slab allocator next looks for what is not used.
  bool drops_quietly_ = false;  // vm.drop_caches was told not to be logged any more.
  uint64_t operations_applied_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_MACHINE_H_

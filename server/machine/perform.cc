// What each operation does to a machine.

#include <limits>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/cgroup/cgroups.h"
#include "server/files/files.h"
#include "server/kernel/kernel_objects.h"
#include "server/machine/answer.h"
#include "server/machine/kernel_addresses.h"
#include "server/machine/machine.h"
#include "server/machine/object_source.h"
#include "server/machine/perform_cgroup.h"
#include "server/machine/perform_kernel_addresses.h"
#include "server/machine/perform_memory.h"
#include "server/machine/perform_pages.h"
#include "server/machine/perform_slab.h"
#include "server/machine/sysctls.h"
#include "server/physical/page_allocator.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/reclaim/oom_killer.h"
#include "server/reclaim/reclaim.h"

namespace mmlab {
namespace {

Outcome Unimplemented(std::string why) {
  Outcome outcome;
  outcome.error = Errno::kENOSYS;
  outcome.unimplemented = std::move(why);
  return outcome;
}

// Whether the acting process can't act. Who kills it, or writes its oom_score_adj, is somebody else.
bool ActorHeld(const Operation& operation, const Processes& processes) {
  return std::visit(
      [&](const auto& o) {
        using Op = std::decay_t<decltype(o)>;
        if constexpr (requires { o.pid; } && !std::is_same_v<Op, op::Exit> && !std::is_same_v<Op, op::WriteOomScoreAdj>) {
          return processes.Held(o.pid);
        } else {
          return false;
        }
      },
      operation);
}

}  // namespace

class Machine::Performer {
 public:
  explicit Performer(Machine& machine) : machine_(machine), processes_(*machine.processes_) {}

  Outcome operator()(const op::CreateProcess& o) {
    On(Pid());
    return Answer(processes_.Create(o.comm, o.uid, o.kernel_thread));
  }
  Outcome operator()(const op::Exec& o) {
    On(o.pid);
    return Answer(processes_.Exec(o.pid, o.image, o.interpreter ? &*o.interpreter : nullptr, o.arguments, o.environment));
  }
  Outcome operator()(const op::Fork& o) {
    On(o.pid);
    const SysResult<Pid> child = processes_.Fork(o.pid, o.clone_flags);
    if (child.ok() && !machine_.kernel_objects_->Settle()) {
      processes_.Exit(child.value(), 0);
      return Answer(Errno::kENOMEM);
    }
    if (const auto cpu = machine_.cpu_of_.find(o.pid); child.ok() && cpu != machine_.cpu_of_.end()) {
      const int same = cpu->second;
      machine_.cpu_of_[child.value()] = same;
    }
    return Answer(child);
  }
  Outcome operator()(const op::Exit& o) {
    On(o.pid);
    return Answer(processes_.Exit(o.pid, o.code));
  }
  Outcome operator()(const op::Mmap& o) {
    On(o.pid);
    return Answer(processes_.Mmap(o.pid, o.address, o.length, o.prot, o.flags, o.fd, o.offset));
  }
  Outcome operator()(const op::Munmap& o) {
    On(o.pid);
    return Answer(processes_.Munmap(o.pid, o.address, o.length));
  }
  Outcome operator()(const op::Mprotect& o) {
    On(o.pid);
    return Answer(processes_.Mprotect(o.pid, o.address, o.length, o.prot));
  }
  Outcome operator()(const op::Mremap& o) {
    On(o.pid);
    return Answer(processes_.Mremap(o.pid, o.old_address, o.old_length, o.new_length, o.flags, o.new_address));
  }
  Outcome operator()(const op::Madvise& o) {
    On(o.pid);
    return Answer(processes_.Madvise(o.pid, o.address, o.length, o.advice));
  }
  Outcome operator()(const op::Mlock& o) {
    On(o.pid);
    return Answer(processes_.Mlock(o.pid, o.address, o.length, o.flags));
  }
  Outcome operator()(const op::Munlock& o) {
    On(o.pid);
    return Answer(processes_.Munlock(o.pid, o.address, o.length));
  }
  Outcome operator()(const op::Mlockall& o) {
    On(o.pid);
    return Answer(processes_.Mlockall(o.pid, o.flags));
  }
  Outcome operator()(const op::Munlockall& o) {
    On(o.pid);
    return Answer(processes_.Munlockall(o.pid));
  }
  Outcome operator()(const op::Brk& o) {
    On(o.pid);
    return Answer(processes_.Brk(o.pid, o.address));
  }
  Outcome operator()(const op::Msync& o) {
    On(o.pid);
    return Answer(processes_.Msync(o.pid, o.address, o.length, o.flags));
  }
  Outcome operator()(const op::Mincore& o) {
    On(o.pid);
    SysResult<std::string> vector = processes_.Mincore(o.pid, o.address, o.length);
    Outcome outcome = Answer(vector.error());
    if (vector.ok()) outcome.data = std::move(vector).value();
    return outcome;
  }
  Outcome operator()(const op::Setrlimit& o) {
    On(o.pid);
    return Answer(processes_.Setrlimit(o.pid, o.resource, o.current, o.maximum));
  }
  Outcome operator()(const op::SetVmaName& o) {
    On(o.pid);
    return Answer(processes_.SetVmaName(o.pid, o.address, o.length, o.name));
  }
  Outcome operator()(const op::WriteOomScoreAdj& o) {
    On(o.pid);
    return Answer(processes_.WriteOomScoreAdj(o.pid, o.value));
  }
  Outcome operator()(const op::AccessMemory& o) {
    On(o.pid);
    AccessResult result;
    Outcome outcome;
    outcome.error = processes_.Access(o.pid, o.access, result, outcome.signal, outcome.data);
    if (outcome.error == Errno::kOk) {
      outcome.value = result.value;
      outcome.access = result;
    }
    return outcome;
  }
  Outcome operator()(const op::SwitchTo& o) {
    if (o.cpu < 0 || o.cpu >= machine_.spec_.cpus) return Answer(Errno::kEINVAL);
    On(o.pid);
    const SysResult<uint64_t> base = processes_.SwitchTo(o.pid, o.cpu);
    if (base.ok()) machine_.cpu_of_[o.pid] = o.cpu;
    return Answer(base);
  }

  Outcome operator()(const op::Prctl& o) {
    On(o.pid);
    const SysResult<uint64_t> answer = processes_.Prctl(o.pid, o.option, o.arg2, o.arg3, o.arg4, o.arg5);
    if (answer.error() == Errno::kENOSYS) return Unimplemented(absl::StrCat("prctl option ", o.option));
    return Answer(answer);
  }
  Outcome operator()(const op::Sbrk& o) {
    On(o.pid);
    return Answer(processes_.Sbrk(o.pid, o.increment));
  }
  Outcome operator()(const op::WritePhysicalMemory& o) {
    OnCpu(0);
    return PerformPhysicalWrite(o, machine_, *machine_.memory_, *machine_.tracer_);
  }

  Outcome operator()(const op::CreateFile& o) {
    On(Pid());
    const FileKind kind = o.file_system == op::FileSystem::kExt4          ? FileKind::kExt4
                          : o.file_system == op::FileSystem::kBlockDevice ? FileKind::kBlockDevice
                          : o.file_system == op::FileSystem::kHugetlbfs   ? FileKind::kHugetlbfs
                                                                          : FileKind::kTmpfs;
    const MountOptions mount{o.huge_page_size, static_cast<ShmemHuge>(o.tmpfs_huge)};
    const auto file = machine_.files_->CreateFile(o.path, kind, o.size, o.content, o.resident, mount);
    Outcome outcome = Answer(file.error());
    if (file.ok()) outcome.value = file.value()->number;
    return outcome;
  }
  Outcome operator()(const op::Open& o) {
    On(o.pid);
    return Answer(processes_.Open(o.pid, o.path, o.flags, o.wished_fd));
  }
  Outcome operator()(const op::Pipe& o) {
    On(o.pid);
    return Answer(processes_.Pipe(o.pid, o.wished_fd));
  }
  Outcome operator()(const op::Close& o) {
    On(o.pid);
    return Answer(processes_.Close(o.pid, o.fd));
  }
  Outcome operator()(const op::MemfdCreate& o) {
    On(o.pid);
    return Answer(processes_.MemfdCreate(o.pid, o.name, o.flags));
  }
  Outcome operator()(const op::Ftruncate& o) {
    On(o.pid);
    return Answer(processes_.Ftruncate(o.pid, o.fd, o.length));
  }
  Outcome operator()(const op::Pread& o) {
    On(o.pid);
    return Answer(processes_.Pread(o.pid, o.fd, o.address, o.length, o.offset));
  }
  Outcome operator()(const op::Pwrite& o) {
    On(o.pid);
    return Answer(processes_.Pwrite(o.pid, o.fd, o.address, o.length, o.offset));
  }
  Outcome operator()(const op::Shmget& o) {
    On(o.pid);
    return Answer(processes_.Shmget(o.pid, o.key, o.size, o.flags));
  }
  Outcome operator()(const op::Shmat& o) {
    On(o.pid);
    return Answer(processes_.Shmat(o.pid, o.shm_id, o.address, o.flags));
  }
  Outcome operator()(const op::Shmdt& o) {
    On(o.pid);
    return Answer(processes_.Shmdt(o.pid, o.address));
  }
  Outcome operator()(const op::ShmRemove& o) {
    On(o.pid);
    return Answer(processes_.ShmRemove(o.pid, o.shm_id));
  }

  Outcome operator()(const op::Unlink& o) {
    On(Pid());
    return Answer(machine_.files_->Unlink(o.path));
  }
  Outcome operator()(const op::Sync&) {
    On(Pid());
    machine_.files_->SyncAll();
    return Answer(Errno::kOk);
  }
  Outcome operator()(const op::Fsync& o) {
    On(o.pid);
    return Answer(processes_.Fsync(o.pid, o.fd));
  }
  Outcome operator()(const op::Swapon& o) {
    On(Pid());
    const Errno error = processes_.Swapon(o.path, o.priority);
    machine_.UpdateProcessLimits();
    return Answer(error);
  }
  Outcome operator()(const op::Swapoff& o) {
    On(Pid());
    const Errno error = processes_.Swapoff(o.path);
    machine_.UpdateProcessLimits();
    return Answer(error);
  }

  Outcome operator()(const op::AllocPages& o) { return OnPages(o); }
  Outcome operator()(const op::FreePages& o) { return OnPages(o); }
  Outcome operator()(const op::GetFreePages& o) { return OnPages(o); }
  Outcome operator()(const op::AllocPagesExact& o) { return OnPages(o); }
  Outcome operator()(const op::FreePagesExact& o) { return OnPages(o); }
  Outcome operator()(const op::AllocPagesBulk& o) { return OnPages(o); }
  Outcome operator()(const op::FreePageList& o) { return OnPages(o); }
  Outcome operator()(const op::DrainPages& o) { return OnPages(o); }
  Outcome operator()(const op::SplitPage& o) { return Pages().Perform(o); }
  Outcome operator()(const op::CompactMemory& o) {
    On(Pid());
    return Pages().Perform(o);
  }

  Outcome operator()(const op::KmemCacheCreate& o) { return Slab().Perform(o); }
  Outcome operator()(const op::KmemCacheDestroy& o) { return Slab().Perform(o); }
  Outcome operator()(const op::KmemCacheShrink& o) { return Slab().Perform(o); }
  Outcome operator()(const op::KmemCacheAlloc& o) { return OnSlab(o); }
  Outcome operator()(const op::KmemCacheFree& o) { return OnSlab(o); }
  Outcome operator()(const op::KmemCacheAllocBulk& o) { return OnSlab(o); }
  Outcome operator()(const op::KmemCacheFreeBulk& o) { return OnSlab(o); }
  Outcome operator()(const op::Kmalloc& o) { return OnSlab(o); }
  Outcome operator()(const op::Krealloc& o) { return OnSlab(o); }
  Outcome operator()(const op::Kfree& o) { return OnSlab(o); }
  Outcome operator()(const op::Ksize& o) { return Slab().Perform(o); }
  Outcome operator()(const op::WriteSlabinfo& o) { return Slab().Perform(o); }
  Outcome operator()(const op::WriteSlabMemory& o) { return Slab().Perform(o); }

  Outcome operator()(const op::Vmalloc& o) {
    return OnCpu(o.cpu) ? PerformVmalloc(o, GfpOf(o.gfp), Addresses().vmalloc) : Answer(Errno::kEINVAL);
  }
  Outcome operator()(const op::Vfree& o) {
    if (KernelsArea(o.address)) return Answer(Errno::kEBUSY);
    return OnCpu(o.cpu) ? PerformVmalloc(o, Addresses().vmalloc) : Answer(Errno::kEINVAL);
  }
  Outcome operator()(const op::Vmap& o) { return PerformVmalloc(o, *machine_.memory_, Addresses().vmalloc); }
  Outcome operator()(const op::Vunmap& o) {
    return KernelsArea(o.address) ? Answer(Errno::kEBUSY) : PerformVmalloc(o, Addresses().vmalloc);
  }
  Outcome operator()(const op::GetVmArea& o) { return PerformVmalloc(o, Addresses().vmalloc); }
  Outcome operator()(const op::Ioremap& o) { return PerformVmalloc(o, Addresses().vmalloc); }
  Outcome operator()(const op::Iounmap& o) { return PerformVmalloc(o, Addresses().vmalloc); }
  Outcome operator()(const op::VmMapRam& o) {
    return OnCpu(o.cpu) ? PerformVmalloc(o, *machine_.memory_, Addresses().vmalloc) : Answer(Errno::kEINVAL);
  }
  Outcome operator()(const op::VmUnmapRam& o) { return PerformVmalloc(o, Addresses().vmalloc); }
  Outcome operator()(const op::VmUnmapAliases& o) { return PerformVmalloc(o, Addresses().vmalloc); }
  Outcome operator()(const op::Kmap& o) { return PerformKmap(o, Addresses().kmap); }
  Outcome operator()(const op::Kunmap& o) { return PerformKmap(o, Addresses().kmap); }
  Outcome operator()(const op::KmapLocal& o) { return OnCpu(o.cpu) ? PerformKmap(o, Addresses().kmap) : Answer(Errno::kEINVAL); }
  Outcome operator()(const op::KunmapLocal& o) { return OnCpu(o.cpu) ? PerformKmap(o, Addresses().kmap) : Answer(Errno::kEINVAL); }
  Outcome operator()(const op::KmapFlushUnused& o) { return PerformKmap(o, Addresses().kmap); }
  Outcome operator()(const op::AllocPercpu& o) {
    return WithPercpu([&](PercpuAllocator& percpu) { return PerformPercpu(o, machine_.spec_.cpus, percpu); });
  }
  Outcome operator()(const op::FreePercpu& o) {
    return WithPercpu([&](PercpuAllocator& percpu) { return PerformPercpu(o, percpu); });
  }

  Outcome operator()(const op::CreateCgroup& o) { return PerformCgroup(o, OnNobodysBehalf()); }
  Outcome operator()(const op::RemoveCgroup& o) { return PerformCgroup(o, OnNobodysBehalf(), processes_); }
  Outcome operator()(const op::WriteCgroupFile& o) { return PerformCgroup(o, OnNobodysBehalf(), processes_); }

  Outcome operator()(const op::SetPageReplacement& o) {
    On(o.pid);
    return Answer(processes_.SetPageReplacement(o.pid, o.policy, o.frames, o.address, o.length, o.references));
  }

  Outcome operator()(const op::WriteSysctl& o) {
    On(Pid());
    // hugetlb_overcommit_handler(): pages larger than the page allocator's blocks are never made on demand.
    const HugetlbPools& pools = machine_.files_->hugetlb();
    if (pools.pool(pools.default_pool()).gigantic() && machine_.sysctls_->Find(o.name) == Sysctl::kVmNrOvercommitHugepages) {
      return Answer(Errno::kEINVAL);
    }
    const SysctlWrite written = machine_.sysctls_->Write(o.name, o.value);
    if (written.changed) machine_.Follow(*written.changed);
    return Answer(written.error);
  }
  Outcome operator()(const op::WriteSysfs& o) {
    On(Pid());
    return machine_.WriteSysfs(o.path, o.value);
  }
  Outcome operator()(const op::AdvanceTime& o) {
    const int64_t room = std::numeric_limits<int64_t>::max() - machine_.now_nanoseconds_;
    if (o.nanoseconds < 0 || o.nanoseconds > room) return Answer(Errno::kEINVAL);
    machine_.AdvanceClock(o.nanoseconds);
    return Answer(SysResult<uint64_t>(static_cast<uint64_t>(machine_.now_nanoseconds_)));
  }

 private:
  KernelAddresses& Addresses() { return machine_.MakeKernelAddresses(); }
  Cgroups& OnNobodysBehalf() {
    On(Pid());
    return *machine_.cgroups_;
  }
  // The operation runs on the CPU where its process is.
  void On(Pid pid) {
    int cpu = 0;
    if (!machine_.cpu_of_.empty()) {
      if (const auto it = machine_.cpu_of_.find(pid); it != machine_.cpu_of_.end()) cpu = it->second;
    }
    machine_.memory_->SetCurrentCpu(cpu);
    if (EventSink* events = machine_.tracer_->events()) {
      const Process* task = processes_.Find(pid);
      EventActor actor{task == nullptr ? 0 : pid.raw(), cpu, machine_.now_nanoseconds_};
      if (task != nullptr) actor.comm = task->comm;
      events->SetActor(std::move(actor));
    }
  }
  PagePerformer Pages() {
    return PagePerformer(*machine_.memory_, machine_.kernel_layout_, *machine_.movable_pages_, *machine_.compaction_);
  }
  template <typename PageOperation>
  Outcome OnPages(const PageOperation& o) {
    return OnCpu(o.cpu) ? Pages().Perform(o) : Answer(Errno::kEINVAL);
  }
  SlabPerformer Slab() { return SlabPerformer(machine_.MakeSlab(), *machine_.kernel_objects_, *machine_.memory_, *machine_.log_); }
  // Whether the kernel itself has the area at an address: a stack, or a chunk of the per-CPU allocator.
  bool KernelsArea(uint64_t address) {
    const PercpuAllocator* percpu = Addresses().percpu.get();
    return machine_.object_source_->IsStack(address) || (percpu != nullptr && percpu->OwnsArea(VirtAddr(address)));
  }
  // `perform` with the per-CPU allocator, on nobody's behalf.
  template <typename Perform>
  Outcome WithPercpu(Perform perform) {
    On(Pid());
    PercpuAllocator* percpu = Addresses().percpu.get();
    if (percpu == nullptr) return Unimplemented("per-CPU memory: the machine's description does not say where boot put the first chunk");
    return perform(*percpu);
  }
  template <typename SlabOperation>
  Outcome OnSlab(const SlabOperation& o) {
    return OnCpu(o.cpu) ? Slab().Perform(o) : Answer(Errno::kEINVAL);
  }
  // False: no such CPU.
  bool OnCpu(int cpu) {
    if (cpu < 0 || cpu >= machine_.spec_.cpus) return false;
    machine_.memory_->SetCurrentCpu(cpu);
    if (EventSink* events = machine_.tracer_->events()) events->SetActor(EventActor{0, cpu, machine_.now_nanoseconds_});
    return true;
  }

  Machine& machine_;
  Processes& processes_;
};

Outcome Machine::Apply(const Operation& operation, Explanation* explanation, EventSink* events) {
  // Whoever asked is forgotten on the way out, by an exception too.
  struct Asking {
    Tracer& tracer;
    Asking(Tracer& t, Explanation* explanation, EventSink* events) : tracer(t) {
      tracer.Explain(explanation);
      tracer.Watch(events);
    }
    ~Asking() {
      tracer.Explain(nullptr);
      tracer.Watch(nullptr);
    }
  } const asking(*tracer_, explanation, events);
  ++operations_applied_;
  if (oom_->panicked()) return Unimplemented("the kernel has panicked (vm.panic_on_oom) and runs no further");
  if (processes_->any_held() && ActorHeld(operation, *processes_)) {
    Outcome outcome;
    outcome.held = true;
    return outcome;
  }
  processes_->BeginOperation();
  const size_t processes = processes_->all().size();
  Outcome outcome = std::visit(Performer(*this), operation);
  if (kernel_objects_->pending()) SettleKernelObjects();
  cgroups_->ReturnToUser();
  reclaim_->EndOperation();
  SettleKernelObjects();
  compaction_->RunKcompactd();  // Of a daemon's work nobody is in the middle of an operation.
  if (processes_->ReapKilled()) {
    outcome.error = Errno::kOk;
    outcome.signal = Signal{.number = SignalNumber::kSigKill};
    SettleKernelObjects();
  }
  if (processes_->all().size() < processes) ForgetEndedProcesses();
  return outcome;
}

}  // namespace mmlab

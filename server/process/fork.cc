#include <utility>

#include "server/arch/layout.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/files/open_file.h"
#include "server/process/address_space.h"
#include "server/process/commit_account.h"
#include "server/process/khugepaged.h"
#include "server/process/ksm.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/processes.h"

// fork(), vfork() and clone(CLONE_VM): copy_mm() and dup_mmap() of kernel/fork.c.

namespace mmlab {
namespace {

constexpr uint64_t kCloneVm = 0x100;
constexpr uint64_t kCloneFs = 0x200;
constexpr uint64_t kCloneFiles = 0x400;
constexpr uint64_t kCloneSighand = 0x800;
constexpr uint64_t kCloneVfork = 0x4000;
constexpr uint64_t kCloneParent = 0x8000;
constexpr uint64_t kCloneThread = 0x10000;
constexpr uint64_t kCloneNewns = 0x20000;
constexpr uint64_t kCloneNewuser = 0x10000000;

// The combinations that copy_process() refuses before it looks at anything else.
bool SaneCloneFlags(uint64_t flags) {
  if ((flags & (kCloneNewns | kCloneFs)) == (kCloneNewns | kCloneFs)) return false;
  if ((flags & (kCloneNewuser | kCloneFs)) == (kCloneNewuser | kCloneFs)) return false;
  if ((flags & kCloneThread) != 0 && (flags & kCloneSighand) == 0) return false;
  if ((flags & kCloneSighand) != 0 && (flags & kCloneVm) == 0) return false;
  return (flags & kCloneThread) == 0 || (flags & kCloneNewuser) == 0;
}

// What becomes of a VMA in the child: vma_needs_copy(), is_cow_mapping().
void ExplainCopy(const VmArea& vma, Explanation& why) {
  const bool tables = vma.is(kVmPfnMap) || vma.anon_vma != nullptr;
  const bool private_pages = (vma.flags & (kVmShared | kVmMayWrite)) == kVmMayWrite;
  const char* text = vma.is(kVmWipeOnFork) ? "VM_WIPEONFORK: the child finds it empty"
                     : !tables             ? "the VMA is copied, its page tables are not: faults bring the pages back"
                     : private_pages       ? "its page tables are copied; both sides lose write permission until they copy (copy-on-write)"
                                           : "its page tables are copied; the pages stay shared";
  why.Add(StepKind::kVmaLookup, text).Address("start", vma.start).Address("end", vma.end).Truth("has_anon_vma", vma.anon_vma != nullptr);
}

}  // namespace

std::shared_ptr<AddressSpace> Processes::NewMm() {
  auto mm = std::make_shared<AddressSpace>();
  mm->page_size = layout_.page_size;
  mm->anon_vmas = anon_vmas_.get();
  mm->object = KernelObjectRef(anon_vmas_->kernel_objects(), KernelObject::kMm);
  mm->task_size = layout_.task_size;
  if (!paging_->CreateTables(*mm)) return nullptr;
  return mm;
}

SysResult<Pid> Processes::Fork(Pid pid, uint64_t clone_flags) {
  Process* parent = Enter(pid);
  if (parent == nullptr) return Errno::kESRCH;
  if (!SaneCloneFlags(clone_flags))
    return Refuse(Errno::kEINVAL, "flags that do not go together (CLONE_THREAD needs CLONE_SIGHAND needs CLONE_VM)");
  auto child = std::make_unique<Process>();
  const bool thread = (clone_flags & kCloneThread) != 0;
  child->parent = (clone_flags & (kCloneParent | kCloneThread)) != 0 ? parent->parent : parent->thread_group;
  child->comm = parent->comm;
  child->objects = TaskObjects::Fork(anon_vmas_->kernel_objects(), parent->objects, clone_flags);
  child->uid = parent->uid;
  child->cgroup = parent->cgroup;
  child->kernel_thread = parent->kernel_thread;
  child->files = (clone_flags & kCloneFiles) != 0 ? parent->files : std::make_shared<DescriptorTable>(*parent->files);
  child->rlimits = thread ? parent->rlimits : std::make_shared<Rlimits>(*parent->rlimits);
  child->oom_score_adj = parent->oom_score_adj;
  child->oom_score_adj_min = parent->oom_score_adj_min;
  child->read_implies_exec = parent->read_implies_exec;
  if (parent->mm != nullptr) {
    if ((clone_flags & kCloneVm) != 0) {
      child->mm = parent->mm;
      ++child->mm->mm_users;
      if ((clone_flags & (kCloneThread | kCloneVfork)) == 0) child->mm->multiprocess = true;  // copy_oom_score_adj()
      if (Explanation* why = tracer_.explanation()) {
        why->Add(StepKind::kSystemCallCheck, "CLONE_VM: the address space is shared, not copied").Number("mm_users", child->mm->mm_users);
      }
    } else {
      MMLAB_TRY_ASSIGN(child->mm, DupMm(*parent, *child));
    }
  }
  child->pid = Pid(++last_pid_);
  ++tasks_made_;
  child->thread_group = thread ? parent->thread_group : child->pid;
  child->start_time_ns = now_ns_;
  ++forks_;
  if ((clone_flags & kCloneVfork) != 0) {
    child->vfork_parent = pid;
    if (parent->vfork_child == Pid()) ++held_;  // Else it did not wait, and waits for the younger child from now on.
    parent->vfork_child = child->pid;
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kSystemCallCheck, "CLONE_VFORK: the parent waits until the child execs or exits")
          .Number("child", child->pid.raw());
    }
  }
  const Pid child_pid = child->pid;
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kTaskNewtask, {child_pid.raw(), child->comm, clone_flags, child->oom_score_adj});
    events->Emit(EventKind::kSchedProcessFork, {parent->comm, pid.raw(), child->comm, child_pid.raw()});
  }
  processes_[child_pid] = std::move(child);
  return child_pid;
}

// dup_mm(): a copy of the address space, with `child` as the task that owns it. On failure nothing is left of it.
SysResult<std::shared_ptr<AddressSpace>> Processes::DupMm(Process& parent, Process& child) {
  AddressSpace& old_mm = *parent.mm;
  std::shared_ptr<AddressSpace> mm = NewMm();
  if (mm == nullptr) return Errno::kENOMEM;
  mm->mmap_base = old_mm.mmap_base;
  mm->mmap_legacy_base = old_mm.mmap_legacy_base;
  mm->top_down = old_mm.top_down;
  mm->task_size = old_mm.task_size;
  mm->total_vm = old_mm.total_vm;
  mm->data_vm = old_mm.data_vm;
  mm->exec_vm = old_mm.exec_vm;
  mm->stack_vm = old_mm.stack_vm;
  mm->start_code = old_mm.start_code;
  mm->end_code = old_mm.end_code;
  mm->start_data = old_mm.start_data;
  mm->end_data = old_mm.end_data;
  mm->start_brk = old_mm.start_brk;
  mm->brk = old_mm.brk;
  mm->start_stack = old_mm.start_stack;
  mm->arg_start = old_mm.arg_start;
  mm->arg_end = old_mm.arg_end;
  mm->env_start = old_mm.env_start;
  mm->env_end = old_mm.env_end;
  mm->vdso = old_mm.vdso;
  mm->saved_auxv = old_mm.saved_auxv;
  mm->exe_file = old_mm.exe_file;
  mm->dumpable = old_mm.dumpable;
  mm->thp_disabled = old_mm.thp_disabled;
  mm->compat = old_mm.compat;
  child.mm = mm;
  if (old_mm.ksm_slot != 0) paging_->ksm().Enter(*mm);                // ksm_fork()
  if (old_mm.khugepaged_slot != 0) paging_->khugepaged().Enter(*mm);  // khugepaged_fork()
  MmCall call(Core(), child);
  Explanation* why = tracer_.explanation();
  Errno error = Errno::kOk;
  for (VmArea* vma = old_mm.vmas.First(); vma != nullptr && error == Errno::kOk; vma = old_mm.vmas.Next(*vma)) {
    const auto pages = static_cast<int64_t>(vma->length().raw() >> layout_.page_size.shift());
    if (vma->is(kVmDontCopy)) {
      mm->Account(vma->flags, -pages);
      if (why != nullptr) why->Add(StepKind::kVmaLookup, "not copied: VM_DONTCOPY").Address("start", vma->start);
      continue;
    }
    if (vma->is(kVmAccount) && !commit_->Charge(pages)) {
      error = Errno::kENOMEM;
      break;
    }
    auto copy = std::make_unique<VmArea>(*vma);
    copy->links = {};
    copy->anon_vma_chain.clear();
    copy->rmap_number = 0;
    copy->mm = mm.get();
    // hugetlb_dup_vma_private(): reservations of private mappings are the parent's alone. That pages were taken away from the parent is
    // forgotten with them: where its faults fail, the child's find zeros if the pool has a page to spare.
    copy->hugetlb_reserve = HugetlbReserve();
    copy->hugetlb_unmapped = false;
    if (copy->is(kVmWipeOnFork)) {
      copy->anon_vma = nullptr;
    } else {
      AnonVmaFork(*copy, *vma);
    }
    copy->flags &= ~kVmLockedMask;
    if (why != nullptr) ExplainCopy(*vma, *why);
    VmArea* linked = call.LinkVma(std::move(copy));
    if (!linked->is(kVmWipeOnFork) && !paging_->CopyRange(parent, *vma, child, *linked)) error = Errno::kENOMEM;
  }
  if (error != Errno::kOk) {
    DropMm(child);
    return error;
  }
  mm->hiwater_rss = mm->rss_total();
  mm->hiwater_vm = mm->total_vm;
  return mm;
}

}  // namespace mmlab

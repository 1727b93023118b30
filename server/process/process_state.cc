#include <map>
#include <vector>

#include "absl/strings/str_format.h"
#include "server/arch/layout.h"
#include "server/base/hash.h"
#include "server/files/files.h"
#include "server/process/address_space.h"
#include "server/process/anon_vma.h"
#include "server/process/commit_account.h"
#include "server/process/ksm.h"
#include "server/process/page_replacement.h"
#include "server/process/paging.h"
#include "server/process/processes.h"
#include "server/process/shm_table.h"

// All processes as one state: what must agree in it, its fingerprint, its size on the host.

namespace mmlab {
namespace {

void CheckVmas(Pid pid, const AddressSpace& mm, PageSize page_size, std::vector<std::string>* violations) {
  PageCount total;
  size_t count = 0;
  VirtAddr end;
  for (const VmArea* vma = mm.vmas.First(); vma != nullptr; vma = mm.vmas.Next(*vma)) {
    if (vma->start >= vma->end || vma->start < end || !page_size.IsAligned(vma->start) || !page_size.IsAligned(vma->end) ||
        vma->mm != &mm) {
      violations->push_back(absl::StrFormat("process %d: VMA 0x%x-0x%x is out of order", pid.raw(), vma->start.raw(), vma->end.raw()));
    }
    if (vma->backing == VmaBacking::kFile) {
      const auto it = vma->file->inode->mappings.find(vma->file_link);
      if (it == vma->file->inode->mappings.end() || it->second != vma) {
        violations->push_back(absl::StrFormat("process %d: VMA 0x%x is not among its file's mappings", pid.raw(), vma->start.raw()));
      }
    }
    end = vma->end;
    total += page_size.WholePagesIn(vma->length());
    ++count;
  }
  mm.vmas.CheckInvariants(violations);
  if (mm.replacement != nullptr) mm.replacement->CheckInvariants(violations);
  if (total != mm.total_vm || count != mm.vmas.size()) {
    violations->push_back(absl::StrFormat("process %d: total_vm %d and %d VMAs are counted, %d and %d exist", pid.raw(), mm.total_vm.raw(),
                                          mm.vmas.size(), total.raw(), count));
  }
}

void HashReadahead(const ReadaheadState& ra, StateHasher& hasher) {
  for (const uint64_t value : {ra.start, ra.size, ra.async_size, uint64_t{ra.mmap_miss}, static_cast<uint64_t>(ra.previous)})
    hasher.Add(value);
}

void HashVma(const VmArea& vma, StateHasher& hasher) {
  hasher.Add(vma.start.raw());
  hasher.Add(vma.end.raw());
  hasher.Add(vma.flags);
  hasher.Add(vma.pgoff.raw());
  hasher.Add(static_cast<uint64_t>(vma.backing));
  hasher.Add(vma.file == nullptr ? 0 : vma.file->inode->id);
  if (vma.file != nullptr) HashReadahead(vma.file->readahead, hasher);
  hasher.Add(vma.file_link);
  for (const AnonVma* anon_vma : vma.anon_vma_chain) hasher.Add(anon_vma->id);
  hasher.Add(vma.anon_vma == nullptr ? 0 : vma.anon_vma->id);
  hasher.Add((vma.hugetlb_unmapped ? 1 : 0) | (vma.hugetlb_reserve.get() != nullptr ? 2 : 0));
  if (const ReserveMap* taken = vma.hugetlb_reserve.get()) taken->AddToHash(hasher);
  if (const std::string* name = vma.name.get()) hasher.AddBytes(name->data(), name->size());
}

void HashAddressSpace(const AddressSpace& mm, StateHasher& hasher) {
  for (const VirtAddr address : {mm.mmap_base, mm.mmap_legacy_base, mm.task_size, mm.start_code, mm.end_code, mm.start_data, mm.end_data,
                                 mm.start_brk, mm.brk, mm.start_stack, mm.arg_start, mm.arg_end, mm.env_start, mm.env_end, mm.vdso}) {
    hasher.Add(address.raw());
  }
  for (const PageCount pages :
       {mm.total_vm, mm.locked_vm, mm.pinned_vm, mm.data_vm, mm.exec_vm, mm.stack_vm, mm.hiwater_vm, mm.hiwater_rss}) {
    hasher.Add(pages.raw());
  }
  for (const int64_t pages : mm.rss) hasher.Add(static_cast<uint64_t>(pages));
  for (const uint64_t pages : mm.table_pages) hasher.Add(pages);
  hasher.Add(mm.def_flags);
  hasher.Add(mm.hugetlb_pages);
  hasher.Add(static_cast<uint64_t>(mm.mm_users));
  hasher.Add(mm.context_id);
  hasher.Add(mm.multiprocess ? 1 : 0);
  for (const auto& [kind, value] : mm.saved_auxv) {
    hasher.Add(kind);
    hasher.Add(value);
  }
  hasher.Add((mm.top_down ? 1 : 0) | (mm.thp_disabled ? 2 : 0) | (mm.compat ? 4 : 0));
  hasher.Add(static_cast<uint64_t>(mm.dumpable));
  hasher.Add(mm.exe_file == nullptr ? 0 : mm.exe_file->inode->id);
  for (const VmArea* vma = mm.vmas.First(); vma != nullptr; vma = mm.vmas.Next(*vma)) HashVma(*vma, hasher);
  if (mm.replacement != nullptr) mm.replacement->AddToHash(hasher);
}

}  // namespace

void Processes::CheckInvariants(std::vector<std::string>* violations) const {
  std::vector<const Process*> tasks;
  std::map<const AddressSpace*, int> users;  // Only looked up.
  for (const auto& [pid, process] : processes_) {
    tasks.push_back(process.get());
    if (process->mm == nullptr) continue;
    if (++users[process->mm.get()] == 1) CheckVmas(pid, *process->mm, layout_.page_size, violations);
  }
  int held = 0;
  for (const Process* task : tasks) {
    if (task->mm != nullptr && task->mm->mm_users != users[task->mm.get()]) {
      violations->push_back(
          absl::StrFormat("process %d: mm_users is %d, %d tasks use it", task->pid.raw(), task->mm->mm_users, users[task->mm.get()]));
    }
    if (task->vfork_child != Pid()) {
      ++held;
      const Process* child = Find(task->vfork_child);
      if (child == nullptr || child->vfork_parent != task->pid) {
        violations->push_back(
            absl::StrFormat("process %d waits for a vfork of %d, which nobody knows", task->pid.raw(), task->vfork_child.raw()));
      }
    }
    const Process* leader = Find(task->thread_group);
    if (leader == nullptr || !leader->leads() || leader->mm != task->mm) {
      violations->push_back(absl::StrFormat("thread %d: its process %d has no first thread with the same address space", task->pid.raw(),
                                            task->thread_group.raw()));
    }
  }
  if (held != held_) violations->push_back(absl::StrFormat("%d processes are counted as waiting in vfork, %d do", held_, held));
  paging_->CheckInvariants(tasks, violations);
  SwapCounts swapped;
  files_.CountSwap(swapped);
  for (const auto& [pid, process] : processes_) {
    if (process->mm != nullptr && users[process->mm.get()]-- == process->mm->mm_users) paging_->CountSwap(*process->mm, swapped);
  }
  files_.swap().CheckInvariants(swapped, violations);
}

void Processes::AddToHash(StateHasher& hasher) const {
  hasher.Add(static_cast<uint64_t>(last_pid_));
  hasher.Add(forks_);
  hasher.Add(tasks_made_);
  for (const auto& [comm, faults] : former_faults_) {
    hasher.AddBytes(comm.data(), comm.size());
    hasher.Add(faults.minor);
    hasher.Add(faults.major);
  }
  hasher.Add(random_.state());
  commit_->AddToHash(hasher);
  for (const auto& [index, segment] : shm_->all()) {
    hasher.Add(static_cast<uint64_t>(segment.id));
    hasher.Add(static_cast<uint64_t>(segment.key));
    hasher.Add(segment.size);
    hasher.Add(segment.marked ? 1 : 0);
  }
  std::map<const AddressSpace*, uint64_t> seen;  // Address spaces in the order of the first process that uses them; only looked up.
  for (const auto& [pid, process] : processes_) {
    for (const uint64_t value :
         {static_cast<uint64_t>(pid.raw()), static_cast<uint64_t>(process->parent.raw()), uint64_t{process->uid}, process->minor_faults,
          process->major_faults, static_cast<uint64_t>(process->oom_score_adj), static_cast<uint64_t>(process->oom_score_adj_min),
          static_cast<uint64_t>(process->rss.events), static_cast<uint64_t>(process->vfork_child.raw()),
          static_cast<uint64_t>(process->vfork_parent.raw()), static_cast<uint64_t>(process->start_time_ns), uint64_t{process->cgroup},
          static_cast<uint64_t>(process->run_nanoseconds), process->switches, process->faults_before_comm.minor,
          process->faults_before_comm.major}) {
      hasher.Add(value);
    }
    for (const int64_t pages : process->rss.count) hasher.Add(static_cast<uint64_t>(pages));
    hasher.Add(static_cast<uint64_t>(process->thread_group.raw()));
    for (const Rlimit& limit : *process->rlimits) {
      hasher.Add(limit.current);
      hasher.Add(limit.maximum);
    }
    for (const auto& [fd, file] : *process->files) {
      hasher.Add(static_cast<uint64_t>(fd));
      hasher.Add(file->inode->id);
      hasher.Add((file->readable ? 1 : 0) | (file->writable ? 2 : 0));
      HashReadahead(file->readahead, hasher);
    }
    if (process->mm == nullptr) continue;
    const auto [it, fresh] = seen.try_emplace(process->mm.get(), seen.size());
    hasher.Add(it->second);
    if (!fresh) continue;
    HashAddressSpace(*process->mm, hasher);
    paging_->AddToHash(*process->mm, hasher);
  }
  for (const auto& [number, cpu] : cpus_) {
    hasher.Add(static_cast<uint64_t>(number));
    hasher.Add(static_cast<uint64_t>(cpu.current.raw()));
    hasher.Add(cpu.mm == nullptr ? 0 : cpu.mm->pgd.raw());
    hasher.Add(static_cast<uint64_t>(cpu.time.user_nanoseconds));
    hasher.Add(static_cast<uint64_t>(cpu.time.system_nanoseconds));
  }
  hasher.Add(switches_);
  hasher.Add(static_cast<uint64_t>(now_ns_));
  hasher.Add(static_cast<uint64_t>(next_load_update_));
  for (const uint64_t load : load_) hasher.Add(load);
  hasher.Add(asids_.generation);
  hasher.Add(asids_.next);
  for (const uint32_t asid : asids_.kept) hasher.Add(asid);
  paging_->AddToHash(hasher);
}

Bytes Processes::HostMemory() const {
  uint64_t bytes = sizeof(Processes) + sizeof(Paging) + paging_->ksm().HostMemory() + anon_vmas_->size() * sizeof(AnonVma);
  bytes += former_faults_.size() * (sizeof(std::string) + sizeof(FaultCounts));
  for (const auto& [pid, process] : processes_) {
    bytes += sizeof(Process) + process->comm.capacity() + process->files->size() * (sizeof(OpenFile) + 32);
    if (process->mm == nullptr) continue;
    if (process->mm->replacement != nullptr) bytes += process->mm->replacement->HostMemory();
    const VmaTree& vmas = process->mm->vmas;
    bytes += (sizeof(AddressSpace) + vmas.size() * sizeof(VmArea) + vmas.HostMemory().raw()) / static_cast<uint64_t>(process->mm->mm_users);
    if (files_.hugetlb().total_pages() == 0) continue;
    for (const VmArea* vma = vmas.First(); vma != nullptr; vma = vmas.Next(*vma)) {
      if (const ReserveMap* taken = vma->hugetlb_reserve.get()) bytes += sizeof(ReserveMap) + taken->ranges() * 20;
    }
  }
  return Bytes(bytes);
}

}  // namespace mmlab

#ifndef MMLAB_SERVER_RECLAIM_OOM_KILLER_H_
#define MMLAB_SERVER_RECLAIM_OOM_KILLER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/base/hash.h"
#include "server/physical/gfp.h"
#include "server/process/pid.h"

namespace mmlab {

class BuddyMemory;
class Cgroups;
class KernelLogger;
class Process;
class Processes;
class Tracer;
class VmStat;

// sysctl vm.oom_kill_allocating_task, vm.oom_dump_tasks, vm.panic_on_oom.
struct OomSettings {
  bool kill_allocating_task = false;
  bool dump_tasks = true;
  int panic_on_oom = 0;
  std::string kernel_release;  // As the report names it.
  std::string kernel_version;
};

// Chooses a process to be killed when no memory can be had otherwise, kills it, and says so in the kernel's log. Linux: mm/oom_kill.c.
//
// A victim that is not the acting process is gone with all its memory when this returns, as if the reaper and the scheduler had been at
// once. The acting process goes when its operation ends; what it still asks for is refused.
class OomKiller {
 public:
  OomKiller(BuddyMemory& memory, Cgroups& cgroups, Processes& processes, VmStat& vm_stat, KernelLogger& log, Tracer& tracer);

  OomSettings& settings() { return settings_; }

  // What could not be had: 2^order frames, of the machine, or of a memory cgroup (not 0) that may not have more.
  struct Request {
    Gfp gfp = 0;
    int order = 0;
    uint16_t memcg = 0;
    bool hopeless = false;  // kswapd gave up on the node.
  };
  // out_of_memory(): true when a process was killed whose memory is free now. For a memory cgroup only processes in it and below are looked
  // at, and true also when it is the acting one that was killed.
  bool OutOfMemory(const Request& request);
  // warn_alloc(): the kernel's log says that frames could not be had.
  void ReportFailure(Gfp gfp, int order, bool hopeless);
  // task_is_dying()
  bool ActingProcessDies() const;

  // Whether panic_on_oom struck: the kernel runs no further.
  bool panicked() const { return panicked_; }

  void AddToHash(StateHasher& hasher) const;

 private:
  struct Candidate {
    const Process* process = nullptr;
    int64_t rss = 0, swap = 0, tables = 0;  // Pages.
    int64_t adjustment = 0;                 // oom_score_adj in pages.
    int64_t points = 0;
    bool eligible = false;  // oom_score_adj is not the least.
  };

  // What dump_tasks() lists and select_bad_process() looks at: neither kernel threads nor init.
  std::vector<Candidate> Candidates(uint64_t total_pages, uint16_t memcg) const;
  uint64_t TotalPages(uint16_t memcg) const;
  const Candidate* ChooseAllocating(const std::vector<Candidate>& candidates) const;
  const Candidate* ChooseWorst(const std::vector<Candidate>& candidates) const;
  void Panic(const Request& request, const std::vector<Candidate>& candidates);
  void ExplainChoice(const std::vector<Candidate>& candidates, const Candidate* chosen, uint64_t total_pages) const;
  std::string ActingComm() const;
  void LogActing();
  void DumpHeader(const Request& request, const std::vector<Candidate>& candidates, const Process* victim);
  // __oom_kill_process(), but for the end of the process.
  void Condemn(const Process& victim, const std::string& message);
  // oom_kill_process(): the victim, and its whole memory cgroup where memory.oom.group says so. Whether all that memory is back already.
  bool Kill(const Process& victim, const std::string& message, uint16_t memcg);

  BuddyMemory& memory_;
  Cgroups& cgroups_;
  Processes& processes_;
  VmStat& vm_stat_;
  KernelLogger& log_;
  Tracer& tracer_;
  OomSettings settings_;
  bool panicked_ = false;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_RECLAIM_OOM_KILLER_H_

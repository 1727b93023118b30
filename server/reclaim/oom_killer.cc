#include "server/reclaim/oom_killer.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/base/kernel_logger.h"
#include "server/cgroup/cgroups.h"
#include "server/physical/gfp.h"
#include "server/physical/page_allocator.h"
#include "server/process/address_space.h"
#include "server/process/processes.h"
#include "server/reclaim/oom_report.h"

namespace mmlab {
namespace {

constexpr int32_t kOomScoreAdjMin = -1000;
constexpr int32_t kInitPid = 1;

}  // namespace

OomKiller::OomKiller(BuddyMemory& memory, Cgroups& cgroups, Processes& processes, VmStat& vm_stat, KernelLogger& log, Tracer& tracer)
    : memory_(memory), cgroups_(cgroups), processes_(processes), vm_stat_(vm_stat), log_(log), tracer_(tracer) {}

uint64_t OomKiller::TotalPages(uint16_t memcg) const {
  const ProcessLimits& limits = processes_.limits();
  if (memcg == 0) return (limits.total_ram + limits.total_swap).raw();
  // mem_cgroup_get_max()
  const Memcg& limited = cgroups_.memcg(memcg);
  return std::max<uint64_t>(1, limited.memory.max + std::min(limited.swap.max, limits.total_swap.raw()));
}

std::vector<OomKiller::Candidate> OomKiller::Candidates(uint64_t total_pages, uint16_t memcg) const {
  std::vector<Candidate> candidates;
  for (const auto& [pid, process] : processes_.all()) {
    if (process->kernel_thread || pid == Pid(kInitPid) || process->mm == nullptr || process->killed) continue;
    if (!cgroups_.IsWithin(cgroups_.MemcgOf(process->cgroup), memcg)) continue;
    const AddressSpace& mm = *process->mm;
    Candidate& one = candidates.emplace_back();
    one.process = process.get();
    one.rss = static_cast<int64_t>(mm.rss_total().raw());
    one.swap = std::max<int64_t>(0, mm.rss[static_cast<size_t>(RssKind::kSwap)]);
    one.tables = static_cast<int64_t>(mm.table_pages[1] + mm.table_pages[2] + mm.table_pages[3]);
    one.eligible = process->oom_score_adj != kOomScoreAdjMin;
    one.adjustment = process->oom_score_adj * (static_cast<int64_t>(total_pages) / 1000);
    one.points = one.rss + one.swap + one.tables + one.adjustment;
  }
  return candidates;
}

void OomKiller::ExplainChoice(const std::vector<Candidate>& candidates, const Candidate* chosen, uint64_t total_pages) const {
  Explanation* why = tracer_.explanation();
  if (why == nullptr) return;
  for (const Candidate& one : candidates) {
    why->Add(StepKind::kOomScore, !one.eligible    ? "never killed: oom_score_adj is -1000"
                                  : &one == chosen ? "the highest score: this process is killed"
                                                   : "another process scores as high or higher")
        .Number("pid", one.process->pid.raw())
        .Text("comm", one.process->comm)
        .Pages("rss", one.rss)
        .Pages("swap", one.swap)
        .Pages("page_tables", one.tables)
        .Number("oom_score_adj", one.process->oom_score_adj)
        .Pages("total", static_cast<int64_t>(total_pages))
        .Pages("adjustment", one.adjustment)
        .Pages("score", one.points);
  }
}

std::string OomKiller::ActingComm() const { return processes_.current() == nullptr ? "swapper/0" : processes_.current()->comm; }

// dump_stack_print_info()
void OomKiller::LogActing() {
  const Process* current = processes_.current();
  log_.Log(LogLevel::kWarning,
           absl::StrFormat("CPU: %d PID: %d Comm: %s Not tainted %s %s", memory_.current_cpu(), current == nullptr ? 0 : current->pid.raw(),
                           ActingComm(), settings_.kernel_release, settings_.kernel_version));
}

void OomKiller::ReportFailure(Gfp gfp, int order, bool hopeless) {
  if ((gfp & kGfpNoWarn) != 0 || ActingProcessDies() || !log_.Allows(LimitedMessage::kWarnAlloc)) return;
  log_.Log(LogLevel::kWarning,
           absl::StrFormat("%s: page allocation failure: order:%d, mode:%#x(%s), nodemask=(null),cpuset=/,mems_allowed=0", ActingComm(),
                           order, gfp, GfpText(gfp)));
  LogActing();
  ReportMemory(memory_, processes_, hopeless, log_);
}

void OomKiller::DumpHeader(const Request& request, const std::vector<Candidate>& candidates, const Process* victim) {
  const Process* current = processes_.current();
  // Pages for user memory are asked for as folios.
  const Gfp gfp = (request.gfp & kGfpMovable) != 0 ? request.gfp | kGfpComp : request.gfp;
  const uint16_t memcg = request.memcg;
  log_.Log(LogLevel::kWarning, absl::StrFormat("%s invoked oom-killer: gfp_mask=%#x(%s), order=%d, oom_score_adj=%d", ActingComm(), gfp,
                                               GfpText(gfp), request.order, current == nullptr ? 0 : current->oom_score_adj));
  LogActing();
  if (memcg == 0) {
    ReportMemory(memory_, processes_, request.hopeless, log_);
  } else {
    ReportCgroup(cgroups_, memcg, memory_.page_size(), log_);
  }
  if (settings_.dump_tasks) {
    log_.Log(LogLevel::kInfo, "Tasks state (memory values in pages):");
    log_.Log(LogLevel::kInfo, "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name");
    for (const Candidate& one : candidates) {
      const Process& process = *one.process;
      log_.Log(LogLevel::kInfo, absl::StrFormat("[%7d] %5d %5d %8d %8d %8d %8d         %5d %s", process.pid.raw(), process.uid,
                                                process.pid.raw(), process.mm->total_vm.raw(), one.rss,
                                                one.tables << memory_.page_size().shift(), one.swap, process.oom_score_adj, process.comm));
    }
  }
  if (victim == nullptr) return;
  const auto path = [&](uint16_t number) { return number == 0 ? std::string("/") : cgroups_.memcg(number).path; };
  log_.Log(LogLevel::kInfo,
           absl::StrFormat("oom-kill:constraint=%s,nodemask=(null),cpuset=/,mems_allowed=0,%s,task_memcg=%s,task=%s,pid=%d,uid=%d",
                           memcg == 0 ? "CONSTRAINT_NONE" : "CONSTRAINT_MEMCG",
                           memcg == 0 ? "global_oom" : absl::StrCat("oom_memcg=", path(memcg)), path(cgroups_.MemcgOf(victim->cgroup)),
                           victim->comm, victim->pid.raw(), victim->uid));
}

void OomKiller::Condemn(const Process& victim, const std::string& message) {
  const MemoryStatus status = processes_.Status(victim);
  log_.Log(LogLevel::kError,
           absl::StrFormat("%s: Killed process %d (%s) total-vm:%dkB, anon-rss:%dkB, file-rss:%dkB, shmem-rss:%dkB, UID:%d pgtables:%dkB "
                           "oom_score_adj:%d",
                           message, victim.pid.raw(), victim.comm, status.vm_size.raw() >> 10, status.rss_anon.raw() >> 10,
                           status.rss_file.raw() >> 10, status.rss_shmem.raw() >> 10, victim.uid, status.vm_pte.raw() >> 10,
                           victim.oom_score_adj));
  vm_stat_.Count(VmEvent::kOomKill);
  cgroups_.CountMemcgEvent(cgroups_.MemcgOf(victim.cgroup), MemcgEvent::kOomKill);
  if (EventSink* events = tracer_.events()) {
    const auto kb = [](Bytes bytes) { return static_cast<int64_t>(bytes.raw() >> 10); };
    events->Emit(EventKind::kMarkVictim, {victim.pid.raw(), victim.comm, kb(status.vm_size), kb(status.rss_anon), kb(status.rss_file),
                                          kb(status.rss_shmem), victim.uid, kb(status.vm_pte), victim.oom_score_adj});
  }
}

bool OomKiller::Kill(const Process& victim, const std::string& message, uint16_t memcg) {
  std::vector<Pid> doomed = {victim.pid};
  Condemn(victim, message);
  if (const uint16_t group = cgroups_.OomGroup(cgroups_.MemcgOf(victim.cgroup), memcg); group != 0) {
    cgroups_.CountMemcgEvent(group, MemcgEvent::kOomGroupKill);
    log_.Log(LogLevel::kInfo, absl::StrCat("Tasks in ", cgroups_.memcg(group).path, " are going to be killed due to memory.oom.group set"));
    // The victim is still there, and so is killed once more.
    for (const Candidate& one : Candidates(1, group)) {
      if (!one.eligible) continue;
      Condemn(*one.process, message);
      if (one.process != &victim) doomed.push_back(one.process->pid);
    }
  }
  bool all_gone = true;
  for (const Pid pid : doomed) {
    if (processes_.Find(pid) != nullptr) all_gone = processes_.Kill(pid) && all_gone;
  }
  return all_gone;
}

bool OomKiller::ActingProcessDies() const {
  const Process* current = processes_.current();
  return current != nullptr && current->killed;
}

void OomKiller::Panic(const Request& request, const std::vector<Candidate>& candidates) {
  DumpHeader({request.gfp, request.order, 0, request.hopeless}, candidates, nullptr);
  log_.Log(LogLevel::kEmergency, absl::StrCat("Kernel panic - not syncing: Out of memory: ",
                                              settings_.panic_on_oom == 2 ? "compulsory" : "system-wide", " panic_on_oom is enabled"));
  panicked_ = true;
}

// vm.oom_kill_allocating_task: whoever asks, if it may be killed at all.
const OomKiller::Candidate* OomKiller::ChooseAllocating(const std::vector<Candidate>& candidates) const {
  for (const Candidate& one : candidates) {
    if (one.process != processes_.current() || !one.eligible) continue;
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kOomScore, "vm.oom_kill_allocating_task: whoever asks for memory is killed").Number("pid", one.process->pid.raw());
    }
    return &one;
  }
  return nullptr;
}

// select_bad_process(): of equals the one that started last.
const OomKiller::Candidate* OomKiller::ChooseWorst(const std::vector<Candidate>& candidates) const {
  const Candidate* chosen = nullptr;
  int64_t most = std::numeric_limits<int64_t>::min();
  for (const Candidate& one : candidates) {
    if (!one.eligible || one.points < most) continue;
    most = one.points;
    chosen = &one;
  }
  return chosen;
}

bool OomKiller::OutOfMemory(const Request& request) {
  const uint16_t memcg = request.memcg;
  const bool for_cgroup = memcg != 0;
  // Who is to die gets no more memory: it will give back all it has (task_will_free_mem).
  if (ActingProcessDies()) return for_cgroup;
  const uint64_t total_pages = TotalPages(memcg);
  const std::vector<Candidate> candidates = Candidates(total_pages, memcg);
  if (settings_.panic_on_oom == 2 || (settings_.panic_on_oom == 1 && !for_cgroup)) {
    Panic(request, candidates);
    return false;
  }
  std::string message = for_cgroup ? "Memory cgroup out of memory" : "Out of memory";
  const Candidate* chosen = settings_.kill_allocating_task && !for_cgroup ? ChooseAllocating(candidates) : nullptr;
  if (chosen != nullptr) {
    message += " (oom_kill_allocating_task)";
  } else {
    chosen = ChooseWorst(candidates);
    ExplainChoice(candidates, chosen, total_pages);
  }
  const bool report = log_.Allows(LimitedMessage::kOomKillProcess);
  if (report) DumpHeader(request, candidates, chosen == nullptr ? nullptr : chosen->process);
  if (chosen == nullptr) {
    // Here the kernel panics unless a cgroup is short, since nothing could ever go on; a machine whose processes are simulated goes on with
    // the refusal.
    if (report) log_.Log(LogLevel::kWarning, "Out of memory and no killable processes...");
    return false;
  }
  return Kill(*chosen->process, message, memcg) || for_cgroup;
}

void OomKiller::AddToHash(StateHasher& hasher) const { hasher.Add(panicked_ ? 1 : 0); }

}  // namespace mmlab

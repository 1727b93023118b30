// Files of /proc/PID beside maps and status: stat, what exec left behind, numa_maps.
#include <array>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/files/open_file.h"
#include "server/machine/machine.h"
#include "server/process/address_space.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/procfs/process_files.h"
#include "server/procfs/text.h"

namespace mmlab {
namespace {

constexpr int64_t kClockTick = 10'000'000;  // Nanoseconds of a clock tick as user space sees it (USER_HZ).
constexpr uint64_t kForkNoExec = 0x40;      // PF_FORKNOEXEC
constexpr uint64_t kKernelThread = 0x00200000;
constexpr int kSigChld = 17;
constexpr int kPriority = 20;

// How long all threads of the process were on a CPU, in clock ticks.
int64_t RunTicksOf(const Machine& machine, const Process& process) {
  int64_t run = 0;
  for (const auto& [pid, other] : machine.processes().all()) {
    if (other->thread_group == process.thread_group) run += other->run_nanoseconds;
  }
  return run / kClockTick;
}

// Faults of all threads of the process.
std::pair<uint64_t, uint64_t> FaultsOf(const Machine& machine, const Process& process) {
  uint64_t minor = 0;
  uint64_t major = 0;
  for (const auto& [pid, other] : machine.processes().all()) {
    if (other->thread_group != process.thread_group) continue;
    minor += other->minor_faults;
    major += other->major_faults;
  }
  return {minor, major};
}

uint64_t RssOf(const Machine& machine, const Process& process) {
  if (process.mm == nullptr) return 0;
  return machine.layout().page_size.WholePagesIn(machine.processes().Status(process).vm_rss).raw();
}

}  // namespace

char TaskState(const Machine& machine, const Process& process) {
  if (process.vfork_child != Pid()) return 'D';
  return machine.processes().RunsOn(process.pid).has_value() ? 'R' : 'S';
}

std::string WchanText(const Machine&, const Process& process) { return process.vfork_child != Pid() ? "kernel_clone" : "0"; }

std::string StatText(const Machine& machine, const Process& process) {
  const AddressSpace* mm = process.mm.get();
  const auto [minor, major] = FaultsOf(machine, process);
  const int threads = machine.processes().ThreadCount(process);
  const char state = TaskState(machine, process);
  const int64_t run = RunTicksOf(machine, process);
  const uint64_t word_max = machine.layout().word_bytes == 4 ? 0xffffffff : ~uint64_t{0};
  const uint64_t flags = process.kernel_thread ? kKernelThread : (mm == nullptr ? kForkNoExec : 0);
  const auto at = [&](VirtAddr AddressSpace::*field) { return mm == nullptr ? uint64_t{0} : (mm->*field).raw(); };
  std::string out = absl::StrCat(process.pid.raw(), " (", process.comm, ") ", std::string(1, state), " ", process.parent.raw());
  // Process group, session, terminal and its group; flags; faults, those of children that were waited for; CPU times.
  absl::StrAppend(&out, " 0 0 0 -1 ", flags, " ", minor, " 0 ", major, " 0 ", process.kernel_thread ? 0 : run, " ",
                  process.kernel_thread ? run : 0, " 0 0 ", kPriority, " 0 ", threads, " 0 ", process.start_time_ns / kClockTick, " ");
  absl::StrAppend(&out, mm == nullptr ? 0 : machine.layout().page_size.BytesOf(mm->total_vm).raw(), " ", RssOf(machine, process), " ",
                  word_max, " ", at(&AddressSpace::start_code), " ", at(&AddressSpace::end_code), " ", at(&AddressSpace::start_stack));
  // Stack and instruction pointers are hidden; signals; wchan tells only whether there is one, of single-threaded processes.
  absl::StrAppend(&out, " 0 0 0 0 0 0 ", threads < 2 && state != 'R' ? 1 : 0, " 0 0 ", process.leads() ? kSigChld : -1, " ",
                  machine.processes().RunsOn(process.pid).value_or(0), " 0 0 0 0 0");
  for (VirtAddr AddressSpace::*field :
       {&AddressSpace::start_data, &AddressSpace::end_data, &AddressSpace::start_brk, &AddressSpace::arg_start, &AddressSpace::arg_end,
        &AddressSpace::env_start, &AddressSpace::env_end}) {
    absl::StrAppend(&out, " ", at(field));
  }
  return out + " 0\n";
}

// get_mm_cmdline(): a program that wrote over the end of its arguments has set a title, which ends at its first NUL.
std::string CmdlineOfProcess(const Machine& machine, const Process& process) {
  if (process.mm == nullptr || process.mm->env_end == VirtAddr()) return "";
  const AddressSpace& mm = *process.mm;
  if (mm.arg_start >= mm.arg_end) return "";
  const std::string last = machine.processes().PeekMemory(process, mm.arg_end - Bytes(1), mm.arg_end);
  if (last.empty() || last[0] == '\0') return machine.processes().PeekMemory(process, mm.arg_start, mm.arg_end);
  const bool adjoins = mm.env_start == mm.arg_end && mm.env_end >= mm.env_start;
  const uint64_t room = ((adjoins ? mm.env_end : mm.arg_end) - mm.arg_start).raw();
  std::string title = machine.processes().PeekMemory(process, mm.arg_start, mm.arg_start + machine.layout().page_size.bytes());
  if (const size_t end = title.find('\0'); end != std::string::npos) title.resize(end + 1);
  if (title.size() > room) title.resize(room);
  return title;
}

std::string EnvironText(const Machine& machine, const Process& process) {
  if (process.mm == nullptr || process.mm->env_start > process.mm->env_end) return "";
  return machine.processes().PeekMemory(process, process.mm->env_start, process.mm->env_end);
}

std::string AuxvBytes(const Machine& machine, const Process& process) {
  std::string out;
  if (process.mm == nullptr) return out;
  const size_t word = process.mm->compat ? 4 : static_cast<size_t>(machine.layout().word_bytes);
  for (const auto& [kind, value] : process.mm->saved_auxv) {
    for (const uint64_t number : {kind, value}) out.append(reinterpret_cast<const char*>(&number), word);
  }
  return out;
}

std::string ExeText(const Process& process) {
  return process.mm == nullptr || process.mm->exe_file == nullptr ? "" : process.mm->exe_file->inode->path;
}

std::string OomAdjText(const Process& process) {
  constexpr int kMost = 15;      // OOM_ADJUST_MAX
  constexpr int kDisable = -17;  // OOM_DISABLE
  constexpr int kScoreMost = 1000;
  const int adjusted = process.oom_score_adj == kScoreMost ? kMost : process.oom_score_adj * -kDisable / kScoreMost;
  return absl::StrCat(std::min(adjusted, kMost), "\n");
}

std::string NumaMapsText(const Machine& machine, const Process& process) {
  std::string out;
  if (process.mm == nullptr) return out;
  const std::vector<VmAreaView> vmas = machine.processes().VmAreas(process);
  const std::vector<VmaPages> pages = machine.processes().AllVmaPages(process);
  for (size_t i = 0; i < vmas.size(); ++i) {
    AppendHex(out, vmas[i].start.raw(), 8);
    out += " default";
    if (vmas[i].inode != 0) {
      absl::StrAppend(&out,
                      " file=", absl::StrReplaceAll(vmas[i].backing, {{" ", "\\040"}, {"\n", "\\012"}, {"\t", "\\011"}, {"=", "\\075"}}));
    } else if (vmas[i].backing == "[heap]") {
      out += " heap";
    } else if (vmas[i].backing == "[stack]") {
      out += " stack";
    }
    if (vmas[i].page_size > machine.layout().page_size.bytes()) out += " huge";
    const VmaPages& counted = pages[i];
    if (counted.pages > 0) {
      if (counted.anon > 0) absl::StrAppend(&out, " anon=", counted.anon);
      if (counted.dirty > 0) absl::StrAppend(&out, " dirty=", counted.dirty);
      if (counted.pages != counted.anon && counted.pages != counted.dirty) absl::StrAppend(&out, " mapped=", counted.pages);
      if (counted.mapcount_max > 1) absl::StrAppend(&out, " mapmax=", counted.mapcount_max);
      if (counted.active < counted.pages) absl::StrAppend(&out, " active=", counted.active);
      absl::StrAppend(&out, " N0=", counted.pages, " kernelpagesize_kB=", vmas[i].page_size.raw() >> 10);
    }
    out.push_back('\n');
  }
  return out;
}

}  // namespace mmlab

#include "server/procfs/process_files.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/machine/machine.h"
#include "server/process/address_space.h"
#include "server/process/ksm.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/procfs/text.h"

namespace mmlab {
namespace {

// The columns of maps before the name take this much, whatever the addresses need (seq_setwidth in show_vma_header_prefix).
size_t HeaderWidth(const Machine& machine) { return 25 + static_cast<size_t>(machine.layout().word_bytes) * 6 - 1; }

void AppendMapsLine(std::string& out, const VmAreaView& vma, size_t header_width) {
  const size_t start = out.size();
  AppendHex(out, vma.start.raw(), 8);
  out.push_back('-');
  AppendHex(out, vma.end.raw(), 8);
  out.push_back(' ');
  out += vma.permissions;
  out.push_back(' ');
  AppendHex(out, vma.offset.raw(), 8);
  out.push_back(' ');
  AppendHex(out, vma.device_major, 2);
  out.push_back(':');
  AppendHex(out, vma.device_minor, 2);
  out.push_back(' ');
  AppendDecimal(out, static_cast<int64_t>(vma.inode), 0);
  out.push_back(' ');
  if (!vma.backing.empty()) {
    if (const size_t length = out.size() - start; length < header_width) out.append(header_width - length, ' ');
    out.push_back(' ');
    AppendText(out, absl::StrReplaceAll(vma.backing, {{"\n", "\\012"}}));
  }
  out.push_back('\n');
}

void AppendSize(std::string& out, absl::string_view label, Bytes bytes) {
  AppendLeft(out, label, 16);
  AppendDecimal(out, static_cast<int64_t>(bytes.raw() >> 10), 8);
  out += " kB\n";
}

// `rollup`: null in smaps.
void AppendSmapsSums(std::string& out, const Smaps& smaps, const SmapsRollup* rollup) {
  AppendSize(out, "Rss:", smaps.rss);
  AppendSize(out, "Pss:", smaps.pss);
  AppendSize(out, "Pss_Dirty:", smaps.pss_dirty);
  if (rollup != nullptr) {
    AppendSize(out, "Pss_Anon:", rollup->pss_anon);
    AppendSize(out, "Pss_File:", rollup->pss_file);
    AppendSize(out, "Pss_Shmem:", rollup->pss_shmem);
  }
  AppendSize(out, "Shared_Clean:", smaps.shared_clean);
  AppendSize(out, "Shared_Dirty:", smaps.shared_dirty);
  AppendSize(out, "Private_Clean:", smaps.private_clean);
  AppendSize(out, "Private_Dirty:", smaps.private_dirty);
  AppendSize(out, "Referenced:", smaps.referenced);
  AppendSize(out, "Anonymous:", smaps.anonymous);
  AppendSize(out, "LazyFree:", smaps.lazy_free);
  AppendSize(out, "AnonHugePages:", smaps.anon_huge_pages);
  AppendSize(out, "ShmemPmdMapped:", smaps.shmem_pmd_mapped);
  AppendSize(out, "FilePmdMapped:", smaps.file_pmd_mapped);
  AppendSize(out, "Shared_Hugetlb:", smaps.shared_hugetlb);
  AppendSize(out, "Private_Hugetlb:", smaps.private_hugetlb);
  AppendSize(out, "Swap:", smaps.swap);
  AppendSize(out, "SwapPss:", smaps.swap_pss);
  AppendSize(out, "Locked:", smaps.locked);
}

// %*pb of a mask whose first `bits` are set: words of 32 bits, the highest first.
void AppendBitmap(std::string& out, int bits) {
  constexpr int kWord = 32;
  for (int word = (bits - 1) / kWord; word >= 0; --word) {
    const int inside = std::min(kWord, bits - word * kWord);
    AppendHex(out, (uint64_t{1} << inside) - 1, static_cast<size_t>(word == (bits - 1) / kWord ? (inside + 3) / 4 : 8));
    if (word > 0) out.push_back(',');
  }
}

const char* StateName(char state) { return state == 'R' ? "R (running)" : (state == 'D' ? "D (disk sleep)" : "S (sleeping)"); }

void AppendStatusSize(std::string& out, absl::string_view label, Bytes bytes) {
  AppendText(out, label);
  out += ":\t";
  AppendDecimal(out, static_cast<int64_t>(bytes.raw() >> 10), 8);
  out += " kB\n";
}

void AppendMask(std::string& out, absl::string_view label, uint64_t mask) {
  AppendText(out, label);
  out += ":\t";
  AppendHex(out, mask, 16);
  out.push_back('\n');
}

// max_fds of the table that holds the descriptors that are open now: one word of bits at first, then what fits whole KiB of pointers
// (alloc_fdtable()).
uint64_t DescriptorSlots(const Machine& machine, const Process& process) {
  const auto word_bytes = static_cast<uint64_t>(machine.layout().word_bytes);
  const uint64_t highest = process.files->empty() ? 0 : static_cast<uint64_t>(process.files->rbegin()->first);
  if (highest < word_bytes * 8) return word_bytes * 8;
  const uint64_t of_a_kib = 1024 / word_bytes;
  return std::bit_ceil(highest / of_a_kib + 1) * of_a_kib;
}

// proc_pid_status() from task_state() on: who it is. A user's group is numbered like the user; nobody makes process groups or sessions.
void AppendTaskState(std::string& out, const Machine& machine, const Process& process) {
  absl::StrAppend(&out, "State:\t", StateName(TaskState(machine, process)), "\nTgid:\t", process.thread_group.raw(), "\nNgid:\t0\nPid:\t",
                  process.pid.raw(), "\nPPid:\t", process.parent.raw(), "\nTracerPid:\t0\n");
  for (const char* label : {"Uid", "Gid"}) {
    absl::StrAppend(&out, label, ":\t", process.uid, "\t", process.uid, "\t", process.uid, "\t", process.uid, "\n");
  }
  absl::StrAppend(&out, "FDSize:\t", DescriptorSlots(machine, process), "\nGroups:\t \nNStgid:\t", process.thread_group.raw(), "\nNSpid:\t",
                  process.pid.raw(), "\nNSpgid:\t0\nNSsid:\t0\n");
}

// What follows Threads: no signal waits or is handled, nobody gave privileges up, and the processor is like the recorded ones.
void AppendTaskRights(std::string& out, const Machine& machine, const Process& process) {
  constexpr uint64_t kAllCapabilities = 0x1ffffffffff;
  absl::StrAppend(&out, "SigQ:\t0/", process.rlimit(RlimitKind::kSigpending).current, "\n");
  for (const char* label : {"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapInh"}) AppendMask(out, label, 0);
  for (const char* label : {"CapPrm", "CapEff"}) AppendMask(out, label, process.capable() ? kAllCapabilities : 0);
  AppendMask(out, "CapBnd", kAllCapabilities);
  AppendMask(out, "CapAmb", 0);
  const bool x86 = machine.layout().is_x86();
  absl::StrAppend(&out, "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\nSpeculation_Store_Bypass:\t",
                  x86 ? "not vulnerable" : "thread vulnerable", "\nSpeculationIndirectBranch:\t", x86 ? "always enabled" : "unknown", "\n");
  const int cpus = machine.spec().cpus;
  out += "Cpus_allowed:\t";
  AppendBitmap(out, cpus);
  absl::StrAppend(&out, "\nCpus_allowed_list:\t0", cpus > 1 ? absl::StrCat("-", cpus - 1) : "", "\nMems_allowed:\t", x86 ? "1" : "0001",
                  "\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t", process.switches, "\nnonvoluntary_ctxt_switches:\t0\n");
}

struct LimitLine {
  const char* name;
  const char* unit;
};
// lnames[] of fs/proc/base.c, by number.
constexpr LimitLine kLimitLines[] = {
    {"Max cpu time", "seconds"},     {"Max file size", "bytes"},     {"Max data size", "bytes"},     {"Max stack size", "bytes"},
    {"Max core file size", "bytes"}, {"Max resident set", "bytes"},  {"Max processes", "processes"}, {"Max open files", "files"},
    {"Max locked memory", "bytes"},  {"Max address space", "bytes"}, {"Max file locks", "locks"},    {"Max pending signals", "signals"},
    {"Max msgqueue size", "bytes"},  {"Max nice priority", ""},      {"Max realtime priority", ""},  {"Max realtime timeout", "us"},
};

void AppendLimit(std::string& out, const LimitLine& line, const Rlimit& limit) {
  const auto text = [](uint64_t value) { return value == kRlimInfinity ? std::string("unlimited") : absl::StrCat(value); };
  AppendLeft(out, line.name, 26);
  AppendLeft(out, text(limit.current), 21);
  AppendLeft(out, text(limit.maximum), 21);
  if (line.unit[0] != '\0') AppendLeft(out, line.unit, 10);
  out.push_back('\n');
}

}  // namespace

std::string MapsText(const Machine& machine, const Process& process) {
  std::string out;
  if (process.mm == nullptr) return out;
  const size_t width = HeaderWidth(machine);
  for (const VmAreaView& vma : machine.processes().VmAreas(process)) AppendMapsLine(out, vma, width);
  return out;
}

std::string SmapsText(const Machine& machine, const Process& process) {
  std::string out;
  if (process.mm == nullptr) return out;
  const size_t width = HeaderWidth(machine);
  const std::vector<VmAreaView> vmas = machine.processes().VmAreas(process);
  const std::vector<Smaps> smaps = machine.processes().AllSmaps(process);
  for (size_t i = 0; i < vmas.size() && i < smaps.size(); ++i) {
    AppendMapsLine(out, vmas[i], width);
    AppendSize(out, "Size:", vmas[i].end - vmas[i].start);
    AppendSize(out, "KernelPageSize:", vmas[i].page_size);
    AppendSize(out, "MMUPageSize:", vmas[i].page_size);
    AppendSmapsSums(out, smaps[i], nullptr);
    const VmArea* vma = process.mm->vmas.Find(vmas[i].start);
    out += vma != nullptr && machine.processes().ThpEligible(*vma) ? "THPeligible:    1\n" : "THPeligible:    0\n";
    out += "VmFlags: ";
    out += vmas[i].vm_flags;
    out += " \n";
  }
  return out;
}

std::string SmapsRollupText(const Machine& machine, const Process& process) {
  std::string out;
  if (process.mm == nullptr) return out;
  const std::vector<VmAreaView> vmas = machine.processes().VmAreas(process);
  if (vmas.empty()) return out;
  VmAreaView all;
  all.start = vmas.front().start;
  all.end = vmas.back().end;
  all.permissions = "---p";
  all.backing = "[rollup]";
  AppendMapsLine(out, all, HeaderWidth(machine));
  const SmapsRollup rollup = machine.processes().Rollup(process);
  AppendSmapsSums(out, rollup.sums, &rollup);
  return out;
}

std::string StatusText(const Machine& machine, const Process& process) {
  std::string out = absl::StrCat("Name:\t", process.comm, "\nUmask:\t0022\n");
  AppendTaskState(out, machine, process);
  if (process.mm != nullptr) {
    const MemoryStatus status = machine.processes().Status(process);
    AppendStatusSize(out, "VmPeak", status.vm_peak);
    AppendStatusSize(out, "VmSize", status.vm_size);
    AppendStatusSize(out, "VmLck", status.vm_lck);
    AppendStatusSize(out, "VmPin", status.vm_pin);
    AppendStatusSize(out, "VmHWM", status.vm_hwm);
    AppendStatusSize(out, "VmRSS", status.vm_rss);
    AppendStatusSize(out, "RssAnon", status.rss_anon);
    AppendStatusSize(out, "RssFile", status.rss_file);
    AppendStatusSize(out, "RssShmem", status.rss_shmem);
    AppendStatusSize(out, "VmData", status.vm_data);
    AppendStatusSize(out, "VmStk", status.vm_stk);
    AppendStatusSize(out, "VmExe", status.vm_exe);
    AppendStatusSize(out, "VmLib", status.vm_lib);
    AppendStatusSize(out, "VmPTE", status.vm_pte);
    AppendStatusSize(out, "VmSwap", status.vm_swap);
    AppendStatusSize(out, "HugetlbPages", status.hugetlb);
    absl::StrAppend(&out, "CoreDumping:\t0\nTHP_enabled:\t", process.mm->thp_disabled ? 0 : 1, "\n");
  }
  absl::StrAppend(&out, "Threads:\t", machine.processes().ThreadCount(process), "\n");
  AppendTaskRights(out, machine, process);
  return out;
}

std::string StatmText(const Machine& machine, const Process& process) {
  if (process.mm == nullptr) return "0 0 0 0 0 0 0\n";
  const AddressSpace& mm = *process.mm;
  const PageSize page_size = machine.layout().page_size;
  const MemoryStatus status = machine.processes().Status(process);
  const auto pages = [&](Bytes bytes) { return page_size.WholePagesIn(bytes).raw(); };
  const uint64_t text_end = (mm.end_code.raw() + page_size.mask()) & ~page_size.mask();
  const uint64_t text = pages(Bytes(text_end - page_size.RoundDown(mm.start_code).raw()));
  const uint64_t data = (mm.data_vm + mm.stack_vm).raw();
  return absl::StrCat(mm.total_vm.raw(), " ", pages(status.vm_rss), " ", pages(status.rss_file + status.rss_shmem), " ", text, " 0 ", data,
                      " 0\n");
}

std::string OomScoreText(const Machine& machine, const Process& process) {
  return absl::StrCat(machine.processes().OomScore(process), "\n");
}

std::string OomScoreAdjText(const Process& process) { return absl::StrCat(process.oom_score_adj, "\n"); }

std::string CommText(const Process& process) { return absl::StrCat(process.comm, "\n"); }

std::string LimitsText(const Process& process) {
  std::string out = "Limit                     Soft Limit           Hard Limit           Units     \n";
  for (size_t i = 0; i < std::size(kLimitLines); ++i) AppendLimit(out, kLimitLines[i], (*process.rlimits)[i]);
  return out;
}

std::string KsmMergingPagesText(const Machine& machine, const Process& process) {
  if (process.mm == nullptr) return "";
  return absl::StrCat(machine.processes().ksm().MergingPages(*process.mm), "\n");
}

std::string KsmStatText(const Machine& machine, const Process& process) {
  if (process.mm == nullptr) return "";
  return absl::StrCat("ksm_rmap_items ", machine.processes().ksm().RmapItems(*process.mm), "\n");
}

}  // namespace mmlab

// The files of a cgroup's directory. Linux: mm/memcontrol.c (memory_files, swap_files), kernel/cgroup/cgroup.c (cgroup_base_files).
#include <algorithm>
#include <array>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/cgroup/cgroup_pressure.h"
#include "server/cgroup/cgroups.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr int kReclaimRetries = 16;  // MAX_RECLAIM_RETRIES

enum Where : uint8_t { kEverywhere, kBelowRoot, kWithMemory, kRootWithMemory, kNumaRootWithMemory };
enum Mode : uint8_t { kReadOnly, kReadWrite, kWriteOnly };
struct File {
  absl::string_view name;
  Where where;
  Mode mode;
};
// Sorted. Those that list processes are not here.
constexpr File kFiles[] = {
    {"cgroup.controllers", kEverywhere, kReadOnly},
    {"cgroup.stat", kEverywhere, kReadOnly},
    {"cgroup.subtree_control", kEverywhere, kReadWrite},
    {"cgroup.type", kBelowRoot, kReadOnly},
    {"cpu.pressure", kEverywhere, kReadOnly},
    {"io.pressure", kEverywhere, kReadOnly},
    {"memory.current", kWithMemory, kReadOnly},
    {"memory.events", kWithMemory, kReadOnly},
    {"memory.events.local", kWithMemory, kReadOnly},
    {"memory.high", kWithMemory, kReadWrite},
    {"memory.low", kWithMemory, kReadWrite},
    {"memory.max", kWithMemory, kReadWrite},
    {"memory.min", kWithMemory, kReadWrite},
    {"memory.numa_stat", kNumaRootWithMemory, kReadOnly},
    {"memory.oom.group", kWithMemory, kReadWrite},
    {"memory.peak", kWithMemory, kReadOnly},
    {"memory.pressure", kEverywhere, kReadOnly},
    {"memory.reclaim", kRootWithMemory, kWriteOnly},
    {"memory.stat", kRootWithMemory, kReadOnly},
    {"memory.swap.current", kWithMemory, kReadOnly},
    {"memory.swap.events", kWithMemory, kReadOnly},
    {"memory.swap.high", kWithMemory, kReadWrite},
    {"memory.swap.max", kWithMemory, kReadWrite},
    {"memory.zswap.current", kWithMemory, kReadOnly},
    {"memory.zswap.max", kWithMemory, kReadWrite},
};

// What the kernel has beside "memory" (cgroup.controllers of Debian's kernels) and a machine does not simulate.
constexpr absl::string_view kOtherControllers[] = {"cpuset", "cpu", "io", "hugetlb", "pids", "rdma", "misc"};

// `numa`: the kernel counts by node (CONFIG_NUMA).
const File* FileOf(const Cgroup& cgroup, absl::string_view name, bool numa) {
  const File* file = std::find_if(std::begin(kFiles), std::end(kFiles), [name](const File& one) { return one.name == name; });
  if (file == std::end(kFiles)) return nullptr;
  const bool root = cgroup.id == 0;
  switch (file->where) {
    case kEverywhere:
      return file;
    case kBelowRoot:
      return root ? nullptr : file;
    case kWithMemory:
      return cgroup.memory ? file : nullptr;
    case kNumaRootWithMemory:
      if (!numa) return nullptr;
      [[fallthrough]];
    case kRootWithMemory:
      return root || cgroup.memory ? file : nullptr;
  }
  return nullptr;
}

// memory.stat up to the lists, in its order.
struct StatLine {
  absl::string_view name;
  std::optional<NodeStat> item;  // Nothing: what no process of a machine causes, and not counted by node.
};
constexpr StatLine kAmounts[] = {
    {"pagetables", NodeStat::kNrPageTablePages},
    {"sec_pagetables", NodeStat::kNrSecPageTablePages},
    {"percpu", std::nullopt},
    {"sock", std::nullopt},     // There are no sockets.
    {"vmalloc", std::nullopt},  // Kernel stacks are charged page by page; nothing else takes areas for a process.
    {"shmem", NodeStat::kNrShmem},
    {"zswap", std::nullopt},  // zswap is off, as it is after boot.
    {"zswapped", std::nullopt},
    {"file_mapped", NodeStat::kNrMapped},
    {"file_dirty", NodeStat::kNrDirty},
    {"file_writeback", NodeStat::kNrWriteback},
    {"swapcached", NodeStat::kNrSwapcached},
    {"anon_thp", NodeStat::kNrAnonTransparentHugepages},
    {"file_thp", NodeStat::kNrFileHugepages},
    {"shmem_thp", NodeStat::kNrShmemHugepages},
    {"inactive_anon", NodeStat::kNrInactiveAnon},
    {"active_anon", NodeStat::kNrActiveAnon},
    {"inactive_file", NodeStat::kNrInactiveFile},
    {"active_file", NodeStat::kNrActiveFile},
    {"unevictable", NodeStat::kNrUnevictable},
};
constexpr NodeStat kWorkingset[] = {NodeStat::kWorkingsetRefaultAnon,  NodeStat::kWorkingsetRefaultFile, NodeStat::kWorkingsetActivateAnon,
                                    NodeStat::kWorkingsetActivateFile, NodeStat::kWorkingsetRestoreAnon, NodeStat::kWorkingsetRestoreFile,
                                    NodeStat::kWorkingsetNodereclaim};
constexpr VmEvent kEvents[] = {VmEvent::kPgscanKswapd, VmEvent::kPgscanDirect,  VmEvent::kPgstealKswapd,   VmEvent::kPgstealDirect,
                               VmEvent::kPgfault,      VmEvent::kPgmajfault,    VmEvent::kPgrefill,        VmEvent::kPgactivate,
                               VmEvent::kPgdeactivate, VmEvent::kPglazyfree,    VmEvent::kPglazyfreed,     VmEvent::kZswpin,
                               VmEvent::kZswpout,      VmEvent::kThpFaultAlloc, VmEvent::kThpCollapseAlloc};

}  // namespace

std::vector<absl::string_view> Cgroups::FileNames(uint32_t id) const {
  std::vector<absl::string_view> names;
  for (const File& file : kFiles) {
    if (FileOf(*cgroups_[id], file.name, counts_by_node()) != nullptr) names.push_back(file.name);
  }
  return names;
}

// --- Reading. ---

std::string Cgroups::StatText(uint16_t memcg) const { return StatText(memcg, /*numa=*/false); }

// memory.stat, or what of it the kernel counts by node, of which there is one.
std::string Cgroups::StatText(uint16_t memcg, bool numa) const {
  const int shift = memory_.page_size().shift();
  std::string out;
  const absl::string_view between = numa ? " N0=" : " ";
  const auto line = [&](absl::string_view name, uint64_t value) { absl::StrAppend(&out, name, between, value, "\n"); };
  const auto bytes = [&](NodeStat item) { return static_cast<uint64_t>(Sum(memcg, item)) << shift; };
  line("anon", bytes(NodeStat::kNrAnonPages));
  line("file", bytes(NodeStat::kNrFilePages));
  uint64_t kernel = 0;
  std::array<int64_t, 2> slab{};
  for (const uint16_t number : Subtree(memcg)) {
    if (number == 0) continue;
    kernel += memcgs_[number]->kernel_pages;
    for (size_t i = 0; i < slab.size(); ++i) slab[i] += memcgs_[number]->slab_bytes[i];
  }
  // CPUs tell late, so that what was freed may have been counted before what was made.
  uint64_t unreclaimable = static_cast<uint64_t>(std::max<int64_t>(0, slab[0]));
  uint64_t reclaimable = static_cast<uint64_t>(std::max<int64_t>(0, slab[1]));
  if (memcg == 0) {
    unreclaimable = bytes(NodeStat::kNrSlabUnreclaimable);
    reclaimable = bytes(NodeStat::kNrSlabReclaimable);
  }
  if (!numa) line("kernel", kernel << shift);
  line("kernel_stack", static_cast<uint64_t>(Sum(memcg, NodeStat::kNrKernelStack)) << 10);
  for (const StatLine& amount : kAmounts) {
    if (amount.item || !numa) line(amount.name, amount.item ? bytes(*amount.item) : 0);
  }
  line("slab_reclaimable", reclaimable);
  line("slab_unreclaimable", unreclaimable);
  if (!numa) line("slab", reclaimable + unreclaimable);
  for (const NodeStat item : kWorkingset) line(StatName(item), static_cast<uint64_t>(Sum(memcg, item)));
  if (numa) return out;
  line("pgscan", Sum(memcg, VmEvent::kPgscanKswapd) + Sum(memcg, VmEvent::kPgscanDirect));
  line("pgsteal", Sum(memcg, VmEvent::kPgstealKswapd) + Sum(memcg, VmEvent::kPgstealDirect));
  for (const VmEvent item : kEvents) line(StatName(item), Sum(memcg, item));
  return out;
}

bool Cgroups::counts_by_node() const { return memory_.zone_set() == ZoneSet::kArm64; }

std::string Cgroups::EventsText(const std::array<uint64_t, kMemcgEvents>& events) const {
  std::string out;
  size_t i = 0;
  for (const char* name : {"low", "high", "max", "oom", "oom_kill", "oom_group_kill"}) absl::StrAppend(&out, name, " ", events[i++], "\n");
  return out;
}

std::string Cgroups::LimitText(uint64_t pages) const {
  return pages == no_limit_ ? "max\n" : absl::StrCat(pages << memory_.page_size().shift(), "\n");
}

std::optional<std::string> Cgroups::ReadMemory(uint16_t number, absl::string_view file) const {
  if (file == "stat") return StatText(number);
  if (file == "numa_stat") return StatText(number, /*numa=*/true);
  if (number == 0) return std::nullopt;
  const Memcg& memcg = *memcgs_[number];
  const auto bytes = [&](uint64_t pages) { return absl::StrCat(pages << memory_.page_size().shift(), "\n"); };
  if (file == "current") return bytes(memcg.memory.usage);
  if (file == "peak") return bytes(memcg.memory.watermark);
  if (file == "min") return LimitText(memcg.memory.min);
  if (file == "low") return LimitText(memcg.memory.low);
  if (file == "high") return LimitText(memcg.memory.high);
  if (file == "max") return LimitText(memcg.memory.max);
  if (file == "oom.group") return absl::StrCat(memcg.oom_group ? 1 : 0, "\n");
  if (file == "events") return EventsText(memcg.events);
  if (file == "events.local") return EventsText(memcg.local_events);
  if (file == "swap.current") return bytes(memcg.swap.usage);
  if (file == "swap.high") return LimitText(memcg.swap.high);
  if (file == "swap.max") return LimitText(memcg.swap.max);
  if (file == "zswap.current") return bytes(0);
  if (file == "zswap.max") return LimitText(memcg.zswap_max);
  if (file != "swap.events") return std::nullopt;
  const auto count = [&](MemcgEvent event) { return memcg.events[static_cast<size_t>(event)]; };
  return absl::StrCat("high ", count(MemcgEvent::kSwapHigh), "\nmax ", count(MemcgEvent::kSwapMax), "\nfail ", count(MemcgEvent::kSwapFail),
                      "\n");
}

std::optional<std::string> Cgroups::Read(uint32_t id, absl::string_view name) const {
  const Cgroup& cgroup = *cgroups_[id];
  const File* file = FileOf(cgroup, name, counts_by_node());
  if (file == nullptr || file->mode == kWriteOnly) return std::nullopt;
  if (name == "memory.pressure") return cgroup.psi.Text(StallKind::kMemory);
  if (name == "io.pressure") return cgroup.psi.Text(StallKind::kIo);
  if (name == "cpu.pressure") return PsiGroup::CpuText();
  if (absl::ConsumePrefix(&name, "memory.")) return ReadMemory(cgroup.memcg, name);
  if (name == "cgroup.controllers") return id == 0 || cgroup.memory ? "memory\n" : "\n";
  if (name == "cgroup.subtree_control") return cgroup.memory_below ? "memory\n" : "\n";
  if (name == "cgroup.type") return "domain\n";
  MMLAB_CHECK(name == "cgroup.stat");
  uint64_t below = 0;
  std::vector<uint32_t> open = {id};
  while (!open.empty()) {
    const Cgroup& at = *cgroups_[open.back()];
    open.pop_back();
    below += at.children.size();
    for (const auto& [child, child_id] : at.children) open.push_back(child_id);
  }
  uint64_t dying = 0;
  if (id == 0 || cgroup.memory) {
    // Memory of the kernel itself does not keep a cgroup: it is given to the one above.
    const auto is_dying = [](const Memcg& memcg) { return !memcg.online && (memcg.frames > memcg.kernel_frames || memcg.swapped > 0); };
    for (const uint16_t number : Subtree(cgroup.memcg)) dying += number != 0 && is_dying(*memcgs_[number]) ? 1 : 0;
  }
  return absl::StrCat("nr_descendants ", below, "\nnr_dying_descendants ", dying, "\n");
}

// --- Writing. ---

// page_counter_memparse(): bytes, with a suffix of memparse(), or "max" where that is allowed.
std::optional<uint64_t> Cgroups::ParsePages(absl::string_view text, bool allow_max) const {
  if (allow_max && text == "max") return no_limit_;
  uint64_t bytes = 0;
  int base = 10;
  if (absl::StartsWith(text, "0x") || absl::StartsWith(text, "0X")) {
    base = 16;
    text.remove_prefix(2);
  } else if (text.size() > 1 && text[0] == '0') {
    base = 8;
  }
  size_t digits = 0;
  for (; digits < text.size() && absl::ascii_isxdigit(static_cast<unsigned char>(text[digits])); ++digits) {
    const char c = absl::ascii_tolower(static_cast<unsigned char>(text[digits]));
    const int digit = c <= '9' ? c - '0' : c - 'a' + 10;
    if (digit >= base) break;
    bytes = bytes * static_cast<uint64_t>(base) + static_cast<uint64_t>(digit);
  }
  text.remove_prefix(digits);
  constexpr absl::string_view kSuffixes = "KMGTPE";
  if (!text.empty()) {
    const size_t power = kSuffixes.find(absl::ascii_toupper(static_cast<unsigned char>(text[0])));
    if (power == absl::string_view::npos) return std::nullopt;
    bytes <<= 10 * (power + 1);
    text.remove_prefix(1);
  }
  if (!text.empty()) return std::nullopt;
  return std::min(bytes >> memory_.page_size().shift(), no_limit_);
}

void Cgroups::ShrinkToHigh(uint16_t number) {
  int retries = kReclaimRetries;
  bool drained = false;
  while (of(number).memory.usage > of(number).memory.high) {
    if (!drained) {
      DrainAllStock(number);
      drained = true;
      continue;
    }
    if (ReclaimFrom(number, of(number).memory.usage - of(number).memory.high) == 0 && retries-- == 0) return;
  }
}

void Cgroups::ShrinkToMax(uint16_t number) {
  int retries = kReclaimRetries;
  bool drained = false;
  while (of(number).memory.usage > of(number).memory.max) {
    if (!drained) {
      DrainAllStock(number);
      drained = true;
      continue;
    }
    if (retries > 0) {
      if (ReclaimFrom(number, of(number).memory.usage - of(number).memory.max) == 0) --retries;
      continue;
    }
    CountMemcgEvent(number, MemcgEvent::kOom);
    if (pressure_ == nullptr || !pressure_->CgroupOutOfMemory(number, kGfpKernel, 0)) return;
  }
}

Errno Cgroups::WriteReclaim(uint16_t number, uint64_t pages) {
  int retries = kReclaimRetries;
  uint64_t freed = 0;
  while (freed < pages) {
    if (retries == 0 && pressure_ != nullptr) pressure_->DrainLru();
    const uint64_t now = ReclaimFrom(number, pages - freed);
    if (now == 0 && retries-- == 0) return Errno::kEAGAIN;
    freed += now;
  }
  return Errno::kOk;
}

Errno Cgroups::WriteMemory(uint16_t number, absl::string_view file, absl::string_view text) {
  if (file == "reclaim") {
    // Of nothing said, everything.
    const std::optional<uint64_t> pages = text.empty() ? no_limit_ : ParsePages(text, /*allow_max=*/false);
    return pages ? WriteReclaim(number, *pages) : Errno::kEINVAL;
  }
  Memcg& memcg = of(number);
  if (file == "oom.group") {
    int32_t value = 0;
    if (!absl::SimpleAtoi(text, &value) || (value != 0 && value != 1)) return Errno::kEINVAL;
    memcg.oom_group = value == 1;
    return Errno::kOk;
  }
  const std::optional<uint64_t> pages = ParsePages(text, true);
  if (!pages) return Errno::kEINVAL;
  if (file == "min") memcg.memory.min = *pages;
  if (file == "low") memcg.memory.low = *pages;
  if (file == "swap.high") memcg.swap.high = *pages;
  if (file == "swap.max") memcg.swap.max = *pages;
  if (file == "zswap.max") memcg.zswap_max = *pages;
  if (file == "high") {
    memcg.memory.high = *pages;
    ShrinkToHigh(number);
  }
  if (file == "max") {
    memcg.memory.max = *pages;
    ShrinkToMax(number);
  }
  return Errno::kOk;
}

// cgroup_subtree_control_write(): "+memory -memory ...".
CgroupWrite Cgroups::SetSubtreeControl(Cgroup& cgroup, absl::string_view text, bool populated) {
  bool enable = false;
  bool disable = false;
  for (const absl::string_view word : absl::StrSplit(text, absl::ByAnyChar(" \n\t"), absl::SkipEmpty())) {
    const absl::string_view name = word.substr(1);
    if (word[0] != '+' && word[0] != '-') return {Errno::kEINVAL, {}};
    if (std::find(std::begin(kOtherControllers), std::end(kOtherControllers), name) != std::end(kOtherControllers)) {
      return {Errno::kENOSYS, absl::StrCat("cgroup controller \"", name, "\": of the controllers only \"memory\" is simulated")};
    }
    if (name != "memory") return {Errno::kEINVAL, {}};
    enable = word[0] == '+';
    disable = word[0] == '-';
  }
  if (enable && !cgroup.memory_below) {
    if (cgroup.id != 0 && !cgroup.memory) return {Errno::kENOENT, {}};
    // A cgroup whose children have controllers has no processes of its own.
    if (cgroup.id != 0 && populated) return {Errno::kEBUSY, {}};
    cgroup.memory_below = true;
    for (const auto& [name, child] : cgroup.children) Online(*cgroups_[child]);
  }
  if (disable && cgroup.memory_below) {
    for (const auto& [name, child] : cgroup.children) {
      if (cgroups_[child]->memory_below) return {Errno::kEBUSY, {}};
    }
    cgroup.memory_below = false;
    for (const auto& [name, child] : cgroup.children) Offline(*cgroups_[child]);
  }
  return {};
}

CgroupWrite Cgroups::Write(uint32_t id, absl::string_view name, absl::string_view text, bool populated) {
  Cgroup& cgroup = *cgroups_[id];
  const File* file = FileOf(cgroup, name, counts_by_node());
  if (file == nullptr) return {Errno::kENOENT, {}};
  if (name == "memory.pressure" || name == "io.pressure" || name == "cpu.pressure") {
    return {Errno::kENOSYS, absl::StrCat(name, ": triggers are not simulated, only reading")};
  }
  if (file->mode == kReadOnly) return {Errno::kEACCES, {}};
  text = absl::StripAsciiWhitespace(text);
  if (absl::ConsumePrefix(&name, "memory.")) return {WriteMemory(cgroup.memcg, name, text), {}};
  return SetSubtreeControl(cgroup, text, populated);
}

}  // namespace mmlab

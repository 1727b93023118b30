// The attributes below /sys/kernel/mm. Linux: mm/huge_memory.c, mm/khugepaged.c, mm/ksm.c (hugepage_attr, khugepaged_attr, ksm_attrs),
// mm/vmscan.c (lru_gen_attrs), mm/swap_state.c (swap_attrs).
#include <algorithm>
#include <iterator>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "server/files/files.h"
#include "server/machine/answer.h"
#include "server/machine/hugepages_sysfs.h"
#include "server/machine/machine.h"
#include "server/machine/sysctls.h"
#include "server/physical/page_allocator.h"
#include "server/process/huge_settings.h"
#include "server/process/ksm.h"
#include "server/process/processes.h"
#include "server/reclaim/reclaim.h"

namespace mmlab {
namespace {

constexpr absl::string_view kFolder = "/sys/kernel/mm/";

// What attributes are about.
struct Subject {
  const Layout& layout;
  BuddyMemory& memory;
  Processes& processes;
  Reclaim& reclaim;
  Files& files;
  bool hardware_access_flag;

  Ksm& ksm() const { return processes.ksm(); }
  HugePageSettings& huge() const { return processes.huge_settings(); }
  uint32_t huge_pages() const { return layout.kind == LayoutKind::kX86_32 ? 1024 : 512; }
};

struct Attribute {
  absl::string_view path;
  std::string (*text)(const Subject&);
  Errno (*write)(const Subject&, absl::string_view);  // Null: can only be read.
};

// kstrtouint(), kstrtoul(): decimal, perhaps with '+'.
bool ParseUnsigned(absl::string_view text, uint32_t* value) {
  absl::ConsumePrefix(&text, "+");
  if (text.empty() || text[0] < '0' || text[0] > '9') return false;
  return absl::SimpleAtoi(text, value);
}

template <typename Choice, size_t kCount>
std::string ChoiceText(const absl::string_view (&words)[kCount], Choice chosen) {
  std::string text;
  for (size_t i = 0; i < kCount; ++i) {
    const bool on = static_cast<size_t>(chosen) == i;
    absl::StrAppend(&text, text.empty() ? "" : " ", on ? "[" : "", words[i], on ? "]" : "");
  }
  return text;
}

template <typename Choice, size_t kCount>
Errno WriteChoice(const absl::string_view (&words)[kCount], absl::string_view value, Choice* chosen) {
  for (size_t i = 0; i < kCount; ++i) {
    if (words[i] != value) continue;
    *chosen = static_cast<Choice>(i);
    return Errno::kOk;
  }
  return Errno::kEINVAL;
}

Errno WriteFlag(absl::string_view value, bool* flag) {
  uint32_t number = 0;
  if (!ParseUnsigned(value, &number) || number > 1) return Errno::kEINVAL;
  *flag = number != 0;
  return Errno::kOk;
}

Errno WriteNumber(absl::string_view value, uint32_t minimum, uint32_t maximum, uint32_t* target) {
  uint32_t number = 0;
  if (!ParseUnsigned(value, &number) || number < minimum || number > maximum) return Errno::kEINVAL;
  *target = number;
  return Errno::kOk;
}

// In the order in which the files show them; the first words of `enabled` are the strongest.
constexpr absl::string_view kEnabled[] = {"always", "madvise", "never"};
constexpr ThpEnabled kEnabledValues[] = {ThpEnabled::kAlways, ThpEnabled::kMadvise, ThpEnabled::kNever};
constexpr absl::string_view kDefrag[] = {"always", "defer", "defer+madvise", "madvise", "never"};

std::string EnabledText(const Subject& s) { return ChoiceText(kEnabled, 2 - static_cast<int>(s.huge().enabled)); }

Errno WriteEnabled(const Subject& s, absl::string_view value) {
  size_t chosen = 0;
  if (const Errno error = WriteChoice(kEnabled, value, &chosen); error != Errno::kOk) return error;
  s.huge().enabled = kEnabledValues[chosen];
  s.memory.SetTransparentHugepage(s.huge().enabled != ThpEnabled::kNever);
  s.processes.WakeKhugepaged();
  return Errno::kOk;
}

Errno WriteDefrag(const Subject& s, absl::string_view value) {
  size_t chosen = 0;
  if (const Errno error = WriteChoice(kDefrag, value, &chosen); error != Errno::kOk) return error;
  s.huge().defrag = static_cast<ThpDefrag>(chosen);
  return Errno::kOk;
}

constexpr absl::string_view kShmem[] = {"always", "within_size", "advise", "never", "deny", "force"};
constexpr ShmemEnabled kShmemValues[] = {ShmemEnabled::kAlways, ShmemEnabled::kWithinSize, ShmemEnabled::kAdvise,
                                         ShmemEnabled::kNever,  ShmemEnabled::kDeny,       ShmemEnabled::kForce};

std::string ShmemText(const Subject& s) {
  const auto* chosen = std::find(std::begin(kShmemValues), std::end(kShmemValues), s.files.shmem_enabled());
  return ChoiceText(kShmem, chosen - std::begin(kShmemValues));
}

Errno WriteShmem(const Subject& s, absl::string_view value) {
  size_t chosen = 0;
  const Errno error = WriteChoice(kShmem, value, &chosen);
  if (error == Errno::kOk) s.files.SetShmemEnabled(kShmemValues[chosen]);
  return error;
}

template <uint32_t KhugepagedSettings::*kField>
std::string KhugepagedText(const Subject& s) {
  return absl::StrCat(s.huge().khugepaged.*kField);
}

template <uint32_t KhugepagedSettings::*kField>
Errno WriteMilliseconds(const Subject& s, absl::string_view value) {
  const Errno error = WriteNumber(value, 0, std::numeric_limits<uint32_t>::max(), &(s.huge().khugepaged.*kField));
  if (error == Errno::kOk) s.processes.WakeKhugepaged();
  return error;
}

template <uint32_t KhugepagedSettings::*kField>
Errno WriteLimit(const Subject& s, absl::string_view value) {
  return WriteNumber(value, 0, s.huge_pages() - 1, &(s.huge().khugepaged.*kField));
}

template <uint64_t (Ksm::*kCounter)() const>
std::string KsmCounter(const Subject& s) {
  return absl::StrCat((s.ksm().*kCounter)());
}

template <uint32_t KsmSettings::*kField>
std::string KsmText(const Subject& s) {
  return absl::StrCat(s.ksm().settings().*kField);
}

template <uint32_t KsmSettings::*kField>
Errno WriteKsmNumber(const Subject& s, absl::string_view value) {
  return WriteNumber(value, 0, std::numeric_limits<uint32_t>::max(), &(s.ksm().settings().*kField));
}

Errno WriteKsmRun(const Subject& s, absl::string_view value) {
  uint32_t run = 0;
  return ParseUnsigned(value, &run) ? s.ksm().Run(run) : Errno::kEINVAL;
}

Errno WriteMaxPageSharing(const Subject& s, absl::string_view value) {
  int32_t most = 0;
  return absl::SimpleAtoi(value, &most) ? s.ksm().SetMaxPageSharing(most) : Errno::kEINVAL;
}

// Only kernels with NUMA have it. There is one node, so that nothing follows from it; while pages are merged it can't be changed.
Errno WriteMergeAcrossNodes(const Subject& s, absl::string_view value) {
  bool across = false;
  if (const Errno error = WriteFlag(value, &across); error != Errno::kOk) return error;
  if (across == s.ksm().settings().merge_across_nodes) return Errno::kOk;
  if (s.ksm().pages_shared() != 0) return Errno::kEBUSY;
  s.ksm().settings().merge_across_nodes = across;
  return Errno::kOk;
}

// lru_gen_caps: bit 0 MGLRU, bit 1 that aging walks page tables, bit 2 that it looks at the accessed marks of tables first, of which the
// last two show only where the processor sets such marks.
std::string GenerationsText(const Subject& s) {
  const Reclaim::GenerationSettings& settings = s.reclaim.generation_settings();
  const bool upper = s.hardware_access_flag && s.layout.kind == LayoutKind::kX86_32Pae;
  return absl::StrFormat("0x%04x", (settings.enabled ? 1 : 0) | (settings.walk_tables && s.hardware_access_flag ? 2 : 0) |
                                       (settings.upper_tables && upper ? 4 : 0));
}

Errno WriteGenerations(const Subject& s, absl::string_view value) {
  uint32_t caps = 0;
  if (!value.empty() && absl::ascii_tolower(value[0]) == 'y') {
    caps = ~0u;
  } else if (value.empty() || absl::ascii_tolower(value[0]) != 'n') {
    const bool hexadecimal = absl::StartsWithIgnoreCase(value, "0x");
    if (hexadecimal ? !absl::SimpleHexAtoi(value, &caps) : !ParseUnsigned(value, &caps)) return Errno::kEINVAL;
  }
  Reclaim::GenerationSettings settings = s.reclaim.generation_settings();
  settings.enabled = (caps & 1) != 0;
  settings.walk_tables = (caps & 2) != 0;
  settings.upper_tables = (caps & 4) != 0;
  s.reclaim.SetGenerations(settings);
  return Errno::kOk;
}

Errno WriteMinTtl(const Subject& s, absl::string_view value) {
  Reclaim::GenerationSettings settings = s.reclaim.generation_settings();
  const Errno error = WriteNumber(value, 0, std::numeric_limits<uint32_t>::max(), &settings.min_ttl_ms);
  if (error == Errno::kOk) s.reclaim.SetGenerations(settings);
  return error;
}

// kstrtobool(): what the first letters say.
Errno WriteVmaReadahead(const Subject& s, absl::string_view value) {
  const std::string text = absl::AsciiStrToLower(value);
  const bool on = absl::StartsWith(text, "y") || absl::StartsWith(text, "t") || absl::StartsWith(text, "1") || absl::StartsWith(text, "on");
  const bool off =
      absl::StartsWith(text, "n") || absl::StartsWith(text, "f") || absl::StartsWith(text, "0") || absl::StartsWith(text, "of");
  if (!on && !off) return Errno::kEINVAL;
  s.files.swap().SetVmaReadahead(on);
  return Errno::kOk;
}

// Sorted.
constexpr Attribute kAttributes[] = {
    {"ksm/full_scans", KsmCounter<&Ksm::full_scans>, nullptr},
    {"ksm/max_page_sharing", [](const Subject& s) { return absl::StrCat(s.ksm().settings().max_page_sharing); }, WriteMaxPageSharing},
    {"ksm/merge_across_nodes", [](const Subject& s) { return std::string(s.ksm().settings().merge_across_nodes ? "1" : "0"); },
     WriteMergeAcrossNodes},
    {"ksm/pages_shared", KsmCounter<&Ksm::pages_shared>, nullptr},
    {"ksm/pages_sharing", KsmCounter<&Ksm::pages_sharing>, nullptr},
    {"ksm/pages_to_scan", KsmText<&KsmSettings::pages_to_scan>, WriteKsmNumber<&KsmSettings::pages_to_scan>},
    {"ksm/pages_unshared", KsmCounter<&Ksm::pages_unshared>, nullptr},
    {"ksm/pages_volatile", KsmCounter<&Ksm::pages_volatile>, nullptr},
    {"ksm/run", KsmText<&KsmSettings::run>, WriteKsmRun},
    {"ksm/sleep_millisecs", KsmText<&KsmSettings::sleep_millisecs>, WriteKsmNumber<&KsmSettings::sleep_millisecs>},
    {"ksm/stable_node_chains", KsmCounter<&Ksm::stable_node_chains>, nullptr},
    {"ksm/stable_node_chains_prune_millisecs", KsmText<&KsmSettings::stable_node_chains_prune_millisecs>,
     WriteKsmNumber<&KsmSettings::stable_node_chains_prune_millisecs>},
    {"ksm/stable_node_dups", KsmCounter<&Ksm::stable_node_dups>, nullptr},
    {"ksm/use_zero_pages", [](const Subject& s) { return std::string(s.ksm().settings().use_zero_pages ? "1" : "0"); },
     [](const Subject& s, absl::string_view value) { return WriteFlag(value, &s.ksm().settings().use_zero_pages); }},
    {"lru_gen/enabled", GenerationsText, WriteGenerations},
    {"lru_gen/min_ttl_ms", [](const Subject& s) { return absl::StrCat(s.reclaim.generation_settings().min_ttl_ms); }, WriteMinTtl},
    {"swap/vma_ra_enabled", [](const Subject& s) { return std::string(s.files.swap().vma_readahead() ? "true" : "false"); },
     WriteVmaReadahead},
    {"transparent_hugepage/defrag", [](const Subject& s) { return ChoiceText(kDefrag, s.huge().defrag); }, WriteDefrag},
    {"transparent_hugepage/enabled", EnabledText, WriteEnabled},
    {"transparent_hugepage/hpage_pmd_size",
     [](const Subject& s) { return absl::StrCat(uint64_t{s.huge_pages()} << s.layout.page_size.shift()); }, nullptr},
    {"transparent_hugepage/khugepaged/alloc_sleep_millisecs", KhugepagedText<&KhugepagedSettings::alloc_sleep_millisecs>,
     WriteMilliseconds<&KhugepagedSettings::alloc_sleep_millisecs>},
    {"transparent_hugepage/khugepaged/defrag", [](const Subject& s) { return std::string(s.huge().khugepaged.defrag ? "1" : "0"); },
     [](const Subject& s, absl::string_view value) { return WriteFlag(value, &s.huge().khugepaged.defrag); }},
    {"transparent_hugepage/khugepaged/full_scans", KhugepagedText<&KhugepagedSettings::full_scans>, nullptr},
    {"transparent_hugepage/khugepaged/max_ptes_none", KhugepagedText<&KhugepagedSettings::max_ptes_none>,
     WriteLimit<&KhugepagedSettings::max_ptes_none>},
    {"transparent_hugepage/khugepaged/max_ptes_shared", KhugepagedText<&KhugepagedSettings::max_ptes_shared>,
     WriteLimit<&KhugepagedSettings::max_ptes_shared>},
    {"transparent_hugepage/khugepaged/max_ptes_swap", KhugepagedText<&KhugepagedSettings::max_ptes_swap>,
     WriteLimit<&KhugepagedSettings::max_ptes_swap>},
    {"transparent_hugepage/khugepaged/pages_collapsed", KhugepagedText<&KhugepagedSettings::pages_collapsed>, nullptr},
    {"transparent_hugepage/khugepaged/pages_to_scan", KhugepagedText<&KhugepagedSettings::pages_to_scan>,
     [](const Subject& s, absl::string_view value) {
       return WriteNumber(value, 1, std::numeric_limits<uint32_t>::max(), &s.huge().khugepaged.pages_to_scan);
     }},
    {"transparent_hugepage/khugepaged/scan_sleep_millisecs", KhugepagedText<&KhugepagedSettings::scan_sleep_millisecs>,
     WriteMilliseconds<&KhugepagedSettings::scan_sleep_millisecs>},
    {"transparent_hugepage/shmem_enabled", ShmemText, WriteShmem},
    {"transparent_hugepage/use_zero_page", [](const Subject& s) { return std::string(s.huge().use_zero_page ? "1" : "0"); },
     [](const Subject& s, absl::string_view value) { return WriteFlag(value, &s.huge().use_zero_page); }},
};

// ARM64's kernel is the one with NUMA.
bool Exists(const Attribute& attribute, LayoutKind layout) {
  return attribute.path != "ksm/merge_across_nodes" || layout == LayoutKind::kArm64;
}

const Attribute* FindAttribute(absl::string_view path, LayoutKind layout) {
  if (!absl::ConsumePrefix(&path, kFolder)) return nullptr;
  for (const Attribute& attribute : kAttributes) {
    if (attribute.path == path && Exists(attribute, layout)) return &attribute;
  }
  return nullptr;
}

}  // namespace

std::optional<std::string> Machine::SysfsText(absl::string_view path) const {
  if (std::optional<std::string> text = HugepagesText(files_->hugetlb(), layout_->is_x86(), path); text.has_value()) return text;
  const Attribute* attribute = FindAttribute(path, layout_->kind);
  if (attribute == nullptr) return std::nullopt;
  return absl::StrCat(attribute->text(Subject{*layout_, *memory_, *processes_, *reclaim_, *files_, !spec_.no_hardware_access_flag}), "\n");
}

std::vector<std::string> Machine::SysfsPaths() const {
  std::vector<std::string> paths = HugepagesPaths(files_->hugetlb(), layout_->is_x86());
  for (const Attribute& attribute : kAttributes) {
    if (Exists(attribute, layout_->kind)) paths.push_back(absl::StrCat(kFolder, attribute.path));
  }
  return paths;
}

Outcome Machine::WriteSysfs(absl::string_view path, absl::string_view value) {
  if (absl::StartsWith(path, kHugepagesFolder) || absl::StartsWith(path, kNodeHugepagesFolder)) return WriteHugepages(path, value);
  const Attribute* attribute = FindAttribute(path, layout_->kind);
  if (attribute == nullptr) return Answer(Errno::kENOENT);
  if (attribute->write == nullptr) return Answer(Errno::kEACCES);
  absl::ConsumeSuffix(&value, "\n");
  const uint32_t min_free_kbytes = memory_->min_free_kbytes();
  const Errno error = attribute->write(Subject{*layout_, *memory_, *processes_, *reclaim_, *files_, !spec_.no_hardware_access_flag}, value);
  if (memory_->min_free_kbytes() != min_free_kbytes) sysctls_->Set(Sysctl::kVmMinFreeKbytes, memory_->min_free_kbytes());
  return Answer(error);
}

}  // namespace mmlab

#include "server/machine/sysctls.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

constexpr int64_t kIntMax = std::numeric_limits<int32_t>::max();
constexpr int64_t kIntMin = std::numeric_limits<int32_t>::min();
// Largest long of the layout, as the table cannot know it: cut to 32 bits on x86-32 when it is used.
constexpr uint64_t kLongMax = ~uint64_t{0};

enum Availability : uint8_t { kX86 = 1, kArm64 = 2, kBoth = 3 };

// How a file is read and written: the kernel's proc handlers.
enum class Kind : uint8_t {
  kInt,        // proc_dointvec, proc_dointvec_minmax
  kUlong,      // proc_doulongvec_minmax
  kRatios,     // lowmem_reserve_ratio
  kWord,       // numa_zonelist_order
  kTrigger,    // Write-only: compact_memory, drop_caches
  kRefresh,    // stat_refresh: whatever is written, the counters of the CPUs are added up
  kHugepages,  // proc_hugetlb_doulongvec_minmax: what the pool becomes is the machine's to say
};

struct Row {
  absl::string_view name;
  Kind kind;
  Availability where;
  int64_t minimum;
  uint64_t maximum;
  uint64_t initial;
  uint64_t initial_arm64;
};

constexpr Row Int(absl::string_view name, int64_t minimum, int64_t maximum, uint64_t initial, Availability where = kBoth) {
  return Row{name, Kind::kInt, where, minimum, static_cast<uint64_t>(maximum), initial, initial};
}
constexpr Row Ulong(absl::string_view name, int64_t minimum, uint64_t initial, uint64_t initial_arm64) {
  return Row{name, Kind::kUlong, kBoth, minimum, kLongMax, initial, initial_arm64};
}
constexpr Row Special(absl::string_view name, Kind kind, Availability where = kBoth) { return Row{name, kind, where, 0, kLongMax, 0, 0}; }

// In the order of enum Sysctl. Ranges: kernel/sysctl.c (vm_table, kern_table), ipc/ipc_sysctl.c, mm/hugetlb.c.
constexpr Row kRows[] = {
    Int("kernel.pid_max", 301, 4194304, 32768),
    Int("kernel.randomize_va_space", kIntMin, kIntMax, 0),
    Ulong("kernel.shmall", 0, 4278190079, 18446744073692774399u),
    Ulong("kernel.shmmax", 0, 4278190079, 18446744073692774399u),
    Int("kernel.shmmni", 0, 32768, 4096),
    Int("kernel.threads-max", 1, 0x3fffffff, 0),
    Ulong("vm.admin_reserve_kbytes", 0, 8192, 8192),
    Special("vm.compact_memory", Kind::kTrigger),
    Int("vm.compact_unevictable_allowed", 0, 1, 1),
    Int("vm.compaction_proactiveness", 0, 100, 20),
    Ulong("vm.dirty_background_bytes", 1, 0, 0),
    Int("vm.dirty_background_ratio", 0, 100, 10),
    Ulong("vm.dirty_bytes", 8192, 0, 0),
    Int("vm.dirty_expire_centisecs", 0, kIntMax, 3000),
    Int("vm.dirty_ratio", 0, 100, 20),
    Int("vm.dirty_writeback_centisecs", kIntMin, kIntMax, 500),
    Int("vm.dirtytime_expire_seconds", 0, kIntMax, 43200),
    Special("vm.drop_caches", Kind::kTrigger),
    Int("vm.extfrag_threshold", 0, 1000, 500),
    Int("vm.highmem_is_dirtyable", 0, 1, 0, kX86),
    Int("vm.hugetlb_shm_group", kIntMin, kIntMax, 0),
    Int("vm.laptop_mode", 0, kIntMax, 0),
    Int("vm.legacy_va_layout", 0, kIntMax, 0),
    Special("vm.lowmem_reserve_ratio", Kind::kRatios),
    Int("vm.max_map_count", 0, kIntMax, 65530),
    Int("vm.memory_failure_early_kill", 0, 1, 0),
    Int("vm.memory_failure_recovery", 0, 1, 1),
    Int("vm.min_free_kbytes", 0, kIntMax, 0),
    Int("vm.min_slab_ratio", 0, 100, 5, kArm64),
    Int("vm.min_unmapped_ratio", 0, 100, 1, kArm64),
    Ulong("vm.mmap_min_addr", 0, 65536, 4096),
    Int("vm.mmap_rnd_bits", 8, 33, 8),
    Int("vm.mmap_rnd_compat_bits", 11, 16, 11, kArm64),
    Special("vm.nr_hugepages", Kind::kHugepages),
    Special("vm.nr_hugepages_mempolicy", Kind::kHugepages, kArm64),
    Special("vm.nr_overcommit_hugepages", Kind::kHugepages),
    Int("vm.numa_stat", 0, 1, 1, kArm64),
    Special("vm.numa_zonelist_order", Kind::kWord, kArm64),
    Int("vm.oom_dump_tasks", kIntMin, kIntMax, 1),
    Int("vm.oom_kill_allocating_task", kIntMin, kIntMax, 0),
    Ulong("vm.overcommit_kbytes", 0, 0, 0),
    Int("vm.overcommit_memory", 0, 2, 0),
    Int("vm.overcommit_ratio", kIntMin, kIntMax, 50),
    Int("vm.page-cluster", 0, 31, 3),
    Int("vm.page_lock_unfairness", 0, kIntMax, 5),
    Int("vm.panic_on_oom", 0, 2, 0),
    Int("vm.percpu_pagelist_high_fraction", 0, kIntMax, 0),
    Int("vm.stat_interval", 0, kIntMax, 1),
    Special("vm.stat_refresh", Kind::kRefresh),
    Int("vm.swappiness", 0, 200, 60),
    Int("vm.unprivileged_userfaultfd", 0, 1, 0),
    Ulong("vm.user_reserve_kbytes", 0, 131072, 131072),
    Int("vm.vdso_enabled", 0, 1, 1, kX86),
    Int("vm.vfs_cache_pressure", 0, kIntMax, 100),
    Int("vm.watermark_boost_factor", 0, kIntMax, 15000),
    Int("vm.watermark_scale_factor", 1, 3000, 10),
    Int("vm.zone_reclaim_mode", 0, kIntMax, 0, kArm64),
};
static_assert(std::size(kRows) == static_cast<size_t>(Sysctl::kCount));

const Row& RowOf(Sysctl id) { return kRows[static_cast<size_t>(id)]; }

struct ParsedNumber {
  uint64_t magnitude = 0;
  bool negative = false;
  bool overflow = false;
};

// A number as the proc handlers take it (proc_get_long): blanks, perhaps '-', digits with C's prefixes, then a blank or the end.
std::optional<ParsedNumber> TakeNumber(absl::string_view& text) {
  text = absl::StripLeadingAsciiWhitespace(text);
  ParsedNumber number;
  if (!text.empty() && text[0] == '-') {
    number.negative = true;
    text.remove_prefix(1);
  }
  unsigned base = 10;
  if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
    base = 16;
    text.remove_prefix(2);
  } else if (text.size() > 1 && text[0] == '0') {
    base = 8;
  }
  size_t digits = 0;
  for (; digits < text.size(); ++digits) {
    const char c = absl::ascii_tolower(text[digits]);
    const unsigned digit = absl::ascii_isdigit(c)   ? static_cast<unsigned>(c - '0')
                           : (c >= 'a' && c <= 'f') ? 10u + static_cast<unsigned>(c - 'a')
                                                    : 99u;
    if (digit >= base) break;
    if (__builtin_mul_overflow(number.magnitude, base, &number.magnitude) ||
        __builtin_add_overflow(number.magnitude, digit, &number.magnitude)) {
      number.overflow = true;
    }
  }
  if (digits == 0) return std::nullopt;
  text.remove_prefix(digits);
  if (!text.empty() && !absl::ascii_isspace(text[0])) return std::nullopt;
  return number;
}

}  // namespace

absl::string_view SysctlName(Sysctl id) { return RowOf(id).name; }

Sysctls::Sysctls(const Layout& layout) : layout_(layout.kind), max_mmap_rnd_bits_(layout.table_levels == 4 ? 33 : 24) {
  const bool arm64 = layout.kind == LayoutKind::kArm64;
  for (size_t i = 0; i < values_.size(); ++i) values_[i] = arm64 ? kRows[i].initial_arm64 : kRows[i].initial;
  if (arm64) Set(Sysctl::kVmMmapRndBits, 18);
  // sysctl_lowmem_reserve_ratio: DMA, DMA32 where it exists, Normal, HighMem, Movable; the last zone keeps nothing back.
  lowmem_reserve_ratio_ = arm64 ? std::array<uint32_t, 4>{256, 256, 32, 0} : std::array<uint32_t, 4>{256, 32, 0, 0};
}

std::optional<Sysctl> Sysctls::Find(absl::string_view name) const {
  const Availability here = layout_ == LayoutKind::kArm64 ? kArm64 : kX86;
  const auto* row =
      std::lower_bound(std::begin(kRows), std::end(kRows), name, [](const Row& r, absl::string_view n) { return r.name < n; });
  if (row == std::end(kRows) || row->name != name || (row->where & here) == 0) return std::nullopt;
  return static_cast<Sysctl>(row - std::begin(kRows));
}

std::vector<absl::string_view> Sysctls::Names() const {
  const Availability here = layout_ == LayoutKind::kArm64 ? kArm64 : kX86;
  std::vector<absl::string_view> names;
  for (const Row& row : kRows) {
    if ((row.where & here) != 0) names.push_back(row.name);
  }
  return names;
}

std::optional<std::string> Sysctls::Text(Sysctl id) const {
  switch (RowOf(id).kind) {
    case Kind::kInt:
      return absl::StrCat(static_cast<int64_t>(value(id)), "\n");
    case Kind::kUlong:
    case Kind::kHugepages:
      return absl::StrCat(value(id), "\n");
    case Kind::kRatios:
      return absl::StrCat(absl::StrJoin(lowmem_reserve_ratio_, "\t"), "\n");
    case Kind::kWord:
      return "Node\n";
    case Kind::kRefresh:
      return "";
    case Kind::kTrigger:
      return std::nullopt;
  }
  return std::nullopt;
}

SysctlWrite Sysctls::WriteRatios(absl::string_view text) {
  std::array<uint32_t, 4> ratios = lowmem_reserve_ratio_;
  for (size_t i = 0; i < ratios.size() && !absl::StripAsciiWhitespace(text).empty(); ++i) {
    const std::optional<ParsedNumber> number = TakeNumber(text);
    if (!number || number->overflow || number->magnitude > static_cast<uint64_t>(kIntMax)) return SysctlWrite::Refused(Errno::kEINVAL);
    // Less than 1 means that the zone keeps nothing back.
    ratios[i] = number->negative ? 0 : static_cast<uint32_t>(number->magnitude);
  }
  lowmem_reserve_ratio_ = ratios;
  return SysctlWrite::Taken(Sysctl::kVmLowmemReserveRatio);
}

SysctlWrite Sysctls::Write(absl::string_view name, absl::string_view text) {
  const std::optional<Sysctl> id = Find(name);
  if (!id) return SysctlWrite::Refused(Errno::kENOENT);
  const Row& row = RowOf(*id);
  if (row.kind == Kind::kWord) {
    // Only the node order is left: words with d(efault) or n(ode) are taken and change nothing.
    const char first = text.empty() ? ' ' : absl::ascii_tolower(text[0]);
    if (first == 'd' || first == 'n') return SysctlWrite::Taken(*id);
    return SysctlWrite::Refused(Errno::kEINVAL);
  }
  if (row.kind == Kind::kRefresh) return SysctlWrite::Taken(*id);
  if (*id == Sysctl::kVmDropCaches) {
    const std::optional<ParsedNumber> bits = TakeNumber(text);
    if (!bits || bits->overflow || bits->negative || bits->magnitude < 1 || bits->magnitude > 4)
      return SysctlWrite::Refused(Errno::kEINVAL);
    Set(*id, bits->magnitude);
    return SysctlWrite::Taken(*id);
  }
  if (row.kind == Kind::kTrigger) return SysctlWrite::Taken(*id);  // compact_memory: whatever is written.
  if (absl::StripAsciiWhitespace(text).empty()) return SysctlWrite::Refused(Errno::kEINVAL);
  if (row.kind == Kind::kRatios) return WriteRatios(text);

  const std::optional<ParsedNumber> number = TakeNumber(text);
  if (!number || number->overflow) return SysctlWrite::Refused(Errno::kEINVAL);
  const uint64_t old = value(*id);
  SysctlWrite written = row.kind == Kind::kUlong || row.kind == Kind::kHugepages ? WriteUlong(*id, number->magnitude, number->negative)
                                                                                 : WriteInt(*id, number->magnitude, number->negative);
  if (written.changed) ClearRival(*id, old);
  return written;
}

SysctlWrite Sysctls::WriteUlong(Sysctl id, uint64_t magnitude, bool negative) {
  if (negative) return SysctlWrite::Taken(id);  // proc_doulongvec_minmax passes over negative numbers.
  const uint64_t longest = layout_ == LayoutKind::kArm64 ? kLongMax : uint64_t{0xffffffff};
  if (magnitude < static_cast<uint64_t>(RowOf(id).minimum) || magnitude > longest) return SysctlWrite::Refused(Errno::kEINVAL);
  const bool dirty_limit = id == Sysctl::kVmDirtyBytes || id == Sysctl::kVmDirtyBackgroundBytes;
  if (dirty_limit && (magnitude + 4095) / 4096 > 0xffffffff) return SysctlWrite::Refused(Errno::kERANGE);
  Set(id, magnitude);
  return SysctlWrite::Taken(id);
}

SysctlWrite Sysctls::WriteInt(Sysctl id, uint64_t magnitude, bool negative) {
  if (magnitude > static_cast<uint64_t>(kIntMax) + (negative ? 1 : 0)) return SysctlWrite::Refused(Errno::kEINVAL);
  const int64_t value = negative ? -static_cast<int64_t>(magnitude) : static_cast<int64_t>(magnitude);
  int64_t minimum = RowOf(id).minimum;
  int64_t maximum = static_cast<int64_t>(RowOf(id).maximum);
  if (id == Sysctl::kVmMmapRndBits) {  // CONFIG_ARCH_MMAP_RND_BITS_MIN, _MAX
    minimum = layout_ == LayoutKind::kArm64 ? 18 : 8;
    maximum = layout_ == LayoutKind::kArm64 ? max_mmap_rnd_bits_ : 16;
  }
  if (value < minimum || value > maximum) return SysctlWrite::Refused(Errno::kEINVAL);
  constexpr int64_t kLeastHighFraction = 8;  // MIN_PERCPU_PAGELIST_HIGH_FRACTION
  if (id == Sysctl::kVmPercpuPagelistHighFraction && value != 0 && value < kLeastHighFraction) return SysctlWrite::Refused(Errno::kEINVAL);
  Set(id, static_cast<uint64_t>(value));
  return SysctlWrite::Taken(id);
}

// Of each such pair only one is in force; writing it clears the other.
void Sysctls::ClearRival(Sysctl id, uint64_t old) {
  switch (id) {
    case Sysctl::kVmOvercommitRatio:
      Set(Sysctl::kVmOvercommitKbytes, 0);
      break;
    case Sysctl::kVmOvercommitKbytes:
      Set(Sysctl::kVmOvercommitRatio, 0);
      break;
    case Sysctl::kVmDirtyRatio:
      if (value(id) != old) Set(Sysctl::kVmDirtyBytes, 0);
      break;
    case Sysctl::kVmDirtyBytes:
      if (value(id) != old) Set(Sysctl::kVmDirtyRatio, 0);
      break;
    case Sysctl::kVmDirtyBackgroundRatio:
      Set(Sysctl::kVmDirtyBackgroundBytes, 0);
      break;
    case Sysctl::kVmDirtyBackgroundBytes:
      Set(Sysctl::kVmDirtyBackgroundRatio, 0);
      break;
    default:
      break;
  }
}

void Sysctls::AddToHash(StateHasher& hasher) const {
  for (uint64_t value : values_) hasher.Add(value);
  for (uint32_t ratio : lowmem_reserve_ratio_) hasher.Add(ratio);
}

}  // namespace mmlab

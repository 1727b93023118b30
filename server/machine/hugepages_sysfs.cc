#include "server/machine/hugepages_sysfs.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/files/files.h"
#include "server/machine/answer.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

// The pool whose folder the path is in, and the rest of the path.
std::optional<size_t> TakePool(const HugetlbPools& pools, absl::string_view& path) {
  if (!absl::ConsumePrefix(&path, kHugepagesFolder)) return std::nullopt;
  for (size_t i = 0; i < pools.pools().size(); ++i) {
    if (absl::ConsumePrefix(&path, absl::StrCat(pools.Name(i), "/"))) return i;
  }
  return std::nullopt;
}

// demote_order: the next smaller size; nothing: there is none.
std::optional<size_t> DemotePool(const HugetlbPools& pools, size_t pool) {
  std::optional<size_t> found;
  for (size_t i = 0; i < pools.pools().size(); ++i) {
    const int order = pools.pool(i).order;
    if (order < pools.pool(pool).order && (!found.has_value() || order > pools.pool(*found).order)) found = i;
  }
  return found;
}

// Sorted. Only ARM64's kernel has NUMA.
std::vector<absl::string_view> Names(bool x86, bool demotes) {
  std::vector<absl::string_view> names;
  if (demotes) names = {"demote", "demote_size"};
  names.insert(names.end(), {"free_hugepages", "nr_hugepages"});
  if (!x86) names.push_back("nr_hugepages_mempolicy");
  names.insert(names.end(), {"nr_overcommit_hugepages", "resv_hugepages", "surplus_hugepages"});
  return names;
}

bool Exists(const HugetlbPools& pools, bool x86, size_t pool, absl::string_view name) {
  const std::vector<absl::string_view> names = Names(x86, DemotePool(pools, pool).has_value());
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

std::optional<std::string> HugepagesText(const HugetlbPools& pools, bool x86, absl::string_view path) {
  const std::optional<size_t> index = TakePool(pools, path);
  if (!index.has_value() || path == "demote" || !Exists(pools, x86, *index, path)) return std::nullopt;
  if (path == "demote_size") return absl::StrCat(absl::StripPrefix(pools.Name(*DemotePool(pools, *index)), "hugepages-"), "\n");
  const HugetlbPool& pool = pools.pool(*index);
  uint64_t count = pool.total;
  if (path == "free_hugepages") count = pool.free.size();
  if (path == "nr_overcommit_hugepages") count = pool.overcommit;
  if (path == "resv_hugepages") count = pool.reserved;
  if (path == "surplus_hugepages") count = pool.surplus;
  return absl::StrCat(count, "\n");
}

std::vector<std::string> HugepagesPaths(const HugetlbPools& pools, bool x86) {
  std::vector<std::string> paths;
  for (size_t i = 0; i < pools.pools().size(); ++i) {
    for (const absl::string_view name : Names(x86, DemotePool(pools, i).has_value())) {
      if (name != "demote") paths.push_back(absl::StrCat(kHugepagesFolder, pools.Name(i), "/", name));
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

Outcome Machine::WriteHugepages(absl::string_view path, absl::string_view value) {
  HugetlbPools& pools = files_->hugetlb();
  const std::string asked(path);
  const std::optional<size_t> pool = TakePool(pools, path);
  if (!pool.has_value() || !Exists(pools, layout_->is_x86(), *pool, path)) return Answer(Errno::kENOENT);
  const auto not_simulated = [&](absl::string_view why) {
    Outcome outcome = Answer(Errno::kENOSYS);
    outcome.unimplemented = absl::StrCat(asked, ": ", why);
    return outcome;
  };
  if (path == "demote" || path == "demote_size") return not_simulated("making smaller huge pages of large ones is not simulated yet");
  absl::ConsumeSuffix(&value, "\n");
  absl::ConsumePrefix(&value, "+");
  uint64_t count = 0;
  const bool sets_pool = path == "nr_hugepages" || path == "nr_hugepages_mempolicy";
  if (!sets_pool && path != "nr_overcommit_hugepages") return Answer(Errno::kEACCES);
  if (value.empty() || value[0] < '0' || value[0] > '9' || !absl::SimpleAtoi(value, &count)) return Answer(Errno::kEINVAL);
  if (layout_->word_bytes == 4 && count > 0xffffffff) return Answer(Errno::kERANGE);
  Errno error = Errno::kOk;
  if (sets_pool && !pools.SetMaximum(*pool, count)) {
    return not_simulated("huge pages larger than the page allocator's blocks are not simulated yet; only 0 can be written");
  }
  if (!sets_pool) error = pools.SetOvercommit(*pool, count);
  ShowHugetlbSysctls();
  return Answer(error);
}

}  // namespace mmlab

#include "server/machine/hugepages_sysfs.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/files/files.h"
#include "server/machine/answer.h"
#include "server/machine/boot_arguments.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

// One attribute of one pool.
struct HugeAttribute {
  size_t pool = 0;
  bool of_node = false;
  absl::string_view name;
};

// Sorted. Only ARM64's kernel has NUMA.
std::vector<absl::string_view> Names(bool x86, bool demotes, bool of_node) {
  std::vector<absl::string_view> names;
  if (demotes) names = {"demote", "demote_size"};
  names.insert(names.end(), {"free_hugepages", "nr_hugepages"});
  if (of_node) {
    names.push_back("surplus_hugepages");
    return names;
  }
  if (!x86) names.push_back("nr_hugepages_mempolicy");
  names.insert(names.end(), {"nr_overcommit_hugepages", "resv_hugepages", "surplus_hugepages"});
  return names;
}

// Nothing: there is no such attribute.
std::optional<HugeAttribute> Find(const HugetlbPools& pools, bool x86, absl::string_view path) {
  HugeAttribute place;
  place.of_node = !x86 && absl::ConsumePrefix(&path, kNodeHugepagesFolder);
  if (!place.of_node && !absl::ConsumePrefix(&path, kHugepagesFolder)) return std::nullopt;
  for (; place.pool < pools.pools().size(); ++place.pool) {
    if (!absl::ConsumePrefix(&path, absl::StrCat(pools.Name(place.pool), "/"))) continue;
    const std::vector<absl::string_view> names = Names(x86, pools.pool(place.pool).demote_order != 0, place.of_node);
    const auto name = std::find(names.begin(), names.end(), path);
    if (name == names.end()) return std::nullopt;
    place.name = *name;
    return place;
  }
  return std::nullopt;
}

std::string SizeText(const HugetlbPools& pools, int order) {
  size_t pool = 0;
  while (pools.pool(pool).order != order) ++pool;
  return std::string(absl::StripPrefix(pools.Name(pool), "hugepages-"));
}

}  // namespace

std::optional<std::string> HugepagesText(const HugetlbPools& pools, bool x86, absl::string_view path) {
  const std::optional<HugeAttribute> place = Find(pools, x86, path);
  if (!place.has_value() || place->name == "demote") return std::nullopt;
  const HugetlbPool& pool = pools.pool(place->pool);
  if (place->name == "demote_size") return absl::StrCat(SizeText(pools, pool.demote_order), "\n");
  uint64_t count = pool.total;
  if (place->name == "free_hugepages") count = pool.free.size();
  if (place->name == "nr_overcommit_hugepages") count = pool.overcommit;
  if (place->name == "resv_hugepages") count = pool.reserved;
  if (place->name == "surplus_hugepages") count = pool.surplus;
  return absl::StrCat(count, "\n");
}

std::vector<std::string> HugepagesPaths(const HugetlbPools& pools, bool x86) {
  std::vector<std::string> paths;
  for (size_t i = 0; i < pools.pools().size(); ++i) {
    for (const bool of_node : {false, true}) {
      if (of_node && x86) continue;
      for (const absl::string_view name : Names(x86, pools.pool(i).demote_order != 0, of_node)) {
        if (name == "demote") continue;
        paths.push_back(absl::StrCat(of_node ? kNodeHugepagesFolder : kHugepagesFolder, pools.Name(i), "/", name));
      }
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

Outcome Machine::WriteHugepages(absl::string_view path, absl::string_view value) {
  HugetlbPools& pools = files_->hugetlb();
  const std::optional<HugeAttribute> place = Find(pools, layout_->is_x86(), path);
  if (!place.has_value()) return Answer(Errno::kENOENT);
  if (place->name == "demote_size") return Answer(pools.SetDemoteSize(place->pool, ParseMemory(value)));
  const bool overcommit = place->name == "nr_overcommit_hugepages";
  const bool demote = place->name == "demote";
  if (!overcommit && !demote && place->name != "nr_hugepages" && place->name != "nr_hugepages_mempolicy") return Answer(Errno::kEACCES);
  if (overcommit && pools.pool(place->pool).gigantic()) return Answer(Errno::kEINVAL);
  absl::ConsumeSuffix(&value, "\n");
  absl::ConsumePrefix(&value, "+");
  uint64_t count = 0;
  if (value.empty() || value[0] < '0' || value[0] > '9' || !absl::SimpleAtoi(value, &count)) return Answer(Errno::kEINVAL);
  if (layout_->word_bytes == 4 && count > 0xffffffff) return Answer(Errno::kERANGE);
  Errno error = Errno::kOk;
  if (overcommit) {
    error = pools.SetOvercommit(place->pool, count);
  } else if (demote) {
    pools.Demote(place->pool, count);
  } else {
    pools.SetMaximum(place->pool, count);
  }
  ShowHugetlbSysctls();
  return Answer(error);
}

}  // namespace mmlab

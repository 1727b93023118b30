#include "server/machine/hugetlb_boot.h"

#include <algorithm>
#include <utility>

#include "server/files/hugetlb_pools.h"
#include "server/machine/boot_arguments.h"

namespace mmlab {

HugetlbPlan PlanHugetlb(absl::string_view command_line, const Layout& layout) {
  using Kind = HugetlbArgument::Kind;
  const HugetlbPools::Sizes sizes = HugetlbPools::SizesOf(layout);
  HugetlbPlan plan{std::vector<uint64_t>(sizes.orders.size()), sizes.default_pool};
  std::vector<uint64_t>& counts = plan.counts;
  const auto find = [&](uint64_t bytes) {
    size_t pool = 0;
    while (pool < counts.size() && layout.page_size.bytes().raw() << sizes.orders[pool] != bytes) ++pool;
    return pool;
  };
  std::vector<bool> added(counts.size());
  uint64_t first_count = 0;  // Of the default size, given before any size was named.
  size_t current = counts.size();
  bool known = true, default_named = false;
  for (const HugetlbArgument& argument : ParseBootArguments(command_line).hugetlb) {
    if (argument.kind == Kind::kPages) {
      const bool named = std::find(added.begin(), added.end(), true) != added.end();
      if (known && !named && first_count == 0) first_count = argument.value;
      if (known && named && current < counts.size()) counts[current] = argument.value;
      if (known) current = counts.size();
      known = true;
      continue;
    }
    const size_t pool = find(argument.value);
    known = pool < counts.size();
    if (known && argument.kind == Kind::kSize) known = !added[pool] || (default_named && pool == plan.default_pool && counts[pool] == 0);
    if (known && argument.kind == Kind::kDefaultSize) known = !default_named;
    if (!known) continue;
    added[pool] = true;
    current = pool;
    if (argument.kind == Kind::kSize) continue;
    default_named = true;
    plan.default_pool = pool;
    counts[pool] = std::exchange(first_count, 0);
  }
  if (counts[plan.default_pool] == 0) counts[plan.default_pool] = first_count;
  return plan;
}

}  // namespace mmlab

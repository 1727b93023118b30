#ifndef MMLAB_SERVER_MACHINE_HUGETLB_BOOT_H_
#define MMLAB_SERVER_MACHINE_HUGETLB_BOOT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/arch/layout.h"

namespace mmlab {

// What a gigantic page is reserved for before the page allocator starts.
inline constexpr absl::string_view kBootHugePage = "huge page of a pool";

// What a command line asks of the pools of huge pages, by pool in the order of HugetlbPools::SizesOf().
struct HugetlbPlan {
  std::vector<uint64_t> counts;
  size_t default_pool = 0;
};
// hugepages=, hugepagesz=, default_hugepagesz=, in their order. A size that the architecture lacks is passed over with the number behind
// it, as is a second number for the same pool. Linux: hugepages_setup(), hugepagesz_setup(), default_hugepagesz_setup().
HugetlbPlan PlanHugetlb(absl::string_view command_line, const Layout& layout);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_HUGETLB_BOOT_H_

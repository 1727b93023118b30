#include "server/metrics/collector_choice.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"

namespace mmlab {
namespace {

constexpr char kDefault[] = "buddyinfo cpu loadavg meminfo mmlab pressure processes stat swap time uname vmstat zoneinfo";
constexpr char kDefaultAndSlabinfo[] =
    "buddyinfo cpu loadavg meminfo mmlab pressure processes slabinfo stat swap time uname vmstat zoneinfo";

struct Case {
  const char* name;
  std::vector<std::pair<std::string, std::string>> query;
  std::string chosen;  // Empty: refused.
};
class CollectorChoiceTest : public testing::TestWithParam<Case> {};

TEST_P(CollectorChoiceTest, FollowsTheQuery) {
  HttpRequest request;
  for (const auto& parameter : GetParam().query) request.query.insert(parameter);
  const auto chosen = ChooseCollectors(request);
  if (GetParam().chosen.empty()) {
    EXPECT_EQ(chosen.status().code(), absl::StatusCode::kInvalidArgument);
    return;
  }
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ(absl::StrJoin(*chosen, " ", [](std::string* out, const Collector* c) { out->append(c->name.data(), c->name.size()); }),
            GetParam().chosen);
}

INSTANTIATE_TEST_SUITE_P(Queries, CollectorChoiceTest,
                         testing::Values(Case{"Default", {}, kDefault},
                                         Case{"AsNodeExporter", {{"collect[]", "vmstat"}, {"collect[]", "meminfo"}}, "meminfo vmstat"},
                                         Case{"AsDiscoverySets", {{"collect", "vmstat, meminfo,"}}, "meminfo vmstat"},
                                         Case{"BothForms", {{"collect", "uname"}, {"collect[]", "time"}}, "time uname"},
                                         Case{"OnRequest", {{"collect", "pagetypeinfo,vmstat_all"}}, "pagetypeinfo vmstat_all"},
                                         Case{"EmptyList", {{"collect", ""}}, kDefault},
                                         Case{"Exclude",
                                              {{"exclude[]", "mmlab"}, {"exclude[]", "zoneinfo"}},
                                              "buddyinfo cpu loadavg meminfo pressure processes stat swap time uname vmstat"},
                                         Case{"Both", {{"collect[]", "vmstat"}, {"exclude[]", "mmlab"}}, ""},
                                         Case{"Unknown", {{"collect[]", "nosuch"}}, ""},
                                         Case{"UnknownInList", {{"collect", "vmstat,nosuch"}}, ""},
                                         Case{"UnknownExclude", {{"exclude[]", "nosuch"}}, ""}, Case{"EmptyName", {{"collect[]", ""}}, ""},
                                         Case{"DefaultAndMore", {{"collect", "default,slabinfo"}}, kDefaultAndSlabinfo},
                                         Case{"NotWithoutDefault", {{"exclude[]", "default"}}, ""}),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace mmlab
